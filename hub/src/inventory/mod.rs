//! The latest state of every cluster, one revision over all of it, and the indexes that lists are read from.
//!
//! Everything here is a function of calls and the times passed in. Time moves rows only in [`Inventory::advance`], so
//! that two answers of one revision cannot differ.
//!
//! Readers take a copy ([`Inventory::frozen`]), which shares everything with the present state until that changes: taking
//! one costs a microsecond, and nothing that a reader does with it holds a writer up.

pub mod backup;
mod bound;
mod carried;
mod change;
mod changes;
mod conflict;
pub mod figures;
mod held;
mod index;
mod judge;
mod judged;
mod matters;
mod member;
mod runs;
mod sessions;
mod shared;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod timers;
mod unsaved;
mod vanished;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use proto::digest::Digest;
use proto::v1::Collection;

pub use self::carried::Carried;
pub use self::change::{Arrived, Change};
pub use self::changes::Changes;
pub use self::held::Held;
use self::index::Index;
pub use self::judged::{Causes, Counts, Judged};
pub use self::matters::Matters;
pub use self::member::{Facts, Limits, Live, Member, Origin};
pub use self::sessions::{Introduction, NotMeant};
use self::timers::Timers;
pub use self::unsaved::{Unsaved, Unwritten};
use self::vanished::Vanished;
use crate::bindings::Bindings;
use crate::copies::Places;
use crate::health::Fresh;
use crate::store::StoredCluster;
use crate::{Millis, Moment};

/// Why a message was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// A newer session of the same cluster has taken over.
    #[error("a newer session of cluster {cluster} has taken over")]
    Superseded {
        /// Name of the cluster.
        cluster: Arc<str>,
    },
    /// The cluster reports more than it may.
    #[error("cluster {cluster} reports more than {limit} resources; raise --max-objects of the hub")]
    TooMany {
        /// Name of the cluster.
        cluster: Arc<str>,
        /// Most that it may report.
        limit: usize,
    },
    /// The same in bytes.
    #[error("cluster {cluster} reports more than {limit} bytes; raise --max-bytes of the hub")]
    TooMuch {
        /// Name of the cluster.
        cluster: Arc<str>,
        /// Most that it may report.
        limit: usize,
    },
    /// Two clusters report under one name.
    #[error("{reason}")]
    Conflict {
        /// In one sentence.
        reason: String,
    },
    /// The cluster is being removed.
    #[error("cluster {cluster} is being forgotten; connect again")]
    Forgotten {
        /// Name of the cluster.
        cluster: Arc<str>,
    },
}

/// Cluster and uid of a resource.
pub type Place = (Arc<str>, Arc<str>);

/// The latest state of every cluster.
#[derive(Debug)]
pub struct Inventory {
    limits: Limits,
    now: Millis,
    /// The same moment by the steady clock.
    steady: Millis,
    members: OrdMap<Arc<str>, Arc<Member>>,
    /// Names of those that are stale.
    stale: OrdSet<Arc<str>>,
    index: Index,
    changes: Changes,
    /// Resources of all clusters.
    objects: usize,
    bindings: Bindings,
    places: Places,
    vanished: Vanished,
    /// restic id -> what is collected of it.
    collected: OrdMap<Arc<str>, Arc<figures::Collected>>,
    /// restic id -> the last run that came to a result since this start of the hub.
    carried: OrdMap<Arc<str>, Arc<Carried>>,
    /// Stored bytes of repositories, by row, and their sum.
    stored: OrdMap<Arc<str>, u64>,
    stored_bytes: u64,
    // What follows is not in a copy for readers.
    unsaved: Unsaved,
    /// Clusters that are being removed from the store.
    forgetting: HashSet<Arc<str>>,
    /// Repositories that were reported and are not in the table of bindings.
    reported: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// When backups change by themselves, by the wall clock.
    deadlines: Timers,
    /// When clusters turn stale, by the steady clock.
    silences: Timers,
}

impl Inventory {
    /// An empty inventory. Revisions count up from `revision`.
    #[must_use]
    pub fn new(limits: Limits, revision: u64, now: Moment) -> Self {
        Self {
            limits,
            now: now.wall,
            steady: now.steady,
            members: OrdMap::new(),
            stale: OrdSet::new(),
            index: Index::default(),
            changes: Changes::new(revision),
            objects: 0,
            bindings: Bindings::default(),
            places: Places::default(),
            vanished: Vanished::default(),
            collected: OrdMap::new(),
            carried: OrdMap::new(),
            stored: OrdMap::new(),
            stored_bytes: 0,
            unsaved: Unsaved::default(),
            forgetting: HashSet::new(),
            reported: BTreeMap::new(),
            deadlines: Timers::default(),
            silences: Timers::default(),
        }
    }

    /// A copy for readers, as of now. It shares everything with this one until that changes.
    #[must_use]
    pub fn frozen(&self) -> Self {
        Self {
            members: self.members.clone(),
            stale: self.stale.clone(),
            index: self.index.clone(),
            changes: self.changes.clone(),
            objects: self.objects,
            bindings: self.bindings.clone(),
            places: self.places.clone(),
            vanished: self.vanished.clone(),
            collected: self.collected.clone(),
            carried: self.carried.clone(),
            stored: self.stored.clone(),
            stored_bytes: self.stored_bytes,
            steady: self.steady,
            ..Self::new(self.limits, 0, Moment::from(self.now))
        }
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.changes.revision()
    }

    /// The time as of which rows are judged.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Which rows changed when.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The same by the steady clock.
    #[must_use]
    pub fn steady(&self) -> Millis {
        self.steady
    }

    /// When silence becomes staleness.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All clusters, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(AsRef::as_ref)
    }

    /// Number of clusters.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Clusters that are stale, by name.
    pub fn stale_members(&self) -> impl Iterator<Item = &Member> {
        self.stale.iter().filter_map(|name| self.member(name))
    }

    /// Number of clusters that are stale.
    #[must_use]
    pub fn stale_count(&self) -> usize {
        self.stale.len()
    }

    /// One cluster.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name).map(AsRef::as_ref)
    }

    /// How fresh a cluster's rows are; of an unknown cluster nothing is known.
    #[must_use]
    pub fn fresh(&self, cluster: &str) -> Fresh {
        self.members.get(cluster).map_or(
            Fresh {
                stale: true,
                last_heard: None,
            },
            |member| member.fresh(),
        )
    }

    /// Rows and what they are made of.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Number and digest of what is held of a cluster.
    #[must_use]
    pub fn holdings(&self, cluster: &str) -> (u64, Digest) {
        self.members
            .get(cluster)
            .map_or((0, Digest::default()), |member| {
                (member.objects.len() as u64, member.digest)
            })
    }

    /// What is held of a cluster under these uids.
    #[must_use]
    pub fn held(&self, cluster: &str, uids: &[String]) -> HashMap<String, Arc<Held>> {
        let Some(member) = self.members.get(cluster) else {
            return HashMap::new();
        };
        uids.iter()
            .filter_map(|uid| Some((uid.clone(), member.objects.get(uid.as_str())?.clone())))
            .collect()
    }

    /// Number of resources of all clusters.
    #[must_use]
    pub fn object_count(&self) -> usize {
        self.objects
    }

    /// Takes back what a store had kept. It stays stale until its spoke has confirmed it. It is complete only if it was so
    /// when it was stored, and nothing of it is missing.
    pub fn restore(&mut self, kept: &StoredCluster, objects: Vec<Held>) {
        let name: Arc<str> = kept.name.as_str().into();
        let member = Member {
            facts: kept.facts.clone(),
            last_heard: kept.last_heard,
            conflict: kept
                .conflict
                .clone()
                .map(|reason| conflict::Conflict::restored(reason, self.steady)),
            accepted: kept.accepted.clone(),
            origin: kept.origin.clone(),
            awaited: self.steady,
            ..Member::new(name.clone())
        };
        self.members.insert(name.clone(), Arc::new(member));
        self.stale.insert(name.clone());
        self.changes.touch(Collection::Clusters, &name);
        for held in objects {
            self.insert(held, None);
        }
        if let Some(member) = self.member_mut(&name) {
            let agrees =
                kept.objects == member.objects.len() as u64 && kept.digest == member.digest.to_bytes();
            member.whole = kept.complete && agrees;
        }
        self.changes.publish();
    }

    /// Removes a cluster and all that it reported from memory.
    fn drop_member(&mut self, name: &Arc<str>) {
        let uids = self
            .members
            .get(name)
            .map(|member| member.objects.keys().cloned().collect());
        let uids: Vec<Arc<str>> = uids.unwrap_or_default();
        for uid in uids {
            self.forget(name, &uid);
        }
        if let Some(at) = self.members.remove(name).and_then(|member| member.looked_at) {
            self.silences.unset(at, name);
        }
        self.stale.remove(name);
        self.reported.remove(name);
        // Otherwise they would be stored anew with the next batch.
        self.unsaved.vanished |= self.vanished.drop_cluster(name);
        self.unsaved.members.remove(name);
        self.unsaved.objects.retain(|(cluster, _), _| cluster != name);
        self.unsaved.runs.retain(|run| *run.cluster != **name);
        self.unsaved.replaced.retain(|one| *one.of.cluster != **name);
        self.changes.touch(Collection::Clusters, name);
        self.changes.publish();
    }

    /// What has to be stored, and forgets it: all, or so much of it that one transaction writes it soon, some whole clusters of
    /// about `most` resources. Whether more is left.
    pub fn take_unsaved(&mut self, most: usize) -> (Unsaved, bool) {
        let taken = self.unsaved.take(most);
        let more = !self.unsaved.objects.is_empty();
        (taken, more)
    }

    /// Gives back what could not be stored; what changed since is newer and stays.
    pub fn give_back(&mut self, unsaved: Unsaved) {
        self.unsaved.give_back(unsaved);
    }

    /// Has every cluster's time of last hearing stored with the next batch.
    pub fn mark_members_unsaved(&mut self) {
        self.unsaved.members.extend(self.members.keys().cloned());
    }

    /// One cluster, to be changed.
    fn member_mut(&mut self, name: &str) -> Option<&mut Member> {
        self.members.get_mut(name).map(Arc::make_mut)
    }
}
