//! What a turn of a backup does. Pure.

use std::sync::Arc;

use crds::conditions::{Conditions, reasons, types};
use crds::hooks::OpenHooks;
use crds::{ResticBackupStatus, ResticRepository, names};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::build::{self, Objects};
use super::locate::Located;
use super::moved;
use super::readiness::{self, Readiness, Surroundings};
use super::validate::{Invalid, Valid};
use super::{BackupController, Observed, hooks, retention, stale, status};
use crate::hooks::{Needs, Plan as HookPlan};
use crate::kind::{
    self, Applied, Children, Credentials, Input, Opening, Plan, Removal, Run, Settled, failed_as,
};
use crate::queue::{self, Turn};
use crate::runs::finished::{self, Ended, Finished};
use crate::runs::{self, JobWithPods};
use crate::site::Site;
use crate::world::Key;

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
    let (mut children, mut slot) = (Children::default(), None);
    let stale = input.valid.ok().and_then(|valid| {
        let (schedule, suspend) = (&valid.schedule, valid.suspend);
        stale::set(&mut status, schedule, suspend, generation, now)
    });
    let owes = followed.job.is_some() || observed.made.iter().any(|made| made.job.end.is_none());
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    match (input.valid, readiness) {
        (Err(invalid), _) | (_, Err(invalid)) => {
            conditions.set(types::READY, false, invalid.reason(), invalid.to_string());
            if invalid.is_unsafe() || observed.consent_ended {
                children.removals = withdrawal(input.key, &status.open_hooks);
            }
        }
        (Ok(valid), Ok(readiness)) => {
            if let Readiness::Down { again, .. } | Readiness::Waiting { again, .. } = &readiness {
                slot = *again;
            }
            set_readiness(&mut conditions, &readiness);
            let hooks = Hooked {
                owes,
                open: &status.open_hooks,
            };
            let by = (valid, readiness);
            children = wanted(site, input, observed, by, &hooks, &mut status.active);
        }
    }
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

/// What a valid backup has: its objects where it can run, and their end where it may not.
fn wanted(
    site: &Site,
    input: &Input<'_, BackupController>,
    observed: &Observed,
    (valid, readiness): (&Valid, Readiness),
    hooks: &Hooked<'_>,
    active: &mut Vec<String>,
) -> Children {
    let mut children = Children::default();
    match (readiness, &observed.repository) {
        (Readiness::Ready(located), Some(repository)) => {
            let to = Destination {
                repository,
                // What an earlier run owes would undo what the hook before the next one does.
                held: observed.held.is_some() || hooks.owes,
                kept: kept(hooks.open, observed),
            };
            children = objects(site, input, valid, &located, &to);
            if !to.held {
                let again = make_anew((input.key, input.now.wall), observed, &located, &mut children);
                active.retain(|job| !again.contains(job));
            }
        }
        (Readiness::Refused { .. }, _) => children.removals = withdrawal(input.key, hooks.open),
        // A run would hang, or bind the claim; or each would fail.
        (Readiness::Held { .. } | Readiness::Down { .. }, _) => {
            let cron_job = Key::new(&input.key.namespace, names::backup_cron_job(&input.key.name));
            children.removals = vec![Removal::Schedule(cron_job)];
        }
        _ if observed.consent_ended => children.removals = withdrawal(input.key, hooks.open),
        _ => {}
    }
    children
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

/// Runs for a node where the data is not any more are replaced. The Jobs that go.
fn make_anew(
    (key, now): (&Key, Timestamp),
    observed: &Observed,
    located: &Located,
    children: &mut Children,
) -> Vec<String> {
    let cron_job = names::backup_cron_job(&key.name);
    let mut gone = Vec::new();
    for moved in moved::moved(&observed.runs, located, &cron_job, now) {
        children.removals.push(moved.removal);
        children.runs.push(moved.run);
        gone.push(moved.job);
    }
    gone
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

/// Whether the backup may run, as conditions. `conclude` sets Ready where objects are made.
fn set_readiness(conditions: &mut Conditions<'_>, readiness: &Readiness) {
    let well = (true, reasons::REPOSITORY_READY, "the repository is ready");
    match readiness {
        Readiness::Ready(_) => {
            conditions.set(types::REPOSITORY_READY, well.0, well.1, well.2);
        }
        Readiness::Refused { message } => {
            let reason = reasons::NAMESPACE_NOT_ALLOWED;
            conditions
                .set(types::REPOSITORY_READY, false, reason, message)
                .set(types::READY, false, reason, message);
        }
        Readiness::Held { reason, message } => {
            conditions
                .set(types::REPOSITORY_READY, well.0, well.1, well.2)
                .set(types::READY, false, reason, message);
        }
        Readiness::Down { message, .. } => {
            let reason = reasons::REPOSITORY_NOT_READY;
            conditions
                .set(types::REPOSITORY_READY, false, reason, message)
                .set(types::READY, false, reason, message);
        }
        Readiness::Waiting { reason, message, .. } => {
            conditions
                .set(types::REPOSITORY_READY, false, reason, message)
                .set(types::READY, false, reason, message);
        }
    }
}

/// Hooks of runs.
struct Hooked<'a> {
    /// Some are run by a Job of their own now.
    owes: bool,
    /// Runs whose hooks are not known to have ended well.
    open: &'a [OpenHooks],
}

/// What was made ends: the copy of the credentials, what its pods may do, and the schedule.
fn withdrawal(key: &Key, open: &[OpenHooks]) -> Vec<Removal> {
    let mut removals = Removal::withdrawal(
        &key.namespace,
        names::backup_credentials(&key.name),
        names::backup_cron_job(&key.name),
    );
    removals.extend(rights(key, open));
    removals
}

/// What its pods may do in the API server ends, unless hooks of a run need it.
fn rights(key: &Key, open: &[OpenHooks]) -> Option<Removal> {
    let own = key.sibling(names::backup_service_account(&key.name));
    open.is_empty().then_some(Removal::Grant(own))
}

/// What the hooks of open runs need, whatever the spec says now. Those of a run whose Job is gone are not known.
fn kept(open: &[OpenHooks], observed: &Observed) -> Needs {
    let of = |entry: &OpenHooks| {
        let run = observed.runs.iter().find(|run| *run.job.meta.uid == *entry.uid);
        let plan = run.and_then(|run| HookPlan::parse(run.job.hooks.as_deref()?));
        plan.map_or(Needs::ALL, |plan| Needs::of(Some(&plan)))
    };
    open.iter().map(of).fold(Needs::default(), Needs::and)
}

/// Where a backup goes.
struct Destination<'a> {
    repository: &'a Arc<ResticRepository>,
    /// No run may begin now: maintenance of it is about to begin, or what an earlier run owes is run.
    held: bool,
    /// Rights that runs under way have.
    kept: Needs,
}

/// Everything that a backup needs.
fn objects(
    site: &Site,
    input: &Input<'_, BackupController>,
    valid: &Valid,
    located: &Located,
    to: &Destination<'_>,
) -> Children {
    let (key, backup) = (input.key, input.resource);
    let (repository, held) = (to.repository, to.held);
    // A start that falls into the time for which runs are held is made up for when it is over.
    let mut wanted = valid.clone();
    wanted.suspend |= held;
    let Objects {
        service_account,
        grant,
        credentials,
        cron_job,
    } = build::build(key, site, backup, &wanted, located, (repository, to.kept));
    let recorded = backup.status.as_ref().and_then(|s| s.cron_job_ref.as_ref());
    // Asked for again when the hold is over.
    let request = request(input).filter(|_| !held).map(|request| {
        let suffix = names::short_hash(format!("{}/{request}", input.uid()).as_bytes());
        Run {
            name: names::bounded(&cron_job.name_any(), &format!("-{suffix}"), names::LABEL_MAX),
            approves: None,
            instead_of: None,
        }
    });
    let copy = Key::new(&key.namespace, names::backup_credentials(&key.name));
    let unwanted = [
        credentials.is_none().then_some(Removal::Credentials(copy)),
        grant
            .is_none()
            .then(|| Removal::Grant(key.sibling(names::backup_service_account(&key.name)))),
    ];
    Children {
        removals: unwanted.into_iter().flatten().collect(),
        account: service_account,
        grant,
        credentials: credentials.map(|metadata| Credentials {
            metadata,
            at: valid.repository.clone(),
            repository: repository.clone(),
        }),
        cron_job: Some((cron_job, recorded.and_then(|r| r.generation))),
        runs: request.into_iter().collect(),
        ..Children::default()
    }
}

/// A new value of the annotation asks for one run.
fn request<'a>(input: &Input<'a, BackupController>) -> Option<&'a str> {
    let asked = input.resource.annotations().get(names::ANNOTATION_RUN)?;
    let status = input.resource.status.as_ref();
    let done = status.and_then(|s| s.last_run_request.as_ref());
    (!asked.is_empty() && done != Some(asked)).then_some(asked.as_str())
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
        if let Some(request) = request(input).filter(|_| !applied.runs.is_empty() && held.is_none()) {
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
