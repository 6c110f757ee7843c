//! What collectors have collected of each repository, as rows show it.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::v1::{Collection, CollectorReport};

use super::{Held, Inventory};
use crate::evidence::{Listing, listing};
use crate::{Millis, rows};

/// The figures of one repository, and who collects them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// The cluster that is appointed; empty for none.
    pub collector: String,
    pub epoch: u64,
    /// What was collected last.
    pub latest: Option<Latest>,
    /// The newest snapshot of each backup in it, if it is whole.
    pub listing: Option<Arc<Listing>>,
}

/// What was collected last. Text and counts of it are shared by all copies.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    pub cluster: String,
    /// When it was read, by the hub's clock.
    pub at: Millis,
    pub report: CollectorReport,
}

impl Inventory {
    /// What is collected of a repository.
    #[must_use]
    pub fn collected(&self, restic_id: &str) -> Option<&Collected> {
        self.collected.get(restic_id).map(AsRef::as_ref)
    }

    /// A cluster was appointed to collect.
    pub fn appointed(&mut self, restic_id: &Arc<str>, cluster: &str, epoch: u64) {
        let of = Arc::make_mut(self.collected.entry(restic_id.clone()).or_default());
        cluster.clone_into(&mut of.collector);
        of.epoch = epoch;
        self.changes.touch(Collection::Repositories, restic_id);
        self.changes.publish();
    }

    /// A report was taken.
    pub fn collect(&mut self, restic_id: &Arc<str>, latest: Latest) {
        let of = Arc::make_mut(self.collected.entry(restic_id.clone()).or_default());
        of.listing = listing(&latest).map(Arc::new);
        of.latest = Some(latest);
        self.changes.touch(Collection::Repositories, restic_id);
        self.measure(restic_id);
        let clusters: BTreeSet<Arc<str>> = self
            .index
            .bindings(restic_id)
            .map(|held| held.cluster.clone())
            .collect();
        for cluster in clusters {
            let of_cluster = [cluster.to_string()];
            let backups: Vec<Arc<Held>> = self.index.backups(&of_cluster).cloned().collect();
            for held in backups.iter().filter(|held| writes_into(held, restic_id)) {
                self.note_matters(held);
            }
        }
        self.changes.publish();
    }

    /// Works the stored bytes of a repository out anew.
    pub(super) fn measure(&mut self, row: &Arc<str>) {
        let held: Vec<&Arc<Held>> = self.index.bindings(row).collect();
        let bytes = match held.as_slice() {
            [] => 0,
            held => rows::figures(self, row, held).map_or(0, |(_, statistics)| statistics.stored_bytes),
        };
        let before = match bytes {
            0 => self.stored.remove(row),
            bytes => self.stored.insert(row.clone(), bytes),
        };
        self.stored_bytes = self
            .stored_bytes
            .saturating_sub(before.unwrap_or(0))
            .saturating_add(bytes);
    }

    /// Bytes that are stored in all repositories together, as far as their figures are known.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }
}

fn writes_into(held: &Held, restic_id: &str) -> bool {
    held.backup()
        .is_some_and(|backup| backup.restic_id() == restic_id)
}
