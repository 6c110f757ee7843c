use proto::v1::object_state::Body as Object;
use proto::v1::{BackupResult, BackupRun, BackupState, Condition, ObjectState, PolicyState, RepositoryState};

use super::*;
use crate::Moment;
use crate::inventory::{Inventory, testing};

fn object(uid: &str, ready: (&str, &str), body: Object) -> ObjectState {
    let condition = Condition {
        r#type: "Ready".to_owned(),
        status: ready.0.to_owned(),
        message: ready.1.to_owned(),
        ..Condition::default()
    };
    ObjectState {
        uid: uid.to_owned(),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        conditions: vec![condition],
        body: Some(body),
        ..ObjectState::default()
    }
}

fn whole(inventory: &Inventory) -> StatusResponse {
    status(Seen::whole(inventory), &[])
}

/// A backup whose last run failed with this text.
fn failed(uid: &str, message: &str) -> ObjectState {
    let run = BackupRun {
        result: BackupResult::Failed.into(),
        message: message.to_owned(),
        ..BackupRun::default()
    };
    let body = BackupState {
        suspended: true,
        last_run: Some(run),
        ..BackupState::default()
    };
    object(uid, ("True", ""), Object::Backup(body))
}

fn policy(uid: &str, result: &str) -> ObjectState {
    let body = PolicyState {
        last_result: result.to_owned(),
        ..PolicyState::default()
    };
    object(uid, ("True", ""), Object::Policy(body))
}

fn inventory(objects: Vec<ObjectState>) -> Inventory {
    let (mut inventory, now) = (testing::empty(), Moment::from(1));
    testing::attach(&mut inventory, "a", 1, testing::introduction("a"), now);
    testing::report(&mut inventory, "a", 1, objects, now);
    inventory
}

#[test]
fn totals_are_of_everything_and_what_was_cut_off_is_said() {
    let mut objects: Vec<ObjectState> = (0..30)
        .map(|n| failed(&format!("b{n}"), &format!("cause {n}")))
        .collect();
    for n in 0..3 {
        let message = format!("password {n}");
        let body = Object::Repository(RepositoryState::default());
        objects.push(object(&format!("r{n}"), ("False", &message), body));
    }
    let answer = whole(&inventory(objects));
    assert_eq!(
        (answer.needs_you.len(), answer.matters, answer.others),
        (20, 33, 3)
    );
    assert_eq!(answer.rest_next, "fleet backups, fleet repos");
    let few = whole(&inventory(vec![failed("b", "cause")]));
    assert_eq!((few.matters, few.others, few.rest_next.as_str()), (1, 0, ""));
}

#[test]
fn a_retention_run_that_was_interrupted_needs_a_person_as_one_that_failed() {
    let of = |result: &str| {
        let answer = whole(&inventory(vec![policy("p", result)]));
        let needs = answer.needs_you.into_iter().map(|needs| needs.state);
        needs.collect::<Vec<_>>()
    };
    assert_eq!(of("Failed"), ["policy-failed"]);
    assert_eq!(of("Interrupted"), ["policy-failed"]);
    assert_eq!(of("Applied"), [""; 0]);
}

#[test]
fn a_damaged_repository_needs_a_person_though_it_is_ready() {
    let repository = |damage: &str| {
        let body = RepositoryState {
            damage: damage.to_owned(),
            ..RepositoryState::default()
        };
        object("nas", ("True", ""), Object::Repository(body))
    };
    let of = |damage: &str| {
        let needs = whole(&inventory(vec![repository(damage)])).needs_you.into_iter();
        needs.map(|needs| (needs.state, needs.detail)).collect::<Vec<_>>()
    };
    assert_eq!(of(""), []);
    let text = "pack 1 does not exist";
    assert_eq!(of(text), [("damaged".to_owned(), text.to_owned())]);
}

#[test]
fn a_lock_whose_holder_fell_silent_needs_a_person() {
    let id = "a".repeat(64);
    let body = Object::Repository(RepositoryState {
        restic_id: id.clone(),
        ..RepositoryState::default()
    });
    let inventory = inventory(vec![object("nas", ("True", ""), body)]);
    let lock = Lock {
        restic_id: id,
        repository: "nas".to_owned(),
        state: "delayed".to_owned(),
        cluster: "b".to_owned(),
        subject: "retention ops/nightly".to_owned(),
        ends_ms: 90_000,
        ..Lock::default()
    };
    let answer = status(Seen::whole(&inventory), std::slice::from_ref(&lock));
    assert_eq!((answer.others, answer.matters), (1, 1));
    let needs = &answer.needs_you[0];
    assert_eq!(
        (needs.state.as_str(), needs.next.as_str()),
        ("delayed", "fleet why-locked nas")
    );
    assert!(
        needs.detail.starts_with("b (retention ops/nightly) fell silent"),
        "{}",
        needs.detail
    );
}

#[test]
fn half_a_fleet_that_falls_silent_at_once_is_one_matter() {
    let (mut inventory, now) = (testing::empty(), Moment::from(1));
    for n in 0..10 {
        let name = format!("c{n}");
        testing::attach(&mut inventory, &name, 1, testing::introduction(&name), now);
        testing::report(&mut inventory, &name, 1, Vec::new(), now);
    }
    let late = Moment::from(3_600_000);
    for n in 0..4 {
        inventory.hear(&format!("c{n}").into(), 1, late).unwrap();
    }
    inventory.advance(late);
    let answer = whole(&inventory);
    assert_eq!((answer.clusters, answer.clusters_stale), (10, 6));
    assert_eq!((answer.verdict.as_str(), answer.matters), ("unknown", 1));
    let text = &answer.needs_you[0].detail;
    assert!(text.starts_with("6 of 10 clusters fell silent at once"), "{text}");
}
