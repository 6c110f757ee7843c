//! What a turn of a backup does. Pure.

use crds::conditions::{Conditions, reasons, types};
use crds::{ResticBackupStatus, names};
use jiff::{SignedDuration, Timestamp};

use super::children::{self, Hooked};
use super::readiness::{self, Readiness, Surroundings};
use super::validate::{Invalid, Valid};
use super::{BackupController, Observed, hooks, retention, stale, status};
use crate::kind::{self, Applied, Children, Input, Opening, Plan, Removal, Settled, failed_as};
use crate::queue::{self, Turn};
use crate::runs::finished::{self, Ended, Finished};
use crate::runs::{self, JobWithPods};
use crate::site::Site;

/// Plans.
pub(super) fn plan(
    site: &Site,
    input: &Input<'_, BackupController>,
    observed: &Observed,
) -> Plan<BackupController> {
    let (generation, now) = (input.generation(), input.now.wall);
    let refused = observed.refused.clone();
    let readiness = input.valid.map(|valid| readiness_of(input, observed, valid));
    let opens = may_open(observed, &readiness);
    let parked = status::Parked {
        turns: &observed.turns,
        opens,
    };
    let (mut status, again) = status::with_runs(
        &input.status(),
        input.resource,
        &observed.runs,
        (parked, refused),
        now,
    );
    let followed = hooks::follow(&mut status, site, input, observed);
    let owing = hooks::owing(&status, &names::backup_service_account(&input.key.name));
    status::degraded(&mut status, owing, generation, now);
    // Shown again by `conclude`, where a run can begin.
    status.next_backup = None;
    let stale = input.valid.ok().and_then(|valid| {
        let (schedule, suspend) = (&valid.schedule, valid.suspend);
        stale::set(&mut status, schedule, suspend, generation, now)
    });
    let owes = followed.job.is_some() || observed.made.iter().any(|made| made.job.end.is_none());
    let (mut children, slot) = by_readiness(site, input, observed, readiness, owes, &mut status);
    if observed.runs.iter().any(|run| queue::is_parked(&run.job)) {
        children.opens = Some(opens && !owes);
        children.openings = openings(observed, &children);
    }
    children.policy = retention::plan(site, input, observed, &mut status);
    let released = release(input, observed, &status);
    children.finished = released.0;
    let lingering = runs::lingering(&observed.runs, now);
    children.lingering = lingering.0;
    children.job = followed.job;
    Plan {
        children,
        next: earliest([again, released.1, lingering.1, followed.next, stale, slot]),
        ..Plan::status(status, ())
    }
}

/// Shows whether the backup may run. What follows for its objects, and when it may be different although nothing changes.
fn by_readiness(
    site: &Site,
    input: &Input<'_, BackupController>,
    observed: &Observed,
    readiness: Result<Readiness, &Invalid>,
    owes: bool,
    status: &mut ResticBackupStatus,
) -> (Children, Option<Timestamp>) {
    let mut conditions = Conditions::at(&mut status.conditions, input.generation(), input.now.wall);
    match (input.valid, readiness) {
        (Err(invalid), _) | (_, Err(invalid)) => {
            conditions.set(types::READY, false, invalid.reason(), invalid.to_string());
            let mut children = Children::default();
            if invalid.is_unsafe() || observed.consent_ended {
                children.removals = children::withdrawal(input.key, &status.open_hooks);
            }
            (children, None)
        }
        (Ok(valid), Ok(readiness)) => {
            let again = match &readiness {
                Readiness::Down { again, .. } | Readiness::Waiting { again, .. } => *again,
                _ => None,
            };
            readiness.show(&mut conditions);
            let hooks = Hooked {
                owes,
                open: &status.open_hooks,
            };
            let by = (valid, readiness);
            let children = children::wanted(site, input, observed, by, &hooks, &mut status.active);
            (children, again)
        }
    }
}

/// Whether a parked run may begin when its turn comes: wherever the CronJob would start one if there were no limit.
fn may_open(observed: &Observed, readiness: &Result<Readiness, &Invalid>) -> bool {
    let starts = match readiness {
        Ok(Readiness::Ready(_) | Readiness::Waiting { .. }) => true,
        Ok(Readiness::Down { .. } | Readiness::Held { .. } | Readiness::Refused { .. }) => false,
        Err(invalid) => !invalid.is_unsafe(),
    };
    starts && !observed.consent_ended && observed.held.is_none()
}

/// Parked runs whose turn it is. Those that are made anew are not opened.
fn openings(observed: &Observed, children: &Children) -> Vec<Opening> {
    if children.opens != Some(true) {
        return Vec::new();
    }
    let goes = |run: &JobWithPods| {
        let mut removals = children.removals.iter();
        removals.any(|removal| matches!(removal, Removal::Job { uid, .. } if **uid == *run.job.meta.uid))
    };
    let begins = |run: &&JobWithPods| {
        let turn = observed.turns.get(&*run.job.meta.uid);
        turn == Some(&Turn::Begins) && !goes(run)
    };
    let runs = observed.runs.iter().filter(begins);
    runs.map(|run| Opening {
        at: run.key.clone(),
        uid: run.job.meta.uid.to_string(),
    })
    .collect()
}

/// Finished pods that go, and when to look again. Only those whose result is in the status already: a pod that was deleted
/// before would take it along.
fn release(
    input: &Input<'_, BackupController>,
    observed: &Observed,
    status: &ResticBackupStatus,
) -> (Vec<Finished>, Option<Timestamp>) {
    let now = input.now.wall;
    let recorded = status::ended(&input.status(), &observed.runs);
    let deleting = observed.source.claim_is_deleting();
    let pods: Vec<Finished> = observed.runs.iter().flat_map(finished::of).collect();
    let (go, next) = finished::released(&recorded, &pods, deleting, now);
    let new = status::ended(status, &observed.runs);
    let fresh = pods.iter().any(|pod| {
        let of = |list: &[Ended]| list.iter().any(|run| run.job_uid == pod.job_uid);
        of(&new) && !of(&recorded)
    });
    (go, earliest([next, fresh.then_some(now)]))
}

fn readiness_of(input: &Input<'_, BackupController>, observed: &Observed, valid: &Valid) -> Readiness {
    let surroundings = Surroundings {
        repository: observed.repository.as_deref(),
        labels: observed.labels.as_deref(),
        source: &observed.source,
        now: input.now.wall,
    };
    readiness::readiness(input.key, valid, &surroundings)
}

/// Adds what follows from the objects.
pub(super) fn conclude(
    input: &Input<'_, BackupController>,
    observed: &Observed,
    settled: &mut Settled<BackupController>,
    applied: &Applied,
) {
    let Ok(valid) = input.valid else { return };
    retention::conclude(input, &mut settled.status, applied);
    let readiness = readiness_of(input, observed, valid);
    let stopped = matches!(
        readiness,
        Readiness::Refused { .. } | Readiness::Held { .. } | Readiness::Down { .. }
    );
    if stopped || observed.consent_ended {
        return;
    }
    let ready = matches!(readiness, Readiness::Ready(_));
    let held = observed.held.filter(|_| ready);
    let (generation, now) = (input.generation(), input.now.wall);
    let status = &mut settled.status;
    if let Some(reference) = kind::reference(applied) {
        status.cron_job_ref = Some(reference);
        // Runs that were made anew were not asked for.
        if let Some(request) = children::request(input).filter(|_| !applied.runs.is_empty() && held.is_none())
        {
            status.last_run_request = Some(request.to_owned());
        }
    }
    match applied.refused.as_ref().filter(|refused| !refused.is_of_policy()) {
        Some(refused) if ready => {
            failed_as(&mut status.conditions, refused, generation, now);
        }
        None if applied.cron_job.is_some() => {
            let text = scheduled(valid, held.is_some());
            Conditions::at(&mut status.conditions, generation, now).set(
                types::READY,
                true,
                reasons::BACKUP_CONFIGURED,
                text,
            );
        }
        _ => {}
    }
    let cron_job = observed.cron_job.as_deref();
    status.next_backup = kind::next_start(&valid.schedule, valid.suspend, applied, cron_job, now);
    let due = kind::turn_after(status.next_backup.as_ref());
    let free = held.and_then(|left| now.checked_add(SignedDuration::try_from(left).ok()?).ok());
    settled.next = earliest([settled.next, due, free]);
}

fn earliest(times: impl IntoIterator<Item = Option<Timestamp>>) -> Option<Timestamp> {
    times.into_iter().flatten().min()
}

fn scheduled(valid: &Valid, held: bool) -> String {
    if valid.suspend {
        "suspended: no scheduled runs".to_owned()
    } else if held {
        format!(
            "scheduled: {} ({}); this and a run that was asked for are held for a moment, maintenance of the repository begins",
            valid.cron, valid.timezone
        )
    } else {
        format!("scheduled: {} ({})", valid.cron, valid.timezone)
    }
}
