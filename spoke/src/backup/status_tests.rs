use std::sync::Arc;

use crds::conditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::world::{JobEnd, JobView, Key, Meta, Notice, PodView, Termination};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn backup() -> ResticBackup {
    serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": "b", "generation": 1 },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } },
    }))
    .unwrap()
}

fn job(n: u8, ended: Option<i64>) -> Arc<JobView> {
    let meta = Meta {
        uid: format!("job-{n}").into(),
        ..Meta::default()
    };
    Arc::new(JobView {
        meta,
        start: Some(at(1)),
        end: ended.map(|s| (Some(at(s)), JobEnd::Complete)),
        created: Some(at(1)),
        ..JobView::default()
    })
}

fn pod(exit: Option<i64>, phase: &str) -> Arc<PodView> {
    let message = r#"{"exitCode":0,"summary":{"snapshot_id":"s","total_bytes_processed":9},"items":[]}"#;
    let restic = exit.map(|s| Termination {
        exit_code: 0,
        reason: "Completed".into(),
        message: message.into(),
        started: Some(at(s - 1)),
        finished: Some(at(s)),
    });
    Arc::new(PodView {
        phase: phase.into(),
        started: phase == "Running" && restic.is_none(),
        restic,
        unschedulable: (phase == "Pending").then(|| "0/1 nodes are available: 1 Insufficient cpu.".into()),
        ..PodView::default()
    })
}

fn run(n: u8, ended: Option<i64>, pods: Vec<Arc<PodView>>) -> JobWithPods {
    JobWithPods {
        key: Key::new("ns", format!("b-{n}")),
        job: job(n, ended),
        pods: pods.into_iter().map(|pod| (Key::new("ns", "p"), pod)).collect(),
        delivery: crate::world::Delivery::complete(Timestamp::MIN),
        ..JobWithPods::default()
    }
}

const NONE_PARKED: Parked<'static> = Parked {
    turns: &Turns::new(),
    opens: true,
};

fn look(old: &ResticBackupStatus, runs: &[JobWithPods], now: i64) -> (ResticBackupStatus, Option<Timestamp>) {
    with_runs(old, &backup(), runs, (NONE_PARKED, None), at(now))
}

fn reason(status: &ResticBackupStatus, type_: &str) -> (String, String) {
    let condition = conditions::get(&status.conditions, type_).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

#[test]
fn a_job_whose_pod_has_not_been_seen_to_end_waits_a_little() {
    let runs = [run(1, Some(50), vec![pod(None, "Running")])];
    let (status, again) = look(&ResticBackupStatus::default(), &runs, 51);
    assert_eq!((status.statistics, again), (None, Some(at(60))));
    let (status, again) = look(&ResticBackupStatus::default(), &runs, 60);
    assert_eq!((status.statistics.unwrap().failed_backups, again), (1, None));
}

#[test]
fn a_pod_that_does_not_start_shows_the_schedulers_words() {
    let runs = [run(1, None, vec![pod(None, "Pending")])];
    let (status, again) = look(&ResticBackupStatus::default(), &runs, 5);
    assert!(conditions::get(&status.conditions, types::WAITING).is_none() && again == Some(at(21)));
    let (status, _) = look(&ResticBackupStatus::default(), &runs, 30);
    let waiting = conditions::get(&status.conditions, types::WAITING).unwrap();
    assert_eq!(waiting.reason, "Unschedulable");
    assert!(waiting.message.contains("Insufficient cpu"));
}

#[test]
fn nothing_is_running_without_a_pod_that_runs() {
    let mut refused = run(1, None, vec![]);
    let notice = Notice::new("FailedCreate", "exceeded quota: q", at(3));
    refused.notices = vec![("job-1".into(), Arc::new(notice))];
    let (early, _) = look(&ResticBackupStatus::default(), &[run(1, None, vec![])], 5);
    assert_eq!(
        reason(&early, types::PROGRESSING),
        ("False".to_owned(), "BackupStarting".to_owned())
    );
    let (status, _) = look(&early, &[refused], 40);
    for (type_, value) in [(types::PROGRESSING, "False"), (types::WAITING, "True")] {
        assert_eq!(
            reason(&status, type_),
            (value.to_owned(), "FailedCreate".to_owned())
        );
    }
    let (status, _) = look(&status, &[run(1, None, vec![pod(None, "Running")])], 50);
    assert_eq!(reason(&status, types::PROGRESSING).0, "True");
    assert!(conditions::get(&status.conditions, types::WAITING).is_none());
}

#[test]
fn a_cron_job_that_makes_no_job_is_told() {
    let words = runs::not_created(
        "c",
        Some(&Notice::new("FailedCreate", "quota", at(9))),
        Some(at(5)),
    );
    let (status, _) = with_runs(
        &ResticBackupStatus::default(),
        &backup(),
        &[],
        (NONE_PARKED, words),
        at(10),
    );
    assert_eq!(reason(&status, types::WAITING).1, "FailedCreate");
    assert!(status.active.is_empty());
}

#[test]
fn a_job_that_was_deleted_on_its_way_is_counted_once_as_failed() {
    let (status, _) = look(
        &ResticBackupStatus::default(),
        &[run(1, None, vec![pod(None, "Running")])],
        40,
    );
    let (status, _) = look(&status, &[], 50);
    let last = status.last_backup.clone().unwrap();
    assert_eq!(
        (last.reason.as_deref(), last.job.as_deref()),
        (Some("JobDeleted"), Some("b-1"))
    );
    let (again, _) = look(&status, &[], 60);
    assert_eq!(again, status);
    let mut replacing = backup();
    replacing.spec.job_config = serde_json::from_value(json!({ "concurrencyPolicy": "Replace" })).unwrap();
    let (status, _) = look(&ResticBackupStatus::default(), &[run(1, None, vec![])], 40);
    let (status, _) = with_runs(
        &status,
        &replacing,
        &[run(2, None, vec![])],
        (NONE_PARKED, None),
        at(50),
    );
    assert_eq!(status.last_backup.unwrap().reason.as_deref(), Some("Replaced"));
}

#[test]
fn the_result_counts_when_restic_has_ended_although_a_sidecar_stays() {
    let sidecar = [run(1, None, vec![pod(Some(50), "Running")])];
    let (status, again) = look(&ResticBackupStatus::default(), &sidecar, 52);
    assert_eq!((status.last_backup.is_none(), again), (true, Some(at(60))));
    let (status, _) = look(&status, &sidecar, 60);
    assert_eq!(status.statistics.as_ref().unwrap().successful_backups, 1);
    assert!(status.active.is_empty() && status.counted_jobs == ["job-1"]);
    let ended = [run(1, Some(90), vec![pod(Some(50), "Failed")])];
    let (after, _) = look(&status, &ended, 100);
    assert_eq!(after.statistics, status.statistics, "counted once");
}

proptest! {
    /// Jobs end, are seen in any order, vanish from history, and the operator restarts in between: the status is all
    /// that survives.
    #[test]
    fn each_run_counts_once(views in prop::collection::vec(prop::collection::btree_set(0u8..12, 0..6), 1..25)) {
        let mut status = ResticBackupStatus::default();
        let mut seen = std::collections::BTreeSet::new();
        let mut gone = std::collections::BTreeSet::new();
        for view in views {
            // A Job that was deleted never comes back.
            let view: Vec<u8> = view.into_iter().filter(|n| !gone.contains(n)).collect();
            gone.extend(seen.iter().filter(|n| !view.contains(n)).copied());
            seen.extend(view.iter().copied());
            let runs: Vec<JobWithPods> = view.iter().map(|n| run(*n, Some(100 + i64::from(*n)), vec![pod(Some(100 + i64::from(*n)), "Succeeded")])).collect();
            for _ in 0..2 {
                (status, _) = look(&status, &runs, 1000);
            }
            prop_assert!(status.counted_jobs.len() <= runs.len());
        }
        let counters = status.statistics.unwrap_or_default();
        prop_assert_eq!(counters.total_backups as usize, seen.len());
        prop_assert_eq!(counters.successful_backups as usize, seen.len());
        let newest = seen.last().map(|n| Time(at(100 + i64::from(*n))));
        prop_assert_eq!(status.last_successful_backup, newest);
    }
}

#[test]
fn the_size_of_the_last_snapshot_is_in_the_status() {
    let runs = [run(1, Some(50), vec![pod(Some(49), "Succeeded")])];
    let (status, _) = look(&ResticBackupStatus::default(), &runs, 60);
    let (last, counters) = (status.last_backup.unwrap(), status.statistics.unwrap());
    assert_eq!(
        (
            counters.last_backup_size.as_deref(),
            counters.last_backup_size_bytes
        ),
        (Some("9 B"), Some(9))
    );
    assert_eq!(counters.last_backup_files, last.files_processed);
    assert_eq!(
        (&last.start_time, &last.completion_time),
        (&Some(Time(at(48))), &Some(Time(at(49))))
    );
    assert_eq!(status.last_successful_backup, last.completion_time);
}
