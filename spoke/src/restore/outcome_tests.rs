//! How restores end.

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
        unschedulable: (phase == "Pending").then(|| "0/1 nodes are available: 1 Insufficient cpu.".into()),
        user: Some(0),
        ..PodView::default()
    }
}

fn only(filtered: bool) -> Asked {
    Asked {
        filtered,
        ..Asked::default()
    }
}

fn over_as(user: i64, message: &str, filtered: bool) -> Outcome {
    over_of(user, message, only(filtered))
}

fn over_of(user: i64, message: &str, asked: Asked) -> Outcome {
    let mut pod = pod("Succeeded", Some(message));
    pod.user = Some(user);
    match progress(&run(Some(JobEnd::Complete), Some(pod)), asked, at(111)) {
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
        match progress(&run, only(false), at(111)) {
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
        match progress(&run, only(filtered), at(111)) {
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
    let state = |now| progress(&run(None, Some(pod("Pending", None))), only(false), at(now));
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
    let Progress::Over(outcome) = progress(&ended, only(false), at(130)) else {
        panic!()
    };
    let (reason, text) = outcome.failure.unwrap();
    assert!(reason == reasons::POD_NEVER_STARTED && text.contains("Insufficient cpu"));
}

#[test]
fn attributes_that_may_not_be_set_are_said_and_are_no_failure() {
    let of = |errors: u64, asked| {
        let message = format!(
            r#"{{"exitCode":0,"summary":{{"total_files":9,"files_restored":9}},"errors":{errors},"unset":{{"files":7,"names":["security.selinux","owner"]}}}}"#
        );
        over_of(0, &message, asked)
    };
    let outcome = of(7, Asked::default());
    assert_eq!(outcome.failure, None);
    let note = outcome.note.unwrap();
    assert!(
        note.contains("on 7 files") && note.contains("security.selinux, owner"),
        "{note}"
    );
    assert!(!note.contains("verify"), "{note}");
    assert_eq!(of(8, Asked::default()).failure.unwrap().0, "FilesNotRestored");
    let verify = Asked {
        verify: true,
        ..Asked::default()
    };
    assert!(of(7, verify).note.unwrap().contains("were not compared"));
}

#[test]
fn a_folder_that_is_not_in_the_snapshot_is_named() {
    for end in ["not found", "not a directory"] {
        let message = format!(r#"{{"exitCode":1,"fatal":{{"message":"path backup/nope: {end}"}}}}"#);
        let (reason, text) = over(&message, false).failure.unwrap();
        assert_eq!(reason, "SnapshotPathNotFound");
        assert!(
            text.contains("backup/nope") && text.contains("spec.snapshotPath"),
            "{text}"
        );
    }
    let other = r#"{"exitCode":1,"fatal":{"message":"object: not found"}}"#;
    assert_eq!(over(other, false).failure.unwrap().0, "ResticFailed");
}

#[test]
fn a_dry_run_has_restored_nothing_and_counts_what_it_would() {
    let message = r#"{"exitCode":0,"summary":{"total_files":9,"files_restored":9,"files_skipped":2,"files_deleted":3,"bytes_restored":2048},"actions":{"restored":4,"updated":3,"unchanged":2,"deleted":3}}"#;
    let dry = Asked {
        dry_run: true,
        ..Asked::default()
    };
    let outcome = over_of(0, message, dry);
    assert_eq!(
        (outcome.files, outcome.bytes, outcome.deleted),
        (None, None, None)
    );
    let preview = outcome.preview.unwrap();
    assert_eq!(
        [
            preview.restored,
            preview.updated,
            preview.unchanged,
            preview.deleted
        ],
        [4, 3, 2, 3]
    );
    assert_eq!(preview.size_bytes, Some(2048));
    let outcome = over(message, false);
    assert_eq!((outcome.deleted, outcome.preview), (Some(3), None));
    assert!(
        outcome
            .note
            .unwrap()
            .contains("3 files and folders that are not in the snapshot were deleted")
    );
}

#[test]
fn a_preview_that_failed_before_a_deletion_is_said_to_have_changed_nothing() {
    let of = |untouched: bool, rest: &str| {
        let message = format!(r#"{{"exitCode":1,"untouched":{untouched},{rest}}}"#);
        over(&message, false)
    };
    for (rest, reason) in [
        (r#""errors":1"#, "FilesNotRestored"),
        (r#""fatal":{"message":"no"}"#, "ResticFailed"),
    ] {
        let outcome = of(true, rest);
        let (given, text) = outcome.failure.unwrap();
        assert_eq!((given, outcome.files), (reason, None));
        assert!(text.contains("nothing was written or deleted"), "{text}");
        assert!(!of(false, rest).failure.unwrap().1.contains("nothing was written"));
    }
}

#[test]
fn what_attributes_lack_degrades_a_restore_and_hides_no_other_end() {
    let of = |code: i32, rest: &str, verify: bool| {
        let message = format!(
            r#"{{"exitCode":{code},"summary":{{"total_files":9,"files_restored":9}},"errors":7,"unset":{{"files":7,"names":["owner"]}}{rest}}}"#
        );
        let asked = Asked {
            verify,
            ..Asked::default()
        };
        over_of(0, &message, asked)
    };
    assert_eq!(of(0, "", false).lacking.unwrap().0, "AttributesNotRestored");
    assert_eq!(of(0, "", true).lacking.unwrap().0, "VerificationSkipped");
    let locked = r#","fatal":{"message":"unable to create lock: repository is already locked exclusively by PID 7 on x"}"#;
    let outcome = of(11, locked, false);
    assert_eq!(
        (outcome.failure.unwrap().0, outcome.lacking),
        ("RepositoryLocked", None)
    );
}
