//! Rows of GlobalRetentionPolicies. Pure.

use jiff::Timestamp;
use proto::time::from_unix_millis;
use proto::v1::{PolicyRow, Row, row::Body};

use crate::Millis;
use crate::inventory::{Held, Inventory};
use crate::rows::freshness;
use crate::schedule;
use crate::waits::{self, Matter};

/// States of a policy, worst first.
pub const STATES: [&str; 8] = [
    "failed",
    "waiting",
    "notready",
    "stale",
    "running",
    "never",
    "suspended",
    "ok",
];

/// The state of a policy, and why it is not "ok" in one sentence. What its spoke reported last counts while that is silent:
/// nothing shows that it is over.
#[must_use]
pub fn state(inventory: &Inventory, held: &Held) -> (&'static str, String) {
    let Some(policy) = held.policy() else {
        return ("notready", String::new());
    };
    let unready = || {
        let why = held.ready_condition().map(|ready| match ready.message.as_str() {
            "" => ready.reason.clone(),
            message => message.to_owned(),
        });
        why.unwrap_or_else(|| "its operator has not reported a Ready condition yet".to_owned())
    };
    match waits::of(held).pop() {
        Some((Matter::Waiting, why)) => return ("waiting", why),
        Some((_, why)) if waits::last_run_failed(&policy.last_result) => return ("failed", why),
        Some((_, why)) => return ("notready", why),
        None if !held.is_ready() => return ("notready", unready()),
        None => {}
    }
    if inventory.fresh(&held.cluster).stale {
        let text = "its spoke is silent; this is the last that is known".to_owned();
        // Which cluster it was is not for everybody to see.
        return match inventory.carried_by_another(held) {
            Some(carried) => (
                "stale",
                format!("{text}; another cluster carried it out at {}", time(carried.at)),
            ),
            None => ("stale", text),
        };
    }
    match (
        policy.progress.is_some(),
        policy.suspended,
        policy.last_run.is_some(),
    ) {
        (true, ..) => ("running", "a run is under way".to_owned()),
        (_, true, _) => (
            "suspended",
            "it is suspended: it removes nothing, and what it keeps stays kept".to_owned(),
        ),
        (_, _, false) => ("never", "it has not run yet".to_owned()),
        _ => ("ok", String::new()),
    }
}

/// When a policy runs next after a time; `None` while it is suspended, or when that cannot be told.
#[must_use]
pub fn next_run(held: &Held, after: Millis) -> Option<Millis> {
    let policy = held.policy().filter(|policy| !policy.suspended)?;
    schedule::next_run(&policy.schedule, after)
}

/// A time for people.
fn time(at: Millis) -> String {
    let time = Timestamp::from_millisecond(at).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// A policy's row.
#[must_use]
pub fn row(inventory: &Inventory, held: &Held) -> Row {
    let (state, reason) = state(inventory, held);
    let policy = held.policy();
    let row = PolicyRow {
        cluster: held.cluster.to_string(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        state: state.to_owned(),
        reason,
        policy: policy.cloned(),
        ready: held.is_ready(),
        freshness: Some(freshness(inventory.fresh(&held.cluster))),
        next_run: next_run(held, inventory.now()).map(from_unix_millis),
    };
    Row {
        key: held.place.to_string(),
        body: Some(Body::Policy(row)),
    }
}
