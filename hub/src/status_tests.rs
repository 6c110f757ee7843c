use std::sync::Arc;

use prost::Message as _;
use proto::v1::object_state::Body as Object;
use proto::v1::{BackupResult, BackupRun, BackupState, Condition, ObjectState, PolicyState, RepositoryState};

use super::*;
use crate::Moment;
use crate::inventory::Inventory;
use crate::inventory::{Arrived, Change, Held, Introduction, Limits};

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
    status(Seen::whole(inventory))
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
    let limits = Limits {
        stale_after: 30_000,
        grace: 15_000,
        objects: 1000,
        bytes: 1 << 24,
    };
    let now = Moment::from(1);
    let mut inventory = Inventory::new(limits, 0, now);
    let name: Arc<str> = "a".into();
    inventory.attach(&name, 1, Introduction::default(), now).unwrap();
    let upserts = objects.into_iter().map(|object| {
        let state = object.encode_to_vec();
        Arrived {
            held: Held::new(&name, &object.uid, &state, None, 1),
            state,
        }
    });
    let change = Change {
        upserts: upserts.collect(),
        gone: Vec::new(),
        whole: true,
    };
    inventory.apply(&name, 1, change, now).unwrap();
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
