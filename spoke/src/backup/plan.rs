//! What a turn of a backup does. Pure.

use std::sync::Arc;

use crds::conditions::{Conditions, reasons, types};
use crds::{ResticBackupStatus, ResticRepository, common, names};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::build::{self, Objects};
use super::readiness::{self, Readiness, Surroundings};
use super::validate::Valid;
use super::{BackupController, Observed, status};
use crate::kind::{
    Applied, Children, Credentials, Input, Plan, Prepared, Refused, Removal, Run, Settled, failed_as,
};
use crate::pod::finished::{self, Ended, Finished};
use crate::runs;
use crate::world::Key;

/// Plans.
pub(super) fn plan(
    cluster: &str,
    input: &Input<'_, BackupController>,
    observed: &Observed,
) -> Plan<BackupController> {
    let (generation, now) = (input.generation(), input.now.wall);
    let refused = observed.refused.clone();
    let (mut status, again) =
        status::with_runs(&input.status(), input.resource, &observed.runs, refused, now);
    let mut children = Children::default();
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    match input.valid {
        Err(invalid) => {
            conditions.set(types::READY, false, invalid.reason(), invalid.to_string());
            status.next_backup = None;
            if invalid.is_unsafe() || observed.consent_ended {
                children.removals = withdrawal(input.key);
            }
        }
        Ok(valid) => {
            let readiness = readiness_of(input.key, observed, valid);
            set_readiness(&mut conditions, &readiness);
            match (readiness, &observed.repository) {
                (Readiness::Ready, Some(repository)) => {
                    children = objects(cluster, input, valid, repository, observed.held.is_some());
                }
                (Readiness::Refused { .. }, _) => {
                    status.next_backup = None;
                    children.removals = withdrawal(input.key);
                }
                // A run would hang, or bind the claim.
                (Readiness::Held { .. }, _) => {
                    status.next_backup = None;
                    children.removals = vec![schedule(input.key)];
                }
                _ if observed.consent_ended => children.removals = withdrawal(input.key),
                _ => {}
            }
        }
    }
    let released = release(input, observed, &status);
    children.finished = released.0;
    let lingering = runs::lingering(&observed.runs, now);
    children.lingering = lingering.0;
    Plan {
        children,
        next: earliest([again, released.1, lingering.1]),
        ..Plan::status(status, ())
    }
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
    let deleting = observed.claim.as_ref().is_some_and(|claim| claim.meta.deleting);
    let (go, next) = finished::released(&recorded, &observed.finished, deleting, now);
    let new = status::ended(status, &observed.runs);
    let fresh = observed.finished.iter().any(|pod| {
        let of = |list: &[Ended]| list.iter().any(|run| run.job_uid == pod.job_uid);
        of(&new) && !of(&recorded)
    });
    (go, earliest([next, fresh.then_some(now)]))
}

fn readiness_of(key: &Key, observed: &Observed, valid: &Valid) -> Readiness {
    let surroundings = Surroundings {
        repository: observed.repository.as_deref(),
        labels: observed.labels.as_deref(),
        claim: observed.claim.as_deref(),
    };
    readiness::readiness(key, valid, &surroundings)
}

/// Whether the backup may run, as conditions. `conclude` sets Ready where objects are made.
fn set_readiness(conditions: &mut Conditions<'_>, readiness: &Readiness) {
    let well = (true, reasons::REPOSITORY_READY, "the repository is ready");
    match readiness {
        Readiness::Ready => {
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
        Readiness::Waiting { reason, message } => {
            conditions
                .set(types::REPOSITORY_READY, false, reason, message)
                .set(types::READY, false, reason, message);
        }
    }
}

/// Consent was withdrawn, or never given: what was made with it stops.
fn withdrawal(key: &Key) -> Vec<Removal> {
    let at = |name: String| Key::new(&key.namespace, name);
    vec![
        Removal::Credentials(at(names::backup_credentials(&key.name))),
        schedule(key),
    ]
}

/// The schedule stops.
fn schedule(key: &Key) -> Removal {
    Removal::Schedule(Key::new(&key.namespace, names::backup_cron_job(&key.name)))
}

/// Everything that a backup needs.
fn objects(
    cluster: &str,
    input: &Input<'_, BackupController>,
    valid: &Valid,
    repository: &Arc<ResticRepository>,
    held: bool,
) -> Children<Prepared> {
    let (key, backup) = (input.key, input.resource);
    // A start that falls into the time for which runs are held is made up for when it is over.
    let mut wanted = valid.clone();
    wanted.suspend |= held;
    let Objects {
        service_account,
        credentials,
        cron_job,
    } = build::build(key, cluster, backup, &wanted, repository);
    let recorded = backup.status.as_ref().and_then(|s| s.cron_job_ref.as_ref());
    // Asked for again when the hold is over.
    let request = request(input).filter(|_| !held).map(|request| {
        let suffix = names::short_hash(format!("{}/{request}", input.uid()).as_bytes());
        Run {
            name: names::bounded(&cron_job.name_any(), &format!("-{suffix}"), names::LABEL_MAX),
            approves: None,
        }
    });
    let copy = Key::new(&key.namespace, names::backup_credentials(&key.name));
    Children {
        removals: if credentials.is_none() {
            vec![Removal::Credentials(copy)]
        } else {
            Vec::new()
        },
        account: service_account,
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
    applied: &Children<Applied>,
    refused: Option<&Refused>,
) {
    let Ok(valid) = input.valid else { return };
    let readiness = readiness_of(input.key, observed, valid);
    if matches!(readiness, Readiness::Refused { .. } | Readiness::Held { .. }) {
        return;
    }
    let held = observed.held.filter(|_| readiness == Readiness::Ready);
    let (generation, now) = (input.generation(), input.now.wall);
    let status = &mut settled.status;
    if let Some((at, view)) = &applied.cron_job {
        status.cron_job_ref = Some(common::ObjectReference {
            name: at.name.to_string(),
            namespace: at.namespace.to_string(),
            generation: Some(view.meta.generation),
        });
        if !applied.runs.is_empty() {
            status.last_run_request = request(input).map(str::to_owned);
        }
    }
    match refused {
        Some(refused) if readiness == Readiness::Ready => {
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
    let cron_job = applied.cron_job.as_ref().map(|(_, view)| view);
    let Some(cron_job) = cron_job.or(observed.cron_job.as_ref()) else {
        return;
    };
    status.next_backup =
        crate::schedule::next_run(&valid.schedule, valid.suspend, cron_job.last_schedule, now);
    // A second later, so that the CronJob controller has had its turn.
    let due = status
        .next_backup
        .as_ref()
        .and_then(|t| t.0.checked_add(SignedDuration::from_secs(1)).ok());
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
