//! The latest state of every cluster, one revision over all of it, and the indexes that lists are read from.
//!
//! Everything here is a function of calls and the times passed in. Time moves rows only in [`Inventory::advance`], so
//! that two answers of one revision cannot differ.

mod bound;
mod changes;
mod held;
mod index;
mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use proto::digest::Digest;
use proto::v1::Collection;

pub use self::changes::Changes;
pub use self::held::Held;
use self::bound::Vanished;
use self::index::Index;
pub use self::member::{Facts, Limits, Live, Member};
use crate::Millis;
use crate::bindings::Bindings;
use crate::health::Fresh;

/// What one message of a spoke changes, all at once.
#[derive(Debug, Default)]
pub struct Change {
    /// New latest states.
    pub upserts: Vec<Held>,
    /// uids that are gone.
    pub gone: Vec<String>,
    /// When a whole inventory is complete: only these uids exist.
    pub only: Option<HashSet<String>>,
}

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
}

/// Cluster and uid of a resource.
pub type Place = (Arc<str>, Arc<str>);

/// What has not been stored yet: the latest wins, so it is never more than there is to store.
#[derive(Clone, Debug, Default)]
pub struct Unsaved {
    /// Clusters whose facts or times changed.
    pub members: HashSet<Arc<str>>,
    /// Resources that changed; `None` is gone.
    pub objects: HashMap<Place, Option<Arc<Held>>>,
}

/// The latest state of every cluster.
#[derive(Debug)]
pub struct Inventory {
    limits: Limits,
    now: Millis,
    members: BTreeMap<Arc<str>, Member>,
    index: Index,
    changes: Changes,
    unsaved: Unsaved,
    bindings: Bindings,
    vanished: Vanished,
}

impl Inventory {
    /// An empty inventory. Revisions count up from `revision`.
    #[must_use]
    pub fn new(limits: Limits, revision: u64, now: Millis) -> Self {
        Self {
            limits,
            now,
            members: BTreeMap::new(),
            index: Index::default(),
            changes: Changes::new(revision),
            unsaved: Unsaved::default(),
            bindings: Bindings::default(),
            vanished: Vanished::default(),
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

    /// All clusters, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One cluster.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// How fresh a cluster's rows are; of an unknown cluster nothing is known.
    #[must_use]
    pub fn fresh(&self, cluster: &str) -> Fresh {
        self.members.get(cluster).map_or(
            Fresh {
                stale: true,
                last_heard: None,
            },
            Member::fresh,
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

    /// Moves the time on: what went silent turns stale, what came due turns late.
    pub fn advance(&mut self, now: Millis) {
        self.now = now;
        let names: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for name in names {
            self.refresh_staleness(&name);
        }
        for held in self.index.overdue(now) {
            self.touch(&held);
        }
        self.changes.publish();
    }

    /// A spoke has introduced itself. Older sessions of its cluster no longer count.
    ///
    /// # Errors
    /// When a newer session has come first.
    pub fn attach(
        &mut self,
        name: &Arc<str>,
        session: u64,
        facts: Facts,
        now: Millis,
    ) -> Result<(), Refused> {
        let member = self
            .members
            .entry(name.clone())
            .or_insert_with(|| Member::new(name.clone()));
        if member.live.is_some_and(|live| live.session > session) {
            return Err(Refused::Superseded {
                cluster: name.clone(),
            });
        }
        member.live = Some(Live { session, since: now });
        member.facts = facts;
        member.last_heard = Some(now);
        // What the session before had confirmed stays fresh for the grace, until this one has told everything.
        member.unconfirmed.get_or_insert(now);
        self.changes.touch(Collection::Clusters, name);
        self.unsaved.members.insert(name.clone());
        self.changes.publish();
        Ok(())
    }

    /// A stream has ended. Of no matter when a newer session has taken over.
    pub fn detach(&mut self, name: &Arc<str>, session: u64, now: Millis) {
        let Some(member) = self.members.get_mut(name) else {
            return;
        };
        if member.live.is_none_or(|live| live.session != session) {
            return;
        }
        member.live = None;
        member.unconfirmed.get_or_insert(now);
        self.changes.touch(Collection::Clusters, name);
        self.unsaved.members.insert(name.clone());
        self.refresh_staleness(name);
        self.changes.publish();
    }

    /// A message has come. Whether it still counts.
    ///
    /// # Errors
    /// When a newer session has taken over.
    pub fn hear(&mut self, name: &Arc<str>, session: u64, now: Millis) -> Result<(), Refused> {
        self.current(name, session)?.last_heard = Some(now);
        Ok(())
    }

    /// The session has told everything that there is: what is held of its cluster is confirmed.
    ///
    /// # Errors
    /// When a newer session has taken over.
    pub fn confirm(&mut self, name: &Arc<str>, session: u64, now: Millis) -> Result<(), Refused> {
        let member = self.current(name, session)?;
        member.last_heard = Some(now);
        member.unconfirmed = None;
        self.now = self.now.max(now);
        self.unsaved.members.insert(name.clone());
        self.refresh_staleness(name);
        self.changes.publish();
        Ok(())
    }

    /// Applies one message.
    ///
    /// # Errors
    /// When a newer session has taken over, or the cluster reports too much; then nothing is applied.
    pub fn apply(&mut self, name: &Arc<str>, session: u64, change: Change) -> Result<(), Refused> {
        let limit = self.limits.objects;
        let member = self.current(name, session)?;
        let new = change
            .upserts
            .iter()
            .filter(|held| !member.objects.contains_key(held.object.uid.as_str()))
            .count();
        if change.only.is_none() && member.objects.len() + new > limit {
            return Err(Refused::TooMany {
                cluster: name.clone(),
                limit,
            });
        }
        let mut gone = change.gone;
        for uid in &gone {
            self.vanished.settle(name, uid);
        }
        if let Some(only) = &change.only {
            let member = self.current(name, session)?;
            let lost = member.objects.values().filter(|held| !only.contains(&held.object.uid));
            let lost: Vec<Arc<Held>> = lost.filter(|held| held.policy().is_some()).cloned().collect();
            self.vanished.note(lost, self.now);
            let member = self.current(name, session)?;
            gone.extend(
                member
                    .objects
                    .keys()
                    .filter(|uid| !only.contains(&***uid))
                    .map(|uid| uid.to_string()),
            );
        }
        for held in change.upserts {
            self.insert(Arc::new(held), true);
        }
        for uid in gone {
            self.remove(name, &uid);
        }
        self.changes.publish();
        Ok(())
    }

    /// Takes back what a store had kept. It stays stale until its spoke has told everything again.
    pub fn restore(&mut self, name: &Arc<str>, facts: Facts, last_heard: Option<Millis>, objects: Vec<Held>) {
        let member = Member {
            facts,
            last_heard,
            ..Member::new(name.clone())
        };
        self.members.insert(name.clone(), member);
        self.changes.touch(Collection::Clusters, name);
        for held in objects {
            self.insert(Arc::new(held), false);
        }
        self.changes.publish();
    }

    /// What has to be stored, and forgets it.
    pub fn take_unsaved(&mut self) -> Unsaved {
        std::mem::take(&mut self.unsaved)
    }

    /// Gives back what could not be stored; what changed since is newer and stays.
    pub fn give_back(&mut self, unsaved: Unsaved) {
        self.unsaved.members.extend(unsaved.members);
        for (key, held) in unsaved.objects {
            self.unsaved.objects.entry(key).or_insert(held);
        }
    }

    /// Has every cluster's time of last hearing stored with the next batch.
    pub fn mark_members_unsaved(&mut self) {
        self.unsaved.members.extend(self.members.keys().cloned());
    }

    fn current(&mut self, name: &Arc<str>, session: u64) -> Result<&mut Member, Refused> {
        self.members
            .get_mut(name)
            .filter(|member| member.live.is_some_and(|live| live.session == session))
            .ok_or_else(|| Refused::Superseded {
                cluster: name.clone(),
            })
    }

    fn insert(&mut self, held: Arc<Held>, unsaved: bool) {
        let Some(member) = self.members.get(&held.cluster) else {
            return;
        };
        let uid: Arc<str> = match member.objects.get_key_value(held.object.uid.as_str()) {
            // The same state again: nothing happened.
            Some((_, known)) if known.hash == held.hash => return,
            Some((uid, _)) => uid.clone(),
            None => held.object.uid.as_str().into(),
        };
        // A resource that was deleted and made again under its name has a new uid: one name is one row.
        if let Some(rival) = self.index.rival(&held) {
            if !held.supersedes(&rival) {
                return;
            }
            self.remove(&held.cluster, &rival.object.uid);
        }
        self.forget(&held.cluster, &uid);
        if let Some(member) = self.members.get_mut(&held.cluster) {
            member.digest.add(&held.hash);
            member.backups += u64::from(held.backup().is_some());
            member.repositories += u64::from(held.repository().is_some());
            member.objects.insert(uid.clone(), held.clone());
        }
        self.index.add(&held);
        self.vanished.settle(&held.cluster, &uid);
        self.touch(&held);
        if unsaved {
            self.unsaved
                .objects
                .insert((held.cluster.clone(), uid), Some(held));
        }
    }

    fn remove(&mut self, cluster: &Arc<str>, uid: &str) {
        if let Some(uid) = self.forget(cluster, uid) {
            self.unsaved.objects.insert((cluster.clone(), uid), None);
        }
    }

    /// Takes a resource out of memory.
    fn forget(&mut self, cluster: &Arc<str>, uid: &str) -> Option<Arc<str>> {
        let member = self.members.get_mut(cluster)?;
        let (uid, held) = member.objects.remove_entry(uid)?;
        member.digest.remove(&held.hash);
        member.backups -= u64::from(held.backup().is_some());
        member.repositories -= u64::from(held.repository().is_some());
        self.touch(&held);
        self.index.remove(&held);
        Some(uid)
    }

    /// Notes the rows that a resource shows in. Called while it is indexed.
    fn touch(&mut self, held: &Held) {
        self.changes.touch(Collection::Clusters, &held.cluster);
        if held.repository().is_some() {
            self.changes.touch(Collection::Repositories, &held.row);
        }
        if let Some(policy) = held.policy() {
            self.changes
                .touch(Collection::Repositories, &policy.restic_id.as_str().into());
        }
        if held.backup().is_some() {
            self.changes.touch(Collection::Backups, &held.place);
            if let Some(repository) = held.writes_to().and_then(|place| self.index.binding(&place)) {
                self.changes.touch(Collection::Repositories, &repository.row);
            }
        }
    }

    fn refresh_staleness(&mut self, name: &Arc<str>) {
        let Some(member) = self.members.get_mut(name) else {
            return;
        };
        let stale = member.is_stale(&self.limits, self.now);
        if stale == member.stale {
            return;
        }
        member.stale = stale;
        self.changes.touch(Collection::Clusters, name);
        for held in member.objects.values() {
            if held.repository().is_some() {
                self.changes.touch(Collection::Repositories, &held.row);
            } else if held.backup().is_some() {
                self.changes.touch(Collection::Backups, &held.place);
            }
        }
    }
}
