//! Operations of one storage host wait for places, over real sockets.

use std::time::Duration;

use crate::harness::{Fleet, ID, OTHER, Spoke, ask, keep_last, object, policy};
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{LeaseAsk, LeaseRelease, LeaseRenew, ObjectState, OperationKind, RepositoryState};

const THIRD: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

fn repository(name: &str, id: &str, url: &str) -> ObjectState {
    let body = RepositoryState {
        url: url.to_owned(),
        restic_id: id.to_owned(),
        ..RepositoryState::default()
    };
    object(name, Object::Repository(body))
}

/// Spoke a with two repositories on one host and one on another.
async fn member(fleet: &Fleet) -> Spoke {
    let spoke = fleet.spoke("a").await;
    let objects = vec![
        repository("one", ID, "rest:http://nas:8000/one"),
        repository("two", OTHER, "rest:http://nas:8000/two"),
        repository("three", THIRD, "s3:https://minio:9000/three"),
        policy(keep_last(3)),
    ];
    spoke.tell(objects).await;
    for id in [ID, OTHER, THIRD] {
        fleet.until_binding("a", id, "bound").await;
    }
    spoke
}

async fn wants(spoke: &Spoke, operation: &str, restic_id: &str, kind: OperationKind) {
    let ask = LeaseAsk {
        restic_id: restic_id.to_owned(),
        kind: kind.into(),
        ..ask(operation)
    };
    spoke.say(Body::LeaseAsk(ask)).await;
}

async fn granted(spoke: &mut Spoke, operation: &str) -> u64 {
    spoke
        .until(&format!("a grant for {operation}"), |told| match told {
            Told::LeaseGrant(grant) if grant.operation == operation => Some(grant.token),
            _ => None,
        })
        .await
}

async fn release_first(spoke: &Spoke, token: u64) {
    let release = LeaseRelease {
        operation: "first".to_owned(),
        restic_id: ID.to_owned(),
        token,
        ..LeaseRelease::default()
    };
    spoke.say(Body::LeaseRelease(release)).await;
}

async fn waits_for_a_place(spoke: &mut Spoke, operation: &str) {
    spoke
        .until("a place to wait for", |told| match told {
            Told::LeaseGrant(grant) if grant.operation == operation => panic!("{grant:?}"),
            Told::LeaseWaiting(w) if w.operation == operation && w.reason.contains("for a place") => {
                assert!(
                    w.reason.contains("1 operation is at work on host nas:8000"),
                    "{w:?}"
                );
                Some(())
            }
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn a_host_has_so_many_places_also_after_a_restart_and_other_hosts_have_their_own() {
    use OperationKind::{Check, Retention, Unlock};
    // The lease of the one that works must outlive the restart.
    let terms = ["--lease-ttl", "5s", "--lock-delay", "10s", "--per-host", "1"];
    let fleet = Fleet::with(&terms).await;
    let mut spoke = member(&fleet).await;
    wants(&spoke, "first", ID, Retention).await;
    let token = granted(&mut spoke, "first").await;
    wants(&spoke, "second", OTHER, Check).await;
    waits_for_a_place(&mut spoke, "second").await;
    wants(&spoke, "third", THIRD, Retention).await;
    granted(&mut spoke, "third").await;
    let locks = fleet.locks().await.locks;
    let lock = locks.iter().find(|lock| lock.restic_id == OTHER).unwrap();
    assert_eq!(lock.state, "free");
    assert!(lock.waiters[0].reason.contains("for a place"), "{lock:?}");

    let fleet = fleet.restart().await;
    let mut spoke = member(&fleet).await;
    wants(&spoke, "first", ID, Retention).await;
    assert_eq!(granted(&mut spoke, "first").await, token, "it holds it still");
    wants(&spoke, "second", OTHER, Check).await;
    // It renews after the start, so that its lease outlives the time in which nothing is granted.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let renew = LeaseRenew {
        operation: "first".to_owned(),
        restic_id: ID.to_owned(),
        token,
        seq: 1,
        ..LeaseRenew::default()
    };
    spoke.say(Body::LeaseRenew(renew)).await;
    waits_for_a_place(&mut spoke, "second").await;
    release_first(&spoke, token).await;
    granted(&mut spoke, "second").await;
    // The removal of left-over locks waits for no place: backups fail on them.
    wants(&spoke, "unlock", ID, Unlock).await;
    granted(&mut spoke, "unlock").await;
}

#[tokio::test]
async fn the_removal_of_locks_waits_for_no_place_and_takes_none_whoever_waits_before_it() {
    use OperationKind::{Retention, Unlock};
    let fleet = Fleet::with(&["--lease-ttl", "5s", "--lock-delay", "10s", "--per-host", "1"]).await;
    let mut spoke = member(&fleet).await;
    wants(&spoke, "first", ID, Retention).await;
    let token = granted(&mut spoke, "first").await;
    wants(&spoke, "second", OTHER, Retention).await;
    waits_for_a_place(&mut spoke, "second").await;
    wants(&spoke, "unlock", OTHER, Unlock).await;
    granted(&mut spoke, "unlock").await;
    release_first(&spoke, token).await;
    wants(&spoke, "again", ID, Retention).await;
    // Also not for as long as the lease of the removal, which nobody renews.
    spoke
        .until("a grant for again", |told| match told {
            Told::LeaseGrant(grant) if grant.operation == "again" => Some(()),
            Told::LeaseWaiting(w) if w.operation == "again" && w.reason.contains("for a place") => {
                panic!("{w:?}")
            }
            _ => None,
        })
        .await;
}
