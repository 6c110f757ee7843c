//! Another repository at the location of the one that is known: nothing is removed from either until a person accepts it.

use crate::harness::{Fleet, ID, OTHER, Spoke, ask, keep_last, member, object, policy, repository};
use proto::digest::run_hash;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::row::Body as Shown;
use proto::v1::spoke_message::Body;
use proto::v1::{LeaseAsk, LeaseRenew, ObjectState, OperationKind, RepositoryState};

/// Repository `known`, at whose location `other` lies now.
fn changed(known: &str, other: &str) -> ObjectState {
    let body = RepositoryState {
        url: "s3:http://one/bucket".to_owned(),
        restic_id: known.to_owned(),
        changed_id: other.to_owned(),
        ..RepositoryState::default()
    };
    object("nas", Object::Repository(body))
}

fn alarm(fleet: &Fleet, id: &str) -> Option<String> {
    let row = fleet
        .running
        .hub
        .read(|i| hub::rows::repository(hub::seen::Seen::whole(i), id));
    match row?.body {
        Some(Shown::Repository(row)) => Some(row.alarm),
        _ => None,
    }
}

/// Why an operation waits.
async fn waits(spoke: &mut Spoke, operation: &str) -> String {
    spoke
        .until("the reason", |told| match told {
            Told::LeaseGrant(grant) if grant.operation == operation => panic!("granted: {grant:?}"),
            Told::LeaseWaiting(waiting) if waiting.operation == operation && waiting.position == 0 => {
                Some(waiting.reason.clone())
            }
            _ => None,
        })
        .await
}

#[tokio::test]
async fn neither_the_known_repository_nor_the_other_one_is_kept_until_it_is_accepted() {
    let fleet = Fleet::new().await;
    let mut a = member(&fleet).await;
    let mut b = fleet.spoke("b").await;
    b.tell(vec![repository(OTHER)]).await;
    fleet.until_binding("b", OTHER, "bound").await;

    // b's own location shows the repository of a now.
    b.tell(vec![changed(OTHER, ID)]).await;
    let alarmed = async |fleet: &Fleet| {
        let rows = [ID, OTHER].map(|id| alarm(fleet, id));
        rows.iter()
            .flatten()
            .filter(|alarm| alarm.starts_with("b/ns/nas: "))
            .count()
            == 2
    };
    fleet.until("the alarm in both rows", alarmed).await;
    a.ask("retention").await;
    let reason = waits(&mut a, "retention").await;
    assert!(
        reason.contains("location of b/ns/nas") && reason.contains("until a person accepts"),
        "{reason}"
    );
    let own = LeaseAsk {
        restic_id: OTHER.to_owned(),
        ..ask("its-own")
    };
    b.say(Body::LeaseAsk(own)).await;
    assert!(waits(&mut b, "its-own").await.contains("location of b/ns/nas"));

    // A person has accepted it: b uses the repository of a from now on.
    b.tell(vec![repository(ID)]).await;
    fleet
        .until("no alarm", async |fleet: &Fleet| {
            alarm(fleet, ID).is_some_and(|a| a.is_empty())
        })
        .await;
    a.ask("retention-again").await;
    assert_eq!(a.granted().await.operation, "retention-again");
}

#[tokio::test]
async fn a_holder_is_not_renewed_while_another_repository_lies_there() {
    let fleet = Fleet::with(&["--lease-ttl", "2s", "--lock-delay", "4s"]).await;
    let mut a = member(&fleet).await;
    a.ask("retention").await;
    let grant = a.granted().await;
    a.tell(vec![changed(ID, OTHER), policy(keep_last(3))]).await;
    fleet
        .until("the alarm", async |fleet: &Fleet| {
            alarm(fleet, ID).is_some_and(|a| !a.is_empty())
        })
        .await;
    let renew = LeaseRenew {
        operation: "retention".to_owned(),
        restic_id: ID.to_owned(),
        token: grant.token,
        seq: 1,
        run_hash: run_hash(&grant.run.unwrap()),
    };
    a.say(Body::LeaseRenew(renew)).await;
    // A question after it is answered, the renewal is not.
    a.ask("next").await;
    a.until("the answer to the question", |told| match told {
        Told::LeaseRenewed(renewed) => panic!("renewed: {renewed:?}"),
        Told::LeaseWaiting(waiting) if waiting.operation == "next" => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_run_goes_on_when_its_repository_becomes_read_only() {
    let fleet = Fleet::with(&["--lease-ttl", "2s", "--lock-delay", "4s"]).await;
    let mut a = member(&fleet).await;
    a.ask("retention").await;
    let grant = a.granted().await;
    let mut shut = repository(ID);
    let Some(Object::Repository(body)) = &mut shut.body else {
        panic!("no repository")
    };
    body.read_only = true;
    a.tell(vec![shut, policy(keep_last(3))]).await;
    a.ask("next").await;
    let run_hash = run_hash(&grant.run.unwrap());
    let renew = |seq| LeaseRenew {
        operation: "retention".to_owned(),
        restic_id: ID.to_owned(),
        token: grant.token,
        seq,
        run_hash: run_hash.clone(),
    };
    a.say(Body::LeaseRenew(renew(1))).await;
    a.until("the renewal", |told| match told {
        Told::LeaseRenewed(renewed) if renewed.seq == 1 => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_repository_that_one_cluster_makes_read_only_is_kept_by_none() {
    let fleet = Fleet::new().await;
    let mut a = member(&fleet).await;
    let body = RepositoryState {
        url: "s3:http://one/bucket".to_owned(),
        restic_id: ID.to_owned(),
        read_only: true,
        ..RepositoryState::default()
    };
    let mut b = fleet.spoke("b").await;
    b.tell(vec![object("nas", Object::Repository(body))]).await;
    b.prove(ID, 1).await;
    fleet.until_binding("b", ID, "bound").await;
    a.ask("retention").await;
    let reason = waits(&mut a, "retention").await;
    assert!(
        reason.contains("b/ns/nas makes the repository read-only"),
        "{reason}"
    );
    let check = LeaseAsk {
        kind: OperationKind::Check.into(),
        ..ask("check")
    };
    a.say(Body::LeaseAsk(check)).await;
    assert_eq!(a.granted().await.operation, "check", "it only reads");
}
