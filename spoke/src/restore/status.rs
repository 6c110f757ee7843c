//! The status of a restore on its way from Pending to an end. Pure.

use crds::conditions::{Conditions, Status, reasons, types, whole_seconds};
use crds::restore::RestorePhase;
use crds::{ResticRestore, ResticRestoreStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::outcome::Outcome;
use crate::runs::Words;
use crate::units;
use crate::world::{JobView, Key};

/// The conditions of a restore, now.
fn at<'a>(status: &'a mut ResticRestoreStatus, restore: &ResticRestore, now: Timestamp) -> Conditions<'a> {
    Conditions::at(&mut status.conditions, restore.metadata.generation, now)
}

/// The restore waits.
pub(super) fn waiting(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    reason: &str,
    text: &str,
    now: Timestamp,
) {
    at(status, restore, now)
        .set(types::READY, false, reason, text)
        .set(types::PROGRESSING, false, reason, text)
        .set(types::WAITING, true, reason, text);
}

/// None of its pods runs yet. `words` is `None` while no reason is known.
pub(super) fn starting(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    place: &Key,
    words: Option<&Words>,
    now: Timestamp,
) {
    let mut conditions = at(status, restore, now);
    let Some(Words { reason, text }) = words else {
        let text = format!("{} was created", place.name);
        conditions.set(types::PROGRESSING, false, reasons::RESTORE_STARTED, text);
        return;
    };
    conditions
        .set(types::WAITING, true, reason, text)
        .set(types::PROGRESSING, false, reason, text)
        .set(types::READY, Status::Unknown, reasons::RESTORE_IN_PROGRESS, text);
}

/// A pod of it runs.
pub(super) fn running(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    place: &Key,
    now: Timestamp,
) {
    let (reason, text) = (reasons::RESTORE_IN_PROGRESS, format!("{} is running", place.name));
    at(status, restore, now)
        .remove(types::WAITING)
        .set(types::PROGRESSING, true, reason, &text)
        .set(types::READY, Status::Unknown, reason, &text);
}

/// Its Job has been made.
pub(super) fn started(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    place: &Key,
    job: &JobView,
    now: Timestamp,
) {
    if status.phase != Some(RestorePhase::InProgress) {
        // What was waited for before is there now.
        let text = format!("{} was created", place.name);
        at(status, restore, now)
            .remove(types::WAITING)
            .set(types::PROGRESSING, false, reasons::RESTORE_STARTED, &text)
            .set(types::READY, Status::Unknown, reasons::RESTORE_IN_PROGRESS, &text);
    }
    status.phase = Some(RestorePhase::InProgress);
    // A Job of the original operator does not have it; what that one has written is not less than nothing.
    if let Some(snapshot) = job.snapshot.as_deref() {
        status.restored_snapshot = Some(snapshot.to_owned());
        status.snapshot = short(Some(snapshot));
    }
    status.job_ref = Some(crds::common::ObjectReference {
        name: place.name.to_string(),
        namespace: place.namespace.to_string(),
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

/// The restore has ended.
pub(super) fn over(
    status: &mut ResticRestoreStatus,
    restore: &ResticRestore,
    outcome: &Outcome,
    now: Timestamp,
) {
    status.completion_time = Some(
        outcome
            .finished
            .clone()
            .unwrap_or_else(|| Time(whole_seconds(now))),
    );
    status.start_time = outcome.started.clone().or(status.start_time.take());
    status.duration.clone_from(&outcome.duration);
    status.deleted_files = outcome.deleted;
    status.preview.clone_from(&outcome.preview);
    status.restored_files = outcome.files;
    status.restored_size_bytes = outcome.bytes;
    status.restored_size = outcome
        .bytes
        .and_then(|b| u64::try_from(b).ok())
        .map(units::bytes);
    let (phase, ready, (reason, text)) = match &outcome.failure {
        Some((reason, text)) => (RestorePhase::Failed, Status::False, (*reason, text.clone())),
        None => (RestorePhase::Completed, Status::True, success(outcome)),
    };
    status.phase = Some(phase);
    status.snapshot = short(status.restored_snapshot.as_deref());
    // As of a Job: what `kubectl wait` is given, and what ends it.
    let (type_, (ended, end)) = match (&outcome.failure, &outcome.lacking) {
        (Some(_), _) => (types::FAILED, (reasons::RESTORE_FAILED, &text)),
        (None, Some((reason, lacking))) => (types::COMPLETE, (*reason, lacking)),
        (None, None) => (types::COMPLETE, (reason, &text)),
    };
    let degraded = match &outcome.lacking {
        Some((reason, lacking)) => (true, *reason, lacking),
        None => (outcome.failure.is_some(), reason, &text),
    };
    at(status, restore, now)
        .remove(types::WAITING)
        .set(type_, true, ended, end)
        .set(types::READY, ready, reason, &text)
        .set(types::PROGRESSING, false, reason, &text)
        .set(types::DEGRADED, degraded.0, degraded.1, degraded.2);
}

/// Reason and message of a restore that went well.
fn success(outcome: &Outcome) -> (&'static str, String) {
    if let Some(preview) = &outcome.preview {
        let size = preview.size.clone().unwrap_or_default();
        return (
            reasons::RESTORE_PREVIEWED,
            format!(
                "this was a preview (spec.options.dryRun), and nothing was written; of files and folders {} would be made anew (folders that are there included), {} updated, {} deleted, and {} stay as they are; {size} would be written",
                preview.restored, preview.updated, preview.deleted, preview.unchanged
            ),
        );
    }
    let what = if outcome.with_folders {
        "files and folders"
    } else {
        "files"
    };
    let size = outcome.bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let size = size.map(units::bytes).unwrap_or_default();
    // A Job of the original operator reports none.
    let figures = outcome.files.map(|files| format!(" {files} {what}, {size}"));
    let note = outcome.note.as_ref().map(|note| format!("; {note}"));
    let text = format!(
        "restored{}{}",
        figures.unwrap_or_default(),
        note.unwrap_or_default()
    );
    (reasons::RESTORE_COMPLETED, text)
}

/// The first 8 digits, as restic shows them.
fn short(id: Option<&str>) -> Option<String> {
    id.and_then(|id| id.get(..8)).map(str::to_owned)
}
