use prost::Message as _;
use proto::v1::object_state::Body;
use proto::v1::{ObjectState, PolicyState, RepositoryState, RetentionPolicySpec};

use super::*;
use crate::inventory::{Arrived, Change, Introduction, Limits};

const LIMITS: Limits = Limits {
    stale_after: 30,
    grace: 15,
    objects: 10,
    bytes: 10_000,
};

fn id() -> String {
    "f".repeat(64)
}

fn object(uid: &str, body: Body) -> ObjectState {
    ObjectState {
        uid: uid.to_owned(),
        namespace: "ns".into(),
        name: uid.to_owned(),
        body: Some(body),
        ..ObjectState::default()
    }
}

fn repository() -> ObjectState {
    object(
        "r",
        Body::Repository(RepositoryState {
            restic_id: id(),
            ..Default::default()
        }),
    )
}

fn policy(uid: &str, restic_id: &str, unclear: &str) -> ObjectState {
    let spec = RetentionPolicySpec {
        unclear: unclear.to_owned(),
        ..Default::default()
    };
    object(
        uid,
        Body::Policy(PolicyState {
            restic_id: restic_id.to_owned(),
            spec: Some(spec),
            ..Default::default()
        }),
    )
}

fn inventory(clusters: &[(&str, Vec<ObjectState>)]) -> Inventory {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    for (cluster, objects) in clusters {
        let name = (*cluster).into();
        inventory
            .attach(&name, 1, Introduction::default(), 0.into())
            .unwrap();
        let upserts = objects.iter().map(|object| {
            let state = object.encode_to_vec();
            Arrived {
                held: Held::new(&name, &object.uid, &state, None, 0),
                state,
            }
        });
        let change = Change {
            upserts: upserts.collect(),
            whole: true,
            ..Change::default()
        };
        inventory.apply(&name, 1, change, 0.into()).unwrap();
    }
    inventory
}

fn sources(run: &RetentionRun) -> Vec<&str> {
    run.policies.iter().map(|p| p.source.as_str()).collect()
}

#[test]
fn only_clusters_that_are_complete_are_known_and_policies_of_all_take_part() {
    let all = |policy_| vec![repository(), policy_];
    let mut inventory = inventory(&[
        ("a", all(policy("p", &id(), ""))),
        ("b", all(policy("q", &id(), ""))),
    ]);
    assert_eq!(compose(&inventory, &id(), "").clusters, ["a", "b"]);
    inventory.doubt(&"b".into(), 1, 1.into()).unwrap();
    let run = compose(&inventory, &id(), "");
    assert_eq!(run.clusters, ["a"]);
    assert_eq!(sources(&run), ["a/ns/p", "b/ns/q"], "what it keeps stays kept");
}

#[test]
fn an_unreadable_policy_without_a_known_binding_takes_part_wherever_its_cluster_is_bound() {
    let inventory = inventory(&[
        (
            "a",
            vec![
                repository(),
                policy("p", "", "cannot be read"),
                policy("new", "", ""),
            ],
        ),
        ("c", vec![policy("x", "", "cannot be read")]),
    ]);
    let run = compose(&inventory, &id(), "");
    assert_eq!(sources(&run), ["a/ns/p"]);
    assert!(!run.policies[0].unclear.is_empty());
}
