//! The ways into the inventory: by name, by physical repository, by who writes where, and by when something is due.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::held::Held;
use crate::Millis;

/// Rows and what they are made of. Kept up to date with each change, never rebuilt.
#[derive(Debug, Default)]
pub struct Index {
    backups: BTreeMap<Arc<str>, Arc<Held>>,
    bindings: BTreeMap<Arc<str>, Arc<Held>>,
    /// Row key of a physical repository -> places of the resources that bind it.
    physical: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Place of a repository -> backups that write to it.
    writers: HashMap<Arc<str>, u64>,
    deadlines: BTreeSet<(Millis, Arc<str>)>,
    /// restic id -> policies that are bound to it, by place.
    policies: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<Held>>>,
    /// Restores by place.
    restores: BTreeMap<Arc<str>, Arc<Held>>,
    /// restic id -> backups that run into it now, by place.
    running: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Repository resources at whose location another repository lies than the one that is known, by place.
    changed: BTreeMap<Arc<str>, Arc<Held>>,
    /// Cluster -> backups whose source is suddenly far smaller than before, by place.
    suspicious: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<Held>>>,
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
                .range::<str, _>((Bound::Included(first.as_str()), Bound::Excluded(end.as_str())))
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
        self.policies
            .get(restic_id)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// Retention policies of all clusters, whatever they are bound to.
    pub fn all_policies(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.policies.values().flat_map(BTreeMap::values)
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
        of_cluster.into_iter().flat_map(BTreeMap::values)
    }

    /// Repository resources at whose location another repository lies than the one that is known.
    pub fn changed(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.changed.values()
    }

    /// Keys of all physical repositories.
    pub fn repositories(&self) -> impl Iterator<Item = &Arc<str>> {
        self.physical.keys()
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
            let bound = self.policies.get(policy.restic_id.as_str());
            bound.and_then(|policies| policies.get(&held.place))
        } else if held.restore().is_some() {
            self.restores.get(&held.place)
        } else {
            None
        };
        named.filter(|named| named.object.uid != held.object.uid).cloned()
    }

    /// Backups that may have turned late by now. Each is given once.
    pub(super) fn overdue(&mut self, now: Millis) -> Vec<Arc<Held>> {
        let mut overdue = Vec::new();
        while self.deadlines.first().is_some_and(|(at, _)| *at <= now) {
            let held = self
                .deadlines
                .pop_first()
                .and_then(|(_, place)| self.backups.get(&place).cloned());
            overdue.extend(held);
        }
        overdue
    }

    pub(super) fn add(&mut self, held: &Arc<Held>) {
        if held.backup().is_some() {
            self.backups.insert(held.place.clone(), held.clone());
            for at in moments(held) {
                self.deadlines.insert((at, held.place.clone()));
            }
            if let Some(id) = runs_into(held) {
                self.running.entry(id).or_default().insert(held.place.clone());
            }
            if is_suspicious(held) {
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
            let bound = self.policies.entry(policy.restic_id.as_str().into()).or_default();
            bound.insert(held.place.clone(), held.clone());
        } else if held.restore().is_some() {
            self.restores.insert(held.place.clone(), held.clone());
        }
    }

    pub(super) fn remove(&mut self, held: &Held) {
        if held.backup().is_some() {
            self.backups.remove(&held.place);
            for at in moments(held) {
                self.deadlines.remove(&(at, held.place.clone()));
            }
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
        } else if let Some(policy) = held.policy()
            && let Some(bound) = self.policies.get_mut(policy.restic_id.as_str())
        {
            bound.remove(&held.place);
            if bound.is_empty() {
                self.policies.remove(policy.restic_id.as_str());
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
        .filter(|b| (b.running || b.under_way) && !b.restic_id.is_empty())?;
    Some(backup.restic_id.as_str().into())
}

fn is_suspicious(held: &Held) -> bool {
    let mut conditions = held.object.conditions.iter();
    conditions.any(|c| c.r#type == "Suspicious" && c.status == "True")
}

/// When the state of a backup may change by itself.
fn moments(held: &Held) -> impl Iterator<Item = Millis> {
    held.deadline
        .into_iter()
        .flat_map(|deadline| [deadline.late, deadline.late_though_running])
}
