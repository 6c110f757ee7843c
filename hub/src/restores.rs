//! Rows of ResticRestores. Pure.

use proto::time::from_unix_millis;
use proto::v1::{RestoreRow, Row, row::Body};

use crate::inventory::{Held, Inventory};
use crate::rows::freshness;

/// States of a restore, worst first.
pub const STATES: [&str; 5] = ["failed", "stale", "pending", "running", "done"];

/// The state of a restore, and why it failed or waits in one sentence.
#[must_use]
pub fn state(inventory: &Inventory, held: &Held) -> (&'static str, String) {
    let phase = held.restore().map_or("", |restore| restore.phase.as_str());
    let why = || {
        let ready = held.ready_condition().filter(|ready| ready.status != "True");
        ready.map_or_else(String::new, |ready| {
            match (ready.reason.as_str(), ready.message.as_str()) {
                (reason, "") => reason.to_owned(),
                ("", message) => message.to_owned(),
                (reason, message) => format!("{reason}: {message}"),
            }
        })
    };
    match phase {
        "Failed" => ("failed", why()),
        "Completed" => ("done", String::new()),
        _ if inventory.fresh(&held.cluster).stale => (
            "stale",
            "its spoke is silent; this is the last that is known".to_owned(),
        ),
        "InProgress" => ("running", String::new()),
        _ => ("pending", why()),
    }
}

/// A restore's row.
#[must_use]
pub fn row(inventory: &Inventory, held: &Held) -> Row {
    let (state, reason) = state(inventory, held);
    let row = RestoreRow {
        cluster: held.cluster.to_string(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        state: state.to_owned(),
        reason,
        restore: held.restore().cloned(),
        freshness: Some(freshness(inventory.fresh(&held.cluster))),
        created: held.created().map(from_unix_millis),
    };
    Row {
        key: held.place.to_string(),
        body: Some(Body::Restore(row)),
    }
}
