//! What a turn of a backup does. Pure.

use std::sync::Arc;

use crds::conditions::{Conditions, reasons, types};
use crds::{ResticBackupStatus, ResticRepository, names};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::build::{self, Objects};
use super::readiness::{self, Readiness, Surroundings};
use super::validate::Valid;
use super::{BackupController, Observed, stale, status};
use crate::kind::{self, Applied, Children, Credentials, Input, Plan, Removal, Run, Settled, failed_as};
use crate::runs;
use crate::runs::finished::{self, Ended, Finished};
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
    // Shown again by `conclude`, where a run can begin.
    status.next_backup = None;
    let mut children = Children::default();
    let stale = input.valid.ok().and_then(|valid| {
        let (schedule, suspend) = (&valid.schedule, valid.suspend);
        stale::set(&mut status, schedule, suspend, generation, now)
    });
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    match input.valid {
        Err(invalid) => {
            conditions.set(types::READY, false, invalid.reason(), invalid.to_string());
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
                (Readiness::Refused { .. }, _) => children.removals = withdrawal(input.key),
                // A run would hang, or bind the claim.
                (Readiness::Held { .. }, _) => {
                    let cron_job = Key::new(&input.key.namespace, names::backup_cron_job(&input.key.name));
                    children.removals = vec![Removal::Schedule(cron_job)];
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
        next: earliest([again, released.1, lingering.1, stale]),
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
    let pods: Vec<Finished> = observed.runs.iter().flat_map(finished::of).collect();
    let (go, next) = finished::released(&recorded, &pods, deleting, now);
    let new = status::ended(status, &observed.runs);
    let fresh = pods.iter().any(|pod| {
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

fn withdrawal(key: &Key) -> Vec<Removal> {
    Removal::withdrawal(
        &key.namespace,
        names::backup_credentials(&key.name),
        names::backup_cron_job(&key.name),
    )
}

/// Everything that a backup needs.
fn objects(
    cluster: &str,
    input: &Input<'_, BackupController>,
    valid: &Valid,
    repository: &Arc<ResticRepository>,
    held: bool,
) -> Children {
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
    applied: &Applied,
) {
    let Ok(valid) = input.valid else { return };
    let readiness = readiness_of(input.key, observed, valid);
    let stopped = matches!(readiness, Readiness::Refused { .. } | Readiness::Held { .. });
    if stopped || observed.consent_ended {
        return;
    }
    let held = observed.held.filter(|_| readiness == Readiness::Ready);
    let (generation, now) = (input.generation(), input.now.wall);
    let status = &mut settled.status;
    if let Some(reference) = kind::reference(applied) {
        status.cron_job_ref = Some(reference);
        if !applied.runs.is_empty() {
            status.last_run_request = request(input).map(str::to_owned);
        }
    }
    match &applied.refused {
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
