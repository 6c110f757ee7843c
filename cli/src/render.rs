//! Answers as text. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{BackupRow, ClusterRow, Freshness, RepositoryRow, Row, StatusResponse, row::Body};

use crate::document::result;
use crate::text::{ago, bytes, counted, progress, short, until};

/// Columns and cells of a table.
#[must_use]
pub fn table(rows: &[Row], wide: bool, now: Timestamp) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let (header, cells) = match &row.body {
            Some(Body::Cluster(cluster)) => cluster_cells(cluster, wide, now),
            Some(Body::Repository(repository)) => repository_cells(repository, wide, now),
            Some(Body::Backup(backup)) => backup_cells(backup, wide, now),
            Some(Body::Policy(policy)) => crate::policies::cells(policy, wide, now),
            Some(Body::Restore(restore)) => crate::restores::cells(restore, wide, now),
            None => continue,
        };
        if lines.is_empty() {
            lines.push(header.into_iter().map(str::to_owned).collect());
        }
        lines.push(cells);
    }
    align(&lines)
}

/// Columns as wide as their widest cell, the last one as it is.
pub fn align(lines: &[Vec<String>]) -> String {
    // Text of clusters: nothing in it may move the cursor.
    let clean = |line: &Vec<String>| line.iter().map(|cell| cleaned(cell)).collect();
    let lines: Vec<Vec<String>> = lines.iter().map(clean).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(out, "{cell:<width$}  ");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

pub fn stale(freshness: Option<&Freshness>, now: Timestamp) -> String {
    match freshness {
        Some(f) if !f.stale => ago(f.last_heard.as_ref(), now),
        Some(f) if f.last_heard.is_some() => format!("STALE {}", ago(f.last_heard.as_ref(), now)),
        _ => "STALE".to_owned(),
    }
}

pub type Cells = (Vec<&'static str>, Vec<String>);

fn cluster_cells(row: &ClusterRow, wide: bool, now: Timestamp) -> Cells {
    let mut header = vec!["CLUSTER", "STATE", "HEARD", "REPOS", "BACKUPS", "UNWELL"];
    let mut cells = vec![
        row.name.clone(),
        row.state.to_uppercase(),
        stale(row.freshness.as_ref(), now),
        row.repositories.to_string(),
        row.backups.to_string(),
        row.backups_unwell.to_string(),
    ];
    if wide {
        header.extend(["KUBERNETES", "SPOKE", "CONNECTED"]);
        cells.extend([
            row.kubernetes_version.clone(),
            row.version.clone(),
            ago(row.connected_since.as_ref(), now),
        ]);
    }
    header.push("WHY");
    cells.push(row.reason.clone());
    (header, cells)
}

fn repository_cells(row: &RepositoryRow, wide: bool, now: Timestamp) -> Cells {
    let mut header = vec![
        "REPOSITORY",
        "ID",
        "STATE",
        "CLUSTERS",
        "SIZE",
        "SNAPSHOTS",
        "BACKUPS",
        "AS OF",
    ];
    let statistics = row.statistics.as_ref();
    let mut cells = vec![
        row.name.clone(),
        short(&row.restic_id).to_owned(),
        row.state.to_uppercase(),
        row.clusters.join(","),
        statistics.map_or_else(|| "-".to_owned(), |s| bytes(s.stored_bytes)),
        statistics.map_or_else(|| "-".to_owned(), |s| s.snapshots.to_string()),
        row.backups.to_string(),
        if row.freshness.as_ref().is_none_or(|f| f.stale) {
            stale(row.freshness.as_ref(), now)
        } else {
            ago(statistics.and_then(|s| s.as_of.as_ref()), now)
        },
    ];
    if wide {
        header.push("COLLECTOR");
        cells.push(row.collector.clone());
        header.push("URLS");
        let mut urls: Vec<&str> = row.bindings.iter().map(|b| b.url.as_str()).collect();
        urls.sort_unstable();
        urls.dedup();
        cells.push(urls.join(" "));
    }
    let trouble = row
        .bindings
        .iter()
        .find(|b| !b.ready && b.freshness.as_ref().is_some_and(|f| !f.stale));
    let pending = row.bindings.iter().find(|b| b.binding == "pending");
    if !row.alarm.is_empty() {
        header.push("WHY");
        cells.push(row.alarm.clone());
    } else if let Some(binding) = pending {
        header.push("WHY");
        cells.push(format!(
            "{} takes no part yet: {}",
            binding.cluster, binding.binding_reason
        ));
    } else if let Some(binding) = trouble {
        header.push("WHY");
        cells.push(format!(
            "{}/{}/{}: {}",
            binding.cluster, binding.namespace, binding.name, binding.message
        ));
    }
    (header, cells)
}

fn backup_cells(row: &BackupRow, wide: bool, now: Timestamp) -> Cells {
    let backup = row.backup.clone().unwrap_or_default();
    let run = backup.last_run.as_ref();
    let mut header = vec![
        "BACKUP",
        "STATE",
        "LAST RESULT",
        "LAST SUCCESS",
        "SIZE",
        "ADDED",
        "NEXT",
        "REPOSITORY",
    ];
    let mut cells = vec![
        format!("{}/{}/{}", row.cluster, row.namespace, row.name),
        row.state.to_uppercase(),
        run.map_or("-", result).to_owned(),
        ago(backup.last_success.as_ref(), now),
        run.map_or_else(|| "-".to_owned(), |r| bytes(r.bytes_processed)),
        run.map_or_else(|| "-".to_owned(), |r| bytes(r.bytes_added)),
        if backup.suspended {
            "suspended".to_owned()
        } else {
            until(backup.next_run.as_ref(), now)
        },
        backup.repository_name.clone(),
    ];
    if wide {
        header.extend(["PROGRESS", "SOURCE", "SCHEDULE", "SNAPSHOT", "RUNS"]);
        cells.extend([
            progress(backup.progress.as_ref(), now),
            backup.source.clone(),
            format!("{} {}", backup.schedule, backup.timezone),
            short(run.map_or("", |r| &r.snapshot_id)).to_owned(),
            format!("{}/{}", backup.runs_succeeded, backup.runs_total),
        ]);
    }
    header.push("WHY");
    let why = match row.freshness.as_ref() {
        Some(f) if f.stale => format!("{} {}", stale(Some(f), now), row.reason),
        _ => row.reason.clone(),
    };
    cells.push(why);
    (header, cells)
}

/// States of what needs a person and is not a backup.
const OTHERS: [&str; 5] = ["damaged", "unready", "restore-failed", "policy-failed", "waiting"];

/// How many repositories, restores, policies and plans need a person, also those that the list leaves out.
#[must_use]
pub fn others(status: &StatusResponse) -> u64 {
    let listed = status.needs_you.iter();
    let listed = listed.filter(|needs| OTHERS.contains(&needs.state.as_str()));
    // A hub of an earlier version only lists them.
    status.others.max(listed.map(|needs| needs.count).sum())
}

/// One screen: verdict, what needs a person, totals.
#[must_use]
pub fn status(status: &StatusResponse, now: Timestamp) -> String {
    let mut text = headline(status, now);
    // A hub of an earlier version does not say why.
    if !status.reason.is_empty() && status.verdict != "safe" {
        let _ = writeln!(text, "{}", cleaned(&status.reason));
    }
    if let Some(pause) = &status.pause {
        let since = ago(pause.since.as_ref(), now);
        let (who, reason) = (cleaned(&pause.who), cleaned(&pause.reason));
        let _ = writeln!(
            text,
            "maintenance is PAUSED by {who}, {since}: {reason}; fleet resume"
        );
    }
    let lines = status.needs_you.iter().map(|a| {
        let (state, subject) = (a.state.to_uppercase(), a.subject.clone());
        vec![state, subject, a.detail.clone(), a.next.clone()]
    });
    text.push_str(&align(&lines.collect::<Vec<_>>()));
    let more = status.matters.saturating_sub(status.needs_you.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "… and {more} more: {}", cleaned(&status.rest_next));
    }
    let _ = writeln!(
        text,
        "{} · {} stored",
        counted(status.repositories, "repository", "repositories"),
        bytes(status.stored_bytes)
    );
    text
}

/// The verdict with the counts behind it.
fn headline(status: &StatusResponse, now: Timestamp) -> String {
    let count = |state: &str| status.backups_by_state.get(state).copied().unwrap_or_default();
    let mut facts: Vec<String> = ["late", "failed", "partial", "notready", "never"]
        .into_iter()
        .filter(|state| count(state) > 0)
        .map(|state| format!("{} {state}", count(state)))
        .collect();
    if facts.is_empty() {
        facts.push("all well".to_owned());
    }
    let verdict = match status.verdict.as_str() {
        "safe" => "SAFE",
        "not-safe" => "NOT SAFE",
        // Not known is not well.
        _ => "UNKNOWN",
    };
    let stale = if status.clusters_stale > 0 {
        format!(", {} stale", status.clusters_stale)
    } else {
        String::new()
    };
    format!(
        "{verdict}  {} of {} · {}{stale}{} · as of {}\n",
        facts.join(", "),
        counted(status.backups, "backup", "backups"),
        counted(status.clusters, "cluster", "clusters"),
        match others(status) {
            0 => String::new(),
            1 => " · 1 other matter needs a person".to_owned(),
            others => format!(" · {others} other matters need a person"),
        },
        ago(status.as_of.as_ref(), now),
    )
}

#[cfg(test)]
mod tests {
    use proto::v1::{Attention, BackupState};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_795_000_000).unwrap_or_default()
    }

    #[test]
    fn a_stale_row_says_so_with_its_age() {
        let heard = Some(proto::time::from_unix(1_795_000_000 - 300));
        let row = BackupRow {
            cluster: "b".into(),
            namespace: "shop".into(),
            name: "orders".into(),
            state: "stale".into(),
            reason: "its spoke is silent".into(),
            backup: Some(BackupState::default()),
            freshness: Some(Freshness {
                stale: true,
                last_heard: heard,
            }),
            ..BackupRow::default()
        };
        let text = table(
            &[Row {
                key: "k".into(),
                body: Some(Body::Backup(row)),
            }],
            false,
            now(),
        );
        assert!(text.contains("STALE 5m ago its spoke is silent"), "{text}");
    }

    #[test]
    fn the_verdict_comes_first_and_unknown_is_not_well() {
        let failed = Attention {
            state: "failed".into(),
            subject: "a/shop/orders".into(),
            detail: "no".into(),
            count: 1,
            next: "fleet backups a/shop/orders".into(),
        };
        let answer = StatusResponse {
            verdict: "not-safe".into(),
            backups: 2,
            clusters: 2,
            clusters_stale: 1,
            backups_by_state: [("failed".to_owned(), 1), ("ok".to_owned(), 1)].into(),
            needs_you: vec![failed],
            repositories: 1,
            as_of: Some(proto::time::from_unix(1_795_000_000)),
            ..StatusResponse::default()
        };
        let text = status(&answer, now());
        assert!(
            text.starts_with(
                "NOT SAFE  1 failed of 2 backups · 2 clusters, 1 stale · as of 0s ago\nFAILED  a/shop/orders"
            ),
            "{text}"
        );
        assert!(text.ends_with("\n1 repository · 0 B stored\n"), "{text}");
        assert!(status(&StatusResponse::default(), now()).starts_with("UNKNOWN"));
    }

    #[test]
    fn what_the_list_leaves_out_is_counted_and_said() {
        let answer = StatusResponse {
            verdict: "not-safe".into(),
            needs_you: vec![Attention {
                state: "failed".into(),
                count: 1,
                ..Attention::default()
            }],
            matters: 13,
            others: 5,
            rest_next: "fleet backups, fleet repos".into(),
            ..StatusResponse::default()
        };
        let text = status(&answer, now());
        assert!(text.contains("5 other matters need a person"), "{text}");
        assert!(
            text.contains("\n… and 12 more: fleet backups, fleet repos\n"),
            "{text}"
        );
    }
}
