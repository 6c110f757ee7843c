//! Arguments and output of the restic commands that decide about snapshots. Pure.

use crds::rules::{BadRule, Rule};
use proto::v1::RetentionRule;
use serde::Deserialize;

use super::plan::Decision;

/// Unless a rule has its own: snapshots of one backup with one set of tags are a group, of which it keeps so many. The tags tell clusters and
/// backups apart (`fleet.cluster`, `fleet.backup`): equal host names in two clusters must not count as one.
const GROUPS: &str = "host,paths,tags";
/// Flags for [`RetentionRule::counts`] and [`RetentionRule::spans`].
const COUNTS: [&str; 6] = [
    "--keep-last",
    "--keep-hourly",
    "--keep-daily",
    "--keep-weekly",
    "--keep-monthly",
    "--keep-yearly",
];
const SPANS: [&str; 6] = [
    "--keep-within",
    "--keep-within-hourly",
    "--keep-within-daily",
    "--keep-within-weekly",
    "--keep-within-monthly",
    "--keep-within-yearly",
];

/// `restic forget --dry-run` for one rule, without a lock.
#[must_use]
pub fn dry_run(rule: &RetentionRule) -> Vec<String> {
    let mut arguments: Vec<String> = ["forget", "--dry-run", "--no-lock", "--json", "--group-by"]
        .map(str::to_owned)
        .into();
    arguments.push(if rule.group_by.is_empty() {
        GROUPS.to_owned()
    } else {
        rule.group_by.join(",")
    });
    // One flag with all of them: several flags would mean any of them.
    if !rule.tags.is_empty() {
        arguments.extend(["--tag".to_owned(), rule.tags.join(",")]);
    }
    if !rule.hostname.is_empty() {
        arguments.extend(["--host".to_owned(), rule.hostname.clone()]);
    }
    for (flag, count) in COUNTS.into_iter().zip(rule.counts()) {
        if count > 0 {
            arguments.extend([flag.to_owned(), count.to_string()]);
        }
    }
    for (flag, span) in SPANS.into_iter().zip(rule.spans()) {
        if !span.is_empty() {
            arguments.extend([flag.to_owned(), span.to_owned()]);
        }
    }
    for tag in &rule.keep_tags {
        arguments.extend(["--keep-tag".to_owned(), tag.clone()]);
    }
    arguments
}

/// Whether restic would take a rule as it is written. A rule that it refuses is not given to it: its texts would stand
/// in an error message that has to be told apart from those about storage.
///
/// # Errors
/// What is wrong with it.
pub fn check(rule: &RetentionRule) -> Result<(), BadRule> {
    Rule {
        tags: &rule.tags,
        hostname: &rule.hostname,
        counts: rule.counts().map(i64::from),
        spans: rule.spans(),
        keep_tags: &rule.keep_tags,
        group_by: &rule.group_by,
    }
    .check()
}

/// What restic prints when it is the rule that is wrong, and not the storage.
const REFUSALS: [&str; 4] = [
    "invalid argument ",
    "no policy was specified",
    "refusing to delete last snapshot",
    "durations containing negative values",
];

/// Whether restic's message is about the rule.
#[must_use]
pub fn is_refusal(message: &str) -> bool {
    REFUSALS.iter().any(|text| message.starts_with(text))
}

/// Why `restic prune` must not go on after a line of its output: a REST server's 404 to the listing of snapshots is an
/// empty list to restic, and all data would be unused. `staying` is how many snapshots there are at least.
#[must_use]
pub fn prune_alarm(line: &str, staying: usize) -> Option<String> {
    let rest = line.strip_prefix("finding data that is still in use for ")?;
    let found: usize = rest.split(' ').next()?.parse().ok()?;
    (found < staying).then(|| {
        format!("it found {found} of {staying} snapshots, and was killed before it removed their data")
    })
}

/// Names of all snapshot files, without opening them.
#[must_use]
pub fn list_names() -> Vec<String> {
    ["list", "snapshots", "--no-lock"].map(str::to_owned).into()
}

/// Ids out of `restic list snapshots`.
///
/// # Errors
/// The first line that is none.
pub fn names(stdout: &[u8]) -> Result<Vec<String>, String> {
    let text = String::from_utf8_lossy(stdout);
    let is_id = |line: &str| line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit());
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            is_id(line)
                .then(|| line.to_owned())
                .ok_or_else(|| line.to_owned())
        })
        .collect()
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    keep: Option<Vec<Id>>,
    #[serde(default)]
    remove: Option<Vec<Id>>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

/// What restic decided. It prints nothing when nothing matches.
///
/// # Errors
/// When it printed something else.
pub fn decision(stdout: &[u8]) -> Result<Decision, serde_json::Error> {
    if stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Decision::default());
    }
    let groups: Option<Vec<Group>> = serde_json::from_slice(stdout)?;
    let mut decision = Decision::default();
    for group in groups.unwrap_or_default() {
        let ids = |list: Option<Vec<Id>>| list.unwrap_or_default().into_iter().map(|s| s.id);
        decision.keep.extend(ids(group.keep));
        decision.remove.extend(ids(group.remove));
    }
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_all_meant_and_zero_is_no_rule() {
        let rule = RetentionRule {
            tags: vec!["a".to_owned(), "b".to_owned()],
            hostname: "h".to_owned(),
            keep_daily: 7,
            keep_within_weekly: "1m".to_owned(),
            keep_tags: vec!["keep".to_owned()],
            ..RetentionRule::default()
        };
        let got = dry_run(&rule).split_off(6);
        let expected = [
            "--tag",
            "a,b",
            "--host",
            "h",
            "--keep-daily",
            "7",
            "--keep-within-weekly",
            "1m",
            "--keep-tag",
            "keep",
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn snapshots_are_grouped_as_the_rule_says_and_an_unknown_word_is_no_rule() {
        let by = |groups: &[&str]| RetentionRule {
            keep_last: 1,
            group_by: groups.iter().map(|&g| g.to_owned()).collect(),
            ..RetentionRule::default()
        };
        let group = |rule: &RetentionRule| dry_run(rule)[5].clone();
        assert_eq!(group(&by(&[])), "host,paths,tags");
        assert_eq!(group(&by(&["host", "tags"])), "host,tags");
        assert_eq!(check(&by(&["paths"])), Ok(()));
        assert!(matches!(check(&by(&["host", "user"])), Err(BadRule::Group(word)) if word == "user"));
    }

    #[test]
    fn prune_stops_when_it_sees_fewer_snapshots_than_there_are() {
        let line = |n: usize| format!("finding data that is still in use for {n} snapshots");
        assert!(prune_alarm(&line(0), 3).is_some() && prune_alarm(&line(2), 3).is_some());
        assert!(prune_alarm(&line(3), 3).is_none() && prune_alarm(&line(4), 3).is_none());
        assert!(prune_alarm("loading all snapshots...", 3).is_none());
    }

    #[test]
    fn empty_output_and_null_lists_are_nothing() {
        assert_eq!(decision(b"\n").unwrap(), Decision::default());
        let some = decision(br#"[{"keep":[{"id":"a"}],"remove":null},{"keep":null,"remove":[{"id":"b"}]}]"#)
            .unwrap();
        assert_eq!(
            (some.keep, some.remove),
            (vec!["a".to_owned()], vec!["b".to_owned()])
        );
        assert!(decision(b"Fatal").is_err());
    }
}
