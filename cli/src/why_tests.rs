#![allow(clippy::unwrap_used)]

use proto::v1::{
    BackupResult, BackupRun, BackupState, ClusterRow, GetResponse, Relation, RepositoryBinding, Resource, Row,
};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap()
}

fn found(collection: Collection, key: &str, body: Body, conditions: Vec<Condition>) -> Found {
    Found {
        collection,
        key: key.to_owned(),
        answer: GetResponse {
            row: Some(Row {
                key: key.to_owned(),
                body: Some(body),
            }),
            resources: vec![Resource {
                conditions,
                ..Resource::default()
            }],
            ..GetResponse::default()
        },
        alone: None,
    }
}

fn backup_in(state: &str, run: Option<BackupRun>, conditions: Vec<Condition>) -> Found {
    let row = BackupRow {
        cluster: "a".to_owned(),
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        state: state.to_owned(),
        reason: "the reason".to_owned(),
        since: Some(proto::time::from_unix(1_795_000_000 - 3 * 3600)),
        backup: Some(BackupState {
            repository_namespace: "shop".to_owned(),
            repository_name: "nas".to_owned(),
            last_run: run,
            ..BackupState::default()
        }),
        ..BackupRow::default()
    };
    found(
        Collection::Backups,
        "a/shop/orders",
        Body::Backup(row),
        conditions,
    )
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..Condition::default()
    }
}

#[test]
fn a_failed_run_has_its_reason_its_meaning_and_what_to_do() {
    let run = BackupRun {
        result: BackupResult::Failed.into(),
        reason: "RepositoryLocked".to_owned(),
        ..BackupRun::default()
    };
    let mut found = backup_in("failed", Some(run), Vec::new());
    found.answer.relations.push(Relation {
        what: "repository".to_owned(),
        collection: Collection::Repositories.into(),
        key: "id".to_owned(),
        name: "nas".to_owned(),
        state: "unready".to_owned(),
    });
    let why = of(&found, now());
    assert_eq!(
        why.sentence,
        "backup a/shop/orders is FAILED: the reason; since 3h"
    );
    assert!(why.means.contains("the lock was waited for"), "{why:?}");
    let repository = "its repository nas is UNREADY: fleet why repo id".to_owned();
    assert!(why.next.contains(&repository), "{why:?}");
    assert!(
        why.next.contains(&"fleet why-locked a/shop/nas".to_owned()),
        "{why:?}"
    );
    assert_eq!(why.next.last().unwrap(), "fleet backups run a/shop/orders");
    assert_eq!(why.code, code::FINDING);
}

#[test]
fn a_backup_that_is_not_ready_says_what_the_page_says() {
    let conditions = vec![condition(
        "Ready",
        "False",
        "PersistentVolumeClaimNotFound",
        "no claim data",
    )];
    let why = of(&backup_in("notready", None, conditions), now());
    assert_eq!(why.next.first().unwrap(), "create it, or correct the name");
    assert_eq!(why.page, "docs/conditions.md#resticbackup");
    assert!(
        why.next
            .last()
            .unwrap()
            .contains("kubectl describe rb -n shop orders"),
        "{why:?}"
    );
}

#[test]
fn what_is_well_is_0_and_what_nobody_knows_is_3() {
    let well = of(&backup_in("ok", None, Vec::new()), now());
    assert_eq!((well.code, well.next.len()), (0, 0), "{well:?}");
    assert!(!well.sentence.contains("since"), "{well:?}");
    let silent = of(&backup_in("stale", None, Vec::new()), now());
    assert_eq!(
        (silent.code, silent.next.as_slice()),
        (code::UNKNOWN, &["fleet why cluster a".to_owned()][..])
    );
    let nothing = Found {
        collection: Collection::Backups,
        key: "x".to_owned(),
        answer: GetResponse::default(),
        alone: None,
    };
    assert_eq!(of(&nothing, now()).code, code::UNKNOWN);
}

#[test]
fn each_state_of_the_hub_has_a_code_of_its_own_kind() {
    for state in ["failed", "late", "partial", "notready"] {
        assert_eq!(
            of(&backup_in(state, None, Vec::new()), now()).code,
            code::FINDING,
            "{state}"
        );
    }
    for state in ["stale", "never"] {
        assert_eq!(
            of(&backup_in(state, None, Vec::new()), now()).code,
            code::UNKNOWN,
            "{state}"
        );
    }
    for state in ["running", "suspended", "ok"] {
        assert_eq!(of(&backup_in(state, None, Vec::new()), now()).code, 0, "{state}");
    }
}

#[test]
fn a_repository_names_the_resource_that_is_not_ready() {
    let row = RepositoryRow {
        name: "nas".to_owned(),
        state: "degraded".to_owned(),
        bindings: vec![
            RepositoryBinding {
                cluster: "a".to_owned(),
                ready: true,
                ..RepositoryBinding::default()
            },
            RepositoryBinding {
                cluster: "b".to_owned(),
                namespace: "shop".to_owned(),
                name: "nas".to_owned(),
                reason: "WrongPassword".to_owned(),
                message: "wrong password".to_owned(),
                ..RepositoryBinding::default()
            },
        ],
        ..RepositoryRow::default()
    };
    let why = of(
        &found(
            Collection::Repositories,
            "id",
            Body::Repository(row.clone()),
            Vec::new(),
        ),
        now(),
    );
    assert_eq!(
        why.sentence,
        "repo nas is DEGRADED: b/shop/nas: WrongPassword: wrong password"
    );
    assert!(
        why.next.first().unwrap().starts_with("correct RESTIC_PASSWORD"),
        "{why:?}"
    );
    let damaged = RepositoryRow {
        state: "ready".to_owned(),
        alarm: "2 packs are missing".to_owned(),
        bindings: Vec::new(),
        ..row
    };
    let why = of(
        &found(
            Collection::Repositories,
            "id",
            Body::Repository(damaged),
            Vec::new(),
        ),
        now(),
    );
    assert_eq!(why.code, code::FINDING, "{why:?}");
}

#[test]
fn a_policy_that_waits_names_the_plans() {
    let row = PolicyRow {
        cluster: "a".to_owned(),
        state: "waiting".to_owned(),
        ..PolicyRow::default()
    };
    let conditions = vec![condition(
        "ApprovalRequired",
        "True",
        "OverGuard",
        "removes 5 of 6",
    )];
    let why = of(
        &found(
            Collection::Policies,
            "a/ops/nightly",
            Body::Policy(row),
            conditions,
        ),
        now(),
    );
    assert!(why.next.contains(&"fleet plan list".to_owned()), "{why:?}");
    assert!(why.next.first().unwrap().contains("approve"), "{why:?}");
}

#[test]
fn a_cluster_that_is_silent_says_since_when() {
    let row = ClusterRow {
        name: "edge".to_owned(),
        state: "stale".to_owned(),
        ..ClusterRow::default()
    };
    let why = of(
        &found(Collection::Clusters, "edge", Body::Cluster(row), Vec::new()),
        now(),
    );
    assert_eq!(why.code, code::UNKNOWN);
    assert!(
        why.next
            .first()
            .unwrap()
            .starts_with("fleet check --kube-context"),
        "{why:?}"
    );
}
