//! What a spoke's messages change: resources come, go, and are indexed.

use std::collections::HashSet;
use std::sync::Arc;

use prost::bytes::Bytes;
use proto::v1::Collection;

use super::{Held, Inventory, Limits, Member, Refused, Unwritten, runs};
use crate::Moment;
use crate::store::replaced::Replaced;

/// A resource that arrives: what is held of it, and its bytes for the store.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub held: Held,
    pub state: Bytes,
}

/// What a spoke's messages change, all at once.
#[derive(Debug, Default)]
pub struct Change {
    /// New latest states.
    pub upserts: Vec<Arrived>,
    /// uids of deleted resources.
    pub gone: Vec<String>,
    /// `upserts` are all that exist.
    pub whole: bool,
}

impl Inventory {
    /// Applies what belongs together. A whole inventory confirms all that is held.
    ///
    /// # Errors
    /// When a newer session has taken over, or the cluster reports too much; then nothing is applied.
    pub fn apply(
        &mut self,
        name: &Arc<str>,
        session: u64,
        change: Change,
        now: Moment,
    ) -> Result<(), Refused> {
        let mut limits = self.limits;
        // They are resources of the cluster that are held, although it does not report them.
        limits.objects = limits.objects.saturating_sub(self.vanished.unwatched(name));
        let member = self.current(name, session)?;
        let Change {
            upserts,
            mut gone,
            whole,
        } = change;
        let mut lost = Vec::new();
        if whole {
            let missing = member.missing(&upserts);
            gone = missing.iter().map(|held| held.uid.to_string()).collect();
            lost = missing;
        }
        member.check(&limits, &upserts, &gone)?;
        if whole {
            self.set_aside(name, now);
        }
        for uid in gone {
            // It was deleted, or a whole inventory does not have it, which is noted below.
            self.unsaved.vanished |= self.vanished.settle(name, &uid);
            self.remove(name, &uid);
        }
        if let Some(member) = self.members.get(name).filter(|_| whole) {
            self.unsaved.vanished |= self.vanished.note(member, lost, self.now);
        }
        for arrived in upserts {
            self.insert(arrived.held, Some(arrived.state));
        }
        // The cluster's digest is stored with its objects.
        self.unsaved.members.insert(name.clone());
        if whole {
            self.confirm(name, now);
        }
        self.changes.publish();
        Ok(())
    }

    /// A whole inventory of another cluster than the one that reported what is held: that may be lost, and is all that it can be
    /// made again of.
    fn set_aside(&mut self, name: &Arc<str>, now: Moment) {
        let Some(member) = self.members.get(name) else {
            return;
        };
        if !member.is_by_another() || member.objects.is_empty() {
            return;
        }
        let origin = member.origin();
        let of = Replaced {
            cluster: name.to_string(),
            cluster_uid: origin.uid,
            at: now.wall,
            last_heard: origin.heard,
            complete: origin.whole && member.unreadable == 0,
        };
        self.unsaved.replace(name, of);
    }

    pub(super) fn insert(&mut self, mut held: Held, state: Option<Bytes>) {
        if !self.places.is_empty() {
            held.place(&self.places);
        }
        let held = Arc::new(held);
        let Some(member) = self.members.get(&held.cluster) else {
            return;
        };
        let known = member.objects.get_key_value(&*held.uid);
        let (uid, before): (Arc<str>, _) = match known {
            // The same state again: nothing happened.
            Some((_, known)) if known.hash == held.hash => return,
            Some((uid, known)) => (uid.clone(), Some(known.clone())),
            None => (held.uid.clone(), None),
        };
        // A resource that was deleted and made again under its name has a new uid: one name is one row, and what a spoke
        // sends last is what it has.
        if let Some(rival) = self.index.rival(&held) {
            self.remove(&held.cluster, &rival.uid);
        }
        self.forget(&held.cluster, &uid);
        if let Some(member) = self.member_mut(&held.cluster) {
            member.digest.add(&held.hash);
            member.bytes += held.size;
            member.manifests += held.manifest;
            member.unreadable += usize::from(!held.readable);
            member.backups += u64::from(held.backup().is_some());
            member.repositories += u64::from(held.repository().is_some());
            member.objects.insert(uid.clone(), held.clone());
        }
        self.objects += 1;
        self.index.add(&held);
        self.settle(&held);
        self.unsaved.vanished |= self.vanished.settle(&held.cluster, &uid);
        self.note_reported(&held);
        self.touch(&held);
        if let Some(state) = state {
            let ended = runs::ended(&held, before.as_deref(), self.now);
            self.unsaved.runs.extend(ended);
            let unwritten = Unwritten {
                baseline: held.baseline,
                state,
            };
            self.unsaved
                .objects
                .insert((held.cluster.clone(), uid), Some(unwritten));
        }
    }

    fn remove(&mut self, cluster: &Arc<str>, uid: &str) {
        if let Some(uid) = self.forget(cluster, uid) {
            self.unsaved.objects.insert((cluster.clone(), uid), None);
        }
    }

    /// Takes a resource out of memory.
    pub(super) fn forget(&mut self, cluster: &Arc<str>, uid: &str) -> Option<Arc<str>> {
        // Nothing is copied for one that is not there.
        self.members.get(cluster)?.objects.get(uid)?;
        let member = self.member_mut(cluster)?;
        let (uid, held) = member.objects.remove_with_key(uid)?;
        member.digest.remove(&held.hash);
        member.bytes -= held.size;
        member.manifests -= held.manifest;
        member.unreadable -= usize::from(!held.readable);
        member.backups -= u64::from(held.backup().is_some());
        member.repositories -= u64::from(held.repository().is_some());
        self.objects -= 1;
        self.touch(&held);
        self.index.remove(&held);
        self.unsettle(&held);
        Some(uid)
    }

    /// Notes the rows that a resource shows in. Called while it is indexed.
    pub(super) fn touch(&mut self, held: &Held) {
        self.changes.touch(Collection::Clusters, &held.cluster);
        if held.repository().is_some() {
            self.changes.touch(Collection::Repositories, &held.row);
        }
        if let Some(repository) = held.repository().filter(|r| !r.changed_id.is_empty()) {
            // Every store of that id says so.
            for store in self.index.stores(&repository.changed_id) {
                self.changes.touch(Collection::Repositories, store);
            }
        }
        if let Some(policy) = held.policy() {
            self.changes.touch(Collection::Policies, &held.place);
            self.changes
                .touch(Collection::Repositories, &policy.restic_id.as_str().into());
        }
        if held.restore().is_some() {
            self.changes.touch(Collection::Restores, &held.place);
        }
        if held.backup().is_some() {
            self.changes.touch(Collection::Backups, &held.place);
            if let Some(repository) = held.writes_to().and_then(|place| self.index.binding(&place)) {
                self.changes.touch(Collection::Repositories, &repository.row);
            }
        }
    }
}

impl Member {
    /// What is held and not among the resources of a whole inventory.
    fn missing(&self, upserts: &[Arrived]) -> Vec<Arc<Held>> {
        let named: HashSet<&str> = upserts.iter().map(|a| &*a.held.uid).collect();
        let missing = self.objects.iter().filter(|(uid, _)| !named.contains(&***uid));
        missing.map(|(_, held)| held.clone()).collect()
    }

    /// Whether the cluster stays within its bounds with a change. Manifests have a bound of their own, as they are not in memory:
    /// that of the resources, so that an inventory is twice as much at most.
    fn check(&self, limits: &Limits, upserts: &[Arrived], gone: &[String]) -> Result<(), Refused> {
        let (mut count, mut size, mut manifests) = (self.objects.len(), self.bytes, self.manifests);
        let known = |uid: &str| self.objects.get(uid);
        for held in gone.iter().filter_map(|uid| known(uid)) {
            (count, size, manifests) = (count - 1, size - held.size, manifests - held.manifest);
        }
        for Arrived { held, .. } in upserts {
            size += held.size;
            manifests += held.manifest;
            match known(&held.uid) {
                Some(held) => (size, manifests) = (size - held.size, manifests - held.manifest),
                None => count += 1,
            }
        }
        let cluster = self.name.clone();
        if count > limits.objects {
            let limit = limits.objects;
            return Err(Refused::TooMany { cluster, limit });
        }
        if size.max(manifests) > limits.bytes {
            let limit = limits.bytes;
            return Err(Refused::TooMuch { cluster, limit });
        }
        Ok(())
    }
}
