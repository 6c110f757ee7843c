//! Policies that vanished without a tombstone, and what a spoke does not watch any more.

use std::sync::Arc;

use imbl::OrdMap;
use prost::Message as _;
use proto::v1::object_state::Body;
use proto::v1::{BackupState, ObjectState};

use super::{Held, Inventory, Member};
use crate::Millis;
use crate::copies::Places;
use crate::store::StoredVanished;

/// A policy that was missing from a whole inventory, without a tombstone, keeps what it kept for so long.
const KEEPS: Millis = 60 * 60_000;
/// The time of one in a namespace that its spoke does not watch: whether it was deleted is not known, so it keeps without end.
const UNWATCHED: Millis = Millis::MAX;

/// Policies and suspicious backups that vanished without a tombstone, by cluster and uid, with the time of the wall clock: it has
/// to hold over a restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Vanished(OrdMap<(Arc<str>, String), (Arc<Held>, Millis)>);

impl Vanished {
    /// Takes in what is missing from a whole inventory, and leaves out policies that vanished long ago. Returns whether
    /// something changed.
    pub fn note(&mut self, member: &Member, missing: Vec<Arc<Held>>, now: Millis) -> bool {
        let before = self.0.len();
        self.retain(|_, since| counts(since, now));
        let mut changed = self.0.len() != before;
        for held in missing {
            let watched = member.watches(held.namespace());
            // The hold of a backup ends with the backup.
            if held.policy().is_none() && (watched || !held.is_suspicious()) {
                continue;
            }
            let key = (held.cluster.clone(), held.uid.to_string());
            self.0.insert(key, (held, if watched { now } else { UNWATCHED }));
            changed = true;
        }
        changed
    }

    /// What keeps without end although its spoke watches its namespace again and does not have it: a policy keeps for a
    /// while from now on, a backup no more. Returns whether there is any.
    pub fn found_missing(&mut self, member: &Member, now: Millis) -> bool {
        let its = self.of(&member.name);
        let found = its.filter(|(held, since)| *since == UNWATCHED && member.watches(held.namespace()));
        let found: Vec<Arc<Held>> = found.map(|(held, _)| held.clone()).collect();
        for held in &found {
            let key = (held.cluster.clone(), held.uid.to_string());
            match held.policy() {
                Some(_) => self.0.insert(key, (held.clone(), now)),
                None => self.0.remove(&key),
            };
        }
        !found.is_empty()
    }

    fn of(&self, cluster: &Arc<str>) -> impl Iterator<Item = &(Arc<Held>, Millis)> {
        let from = self.0.range((cluster.clone(), String::new())..);
        let cluster = cluster.clone();
        let its = from.take_while(move |((of, _), _)| *of == cluster);
        its.map(|(_, value)| value)
    }

    /// Number of those of a cluster that keep without end.
    pub fn unwatched(&self, cluster: &Arc<str>) -> usize {
        self.of(cluster).filter(|(_, since)| *since == UNWATCHED).count()
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

/// As much of a resource as keeps something.
fn state(held: &Held) -> ObjectState {
    held.object().cloned().unwrap_or_else(|| ObjectState {
        uid: held.uid.to_string(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        conditions: held.conditions().to_vec(),
        body: held.backup().map(|_| Body::Backup(BackupState::default())),
        ..ObjectState::default()
    })
}

impl Inventory {
    /// A resource of a cluster that was replaced, as far as it is shown.
    #[must_use]
    pub fn of_replaced(&self, cluster: &Arc<str>, uid: &str, state: &[u8]) -> Held {
        let mut held = Held::restored(cluster, uid, state, 0);
        held.place(&self.places);
        held
    }

    /// All of them, as they are stored.
    #[must_use]
    pub fn stored_vanished(&self) -> Vec<StoredVanished> {
        let all = self.vanished.0.iter();
        all.map(|((cluster, uid), (held, since))| StoredVanished {
            cluster: cluster.to_string(),
            uid: uid.clone(),
            since: *since,
            state: state(held).encode_to_vec(),
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
