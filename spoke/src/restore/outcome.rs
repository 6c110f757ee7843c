//! How a restore ended, as its status reports it. Pure.

use crds::conditions::{reasons, whole_seconds};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::pod::message::{self, Message};
use crate::runs::{self, Ended, Ending, JobWithPods, State, Words};
use crate::units;

/// A pod that has not started by then never will.
pub const START_LIMIT: SignedDuration = SignedDuration::from_secs(3600);

/// Last line of `restic restore --json`. All counts are absent when nothing matched.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Summary {
    total_files: u64,
    files_restored: u64,
    files_skipped: u64,
    bytes_restored: u64,
    bytes_skipped: u64,
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
    pub started: Option<Time>,
    pub finished: Option<Time>,
    pub duration: Option<String>,
    /// More about a restore that went well.
    pub note: Option<String>,
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

/// Where it stands. `filtered`: only a part of the snapshot is restored.
#[must_use]
pub fn progress(run: &JobWithPods, filtered: bool, now: Timestamp) -> Progress {
    match runs::state::<Message<Summary>>(run, now) {
        State::Running => Progress::Running,
        State::Settling(again) => Progress::Settling(again),
        State::Ended(ended) => {
            let whole = run.job.snapshot_files.filter(|_| !filtered);
            Progress::Over(only_files(outcome(ended, filtered), whole))
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

fn outcome(ended: Ended<Message<Summary>>, filtered: bool) -> Outcome {
    let (started, finished, user) = (ended.started, ended.finished, ended.user);
    let outcome = match ended.ending {
        Ending::Unreported { exit: 0 } => Outcome {
            note: Some("how much is not known: the original operator made this Job".to_owned()),
            ..Outcome::default()
        },
        ending => match runs::report(ending, "restore") {
            Ok(message) => of_message(&message, user, filtered),
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

fn of_message(message: &Message<Summary>, user: Option<i64>, filtered: bool) -> Outcome {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let summary = message.summary.as_ref();
    let nothing = summary.is_some_and(|s| s.total_files == 0 && s.files_skipped == 0);
    let failure = match (message.exit_code, summary) {
        (0, None) => Some((
            "NoSummary",
            "restic ended without telling what it restored; see the pod's log".to_owned(),
        )),
        (0, _) if nothing && filtered => Some((
            reasons::NOTHING_MATCHED,
            "nothing in the snapshot matches spec.includePaths and spec.excludePaths, so nothing was restored; paths are relative to the data, without /backup".to_owned(),
        )),
        _ if message.errors > 0 => Some(("FilesNotRestored", not_restored(message, user))),
        (0, Some(_)) => None,
        (code, _) => {
            let failure = message.failure();
            Some((message::reason_of(&failure), text_of(&failure, code)))
        }
    };
    let note = summary.filter(|_| failure.is_none()).and_then(|s| note(s, user));
    Outcome {
        failure,
        files: summary.map(|s| signed(s.files_restored)),
        bytes: summary.map(|s| signed(s.bytes_restored)),
        note,
        ..Outcome::default()
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
    format!(
        "{} files or folders could not be restored{listed}{code}; {}",
        message.errors,
        runs::owner_hint(user)
    )
}

/// More about a restore that went well: what stayed, and what could not be brought back.
fn note(summary: &Summary, user: Option<i64>) -> Option<String> {
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
            "owners were not restored: all files belong to user {user}, which the pod runs as; to keep owners, set spec.jobConfig.securityContext.runAsUser to 0"
        )
    });
    let notes: Vec<String> = kept.into_iter().chain(owners).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// A restore is not tried again by itself: what it has written must not be written over by surprise.
fn text_of(failure: &crate::restic::Failure, code: i32) -> String {
    use crate::restic::Failure;
    match failure {
        Failure::Interrupted => "restic was stopped before it had finished; what it had written is there, the rest is not: create the restore anew".to_owned(),
        Failure::Locked(_) => format!("{failure} (exit code {code})"),
        _ => message::text_of(failure, code),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::{JobEnd, JobView, Key, PodView, Termination};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(end: Option<JobEnd>, pod: Option<PodView>) -> JobWithPods {
        let job = JobView {
            start: Some(at(100)),
            end: end.map(|end| (Some(at(110)), end)),
            ..JobView::default()
        };
        JobWithPods {
            job: Arc::new(job),
            pods: pod
                .into_iter()
                .map(|pod| (Key::new("ns", "p"), Arc::new(pod)))
                .collect(),
            delivery: crate::world::Delivery::complete(Timestamp::MIN),
            ..JobWithPods::default()
        }
    }

    fn pod(phase: &str, message: Option<&str>) -> PodView {
        PodView {
            phase: phase.into(),
            restic: message.map(|message| Termination {
                exit_code: 0,
                reason: "Completed".into(),
                message: message.into(),
                started: Some(at(100)),
                finished: Some(at(109)),
            }),
            unschedulable: (phase == "Pending")
                .then(|| "0/1 nodes are available: 1 Insufficient cpu.".into()),
            user: Some(0),
            ..PodView::default()
        }
    }

    fn over_as(user: i64, message: &str, filtered: bool) -> Outcome {
        let mut pod = pod("Succeeded", Some(message));
        pod.user = Some(user);
        match progress(&run(Some(JobEnd::Complete), Some(pod)), filtered, at(111)) {
            Progress::Over(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn over(message: &str, filtered: bool) -> Outcome {
        over_as(0, message, filtered)
    }

    #[test]
    fn a_job_of_the_original_operator_ends_by_its_exit_code() {
        let ended = |exit_code: i32, end| {
            let mut pod = pod("Succeeded", Some(""));
            pod.restic.as_mut().unwrap().exit_code = exit_code;
            let mut run = run(Some(end), Some(pod));
            Arc::make_mut(&mut run.job).original = true;
            match progress(&run, false, at(111)) {
                Progress::Over(outcome) => outcome,
                other => panic!("{other:?}"),
            }
        };
        let well = ended(0, JobEnd::Complete);
        assert_eq!((well.failure, well.files), (None, None));
        assert!(well.note.unwrap().contains("original operator"));
        let failed = JobEnd::Failed {
            reason: "BackoffLimitExceeded".into(),
            message: "".into(),
        };
        let (reason, text) = ended(1, failed).failure.unwrap();
        assert!(
            reason == "ContainerFailed" && text.contains("exit code 1"),
            "{text}"
        );
    }

    #[test]
    fn a_summary_tells_files_and_bytes() {
        let outcome = over(
            r#"{"exitCode":0,"summary":{"total_files":4,"files_restored":4,"total_bytes":9,"bytes_restored":9}}"#,
            false,
        );
        assert_eq!(
            (outcome.failure, outcome.files, outcome.bytes),
            (None, Some(4), Some(9))
        );
        assert_eq!(outcome.duration.as_deref(), Some("9s"));
    }

    #[test]
    fn nothing_matched_is_a_failure_although_restic_is_content() {
        let message = r#"{"exitCode":0,"summary":{"message_type":"summary"}}"#;
        assert_eq!(over(message, true).failure.unwrap().0, reasons::NOTHING_MATCHED);
        assert_eq!(
            over(message, false).failure,
            None,
            "an empty volume is restored empty"
        );
    }

    #[test]
    fn files_that_were_kept_are_told() {
        let outcome = over(
            r#"{"exitCode":0,"summary":{"total_files":3,"files_restored":3,"files_skipped":3,"bytes_skipped":6}}"#,
            false,
        );
        assert!(outcome.note.unwrap().starts_with("3 files were there already"));
    }

    #[test]
    fn failures_keep_restics_words() {
        let outcome = over(
            r#"{"exitCode":11,"fatal":{"message":"unable to create lock: repository is already locked exclusively by PID 7 on x"}}"#,
            false,
        );
        assert_eq!(outcome.failure.unwrap().0, "RepositoryLocked");
        assert_eq!(
            over(r#"{"exitCode":1,"summary":{},"errors":2}"#, false)
                .failure
                .unwrap()
                .0,
            "FilesNotRestored"
        );
    }

    #[test]
    fn folders_are_not_counted_as_files() {
        let message = r#"{"exitCode":0,"summary":{"total_files":28,"files_restored":28}}"#;
        let restored = |filtered| {
            let mut run = run(Some(JobEnd::Complete), Some(pod("Succeeded", Some(message))));
            Arc::make_mut(&mut run.job).snapshot_files = Some(25);
            match progress(&run, filtered, at(111)) {
                Progress::Over(outcome) => (outcome.files, outcome.with_folders),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(restored(false), (Some(25), false));
        assert_eq!(restored(true), (Some(28), true));
    }

    #[test]
    fn owners_that_could_not_be_given_back_are_told() {
        let message = r#"{"exitCode":0,"summary":{"total_files":3,"files_restored":3}}"#;
        let note = over_as(65532, message, false).note.unwrap();
        assert!(
            note.contains("user 65532") && note.contains("runAsUser to 0"),
            "{note}"
        );
        assert_eq!(over_as(0, message, false).note, None);
    }

    #[test]
    fn a_pod_that_never_starts_fails_with_the_schedulers_words() {
        let state = |now| progress(&run(None, Some(pod("Pending", None))), false, at(now));
        assert!(matches!(
            state(105),
            Progress::Waiting {
                words: None,
                again: Some(_)
            }
        ));
        let Progress::Waiting {
            words: Some(Words { reason, text }),
            ..
        } = state(130)
        else {
            panic!()
        };
        assert!(reason == "Unschedulable" && text.contains("Insufficient cpu"));
        let Progress::NeverStarted(outcome) = state(3700) else {
            panic!()
        };
        assert!(outcome.failure.unwrap().1.contains("Insufficient cpu"));
    }

    #[test]
    fn what_it_waited_for_is_known_when_its_deadline_has_passed() {
        let deadline = JobEnd::Failed {
            reason: "DeadlineExceeded".into(),
            message: "Job was active longer than specified deadline".into(),
        };
        let mut ended = run(Some(deadline), None);
        ended.last_words = Some("Insufficient cpu".to_owned());
        let Progress::Over(outcome) = progress(&ended, false, at(130)) else {
            panic!()
        };
        let (reason, text) = outcome.failure.unwrap();
        assert!(reason == reasons::POD_NEVER_STARTED && text.contains("Insufficient cpu"));
    }
}
