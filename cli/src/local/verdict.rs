//! Is everything in this cluster backed up? Pure.

use std::collections::BTreeMap;

use proto::v1::{Attention, Row, StatusResponse, row::Body};

use super::rows::Seen;

/// Most matters that are listed, as the hub does.
const LISTED: usize = 20;
/// Data is in danger.
const UNSAFE: [&str; 4] = ["failed", "late", "partial", "notready"];

/// The verdict, in the hub's words.
pub fn status(
    seen: &Seen,
    backups: &[Row],
    repositories: &[Row],
    policies: &[Row],
    restores: &[Row],
) -> StatusResponse {
    let mut by_state: BTreeMap<String, u64> = BTreeMap::new();
    for row in backups {
        *by_state.entry(of(row).0.to_owned()).or_default() += 1;
    }
    let (verdict, reason) = verdict(seen, &by_state, repositories.iter().any(is_damaged));
    let mut matters = attention(backups, repositories, policies, restores);
    let total = matters.len() as u64;
    let others = matters
        .iter()
        .filter(|of| of.next.starts_with("fleet why") && !is_backup(&of.state))
        .count() as u64;
    matters.truncate(LISTED);
    let stored = repositories.iter().filter_map(|row| match &row.body {
        Some(Body::Repository(row)) => row.statistics.as_ref().map(|of| of.stored_bytes),
        _ => None,
    });
    StatusResponse {
        as_of: Some(proto::time::from_unix_millis(seen.now.as_millisecond())),
        verdict: verdict.to_owned(),
        reason,
        clusters: 1,
        clusters_stale: u64::from(seen.silent != Some(false)),
        repositories: repositories.len() as u64,
        backups: backups.len() as u64,
        backups_by_state: by_state.into_iter().collect(),
        stored_bytes: stored.sum(),
        matters: total,
        others,
        rest_next: "fleet backups, fleet repos, fleet policies, fleet restores".to_owned(),
        needs_you: matters,
        ..StatusResponse::default()
    }
}

/// Verdict and reason, by how many backups are in each state and whether a repository is damaged. The worst comes first.
fn verdict(seen: &Seen, by_state: &BTreeMap<String, u64>, damaged: bool) -> (&'static str, String) {
    let count = |state: &str| by_state.get(state).copied().unwrap_or_default();
    let all: u64 = by_state.values().sum();
    let danger: u64 = UNSAFE.iter().map(|state| count(state)).sum();
    match () {
        () if danger > 0 => (
            "not-safe",
            format!("of {all} backups {danger} failed, late, incomplete or not ready"),
        ),
        () if damaged => ("not-safe", "a repository is damaged".to_owned()),
        () if seen.silent == Some(true) => {
            ("unknown", "the operator of this cluster does not run".to_owned())
        }
        () if seen.silent.is_none() => (
            "unknown",
            "whether the operator of this cluster runs cannot be seen".to_owned(),
        ),
        () if all == 0 => ("unknown", "there is no backup".to_owned()),
        () if count("never") + count("stale") > 0 => (
            "unknown",
            format!(
                "{} of {all} backups without a first success",
                count("never") + count("stale")
            ),
        ),
        () if count("suspended") == all => (
            "not-safe",
            "all backups are suspended: nothing is backed up any more".to_owned(),
        ),
        () => (
            "safe",
            format!("{} of {all} backups are well", all - count("suspended")),
        ),
    }
}

fn is_backup(state: &str) -> bool {
    UNSAFE.contains(&state) || state == "never"
}

fn is_damaged(row: &Row) -> bool {
    matches!(&row.body, Some(Body::Repository(row)) if !row.alarm.is_empty())
}

/// State and reason of a row.
fn of(row: &Row) -> (&str, &str) {
    match &row.body {
        Some(Body::Backup(row)) => (&row.state, &row.reason),
        Some(Body::Policy(row)) => (&row.state, &row.reason),
        Some(Body::Restore(row)) => (&row.state, &row.reason),
        Some(Body::Repository(row)) => (&row.state, &row.alarm),
        Some(Body::Cluster(row)) => (&row.state, &row.reason),
        None => ("notready", ""),
    }
}

/// What needs a person, worst first.
fn attention(backups: &[Row], repositories: &[Row], policies: &[Row], restores: &[Row]) -> Vec<Attention> {
    let mut found = Vec::new();
    let mut add = |state: &str, subject: &str, detail: &str, kind: &str| {
        found.push(Attention {
            state: state.to_owned(),
            subject: subject.to_owned(),
            detail: detail.to_owned(),
            count: 1,
            next: format!("fleet why {kind} {subject}"),
        });
    };
    for row in repositories.iter().filter(|row| is_damaged(row)) {
        add("damaged", &row.key, of(row).1, "repo");
    }
    for state in UNSAFE.into_iter().chain(["never"]) {
        for row in backups.iter().filter(|row| of(row).0 == state) {
            add(state, &row.key, of(row).1, "backup");
        }
    }
    for row in repositories
        .iter()
        .filter(|row| matches!(of(row).0, "unready" | "degraded"))
    {
        let why = match &row.body {
            Some(Body::Repository(row)) => row.bindings.iter().find(|of| !of.ready),
            _ => None,
        };
        let why = why
            .map(|of| format!("{}: {}", of.reason, of.message))
            .unwrap_or_default();
        add("unready", &row.key, &why, "repo");
    }
    for row in restores.iter().filter(|row| of(row).0 == "failed") {
        add("restore-failed", &row.key, of(row).1, "restore");
    }
    for row in policies {
        match of(row).0 {
            "waiting" => add("waiting", &row.key, of(row).1, "policy"),
            "failed" | "notready" => add("policy-failed", &row.key, of(row).1, "policy"),
            _ => {}
        }
    }
    found
}
