use proto::v1::object_state::Body;
use proto::v1::{ObjectState, RepositoryState};

use super::*;
use crate::Moment;
use crate::inventory::testing;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OLD: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const NEW: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// A cluster that reports the repository once for each key.
fn report(inventory: &mut Inventory, cluster: &str, state: State, keys: &[&str]) {
    let objects = keys.iter().enumerate().map(|(at, key)| {
        let body = RepositoryState {
            restic_id: ID.to_owned(),
            key_id: (*key).to_owned(),
            ..RepositoryState::default()
        };
        ObjectState {
            uid: format!("{cluster}-{at}"),
            namespace: "ns".to_owned(),
            name: format!("nas-{at}"),
            body: Some(Body::Repository(body)),
            ..ObjectState::default()
        }
    });
    let now = Moment::from(1);
    testing::attach(inventory, cluster, 1, testing::introduction(cluster), now);
    testing::report(inventory, cluster, 1, objects.collect(), now);
    testing::bind(inventory, ID, cluster, state, true);
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
        let mut inventory = testing::empty();
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
    let mut inventory = testing::empty();
    testing::bind(&mut inventory, ID, "away", State::Bound, true);
    assert!(
        needed(&inventory, ID, OLD)
            .unwrap()
            .contains("cluster away has not shown")
    );
}
