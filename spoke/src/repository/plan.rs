//! What a turn of a repository does. Pure.

use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{self, Conditions, reasons, types};
use crds::repository::Initialize;
use crds::{ResticRepository, ResticRepositoryStatus, names};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;

use super::answer::{self, Answer, Attempts, Inputs, Step};
use super::collect::{self, Collect};
use super::{
    Expected, Found, Observed, Planning, Reply, RepositoryController, State, Work, behalf, changed, check,
    copied, read_only, rotation, status, unlock,
};
use crate::exchange::{Collection, mark_waiting};
use crate::kind::{Children, Credentials, Input, Plan, Refused, RefusedBecause, Settled, Task, failed_as};
use crate::world::Key;

/// Plans.
pub(super) fn plan(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
) -> Plan<RepositoryController> {
    let generation = input.generation().unwrap_or_default();
    let mut state = input.state.clone();
    let recorded = results(planning, input, observed, &mut state);
    let valid = match input.valid {
        Ok(valid) => valid,
        Err(invalid) => {
            let mut status = status::invalid(&recorded, &invalid.to_string(), generation, input.now.wall);
            check::show(input, observed, false, &mut status);
            return Plan::status(status, state);
        }
    };
    let secret = observed.secret.clone();
    let inputs = Inputs { generation, secret };
    let mut status = take(planning, input, &inputs, recorded, &mut state);
    changed::accept(input.resource, &mut status, &mut state, input.now.wall);
    collect::show(&observed.collection, &mut status);
    let copies = observed.copies.as_ref();
    copied::show(copies, &mut status, Some(generation), input.now.wall);
    let reads = (valid.interval, &observed.collection);
    let (mut work, mut next) = ask(input, inputs, &mut status, &state, reads);
    let tended = unlock::tend(planning, input, observed, &mut state.locks, &mut status);
    // A look reads the locks too.
    if work.is_none() && input.running.is_empty() {
        let due = unlock::look_due(planning, observed, &status, &state.locks, input.now);
        let is_due = due.is_some_and(|due| due <= input.now.wall);
        work = is_due.then(|| state.locks.look(input.now));
        next = next.into_iter().chain(due.filter(|_| !is_due)).min();
    }
    let keys = rotation::tend(planning, input, observed, &mut status);
    next = next.into_iter().chain(keys.next).min();
    let checks = check::tend(planning, input, observed, valid.check.as_ref(), &mut status);
    read_only::show(input.resource, &mut status, Some(generation), input.now.wall);
    let waits = observed.waits.as_ref();
    mark_waiting(&mut status.conditions, waits, Some(generation), input.now.wall);
    let repository = Arc::new(input.resource.clone());
    let location = location(input.key, &repository);
    let removals = tended.removals.into_iter().chain(keys.removals);
    Plan {
        status,
        children: Children {
            location: Some(location),
            removals: removals.chain(checks.removals).collect(),
            cron_job: checks.cron_job,
            runs: checks.runs,
            commanded: behalf::jobs(planning, input.key, input.resource, observed),
            // One at a time: the turn after the Job was made plans the other one.
            job: tended.job.or(keys.job).filter(|_| !input.resource.spec.read_only),
            ..Children::default()
        },
        removable: Some(tended.removable),
        work: work.map(|work| Task { repository, work }).into_iter().collect(),
        state,
        next,
    }
}

/// The status with what operations have found. It counts whatever the spec is now: they are forgotten once they are deleted.
fn results(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
    state: &mut State,
) -> ResticRepositoryStatus {
    let mut recorded = input.status();
    unlock::take_results(planning, input, observed, &mut state.locks, &mut recorded);
    check::take_results(observed, &mut recorded, input.now.wall);
    behalf::take_results(observed, &mut recorded, input.now.wall);
    rotation::take_results(observed, &mut recorded);
    recorded
}

/// The look that is due now, or when the next one is. Shows in the status that it is under way.
fn ask(
    input: &Input<'_, RepositoryController>,
    inputs: Inputs,
    status: &mut ResticRepositoryStatus,
    state: &State,
    (interval, collection): (Duration, &Collection),
) -> (Option<Work>, Option<Timestamp>) {
    // The cheap look after a run that failed has failed too.
    let doubtful = input
        .found
        .iter()
        .any(|found| matches!(found, Found::Locks(None)))
        && conditions::is_true(&status.conditions, types::READY);
    match answer::step(
        status,
        &inputs,
        &state.attempts,
        (interval, collection.is_here()),
        input.now.wall,
    ) {
        Step::Wait(until) if !doubtful => (None, until),
        Step::Ask | Step::Wait(_) => {
            let generation = inputs.generation;
            let inputs_secret = inputs.secret.clone();
            let asked = Some(inputs).filter(|inputs| !is_asked(input, inputs));
            let collect = collection.is_here().then(|| Collect {
                interval: super::millis(interval),
                epoch: collection.epoch(),
            });
            let other = status.credentials_version != inputs_secret;
            let work = asked.map(|inputs| look(inputs, collect, input.resource, status, state));
            if other {
                // Which key the new password belongs to is known when it has opened the repository.
                status.key_id = None;
            }
            *status = status::checking(status, generation, input.now.wall);
            (work, None)
        }
    }
}

fn look(
    inputs: Inputs,
    collect: Option<Collect>,
    repository: &ResticRepository,
    status: &ResticRepositoryStatus,
    state: &State,
) -> Work {
    let expected = match (
        &status.repository_id,
        repository.spec.initialize.unwrap_or_default(),
    ) {
        (Some(id), _) => Expected::Known(id.clone()),
        (None, Initialize::IfMissing) if !repository.spec.read_only => Expected::AnyOrNew,
        (None, _) => Expected::Any,
    };
    Work::Look {
        key_known: status.key_id.is_some() && is_known(status, &inputs),
        inputs,
        expected,
        known_locks: state.locks.known(),
        collect,
    }
}

/// The last look had these inputs.
fn is_known(status: &ResticRepositoryStatus, inputs: &Inputs) -> bool {
    status.credentials_version == inputs.secret && status.observed_generation == Some(inputs.generation)
}

/// A look with these inputs is under way.
fn is_asked(input: &Input<'_, RepositoryController>, inputs: &Inputs) -> bool {
    let mut running = input.running.iter();
    running.any(|work| matches!(work, Work::Look { inputs: asked, .. } if asked == inputs))
}

/// Takes in what was found. An answer to other inputs is out of date.
fn take(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    inputs: &Inputs,
    mut status: ResticRepositoryStatus,
    state: &mut State,
) -> ResticRepositoryStatus {
    for found in input.found {
        let (looked, reply) = match found {
            Found::Locks(looked) => (looked, None),
            Found::Answer(reply) => (&reply.locks, Some(reply)),
        };
        if let Some(looked) = looked {
            state.locks.take(looked.clone());
        }
        let Some(reply) = reply.filter(|reply| reply.inputs == *inputs) else {
            continue;
        };
        if !changed::is_present(&reply.answer, &status) {
            continue;
        }
        let same = is_known(&status, inputs);
        status = status::after(&status, &reply.answer, inputs, input.now.wall);
        // Another Secret may have another password.
        status.key_id = reply.key.clone().or(status.key_id.filter(|_| same));
        state.attempts = attempts_after(planning, &input.state.attempts, reply, input.now.wall);
    }
    status
}

/// How the next attempt is to be timed.
fn attempts_after(planning: &Planning, before: &Attempts, reply: &Reply, now: Timestamp) -> Attempts {
    let good = matches!(
        &reply.answer,
        Answer::Open {
            statistics: None | Some(Ok(_)),
            ..
        }
    );
    let inputs = Some(reply.inputs.clone());
    let opened = matches!(reply.answer, Answer::Open { .. }).then_some(now);
    if good {
        return Attempts {
            inputs,
            failures: 0,
            next: None,
            opened,
        };
    }
    let failures = if before.inputs == inputs {
        before.failures.saturating_add(1)
    } else {
        1
    };
    let delay = reply.answer.retry_after(failures, planning.retry);
    let next = delay.and_then(|d| now.checked_add(SignedDuration::try_from(d).ok()?).ok());
    Attempts {
        inputs,
        failures,
        next,
        opened,
    }
}

/// Secret with location and credentials for the pods, as the manager itself uses them. Not the repository's own Secret:
/// that may hold line breaks, and keys which no pod is to see. A URL may hold a password, so it never stands in a pod's spec.
fn location(key: &Key, repository: &Arc<ResticRepository>) -> Credentials {
    let labels = [
        (names::LABEL_APP, names::APP.to_owned()),
        (names::LABEL_MANAGED_BY, names::APP.to_owned()),
        (names::LABEL_REPOSITORY, names::label_value(&key.name)),
    ];
    let metadata = ObjectMeta {
        name: Some(names::repository_location(&key.name)),
        namespace: Some(key.namespace.to_string()),
        labels: Some(labels.map(|(k, v)| (k.to_owned(), v)).into()),
        owner_references: repository.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    Credentials {
        metadata,
        at: key.clone(),
        repository: repository.clone(),
    }
}

/// An object was refused.
pub(super) fn conclude(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    settled: &mut Settled<RepositoryController>,
    refused: &Refused,
) {
    match (refused.kind, &refused.cause) {
        // The Job before is being deleted; its end wakes the actor.
        ("Job", RefusedBecause::Occupied { .. }) => settled.failed = false,
        ("CronJob", _) => check::refused(input, settled, refused),
        // The repository is looked at all the same.
        ("Job", _) => {
            settled.failed = false;
            let pause = SignedDuration::try_from(planning.retry).unwrap_or(SignedDuration::from_secs(30));
            let again = input.now.wall.checked_add(pause).ok();
            settled.next = settled.next.into_iter().chain(again).min();
            // The hub is told that the command cannot begin.
            if refused.name.starts_with(&names::behalf_job(&input.key.name)) {
                return;
            }
            let mut conditions =
                Conditions::at(&mut settled.status.conditions, input.generation(), input.now.wall);
            if refused.name == names::key_job(&input.key.name) {
                let text = format!("the next step of the change of the password does not start: {refused}");
                conditions.set(types::PASSWORD_ROTATION, true, reasons::KEY_ADDING, text);
            } else {
                let text = format!("restic's locks that are left over cannot be removed: {refused}");
                conditions.set(types::DEGRADED, true, reasons::UNLOCK_FAILED, text);
            }
        }
        _ => failed_as(
            &mut settled.status.conditions,
            refused,
            input.generation(),
            input.now.wall,
        ),
    }
}
