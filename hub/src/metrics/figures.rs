//! The state of the fleet in numbers. Pure.

use std::collections::BTreeMap;

use proto::v1::LocksResponse;
use proto::v1::row::Body;

use crate::health::Health;
use crate::inventory::Inventory;
use crate::rows::{self, CLUSTER_STATES, REPOSITORY_STATES};
use crate::seen::Seen;
use crate::{status, waits};

/// All verdicts.
const VERDICTS: [&str; 3] = ["safe", "not-safe", "unknown"];
/// States of a lock that is in use.
const LOCK_STATES: [&str; 4] = ["draining", "granting", "held", "delayed"];

/// Numbers by state; every state is there, also with 0, so that a series does not vanish.
pub type Counts = BTreeMap<&'static str, u64>;

/// The state of the fleet in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// 1 for one of them.
    pub verdicts: Counts,
    pub clusters: Counts,
    pub repositories: Counts,
    pub backups: Counts,
    pub attention: Counts,
    /// Clusters, and whether each is stale.
    pub stale: Vec<(String, bool)>,
    pub stored_bytes: u64,
    pub locks: Counts,
    pub waiters: u64,
    /// Milliseconds that the operation which waits longest has waited.
    pub longest_wait: u64,
}

fn counts(states: &[&'static str]) -> Counts {
    states.iter().map(|state| (*state, 0)).collect()
}

fn count(counts: &mut Counts, state: &str, number: u64) {
    if let Some(of_state) = counts.get_mut(state) {
        *of_state += number;
    }
}

/// The numbers as of the inventory's revision.
#[must_use]
pub fn figures(inventory: &Inventory, locks: &LocksResponse) -> Figures {
    let seen = Seen::whole(inventory);
    let status = status::status(seen, &[]);
    let mut figures = Figures {
        verdicts: counts(&VERDICTS),
        clusters: counts(&CLUSTER_STATES),
        repositories: counts(&REPOSITORY_STATES),
        backups: counts(&Health::ALL.map(Health::as_str)),
        attention: counts(&waits::STATES),
        locks: counts(&LOCK_STATES),
        stored_bytes: status.stored_bytes,
        ..Figures::default()
    };
    count(&mut figures.verdicts, &status.verdict, 1);
    for (state, number) in &status.backups_by_state {
        count(&mut figures.backups, state, *number);
    }
    for ((matter, _), places) in inventory.index().matters().groups() {
        count(&mut figures.attention, matter.as_str(), places.len() as u64);
    }
    for member in inventory.members() {
        if let Some(Body::Cluster(row)) = rows::cluster(seen, member).body {
            count(&mut figures.clusters, &row.state, 1);
        }
        // A banned one is silent by intent: nobody is woken for it.
        let banned = rows::cluster_state(member).0 == "banned";
        figures
            .stale
            .push((member.name.to_string(), member.stale && !banned));
    }
    let repositories = inventory.index().repositories();
    for row in repositories.filter_map(|key| rows::repository(seen, key)) {
        if let Some(Body::Repository(row)) = row.body {
            count(&mut figures.repositories, &row.state, 1);
        }
    }
    for lock in &locks.locks {
        count(&mut figures.locks, &lock.state, 1);
        for waiter in &lock.waiters {
            figures.waiters += 1;
            figures.longest_wait = figures.longest_wait.max(waiter.waited_ms);
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use proto::v1::{Lock, LockWaiter};

    use super::*;
    use crate::inventory::Limits;

    #[test]
    fn every_state_has_a_number_also_where_nothing_is() {
        let limits = Limits {
            stale_after: 1,
            grace: 1,
            objects: 1,
            bytes: 1,
        };
        let inventory = Inventory::new(limits, 0, 0.into());
        let waiter = |waited_ms| LockWaiter {
            waited_ms,
            ..LockWaiter::default()
        };
        let lock = Lock {
            state: "held".to_owned(),
            waiters: vec![waiter(5), waiter(7)],
            ..Lock::default()
        };
        let locks = LocksResponse {
            locks: vec![lock],
            ..LocksResponse::default()
        };
        let figures = figures(&inventory, &locks);
        assert_eq!(figures.verdicts.get("unknown"), Some(&1));
        assert_eq!(figures.verdicts.values().sum::<u64>(), 1);
        assert_eq!(figures.backups.len(), Health::ALL.len());
        assert_eq!(figures.clusters.values().sum::<u64>(), 0);
        assert_eq!(figures.locks.get("held"), Some(&1));
        assert_eq!((figures.waiters, figures.longest_wait), (2, 7));
    }
}
