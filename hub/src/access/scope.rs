//! Where a right holds: clusters, namespaces and repositories, exact or with `*`. Pure.

use serde::{Deserialize, Serialize};

/// Most patterns of one list.
const PATTERNS: usize = 200;
/// Longest pattern.
const LONGEST: usize = 253;

/// Names, exact or with `*` for any characters. An empty list takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Patterns(Vec<String>);

/// What is wrong with a pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadPattern {
    #[error("the pattern {0:?} must be 1 to 253 visible ASCII characters without a comma")]
    Characters(String),
    #[error("a scope takes at most {PATTERNS} patterns of each kind")]
    TooMany,
}

impl Patterns {
    /// Patterns that were checked. One that takes everything makes the list take everything.
    ///
    /// # Errors
    /// When one of them could not be a name.
    pub fn new(patterns: &[String]) -> Result<Patterns, BadPattern> {
        if patterns.len() > PATTERNS {
            return Err(BadPattern::TooMany);
        }
        let proper = |text: &str| {
            (1..=LONGEST).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() && c != ',')
        };
        if let Some(bad) = patterns.iter().find(|text| !proper(text)) {
            return Err(BadPattern::Characters(bad.clone()));
        }
        if patterns.iter().any(|pattern| pattern.chars().all(|c| c == '*')) {
            return Ok(Patterns::default());
        }
        Ok(Patterns(patterns.to_vec()))
    }

    /// Whether everything is taken, also what has no name.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name is taken.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        self.is_everything() || self.0.iter().any(|pattern| matches(pattern, name))
    }

    /// As they were written.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// Whether a name fits a pattern, `*` for any characters. Linear in pattern × name at worst.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = name.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    name.ends_with(last)
}

/// Where a right holds. Every list must take what a thing has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    pub clusters: Patterns,
    pub namespaces: Patterns,
    /// Names of ResticRepositories, or restic ids.
    pub repositories: Patterns,
}

impl Scope {
    /// Whether it is the whole fleet.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.clusters.is_everything() && self.is_whole_clusters()
    }

    /// Whether it takes all of the clusters that it takes.
    #[must_use]
    pub fn is_whole_clusters(&self) -> bool {
        self.namespaces.is_everything() && self.repositories.is_everything()
    }

    /// Whether it takes a resource; `repository` are the names by which its repository is known.
    #[must_use]
    pub fn takes(&self, cluster: &str, namespace: &str, repository: &[&str]) -> bool {
        self.clusters.takes(cluster) && self.namespaces.takes(namespace) && self.takes_repository(repository)
    }

    /// Whether it takes a repository by one of its names.
    #[must_use]
    pub fn takes_repository(&self, names: &[&str]) -> bool {
        let named = |name: &&str| !name.is_empty() && self.repositories.takes(name);
        self.repositories.is_everything() || names.iter().any(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        Patterns::new(&texts).unwrap()
    }

    #[test]
    fn a_star_is_any_characters() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("prod-*", "prod-eu", true),
            ("prod-*", "prod", false),
            ("*-eu", "prod-eu", true),
            ("p*d-*u", "prod-eu", true),
            ("ab*ba", "aba", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
        ] {
            assert_eq!(patterns(&[pattern]).takes(name), fits, "{pattern} {name}");
        }
        assert!(patterns(&["x", "**"]).is_everything());
        assert!(!patterns(&["x"]).takes(""));
        for wrong in ["", "a b", "a,b", "ä", "a\n"] {
            assert!(Patterns::new(&[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_repository_without_a_name_is_in_no_list() {
        let scope = Scope {
            repositories: patterns(&["nas*"]),
            ..Scope::default()
        };
        assert!(scope.takes("a", "ns", &["", "nas"]));
        assert!(!scope.takes("a", "ns", &[""]));
        assert!(Scope::default().takes("a", "ns", &[]));
    }
}
