//! What the kinds that run pods do alike with a client: the pods' account and credentials, the CronJob, and their end.

use std::sync::Arc;

use crds::{common, names};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde_json::json;

use crate::apply::{ApplyError, Object};
use crate::context::Context;
use crate::kind::Outcome;
use crate::pod::finished::{self, Ended};
use crate::pod::stale;
use crate::runs::{JobWithPods, Lingers};
use crate::world::{CronJobView, Key, Meta, MetaView, Stored as _};

/// Makes the pods' account what it should be.
///
/// # Errors
/// When it cannot be written.
pub async fn service_account(context: &Context, wanted: &ServiceAccount) -> Result<(), ApplyError> {
    let (accounts, place) = (&context.world.service_accounts, key(wanted));
    let present = accounts.get(&place);
    if stale(present.as_ref().map(|v| &v.meta), &wanted.metadata) {
        let written = context.applier.apply(wanted).await?;
        accounts.put(place, view(&written.metadata));
    }
    Ok(())
}

/// Writes the copy of a repository's credentials.
///
/// # Errors
/// When it cannot be written.
pub async fn credentials(context: &Context, wanted: &Secret) -> Result<(), ApplyError> {
    let written = context.applier.apply(wanted).await?;
    context.world.secrets.put(key(wanted), view(&written.metadata));
    Ok(())
}

/// Makes a CronJob what it should be. `recorded` is its generation after our last write: another one was made by
/// somebody else.
///
/// # Errors
/// When it cannot be written.
pub async fn cron_job(
    context: &Context,
    wanted: &CronJob,
    recorded: &mut Option<common::ObjectReference>,
) -> Result<Option<Arc<CronJobView>>, ApplyError> {
    let (cron_jobs, place) = (&context.world.cron_jobs, key(wanted));
    let present = cron_jobs.get(&place);
    let last = recorded.as_ref().and_then(|r| r.generation);
    let changed_by_others = present
        .as_ref()
        .is_some_and(|v| last.is_some_and(|g| g != v.meta.generation));
    if changed_by_others || stale(present.as_ref().map(|v| &v.meta), &wanted.metadata) {
        let written = context.applier.apply(wanted).await?;
        cron_jobs.put(place.clone(), Arc::new(CronJobView::of(&written)));
    }
    let present = cron_jobs.get(&place);
    *recorded = Some(common::ObjectReference {
        name: place.name.to_string(),
        namespace: place.namespace.to_string(),
        generation: present.as_ref().map(|v| v.meta.generation),
    });
    Ok(present)
}

/// Stops what was made with a consent that was withdrawn, or never given: the copy of the credentials is deleted and the
/// CronJob suspended.
///
/// # Errors
/// When it cannot be written.
pub async fn withdraw(context: &Context, cron_job: Key, copy: &Key) -> Result<(), ApplyError> {
    remove_credentials(context, copy).await?;
    suspend(context, cron_job).await
}

/// Suspends a CronJob. Its mark is removed too, so that the next apply makes it right again.
///
/// # Errors
/// When it cannot be written.
pub async fn suspend(context: &Context, cron_job: Key) -> Result<(), ApplyError> {
    let world = &context.world;
    if world.cron_jobs.get(&cron_job).is_some_and(|c| !c.suspend) {
        let patch = json!({ "metadata": { "annotations": { names::ANNOTATION_APPLIED: null } }, "spec": { "suspend": true } });
        let written: CronJob = context.applier.merge(&cron_job, &patch).await?;
        world.cron_jobs.put(cron_job, Arc::new(CronJobView::of(&written)));
    }
    Ok(())
}

/// Deletes the copy of a repository's credentials that one of our resources had in another namespace.
///
/// # Errors
/// When it cannot be deleted.
pub async fn remove_credentials(context: &Context, copy: &Key) -> Result<(), ApplyError> {
    let secrets = &context.world.secrets;
    // One of the same name that somebody else made has neither mark nor owner of ours.
    let ours = |secret: &MetaView| secret.meta.applied.is_some() && secret.meta.owner_name.is_some();
    if let Some(secret) = secrets.get(copy).filter(|secret| ours(secret)) {
        context.applier.delete::<Secret>(copy, secret.uid()).await?;
        secrets.remove(copy, Some(secret.uid()));
    }
    Ok(())
}

/// Ends a pod that another container keeps alive after `restic` has ended. Its log stays: the pod is not deleted, its
/// active deadline ends it; the Job then counts it as failed, whatever `restic` has reported.
pub async fn end_lingering(context: &Context, run: &JobWithPods, now: Timestamp) -> Outcome {
    let (pod, with_job) = match run.lingers(now) {
        None => return Outcome::default(),
        Some(Lingers::Until(at)) => return Outcome::at(Some(at)),
        Some(Lingers::End { pod, with_job }) => (pod, with_job),
    };
    if with_job {
        let patch = json!({ "spec": { "backoffLimit": 0 } });
        match context.applier.merge::<Job>(&run.key, &patch).await {
            Ok(_) | Err(ApplyError::Gone(_)) => {}
            Err(error) => return retry(&error),
        }
    }
    let patch = json!({ "spec": { "activeDeadlineSeconds": 1 } });
    match context.applier.merge::<Pod>(pod, &patch).await {
        Ok(_) | Err(ApplyError::Gone(_)) => Outcome::default(),
        Err(error) => retry(&error),
    }
}

fn retry(error: &ApplyError) -> Outcome {
    match error {
        ApplyError::NotLeader => Outcome::default(),
        _ => Outcome::retry(),
    }
}

/// Deletes the finished pods of Jobs whose result is recorded, as far as they may not stay: they hold the claim that they
/// name. `claim_deleting`: somebody waits for it.
pub async fn release_pods(
    context: &Context,
    ended: &[Ended],
    claim_deleting: bool,
    now: Timestamp,
) -> Outcome {
    let pods = &context.world.pods;
    let kept = finished::kept(ended, claim_deleting, now);
    let mut outcome = Outcome::default();
    for run in ended {
        let over = pods.group(&Key::new("", &run.job_uid)).into_iter();
        let over: Vec<_> = over
            .filter(|(_, pod)| !pod.is_active() && !pod.meta.deleting)
            .collect();
        match kept {
            Some((uid, until)) if uid == run.job_uid => {
                outcome.next = (!over.is_empty()).then_some(until);
                continue;
            }
            _ => {}
        }
        for (at, pod) in over {
            match context.applier.delete::<Pod>(&at, pod.uid()).await {
                Ok(()) => drop(pods.remove(&at, Some(pod.uid()))),
                Err(ApplyError::NotLeader) => return Outcome::default(),
                Err(_) => outcome.failed = true,
            }
        }
    }
    outcome
}

/// A resource is being deleted: owner references take care of what was made. The original operator's finalizer is taken
/// off; nothing of ours needs one, but an object that has it would never go.
pub async fn release<K: Object>(context: &Context, key: &Key, object: &K, finalizer: &str) -> Outcome {
    let finalizers = object.finalizers();
    if !finalizers.iter().any(|f| f == finalizer) {
        return Outcome::default();
    }
    let rest: Vec<&String> = finalizers.iter().filter(|f| *f != finalizer).collect();
    let patch = json!({ "metadata": { "finalizers": rest, "resourceVersion": object.resource_version() } });
    match context.applier.merge::<K>(key, &patch).await {
        Ok(_) | Err(ApplyError::Gone(_)) => Outcome::default(),
        Err(_) => Outcome::retry(),
    }
}

/// A view of what was written.
#[must_use]
pub fn view(meta: &ObjectMeta) -> Arc<MetaView> {
    Arc::new(MetaView { meta: Meta::of(meta) })
}

fn key<T: Object>(object: &T) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}
