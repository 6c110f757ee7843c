//! What a turn of a restore does: one step on the way from Pending to an end. Pure.

use crds::conditions::reasons;
use crds::restore::RestorePhase;
use crds::{ResticRestoreStatus, names};
use jiff::{SignedDuration, Timestamp};

use super::outcome::{self, Progress};
use super::select::{Chosen, NotChosen};
use super::status::{fail, over, running, started, starting, waiting};
use super::surroundings::{self, Ready};
use super::target::{self, Claim};
use super::validate::{Target, Valid};
use super::{
    Answer, Observed, Planning, RestoreController, Selection, Wait, Work, build, hooks, size, whole,
};
use crate::kind::{Applied, Children, Credentials, Input, Plan, RefusedBecause, Removal, Settled, Task};
use crate::runs::finished::{self, Ended};
use crate::runs::progress::Running;
use crate::runs::{self, JobWithPods};
use crate::site::Site;
use crate::world::{ClaimView, Key, Meta};

/// Plans.
pub(super) fn plan(
    planning: &Planning,
    input: &Input<'_, RestoreController>,
    observed: &Observed,
) -> Plan<RestoreController> {
    let mut plan = if is_over(&input.status()) {
        Plan::status(input.status(), input.state.clone())
    } else {
        advance(planning, input, observed)
    };
    let at_work = observed
        .job
        .as_ref()
        .is_some_and(|run| run.job.end.is_none() && !run.job.meta.deleting);
    let needed = !is_over(&plan.status) && at_work && !observed.consent_ended;
    if observed.has_copy && !needed && plan.children.job.is_none() {
        let copy = Key::new(&input.key.namespace, names::restore_credentials(&input.key.name));
        plan.children.removals.push(Removal::Credentials(copy));
    }
    release(input, observed, &mut plan);
    if observed.has_hooks(input) {
        hooks::follow(&planning.site, input, observed, &mut plan);
    }
    plan
}

/// When the end is recorded, the pod gives the claim free.
fn release(input: &Input<'_, RestoreController>, observed: &Observed, plan: &mut Plan<RestoreController>) {
    let now = input.now.wall;
    let Some(run) = observed.job.as_ref().filter(|_| is_over(&plan.status)) else {
        return;
    };
    let pods = finished::of(run);
    let (lingering, later) = runs::lingering([run], now);
    if !is_over(&input.status()) {
        let at_once = (!pods.is_empty()).then_some(now);
        plan.next = at_once.into_iter().chain(later).min();
        return;
    }
    plan.children.lingering = lingering;
    let job = &run.job;
    let ended = job.end.as_ref().map(|(at, _)| Ended {
        job_uid: job.meta.uid.to_string(),
        at: at.or(job.created).unwrap_or(now),
        // The files that a preview names are in the log alone.
        well: plan.status.phase == Some(RestorePhase::Completed) && plan.status.preview.is_none(),
    });
    let ended: Vec<Ended> = ended.into_iter().collect();
    let deleting = observed.claim.as_ref().is_some_and(|claim| claim.meta.deleting);
    let (go, next) = finished::released(&ended, &pods, deleting, now);
    plan.children.finished = go;
    let expiry = expiry(input).filter(|_| !job.meta.deleting);
    match expiry {
        Some(at) if at <= now => plan.children.removals.push(Removal::Job {
            at: run.key.clone(),
            uid: job.meta.uid.to_string(),
        }),
        _ => {}
    }
    plan.next = next
        .into_iter()
        .chain(later)
        .chain(expiry.filter(|at| now < *at))
        .min();
}

/// When the Job of a restore that is over goes. The operator deletes it, not the controller of Jobs: that one would not wait
/// for the result to be recorded, nor for hooks that are owed.
fn expiry(input: &Input<'_, RestoreController>) -> Option<Timestamp> {
    let seconds = input.resource.spec.ttl_seconds_after_finished?;
    let status = input.status();
    let ended = status.completion_time.filter(|_| status.open_hooks.is_empty())?;
    ended
        .0
        .checked_add(SignedDuration::from_secs(seconds.into()))
        .ok()
}

pub(super) fn is_over(status: &ResticRestoreStatus) -> bool {
    matches!(status.phase, Some(RestorePhase::Completed | RestorePhase::Failed))
}

/// The status as it is before anything of this turn.
fn begun(input: &Input<'_, RestoreController>) -> ResticRestoreStatus {
    let mut status = input.status();
    status.observed_generation = input.generation();
    status.phase = status.phase.or(Some(RestorePhase::Pending));
    // Shown again while it runs.
    status.progress = None;
    status
}

fn advance(
    planning: &Planning,
    input: &Input<'_, RestoreController>,
    observed: &Observed,
) -> Plan<RestoreController> {
    let (restore, now) = (input.resource, input.now.wall);
    let mut plan = Plan::status(begun(input), input.state.clone());
    // A Job that is there was made in an earlier turn, whatever the status could still show of it, and of a spec that was
    // valid then.
    if let Some(run) = &observed.job {
        follow(input, observed, run, &mut plan);
        return plan;
    }
    // Before the spec is looked at: an invalid one would never let it end.
    if plan.status.phase == Some(RestorePhase::InProgress) {
        let text = "the restore's Job was deleted before it had ended; what it had written is in the target: create the restore anew";
        fail(&mut plan.status, restore, reasons::JOB_NOT_FOUND, text, now);
        return plan;
    }
    let valid = match input.valid {
        Ok(valid) => valid,
        Err(invalid) => {
            let text = invalid.to_string();
            waiting(&mut plan.status, restore, invalid.reason(), &text, now);
            return plan;
        }
    };
    match surroundings::find(&planning.site, input, observed, valid) {
        Ok(ready) => begin(planning, input, valid, &ready, &mut plan),
        Err(Wait { reason, message }) => waiting(&mut plan.status, restore, reason, &message, now),
    }
    plan
}

/// The Job is there: what becomes of it.
fn follow(
    input: &Input<'_, RestoreController>,
    observed: &Observed,
    run: &JobWithPods,
    plan: &mut Plan<RestoreController>,
) {
    let (restore, now) = (input.resource, input.now.wall);
    let (at, job) = (&run.key, &run.job);
    let status = &mut plan.status;
    if job.meta.deleting && status.phase == Some(RestorePhase::Pending) {
        // Taken back: its end wakes this actor again.
        return;
    }
    let removal = || Removal::Job {
        at: at.clone(),
        uid: job.meta.uid.to_string(),
    };
    let lost = input.valid.ok();
    if let Some(wait) = lost.and_then(|valid| surroundings::lost(input, observed, run, valid)) {
        plan.children.removals.push(removal());
        status.phase = Some(RestorePhase::Pending);
        (status.start_time, status.job_ref) = (None, None);
        waiting(status, restore, wait.reason, &wait.message, now);
        return;
    }
    started(status, restore, at, job, now);
    match outcome::progress(run, outcome::Asked::of(job, input.valid.ok()), now) {
        Progress::Running => {
            let before = input.status().progress;
            status.progress = runs::progress::shown(&[Running::of(run)], before.as_ref());
            running(status, restore, at, now);
        }
        Progress::Waiting { words, again } => {
            starting(status, restore, at, words.as_ref(), now);
            plan.next = again;
        }
        // What its pod was last known to wait for is still needed.
        Progress::Settling(again) => plan.next = Some(again),
        Progress::NeverStarted(outcome) => {
            plan.children.removals.push(removal());
            over(status, restore, &outcome, now);
        }
        Progress::Over(outcome) => {
            over(status, restore, &outcome, now);
            hooks::settle(status, run);
        }
    }
}

/// No Job yet, and everything is there: the snapshot is chosen, then the Job is made.
fn begin(
    planning: &Planning,
    input: &Input<'_, RestoreController>,
    valid: &Valid,
    ready: &Ready,
    plan: &mut Plan<RestoreController>,
) {
    let (restore, now) = (input.resource, input.now.wall);
    let status = &mut plan.status;
    let wait_until = input.state.wait_until.filter(|until| now < *until);
    let repository_status = ready.repository.status.as_ref();
    let selection = Selection {
        repository: (
            ready.at.clone(),
            repository_status.and_then(|status| status.repository_id.clone()),
        ),
        wanted: valid.snapshot.clone(),
        identity: ready.identity.clone(),
    };
    let found = input.found.iter().rev().find(|found| found.asked == selection);
    match (found.map(|found| &found.answer), wait_until) {
        (Some(Answer::Chosen(Ok(chosen))), _) => make(planning, input, valid, (ready, chosen), plan),
        (Some(Answer::Chosen(Err(error))), _) => {
            let reason = match error {
                NotChosen::Ambiguous(..) | NotChosen::SeveralBackups(_) => reasons::SNAPSHOT_AMBIGUOUS,
                _ => reasons::SNAPSHOT_NOT_FOUND,
            };
            fail(status, restore, reason, &error.to_string(), now);
        }
        (Some(Answer::Unanswered(error)), _) => {
            let text = format!("the list of snapshots could not be read, it is tried again: {error}");
            waiting(status, restore, reasons::REPOSITORY_UNREACHABLE, &text, now);
            let pause = SignedDuration::try_from(planning.retry).unwrap_or(SignedDuration::from_secs(30));
            plan.state.wait_until = now.checked_add(pause).ok();
            plan.next = plan.state.wait_until;
        }
        (None, Some(until)) => plan.next = Some(until),
        (None, None) => {
            let work = Work::Select(selection);
            if !input.running.contains(&work) {
                let repository = ready.repository.clone();
                plan.work.push(Task { repository, work });
            }
            let text = "reading the list of snapshots";
            waiting(status, restore, reasons::SELECTING_SNAPSHOT, text, now);
        }
    }
}

/// The snapshot is known: the objects are made, unless a deletion could go too far.
fn make(
    planning: &Planning,
    input: &Input<'_, RestoreController>,
    valid: &Valid,
    (ready, chosen): (&Ready, &Chosen),
    plan: &mut Plan<RestoreController>,
) {
    let (restore, now) = (input.resource, input.now.wall);
    let status = &mut plan.status;
    if valid.delete {
        if chosen.files == Some(0) {
            let text = "the snapshot holds no file: spec.options.delete would only empty the target; choose another snapshot, or remove the option";
            fail(status, restore, reasons::SNAPSHOT_EMPTY, text, now);
            return;
        }
        let kept = &restore.spec.exclude_paths;
        if let Some(why) = whole::refusal(ready.backup.as_deref(), valid, chosen, kept) {
            fail(status, restore, reasons::SNAPSHOT_PARTIAL, &why, now);
            return;
        }
    }
    match objects(&planning.site, input, valid, ready, chosen) {
        Ok(children) => plan.children = children,
        Err(Wait { reason, message }) => waiting(status, restore, reason, &message, now),
    }
}

/// Everything that the restore needs.
///
/// # Errors
/// The claim cannot be described.
fn objects(
    site: &Site,
    input: &Input<'_, RestoreController>,
    valid: &Valid,
    ready: &Ready,
    chosen: &Chosen,
) -> Result<Children, Wait> {
    let (key, restore) = (input.key, input.resource);
    let own_account = valid.job.service_account.is_none();
    let is_foreign = ready.at.namespace != key.namespace;
    let copy = Key::new(&key.namespace, names::restore_credentials(&key.name));
    let claim = match &valid.target {
        // Also one that is there: the cache may be a moment behind, and the Job must not begin on somebody else's.
        Target::New(new) if !valid.dry_run => Some(build::claim(key, restore, new, size::size(new, chosen)?)),
        _ => None,
    };
    Ok(Children {
        removals: if is_foreign {
            Vec::new()
        } else {
            vec![Removal::Credentials(copy)]
        },
        account: own_account.then(|| build::service_account(key, restore)),
        grant: build::grant(key, restore, valid),
        credentials: is_foreign.then(|| Credentials {
            metadata: build::credentials(key, restore),
            at: ready.at.clone(),
            repository: ready.repository.clone(),
        }),
        claim,
        job: Some(build::job(key, site, restore, valid, ready, chosen)),
        ..Children::default()
    })
}

/// Adds what follows from the objects.
pub(super) fn conclude(
    input: &Input<'_, RestoreController>,
    observed: &Observed,
    settled: &mut Settled<RestoreController>,
    applied: &Applied,
) {
    let (restore, now) = (input.resource, input.now.wall);
    let own = names::restore_job(&input.key.name);
    if let Some((at, job)) = applied.job.as_ref().filter(|(at, _)| *at.name == *own) {
        started(&mut settled.status, restore, at, job, now);
    }
    let Some(refused) = &applied.refused else {
        return;
    };
    if observed.job.is_some() || is_over(&input.status()) {
        if refused.kind == "Job" && refused.name == own {
            // The Job is still there.
            settled.status = begun(input);
        }
        return;
    }
    if is_over(&settled.status) {
        return;
    }
    let status = &mut settled.status;
    let text = refused.to_string();
    match &refused.cause {
        RefusedBecause::Occupied { meta, .. } if refused.kind == "PersistentVolumeClaim" => {
            let present = ClaimView {
                meta: Meta::clone(meta),
                ..ClaimView::default()
            };
            let claim = input
                .valid
                .map(|valid| target::claim(&valid.target, input.uid(), Some(&present)));
            if let Ok(Claim::Wait(wait)) = claim {
                waiting(status, restore, wait.reason, &wait.message, now);
                // The claim's watch wakes this actor.
                settled.failed = false;
            }
        }
        // Its own one, which is being deleted.
        RefusedBecause::Occupied { meta, .. } if meta.owner.as_deref() == Some(input.uid()) => {
            let text = format!("Job {} is still being deleted", refused.name);
            waiting(status, restore, refused.reason(), &text, now);
        }
        // Trying again is no use.
        _ if refused.is_hopeless() => {
            fail(status, restore, refused.reason(), &text, now);
            settled.failed = false;
            // What was made is cleaned up then.
            settled.next = Some(now);
        }
        _ => waiting(status, restore, refused.reason(), &text, now),
    }
}
