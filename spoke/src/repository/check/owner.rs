//! ResticRepositories as owners of integrity checks.

use std::sync::Arc;

use crds::integrity::IntegrityCheck;
use jiff::Timestamp;
use proto::v1::{OperationKind, RetentionRun};

use super::super::owner::{assigned, pinned_to};
use super::results;
use crate::closed;
use crate::context::Context;
use crate::exchange::Pinned;
use crate::operation::{Assignment, Closed, Order, Owner, order};
use crate::world::{JobView, Key, Meta, Stored as _};

/// Type of the Jobs.
pub const CHECK: &str = "check";

/// Repositories as owners of checks.
pub struct CheckOwner {
    context: Arc<Context>,
}

impl CheckOwner {
    /// The repositories of this cluster.
    #[must_use]
    pub fn new(context: Arc<Context>) -> CheckOwner {
        CheckOwner { context }
    }
}

impl Owner for CheckOwner {
    fn job_type(&self) -> &'static str {
        CHECK
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Check
    }

    fn assignment(&self, at: &Key, job: &JobView) -> Option<Assignment> {
        let world = &self.context.world;
        let owned_by = |meta: &Meta, kind: &str| {
            let (of, name) = meta.owner_name.as_ref()?;
            (**of == *kind).then(|| at.sibling(name))
        };
        let cron_job = world.cron_jobs.get(&owned_by(&job.meta, "CronJob")?)?;
        let owner = owned_by(&cron_job.meta, "ResticRepository")?;
        let repository = world.repositories.get(&owner)?;
        let its = cron_job.meta.owner.as_deref() == Some(repository.uid())
            && job.meta.owner.as_ref() == Some(&cron_job.meta.uid);
        its.then(|| assigned(owner, &repository))
    }

    fn subject(&self, pinned: &Pinned) -> String {
        format!("check {}", pinned.owner)
    }

    fn order(&self, pinned: &Pinned, _: &JobView, _: Option<RetentionRun>) -> Result<Order, String> {
        let repository = pinned_to(&self.context.world, pinned);
        let repository = repository.ok_or("the ResticRepository does not exist any more")?;
        let run = results::order(&repository, &pinned.restic_id);
        order(&run, Vec::new(), "many parts")
    }

    // A check only reads.
    fn closed(&self, pinned: &Pinned, now: Timestamp) -> Option<Closed> {
        let repository = pinned_to(&self.context.world, pinned)?;
        closed::of_repository(&pinned.repository, &repository, now)
    }

    fn is_recorded(&self, pinned: &Pinned) -> bool {
        pinned_to(&self.context.world, pinned)
            .is_none_or(|repository| super::known(&repository).counted_jobs.contains(&pinned.operation))
    }

    fn is_repeated(&self, pinned: &Pinned) -> bool {
        pinned_to(&self.context.world, pinned).is_some_and(|repository| {
            let check = repository.spec.integrity_check.as_ref();
            repository.metadata.deletion_timestamp.is_none() && check.is_some_and(IntegrityCheck::is_wanted)
        })
    }
}
