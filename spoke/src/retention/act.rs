//! The part with clients: the objects, approvals, the plan in a pod's log, Events.

use crds::conditions::{self, types};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus, ResticRepository, names};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt as _;
use serde_json::Value;
use tracing::{info, warn};

use super::validate::Valid;
use super::{Job, Report, RetentionKind, build};
use crate::apply::ApplyError;
use crate::children;
use crate::events::Severity;
use crate::kind::{Kind as _, Turn};
use crate::link::convert::policy_state;
use crate::maintenance::Event;
use crate::secrets::cluster;
use crate::world::{Key, Stored};

/// How the plan's line in a pod's log begins.
const PLAN_LINE: &str = "{\"plan\":";
/// A plan that is longer is passed on with its groups, and with the oldest of the snapshots that go.
const PLAN_MAX: usize = 2 << 20;
/// What is passed on of each list of a long plan.
const LIST_MAX: usize = 2000;

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
        let wanted = build::cron_job(key, &self.context.cluster, policy, valid, repository, &self.image);
        let present = children::cron_job(&self.context, &wanted, &mut new.cron_job_ref).await?;
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
        let job = build::approved_job(cron_job, owner, name, hash);
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
                line.map(bounded).unwrap_or_default()
            }
            Err(error) => {
                warn!(pod = %at, %error, "the plan could not be read from the pod's log");
                Vec::new()
            }
        }
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

/// A plan as it is passed on.
fn bounded(line: &str) -> Vec<u8> {
    if line.len() <= PLAN_MAX {
        return line.as_bytes().to_vec();
    }
    // One that the log has cut off is no document.
    let Ok(mut document) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    for list in ["remove", "groups"] {
        if let Some(list) = document["plan"][list].as_array_mut() {
            list.truncate(LIST_MAX);
        }
    }
    document.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_plan_is_passed_on_with_the_oldest_of_what_goes() {
        let removal = |n: usize| json!({ "id": format!("{n:064x}"), "tags": ["x".repeat(300)] });
        let plan = |count: usize| {
            let remove: Vec<Value> = (0..count).map(removal).collect();
            json!({ "plan": { "hash": "h", "remove": remove, "groups": [{ "remove": count }] } }).to_string()
        };
        assert_eq!(bounded(&plan(10)), plan(10).into_bytes());
        let short: Value = serde_json::from_slice(&bounded(&plan(10_000))).unwrap();
        assert_eq!(short["plan"]["remove"].as_array().unwrap().len(), LIST_MAX);
        assert_eq!(
            (&short["plan"]["hash"], &short["plan"]["groups"][0]["remove"]),
            (&json!("h"), &json!(10_000))
        );
    }
}
