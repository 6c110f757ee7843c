use std::sync::Arc;

use prost::Message as _;
use proto::v1::object_state::Body;
use proto::v1::{ObjectState, RepositoryState};

use super::*;
use crate::Moment;
use crate::bindings::Binding;
use crate::inventory::{Arrived, Change, Facts, Held, Introduction, Limits};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OLD: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const NEW: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn inventory() -> Inventory {
    let limits = Limits {
        stale_after: 30_000,
        grace: 15_000,
        objects: 1000,
        bytes: 1 << 24,
    };
    Inventory::new(limits, 0, Moment::from(1))
}

/// A cluster that reports the repository once for each key.
fn report(inventory: &mut Inventory, cluster: &str, state: State, keys: &[&str]) {
    let name: Arc<str> = cluster.into();
    let introduction = Introduction {
        facts: Facts {
            cluster_uid: format!("uid-{cluster}"),
            ..Facts::default()
        },
        incarnation: "one".to_owned(),
        digest: Vec::new(),
        objects: 0,
        retains: false,
        retains_with_policy: false,
        namespaces: Vec::new(),
    };
    inventory.attach(&name, 1, introduction, Moment::from(1)).unwrap();
    let upserts = keys.iter().enumerate().map(|(at, key)| {
        let body = RepositoryState {
            restic_id: ID.to_owned(),
            key_id: (*key).to_owned(),
            ..RepositoryState::default()
        };
        let object = ObjectState {
            uid: format!("{cluster}-{at}"),
            namespace: "ns".to_owned(),
            name: format!("nas-{at}"),
            body: Some(Body::Repository(body)),
            ..ObjectState::default()
        };
        let state = object.encode_to_vec();
        let held = Held::new(&name, &object.uid, &state, None, 1);
        Arrived { held, state }
    });
    let change = Change {
        upserts: upserts.collect(),
        gone: Vec::new(),
        whole: true,
    };
    inventory.apply(&name, 1, change, Moment::from(1)).unwrap();
    let binding = Binding {
        restic_id: ID.into(),
        cluster: name,
        state,
        how: String::new(),
        since: 0,
        proven: true,
    };
    inventory.bind(vec![binding], Vec::new());
}

#[test]
fn a_key_goes_when_every_bound_cluster_has_shown_another_one() {
    let uses = "opens the repository with this key";
    let unknown = "has not shown";
    for (state, keys, words) in [
        (State::Bound, vec![NEW], None),
        (State::Bound, vec![NEW, NEW], None),
        (State::Bound, vec![OLD], Some(uses)),
        (State::Bound, vec![NEW, OLD], Some(uses)),
        (State::Bound, vec![""], Some(unknown)),
        (State::Bound, vec![NEW, ""], Some(unknown)),
        (State::Bound, vec![], Some(unknown)),
        (State::Pending, vec![NEW], Some("not bound to it yet")),
        (State::Ended, vec![OLD], None),
    ] {
        let mut inventory = inventory();
        report(&mut inventory, "a", State::Bound, &[NEW]);
        report(&mut inventory, "b", state, &keys);
        let text = needed(&inventory, ID, OLD);
        match words {
            None => assert_eq!(text, None, "{keys:?}"),
            Some(words) => {
                let text = text.unwrap_or_default();
                assert!(
                    text.contains("cluster b") && text.contains(words),
                    "{keys:?}: {text}"
                );
                assert!(!text.contains("cluster a"), "{text}");
            }
        }
    }
}

#[test]
fn a_cluster_that_is_known_in_part_has_shown_nothing() {
    let mut inventory = inventory();
    let binding = Binding {
        restic_id: ID.into(),
        cluster: "away".into(),
        state: State::Bound,
        how: String::new(),
        since: 0,
        proven: true,
    };
    inventory.bind(vec![binding], Vec::new());
    assert!(
        needed(&inventory, ID, OLD)
            .unwrap()
            .contains("cluster away has not shown")
    );
}
