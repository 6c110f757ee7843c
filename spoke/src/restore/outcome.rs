//! How a restore ended, as its status reports it. Pure.

use crds::conditions::{reasons, whole_seconds};
use crds::restore::RestorePreview;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::validate::Valid;
use crate::pod::message::{self, Message};
use crate::restic::Failure;
use crate::runs::{self, Ended, Ending, JobWithPods, State, Words};
use crate::units;
use crate::world::JobView;

/// A pod that has not started by then never will.
pub const START_LIMIT: SignedDuration = SignedDuration::from_secs(3600);

/// How restic's words about a folder that it cannot restore end.
const NO_FOLDER: [&str; 2] = [": not found", ": not a directory"];

/// What follows from a failure before anything was done.
const UNTOUCHED: &str = "nothing was written or deleted: with spec.options.delete the restore begins only after a preview of it without any error";

/// Last line of `restic restore --json`. All counts are absent when nothing matched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Summary {
    total_files: u64,
    files_restored: u64,
    files_skipped: u64,
    bytes_restored: u64,
    bytes_skipped: u64,
    files_deleted: u64,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Asked {
    /// Files are chosen by name.
    pub filtered: bool,
    /// Only a folder of the snapshot is restored.
    pub folder: bool,
    pub verify: bool,
    pub dry_run: bool,
}

impl Asked {
    /// What the Job was made for: its spec may have been changed since. `valid` is that of now, for a Job without a note.
    #[must_use]
    pub fn of(job: &JobView, valid: Option<&Valid>) -> Asked {
        let noted = job.asked.as_deref();
        noted
            .and_then(|noted| serde_json::from_str(noted).ok())
            .or_else(|| valid.map(Asked::by))
            .unwrap_or_default()
    }

    /// As the annotation of a Job.
    #[must_use]
    pub fn json(self) -> String {
        serde_json::json!(self).to_string()
    }

    /// That of a spec.
    #[must_use]
    pub fn by(valid: &Valid) -> Asked {
        Asked {
            filtered: valid.filtered,
            folder: !valid.path.is_empty(),
            verify: valid.verify,
            dry_run: valid.dry_run,
        }
    }
}

/// A restore that is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// `None` when it went well.
    pub failure: Option<(&'static str, String)>,
    pub files: Option<i64>,
    /// restic has counted folders too: how many is not known.
    pub with_folders: bool,
    pub bytes: Option<i64>,
    /// Files and folders that were deleted.
    pub deleted: Option<i64>,
    /// What would have been done, when nothing was.
    pub preview: Option<RestorePreview>,
    pub started: Option<Time>,
    pub finished: Option<Time>,
    pub duration: Option<String>,
    /// More about a restore that went well.
    pub note: Option<String>,
    /// What it lacks all the same: reason and text.
    pub lacking: Option<(&'static str, String)>,
}

/// Where a restore stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    Running,
    /// None of its pods runs; what it waits for once that is known, and when to look again.
    Waiting {
        words: Option<Words>,
        again: Option<Timestamp>,
    },
    /// Nothing new is known: its end may still become known. Look again then.
    Settling(Timestamp),
    /// The pod has not started and is not going to: the Job has to go.
    NeverStarted(Outcome),
    Over(Outcome),
}

/// Where it stands.
#[must_use]
pub fn progress(run: &JobWithPods, asked: Asked, now: Timestamp) -> Progress {
    match runs::state::<Message<Summary>>(run, now) {
        State::Running => Progress::Running,
        State::Settling(again) => Progress::Settling(again),
        State::Ended(ended) => {
            let whole = run
                .job
                .snapshot_files
                .filter(|_| !asked.filtered && !asked.folder);
            Progress::Over(only_files(outcome(ended, asked), whole))
        }
        State::Waiting { words, again } => waiting(run, words, again, now),
    }
}

/// restic counts folders as files. Of a snapshot that was restored as a whole it is known how many files it has.
fn only_files(outcome: Outcome, whole: Option<u64>) -> Outcome {
    let whole = whole.and_then(|files| i64::try_from(files).ok());
    match (outcome.files, whole) {
        (Some(restored), Some(files)) if outcome.failure.is_none() && files <= restored => Outcome {
            files: Some(files),
            ..outcome
        },
        (files, _) => Outcome {
            with_folders: files.is_some(),
            ..outcome
        },
    }
}

fn waiting(run: &JobWithPods, words: Option<Words>, again: Option<Timestamp>, now: Timestamp) -> Progress {
    let since = run.job.start.or(run.job.created).unwrap_or(now);
    if now.duration_since(since) < START_LIMIT {
        let again = again.or_else(|| since.checked_add(START_LIMIT).ok());
        return Progress::Waiting { words, again };
    }
    let words = words.map_or_else(|| "no reason is known".to_owned(), |words| words.text);
    let text = format!("no pod started within {}: {words}", units::duration(START_LIMIT));
    Progress::NeverStarted(Outcome {
        failure: Some((reasons::POD_NEVER_STARTED, text)),
        finished: Some(Time(whole_seconds(now))),
        ..Outcome::default()
    })
}

fn outcome(ended: Ended<Message<Summary>>, asked: Asked) -> Outcome {
    let (started, finished, user) = (ended.started, ended.finished, ended.user);
    let outcome = match ended.ending {
        Ending::Unreported { exit: 0 } => Outcome {
            note: Some("how much is not known: the original operator made this Job".to_owned()),
            ..Outcome::default()
        },
        ending => match runs::report(ending, "restore") {
            Ok(message) => of_message(&message, user, asked),
            Err((reason, text)) => Outcome {
                failure: Some((reason, text)),
                ..Outcome::default()
            },
        },
    };
    Outcome {
        duration: started
            .zip(finished)
            .map(|(s, f)| units::duration(f.duration_since(s))),
        started: started.map(|t| Time(whole_seconds(t))),
        finished: finished.map(|t| Time(whole_seconds(t))),
        ..outcome
    }
}

fn of_message(message: &Message<Summary>, user: Option<i64>, asked: Asked) -> Outcome {
    let summary = message.summary.as_ref();
    let nothing = summary.is_some_and(|s| s.total_files == 0 && s.files_skipped == 0);
    let failure = match (message.exit_code, summary) {
        (0, None) => Some((
            "NoSummary",
            "restic ended without telling what it restored; see the pod's log".to_owned(),
        )),
        (0, _) if nothing && asked.filtered => Some((
            reasons::NOTHING_MATCHED,
            "nothing in the snapshot matches spec.includePaths and spec.excludePaths, so nothing was restored; paths are relative to the data, without /backup".to_owned(),
        )),
        _ if message.errors > unset(message) => Some(("FilesNotRestored", not_restored(message, user))),
        (0, Some(_)) => None,
        // Attributes that could not be set do not hide why it ended.
        (code, _) => Some(of_failure(&message.failure(), code)),
    };
    let failure = failure.map(|(reason, text)| match message.untouched {
        true => (reason, format!("{text}; {UNTOUCHED}")),
        false => (reason, text),
    });
    let Some(summary) = summary else {
        return Outcome {
            failure,
            ..Outcome::default()
        };
    };
    if asked.dry_run {
        return Outcome {
            preview: failure.is_none().then(|| preview(summary, message)),
            failure,
            ..Outcome::default()
        };
    }
    Outcome {
        note: note(summary, message, user, asked).filter(|_| failure.is_none()),
        lacking: lacking(message, asked).filter(|_| failure.is_none()),
        failure,
        files: Some(signed(summary.files_restored)),
        bytes: Some(signed(summary.bytes_restored)),
        deleted: Some(signed(summary.files_deleted)).filter(|deleted| *deleted > 0),
        ..Outcome::default()
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Files that are there, less some attributes.
fn unset(message: &Message<Summary>) -> u64 {
    message.unset.as_ref().map_or(0, |unset| unset.files)
}

/// A folder that is not in the snapshot is restic's last word about it: it has written nothing.
fn of_failure(failure: &Failure, code: i32) -> (&'static str, String) {
    match failure {
        Failure::Other(text)
            if text.starts_with("path ") && NO_FOLDER.iter().any(|end| text.ends_with(end)) =>
        {
            (
                reasons::SNAPSHOT_PATH_NOT_FOUND,
                format!(
                    "the snapshot has no folder spec.snapshotPath ({text}); it is relative to the data, without /backup, and names a folder, not a file"
                ),
            )
        }
        failure => (message::reason_of(failure), text_of(failure, code)),
    }
}

fn preview(summary: &Summary, message: &Message<Summary>) -> RestorePreview {
    let actions = message.actions.unwrap_or_default();
    RestorePreview {
        restored: signed(actions.restored),
        updated: signed(actions.updated),
        unchanged: signed(actions.unchanged),
        deleted: signed(summary.files_deleted),
        size: Some(units::bytes(summary.bytes_restored)),
        size_bytes: Some(signed(summary.bytes_restored)),
    }
}

fn not_restored(message: &Message<Summary>, user: Option<i64>) -> String {
    let code = match message.exit_code {
        0 => String::new(),
        code => format!(" (exit code {code})"),
    };
    let samples = message.samples("");
    let listed = if samples.is_empty() {
        samples
    } else {
        format!(": {samples}")
    };
    // A preview sets no owner.
    let hint = if message.untouched {
        String::new()
    } else {
        format!("; {}", runs::owner_hint(user))
    };
    format!(
        "{} files or folders could not be restored{listed}{code}{hint}",
        message.errors - unset(message).min(message.errors),
    )
}

/// What a restore lacks whose files are there: reason and text.
fn lacking(message: &Message<Summary>, asked: Asked) -> Option<(&'static str, String)> {
    let unset = message.unset.as_ref().filter(|unset| unset.files > 0)?;
    let text = format!(
        "attributes could not be set on {} files or folders, whose content is there: {} (operation not permitted)",
        unset.files,
        unset.names.join(", ")
    );
    // restic ends before that where it had any trouble.
    Some(if asked.verify {
        let skipped = "so the files were not compared, as spec.options.verify asks for";
        (reasons::VERIFICATION_SKIPPED, format!("{text}; {skipped}"))
    } else {
        (reasons::ATTRIBUTES_NOT_RESTORED, text)
    })
}

/// More about a restore that went well: what stayed, and what could not be brought back.
fn note(summary: &Summary, message: &Message<Summary>, user: Option<i64>, asked: Asked) -> Option<String> {
    let kept = summary.files_skipped;
    let kept = (kept > 0).then(|| {
        format!(
            "{kept} files were there already and stayed as they are ({})",
            units::bytes(summary.bytes_skipped)
        )
    });
    // restic neither tries nor reports it when it may not change the owner of files.
    let owners = user.filter(|user| *user != 0).map(|user| {
        format!(
            "owners were not restored, nor attributes that only root may set: all files belong to user {user}, which the pod runs as; to keep owners, set spec.jobConfig.securityContext.runAsUser to 0"
        )
    });
    let deleted = summary.files_deleted;
    let deleted = (deleted > 0)
        .then(|| format!("{deleted} files and folders that are not in the snapshot were deleted"));
    let lacking = lacking(message, asked).map(|(_, text)| text);
    let notes: Vec<String> = [kept, deleted, owners, lacking].into_iter().flatten().collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// A restore is not tried again by itself: what it has written must not be written over by surprise.
fn text_of(failure: &Failure, code: i32) -> String {
    match failure {
        Failure::Interrupted => "restic was stopped before it had finished; what it had written is there, the rest is not: create the restore anew".to_owned(),
        Failure::Locked(_) => format!("{failure} (exit code {code})"),
        _ => message::text_of(failure, code),
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
