//! What counts: the inventory through the table of bindings. What a cluster reports of a repository that it is not bound
//! to is shown, and nothing more.

use std::sync::Arc;

use proto::v1::Collection;

use super::{Held, Inventory, Member};
use crate::bindings::{Binding, Bindings, Key};
use crate::copies::{self, Place, Places, is_key};

impl Inventory {
    /// Which cluster is bound to which repository.
    #[must_use]
    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// In which store the repository of each cluster lies.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Takes places in that were made durable: what their clusters report is of these stores from now on, and the bindings
    /// are moved with it.
    pub fn place(&mut self, places: Vec<Place>) {
        for place in places {
            let before = self.places.key(&place.cluster, &place.restic_id);
            let (cluster, store) = (place.cluster.clone(), place.store.clone());
            self.places.put(place);
            if before == store {
                continue;
            }
            for key in [&before, &store] {
                self.changes.touch(Collection::Repositories, key);
            }
            self.bindings.move_to(&cluster, &before, &store);
            self.place_objects(&cluster);
        }
        self.vanished.place(&self.places);
        self.changes.publish();
    }

    fn place_objects(&mut self, cluster: &Arc<str>) {
        let member = self.members.get(cluster);
        let held: Vec<(Arc<str>, Arc<Held>)> = member.map_or_else(Vec::new, |member| {
            let all = member.objects.iter();
            all.map(|(uid, held)| (uid.clone(), held.clone())).collect()
        });
        for (uid, held) in held {
            let mut placed = (*held).clone();
            placed.place(&self.places);
            if placed.restic_id() == held.restic_id() {
                continue;
            }
            let placed = Arc::new(placed);
            self.touch(&held);
            self.index.remove(&held);
            self.unsettle(&held);
            if let Some(member) = self.member_mut(cluster) {
                member.objects.insert(uid, placed.clone());
            }
            self.index.add(&placed);
            self.settle(&placed);
            self.touch(&placed);
        }
    }

    /// Takes bindings and keys in that were made durable.
    pub fn bind(&mut self, bindings: Vec<Binding>, keys: Vec<Key>) {
        for binding in bindings {
            let id = binding.restic_id.clone();
            self.changes.touch(Collection::Repositories, &id);
            self.bindings.put(binding);
            self.measure(&id);
        }
        for key in keys {
            self.changes.touch(Collection::Repositories, &key.restic_id);
            self.bindings.put_key(key);
        }
        self.changes.publish();
    }

    /// Whether a bound cluster has last reported a backup that runs into a repository.
    #[must_use]
    pub fn is_backing_up(&self, restic_id: &str) -> bool {
        self.index.running(restic_id).any(|place| {
            let cluster = place.split('/').next().unwrap_or_default();
            self.bindings.is_bound(cluster, restic_id)
        })
    }

    /// Policies of bound clusters.
    pub fn policies_of(&self, restic_id: &str) -> impl Iterator<Item = &Arc<Held>> {
        let policies = self.index.policies(restic_id);
        policies.filter(move |held| self.bindings.is_bound(&held.cluster, restic_id))
    }

    /// Policies of bound clusters whose repository is not known: each may be meant for this one.
    pub fn undecided_policies(&self, restic_id: &str) -> impl Iterator<Item = &Arc<Held>> {
        let undecided = self.index.policies("");
        undecided.filter(move |held| self.may_count(held, restic_id))
    }

    /// Policies of bound clusters that vanished without having been deleted, lately or with the watch of their namespace, of
    /// this repository or undecided.
    pub fn vanished_policies(&self, restic_id: &str) -> impl Iterator<Item = &Arc<Held>> {
        let vanished = self.vanished.at(self.now);
        vanished.filter(move |held| self.may_count(held, restic_id))
    }

    /// Backups of bound clusters whose source is suddenly far smaller than before (condition Suspicious), whatever repository
    /// they name now: their snapshots may be in this one. Those that are not watched any more stay so.
    pub fn suspicious_backups(&self, restic_id: &str) -> impl Iterator<Item = &Arc<Held>> {
        let bound = self.bindings.bound(restic_id);
        let present = bound.flat_map(|cluster| self.index.suspicious(cluster));
        let vanished = self.vanished.at(self.now);
        present.chain(
            vanished
                .filter(move |held| held.is_suspicious() && self.bindings.is_bound(&held.cluster, restic_id)),
        )
    }

    /// Whether a policy's cluster is bound to a repository, and the policy is for it or may be.
    fn may_count(&self, held: &Held, restic_id: &str) -> bool {
        let Some(policy) = held.policy() else {
            return false;
        };
        let id = match policy.restic_id.as_str() {
            "" => {
                let named = held.refers_to().and_then(|place| self.index.binding(&place));
                // A repository that is known to be another one is not meant.
                named.map_or("", |named| named.repository().map_or("", |r| &r.restic_id))
            }
            id => id,
        };
        (id.is_empty() || id == restic_id) && self.bindings.is_bound(&held.cluster, restic_id)
    }

    /// Clusters of a run: bound, using the repository still, and known as a whole.
    pub fn whole_clusters(&self, restic_id: &str) -> impl Iterator<Item = &Member> {
        let bound = self.bindings.bound(restic_id);
        let members = bound.filter_map(|cluster| self.member(cluster));
        members.filter(|member| {
            let uses = |held: &&Arc<Held>| held.cluster == member.name;
            member.complete() && self.index.bindings(restic_id).any(|held| uses(&held))
        })
    }

    /// The damage that the last check by a bound cluster has found, with the repository that it is about.
    #[must_use]
    pub fn damage_of(&self, restic_id: &str) -> Option<(&Arc<str>, &str)> {
        let bound = |held: &&Arc<Held>| self.bindings.is_bound(&held.cluster, restic_id);
        let repositories = self.index.bindings(restic_id).filter(bound);
        let mut damaged =
            repositories.filter_map(|held| Some((&held.place, held.repository()?.damage.as_str())));
        damaged.find(|(_, damage)| !damage.is_empty())
    }

    /// The resource of a bound cluster that makes a store read-only: its place.
    #[must_use]
    pub fn read_only(&self, restic_id: &str) -> Option<&Arc<str>> {
        let mut resources = self.index.bindings(restic_id);
        let read_only = |held: &&Arc<Held>| {
            held.repository().is_some_and(|r| r.read_only) && self.bindings.is_bound(&held.cluster, restic_id)
        };
        resources.find(read_only).map(|held| &held.place)
    }

    /// The resource of a bound cluster at whose location another repository lies than the one that is known, where this is one
    /// of the two: its place, and the known and the other id. A person has to accept it.
    #[must_use]
    pub fn changed_of(&self, restic_id: &str) -> Option<(&Arc<str>, &str, &str)> {
        let mut changed = self.index.changed().filter_map(|held| {
            let repository = held.repository()?;
            let (known, other) = (repository.restic_id.as_str(), repository.changed_id.as_str());
            // What is known is the key of a store, and what was found at its location a plain id.
            let counts = known == restic_id || other == copies::restic_id(restic_id);
            let bound = || self.bindings.is_bound(&held.cluster, &held.row);
            let banned = || {
                self.member(&held.cluster)
                    .is_some_and(|member| member.banned.is_some())
            };
            (counts && bound() && !banned()).then_some((&held.place, known, other))
        });
        changed.next()
    }

    /// A repository that the table of bindings does not have yet.
    pub(super) fn note_reported(&mut self, held: &Held) {
        let Some(repository) = held.repository() else {
            return;
        };
        let id = &repository.restic_id;
        // One that is not proper is reported as well: it is refused and counted.
        if !id.is_empty() && self.bindings.get(&held.cluster, id).is_none() {
            let ids = self.reported.entry(held.cluster.clone()).or_default();
            ids.insert(id.clone());
        }
    }

    /// What a cluster has reported since the last look.
    pub fn take_reported(&mut self, cluster: &str) -> Vec<String> {
        let ids = self.reported.remove(cluster).unwrap_or_default();
        ids.into_iter().collect()
    }

    /// Ids that a cluster reports and that the table does not have yet.
    #[must_use]
    pub fn unreported(&self, cluster: &str) -> Vec<String> {
        let Some(member) = self.member(cluster) else {
            return Vec::new();
        };
        let ids = member.objects.values().filter_map(|held| {
            let id = &held.repository()?.restic_id;
            (is_key(id) && self.bindings.get(cluster, id).is_none()).then(|| id.clone())
        });
        let ids: std::collections::BTreeSet<String> = ids.collect();
        ids.into_iter().collect()
    }
}
