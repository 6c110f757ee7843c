//! Answers as documents: JSON and YAML are an API of their own. Byte counts are numbers, times RFC 3339, unknown is null.

use prost_types::Timestamp;
use proto::v1::{
    BackupResult, BackupRow, BackupRun, ClusterRow, Freshness, HistoryPoint, HistoryResponse, RepositoryRow,
    Row, RunProgress, SourceCount, StatusResponse, row::Body,
};
use serde_json::{Value, json};

use crate::text::rfc3339;

/// Version of the documents.
pub const API_VERSION: &str = "fleet.resticbackup.io/v1";

/// A list.
#[must_use]
pub fn list(kind: &str, revision: u64, as_of: Option<&Timestamp>, rows: &[Row]) -> Value {
    let items: Vec<Value> = rows.iter().map(row).collect();
    json!({ "apiVersion": API_VERSION, "kind": kind, "asOf": rfc3339(as_of), "revision": revision, "items": items })
}

/// The verdict.
#[must_use]
pub fn status(status: &StatusResponse) -> Value {
    let needs_you: Vec<Value> = status
        .needs_you
        .iter()
        .map(|a| json!({ "state": a.state, "subject": a.subject, "detail": a.detail, "count": a.count, "next": a.next }))
        .collect();
    let pause = status.pause.as_ref();
    let pause =
        pause.map(|p| json!({ "since": rfc3339(p.since.as_ref()), "who": p.who, "reason": p.reason }));
    let by_state: std::collections::BTreeMap<_, _> = status.backups_by_state.iter().collect();
    json!({
        "apiVersion": API_VERSION, "kind": "Status", "asOf": rfc3339(status.as_of.as_ref()), "revision": status.revision,
        "verdict": status.verdict, "reason": text(&status.reason), "clusters": status.clusters, "clustersStale": status.clusters_stale,
        "repositories": status.repositories, "backups": status.backups, "backupsByState": by_state,
        "storedBytes": status.stored_bytes, "needsYou": needs_you,
        "needsYouTotal": status.matters.max(status.needs_you.len() as u64), "pause": pause,
    })
}

/// Figures of a repository over time.
#[must_use]
pub fn history(answer: &HistoryResponse) -> Value {
    let source =
        |s: &SourceCount| json!({ "cluster": text(&s.cluster), "host": s.host, "snapshots": s.snapshots });
    let point = |point: &HistoryPoint| {
        let sources: Vec<Value> = point.sources.iter().map(source).collect();
        json!({
            "at": rfc3339(point.at.as_ref()), "storedBytes": point.stored_bytes, "uncompressedBytes": point.uncompressed_bytes,
            "snapshots": point.snapshots, "files": point.files, "sources": sources,
        })
    };
    let items: Vec<Value> = answer.points.iter().map(point).collect();
    json!({
        "apiVersion": API_VERSION, "kind": "RepositoryHistory", "asOf": rfc3339(answer.as_of.as_ref()),
        "resticID": answer.restic_id, "name": answer.repository, "stepSeconds": answer.step_seconds, "items": items,
    })
}

/// One row.
#[must_use]
pub fn row(row: &Row) -> Value {
    match &row.body {
        Some(Body::Cluster(cluster)) => cluster_row(cluster),
        Some(Body::Repository(repository)) => repository_row(row, repository),
        Some(Body::Backup(backup)) => backup_row(backup),
        Some(Body::Policy(policy)) => crate::policies::document(policy),
        Some(Body::Restore(restore)) => crate::restores::document(restore),
        None => Value::Null,
    }
}

pub fn freshness(freshness: Option<&Freshness>) -> Value {
    // Nothing known counts as stale.
    let stale = freshness.is_none_or(|f| f.stale);
    json!({ "stale": stale, "lastHeard": freshness.and_then(|f| rfc3339(f.last_heard.as_ref())) })
}

pub fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn cluster_row(row: &ClusterRow) -> Value {
    json!({
        "name": row.name, "state": row.state, "freshness": freshness(row.freshness.as_ref()), "version": text(&row.version),
        "kubernetesVersion": text(&row.kubernetes_version), "connectedSince": rfc3339(row.connected_since.as_ref()),
        "repositories": row.repositories, "backups": row.backups, "backupsUnwell": row.backups_unwell,
        "clusterUID": text(&row.cluster_uid), "reason": text(&row.reason), "complete": row.complete,
    })
}

fn repository_row(row: &Row, repository: &RepositoryRow) -> Value {
    let statistics = repository.statistics.as_ref().map(|s| {
        let hosts: Vec<Value> = s
            .hosts
            .iter()
            .map(|h| json!({ "host": h.host, "snapshots": h.snapshots, "latest": rfc3339(h.latest.as_ref()) }))
            .collect();
        json!({
            "asOf": rfc3339(s.as_of.as_ref()), "from": text(&repository.statistics_from), "storedBytes": s.stored_bytes,
            "uncompressedBytes": s.uncompressed_bytes, "snapshots": s.snapshots, "files": s.files, "hosts": hosts,
        })
    });
    let bindings: Vec<Value> = repository
        .bindings
        .iter()
        .map(|b| {
            json!({
                "cluster": b.cluster, "namespace": b.namespace, "name": b.name, "url": b.url, "ready": b.ready,
                "reason": text(&b.reason), "message": text(&b.message), "binding": text(&b.binding), "bindingReason": text(&b.binding_reason), "freshness": freshness(b.freshness.as_ref()),
            })
        })
        .collect();
    json!({
        "key": row.key, "resticID": text(&repository.restic_id), "name": repository.name, "state": repository.state,
        "clusters": repository.clusters, "alarm": text(&repository.alarm), "bindings": bindings, "statistics": statistics,
        "freshness": freshness(repository.freshness.as_ref()), "backups": repository.backups,
        "policies": repository.policies, "collector": text(&repository.collector),
    })
}

fn backup_row(row: &BackupRow) -> Value {
    let backup = row.backup.clone().unwrap_or_default();
    json!({
        "cluster": row.cluster, "namespace": row.namespace, "name": row.name, "state": row.state, "reason": text(&row.reason),
        "since": rfc3339(row.since.as_ref()), "ready": row.ready, "freshness": freshness(row.freshness.as_ref()),
        "due": rfc3339(row.due.as_ref()),
        "repository": { "namespace": backup.repository_namespace, "name": backup.repository_name, "resticID": text(&backup.restic_id) },
        "source": backup.source, "schedule": backup.schedule, "timezone": backup.timezone, "suspended": backup.suspended,
        "running": backup.running, "lastSuccess": rfc3339(backup.last_success.as_ref()), "nextRun": rfc3339(backup.next_run.as_ref()),
        "runs": { "total": backup.runs_total, "succeeded": backup.runs_succeeded, "failed": backup.runs_failed },
        "lastRun": backup.last_run.as_ref().map(run), "progress": backup.progress.as_ref().map(progress),
    })
}

/// How far a run has come.
pub fn progress(progress: &RunProgress) -> Value {
    json!({
        "job": progress.job, "asOf": rfc3339(progress.as_of.as_ref()), "percent": progress.percent,
        "bytesDone": progress.bytes_done, "bytesTotal": progress.bytes_total,
        "filesDone": progress.files_done, "filesTotal": progress.files_total, "step": text(&progress.step),
        "estimatedCompletion": rfc3339(progress.estimated_completion.as_ref()),
    })
}

fn run(run: &BackupRun) -> Value {
    json!({
        "result": result(run), "reason": text(&run.reason), "message": text(&run.message),
        "started": rfc3339(run.started.as_ref()), "finished": rfc3339(run.finished.as_ref()),
        "snapshotID": text(&run.snapshot_id), "bytesAdded": run.bytes_added, "bytesProcessed": run.bytes_processed,
        "filesProcessed": run.files_processed,
    })
}

/// A result as the API spells it; unknown is never a success.
#[must_use]
pub fn result(run: &BackupRun) -> &'static str {
    match run.result() {
        BackupResult::Succeeded => "Succeeded",
        BackupResult::PartiallyFailed => "PartiallyFailed",
        BackupResult::Failed => "Failed",
        BackupResult::Unspecified => "Unknown",
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod schema;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_known_is_null_and_stale() {
        let row = Row {
            key: "a/b/c".into(),
            body: Some(Body::Backup(BackupRow::default())),
        };
        let value = super::row(&row);
        assert_eq!(
            (
                &value["lastRun"],
                &value["lastSuccess"],
                &value["freshness"]["stale"]
            ),
            (&Value::Null, &Value::Null, &json!(true))
        );
        assert_eq!(result(&BackupRun::default()), "Unknown");
    }
}
