//! Writes single objects. What the API server answers goes into the cache at once: the next turn does not wait for a watch.

use std::sync::Arc;

use crds::names;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde_json::json;
use tracing::info;

use super::{Cause, Contest, Credentials, Earlier, Opening, Refused, Run};
use crate::apply::{self, ApplyError, Object};
use crate::context::Context;
use crate::credentials;
use crate::exchange::CommandedRun;
use crate::pod::{self, stale};
use crate::queue::{Queue, Turn};
use crate::world::{ClaimView, CronJobView, JobView, Key, Meta, MetaView, Store};

/// Applies an object of which the cache has the metadata, if it was made from another manifest.
pub(super) async fn apply_marked<T>(
    context: &Context,
    store: &Store<MetaView>,
    wanted: &T,
) -> Result<(), Refused>
where
    T: Object + k8s_openapi::Resource,
{
    let at = key_of(wanted);
    if stale(store.get(&at).as_ref().map(|v| &v.meta), wanted.meta()) {
        let written = context.applier.apply(wanted).await;
        let written = written.map_err(|error| Refused::write::<T>(&*at.name, error))?;
        store.put(at, view(written.meta()));
    }
    Ok(())
}

/// Writes the copy of a repository's credentials, if the one that is there was made from others.
pub(super) async fn apply_credentials(
    context: &Context,
    consumer: &Key,
    wanted: Credentials,
) -> Result<(), Refused> {
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let refused = |error| Refused::write::<Secret>(name.clone(), error);
    let projection = credentials::projection(context, consumer, &wanted.at, &wanted.repository, &name).await;
    let Some(projection) = projection.map_err(refused)? else {
        return Ok(());
    };
    let secret = pod::credentials(wanted.metadata, projection);
    let written = context.applier.apply(&secret).await.map_err(refused)?;
    context.world.secrets.put(key_of(&secret), view(written.meta()));
    Ok(())
}

/// Applies a CronJob, if it was made from another manifest or changed by somebody else. `recorded` is its generation after
/// the last write.
pub(super) async fn apply_cron_job(
    context: &Context,
    wanted: &CronJob,
    recorded: Option<i64>,
    contest: &mut Contest,
) -> Result<(Key, Arc<CronJobView>), Refused> {
    let (cron_jobs, at) = (&context.world.cron_jobs, key_of(wanted));
    let refused = |error| Refused::write::<CronJob>(&*at.name, error);
    let mut found = None;
    if let Some(present) = cron_jobs.get(&at) {
        if !present.is_as_written(recorded) {
            found = context.applier.get::<CronJob>(&at).await.map_err(refused)?;
        } else if !stale(Some(&present.meta), &wanted.metadata) {
            return Ok((at, present));
        }
    }
    // Of what is taken over, not of the cache: another may have its name by now.
    let owner = Meta::of(&wanted.metadata).owner;
    let found = found.filter(|found| Meta::of(&found.metadata).is_for(owner.as_deref()));
    if let Some(by) = found.as_ref().and_then(apply::other_writer)
        && !contest.puts_right(context.clock.since_boot())
    {
        return Err(contested(&at, by));
    }
    let written = match found {
        Some(found) => context.applier.take_over(wanted, &found).await,
        None => context.applier.apply(wanted).await,
    };
    let view = Arc::new(CronJobView::of(&written.map_err(refused)?));
    cron_jobs.put(at.clone(), view.clone());
    Ok((at, view))
}

/// Suspends a CronJob, unless it is another resource's than the one with uid `owner`. Its mark is removed too, so that the
/// next apply makes it right again.
pub(super) async fn suspend(
    context: &Context,
    at: &Key,
    owner: &str,
    contest: &mut Contest,
) -> Result<(), Refused> {
    let cron_jobs = &context.world.cron_jobs;
    let refused = |error| Refused::write::<CronJob>(&*at.name, error);
    let present = cron_jobs.get(at);
    let Some(present) = present.filter(|present| !present.suspend && present.meta.is_for(Some(owner))) else {
        return Ok(());
    };
    // Who resumes it is asked only when it was suspended several times: a plan may suspend it again itself.
    if !contest.puts_right(context.clock.since_boot()) {
        let found = context.applier.get::<CronJob>(at).await.map_err(refused)?;
        if let Some(by) = found.as_ref().and_then(apply::other_writer) {
            return Err(contested(at, by));
        }
    }
    let patch = json!({ "metadata": { "uid": present.meta.uid, "annotations": { names::ANNOTATION_APPLIED: null } },
                        "spec": { "suspend": true } });
    let written = context.applier.merge::<CronJob>(at, &patch).await;
    let view = CronJobView::of(&written.map_err(refused)?);
    cron_jobs.put(at.clone(), Arc::new(view));
    Ok(())
}

fn contested(at: &Key, by: &str) -> Refused {
    Refused {
        kind: "CronJob",
        name: at.name.to_string(),
        cause: Cause::Contested { by: by.to_owned() },
    }
}

/// Makes a Job from the CronJob's template.
pub(super) async fn start(
    context: &Context,
    of: &CronJob,
    view: &CronJobView,
    run: Run,
) -> Result<Option<Key>, Refused> {
    let mut job = pod::manual_job(of, &view.meta.uid, run.name);
    let claim = match &run.command {
        Some(command) => {
            mark(&mut job, command);
            let Some(claim) = context.commands.claim(command, context.clock.since_boot()) else {
                return Ok(None);
            };
            Some(claim)
        }
        None => None,
    };
    if let Some(hash) = run.approves {
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_APPROVE.to_owned(), hash);
    }
    if let Some(earlier) = run.instead_of {
        takes_the_place_of(&mut job, earlier);
    }
    let at = key_of(&job);
    let created = context.applier.create(&job).await;
    drop(claim);
    match created {
        Ok(_) => info!(job = %at, "a run was asked for"),
        // Made before; nobody recorded it.
        Err(ApplyError::Conflict(_)) => {}
        Err(error) => return Err(Refused::write::<Job>(&*at.name, error)),
    }
    Ok(Some(at))
}

/// A Job that a command of the hub has asked for.
fn mark(job: &mut Job, command: &CommandedRun) {
    let annotations = job.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_COMMAND.to_owned(), command.id.clone());
    if command.preview {
        annotations.insert(names::ANNOTATION_PREVIEW.to_owned(), "true".to_owned());
    }
}

/// It is the same run to schedule and queue.
fn takes_the_place_of(job: &mut Job, earlier: Earlier) {
    let annotations = job.metadata.annotations.get_or_insert_default();
    if let Some(command) = earlier.command {
        annotations.insert(names::ANNOTATION_COMMAND.to_owned(), command);
    }
    if !earlier.by_request {
        annotations.remove(names::ANNOTATION_INSTANTIATE);
    }
    if let (Some(parked), Some(since)) = (annotations.get_mut(names::ANNOTATION_PARKED), earlier.since) {
        *parked = since.to_string();
    }
}

/// Opens a parked run, one after the other in this cluster: between the look at the places and the write no other run takes
/// one. A run that lost its place is woken when the next one is free.
pub(super) async fn open(context: &Context, opening: &Opening) -> Result<(), Refused> {
    let _alone = context.places.opening.lock().await;
    let turns = Queue::of(&context.world, &context.places, context.site.limits).turns();
    if turns.get(&opening.uid) != Some(&Turn::Begins) {
        return Ok(());
    }
    let patch = json!({
        "metadata": { "uid": opening.uid, "annotations": { names::ANNOTATION_PARKED: null } },
        "spec": { "suspend": false },
    });
    match context.applier.merge::<Job>(&opening.at, &patch).await {
        Ok(written) => {
            info!(job = %opening.at, "a run begins that was parked");
            let view = Arc::new(JobView::of(&written));
            context.world.jobs.put(opening.at.clone(), view);
            // The watch delivers this state as one that is known.
            context.places.moved();
            Ok(())
        }
        // Its end is on its way through the watch; a conflict means another Job under the name.
        Err(ApplyError::Gone(_) | ApplyError::Conflict(_)) => Ok(()),
        Err(error) => Err(Refused::write::<Job>(&*opening.at.name, error)),
    }
}

/// Creates a Job that a resource controls. One that was made in an earlier turn, whose end nobody recorded, counts.
pub(super) async fn create_job(context: &Context, wanted: &Job) -> Result<(Key, Arc<JobView>), Refused> {
    let at = key_of(wanted);
    let refused = |error| Refused::write::<Job>(&*at.name, error);
    let written = match context.applier.create(wanted).await {
        Ok(written) => written,
        Err(ApplyError::Conflict(text)) => {
            let present: Option<Job> = context.applier.get(&at).await.map_err(refused)?;
            let owner = Meta::of(&wanted.metadata).owner;
            let meta = present.as_ref().map(|job| Meta::of(&job.metadata));
            match (present, meta) {
                (Some(job), Some(meta)) if meta.owner == owner && !meta.deleting => job,
                (_, Some(meta)) => {
                    return Err(Refused {
                        kind: "Job",
                        name: at.name.to_string(),
                        cause: Cause::Occupied {
                            meta: Box::new(meta),
                            text: format!("conflict: {text}"),
                        },
                    });
                }
                _ => return Err(refused(ApplyError::Unavailable(text))),
            }
        }
        Err(error) => return Err(refused(error)),
    };
    info!(job = %at, "a Job was created");
    let view = Arc::new(JobView::of(&written));
    context.world.jobs.put(at.clone(), view.clone());
    Ok((at.clone(), view))
}

/// Creates the Job of a command. Its name has the command's id, so that asking twice makes one.
pub(super) async fn create_commanded(
    context: &Context,
    job: &Job,
    command: &CommandedRun,
) -> Result<(), Refused> {
    let Some(claim) = context.commands.claim(command, context.clock.since_boot()) else {
        return Ok(());
    };
    let at = key_of(job);
    let created = context.applier.create(job).await;
    drop(claim);
    match created {
        Ok(_) => info!(job = %at, "a run was asked for"),
        // Made before.
        Err(ApplyError::Conflict(_)) => {}
        Err(error) => return Err(Refused::write::<Job>(&*at.name, error)),
    }
    Ok(())
}

/// Creates a claim unless the one of this name has the same mark. Asks the API server: a cache may be a moment behind, and
/// nothing may be written to a claim of somebody else.
pub(super) async fn create_claim(context: &Context, wanted: &PersistentVolumeClaim) -> Result<(), Refused> {
    let (applier, at) = (&context.applier, key_of(wanted));
    let refused = |error| Refused::write::<PersistentVolumeClaim>(&*at.name, error);
    let mut present: Option<PersistentVolumeClaim> = applier.get(&at).await.map_err(refused)?;
    if present.is_none() {
        present = match applier.create(wanted).await {
            Ok(written) => Some(written),
            Err(ApplyError::Conflict(_)) => applier.get(&at).await.map_err(refused)?,
            Err(error) => return Err(refused(error)),
        };
    }
    let Some(present) = present else {
        let text = format!("PersistentVolumeClaim {at} comes and goes");
        return Err(refused(ApplyError::Unavailable(text)));
    };
    let meta = Meta::of(&present.metadata);
    if meta.deleting || meta.restore != Meta::of(&wanted.metadata).restore {
        return Err(Refused {
            kind: "PersistentVolumeClaim",
            name: at.name.to_string(),
            cause: Cause::Occupied {
                meta: Box::new(meta),
                text: "it exists already".to_owned(),
            },
        });
    }
    context
        .world
        .claims
        .put(at.clone(), Arc::new(ClaimView::of(&present)));
    Ok(())
}

/// Creates a claim that belongs to a resource, unless the cache has it. One of somebody else is never used.
pub(super) async fn create_owned_claim(
    context: &Context,
    wanted: &PersistentVolumeClaim,
) -> Result<(), Refused> {
    let (applier, at) = (&context.applier, key_of(wanted));
    let refused = |error| Refused::write::<PersistentVolumeClaim>(&*at.name, error);
    let owner = Meta::of(&wanted.metadata).owner;
    let present = match context.world.claims.get(&at) {
        Some(present) => present.meta.clone(),
        None => {
            let written: PersistentVolumeClaim = match applier.create(wanted).await {
                Ok(written) => written,
                Err(ApplyError::Conflict(text)) => {
                    let present = applier.get(&at).await.map_err(refused)?;
                    present.ok_or_else(|| refused(ApplyError::Unavailable(text)))?
                }
                Err(error) => return Err(refused(error)),
            };
            info!(claim = %at, "a claim for a cache was created");
            let meta = Meta::of(&written.metadata);
            let view = Arc::new(ClaimView::of(&written));
            context.world.claims.put(at.clone(), view);
            meta
        }
    };
    if present.owner == owner && !present.deleting {
        return Ok(());
    }
    Err(Refused {
        kind: "PersistentVolumeClaim",
        name: at.name.to_string(),
        cause: Cause::Occupied {
            meta: Box::new(present),
            text: "it exists already, and is not this backup's, or is being deleted: delete it, or name it as spec.jobConfig.cache.claimName".to_owned(),
        },
    })
}

fn view(meta: &ObjectMeta) -> Arc<MetaView> {
    Arc::new(MetaView { meta: Meta::of(meta) })
}

pub(in crate::kind) fn key_of<T: Resource>(object: &T) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "open_tests.rs"]
mod open_tests;
