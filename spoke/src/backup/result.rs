//! How a run ended, in the words of a backup. Pure.

use crds::backup::{BackupResult, BackupRun};
use crds::conditions::whole_seconds;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::pod::SOURCE_DIR;
use crate::pod::message::{self, Message};
use crate::runs::{self, Ended, Ending};
use crate::units;

/// Last line of `restic backup --json`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Summary {
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

/// A Job that has ended as a run.
#[must_use]
pub fn run(job: &str, ended: Ended<Message<Summary>>, skip_unchanged: bool) -> BackupRun {
    let (started, finished) = (ended.started, ended.finished);
    let verdict = match ended.ending {
        Ending::Unreported { exit: exit @ (0 | 3) } => unreported(exit),
        ending => match runs::report(ending, "backup") {
            Ok(message) => of_message(message, ended.user, skip_unchanged),
            Err((reason, message)) => failed(reason, message),
        },
    };
    let duration = started
        .zip(finished)
        .map(|(s, f)| units::duration(f.duration_since(s)));
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let summary = verdict.summary.as_ref();
    BackupRun {
        start_time: started.map(|t| Time(whole_seconds(t))),
        completion_time: finished.map(|t| Time(whole_seconds(t))),
        duration,
        snapshot_id: summary.and_then(|s| s.snapshot_id.clone()),
        result: verdict.result,
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        job: Some(job.to_owned()),
        bytes_added: summary.map(|s| signed(s.data_added_packed.unwrap_or(s.data_added))),
        bytes_processed: summary.map(|s| signed(s.total_bytes_processed)),
        files_processed: summary.map(|s| signed(s.total_files_processed)),
        files_new: summary.map(|s| signed(s.files_new)),
        files_changed: summary.map(|s| signed(s.files_changed)),
        hooks: Vec::new(),
    }
}

/// A Job that the original operator made has stored a snapshot, at least of what could be read.
fn unreported(exit: i32) -> Verdict {
    let whole = exit == 0;
    let text = if whole {
        "its figures are not known: the original operator made this Job"
    } else {
        "some files or folders could not be read; the original operator made this Job, so more is only in the pod's log"
    };
    Verdict {
        result: if whole {
            BackupResult::Succeeded
        } else {
            BackupResult::PartiallyFailed
        },
        reason: (!whole).then_some("FilesUnreadable"),
        message: Some(text.to_owned()),
        summary: None,
    }
}

fn failed(reason: &'static str, message: String) -> Verdict {
    Verdict {
        result: BackupResult::Failed,
        reason: Some(reason),
        message: Some(message),
        summary: None,
    }
}

fn of_message(mut message: Message<Summary>, user: Option<i64>, skip_unchanged: bool) -> Verdict {
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
        0 | 3 if summary.is_none() => failed(
            "NoSummary",
            "restic ended without telling what it stored; see the pod's log".to_owned(),
        ),
        0 | 3 if message.lock_lost && has_snapshot => partly(
            "LockLost",
            "restic lost its lock while it ran: a prune may have removed what this snapshot needs; run `restic check` and back up again".to_owned(),
            summary,
        ),
        0 if has_snapshot || skip_unchanged => Verdict {
            result: BackupResult::Succeeded,
            reason: None,
            message: None,
            summary,
        },
        0 => failed("NoSnapshot", "restic ended well but stored no snapshot".to_owned()),
        // A snapshot of folders that could not be entered.
        3 if summary.as_ref().is_some_and(|s| s.total_files_processed == 0) => Verdict {
            summary,
            ..failed(
                "FilesUnreadable",
                unreadable("nothing could be read", "the snapshot holds no file; ", &message, user),
            )
        },
        3 => {
            let text = match message.errors.max(1) {
                1 => "1 file or folder could not be read".to_owned(),
                count => format!("{count} files or folders could not be read"),
            };
            partly(
                "FilesUnreadable",
                unreadable(&text, "the snapshot holds the rest; ", &message, user),
                summary,
            )
        }
        _ if message.nothing_readable() => {
            failed("FilesUnreadable", unreadable("nothing could be read", "", &message, user))
        }
        code => {
            if let Some((reason, text)) = message.source_failure() {
                return failed(reason, text);
            }
            let failure = message.failure();
            failed(message::reason_of(&failure), message::text_of(&failure, code))
        }
    }
}

/// What could not be read, and what to set. The hint is about owners: it is given where permission was denied.
fn unreadable(what: &str, rest: &str, message: &Message<Summary>, user: Option<i64>) -> String {
    let samples = message.samples(SOURCE_DIR);
    let listed = if samples.is_empty() {
        samples
    } else {
        format!(": {samples}")
    };
    let more = usize::try_from(message.errors).unwrap_or(usize::MAX) > message::SAMPLES;
    let and_more = if more { "; …" } else { "" };
    if listed.is_empty() || listed.contains("permission denied") {
        format!("{what}{listed}{and_more}; {rest}{}", runs::owner_hint(user))
    } else {
        format!("{what}{listed}{and_more}; {rest}see the pod's log")
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::runs::Report as _;

    const SUMMARY: &str = r#"{"message_type":"summary","files_new":2,"files_changed":1,"data_added":100,"data_added_packed":60,
        "total_files_processed":5,"total_bytes_processed":900,"snapshot_id":"abc"}"#;

    fn ended(ending: Ending<Message<Summary>>) -> Ended<Message<Summary>> {
        let at = |s| Timestamp::from_second(s).ok();
        Ended {
            ending,
            started: at(100),
            finished: at(172),
            user: Some(65532),
        }
    }

    fn told(message: &str) -> BackupRun {
        let message = Message::parse(message).unwrap();
        run("j", ended(Ending::Message(message)), false)
    }

    fn text(exit: i32, rest: &str) -> String {
        format!("{{\"exitCode\":{exit},{rest}\"items\":[]}}")
    }

    #[test]
    fn success_carries_exact_figures() {
        let run = told(&text(0, &format!("\"summary\":{SUMMARY},")));
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
            (text(0, ""), "NoSummary"),
            (text(0, r#""summary":{"files_new":1},"#), "NoSnapshot"),
            (
                text(0, r#""summary":{"snapshot_id":"x","dry_run":true},"#),
                "NoSnapshot",
            ),
            (text(10, ""), "RepositoryMissing"),
            (
                text(11, r#""fatal":{"message":"already locked by PID 7"},"#),
                "RepositoryLocked",
            ),
            (text(12, ""), "WrongPassword"),
            (text(130, ""), "Interrupted"),
            (
                text(1, r#""fatal":{"message":"dial tcp: connection refused"},"#),
                "RepositoryUnreachable",
            ),
            (text(1, ""), "ResticFailed"),
            (text(99, ""), "ResticFailed"),
            (text(137, ""), "ResticFailed"),
        ] {
            let run = told(&message);
            assert_eq!(
                (run.result, run.reason.as_deref()),
                (BackupResult::Failed, Some(reason)),
                "{message}"
            );
            assert!(run.message.is_some_and(|m| !m.is_empty()));
        }
    }

    #[test]
    fn partial_results_name_files_as_in_the_volume_and_lost_locks() {
        let items = r#"{"exitCode":3,"errors":7,"items":[{"item":"/backup/a","error":{"message":"open /backup/a: permission denied"}}],"summary":"#;
        let run = told(&format!("{items}{SUMMARY}}}"));
        assert_eq!(
            (run.result, run.reason.as_deref()),
            (BackupResult::PartiallyFailed, Some("FilesUnreadable"))
        );
        let message = run.message.unwrap();
        assert!(
            message.starts_with("7 files or folders could not be read: /a: permission denied; …; the snapshot holds the rest; the pod runs as user 65532"),
            "{message}"
        );
        let run = told(&text(0, &format!("\"lockLost\":true,\"summary\":{SUMMARY},")));
        assert_eq!(
            (run.result, run.reason.as_deref()),
            (BackupResult::PartiallyFailed, Some("LockLost"))
        );
    }

    #[test]
    fn a_snapshot_without_a_file_is_no_backup_when_files_could_not_be_read() {
        let run = told(
            r#"{"exitCode":3,"errors":1,"items":[{"item":"/backup/pg","error":{"message":"open /backup/pg: permission denied"}}],
                "summary":{"snapshot_id":"abc","total_files_processed":0}}"#,
        );
        assert_eq!(
            (run.result, run.reason.as_deref(), run.snapshot_id.as_deref()),
            (BackupResult::Failed, Some("FilesUnreadable"), Some("abc"))
        );
        assert!(
            run.message
                .unwrap()
                .starts_with("nothing could be read: /pg: permission denied; the snapshot holds no file; ")
        );
    }

    #[test]
    fn a_file_that_is_damaged_is_no_matter_of_its_owner() {
        let items = r#"{"exitCode":3,"errors":1,"items":[{"item":"/backup/a","error":{"message":"read /backup/a: input/output error"}}],"summary":"#;
        let message = told(&format!("{items}{SUMMARY}}}")).message.unwrap();
        assert!(
            message.contains("/a: input/output error") && !message.contains("runAsUser"),
            "{message}"
        );
    }

    #[test]
    fn a_volume_that_the_pod_may_not_read_names_the_field_that_helps() {
        let fatal = r#""fatal":{"message":"unable to save snapshot: snapshot is empty"},"errors":1,"#;
        let item = r#"[{"item":"/backup","error":{"message":"open /backup: permission denied"}}]"#;
        let run = told(&format!("{{\"exitCode\":1,{fatal}\"items\":{item}}}"));
        assert_eq!(run.reason.as_deref(), Some("FilesUnreadable"));
        assert_eq!(
            run.message.as_deref(),
            Some(
                "nothing could be read: /: permission denied; the pod runs as user 65532; set spec.jobConfig.securityContext.runAsUser to the owner of the files, or 0"
            )
        );
    }

    #[test]
    fn an_unchanged_source_may_be_skipped_on_request() {
        let message = Message::parse(&text(0, r#""summary":{"files_new":0},"#)).unwrap();
        let run = run("j", ended(Ending::Message(message)), true);
        assert_eq!((run.result, run.snapshot_id), (BackupResult::Succeeded, None));
    }

    #[test]
    fn a_job_of_the_original_operator_is_judged_by_its_exit_code() {
        for (exit, result, reason) in [
            (0, BackupResult::Succeeded, None),
            (3, BackupResult::PartiallyFailed, Some("FilesUnreadable")),
            (1, BackupResult::Failed, Some("ContainerFailed")),
        ] {
            let run = run("j", ended(Ending::Unreported { exit }), false);
            assert_eq!((run.result, run.reason.as_deref()), (result, reason), "{exit}");
            assert!(run.message.unwrap().contains("original operator"), "{exit}");
        }
    }

    #[test]
    fn what_ended_it_from_outside_is_a_failure_with_its_own_reason() {
        let limit = Some("256Mi".to_owned());
        let run = run("j", ended(Ending::OutOfMemory { limit }), false);
        assert_eq!(
            (run.result, run.reason.as_deref()),
            (BackupResult::Failed, Some("OutOfMemory"))
        );
        assert!(run.message.unwrap().contains("256Mi"));
    }
}
