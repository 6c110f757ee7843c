//! What a client with a valid spoke certificate, and without the password of a repository, can do to those who have it:
//! nothing, and it is counted.

mod floods;
mod pending;

use crate::harness::{Fleet, ID, OTHER, Spoke, ask, keep_last, master, object, policy, repository};
use proto::possession::prove;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditRequest, Collection, CreationDone, CreationRequest, DecideBindingRequest, Hello, LeaseAsk,
    LeaseRelease, LeaseRenew, LeaseWithdraw, ListRequest, PlanPart, PlansRequest, RepositoryRow,
    RepositoryState, RepositoryStatistics, RetentionRule, row,
};

/// An honest cluster with a repository and a policy, and an attacker that claims both.
async fn victims() -> (Fleet, Spoke, Spoke) {
    let fleet = Fleet::new().await;
    let mut honest = fleet.spoke("honest").await;
    honest.tell(vec![repository(ID), policy(keep_last(30))]).await;
    honest.prove(ID, 1).await;
    fleet.until_binding("honest", ID, "bound").await;
    let attacker = fleet.spoke("attacker").await;
    attacker.tell(vec![repository(ID), policy(keep_last(1))]).await;
    fleet.until_binding("attacker", ID, "pending").await;
    (fleet, honest, attacker)
}

async fn row(fleet: &Fleet) -> RepositoryRow {
    let request = ListRequest {
        collection: Collection::Repositories.into(),
        ..ListRequest::default()
    };
    let rows = fleet
        .operator()
        .await
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .rows;
    let found = rows.into_iter().find(|row| row.key == ID).unwrap();
    let Some(row::Body::Repository(row)) = found.body else {
        panic!()
    };
    row
}

#[tokio::test]
async fn a_lease_of_a_repository_of_others_is_refused_and_drains_nobody() {
    let (fleet, mut honest, mut attacker) = victims().await;
    attacker.ask("job").await;
    let reason = attacker
        .until("a reason", |told| match told {
            Told::LeaseWaiting(waiting) => Some(waiting.reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains("fleet repos accept"), "{reason}");
    fleet.until_refused("ask", "pending").await;
    assert!(fleet.locks().await.locks.is_empty());
    honest.ask("job").await;
    honest.granted().await;
    let drained = |told: &Told| matches!(told, Told::Drain(_));
    assert!(!attacker.told.iter().any(drained));
}

#[tokio::test]
async fn a_renewal_under_a_token_that_nobody_granted_holds_nothing() {
    let (fleet, honest, mut attacker) = victims().await;
    let renew = |restic_id: &str| {
        Body::LeaseRenew(LeaseRenew {
            operation: "job".to_owned(),
            restic_id: restic_id.to_owned(),
            token: 1 << 59,
            seq: 1,
            run_hash: Vec::new(),
        })
    };
    attacker.say(renew(ID)).await;
    fleet.until_refused("renew", "pending").await;
    // Also where it is bound.
    attacker.tell(vec![repository(OTHER)]).await;
    fleet.until_binding("attacker", OTHER, "bound").await;
    attacker.say(renew(OTHER)).await;
    attacker
        .until("a refusal", |told| match told {
            Told::LeaseRevoke(revoke) if revoke.restic_id == OTHER => Some(()),
            _ => None,
        })
        .await;
    assert!(fleet.locks().await.locks.iter().all(|lock| lock.token < 1 << 59));
    drop(honest);
}

#[tokio::test]
async fn a_token_that_was_never_seen_delays_nobody() {
    let (fleet, mut honest, attacker) = victims().await;
    let seen = |restic_id: &str| {
        Body::LeaseAsk(LeaseAsk {
            restic_id: restic_id.to_owned(),
            seen_token: 1 << 60,
            ..ask("job")
        })
    };
    attacker.say(seen(ID)).await;
    fleet.until_refused("ask", "pending").await;
    attacker.tell(vec![repository(OTHER)]).await;
    fleet.until_binding("attacker", OTHER, "bound").await;
    attacker.say(seen(OTHER)).await;
    fleet.until_refused("ask", "token").await;
    honest.ask("job").await;
    assert_eq!(honest.granted().await.token, 1);
}

#[tokio::test]
async fn a_genuine_delay_is_cut_short_by_nobody_else() {
    let (fleet, mut honest, attacker) = victims().await;
    honest.ask("job").await;
    let token = honest.granted().await.token;
    // It falls silent.
    let delayed = async |fleet: &Fleet| {
        let locks = fleet.locks().await.locks;
        locks.iter().any(|lock| lock.state == "delayed")
    };
    fleet.until("the delay", delayed).await;
    for token in [token, token + 1] {
        let release = LeaseRelease {
            operation: "job".to_owned(),
            restic_id: ID.to_owned(),
            token,
            ..LeaseRelease::default()
        };
        attacker.say(Body::LeaseRelease(release)).await;
        let withdraw = LeaseWithdraw {
            operation: "job".to_owned(),
            restic_id: ID.to_owned(),
            token: 0,
        };
        attacker.say(Body::LeaseWithdraw(withdraw)).await;
    }
    fleet
        .until("both refused", async |fleet| {
            fleet.refused("release", "pending") == 2 && fleet.refused("withdraw", "pending") == 2
        })
        .await;
    assert!(delayed(&fleet).await);
}

#[tokio::test]
async fn made_up_ids_leave_no_trace() {
    let (fleet, _honest, attacker) = victims().await;
    for n in 0..50 {
        let restic_id = format!("{n:064x}");
        attacker
            .say(Body::LeaseAsk(LeaseAsk {
                restic_id: restic_id.clone(),
                ..ask("job")
            }))
            .await;
        let release = LeaseRelease {
            operation: "job".to_owned(),
            restic_id,
            ..LeaseRelease::default()
        };
        attacker.say(Body::LeaseRelease(release)).await;
    }
    for restic_id in ["", "x", &"A".repeat(64), &"a".repeat(10_000)] {
        let restic_id = restic_id.to_owned();
        attacker
            .say(Body::LeaseAsk(LeaseAsk {
                restic_id,
                ..ask("job")
            }))
            .await;
    }
    fleet
        .until("all refused", async |fleet| {
            fleet.refused("ask", "not_bound") == 50
                && fleet.refused("release", "not_bound") == 50
                && fleet.refused("ask", "id") == 4
        })
        .await;
    assert!(fleet.locks().await.locks.is_empty());
    let audit = fleet
        .operator()
        .await
        .audit(AuditRequest::default())
        .await
        .unwrap();
    assert!(audit.into_inner().entries.is_empty());
}

#[tokio::test]
async fn an_operation_is_pinned_to_its_repository() {
    let (fleet, mut honest, _attacker) = victims().await;
    let mut second = repository(OTHER);
    second.uid = "second".to_owned();
    honest.tell(vec![repository(ID), second]).await;
    fleet.until_binding("honest", OTHER, "bound").await;
    honest.ask("job").await;
    let token = honest.granted().await.token;
    let moved = LeaseRenew {
        operation: "job".to_owned(),
        restic_id: OTHER.to_owned(),
        token,
        ..LeaseRenew::default()
    };
    honest.say(Body::LeaseRenew(moved)).await;
    honest
        .until("a refusal", |told| match told {
            Told::LeaseRevoke(revoke) if revoke.restic_id == OTHER => Some(()),
            _ => None,
        })
        .await;
    let restic_id = OTHER.to_owned();
    honest
        .say(Body::LeaseAsk(LeaseAsk {
            restic_id,
            ..ask("job")
        }))
        .await;
    fleet.until_refused("ask", "malformed").await;
}

#[tokio::test]
async fn an_epoch_from_nowhere_is_not_believed() {
    let (fleet, mut honest, attacker) = victims().await;
    let hello = Hello {
        hub_incarnation: attacker.welcome.hub_incarnation.clone(),
        hub_epoch: u64::MAX - 1,
        ..Hello::default()
    };
    let _session = fleet.spoke_that_says("attacker", hello).await;
    fleet.until_refused("hello", "restore").await;
    honest.ask("job").await;
    honest.granted().await;
}

#[tokio::test]
async fn a_session_that_was_superseded_says_nothing_any_more() {
    let (fleet, mut old, _attacker) = victims().await;
    old.ask("job").await;
    let token = old.granted().await.token;
    let _new = fleet.spoke("honest").await;
    let release = LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        ..LeaseRelease::default()
    };
    old.say(Body::LeaseRelease(release)).await;
    // The old stream ends, whatever was in it.
    let ended = async { while let Ok(Some(_)) = old.next().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended)
        .await
        .unwrap();
    let locks = fleet.locks().await.locks;
    assert!(
        locks
            .iter()
            .any(|lock| lock.token == token && lock.state != "free")
    );
}
