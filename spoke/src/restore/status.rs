//! The status of a restore on its way from Pending to an end. Pure.

use crds::conditions::{self, Status, reasons, types, whole_seconds};
use crds::restore::RestorePhase;
use crds::{ResticRestore, ResticRestoreStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::outcome::Outcome;
use crate::runs::Words;
use crate::units;
use crate::world::{JobView, Key};

/// One condition.
pub(super) fn set(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    type_: &str,
    value: Status,
    reason: &str,
    text: &str,
    now: Timestamp,
) {
    conditions::set(
        &mut status.conditions,
        type_,
        value,
        reason,
        text,
        restore.metadata.generation,
        now,
    );
}

/// It cannot go on yet.
pub(super) fn waiting(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    reason: &str,
    text: &str,
    now: Timestamp,
) {
    set(status, restore, types::READY, Status::False, reason, text, now);
    set(
        status,
        restore,
        types::PROGRESSING,
        Status::False,
        reason,
        text,
        now,
    );
    set(status, restore, types::WAITING, Status::True, reason, text, now);
}

/// None of its pods runs yet. Without words it is too early to say anything.
pub(super) fn starting(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    at: &Key,
    words: Option<&Words>,
    now: Timestamp,
) {
    let Some(Words { reason, text }) = words else {
        let text = format!("{} was created", at.name);
        set(
            status,
            restore,
            types::PROGRESSING,
            Status::False,
            reasons::RESTORE_STARTED,
            &text,
            now,
        );
        return;
    };
    set(status, restore, types::WAITING, Status::True, reason, text, now);
    set(
        status,
        restore,
        types::PROGRESSING,
        Status::False,
        reason,
        text,
        now,
    );
    set(
        status,
        restore,
        types::READY,
        Status::Unknown,
        reasons::RESTORE_IN_PROGRESS,
        text,
        now,
    );
}

/// A pod of it runs.
pub(super) fn running(status: &mut ResticRestoreStatus, restore: &ResticRestore, at: &Key, now: Timestamp) {
    status.conditions.retain(|c| c.type_ != types::WAITING);
    let (reason, text) = (reasons::RESTORE_IN_PROGRESS, format!("{} is running", at.name));
    set(
        status,
        restore,
        types::PROGRESSING,
        Status::True,
        reason,
        &text,
        now,
    );
    set(status, restore, types::READY, Status::Unknown, reason, &text, now);
}

/// Its Job has been made.
pub(super) fn started(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    at: &Key,
    job: &JobView,
    now: Timestamp,
) {
    if status.phase != Some(RestorePhase::InProgress) {
        // What was waited for before is there now.
        status.conditions.retain(|c| c.type_ != types::WAITING);
        let text = format!("{} was created", at.name);
        set(
            status,
            restore,
            types::PROGRESSING,
            Status::False,
            reasons::RESTORE_STARTED,
            &text,
            now,
        );
        set(
            status,
            restore,
            types::READY,
            Status::Unknown,
            reasons::RESTORE_IN_PROGRESS,
            &text,
            now,
        );
    }
    status.phase = Some(RestorePhase::InProgress);
    status.restored_snapshot = job.snapshot.as_deref().map(str::to_owned);
    status.job_ref = Some(crds::common::ObjectReference {
        name: at.name.to_string(),
        namespace: at.namespace.to_string(),
        generation: None,
    });
    let begun = job.start.or(job.created).unwrap_or(now);
    status.start_time.get_or_insert(Time(whole_seconds(begun)));
}

pub(super) fn fail(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    reason: &'static str,
    text: &str,
    now: Timestamp,
) {
    let outcome = Outcome {
        failure: Some((reason, text.to_owned())),
        ..Outcome::default()
    };
    over(status, restore, &outcome, now);
}

/// It is over.
pub(super) fn over(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    outcome: &Outcome,
    now: Timestamp,
) {
    status.conditions.retain(|c| c.type_ != types::WAITING);
    status.completion_time = Some(
        outcome
            .finished
            .clone()
            .unwrap_or_else(|| Time(whole_seconds(now))),
    );
    status.start_time = outcome.started.clone().or(status.start_time.take());
    status.duration.clone_from(&outcome.duration);
    status.restored_files = outcome.files;
    status.restored_size_bytes = outcome.bytes;
    status.restored_size = outcome
        .bytes
        .and_then(|b| u64::try_from(b).ok())
        .map(units::bytes);
    let (phase, ready, reason, text) = match &outcome.failure {
        Some((reason, text)) => (RestorePhase::Failed, Status::False, *reason, text.clone()),
        None => {
            let what = if outcome.with_folders {
                "files and folders"
            } else {
                "files"
            };
            let figures = format!(
                "{} {what}, {}",
                outcome.files.unwrap_or_default(),
                status.restored_size.clone().unwrap_or_default()
            );
            let text = match &outcome.note {
                Some(note) => format!("restored {figures}; {note}"),
                None => format!("restored {figures}"),
            };
            (
                RestorePhase::Completed,
                Status::True,
                reasons::RESTORE_COMPLETED,
                text,
            )
        }
    };
    status.phase = Some(phase);
    set(status, restore, types::READY, ready, reason, &text, now);
    set(
        status,
        restore,
        types::PROGRESSING,
        Status::False,
        reason,
        &text,
        now,
    );
    let degraded = Status::from(outcome.failure.is_some());
    set(status, restore, types::DEGRADED, degraded, reason, &text, now);
}
