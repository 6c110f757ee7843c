//! How a restore ended, out of what its pod and its Job tell. Pure.

use crds::conditions::{reasons, whole_seconds};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::pod::message::{self, Message, waiting_for};
use crate::units;
use crate::world::{JobEnd, JobView, PodView};

/// Time for the end of a pod to become known after the end of its Job: two watches, two orders.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// A pod that has not started by then is worth a word.
const START_PATIENCE: SignedDuration = SignedDuration::from_secs(20);
/// A pod that has not started by then never will.
pub const START_LIMIT: SignedDuration = SignedDuration::from_secs(3600);

/// Last line of `restic restore --json`. All counts are absent when nothing matched.
#[derive(Debug, Default, Deserialize)]
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
    /// What its pod waits for, if anything, and when to look again.
    Running {
        waiting: Option<(String, String)>,
        again: Option<Timestamp>,
    },
    /// Nothing new is known: there is no pod, or its end may still become known. Look again then.
    Settling(Option<Timestamp>),
    /// The pod has not started and is not going to: the Job has to go.
    NeverStarted(Outcome),
    Over(Outcome),
}

/// Where it stands. `last_words` is what its pod was last known to wait for.
#[must_use]
pub fn progress(
    job: &JobView,
    pods: &[&PodView],
    filtered: bool,
    last_words: Option<&str>,
    behind: Timestamp,
    now: Timestamp,
) -> Progress {
    let Some((ended, end)) = &job.end else {
        return running(job, pods, now);
    };
    let pod = pods.iter().max_by_key(|pod| {
        pod.restic
            .as_ref()
            .and_then(|t| t.finished)
            .unwrap_or(Timestamp::MIN)
    });
    let termination = pod.and_then(|pod| pod.restic.as_ref());
    let at = ended.unwrap_or(now);
    let Some(termination) = termination else {
        let known = at.max(behind);
        if now.duration_since(known) < PATIENCE {
            return Progress::Settling(known.checked_add(PATIENCE).ok());
        }
        return Progress::Over(Outcome {
            finished: Some(Time(whole_seconds(at))),
            failure: Some(without_pod(end, pod.copied(), last_words)),
            ..Outcome::default()
        });
    };
    let (started, finished) = (termination.started.or(job.start), termination.finished.or(*ended));
    let mut outcome = of_message(
        &termination.message,
        termination.exit_code,
        &termination.reason,
        end,
        filtered,
    );
    outcome.duration = started
        .zip(finished)
        .map(|(s, f)| units::duration(f.duration_since(s)));
    outcome.started = started.map(|t| Time(whole_seconds(t)));
    outcome.finished = finished.map(|t| Time(whole_seconds(t)));
    Progress::Over(outcome)
}

fn running(job: &JobView, pods: &[&PodView], now: Timestamp) -> Progress {
    let since = job.start.or(job.created).unwrap_or(now);
    // Not made yet, or deleted on the way to an end that is about to be told.
    if pods.is_empty() {
        return Progress::Settling(None);
    }
    let pending = pods.iter().find(|pod| &*pod.phase == "Pending");
    let Some(pod) = pending else {
        return Progress::Running {
            waiting: None,
            again: None,
        };
    };
    let waited = now.duration_since(since);
    if waited < START_PATIENCE {
        let again = since.checked_add(START_PATIENCE).ok();
        return Progress::Running { waiting: None, again };
    }
    let words = waiting_for(pod);
    if waited >= START_LIMIT {
        let words = words.map_or_else(|| "no reason is known".to_owned(), |(_, words)| words);
        let text = format!(
            "the pod did not start within {}: {words}",
            units::duration(START_LIMIT)
        );
        return Progress::NeverStarted(Outcome {
            failure: Some((reasons::POD_NEVER_STARTED, text)),
            finished: Some(Time(whole_seconds(now))),
            ..Outcome::default()
        });
    }
    Progress::Running {
        waiting: words.map(|(reason, words)| (reason.to_owned(), format!("its pod: {words}"))),
        again: since.checked_add(START_LIMIT).ok(),
    }
}

fn of_message(text: &str, code: i32, reason: &str, end: &JobEnd, filtered: bool) -> Outcome {
    let failed = |reason, text| Outcome {
        failure: Some((reason, text)),
        ..Outcome::default()
    };
    let Ok(message) = Message::<Summary>::parse(text) else {
        return match (reason, end) {
            ("OOMKilled", _) => failed(
                "OutOfMemory",
                "restic was killed because the container reached its memory limit; raise spec.jobConfig.resources.limits.memory".to_owned(),
            ),
            (_, JobEnd::Failed { reason, message }) if **reason == *"DeadlineExceeded" => failed(
                "DeadlineExceeded",
                format!("{message}; raise spec.jobConfig.activeDeadlineSeconds if the restore needs longer"),
            ),
            _ => failed(
                "ContainerFailed",
                format!("the container ended with exit code {code} ({reason}) before restic could tell a result; see the pod's log"),
            ),
        };
    };
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let summary = message.summary.as_ref();
    let mut outcome = Outcome {
        files: summary.map(|s| signed(s.files_restored)),
        bytes: summary.map(|s| signed(s.bytes_restored)),
        ..Outcome::default()
    };
    let nothing = summary.is_some_and(|s| s.total_files == 0 && s.files_skipped == 0);
    outcome.failure = match (message.exit_code, summary) {
        (0, None) => Some((
            "NoSummary",
            "restic ended without telling what it restored; see the pod's log".to_owned(),
        )),
        (0, _) if nothing && filtered => Some((
            reasons::NOTHING_MATCHED,
            "nothing in the snapshot matches spec.includePaths and spec.excludePaths, so nothing was restored; paths are relative to the data, without /backup".to_owned(),
        )),
        (0, _) if message.errors > 0 => Some((
            "FilesNotRestored",
            format!("{} files or folders could not be restored{}; {}", message.errors, message.samples(), message::OWNER_HINT),
        )),
        (0, Some(s)) => {
            let kept = s.files_skipped;
            outcome.note = (kept > 0).then(|| {
                format!("{kept} files were there already and stayed as they are ({})", units::bytes(s.bytes_skipped))
            });
            None
        }
        (code, _) if message.errors > 0 => Some((
            "FilesNotRestored",
            format!(
                "{} files or folders could not be restored{} (exit code {code}); {}",
                message.errors,
                message.samples(),
                message::OWNER_HINT
            ),
        )),
        (code, _) => {
            let failure = message.failure();
            Some((message::reason_of(&failure), text_of(&failure, code)))
        }
    };
    outcome
}

/// A restore is not tried again by itself: what it has written must not be written over by surprise.
fn text_of(failure: &crate::restic::Failure, code: i32) -> String {
    use crate::restic::Failure;
    match failure {
        Failure::Interrupted => "restic was told to stop before it had finished; what it had written is there, the rest is not: create the restore anew".to_owned(),
        _ => format!("{failure} (exit code {code})"),
    }
}

fn without_pod(end: &JobEnd, pod: Option<&PodView>, last_words: Option<&str>) -> (&'static str, String) {
    let words = pod.and_then(waiting_for).map(|(_, words)| words);
    let words = words.or_else(|| last_words.map(str::to_owned));
    match (end, words) {
        (JobEnd::Failed { reason, message }, Some(words)) => (
            reasons::POD_NEVER_STARTED,
            format!("{reason}: {message}; the pod never started: {words}"),
        ),
        (JobEnd::Failed { reason, message }, None) => {
            let pod = pod.filter(|p| !p.reason.is_empty());
            let more = pod.map(|p| format!("; the pod ended: {} {}", p.reason, p.message));
            let text = format!("{reason}: {message}{}", more.unwrap_or_default());
            ("JobFailed", text.trim().to_owned())
        }
        (JobEnd::Complete, _) => (
            "ResultLost",
            "the Job completed, but its pod is gone and with it the result; look at the target".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Meta, Termination};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn job(end: Option<JobEnd>) -> JobView {
        JobView {
            meta: Meta::default(),
            of: None,
            start: Some(at(100)),
            end: end.map(|end| (Some(at(110)), end)),
            created: None,
            snapshot: None,
            suspended: false,
            lease: None,
            approved: None,
            ..JobView::default()
        }
    }

    fn pod(phase: &str, message: Option<&str>) -> PodView {
        PodView {
            meta: Meta::default(),
            of: None,
            phase: phase.into(),
            reason: "".into(),
            message: "".into(),
            started: false,
            token: None,
            renewals: 0,
            restic: message.map(|message| Termination {
                exit_code: 0,
                reason: "Completed".into(),
                message: message.into(),
                started: Some(at(100)),
                finished: Some(at(109)),
            }),
            waiting: None,
            unschedulable: (phase == "Pending")
                .then(|| "0/1 nodes are available: 1 Insufficient cpu.".into()),
            ..PodView::default()
        }
    }

    fn over(message: &str, filtered: bool) -> Outcome {
        let pod = pod("Succeeded", Some(message));
        match progress(
            &job(Some(JobEnd::Complete)),
            &[&pod],
            filtered,
            None,
            Timestamp::MIN,
            at(111),
        ) {
            Progress::Over(outcome) => outcome,
            other => panic!("{other:?}"),
        }
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
    fn a_pod_that_never_starts_fails_with_the_schedulers_words() {
        let waits = pod("Pending", None);
        let state = |now| progress(&job(None), &[&waits], false, None, Timestamp::MIN, at(now));
        assert!(matches!(
            state(105),
            Progress::Running {
                waiting: None,
                again: Some(_)
            }
        ));
        let Progress::Running {
            waiting: Some((reason, words)),
            ..
        } = state(130)
        else {
            panic!()
        };
        assert!(reason == "Unschedulable" && words.contains("Insufficient cpu"));
        let Progress::NeverStarted(outcome) = state(3700) else {
            panic!()
        };
        assert!(outcome.failure.unwrap().1.contains("Insufficient cpu"));
        assert_eq!(
            progress(&job(None), &[], false, None, Timestamp::MIN, at(130)),
            Progress::Settling(None),
            "the pod goes before its Job ends"
        );
        let deadline = JobEnd::Failed {
            reason: "DeadlineExceeded".into(),
            message: "Job was active longer than specified deadline".into(),
        };
        let Progress::Over(outcome) = progress(
            &job(Some(deadline)),
            &[],
            false,
            Some("Insufficient cpu"),
            Timestamp::MIN,
            at(130),
        ) else {
            panic!()
        };
        let (reason, text) = outcome.failure.unwrap();
        assert!(reason == reasons::POD_NEVER_STARTED && text.contains("Insufficient cpu"));
    }
}
