//! Credentials: which value of which Secret of the other tool becomes which variable of ours. Values are read only where a
//! Secret is made, and are never printed. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::{FROM, Place, Plan, SOURCE};

/// Secrets that were read, by namespace and name, with their values as texts.
pub type Secrets = BTreeMap<(String, String), BTreeMap<String, String>>;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub secret: String,
    pub key: String,
    pub part: Part,
}

/// Which part of a value is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// A line `name = value` or `NAME=value` in a file, below `[section]` where one is given.
    Line {
        section: String,
        name: String,
    },
    /// No Secret at all: the value stood in the open.
    Literal(String),
}

impl Source {
    /// All of a value.
    #[must_use]
    pub fn whole(secret: &str, key: &str) -> Source {
        Source {
            secret: secret.to_owned(),
            key: key.to_owned(),
            part: Part::Whole,
        }
    }

    /// A line of a value.
    #[must_use]
    pub fn line(secret: &str, key: &str, section: &str, name: &str) -> Source {
        Source {
            part: Part::Line {
                section: section.to_owned(),
                name: name.to_owned(),
            },
            ..Source::whole(secret, key)
        }
    }

    /// A value that stood in the open.
    #[must_use]
    pub fn literal(value: &str) -> Source {
        Source {
            part: Part::Literal(value.to_owned()),
            ..Source::whole("", "")
        }
    }

    /// How a person finds it.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.part {
            Part::Whole => format!("key {} of Secret {}", self.key, self.secret),
            Part::Line { name, .. } => format!("{name} in key {} of Secret {}", self.key, self.secret),
            Part::Literal(_) => "a value that stands in the open".to_owned(),
        }
    }

    /// The value.
    ///
    /// # Errors
    /// What is missing.
    pub fn value(&self, namespace: &str, secrets: &Secrets) -> Result<String, String> {
        if let Part::Literal(value) = &self.part {
            return Ok(value.clone());
        }
        let secret = secrets.get(&(namespace.to_owned(), self.secret.clone()));
        let secret = secret.ok_or_else(|| format!("there is no Secret {namespace}/{}", self.secret))?;
        let value = secret.get(&self.key);
        let value =
            value.ok_or_else(|| format!("Secret {namespace}/{} has no key {}", self.secret, self.key))?;
        match &self.part {
            Part::Line { section, name } => {
                let missing = || {
                    format!(
                        "key {} of Secret {namespace}/{} has no {name}",
                        self.key, self.secret
                    )
                };
                line(value, section, name).ok_or_else(missing)
            }
            _ => Ok(value.clone()),
        }
    }
}

/// A Secret to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSecret {
    pub namespace: String,
    pub name: String,
    pub tool: &'static str,
    /// Whose credentials they are, as in the annotation of resources.
    pub source: String,
    /// Namespace of the Secrets that it is made of.
    pub from: String,
    pub entries: BTreeMap<String, Source>,
}

impl NewSecret {
    /// The manifest with its values.
    ///
    /// # Errors
    /// What is missing.
    pub fn manifest(&self, secrets: &Secrets) -> Result<Value, String> {
        let mut data = BTreeMap::new();
        for (name, source) in &self.entries {
            data.insert(name, source.value(&self.from, secrets)?);
        }
        let mut manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": self.name, "namespace": self.namespace, "labels": { FROM: self.tool } },
            "stringData": data,
        });
        if !self.source.is_empty() {
            manifest["metadata"]["annotations"] = json!({ SOURCE: self.source });
        }
        Ok(manifest)
    }
}

/// `credentialsSecretRef` of the repository that is added at this place next: the other tool's own Secret where it has what
/// we need under our names, else one that is added to the plan and named after the repository.
#[must_use]
pub fn reference(plan: &mut Plan, place: &Place, entries: BTreeMap<String, Source>) -> Value {
    let mut used = entries.values().map(|source| source.secret.as_str());
    let first = used.next().unwrap_or_default().to_owned();
    let as_it_is = used.all(|secret| secret == first)
        && entries.iter().all(|(variable, source)| {
            let password = variable == "RESTIC_PASSWORD";
            source.part == Part::Whole && (source.key == *variable || password)
        });
    if as_it_is && !first.is_empty() {
        let key = entries.get("RESTIC_PASSWORD").map(|source| source.key.as_str());
        return match key.filter(|key| *key != "RESTIC_PASSWORD") {
            Some(key) => json!({ "name": first, "key": key }),
            None => json!({ "name": first }),
        };
    }
    let repository = plan.free("ResticRepository", &place.namespace, &place.name);
    let name = format!("{repository}-restic");
    plan.secrets.push(NewSecret {
        namespace: place.namespace.clone(),
        name: name.clone(),
        tool: plan.tool.as_str(),
        source: place.source.clone(),
        from: place.namespace.clone(),
        entries,
    });
    json!({ "name": name })
}

/// A URL without user and password: anybody who may read a resource sees it. They become variables, in a Secret that is
/// made.
#[must_use]
pub fn without_user(url: &str, entries: &mut BTreeMap<String, Source>) -> String {
    let Some((head, rest)) = url.split_once("://").filter(|_| url.starts_with("rest:")) else {
        return url.to_owned();
    };
    // An @ behind the first slash belongs to the path. Before it the last one counts: a password may hold one.
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    for (variable, value) in [("RESTIC_REST_USERNAME", user), ("RESTIC_REST_PASSWORD", password)] {
        entries.insert(variable.to_owned(), Source::literal(&decoded(value)));
    }
    format!("{head}://{host}{path}")
}

/// Where a repository lies, however its URL is written.
#[must_use]
pub fn location(url: &str) -> String {
    let url = without_user(url.trim(), &mut BTreeMap::new());
    url.trim_end_matches('/').to_owned()
}

/// Without `%41` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a variable is one of restic or of its back ends.
#[must_use]
pub fn is_of_restic(name: &str) -> bool {
    const PREFIXES: [&str; 9] = [
        "RESTIC_", "AWS_", "AZURE_", "GOOGLE_", "B2_", "OS_", "ST_", "RCLONE_", "SSH_",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Variables of ours among the keys of a Secret.
#[must_use]
pub fn variables(secret: &str, keys: &BTreeMap<String, String>) -> BTreeMap<String, Source> {
    // What ours has in other places, or does not take.
    const NOT: [&str; 5] = [
        "RESTIC_REPOSITORY",
        "RESTIC_HOST",
        "RESTIC_CACHE_DIR",
        "RESTIC_PROGRESS_FPS",
        "RESTIC_PASSWORD_FILE",
    ];
    let ours = keys
        .keys()
        .filter(|key| is_of_restic(key))
        // A command is run by restic.
        .filter(|key| !NOT.contains(&key.as_str()) && !key.ends_with("_COMMAND"));
    ours.map(|key| (key.clone(), Source::whole(secret, key)))
        .collect()
}

/// The value behind a name in a file of lines.
fn line(text: &str, section: &str, name: &str) -> Option<String> {
    let mut here = section.is_empty();
    for line in text.lines().map(str::trim) {
        if let Some(begun) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            here = section.is_empty() || begun.trim() == section;
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| here) else {
            continue;
        };
        if key.trim().eq_ignore_ascii_case(name) {
            let value = value.trim();
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            return Some(quoted.unwrap_or(value).to_owned());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::arguments::Tool;

    fn entries(list: &[(&str, &str, &str)]) -> BTreeMap<String, Source> {
        let entry =
            |(name, secret, key): &(&str, &str, &str)| ((*name).to_owned(), Source::whole(secret, key));
        list.iter().map(entry).collect()
    }

    fn place() -> Place {
        Place {
            namespace: "shop".to_owned(),
            name: "data".to_owned(),
            source: "cronjobs.batch/shop/data".to_owned(),
        }
    }

    #[test]
    fn two_repositories_of_one_name_have_a_secret_each() {
        let mut plan = Plan::new(Tool::Cron, false);
        let mut names = Vec::new();
        for password in ["p", "q"] {
            let literal = [("RESTIC_PASSWORD".to_owned(), Source::literal(password))].into();
            let secret = reference(&mut plan, &place(), literal);
            let repository = plan.repository(&place(), "s3:x/y", &secret, json!({}));
            names.push((repository, secret["name"].as_str().unwrap_or_default().to_owned()));
        }
        let of = |name: &str| (name.to_owned(), format!("{name}-restic"));
        assert_eq!(names, [of("data"), of("data-2")]);
    }

    #[test]
    fn a_secret_that_has_our_names_is_used_as_it_is() {
        let mut plan = Plan::new(Tool::Volsync, false);
        let same = entries(&[
            ("RESTIC_PASSWORD", "r", "RESTIC_PASSWORD"),
            ("AWS_ACCESS_KEY_ID", "r", "AWS_ACCESS_KEY_ID"),
        ]);
        assert_eq!(reference(&mut plan, &place(), same), json!({ "name": "r" }));
        let password = entries(&[("RESTIC_PASSWORD", "r", "password")]);
        let wanted = json!({ "name": "r", "key": "password" });
        assert_eq!(reference(&mut plan, &place(), password), wanted);
        assert!(plan.secrets.is_empty());
        let two = entries(&[
            ("RESTIC_PASSWORD", "r", "RESTIC_PASSWORD"),
            ("AWS_ACCESS_KEY_ID", "s3", "AWS_ACCESS_KEY_ID"),
        ]);
        assert_eq!(
            reference(&mut plan, &place(), two),
            json!({ "name": "data-restic" })
        );
        assert_eq!(plan.secrets.len(), 1);
    }

    #[test]
    fn a_secret_is_made_of_parts_and_what_is_missing_is_named() {
        let file = "[other]\naws_access_key_id=no\n[default]\naws_access_key_id = AK\naws_secret_access_key=\"s=k\"\n";
        let secrets = Secrets::from([(
            ("velero".to_owned(), "cloud".to_owned()),
            BTreeMap::from([("cloud".to_owned(), file.to_owned())]),
        )]);
        let mut new = NewSecret {
            namespace: "velero".to_owned(),
            name: "x".to_owned(),
            tool: "velero",
            source: "namespaces/shop/shop".to_owned(),
            from: "velero".to_owned(),
            entries: BTreeMap::from([
                (
                    "AWS_ACCESS_KEY_ID".to_owned(),
                    Source::line("cloud", "cloud", "default", "aws_access_key_id"),
                ),
                (
                    "AWS_SECRET_ACCESS_KEY".to_owned(),
                    Source::line("cloud", "cloud", "default", "aws_secret_access_key"),
                ),
            ]),
        };
        let made = new.manifest(&secrets).unwrap();
        assert_eq!(
            made["stringData"],
            json!({ "AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "s=k" })
        );
        let gone = Source::whole("velero-repo-credentials", "repository-password");
        new.entries.insert("RESTIC_PASSWORD".to_owned(), gone);
        let missing = new.manifest(&secrets).unwrap_err();
        assert!(missing.contains("velero/velero-repo-credentials"), "{missing}");
    }

    #[test]
    fn a_password_in_a_url_becomes_a_variable() {
        let mut entries = BTreeMap::new();
        let url = without_user("rest:https://u%40x:a@b%3A@host:8000/p", &mut entries);
        assert_eq!(url, "rest:https://host:8000/p");
        assert_eq!(entries["RESTIC_REST_USERNAME"], Source::literal("u@x"));
        assert_eq!(entries["RESTIC_REST_PASSWORD"], Source::literal("a@b:"));
        let mut entries = BTreeMap::new();
        for plain in [
            "s3:http://minio:9000/b",
            "sftp:user@host:/srv",
            "rest:http://host/",
            "rest:http://host/a:b@c",
            "sftp://backup@nas//srv",
        ] {
            assert_eq!(without_user(plain, &mut entries), plain);
        }
        assert!(entries.is_empty());
    }

    #[test]
    fn only_variables_of_restic_and_its_back_ends_are_taken() {
        let keys = [
            "RESTIC_REPOSITORY",
            "RESTIC_PASSWORD",
            "AWS_REGION",
            "PGPASSWORD",
            "RESTIC_HOST",
            "RESTIC_PASSWORD_COMMAND",
            "RESTIC_FROM_PASSWORD_COMMAND",
        ];
        let keys = keys.map(|key| (key.to_owned(), "x".to_owned())).into();
        let found = variables("r", &keys);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["AWS_REGION", "RESTIC_PASSWORD"]);
    }
}
