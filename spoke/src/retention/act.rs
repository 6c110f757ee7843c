//! The part with clients: the objects, approvals, Events.

use crds::conditions::{self, types};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus, ResticRepository, names};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt as _;
use tracing::{info, warn};

use super::validate::Valid;
use super::{RetentionKind, build, status};
use crate::apply::ApplyError;
use crate::children;
use crate::events::Severity;
use crate::kind::{Kind as _, Turn};
use crate::secrets::cluster;
use crate::world::{JobView, Key, Stored};

impl RetentionKind {
    /// Makes ServiceAccount, credentials and CronJob what they should be, and runs what a person has approved.
    pub(super) async fn ensure(
        &self,
        turn: &mut Turn<'_, Self>,
        policy: &GlobalRetentionPolicy,
        valid: &Valid,
        repository: &ResticRepository,
        new: &mut GlobalRetentionPolicyStatus,
    ) -> Result<(), ApplyError> {
        let key = turn.key;
        if valid.job.service_account.is_none() {
            children::service_account(&self.context, &build::service_account(key, policy)).await?;
        }
        let name = names::retention_credentials(&key.name);
        let projection =
            cluster::projection(&self.context, key, &valid.repository, repository, &name).await?;
        if let Some(projection) = projection {
            children::credentials(&self.context, &build::credentials(key, policy, projection)).await?;
        }
        let wanted = build::cron_job(
            key,
            &self.context.cluster,
            policy,
            valid,
            repository,
            (&self.image, &self.retry_lock),
        );
        let present = children::cron_job(&self.context, &wanted, &mut new.cron_job_ref).await?;
        let Some(present) = present else { return Ok(()) };
        self.approvals(turn, policy, &wanted, &present.meta.uid, repository, new)
            .await
    }

    /// Makes a Job for each approved plan. An approval is acted on until its run has an outcome.
    async fn approvals(
        &self,
        turn: &mut Turn<'_, Self>,
        policy: &GlobalRetentionPolicy,
        wanted: &CronJob,
        owner: &str,
        repository: &ResticRepository,
        new: &mut GlobalRetentionPolicyStatus,
    ) -> Result<(), ApplyError> {
        let annotated = policy.annotations().get(names::ANNOTATION_APPROVE);
        let approval = status::approval(
            new,
            annotated.map(String::as_str),
            policy.metadata.generation,
            turn.now,
        );
        if let Some(hash) = approval {
            self.run_approved(turn.key, policy, wanted, owner, &hash, new)
                .await?;
        }
        let restic_id = repository
            .status
            .as_ref()
            .and_then(|s| s.repository_id.as_deref());
        for (hash, about) in turn.memory.approvals.clone() {
            if Some(about.as_str()) == restic_id {
                self.run_approved(turn.key, policy, wanted, owner, &hash, new)
                    .await?;
            }
            // The hub sends it again in its next session if no run under it was granted by then.
            turn.memory.approvals.remove(&(hash, about));
        }
        Ok(())
    }

    /// A run of its own for an approved plan. Its name follows from the plan and from the run before, so that neither
    /// a crash nor a second word starts another.
    async fn run_approved(
        &self,
        key: &Key,
        policy: &GlobalRetentionPolicy,
        cron_job: &CronJob,
        owner: &str,
        hash: &str,
        status: &GlobalRetentionPolicyStatus,
    ) -> Result<(), ApplyError> {
        let label = Key::new(&key.namespace, names::label_value(&key.name));
        let jobs = self.context.world.jobs.group(&label);
        let under_way = |job: &JobView| job.end.is_none() && job.approved.as_deref() == Some(hash);
        if jobs
            .iter()
            .any(|(_, job)| under_way(job) && job.meta.owner.as_deref() == Some(owner))
        {
            return Ok(());
        }
        let seed = format!("{}/{hash}/{:?}", Stored::uid(policy), status.last_run_token);
        let name = names::bounded(
            &cron_job.name_any(),
            &format!("-{}", names::short_hash(seed.as_bytes())),
            names::LABEL_MAX,
        );
        let job = build::approved_job(cron_job, owner, name, hash);
        match self.context.applier.create(&job).await {
            Ok(_) => info!(object = %key, job = job.name_any(), hash, "a plan was approved"),
            Err(ApplyError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Consent was withdrawn: no more runs.
    pub(super) async fn withdraw(&self, key: &Key) -> Result<(), ApplyError> {
        let at = |name: String| Key::new(&key.namespace, name);
        let cron_job = at(names::retention_cron_job(&key.name));
        children::withdraw(
            &self.context,
            cron_job,
            &at(names::retention_credentials(&key.name)),
        )
        .await
    }

    /// Writes the status, and tells of what changed.
    pub(super) async fn finish(
        &self,
        key: &Key,
        policy: &GlobalRetentionPolicy,
        old: &GlobalRetentionPolicyStatus,
        new: &GlobalRetentionPolicyStatus,
    ) -> Result<(), ApplyError> {
        let world = &self.context.world;
        let uid = Stored::uid(policy);
        let reference = &policy.spec.repository_ref;
        let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
        let bound = world.repositories.get(&at);
        let bound = bound.and_then(|r| r.status.as_ref()?.repository_id.clone());
        // The last known one stays while the repository is deleted or not looked at yet.
        let new = &GlobalRetentionPolicyStatus {
            repository_id: bound.or_else(|| new.repository_id.clone()),
            ..new.clone()
        };
        self.context
            .write_status(&world.policies, key, uid, old, new)
            .await
            .inspect_err(|error| {
                if !matches!(
                    error,
                    ApplyError::NotLeader | ApplyError::Gone(_) | ApplyError::Conflict(_)
                ) {
                    warn!(%error, "could not write the status");
                }
            })?;
        self.tell(key, uid, old, new);
        Ok(())
    }

    fn tell(
        &self,
        key: &Key,
        uid: &str,
        old: &GlobalRetentionPolicyStatus,
        new: &GlobalRetentionPolicyStatus,
    ) {
        let publish = |severity, reason: &str, note: &str| {
            info!(object = %key, reason, note, "retention");
            self.context
                .events
                .publish(Self::NAME, key, uid, severity, reason, note);
        };
        let reason = |status: &GlobalRetentionPolicyStatus| {
            conditions::get(&status.conditions, types::READY).map(|c| c.reason.clone())
        };
        if let Some(ready) = conditions::get(&new.conditions, types::READY)
            && reason(old).as_ref() != Some(&ready.reason)
        {
            let severity = if ready.status == "True" {
                Severity::Normal
            } else {
                Severity::Warning
            };
            publish(severity, &ready.reason, &ready.message);
        }
        let run = |status: &GlobalRetentionPolicyStatus| (status.last_run.clone(), status.last_run_token);
        if run(old) != run(new)
            && let Some(outcome) = conditions::get(&new.conditions, types::DEGRADED)
        {
            let severity = if outcome.status == "True" {
                Severity::Warning
            } else {
                Severity::Normal
            };
            let by = new.last_run_by.as_ref().map(|by| format!(" (run of {by})"));
            publish(
                severity,
                &outcome.reason,
                &format!("{}{}", outcome.message, by.unwrap_or_default()),
            );
        }
    }
}
