//! The order of rows, as the hub sorts them: for what is watched, which comes unsorted. Pure.

use proto::time::to_unix_millis;
use proto::v1::{Row, row::Body};

/// States of all kinds of rows, worst first.
const CLUSTERS: [&str; 5] = ["banned", "conflict", "refused", "stale", "connected"];
const REPOSITORIES: [&str; 4] = ["unready", "stale", "degraded", "ready"];
const BACKUPS: [&str; 9] = [
    "failed",
    "late",
    "partial",
    "notready",
    "stale",
    "never",
    "running",
    "suspended",
    "ok",
];
const POLICIES: [&str; 8] = [
    "failed",
    "waiting",
    "notready",
    "stale",
    "running",
    "never",
    "suspended",
    "ok",
];
const RESTORES: [&str; 5] = ["failed", "stale", "pending", "running", "done"];

/// What a row is sorted by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Number(i64),
    Text(String),
}

/// Sorts by a column that the hub knows; worst first without one. A leading "-" turns the order round.
pub fn sort(rows: &mut [Row], by: &str) {
    let (column, descending) = match by.strip_prefix('-') {
        Some(column) => (column, true),
        None => (by, false),
    };
    rows.sort_by(|a, b| {
        let order = place(a, column).cmp(&place(b, column));
        let order = order.then_with(|| a.key.cmp(&b.key));
        if descending { order.reverse() } else { order }
    });
}

fn place(row: &Row, column: &str) -> Place {
    let time = |at: Option<&prost_types::Timestamp>| Place::Number(at.map_or(i64::MIN, to_unix_millis));
    let number = |count: u64| Place::Number(i64::try_from(count).unwrap_or(i64::MAX));
    let (states, state, names) = named(row);
    match (column, &row.body) {
        ("" | "state", _) => Place::Number(rank(states, state)),
        ("name", _) => Place::Text(names[2].to_owned()),
        ("cluster", _) => Place::Text(names[0].to_owned()),
        ("namespace", _) => Place::Text(names[1].to_owned()),
        (_, Some(Body::Cluster(row))) => match column {
            "backups" => number(row.backups),
            "repositories" => number(row.repositories),
            "unwell" => number(row.backups_unwell),
            _ => time(row.freshness.as_ref().and_then(|of| of.last_heard.as_ref())),
        },
        (_, Some(Body::Repository(row))) => {
            let statistics = row.statistics.as_ref();
            match column {
                "size" => number(statistics.map_or(0, |of| of.stored_bytes)),
                "snapshots" => number(statistics.map_or(0, |of| of.snapshots)),
                _ => number(row.backups),
            }
        }
        (_, Some(Body::Backup(row))) => {
            let backup = row.backup.as_ref();
            match column {
                "last" => time(backup.and_then(|of| of.last_success.as_ref())),
                "next" => time(backup.and_then(|of| of.next_run.as_ref())),
                _ => number(
                    backup
                        .and_then(|of| of.last_run.as_ref())
                        .map_or(0, |run| run.bytes_processed),
                ),
            }
        }
        (_, Some(Body::Policy(row))) => time(row.policy.as_ref().and_then(|of| of.last_run.as_ref())),
        (_, Some(Body::Restore(row))) => {
            let restore = row.restore.as_ref();
            match column {
                "started" => time(restore.and_then(|of| of.started.as_ref())),
                _ => time(restore.and_then(|of| of.finished.as_ref())),
            }
        }
        (_, None) => Place::Number(0),
    }
}

/// All states of a row's kind, its own, and cluster, namespace and name.
fn named(row: &Row) -> (&'static [&'static str], &str, [&str; 3]) {
    match &row.body {
        Some(Body::Cluster(row)) => (&CLUSTERS, &row.state, [&row.name, "", &row.name]),
        Some(Body::Repository(row)) => (&REPOSITORIES, &row.state, ["", "", &row.name]),
        Some(Body::Backup(row)) => (&BACKUPS, &row.state, [&row.cluster, &row.namespace, &row.name]),
        Some(Body::Policy(row)) => (&POLICIES, &row.state, [&row.cluster, &row.namespace, &row.name]),
        Some(Body::Restore(row)) => (&RESTORES, &row.state, [&row.cluster, &row.namespace, &row.name]),
        None => (&[], "", ["", "", ""]),
    }
}

/// How bad a state is: smaller is worse. One that this version does not know is the worst.
fn rank(states: &[&str], state: &str) -> i64 {
    let at = states.iter().position(|known| *known == state);
    at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use proto::v1::{BackupRow, BackupState};

    use super::*;

    fn backup(name: &str, state: &str, last: i64) -> Row {
        let row = BackupRow {
            cluster: "a".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            state: state.to_owned(),
            backup: Some(BackupState {
                last_success: Some(proto::time::from_unix(last)),
                ..BackupState::default()
            }),
            ..BackupRow::default()
        };
        Row {
            key: format!("a/shop/{name}"),
            body: Some(Body::Backup(row)),
        }
    }

    #[test]
    fn worst_first_unless_a_column_is_named() {
        let mut rows = vec![
            backup("b", "ok", 1),
            backup("a", "ok", 3),
            backup("c", "late", 2),
            backup("d", "of-a-later-version", 4),
        ];
        let mut names = |by: &str| {
            sort(&mut rows, by);
            let names = rows.iter().map(|row| row.key.trim_start_matches("a/shop/"));
            names.collect::<String>()
        };
        assert_eq!(names(""), "dcab");
        assert_eq!(names("-state"), "bacd");
        assert_eq!(names("name"), "abcd");
        assert_eq!(names("last"), "bcad");
        assert_eq!(names("-last"), "dacb");
    }
}
