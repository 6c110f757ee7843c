//! Retention policies as text and as documents. Pure.

use jiff::Timestamp;
use proto::v1::PolicyRow;
use serde_json::{Value, json};

use crate::document::{freshness, progress, text};
use crate::render::{Cells, stale};
use crate::text::{ago, rfc3339, until};

/// Cells of a policy's line.
pub fn cells(row: &PolicyRow, wide: bool, now: Timestamp) -> Cells {
    let policy = row.policy.clone().unwrap_or_default();
    let mut header = vec![
        "CLUSTER",
        "NAMESPACE",
        "POLICY",
        "STATE",
        "REPOSITORY",
        "LAST",
        "NEXT",
    ];
    let last = ago(policy.last_run.as_ref(), now);
    let mut cells = vec![
        row.cluster.clone(),
        row.namespace.clone(),
        row.name.clone(),
        row.state.to_uppercase(),
        policy.repository_name,
        match policy.last_result.as_str() {
            "" => last,
            result => format!("{result} {last}"),
        },
        until(row.next_run.as_ref(), now),
    ];
    if wide {
        header.extend(["SCHEDULE", "HEARD"]);
        cells.extend([policy.schedule, stale(row.freshness.as_ref(), now)]);
    }
    header.push("WHY");
    cells.push(row.reason.clone());
    (header, cells)
}

/// As JSON.
pub fn document(row: &PolicyRow) -> Value {
    let policy = row.policy.clone().unwrap_or_default();
    json!({
        "cluster": row.cluster, "namespace": row.namespace, "name": row.name, "state": row.state, "reason": text(&row.reason),
        "ready": row.ready, "freshness": freshness(row.freshness.as_ref()),
        "repository": { "namespace": policy.repository_namespace, "name": policy.repository_name, "resticID": text(&policy.restic_id) },
        "schedule": policy.schedule, "suspended": policy.suspended, "lastRun": rfc3339(policy.last_run.as_ref()),
        "lastResult": text(&policy.last_result), "nextRun": rfc3339(row.next_run.as_ref()),
        "progress": policy.progress.as_ref().map(progress),
    })
}
