//! Restores as text and as documents. Pure.

use jiff::Timestamp;
use proto::v1::RestoreRow;
use serde_json::{Value, json};

use crate::document::{freshness, progress, text};
use crate::render::{Cells, stale};
use crate::text::{ago, bytes, rfc3339, short};

/// Cells of a restore's line.
pub fn cells(row: &RestoreRow, wide: bool, now: Timestamp) -> Cells {
    let restore = row.restore.clone().unwrap_or_default();
    let mut header = vec![
        "CLUSTER",
        "NAMESPACE",
        "RESTORE",
        "STATE",
        "SNAPSHOT",
        "TARGET",
        "BEGAN",
        "ENDED",
        "SIZE",
    ];
    let mut cells = vec![
        row.cluster.clone(),
        row.namespace.clone(),
        row.name.clone(),
        row.state.to_uppercase(),
        short(&restore.snapshot_id).to_owned(),
        restore.target,
        ago(restore.started.as_ref(), now),
        ago(restore.finished.as_ref(), now),
        bytes(restore.bytes),
    ];
    if wide {
        header.extend(["REPOSITORY", "HEARD"]);
        cells.extend([restore.repository_name, stale(row.freshness.as_ref(), now)]);
    }
    header.push("WHY");
    cells.push(row.reason.clone());
    (header, cells)
}

/// As JSON.
pub fn document(row: &RestoreRow) -> Value {
    let restore = row.restore.clone().unwrap_or_default();
    json!({
        "cluster": row.cluster, "namespace": row.namespace, "name": row.name, "state": row.state, "reason": text(&row.reason),
        "freshness": freshness(row.freshness.as_ref()), "created": rfc3339(row.created.as_ref()),
        "repository": { "namespace": restore.repository_namespace, "name": restore.repository_name, "resticID": text(&restore.restic_id) },
        "snapshotID": text(&restore.snapshot_id), "target": restore.target, "started": rfc3339(restore.started.as_ref()),
        "finished": rfc3339(restore.finished.as_ref()), "files": restore.files, "bytes": restore.bytes,
        "progress": restore.progress.as_ref().map(progress),
    })
}
