//! ResticRepositories as owners of maintenance operations: the removal of left-over locks.

use std::sync::Arc;

use jiff::Timestamp;
use proto::v1::{OperationKind, RetentionRun, UnlockRun};

use crate::closed;
use crate::context::Context;
use crate::exchange::Pinned;
use crate::operation::{Assignment, Closed, Order, Owner, order};
pub(super) use crate::operation::{assigned, assigned_by_owner, pinned_to};
use crate::world::{JobView, Key};

/// Type of the Jobs.
pub const UNLOCK: &str = "unlock";

/// Repositories as owners.
pub struct UnlockOwner {
    context: Arc<Context>,
}

impl UnlockOwner {
    /// The repositories of this cluster.
    #[must_use]
    pub fn new(context: Arc<Context>) -> UnlockOwner {
        UnlockOwner { context }
    }
}

impl Owner for UnlockOwner {
    fn job_type(&self) -> &'static str {
        UNLOCK
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Unlock
    }

    fn assignment(&self, at: &Key, job: &JobView) -> Option<Assignment> {
        assigned_by_owner(&self.context.world, at, job)
    }

    fn subject(&self, pinned: &Pinned) -> String {
        format!("unlock {}", pinned.owner)
    }

    // What may go is decided here, and not at the hub: only this cluster has watched these locks.
    fn order(&self, pinned: &Pinned, _: &JobView, _: Option<RetentionRun>) -> Result<Order, String> {
        let locks = self.context.operations.offered(&pinned.owner_uid);
        if locks.is_empty() {
            return Err("the locks that were left behind are not there any more".to_owned());
        }
        let run = UnlockRun {
            restic_id: pinned.restic_id.clone(),
            locks,
            made_ms: self.context.clock.now().as_millisecond(),
        };
        order(&run, Vec::new(), "many locks")
    }

    fn closed(&self, pinned: &Pinned, now: Timestamp) -> Option<Closed> {
        let repository = pinned_to(&self.context.world, pinned)?;
        closed::read_only(&pinned.repository, &repository, now)
    }

    fn is_recorded(&self, pinned: &Pinned) -> bool {
        let Some(repository) = pinned_to(&self.context.world, pinned) else {
            return true;
        };
        let last = repository.status.as_ref().and_then(|s| s.last_unlock.as_ref());
        last.is_some_and(|last| last.job_uid == pinned.operation)
    }
}
