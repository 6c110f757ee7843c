//! Regular checks of a repository's integrity: their CronJob, their results, and the damage that they find. Pure.

mod build;
mod owner;
mod results;

use std::sync::Arc;

use crds::conditions::{self, Conditions, reasons, types};
use crds::integrity::IntegrityCheckStatus;
use crds::{ResticRepository, ResticRepositoryStatus, names};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;

use super::validate::Check;
use super::{Observed, Planning, RepositoryController};
use crate::exchange::{CommandedRun, Operation, Progress};
use crate::kind::{self, Applied, Input, Refused, Removal, Run, Settled};
use crate::pod;
use crate::runs::progress::{self as reports, Running};
use crate::world::{CronJobView, Key, World};

pub use owner::{CHECK, CheckOwner};

/// Objects for the checks of a repository.
#[derive(Default)]
pub(super) struct Tended {
    pub cron_job: Option<(CronJob, Option<i64>)>,
    pub removals: Vec<Removal>,
    pub runs: Vec<Run>,
}

/// Takes results into the status, once each.
pub(super) fn take_results(observed: &Observed, status: &mut ResticRepositoryStatus, now: Timestamp) {
    results::record(status, &operations(observed), now);
}

/// Shows in the conditions what is under way and what is damaged. `wanted`: there will be more checks.
pub(super) fn show(
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
    wanted: bool,
    status: &mut ResticRepositoryStatus,
) {
    if !wanted && status.integrity_check.is_none() {
        return;
    }
    let (generation, now) = (input.generation(), input.now.wall);
    let running = operations(observed);
    let jobs = running.iter().filter(|o| o.progress == Progress::Running);
    let works: Vec<Running> = jobs.filter_map(|o| observed.works.get(&o.job).cloned()).collect();
    progress(status, (&running, &works), wanted, generation, now);
    let degraded = conditions::get(&input.status().conditions, types::DEGRADED).cloned();
    results::degrade(status, degraded, generation, now);
}

fn operations(observed: &Observed) -> Vec<&Operation> {
    let all = observed.operations.iter();
    all.filter(|o| o.job_type == CHECK).collect()
}

/// Shows what is known, and plans the objects. `None` for `check`: none is wanted.
pub(super) fn tend(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
    check: Option<&Check>,
    status: &mut ResticRepositoryStatus,
) -> Tended {
    show(input, observed, check.is_some(), status);
    let Some(check) = check else {
        if let Some(known) = &mut status.integrity_check {
            known.next_run = None;
        }
        let at = input.key.sibling(names::check_cron_job(&input.key.name));
        let starts = observed.check_cron_job.as_ref().filter(|c| !c.suspend);
        return Tended {
            removals: starts.map(|_| Removal::Schedule(at)).into_iter().collect(),
            ..Tended::default()
        };
    };
    // Its lease is for a restic id, which is known once the repository has been opened.
    let Some(settings) = pod::job_settings(None)
        .ok()
        .filter(|_| status.repository_id.is_some())
    else {
        return Tended::default();
    };
    let known = status.integrity_check.as_ref();
    let recorded = known.and_then(|known| known.cron_job_ref.as_ref()?.generation);
    let (cluster, image) = (&planning.cluster, &planning.image);
    let cron_job = build::cron_job(input.key, cluster, input.resource, &settings, check, image);
    Tended {
        cron_job: Some((cron_job, recorded)),
        runs: observed
            .commands
            .iter()
            .filter(|command| command.behalf.is_none())
            .map(|command| commanded(input.key, command))
            .collect(),
        ..Tended::default()
    }
}

/// A check that a command of the hub asks for.
fn commanded(key: &Key, command: &CommandedRun) -> Run {
    Run {
        name: names::command_job(&names::check_cron_job(&key.name), &command.id),
        command: Some(command.clone()),
        ..Run::default()
    }
}

/// Condition Progressing, and the Jobs that are under way.
fn progress(
    status: &mut ResticRepositoryStatus,
    (operations, works): (&[&Operation], &[Running]),
    wanted: bool,
    generation: Option<i64>,
    now: Timestamp,
) {
    let active = operations.iter().filter(|o| o.progress != Progress::Ended);
    let active: Vec<String> = active.map(|o| o.job.name.to_string()).collect();
    let running = operations.iter().find(|o| o.progress == Progress::Running);
    let waiting = operations.iter().find_map(|o| match &o.progress {
        Progress::Waiting { reason, message } => Some((*reason, message.as_str())),
        _ => None,
    });
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    match (running, waiting) {
        (Some(running), _) => {
            let text = format!("a check is running: {}", running.job.name);
            conditions.set(types::PROGRESSING, true, reasons::CHECK_RUNNING, text);
        }
        (None, Some((reason, text))) => {
            conditions.set(types::PROGRESSING, false, reason, text);
        }
        (None, None) if wanted => {
            conditions.set(types::PROGRESSING, false, reasons::IDLE, "no check is under way");
        }
        (None, None) => {
            conditions.remove(types::PROGRESSING);
        }
    }
    let known = status.integrity_check.get_or_insert_default();
    known.active = active;
    known.progress = reports::shown(works, known.progress.as_ref());
}

/// What follows from the CronJob.
pub(super) fn conclude(
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
    check: &Check,
    applied: &Applied,
    settled: &mut Settled<RepositoryController>,
) {
    let now = input.now.wall;
    let known = settled.status.integrity_check.get_or_insert_default();
    if let Some(reference) = kind::reference(applied) {
        known.cron_job_ref = Some(reference);
    }
    let observed = observed.check_cron_job.as_deref();
    known.next_run = kind::next_start(&check.schedule, false, applied, observed, now);
    let turn = kind::turn_after(known.next_run.as_ref());
    settled.next = settled.next.into_iter().chain(turn).min();
}

/// The CronJob was refused. The repository is used all the same.
pub(super) fn refused(
    input: &Input<'_, RepositoryController>,
    settled: &mut Settled<RepositoryController>,
    refused: &Refused,
) {
    Conditions::at(&mut settled.status.conditions, input.generation(), input.now.wall).set(
        types::PROGRESSING,
        false,
        reasons::CRON_JOB_FAILED,
        format!("no check starts: {refused}"),
    );
}

/// The CronJob of a repository's checks, unless it is another's.
pub(super) fn cron_job(world: &World, key: &Key, uid: &str) -> Option<Arc<CronJobView>> {
    let found = world
        .cron_jobs
        .get(&key.sibling(names::check_cron_job(&key.name)));
    found.filter(|cron_job| cron_job.meta.owner.as_deref() == Some(uid))
}

/// What is known of a repository's checks.
fn known(repository: &ResticRepository) -> IntegrityCheckStatus {
    let status = repository.status.as_ref();
    status.and_then(|s| s.integrity_check.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
