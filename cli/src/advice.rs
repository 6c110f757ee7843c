//! What a reason means and what to do about it: out of docs/conditions.md, so that page and program cannot differ.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The page, as it was when this program was built.
const PAGE: &str = include_str!("../../docs/conditions.md");
/// Where more stands.
const FILE: &str = "docs/conditions.md";

/// What one row of the page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    pub means: String,
    /// What to do; empty where the page names nothing.
    pub todo: String,
    /// Page and section.
    pub page: String,
}

/// Rows by kind and reason. The first one of a kind counts: the page has the most frequent case first.
static ADVICE: LazyLock<HashMap<(&'static str, String), Advice>> = LazyLock::new(|| parse(PAGE));

/// Kinds as the sections of the page name them.
const KINDS: [&str; 4] = [
    "ResticRepository",
    "ResticBackup",
    "ResticRestore",
    "GlobalRetentionPolicy",
];
/// The section about what runs report, which are of backups and restores.
const RESULTS: &str = "Results of runs";

/// What the page says about a reason of a kind such as "ResticBackup".
#[must_use]
pub fn advice(kind: &str, reason: &str) -> Option<&'static Advice> {
    let sections = [kind, RESULTS, "ResticRepository"];
    let known = KINDS.into_iter().chain([RESULTS]);
    let known: Vec<&'static str> = known.filter(|name| sections.contains(name)).collect();
    sections.into_iter().find_map(|section| {
        let section = known.iter().find(|name| **name == section)?;
        ADVICE.get(&(*section, reason.to_owned()))
    })
}

fn parse(page: &str) -> HashMap<(&'static str, String), Advice> {
    let mut found = HashMap::new();
    let (mut kind, mut section) = (None, String::new());
    let mut header: Vec<String> = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            kind = KINDS.into_iter().chain([RESULTS]).find(|k| title.starts_with(k));
            section = anchor(title);
            header.clear();
        } else if !line.starts_with('|') {
            header.clear();
        } else if header.is_empty() {
            header = cells(line);
        } else if let Some(kind) = kind.filter(|_| !line.starts_with("|--") && !line.starts_with("| --")) {
            row(kind, &section, &header, &cells(line), &mut found);
        }
    }
    found
}

fn row(
    kind: &'static str,
    section: &str,
    header: &[String],
    cells: &[String],
    found: &mut HashMap<(&'static str, String), Advice>,
) {
    let of = |name: &str| {
        let at = header.iter().position(|title| title == name)?;
        cells.get(at).map(String::as_str)
    };
    let Some(reasons) = of("reason") else { return };
    // "`X`: …" is about one of the reasons of its row.
    let only = of("means").and_then(|means| means.strip_prefix('`')?.split_once("`:"));
    let only = only.map(|(reason, _)| reason);
    let advice = Advice {
        means: plain(of("means").unwrap_or_default()),
        todo: Some(plain(of("what to do").unwrap_or_default()))
            .filter(|todo| todo != "nothing")
            .unwrap_or_default(),
        page: format!("{FILE}#{section}"),
    };
    // Every second part stands between backticks.
    let reasons = reasons.split('`').skip(1).step_by(2);
    for reason in reasons.filter(|reason| only.is_none_or(|only| only == *reason)) {
        found
            .entry((kind, reason.to_owned()))
            .or_insert_with(|| advice.clone());
    }
}

/// Cells of a line, where `\|` is a character of a cell.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').replace("\\|", "\u{1}");
    let cells = line.trim_end_matches('|').split('|');
    cells.map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// Without links and backticks.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let link = rest.get(open..).and_then(|from| {
            let middle = from.find("](")?;
            let end = from.get(middle..)?.find(')')? + middle;
            Some((from.get(1..middle)?, from.get(end + 1..)?))
        });
        out.push_str(rest.get(..open).unwrap_or_default());
        match link {
            Some((label, after)) => {
                out.push_str(label);
                rest = after;
            }
            None => {
                out.push('[');
                rest = rest.get(open + 1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out.replace('`', "")
}

/// As GitHub makes it of a title.
fn anchor(title: &str) -> String {
    let lower = title.trim().to_lowercase();
    let kept = lower
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_on_the_page() {
        let advice = advice("ResticRepository", "WrongPassword").unwrap();
        assert!(advice.todo.starts_with("correct RESTIC_PASSWORD"), "{advice:?}");
        assert_eq!(advice.page, "docs/conditions.md#resticrepository-condition-ready");
    }

    #[test]
    fn a_backup_has_the_reasons_of_its_runs_and_of_its_repository() {
        for reason in [
            "PersistentVolumeClaimNotFound",
            "OutOfMemory",
            "WrongPassword",
            "FailedCreate",
        ] {
            let advice = advice("ResticBackup", reason).unwrap_or_else(|| panic!("{reason}"));
            assert!(!advice.means.is_empty() || !advice.todo.is_empty(), "{reason}");
        }
        let password = advice("ResticBackup", "WrongPassword").unwrap();
        assert!(password.page.contains("#resticrepository"), "{password:?}");
        assert_eq!(super::advice("ResticBackup", "NoSuchReason"), None);
        assert_eq!(super::advice("Nonsense", "BackupConfigured"), None);
    }

    #[test]
    fn a_policy_has_the_reasons_of_its_repository_and_of_its_objects() {
        for reason in [
            "RepositoryNotFound",
            "RepositoryNotReady",
            "NamespaceNotAllowed",
            "CronJobFailed",
            "ApiError",
            "Crashed",
        ] {
            let advice = advice("GlobalRetentionPolicy", reason).unwrap_or_else(|| panic!("{reason}"));
            assert!(
                advice.page.ends_with("#globalretentionpolicy"),
                "{reason}: {}",
                advice.page
            );
            assert!(!advice.means.is_empty(), "{reason}");
        }
    }

    #[test]
    fn nothing_of_the_markup_is_left() {
        assert!(ADVICE.len() > 80, "{}", ADVICE.len());
        for (of, advice) in ADVICE.iter() {
            let text = format!("{} {}", advice.means, advice.todo);
            assert!(!text.contains('`') && !text.contains("]("), "{of:?}: {text}");
        }
    }

    #[test]
    fn each_page_that_is_named_has_that_section() {
        let titles = PAGE.lines().filter_map(|line| line.strip_prefix("## "));
        let anchors: Vec<String> = titles.map(anchor).collect();
        for advice in ADVICE.values() {
            let (_, anchor) = advice.page.split_once('#').unwrap();
            assert!(anchors.iter().any(|known| known == anchor), "{anchor}");
        }
    }
}
