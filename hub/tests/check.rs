//! Integrity checks under the maintenance lock: backups go on beside them, and damage is in every run.

use crate::harness::{Fleet, ID, Spoke, ask, keep_last, member, object, policy, repository};
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::row::Body as Shown;
use proto::v1::spoke_message::Body;
use proto::v1::{
    BackupState, LeaseAsk, LeaseGrant, LeaseRelease, ObjectState, OperationKind, OperationOutcome,
    RepositoryState,
};

fn running() -> ObjectState {
    let body = BackupState {
        repository_namespace: "ns".to_owned(),
        repository_name: "nas".to_owned(),
        restic_id: ID.to_owned(),
        under_way: true,
        ..BackupState::default()
    };
    object("orders", Object::Backup(body))
}

fn damaged() -> ObjectState {
    let body = RepositoryState {
        url: "s3:http://one/bucket".to_owned(),
        restic_id: ID.to_owned(),
        damage: "pack 1 does not exist".to_owned(),
        ..RepositoryState::default()
    };
    object("nas", Object::Repository(body))
}

fn checks(operation: &str) -> Body {
    Body::LeaseAsk(LeaseAsk {
        kind: OperationKind::Check.into(),
        subject: "check ns/nas".to_owned(),
        policy: "nas".to_owned(),
        ..ask(operation)
    })
}

fn released(token: u64, result: &str) -> Body {
    released_of("nas", token, result)
}

fn released_of(owner: &str, token: u64, result: &str) -> Body {
    Body::LeaseRelease(LeaseRelease {
        operation: "check".to_owned(),
        restic_id: ID.to_owned(),
        token,
        outcome: Some(OperationOutcome {
            result: result.to_owned(),
            message: "pack 1 does not exist".to_owned(),
            ..OperationOutcome::default()
        }),
        policy: owner.to_owned(),
        ..LeaseRelease::default()
    })
}

/// A check from its question to its end.
async fn checked(spoke: &mut Spoke, owner: &str, result: &str) {
    spoke.say(checks("check")).await;
    let check = granted(spoke, "check").await;
    spoke.say(released_of(owner, check.token, result)).await;
    until_released(spoke, check.token).await;
}

async fn until_released(spoke: &mut Spoke, token: u64) {
    spoke
        .until("the release", |told| match told {
            Told::LeaseReleased(released) if released.token == token => Some(()),
            _ => None,
        })
        .await;
}

/// The damage that a retention run is given.
async fn damage(spoke: &mut Spoke) -> String {
    spoke.ask("retention").await;
    let retention = granted(spoke, "retention").await;
    let ends = LeaseRelease {
        operation: "retention".to_owned(),
        restic_id: ID.to_owned(),
        token: retention.token,
        ..LeaseRelease::default()
    };
    spoke.say(Body::LeaseRelease(ends)).await;
    until_released(spoke, retention.token).await;
    retention.run.unwrap().damage
}

const FOUND: &str = "check ns/nas in cluster a: pack 1 does not exist";

async fn granted(spoke: &mut Spoke, operation: &str) -> LeaseGrant {
    spoke
        .until("a grant", |told| match told {
            Told::LeaseGrant(grant) if grant.operation == operation => Some(grant.clone()),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn the_end_of_a_check_that_found_damage_counts_before_the_state_of_its_repository_arrives() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    for (result, damage) in [("Damaged", FOUND), ("Passed", "")] {
        spoke.say(checks("check")).await;
        let check = granted(&mut spoke, "check").await;
        spoke.ask("retention").await;
        spoke.say(released(check.token, result)).await;
        let retention = granted(&mut spoke, "retention").await;
        assert_eq!(retention.run.unwrap().damage, damage, "{result}");
        let ends = LeaseRelease {
            operation: "retention".to_owned(),
            restic_id: ID.to_owned(),
            token: retention.token,
            ..LeaseRelease::default()
        };
        spoke.say(Body::LeaseRelease(ends)).await;
    }
}

#[tokio::test]
async fn what_a_check_has_found_survives_restarts_of_the_hub() {
    // Long enough for the spoke to come back within it.
    let fleet = Fleet::with(&["--lease-ttl", "3s", "--lock-delay", "7s"]).await;
    let mut spoke = member(&fleet).await;
    spoke.say(checks("check")).await;
    let check = granted(&mut spoke, "check").await;
    // The hub forgets that the operation is a check.
    drop(spoke);
    let fleet = fleet.restart().await;
    let mut spoke = fleet.spoke("a").await;
    spoke.say(released(check.token, "Damaged")).await;
    until_released(&mut spoke, check.token).await;
    // And what it has found.
    drop(spoke);
    let fleet = fleet.restart().await;
    let mut spoke = member(&fleet).await;
    assert_eq!(damage(&mut spoke).await, FOUND);
}

#[tokio::test]
async fn a_check_that_passed_speaks_for_its_own_resource_alone() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    checked(&mut spoke, "nas", "Damaged").await;
    checked(&mut spoke, "other", "Passed").await;
    assert_eq!(damage(&mut spoke).await, FOUND);
    checked(&mut spoke, "nas", "Failed").await;
    assert_eq!(damage(&mut spoke).await, FOUND, "nothing is known anew");
    checked(&mut spoke, "nas", "Passed").await;
    assert_eq!(damage(&mut spoke).await, "");
    // The end of another operation is no word about damage, whatever it says.
    spoke.ask("check").await;
    let grant = granted(&mut spoke, "check").await;
    spoke.say(released(grant.token, "Damaged")).await;
    until_released(&mut spoke, grant.token).await;
    assert_eq!(damage(&mut spoke).await, "");
}

#[tokio::test]
async fn a_check_is_granted_beside_a_running_backup_and_its_damage_is_in_the_run_that_follows() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke
        .tell(vec![repository(ID), policy(keep_last(3)), running()])
        .await;
    let backing_up = async |fleet: &Fleet| fleet.running.hub.read(|i| i.is_backing_up(ID));
    fleet.until("the backup", backing_up).await;
    spoke.say(checks("check")).await;
    let grant = spoke
        .until("a grant", |told| match told {
            Told::Drain(drain) => panic!("backups are held for a check: {drain:?}"),
            Told::LeaseGrant(grant) => Some(grant.clone()),
            _ => None,
        })
        .await;
    assert!(grant.run.is_none(), "a check is given nothing to remove");
    let locks = fleet.locks().await.locks;
    assert_eq!(locks[0].subject, "check ns/nas");
    spoke.tell(vec![damaged(), policy(keep_last(3))]).await;
    let known = async |fleet: &Fleet| fleet.running.hub.read(|i| i.damage_of(ID).is_some());
    fleet.until("the damage", known).await;
    let row = fleet
        .running
        .hub
        .read(|i| hub::rows::repository(hub::seen::Seen::whole(i), ID));
    let Some(Shown::Repository(row)) = row.unwrap().body else {
        panic!("no repository")
    };
    assert_eq!(row.alarm, "a/ns/nas: pack 1 does not exist");
    spoke.say(released(grant.token, "Damaged")).await;
    spoke.ask("retention").await;
    let grant = granted(&mut spoke, "retention").await;
    let damage = grant.run.unwrap().damage;
    assert_eq!(damage, "ResticRepository a/ns/nas: pack 1 does not exist");
}
