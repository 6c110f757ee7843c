//! GlobalRetentionPolicies as owners of maintenance operations.

use std::sync::Arc;

use crds::{GlobalRetentionPolicy, names};
use proto::digest::run_hash;
use proto::v1::{OperationKind, RetentionRun};

use super::own;
use crate::context::Context;
use crate::exchange::Pinned;
use crate::operation::{Assignment, Order, Owner, order};
use crate::world::{JobView, Key, Stored as _};

/// Policies as owners.
pub struct RetentionOwner {
    context: Arc<Context>,
}

impl RetentionOwner {
    /// The policies of this cluster.
    #[must_use]
    pub fn new(context: Arc<Context>) -> RetentionOwner {
        RetentionOwner { context }
    }

    /// The policy that an operation was pinned to.
    fn policy(&self, pinned: &Pinned) -> Option<Arc<GlobalRetentionPolicy>> {
        let policy = self.context.world.policies.get(&pinned.owner)?;
        (policy.uid() == pinned.owner_uid).then_some(policy)
    }

    /// The policy whose CronJob controls a Job.
    fn of_job(&self, at: &Key, job: &JobView) -> Option<(Key, Arc<GlobalRetentionPolicy>)> {
        let (kind, cron_job) = job.meta.owner_name.as_ref()?;
        let label = job.of.as_ref().filter(|_| &**kind == "CronJob")?;
        let world = &self.context.world;
        let present = world.cron_jobs.get(&Key::new(&at.namespace, cron_job))?;
        if Some(&present.meta.uid) != job.meta.owner.as_ref() {
            return None;
        }
        // The label is cut and hashed when the name is long.
        let its = |key: &Key| *names::retention_cron_job(&key.name) == **cron_job;
        match world.policies.get(label).filter(|_| its(label)) {
            Some(policy) => Some((label.clone(), policy)),
            None => world
                .policies
                .filter(|key, _| key.namespace == at.namespace && its(key))
                .into_iter()
                .next(),
        }
    }
}

impl Owner for RetentionOwner {
    fn job_type(&self) -> &'static str {
        "retention"
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Retention
    }

    fn assignment(&self, at: &Key, job: &JobView) -> Option<Assignment> {
        let (owner, policy) = self.of_job(at, job)?;
        let reference = &policy.spec.repository_ref;
        let place = Key::new(reference.namespace_or(&owner.namespace), &reference.name);
        let repository = self.context.world.repositories.get(&place);
        Some(Assignment {
            owner_uid: policy.uid().to_owned(),
            owner,
            repository: place,
            exists: repository.is_some(),
            restic_id: repository.and_then(|r| r.status.as_ref()?.repository_id.clone()),
        })
    }

    fn subject(&self, pinned: &Pinned) -> String {
        format!("retention {}", pinned.owner)
    }

    fn order(&self, pinned: &Pinned, job: &JobView, run: Option<RetentionRun>) -> Result<Order, String> {
        let (world, cluster) = (&self.context.world, &self.context.cluster);
        let run = run.unwrap_or_else(|| RetentionRun {
            restic_id: pinned.restic_id.clone(),
            policies: own::policies(world, cluster, &pinned.restic_id),
            clusters: vec![cluster.clone()],
            approved: job.approved.as_deref().unwrap_or_default().to_owned(),
            baseline: own::baseline(world, cluster, &pinned.restic_id),
            ..Default::default()
        });
        if run.restic_id != pinned.restic_id {
            return Err(format!("the hub sent a run for repository {}", run.restic_id));
        }
        let what = format!(
            "{} policies in {} clusters",
            run.policies.len(),
            run.clusters.len()
        );
        order(&run, run_hash(&run), &what)
    }

    fn is_recorded(&self, pinned: &Pinned) -> bool {
        let Some(policy) = self.policy(pinned) else {
            return true;
        };
        let status = policy.status.as_ref();
        status.is_some_and(|s| s.counted_jobs.contains(&pinned.operation))
    }

    fn has_plan(&self) -> bool {
        true
    }

    fn is_repeated(&self, pinned: &Pinned) -> bool {
        let policy = self.policy(pinned);
        policy.is_some_and(|p| p.metadata.deletion_timestamp.is_none() && !p.spec.suspend)
    }
}
