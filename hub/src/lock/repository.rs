//! The lock of one repository, with those who hold it and wait.

use std::collections::HashMap;
use std::sync::Arc;

use proto::v1::{LeaseWaiting, RetentionRun};

use super::grantor::{Grantor, Operation, Phase};
use super::keeper::Recent;
use crate::store::History;

/// The lock of one repository, with what the hub knows of those who hold it and wait.
#[derive(Default)]
pub(super) struct Repository {
    pub grantor: Grantor,
    /// Token of the present holder, and what it was given to do; `None` for other operations than retention runs.
    pub run: Option<(u64, Option<RetentionRun>)>,
    pub recent: Option<Recent>,
    /// The last run before this start of the hub was looked up.
    pub recalled: bool,
    /// What earlier runs left; read when it is needed.
    pub history: Option<History>,
    /// The last answer to each waiter.
    pub told: HashMap<(Arc<str>, Arc<str>), LeaseWaiting>,
    pub draining: bool,
    /// Why its operations wait for a place on its storage host.
    pub crowded: Option<String>,
}

impl Repository {
    /// An operation as it is known, with its subject: messages after the first do not repeat it.
    pub fn known(&self, operation: &Operation) -> Operation {
        self.find(operation).unwrap_or(operation).clone()
    }

    /// Whether an operation holds the lock or waits for it.
    pub fn knows(&self, operation: &Operation) -> bool {
        self.find(operation).is_some()
    }

    /// Who holds the lock, held it last, or is about to.
    pub fn holder(&self) -> Option<&Operation> {
        match self.grantor.phase() {
            Phase::Held { grant, .. } | Phase::Granting { grant, .. } => Some(&grant.operation),
            Phase::Delay { holder, .. } => holder.operation(),
            Phase::Draining { first, .. } => Some(&first.operation),
            Phase::Free => None,
        }
    }

    fn find(&self, operation: &Operation) -> Option<&Operation> {
        let same = |other: &&Operation| other.cluster == operation.cluster && other.id == operation.id;
        let waiting = self.grantor.waiting().iter().map(|w| &w.operation);
        self.holder().into_iter().chain(waiting).find(same)
    }
}
