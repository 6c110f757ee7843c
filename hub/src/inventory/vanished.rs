//! Policies that vanished without a tombstone.

use std::sync::Arc;

use imbl::OrdMap;
use prost::Message as _;
use proto::v1::ObjectState;

use super::{Held, Inventory};
use crate::Millis;
use crate::copies::Places;
use crate::store::StoredVanished;

/// A policy that was missing from a whole inventory, without a tombstone, keeps what it kept for so long.
const KEEPS: Millis = 60 * 60_000;

/// Policies that vanished without a tombstone, by cluster and uid, with the time of the wall clock: it has to hold over a
/// restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Vanished(OrdMap<(Arc<str>, String), (Arc<Held>, Millis)>);

impl Vanished {
    /// Takes policies in, and leaves out those that vanished long ago. Returns whether something changed.
    pub fn note(&mut self, policies: Vec<Arc<Held>>, now: Millis) -> bool {
        let before = self.0.len();
        self.retain(|_, since| counts(since, now));
        let changed = self.0.len() != before || !policies.is_empty();
        for held in policies {
            let key = (held.cluster.clone(), held.uid.to_string());
            self.0.insert(key, (held, now));
        }
        changed
    }

    /// It is there again, or its tombstone has come. Returns whether it was known.
    pub fn settle(&mut self, cluster: &Arc<str>, uid: &str) -> bool {
        !self.0.is_empty() && self.0.remove(&(cluster.clone(), uid.to_owned())).is_some()
    }

    /// A person has given the cluster up. Returns whether it had any.
    pub fn drop_cluster(&mut self, cluster: &Arc<str>) -> bool {
        let before = self.0.len();
        self.retain(|of, _| of != cluster);
        self.0.len() != before
    }

    /// Names the stores anew.
    pub fn place(&mut self, places: &Places) {
        let all: Vec<_> = self
            .0
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, (mut held, since)) in all {
            Arc::make_mut(&mut held).place(places);
            self.0.insert(key, (held, since));
        }
    }

    /// Keeps those that fit, by cluster and time.
    fn retain(&mut self, fits: impl Fn(&Arc<str>, Millis) -> bool) {
        let all = self.0.iter();
        let other = all.filter(|((cluster, _), (_, since))| !fits(cluster, *since));
        let other: Vec<_> = other.map(|(key, _)| key.clone()).collect();
        for key in other {
            self.0.remove(&key);
        }
    }

    /// Those that count at a time.
    pub fn at(&self, now: Millis) -> impl Iterator<Item = &Arc<Held>> {
        let fresh = self.0.values().filter(move |(_, since)| counts(*since, now));
        fresh.map(|(held, _)| held)
    }
}

fn counts(since: Millis, now: Millis) -> bool {
    now.saturating_sub(since) < KEEPS
}

impl Inventory {
    /// All of them, as they are stored.
    #[must_use]
    pub fn stored_vanished(&self) -> Vec<StoredVanished> {
        let all = self.vanished.0.iter();
        all.map(|((cluster, uid), (held, since))| StoredVanished {
            cluster: cluster.to_string(),
            uid: uid.clone(),
            since: *since,
            state: held.object().map(ObjectState::encode_to_vec).unwrap_or_default(),
        })
        .collect()
    }

    /// Takes back what a store had kept.
    pub fn restore_vanished(&mut self, kept: Vec<StoredVanished>) {
        for StoredVanished {
            cluster,
            uid,
            since,
            state,
        } in kept
        {
            let cluster: Arc<str> = cluster.as_str().into();
            let mut held = Held::restored(&cluster, &uid, &state, 0);
            held.place(&self.places);
            self.vanished.0.insert((cluster, uid), (Arc::new(held), since));
        }
    }
}
