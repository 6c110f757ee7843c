//! How a run ended, out of what its pod and its Job tell. Pure.

use crds::backup::{BackupResult, BackupRun};
use crds::conditions::whole_seconds;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::pod::message::{self, Message, waiting_for};
use crate::units;
use crate::world::{JobEnd, JobView, PodView, Termination};

/// Last line of `restic backup --json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Summary {
    files_new: u64,
    files_changed: u64,
    data_added: u64,
    /// Since restic 0.17.
    data_added_packed: Option<u64>,
    total_files_processed: u64,
    total_bytes_processed: u64,
    snapshot_id: Option<String>,
    dry_run: bool,
}

/// What became of a run, in words.
struct Verdict {
    result: BackupResult,
    reason: Option<&'static str>,
    message: Option<String>,
    summary: Option<Summary>,
}

/// A finished Job as a run. `None` while the end of its pod may still become known.
#[must_use]
pub fn run(
    name: &str,
    job: &JobView,
    pods: &[&PodView],
    skip_unchanged: bool,
    patience_over: bool,
) -> Option<BackupRun> {
    let (ended, end) = job.end.as_ref()?;
    // With a backoffLimit the newest attempt counts.
    let pod = pods.iter().max_by_key(|pod| {
        pod.restic
            .as_ref()
            .and_then(|t| t.finished)
            .unwrap_or(Timestamp::MIN)
    });
    let termination = pod.and_then(|pod| pod.restic.as_ref());
    let verdict = match (termination, end) {
        (Some(termination), _) => of_termination(termination, end, skip_unchanged),
        (None, _) if !patience_over => return None,
        (None, end) => of_job(end, pod.copied()),
    };
    let started = termination.and_then(|t| t.started).or(job.start).or(job.created);
    let finished = termination.and_then(|t| t.finished).or(*ended);
    let duration = started
        .zip(finished)
        .map(|(s, f)| units::duration(f.duration_since(s)));
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let summary = verdict.summary.as_ref();
    Some(BackupRun {
        start_time: started.map(|t| Time(whole_seconds(t))),
        completion_time: finished.map(|t| Time(whole_seconds(t))),
        duration,
        snapshot_id: summary.and_then(|s| s.snapshot_id.clone()),
        result: verdict.result,
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        job: Some(name.to_owned()),
        bytes_added: summary.map(|s| signed(s.data_added_packed.unwrap_or(s.data_added))),
        bytes_processed: summary.map(|s| signed(s.total_bytes_processed)),
        files_processed: summary.map(|s| signed(s.total_files_processed)),
        files_new: summary.map(|s| signed(s.files_new)),
        files_changed: summary.map(|s| signed(s.files_changed)),
    })
}

fn of_termination(termination: &Termination, end: &JobEnd, skip_unchanged: bool) -> Verdict {
    let failed = |reason, message: String| Verdict {
        result: BackupResult::Failed,
        reason: Some(reason),
        message: Some(message),
        summary: None,
    };
    let Ok(mut message) = Message::<Summary>::parse(&termination.message) else {
        return match (&*termination.reason, end) {
            ("OOMKilled", _) => failed("OutOfMemory", "restic was killed because the container reached its memory limit; raise spec.jobConfig.resources.limits.memory".to_owned()),
            (_, JobEnd::Failed { reason, message }) if **reason == *"DeadlineExceeded" => {
                failed("DeadlineExceeded", format!("{message}; raise spec.jobConfig.activeDeadlineSeconds if the backup needs longer"))
            }
            _ => failed("ContainerFailed", format!(
                "the container ended with exit code {} ({}) before restic could tell a result; see the pod's log",
                termination.exit_code, termination.reason
            )),
        };
    };
    let summary = message.summary.take();
    let has_snapshot = summary
        .as_ref()
        .is_some_and(|s| s.snapshot_id.is_some() && !s.dry_run);
    let partly = |reason, text: String, summary| Verdict {
        result: BackupResult::PartiallyFailed,
        reason: Some(reason),
        message: Some(text),
        summary,
    };
    match message.exit_code {
        0 | 3 if summary.is_none() => failed("NoSummary", "restic ended without telling what it stored; see the pod's log".to_owned()),
        0 | 3 if message.lock_lost && has_snapshot => partly(
            "LockLost",
            "restic lost its lock while it ran: a prune may have removed what this snapshot needs; run `restic check` and back up again".to_owned(),
            summary,
        ),
        0 if has_snapshot || skip_unchanged => {
            Verdict { result: BackupResult::Succeeded, reason: None, message: None, summary }
        }
        0 => failed("NoSnapshot", "restic ended well but stored no snapshot".to_owned()),
        3 => {
            let listed = message.samples();
            let count = message.errors.max(1);
            let files = if count == 1 { "1 file or folder".to_owned() } else { format!("{count} files or folders") };
            partly(
                "FilesUnreadable",
                format!("{files} could not be read{listed}; the snapshot holds the rest; {}", message::OWNER_HINT),
                summary,
            )
        }
        _ if message.nothing_readable() => failed(
            "FilesUnreadable",
            format!("nothing could be read, and no snapshot was stored{}; {}", message.samples(), message::OWNER_HINT),
        ),
        code => {
            let failure = message.failure();
            failed(message::reason_of(&failure), message::text_of(&failure, code))
        }
    }
}

/// Nothing is known of a container: the pod's or the Job's own words.
fn of_job(end: &JobEnd, pod: Option<&PodView>) -> Verdict {
    let (reason, message): (&'static str, String) = match (end, pod) {
        (_, Some(pod)) if !pod.reason.is_empty() => (
            "PodFailed",
            format!("the pod ended: {} {}", pod.reason, pod.message)
                .trim()
                .to_owned(),
        ),
        (JobEnd::Failed { reason, message }, Some(pod))
            if pod.waiting.is_some() || pod.unschedulable.is_some() =>
        {
            let words = waiting_for(pod).map(|(_, words)| words).unwrap_or_default();
            (
                "PodNeverStarted",
                format!("{reason}: {message}; the pod waited: {words}"),
            )
        }
        (JobEnd::Failed { reason, message }, _) => ("JobFailed", format!("{reason}: {message}")),
        (JobEnd::Complete, _) => (
            "ResultLost",
            "the Job completed, but its pod is gone and with it the result".to_owned(),
        ),
    };
    Verdict {
        result: BackupResult::Failed,
        reason: Some(reason),
        message: Some(message),
        summary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Meta;

    const SUMMARY: &str = r#"{"message_type":"summary","files_new":2,"files_changed":1,"data_added":100,"data_added_packed":60,
        "total_files_processed":5,"total_bytes_processed":900,"snapshot_id":"abc"}"#;

    fn job(end: JobEnd) -> JobView {
        let at = Timestamp::from_second(100).unwrap();
        JobView {
            meta: Meta::default(),
            of: None,
            start: Some(at),
            end: Some((Some(at), end)),
            created: None,
            snapshot: None,
            suspended: false,
            lease: None,
            approved: None,
            ..JobView::default()
        }
    }

    fn pod(exit: i32, reason: &str, message: &str) -> PodView {
        let at = |s| Some(Timestamp::from_second(s).unwrap());
        let restic = Termination {
            exit_code: exit,
            reason: reason.into(),
            message: message.into(),
            started: at(100),
            finished: at(172),
        };
        PodView {
            meta: Meta::default(),
            of: None,
            phase: "Failed".into(),
            reason: "".into(),
            message: "".into(),
            started: false,
            token: None,
            renewals: 0,
            restic: Some(restic),
            waiting: None,
            unschedulable: None,
            ..PodView::default()
        }
    }

    fn verdict(message: &str) -> BackupRun {
        run(
            "j",
            &job(JobEnd::Complete),
            &[&pod(0, "Completed", message)],
            false,
            false,
        )
        .unwrap()
    }

    fn told(exit: i32, rest: &str) -> String {
        format!("{{\"exitCode\":{exit},{rest}\"items\":[]}}")
    }

    #[test]
    fn success_carries_exact_figures() {
        let run = verdict(&told(0, &format!("\"summary\":{SUMMARY},")));
        assert_eq!(
            (run.result, run.snapshot_id.as_deref(), run.duration.as_deref()),
            (BackupResult::Succeeded, Some("abc"), Some("1m12s"))
        );
        assert_eq!(
            (run.bytes_added, run.bytes_processed, run.files_processed),
            (Some(60), Some(900), Some(5))
        );
    }

    #[test]
    fn nothing_looks_like_a_backup_that_is_none() {
        for (message, reason) in [
            (told(0, ""), "NoSummary"),
            (told(0, r#""summary":{"files_new":1},"#), "NoSnapshot"),
            (
                told(0, r#""summary":{"snapshot_id":"x","dry_run":true},"#),
                "NoSnapshot",
            ),
            (told(10, ""), "RepositoryMissing"),
            (
                told(11, r#""fatal":{"message":"already locked by PID 7"},"#),
                "RepositoryLocked",
            ),
            (told(12, ""), "WrongPassword"),
            (told(130, ""), "Interrupted"),
            (
                told(1, r#""fatal":{"message":"dial tcp: connection refused"},"#),
                "RepositoryUnreachable",
            ),
            (told(1, ""), "ResticFailed"),
            (told(99, ""), "ResticFailed"),
            ("garbage".to_owned(), "ContainerFailed"),
            (String::new(), "ContainerFailed"),
        ] {
            let run = verdict(&message);
            assert_eq!(
                (run.result, run.reason.as_deref()),
                (BackupResult::Failed, Some(reason)),
                "{message}"
            );
            assert!(run.message.is_some_and(|m| !m.is_empty()));
        }
    }

    #[test]
    fn partial_results_name_samples_and_lost_locks() {
        let items = r#"{"exitCode":3,"errors":7,"items":[{"item":"/backup/a","error":{"message":"permission denied"}}],"summary":"#;
        let run = verdict(&format!("{items}{SUMMARY}}}"));
        assert_eq!(
            (run.result, run.reason.as_deref()),
            (BackupResult::PartiallyFailed, Some("FilesUnreadable"))
        );
        assert!(
            run.message
                .unwrap()
                .starts_with("7 files or folders could not be read, such as /backup/a (permission denied)")
        );
        let run = verdict(&told(0, &format!("\"lockLost\":true,\"summary\":{SUMMARY},")));
        assert_eq!(
            (run.result, run.reason.as_deref()),
            (BackupResult::PartiallyFailed, Some("LockLost"))
        );
    }

    #[test]
    fn a_volume_that_the_pod_may_not_read_names_the_field_that_helps() {
        let fatal = r#""fatal":{"message":"unable to save snapshot: snapshot is empty"},"errors":1,"#;
        let item = r#"[{"item":"/backup","error":{"message":"open /backup: permission denied"}}]"#;
        let run = verdict(&format!("{{\"exitCode\":1,{fatal}\"items\":{item}}}"));
        let message = run.message.unwrap();
        assert_eq!(run.reason.as_deref(), Some("FilesUnreadable"), "{message}");
        for part in [
            "/backup: permission denied",
            "65532",
            "jobConfig.securityContext.runAsUser: <owner>",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn an_unchanged_source_may_be_skipped_on_request() {
        let message = told(0, r#""summary":{"files_new":0},"#);
        let run = run(
            "j",
            &job(JobEnd::Complete),
            &[&pod(0, "Completed", &message)],
            true,
            false,
        )
        .unwrap();
        assert_eq!((run.result, run.snapshot_id), (BackupResult::Succeeded, None));
    }

    #[test]
    fn memory_and_deadline_say_which_field_to_change() {
        let end = || JobEnd::Failed {
            reason: "DeadlineExceeded".into(),
            message: "Job was active longer than specified deadline".into(),
        };
        let killed = run("j", &job(end()), &[&pod(137, "OOMKilled", "")], false, false).unwrap();
        assert!(killed.message.unwrap().contains("limits.memory"));
        let late = run("j", &job(end()), &[&pod(137, "Error", "")], false, false).unwrap();
        assert!(late.message.unwrap().contains("activeDeadlineSeconds"));
    }

    #[test]
    fn an_end_that_is_not_known_yet_is_waited_for() {
        assert!(run("j", &job(JobEnd::Complete), &[], false, false).is_none());
        let lost = run("j", &job(JobEnd::Complete), &[], false, true).unwrap();
        assert_eq!(lost.reason.as_deref(), Some("ResultLost"));
    }
}
