//! What is known of an object, each fact with its age. Pure.

use jiff::Timestamp;
use proto::v1::row::Body;
use proto::v1::{BackupRow, ClusterRow, PolicyRow, RepositoryRow, RestoreRow};

use crate::document::result;
use crate::render::stale;
use crate::text::{ago, bytes, progress, short, until};

type Facts = Vec<(&'static str, String)>;

/// State, reason, and facts of a row.
pub fn of(body: Option<&Body>, now: Timestamp) -> (String, String, Facts) {
    match body {
        Some(Body::Backup(row)) => (row.state.clone(), row.reason.clone(), backup(row, now)),
        Some(Body::Policy(row)) => (row.state.clone(), row.reason.clone(), policy(row, now)),
        Some(Body::Restore(row)) => (row.state.clone(), row.reason.clone(), restore(row, now)),
        Some(Body::Repository(row)) => (row.state.clone(), reason(row), repository(row, now)),
        Some(Body::Cluster(row)) => (row.state.clone(), row.reason.clone(), cluster(row, now)),
        None => ("unknown".to_owned(), String::new(), Facts::new()),
    }
}

/// Why a repository is not well: damage first, then the first binding that is not ready.
fn reason(row: &RepositoryRow) -> String {
    if !row.alarm.is_empty() {
        return row.alarm.clone();
    }
    let trouble = row.bindings.iter().find(|binding| !binding.ready);
    trouble.map_or_else(String::new, |of| {
        format!(
            "{}/{}/{}: {}: {}",
            of.cluster, of.namespace, of.name, of.reason, of.message
        )
    })
}

fn backup(row: &BackupRow, now: Timestamp) -> Facts {
    let backup = row.backup.clone().unwrap_or_default();
    let run = backup.last_run.as_ref();
    let last = run.map_or_else(
        || "never".to_owned(),
        |run| {
            let why = if run.reason.is_empty() { "" } else { ", " };
            format!(
                "{} {}{why}{}",
                result(run),
                ago(run.finished.as_ref(), now),
                run.reason
            )
        },
    );
    let next = if backup.suspended {
        "suspended".to_owned()
    } else {
        until(backup.next_run.as_ref(), now)
    };
    let mut facts = vec![
        ("last success", ago(backup.last_success.as_ref(), now)),
        ("last run", last),
        ("next run", next),
        ("schedule", format!("{} {}", backup.schedule, backup.timezone)),
        ("source", backup.source.clone()),
        (
            "repository",
            format!("{}/{}", backup.repository_namespace, backup.repository_name),
        ),
        (
            "runs",
            format!(
                "{} of {} succeeded, {} failed",
                backup.runs_succeeded, backup.runs_total, backup.runs_failed
            ),
        ),
    ];
    if let Some(run) = run.filter(|run| !run.snapshot_id.is_empty()) {
        facts.push(("snapshot", short(&run.snapshot_id).to_owned()));
        facts.push((
            "size",
            format!(
                "{} in {} files, {} added",
                bytes(run.bytes_processed),
                run.files_processed,
                bytes(run.bytes_added)
            ),
        ));
    }
    if backup.progress.is_some() {
        facts.push(("progress", progress(backup.progress.as_ref(), now)));
    }
    facts.push(("heard", stale(row.freshness.as_ref(), now)));
    facts
}

fn policy(row: &PolicyRow, now: Timestamp) -> Facts {
    let policy = row.policy.clone().unwrap_or_default();
    let last = match policy.last_result.as_str() {
        "" => ago(policy.last_run.as_ref(), now),
        result => format!("{result} {}", ago(policy.last_run.as_ref(), now)),
    };
    vec![
        ("last run", last),
        ("next run", until(row.next_run.as_ref(), now)),
        ("schedule", policy.schedule.clone()),
        (
            "repository",
            format!("{}/{}", policy.repository_namespace, policy.repository_name),
        ),
        ("heard", stale(row.freshness.as_ref(), now)),
    ]
}

fn restore(row: &RestoreRow, now: Timestamp) -> Facts {
    let restore = row.restore.clone().unwrap_or_default();
    vec![
        ("target", restore.target.clone()),
        ("snapshot", short(&restore.snapshot_id).to_owned()),
        ("created", ago(row.created.as_ref(), now)),
        ("began", ago(restore.started.as_ref(), now)),
        ("ended", ago(restore.finished.as_ref(), now)),
        (
            "restored",
            format!("{} in {} files", bytes(restore.bytes), restore.files),
        ),
        ("progress", progress(restore.progress.as_ref(), now)),
        ("heard", stale(row.freshness.as_ref(), now)),
    ]
}

fn repository(row: &RepositoryRow, now: Timestamp) -> Facts {
    let mut facts = vec![
        ("id", short(&row.restic_id).to_owned()),
        ("clusters", row.clusters.join(", ")),
        ("backups", row.backups.to_string()),
        ("policies", row.policies.to_string()),
    ];
    match &row.statistics {
        Some(s) => {
            let from = if row.statistics_from.is_empty() {
                ""
            } else {
                " by "
            };
            let when = format!("{}{from}{}", ago(s.as_of.as_ref(), now), row.statistics_from);
            facts.push(("stored", format!("{}, as of {when}", bytes(s.stored_bytes))));
            facts.push(("snapshots", format!("{}, as of {when}", s.snapshots)));
        }
        None => facts.push(("stored", "not known yet".to_owned())),
    }
    facts.push(("heard", stale(row.freshness.as_ref(), now)));
    facts
}

fn cluster(row: &ClusterRow, now: Timestamp) -> Facts {
    let or = |text: &str| {
        if text.is_empty() {
            "not known".to_owned()
        } else {
            text.to_owned()
        }
    };
    vec![
        ("heard", stale(row.freshness.as_ref(), now)),
        ("connected", ago(row.connected_since.as_ref(), now)),
        ("spoke", or(&row.version)),
        ("kubernetes", or(&row.kubernetes_version)),
        ("repositories", row.repositories.to_string()),
        (
            "backups",
            format!("{}, {} not well", row.backups, row.backups_unwell),
        ),
        (
            "inventory",
            if row.complete {
                "complete"
            } else {
                "not complete: all its snapshots stay"
            }
            .to_owned(),
        ),
    ]
}
