//! What collectors have collected of each repository, as rows show it.

use std::sync::Arc;

use proto::v1::{Collection, CollectorReport};

use super::Inventory;
use crate::Millis;

/// The figures of one repository, and who collects them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// The cluster that is appointed; empty for none.
    pub collector: String,
    pub epoch: u64,
    /// What was collected last.
    pub latest: Option<Latest>,
}

/// What was collected last.
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
        self.collected.get(restic_id)
    }

    /// A cluster was appointed to collect.
    pub fn appointed(&mut self, restic_id: &Arc<str>, cluster: &str, epoch: u64) {
        let of = self.collected.entry(restic_id.clone()).or_default();
        cluster.clone_into(&mut of.collector);
        of.epoch = epoch;
        self.changes.touch(Collection::Repositories, restic_id);
        self.changes.publish();
    }

    /// A report was taken.
    pub fn collect(&mut self, restic_id: &Arc<str>, latest: Latest) {
        let of = self.collected.entry(restic_id.clone()).or_default();
        of.latest = Some(latest);
        self.changes.touch(Collection::Repositories, restic_id);
        self.changes.publish();
    }
}
