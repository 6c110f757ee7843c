//! The part with clients: the objects, approvals, the plan in a pod's log, Events.

use std::sync::Arc;

use crds::conditions::{self, types};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus, ResticRepository, common, names};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde_json::json;
use tracing::{info, warn};

use super::validate::Valid;
use super::{Job, Report, RetentionKind, build};
use crate::apply::ApplyError;
use crate::events::Severity;
use crate::kind::{Kind as _, Outcome, Turn};
use crate::link::convert::policy_state;
use crate::maintenance::Event;
use crate::pod::stale;
use crate::secrets::cluster;
use crate::world::{CronJobView, Key, Meta, MetaView, Stored};

/// Finalizer of the original operator: nothing of ours needs one, but an object that has it would never go.
const COMPAT_FINALIZER: &str = "backup.resticbackup.io/globalretentionpolicy-finalizer";
/// How the plan's line in a pod's log begins.
const PLAN_LINE: &str = "{\"plan\":";
/// Longest plan that is passed on.
const PLAN_MAX: usize = 2 << 20;

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
        let (world, applier) = (&self.context.world, &self.context.applier);
        let at = |name: &str| Key::new(&key.namespace, name);
        if valid.job.service_account.is_none() {
            let wanted = build::service_account(key, policy);
            let place = at(&wanted.name_any());
            let present = world.service_accounts.get(&place).map(|v| v.meta.clone());
            if stale(present.as_ref(), &wanted.metadata) {
                let written: ServiceAccount = applier.apply(&wanted).await?;
                world.service_accounts.put(place, view(&written.metadata));
            }
        }
        let name = names::retention_credentials(&key.name);
        let projection =
            cluster::projection(&self.context, key, &valid.repository, repository, &name).await?;
        if let Some(projection) = projection {
            let written: Secret = applier
                .apply(&build::credentials(key, policy, projection))
                .await?;
            world.secrets.put(at(&name), view(&written.metadata));
        }
        let wanted = build::cron_job(key, policy, valid, repository, &self.image);
        let place = at(&wanted.name_any());
        let present = world.cron_jobs.get(&place);
        let recorded = new.cron_job_ref.as_ref().and_then(|r| r.generation);
        let changed_by_others = present
            .as_ref()
            .is_some_and(|v| recorded.is_some_and(|g| g != v.meta.generation));
        if changed_by_others || stale(present.map(|v| v.meta.clone()).as_ref(), &wanted.metadata) {
            let written: CronJob = applier.apply(&wanted).await?;
            world
                .cron_jobs
                .put(place.clone(), Arc::new(CronJobView::of(&written)));
        }
        let present = world.cron_jobs.get(&place);
        new.cron_job_ref = Some(common::ObjectReference {
            name: place.name.to_string(),
            namespace: place.namespace.to_string(),
            generation: present.as_ref().map(|v| v.meta.generation),
        });
        let Some(present) = present else { return Ok(()) };
        let annotated = policy
            .annotations()
            .get(names::ANNOTATION_APPROVE)
            .filter(|hash| !hash.is_empty());
        if let Some(hash) = annotated
            && new.last_approval.as_ref() != Some(hash)
        {
            self.run_approved(key, policy, &wanted, &present.meta.uid, hash, new)
                .await?;
            new.last_approval = Some(hash.clone());
        }
        if let Some(Report::Policy(Event::Approved { hash })) = turn.report.take() {
            self.run_approved(key, policy, &wanted, &present.meta.uid, &hash, new)
                .await?;
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
        let seed = format!("{}/{hash}/{:?}", Stored::uid(policy), status.last_run_token);
        let name = names::bounded(
            &cron_job.name_any(),
            &format!("-{}", names::short_hash(seed.as_bytes())),
            names::LABEL_MAX,
        );
        let job = build::approved_job(key, cron_job, owner, name, hash);
        match self.context.applier.create(&job).await {
            Ok(_) => info!(object = %key, job = job.name_any(), hash, "a plan was approved"),
            Err(ApplyError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The plan as the pod has logged it; empty when it cannot be read.
    pub(super) async fn plan_of(&self, job: &Job) -> Vec<u8> {
        let newest = job
            .pods
            .iter()
            .max_by_key(|pod| pod.restic.as_ref().and_then(|t| t.finished));
        let Some(pod) = newest else { return Vec::new() };
        let found = self.context.world.pods.group(&Key::new("", &job.view.meta.uid));
        let Some((at, _)) = found.iter().find(|(_, p)| p.meta.uid == pod.meta.uid) else {
            return Vec::new();
        };
        match self.context.applier.log(at, crate::world::RESTIC_CONTAINER).await {
            Ok(log) => {
                let line = log.lines().find(|line| line.starts_with(PLAN_LINE));
                line.filter(|line| line.len() <= PLAN_MAX)
                    .map(|line| line.as_bytes().to_vec())
                    .unwrap_or_default()
            }
            Err(error) => {
                warn!(pod = %at, %error, "the plan could not be read from the pod's log");
                Vec::new()
            }
        }
    }

    /// Consent was withdrawn: no more runs.
    pub(super) async fn withdraw(&self, key: &Key) -> Result<(), ApplyError> {
        let world = &self.context.world;
        let place = Key::new(&key.namespace, names::retention_cron_job(&key.name));
        if world.cron_jobs.get(&place).is_some_and(|c| !c.suspend) {
            let patch = json!({ "metadata": { "annotations": { names::ANNOTATION_APPLIED: null } }, "spec": { "suspend": true } });
            let written: CronJob = self.context.applier.merge(&place, &patch).await?;
            world.cron_jobs.put(place, Arc::new(CronJobView::of(&written)));
        }
        let credentials = Key::new(&key.namespace, names::retention_credentials(&key.name));
        if let Some(secret) = world.secrets.get(&credentials) {
            self.context
                .applier
                .delete::<Secret>(&credentials, secret.uid())
                .await?;
            world.secrets.remove(&credentials, Some(secret.uid()));
        }
        Ok(())
    }

    /// Deletion: owner references take care of what was made.
    pub(super) async fn release(&self, key: &Key, policy: &GlobalRetentionPolicy) -> Outcome {
        let finalizers = policy.finalizers();
        if !finalizers.iter().any(|f| f == COMPAT_FINALIZER) {
            return Outcome::default();
        }
        let rest: Vec<&String> = finalizers.iter().filter(|f| *f != COMPAT_FINALIZER).collect();
        let patch =
            json!({ "metadata": { "finalizers": rest, "resourceVersion": policy.resource_version() } });
        match self
            .context
            .applier
            .merge::<GlobalRetentionPolicy>(key, &patch)
            .await
        {
            Ok(_) | Err(ApplyError::Gone(_)) => Outcome::default(),
            Err(_) => Outcome::retry(),
        }
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
        if let Some(now) = world.policies.get(key) {
            let reference = &now.spec.repository_ref;
            let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
            let repository = world.repositories.get(&at);
            let spec = super::validate::validate(key, &now).ok().map(|valid| valid.spec);
            self.context
                .outbox
                .put(policy_state(&now, repository.as_deref(), spec));
        }
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

fn view(meta: &ObjectMeta) -> Arc<MetaView> {
    Arc::new(MetaView { meta: Meta::of(meta) })
}
