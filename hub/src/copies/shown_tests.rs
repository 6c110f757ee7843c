//! What the stores of one restic id block.

use proto::v1::object_state::Body;
use proto::v1::{Collection, ObjectState, RepositoryState};

use super::*;
use crate::Moment;
use crate::bindings::State;
use crate::copies::Place;
use crate::inventory::testing;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn second() -> String {
    format!("{ID}@2")
}

/// Clusters a and b with a store each.
fn apart() -> Inventory {
    let mut inventory = testing::empty();
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
    let object = ObjectState {
        uid: format!("uid-of-{cluster}"),
        namespace: "ns".to_owned(),
        name: "nas".to_owned(),
        body: Some(Body::Repository(body)),
        ..ObjectState::default()
    };
    let now = Moment::from(1);
    testing::attach(inventory, cluster, 1, testing::introduction(cluster), now);
    testing::report(inventory, cluster, 1, vec![object], now);
    testing::bind(inventory, store, cluster, State::Bound, true);
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
