//! What the stores of one restic id block.

use std::sync::Arc;

use prost::Message as _;
use proto::v1::object_state::Body;
use proto::v1::{Collection, ObjectState, RepositoryState};

use super::*;
use crate::Moment;
use crate::bindings::{Binding, State};
use crate::copies::Place;
use crate::inventory::{Arrived, Change, Facts, Held, Introduction, Limits};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn second() -> String {
    format!("{ID}@2")
}

/// Clusters a and b with a store each.
fn apart() -> Inventory {
    let limits = Limits {
        stale_after: 30_000,
        grace: 15_000,
        objects: 1000,
        bytes: 1 << 24,
    };
    let mut inventory = Inventory::new(limits, 0, Moment::from(1));
    let place = |cluster: &str, store: &str, urls: &str| Place {
        restic_id: ID.into(),
        cluster: cluster.into(),
        store: store.into(),
        urls: urls.to_owned(),
    };
    inventory.place(vec![place("a", ID, "u"), place("b", &second(), "v")]);
    inventory
}

/// A cluster that is bound to a store has a resource for it.
fn report(inventory: &mut Inventory, cluster: &str, store: &str, body: RepositoryState) {
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
    let object = ObjectState {
        uid: format!("uid-of-{cluster}"),
        namespace: "ns".to_owned(),
        name: "nas".to_owned(),
        body: Some(Body::Repository(body)),
        ..ObjectState::default()
    };
    let state = object.encode_to_vec();
    let held = Held::new(&name, &object.uid, &state, None, 1);
    let change = Change {
        upserts: vec![Arrived { held, state }],
        gone: Vec::new(),
        whole: true,
    };
    inventory.apply(&name, 1, change, Moment::from(1)).unwrap();
    let binding = Binding {
        restic_id: store.into(),
        cluster: name,
        state: State::Bound,
        how: String::new(),
        since: 0,
        proven: true,
    };
    inventory.bind(vec![binding], Vec::new());
}

fn at(url: &str) -> RepositoryState {
    RepositoryState {
        restic_id: ID.to_owned(),
        url: url.to_owned(),
        ..RepositoryState::default()
    }
}

#[test]
fn a_cluster_of_which_no_store_is_known_may_use_each() {
    let mut inventory = apart();
    report(&mut inventory, "a", ID, at("u"));
    report(&mut inventory, "b", &second(), at("v"));
    for key in [ID, &second()] {
        assert_eq!(unclear(&inventory, key, None), None, "{key}");
    }
    report(&mut inventory, "c", ID, at("w"));
    for key in [ID, &second()] {
        let text = unclear(&inventory, key, None).unwrap_or_default();
        assert!(text.contains("cluster c"), "{key}: {text}");
    }
    // What b does in its own store is not held up by that.
    assert_eq!(unclear(&inventory, &second(), Some("b")), None);
    assert!(unclear(&inventory, ID, Some("c")).is_some());
}

#[test]
fn what_lies_in_the_place_of_another_repository_concerns_every_store_of_its_id() {
    let mut inventory = apart();
    report(&mut inventory, "a", ID, at("u"));
    report(&mut inventory, "b", &second(), at("v"));
    let other = RepositoryState {
        restic_id: OTHER.to_owned(),
        changed_id: ID.to_owned(),
        ..at("x")
    };
    let before = inventory.revision();
    report(&mut inventory, "c", OTHER, other);
    let touched = inventory
        .changes()
        .since(before, Collection::Repositories)
        .unwrap();
    for key in [ID, &second(), OTHER] {
        assert!(inventory.changed_of(key).is_some(), "{key}");
        assert!(touched.contains(key), "{key}: its row says so too");
    }
}
