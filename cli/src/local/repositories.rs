//! Physical repositories out of the resources of one cluster: those with one restic id are one. Pure.

use std::collections::BTreeMap;

use proto::v1::{RepositoryBinding, RepositoryRow, RepositoryStatistics, Row, row::Body};
use serde_json::Value;

use super::judge;
use super::rows::{Seen, at, reference};
use crate::objects::{count, holds, name, namespace, said, text};
use proto::text::without_credentials;

/// A row for each.
pub fn rows(seen: &Seen, all: &[Value]) -> Vec<Row> {
    let mut by_id: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for of in all.iter().filter(|of| text(of, "/kind") == "ResticRepository") {
        let key = match text(of, "/status/repositoryID") {
            "" => format!("unknown/{}", seen.place(of)),
            id => id.to_owned(),
        };
        by_id.entry(key).or_default().push(of);
    }
    by_id
        .into_iter()
        .map(|(key, of)| row(seen, all, key, &of))
        .collect()
}

fn row(seen: &Seen, all: &[Value], key: String, of: &[&Value]) -> Row {
    let bindings: Vec<RepositoryBinding> = of.iter().map(|object| binding(seen, object)).collect();
    let ready = bindings.iter().filter(|of| of.ready).count();
    let state = match (seen.silent, ready) {
        (Some(true) | None, _) => "stale",
        (_, 0) => "unready",
        (_, ready) if ready < bindings.len() => "degraded",
        _ => "ready",
    };
    let mut damage = of.iter().filter_map(|object| holds(object, "Degraded"));
    let damage = damage.find(|of| text(of, "/reason") == "RepositoryDamaged");
    let uses = |kind: &str| {
        let users = all.iter().filter(|of| text(of, "/kind") == kind);
        users.filter(|user| is_used(user, of)).count() as u64
    };
    let body = RepositoryRow {
        restic_id: of
            .first()
            .map(|of| text(of, "/status/repositoryID").to_owned())
            .unwrap_or_default(),
        name: of.first().map(|of| name(of).to_owned()).unwrap_or_default(),
        state: state.to_owned(),
        bindings,
        clusters: vec![seen.cluster.clone()],
        statistics: of.iter().find_map(|object| statistics(object)),
        freshness: Some(seen.freshness()),
        backups: uses("ResticBackup"),
        policies: uses("GlobalRetentionPolicy"),
        alarm: damage.map(said).unwrap_or_default(),
        ..RepositoryRow::default()
    };
    Row {
        key,
        body: Some(Body::Repository(body)),
    }
}

/// Whether a backup or a policy names one of these.
fn is_used(user: &Value, of: &[&Value]) -> bool {
    let (wanted, named) = reference(user, "/spec/repositoryRef");
    of.iter().any(|of| namespace(of) == wanted && name(of) == named)
}

fn binding(seen: &Seen, object: &Value) -> RepositoryBinding {
    let (ready, reason, message) = judge::repository(object);
    RepositoryBinding {
        cluster: seen.cluster.clone(),
        namespace: namespace(object).to_owned(),
        name: name(object).to_owned(),
        url: without_credentials(text(object, "/spec/repositoryURL")),
        ready,
        reason,
        message,
        freshness: Some(seen.freshness()),
        ..RepositoryBinding::default()
    }
}

/// `None` while nothing was collected.
fn statistics(object: &Value) -> Option<RepositoryStatistics> {
    let of = object.pointer("/status/statistics")?;
    Some(RepositoryStatistics {
        as_of: at(of, "/asOf"),
        stored_bytes: count(of, "/totalSizeBytes"),
        uncompressed_bytes: count(of, "/uncompressedSizeBytes"),
        snapshots: count(of, "/snapshotCount"),
        files: of.pointer("/totalFileCount").and_then(Value::as_u64),
        hosts: Vec::new(),
    })
}
