//! Changes of a repository's password that a person asks for: the key of the new one is added, the person switches the
//! Secret of each cluster, and the old key is removed when nobody needs it. Pure.

mod build;
mod owner;
mod step;

use std::sync::Arc;

use crds::conditions::{Conditions, types};
use crds::{ResticRepositoryStatus, names};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt as _;

use super::{Observed, Planning, RepositoryController};
use crate::exchange::{Operation, Progress};
use crate::kind::{Input, Removal};
use crate::pod;
use crate::secrets::password_key;
use crate::world::{Index, JobView, Key, World};
use step::Facts;

pub use owner::KeyOwner;

/// Type of the Jobs.
pub const KEY: &str = "key";
/// While something is waited for that wakes nobody.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// What a change of the password depends on beside the resource.
#[derive(Default)]
pub struct Seen {
    /// The Job of a step.
    pub job: Option<(Key, Arc<JobView>)>,
    /// Other resources of this cluster for the same repository, with the key that each opens it with.
    pub others: Vec<(String, Option<String>)>,
    /// Runs on the repository that began before this cluster's Secret was switched.
    pub early_runs: Vec<String>,
    /// Keys of the Secret are not in the cache; the name in the spec is the best that is known.
    pub password_key: String,
}

/// What a repository's plan does about its keys.
#[derive(Default)]
pub(super) struct Tended {
    pub job: Option<Job>,
    pub removals: Vec<Removal>,
    pub next: Option<Timestamp>,
}

/// What the cluster shows.
pub(super) fn see(world: &World, input: &Input<'_, RepositoryController>) -> Seen {
    let key = input.key;
    let status = input.status();
    let at = key.sibling(names::key_job(&key.name));
    let job = world.jobs.get(&at);
    let job = job.filter(|job| job.meta.owner.as_deref() == Some(input.uid()));
    let id = status.repository_id.as_ref().map(|id| Key::new("", id));
    let same = id.map(|id| world.repositories.by(Index::ResticId, &id));
    let others = same.into_iter().flatten().filter(|(at, _)| at != key);
    let others = others.map(|(at, repository)| {
        let status = repository.status.as_ref();
        let secret = world
            .secrets
            .get(&at.sibling(&repository.spec.credentials_secret_ref.name));
        let version = secret.map(|s| s.meta.version.to_string());
        (
            at.to_string(),
            status
                .and_then(|s| key_in_use(s, version.as_deref()))
                .map(str::to_owned),
        )
    });
    let switched = status
        .password_rotation
        .as_ref()
        .and_then(|r| r.switched.as_ref());
    let early_runs = switched.map(|switched| early_runs(world, key, switched.0));
    Seen {
        job: job.map(|job| (at, job)),
        others: others.collect(),
        early_runs: early_runs.unwrap_or_default(),
        password_key: password_key(input.resource, |_| true),
    }
}

/// The key that the Secret's password opens. What was found with an earlier version of the Secret does not count.
fn key_in_use<'a>(status: &'a ResticRepositoryStatus, version: Option<&str>) -> Option<&'a str> {
    let is_new = status.credentials_version.as_deref() == version;
    status.key_id.as_deref().filter(|_| is_new && status.is_open())
}

/// Jobs on a repository that are not over and began before a time: their pods have the password of then.
fn early_runs(world: &World, repository: &Key, before: Timestamp) -> Vec<String> {
    let backups = world.backups.group(repository).into_iter().map(|(key, _)| key);
    let backups: Vec<Key> = backups.collect();
    let of_backups = backups
        .iter()
        .flat_map(|backup| world.restores.by(Index::Backup, backup));
    let restores = world.restores.by(Index::Repository, repository);
    let restores = restores.into_iter().chain(of_backups).map(|(key, _)| key);
    let owners = backups.iter().cloned().chain(restores);
    let jobs = owners.flat_map(|owner| world.jobs.group(&owner));
    let early = jobs.filter(|(_, job)| {
        let began = job.start.or(job.created);
        job.end.is_none() && !job.suspended && began.is_some_and(|began| began <= before)
    });
    let mut names: Vec<String> = early.map(|(key, _)| format!("Job {key}")).collect();
    names.sort();
    names.dedup();
    names
}

fn operations(observed: &Observed) -> impl Iterator<Item = &Operation> {
    observed.operations.iter().filter(|o| o.job_type == KEY)
}

/// Takes results into the status, once each.
pub(super) fn take_results(observed: &Observed, status: &mut ResticRepositoryStatus) {
    let Some(rotation) = &mut status.password_rotation else {
        return;
    };
    for finished in operations(observed).filter_map(|o| o.finished.as_ref()) {
        step::record(rotation, &finished.operation, &finished.outcome);
    }
}

/// Shows where a change of the password stands, and plans its Job.
pub(super) fn tend(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
    status: &mut ResticRepositoryStatus,
) -> Tended {
    let annotations = input.resource.annotations();
    let seen = &observed.rotation;
    let recorded = status
        .password_rotation
        .as_ref()
        .and_then(|r| r.job_uid.as_deref());
    let job = seen.job.as_ref();
    let under_way = job.is_some_and(|(_, job)| recorded != Some(&*job.meta.uid));
    let key = key_in_use(status, observed.secret.as_deref()).map(str::to_owned);
    let waits = operations(observed).find_map(|o| match &o.progress {
        Progress::Waiting { message, .. } => Some(message.as_str()),
        Progress::Running | Progress::Ended => None,
    });
    let facts = Facts {
        request: annotations.get(names::ANNOTATION_ROTATE).map(String::as_str),
        removal: annotations.get(names::ANNOTATION_REMOVE_KEY).map(String::as_str),
        key: key.as_deref(),
        secret: &input.resource.spec.credentials_secret_ref.name,
        password_key: &seen.password_key,
        shared: observed.shared,
        under_way,
        others: seen.others.clone(),
        early_runs: seen.early_runs.clone(),
        waits,
    };
    let next = step::next(status.password_rotation.as_ref(), &facts, input.now.wall);
    let mut conditions = Conditions::at(&mut status.conditions, input.generation(), input.now.wall);
    match next.shown {
        Some((is, reason, text)) => {
            conditions.set(types::PASSWORD_ROTATION, is, reason, text);
        }
        None => {
            conditions.remove(types::PASSWORD_ROTATION);
        }
    }
    status.password_rotation = next.rotation;
    let wanted = next.job && status.is_open();
    let mut tended = Tended::default();
    if next.look_again {
        tended.next = input.now.wall.checked_add(LOOK_AGAIN).ok();
    }
    match job {
        Some((at, job)) if is_unneeded(job, wanted, under_way) => tended.removals.push(Removal::Job {
            at: at.clone(),
            uid: job.meta.uid.to_string(),
        }),
        None if wanted => tended.job = key_job(planning, input, status),
        Some(_) | None => {}
    }
    tended
}

/// The Job of the step that the change has come to.
fn key_job(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    status: &ResticRepositoryStatus,
) -> Option<Job> {
    let (cluster, image) = (&planning.cluster, &planning.image);
    let settings = pod::job_settings(None).ok()?;
    let removes = status.password_rotation.as_ref().and_then(step::removes);
    Some(build::key_job(
        input.key,
        cluster,
        input.resource,
        &settings,
        image,
        removes,
    ))
}

/// A Job that waits although no step needs one, or one whose result is recorded while another is needed.
fn is_unneeded(job: &JobView, wanted: bool, under_way: bool) -> bool {
    let waits = job.suspended && !job.is_spent() && job.start.is_none();
    let over = job.released.is_some() && !under_way;
    (waits && !wanted) || (over && wanted)
}

#[cfg(test)]
mod tests;
