//! The JSON of the CLI is an API: no field is renamed or lost without a change here. A field that is added shows up as well.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proto::v1::{
    ActivityEntry, ActivityResponse, BackupRun, BackupState, CertificateEnd, ClusterRow, Collection,
    Condition, Freshness, GetResponse, HealthResponse, HistoryPoint, HostStatistics, PolicyRow, PolicyState,
    Relation, RepositoryBinding, RepositoryStatistics, Resource, RestoreRow, RestoreState, RunDay, Trouble,
    VersionCount,
};

use super::*;
use crate::check::{self, Finding};
use crate::detail::{self, Found};
use crate::{activity, health, version, why};

/// A line for each path, with the type of what stands there; what is not known here is `null`.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, of)| paths(of, &format!("{at}.{name}"), found)),
        Value::Array(items) => items.iter().for_each(|of| paths(of, &format!("{at}[]"), found)),
        other => {
            let kind = match other {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "number",
                _ => "string",
            };
            found.insert(format!("{at} {kind}"));
        }
    }
}

fn at() -> Option<Timestamp> {
    Some(proto::time::from_unix(1_795_000_000))
}

fn running() -> Option<RunProgress> {
    Some(RunProgress {
        job: "job".to_owned(),
        as_of: at(),
        percent: Some(1),
        ..RunProgress::default()
    })
}

fn row(body: Body) -> Row {
    Row {
        key: "a/b/c".to_owned(),
        body: Some(body),
    }
}

fn rows() -> Vec<(&'static str, Row)> {
    let freshness = Some(Freshness {
        stale: false,
        last_heard: at(),
    });
    let backup = BackupRow {
        freshness,
        due: at(),
        backup: Some(BackupState {
            last_run: Some(BackupRun::default()),
            progress: running(),
            ..BackupState::default()
        }),
        ..BackupRow::default()
    };
    let repository = RepositoryRow {
        bindings: vec![RepositoryBinding::default()],
        clusters: vec!["a".to_owned()],
        statistics: Some(RepositoryStatistics {
            hosts: vec![HostStatistics::default()],
            ..RepositoryStatistics::default()
        }),
        ..RepositoryRow::default()
    };
    let policy = PolicyRow {
        policy: Some(PolicyState {
            progress: running(),
            ..PolicyState::default()
        }),
        ..PolicyRow::default()
    };
    let restore = RestoreRow {
        restore: Some(RestoreState {
            progress: running(),
            ..RestoreState::default()
        }),
        ..RestoreRow::default()
    };
    vec![
        ("BackupList", row(Body::Backup(backup))),
        ("RepositoryList", row(Body::Repository(repository))),
        ("PolicyList", row(Body::Policy(policy))),
        ("RestoreList", row(Body::Restore(restore))),
        ("ClusterList", row(Body::Cluster(ClusterRow::default()))),
    ]
}

fn object() -> Found {
    let (_, row) = rows().remove(0);
    Found {
        collection: Collection::Backups,
        key: row.key.clone(),
        answer: GetResponse {
            row: Some(row),
            resources: vec![Resource {
                conditions: vec![Condition::default()],
                ..Resource::default()
            }],
            relations: vec![Relation::default()],
            days: vec![RunDay::default()],
            events: vec![ActivityEntry::default()],
            ..GetResponse::default()
        },
        alone: None,
    }
}

fn documents() -> Vec<Value> {
    let mut all: Vec<Value> = rows()
        .iter()
        .map(|(kind, row)| list(kind, 1, at().as_ref(), std::slice::from_ref(row)))
        .collect();
    let attention = proto::v1::Attention::default();
    all.push(status(&StatusResponse {
        needs_you: vec![attention],
        pause: Some(proto::v1::FleetPause::default()),
        backups_by_state: [("ok".to_owned(), 1)].into(),
        ..StatusResponse::default()
    }));
    all.push(history(&HistoryResponse {
        points: vec![HistoryPoint {
            sources: vec![SourceCount::default()],
            ..HistoryPoint::default()
        }],
        ..HistoryResponse::default()
    }));
    all.push(detail::document(&object()));
    all.push(why::document(
        &object(),
        &why::of(&object(), jiff::Timestamp::UNIX_EPOCH),
    ));
    all.push(activity::list(&ActivityResponse {
        entries: vec![ActivityEntry::default()],
        ..ActivityResponse::default()
    }));
    let health = HealthResponse {
        troubles: vec![Trouble::default()],
        versions: vec![VersionCount::default()],
        certificates: vec![CertificateEnd::default()],
        ..HealthResponse::default()
    };
    all.push(health::document(&health));
    all.push(version::document(Some(&health)));
    all.push(check::document(
        &[Finding::good("id", "text")],
        jiff::Timestamp::UNIX_EPOCH,
    ));
    all
}

#[test]
fn each_document_has_its_fields() {
    let mut text = String::new();
    for document in documents() {
        assert_eq!(document["apiVersion"], API_VERSION);
        let kind = document["kind"].as_str().unwrap().to_owned();
        assert!(document.get("asOf").is_some() || kind == "Version", "{kind}");
        let mut found = BTreeSet::new();
        paths(&document, &kind, &mut found);
        text.extend(found.into_iter().map(|path| path + "\n"));
    }
    insta::assert_snapshot!(text);
}
