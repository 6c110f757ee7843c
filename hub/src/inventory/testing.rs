//! Clusters of tests: they connect, report all that they have, and are bound.

use std::sync::Arc;

use prost::Message as _;
use proto::v1::ObjectState;

use super::{Arrived, Change, Facts, Held, Introduction, Inventory, Limits};
use crate::Moment;
use crate::bindings::{Binding, State};

/// An inventory that knows nothing, at the first moment.
pub fn empty() -> Inventory {
    let limits = Limits {
        stale_after: 30_000,
        grace: 15_000,
        objects: 1_000,
        bytes: 1 << 24,
    };
    Inventory::new(limits, 0, Moment::from(1))
}

/// What a spoke says of itself.
pub fn introduction(cluster: &str) -> Introduction {
    Introduction {
        facts: Facts {
            cluster_uid: format!("uid-{cluster}"),
            ..Facts::default()
        },
        incarnation: "one".to_owned(),
        ..Introduction::default()
    }
}

/// A session begins.
pub fn attach(
    inventory: &mut Inventory,
    cluster: &str,
    session: u64,
    introduction: Introduction,
    now: Moment,
) {
    inventory
        .attach(&cluster.into(), session, introduction, now)
        .unwrap();
}

/// A session reports the whole inventory of its cluster.
pub fn report(
    inventory: &mut Inventory,
    cluster: &str,
    session: u64,
    objects: Vec<ObjectState>,
    now: Moment,
) {
    let name: Arc<str> = cluster.into();
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
    inventory.apply(&name, session, change, now).unwrap();
}

/// A cluster uses a store.
pub fn bind(inventory: &mut Inventory, store: &str, cluster: &str, state: State, proven: bool) {
    let binding = Binding {
        restic_id: store.into(),
        cluster: cluster.into(),
        state,
        how: String::new(),
        since: 0,
        proven,
    };
    inventory.bind(vec![binding], Vec::new());
}
