//! The ways into the inventory: by name, by physical repository, by who writes where, and by how bad it is.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::held::Held;
use super::judged::Judged;
use super::matters::Matters;
use crate::health::waits_too_long;
use crate::waits::Matter;
use crate::{Millis, copies};

/// Resources by place.
type ByPlace = OrdMap<Arc<str>, Arc<Held>>;

/// Rows and what they are made of. Kept up to date with each change, never rebuilt. A copy shares all that has not changed.
#[derive(Clone, Debug, Default)]
pub struct Index {
    backups: ByPlace,
    /// What was made of the backups.
    pub(super) judged: Judged,
    /// What else needs a person.
    pub(super) matters: Matters,
    bindings: ByPlace,
    /// Row key of a physical repository -> places of the resources that bind it.
    physical: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    /// Place of a repository -> backups that write to it.
    writers: OrdMap<Arc<str>, u64>,
    policies: ByPlace,
    /// restic id -> policies that are bound to it.
    bound: OrdMap<Arc<str>, ByPlace>,
    restores: ByPlace,
    /// restic id -> backups that run into it now, by place.
    running: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    /// Cluster -> backups whose source is suddenly far smaller than before.
    suspicious: OrdMap<Arc<str>, ByPlace>,
    /// Repository resources at whose location another repository lies than the one that is known.
    changed: ByPlace,
}

impl Index {
    /// All backups of these clusters, or of all, by place.
    pub fn backups<'a>(&'a self, clusters: &'a [String]) -> Box<dyn Iterator<Item = &'a Arc<Held>> + 'a> {
        if clusters.is_empty() {
            return Box::new(self.backups.values());
        }
        Box::new(clusters.iter().flat_map(|cluster| {
            // '0' comes right after '/'.
            let (first, end) = (format!("{cluster}/"), format!("{cluster}0"));
            self.backups
                .range::<_, str>((Bound::Included(first.as_str()), Bound::Excluded(end.as_str())))
                .map(|(_, held)| held)
        }))
    }

    /// One backup by its place.
    #[must_use]
    pub fn backup(&self, place: &str) -> Option<&Arc<Held>> {
        self.backups.get(place)
    }

    /// One repository resource by its place.
    #[must_use]
    pub fn binding(&self, place: &str) -> Option<&Arc<Held>> {
        self.bindings.get(place)
    }

    /// Retention policies of all clusters that are bound to a physical repository.
    pub fn policies(&self, restic_id: &str) -> impl Iterator<Item = &Arc<Held>> {
        self.bound.get(restic_id).into_iter().flat_map(OrdMap::values)
    }

    /// Retention policies of all clusters, whatever they are bound to.
    pub fn all_policies(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.policies.values()
    }

    /// All restores, by place.
    pub fn restores(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.restores.values()
    }

    /// Backups that run into a physical repository as last reported, by place.
    pub fn running(&self, restic_id: &str) -> impl Iterator<Item = &Arc<str>> {
        self.running.get(restic_id).into_iter().flatten()
    }

    /// Backups of a cluster with the condition Suspicious, by place.
    pub fn suspicious(&self, cluster: &str) -> impl Iterator<Item = &Arc<Held>> {
        let of_cluster = self.suspicious.get(cluster);
        of_cluster.into_iter().flat_map(OrdMap::values)
    }

    /// Repository resources at whose location another repository lies than the one that is known.
    pub fn changed(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.changed.values()
    }

    /// Keys of all physical repositories.
    pub fn repositories(&self) -> impl Iterator<Item = &Arc<str>> {
        self.physical.keys()
    }

    /// Keys of the stores of a restic id.
    pub fn stores<'a>(&'a self, restic_id: &'a str) -> impl Iterator<Item = &'a Arc<str>> {
        let from = (Bound::Included(restic_id), Bound::Unbounded);
        let keys = self.physical.range::<_, str>(from).map(|(key, _)| key);
        let keys = keys.take_while(move |key| key.starts_with(restic_id));
        keys.filter(move |key| copies::restic_id(key) == restic_id)
    }

    /// The resources that bind a physical repository, by place.
    pub fn bindings(&self, row: &str) -> impl Iterator<Item = &Arc<Held>> {
        self.physical
            .get(row)
            .into_iter()
            .flatten()
            .filter_map(|place| self.bindings.get(place))
    }

    /// How many backups write to a repository resource.
    #[must_use]
    pub fn writers(&self, place: &str) -> u64 {
        self.writers.get(place).copied().unwrap_or(0)
    }

    /// One policy by its place.
    #[must_use]
    pub fn policy(&self, place: &str) -> Option<&Arc<Held>> {
        self.policies.get(place)
    }

    /// One restore by its place.
    #[must_use]
    pub fn restore(&self, place: &str) -> Option<&Arc<Held>> {
        self.restores.get(place)
    }

    /// The resource at a place that something is wrong with.
    #[must_use]
    pub fn about(&self, matter: Matter, place: &str) -> Option<&Held> {
        let held = match matter {
            Matter::Damaged | Matter::Unready => self.binding(place),
            Matter::Unproven => self.backup(place),
            Matter::RestoreFailed => self.restore(place),
            Matter::PolicyFailed | Matter::Waiting => self.policy(place),
        };
        held.map(AsRef::as_ref)
    }

    /// What was made of the backups.
    #[must_use]
    pub fn judged(&self) -> &Judged {
        &self.judged
    }

    /// What else needs a person.
    #[must_use]
    pub fn matters(&self) -> &Matters {
        &self.matters
    }

    /// Number of physical repositories.
    #[must_use]
    pub fn repository_count(&self) -> usize {
        self.physical.len()
    }

    /// Number of backups.
    #[must_use]
    pub fn backup_count(&self) -> usize {
        self.backups.len()
    }

    /// Another resource of the same kind, cluster and name.
    pub(super) fn rival(&self, held: &Held) -> Option<Arc<Held>> {
        let named = if held.backup().is_some() {
            self.backups.get(&held.place)
        } else if held.repository().is_some() {
            self.bindings.get(&held.place)
        } else if let Some(policy) = held.policy() {
            // One that was bound elsewhere before is gone by its uid.
            let bound = self.bound.get(policy.restic_id.as_str());
            bound.and_then(|policies| policies.get(&held.place))
        } else if held.restore().is_some() {
            self.restores.get(&held.place)
        } else {
            None
        };
        named.filter(|named| named.uid != held.uid).cloned()
    }

    pub(super) fn add(&mut self, held: &Arc<Held>) {
        if held.backup().is_some() {
            self.backups.insert(held.place.clone(), held.clone());
            if let Some(id) = runs_into(held) {
                self.running.entry(id).or_default().insert(held.place.clone());
            }
            if held.is_suspicious() {
                let of_cluster = self.suspicious.entry(held.cluster.clone()).or_default();
                of_cluster.insert(held.place.clone(), held.clone());
            }
            if let Some(repository) = held.writes_to() {
                *self.writers.entry(repository).or_insert(0) += 1;
            }
        } else if let Some(repository) = held.repository() {
            if !repository.changed_id.is_empty() {
                self.changed.insert(held.place.clone(), held.clone());
            }
            self.bindings.insert(held.place.clone(), held.clone());
            self.physical
                .entry(held.row.clone())
                .or_default()
                .insert(held.place.clone());
        } else if let Some(policy) = held.policy() {
            let bound = self.bound.entry(policy.restic_id.as_str().into()).or_default();
            bound.insert(held.place.clone(), held.clone());
            self.policies.insert(held.place.clone(), held.clone());
        } else if held.restore().is_some() {
            self.restores.insert(held.place.clone(), held.clone());
        }
    }

    pub(super) fn remove(&mut self, held: &Held) {
        if held.backup().is_some() {
            self.backups.remove(&held.place);
            self.judged.remove(&held.cluster, &held.place);
            if let Some(id) = runs_into(held)
                && let Some(places) = self.running.get_mut(&id)
            {
                places.remove(&held.place);
                if places.is_empty() {
                    self.running.remove(&id);
                }
            }
            if let Some(of_cluster) = self.suspicious.get_mut(&held.cluster) {
                of_cluster.remove(&held.place);
                if of_cluster.is_empty() {
                    self.suspicious.remove(&held.cluster);
                }
            }
            if let Some(repository) = held.writes_to()
                && let Some(count) = self.writers.get_mut(&repository)
            {
                *count -= 1;
                if *count == 0 {
                    self.writers.remove(&repository);
                }
            }
        } else if held.repository().is_some() {
            self.changed.remove(&held.place);
            self.bindings.remove(&held.place);
            if let Some(places) = self.physical.get_mut(&held.row) {
                places.remove(&held.place);
                if places.is_empty() {
                    self.physical.remove(&held.row);
                }
            }
        } else if let Some(policy) = held.policy() {
            // Another one may have taken its place under another repository.
            let named = self.policies.get(&held.place);
            if named.is_some_and(|named| named.uid == held.uid) {
                self.policies.remove(&held.place);
            }
            if let Some(bound) = self.bound.get_mut(policy.restic_id.as_str()) {
                bound.remove(&held.place);
                if bound.is_empty() {
                    self.bound.remove(policy.restic_id.as_str());
                }
            }
        } else if held.restore().is_some() {
            self.restores.remove(&held.place);
        }
    }
}

/// Physical repository that a running backup writes to.
fn runs_into(held: &Held) -> Option<Arc<str>> {
    let backup = held
        .backup()
        .filter(|b| (b.running || b.under_way) && !b.restic_id().is_empty())?;
    Some(backup.restic_id().into())
}

/// When the state of a backup may change by itself.
pub(super) fn moments(held: &Held) -> impl Iterator<Item = Millis> {
    let deadlines = held.deadline.into_iter();
    let deadlines = deadlines.flat_map(|deadline| [deadline.late, deadline.late_though_running]);
    deadlines.chain(held.backup().and_then(waits_too_long))
}
