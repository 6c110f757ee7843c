//! The status that follows from runs and decisions. Pure.

use std::collections::BTreeSet;

use crds::backup::{BackupResult, BackupRun};
use crds::common::ConcurrencyPolicy;
use crds::conditions::{Conditions, Status, reasons, types};
use crds::{ResticBackup, ResticBackupStatus};
use jiff::Timestamp;

use super::{options, result};
use crate::pod::message::Message;
use crate::runs::{self, Ended, Ending, JobWithPods, State, Words, finished};
use crate::units;
use crate::world::JobEnd;

/// What is under way.
#[derive(Default)]
struct UnderWay {
    running: BTreeSet<String>,
    /// Jobs none of whose pods runs.
    starting: BTreeSet<String>,
    waiting: Option<Words>,
}

/// Takes Jobs that have ended into the counters, each once, and says when to look again although nothing changes.
/// `refused` is why no Job can be made, if that is so.
#[must_use]
pub fn with_runs(
    old: &ResticBackupStatus,
    backup: &ResticBackup,
    jobs: &[JobWithPods],
    refused: Option<Words>,
    now: Timestamp,
) -> (ResticBackupStatus, Option<Timestamp>) {
    let mut status = old.clone();
    let mut look_again: Option<Timestamp> = None;
    let mut soon = |at: Option<Timestamp>| look_again = look_again.into_iter().chain(at).min();
    // Jobs that were deleted need no memory: nothing can count them again.
    let mut counted: Vec<String> = Vec::new();
    let mut ended = deleted(old, backup, jobs, now);
    let mut under_way = UnderWay::default();
    for run in jobs {
        let (name, uid) = (run.key.name.to_string(), run.job.meta.uid.to_string());
        if old.counted_jobs.contains(&uid) {
            counted.push(uid);
            continue;
        }
        match runs::state(run, now) {
            State::Ended(end) => {
                ended.push((name, end));
                counted.push(uid);
            }
            State::Settling(again) => {
                under_way.running.extend(run.job.end.is_none().then_some(name));
                soon(Some(again));
            }
            State::Running => {
                under_way.running.insert(name);
            }
            State::Waiting { words, again } => {
                under_way.starting.insert(name);
                under_way.waiting = under_way.waiting.or(words);
                soon(again);
            }
        }
    }
    ended.sort_by_key(|(_, end)| end.finished);
    for (name, end) in ended {
        count(&mut status, result::run(&name, end, skips_unchanged(backup)));
    }
    counted.sort();
    status.counted_jobs = counted;
    let all = under_way.running.union(&under_way.starting);
    status.active = all.cloned().collect();
    under_way.waiting = under_way.waiting.or(refused);
    progress(&mut status, &under_way, backup.metadata.generation, now);
    (status, look_again)
}

fn skips_unchanged(backup: &ResticBackup) -> bool {
    let restic = backup.spec.restic.as_ref();
    restic.is_some_and(|r| options::parse(&r.extra_args).is_ok_and(|options| options.skip_unchanged))
}

/// Jobs that were under way and are not there any more: nobody will ever know more of them.
fn deleted(
    old: &ResticBackupStatus,
    backup: &ResticBackup,
    jobs: &[JobWithPods],
    now: Timestamp,
) -> Vec<(String, Ended<Message<result::Summary>>)> {
    let policy = backup
        .spec
        .job_config
        .as_ref()
        .map(|config| config.concurrency_policy);
    // The controller of CronJobs deletes the one that still runs when the next one is due.
    let replaced = policy == Some(ConcurrencyPolicy::Replace) && jobs.iter().any(|run| run.job.end.is_none());
    let gone = old
        .active
        .iter()
        .filter(|name| !jobs.iter().any(|run| *run.key.name == ***name));
    gone.map(|name| {
        let ending = if replaced {
            Ending::Replaced
        } else {
            Ending::Deleted
        };
        (name.clone(), Ended::without_pod(ending, now))
    })
    .collect()
}

/// Jobs that have ended and are counted in a status.
#[must_use]
pub fn ended(status: &ResticBackupStatus, runs: &[JobWithPods]) -> Vec<finished::Ended> {
    let counted = |run: &&JobWithPods| status.counted_jobs.iter().any(|uid| **uid == *run.job.meta.uid);
    let went_wrong = |job: &str| {
        let last = status.last_backup.as_ref();
        last.is_some_and(|last| last.job.as_deref() == Some(job) && last.result != BackupResult::Succeeded)
    };
    let ended = |run: &JobWithPods| {
        let (at, end) = run.job.end.as_ref()?;
        Some(finished::Ended {
            job_uid: run.job.meta.uid.to_string(),
            at: at.or(run.job.created).unwrap_or(Timestamp::MIN),
            // A Job is also complete when restic ended well and what it reported is not.
            well: *end == JobEnd::Complete && !went_wrong(&run.key.name),
        })
    };
    runs.iter().filter(counted).filter_map(ended).collect()
}

fn count(status: &mut ResticBackupStatus, run: BackupRun) {
    let counters = status.statistics.get_or_insert_default();
    counters.total_backups += 1;
    match run.result {
        BackupResult::Succeeded => {
            counters.successful_backups += 1;
            status.last_successful_backup = status
                .last_successful_backup
                .clone()
                .max(run.completion_time.clone());
        }
        BackupResult::PartiallyFailed | BackupResult::Failed => counters.failed_backups += 1,
    }
    if let Some(bytes) = run.bytes_processed.filter(|_| run.snapshot_id.is_some()) {
        counters.last_backup_size = u64::try_from(bytes).ok().map(units::bytes);
        counters.last_backup_size_bytes = Some(bytes);
        counters.last_backup_files = run.files_processed;
    }
    let newer = status
        .last_backup
        .as_ref()
        .is_none_or(|last| last.completion_time <= run.completion_time);
    if newer {
        status.last_backup = Some(run);
    }
}

/// Conditions that tell of runs: Progressing, Waiting, Degraded.
fn progress(status: &mut ResticBackupStatus, under_way: &UnderWay, generation: Option<i64>, now: Timestamp) {
    let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let (running, starting) = (&under_way.running, &under_way.starting);
    let (value, reason, text) = match &under_way.waiting {
        _ if !running.is_empty() => (
            Status::True,
            reasons::BACKUP_RUNNING,
            format!("running: {}", names(running)),
        ),
        // Nothing is under way without a pod that runs.
        Some(words) => (Status::False, words.reason.as_str(), words.text.clone()),
        None if !starting.is_empty() => (
            Status::False,
            reasons::BACKUP_STARTING,
            format!("starting: {}", names(starting)),
        ),
        None => (Status::False, reasons::IDLE, "no backup is running".to_owned()),
    };
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    conditions.set(types::PROGRESSING, value, reason, text);
    match &under_way.waiting {
        Some(words) => conditions.set(types::WAITING, true, &words.reason, &words.text),
        None => conditions.remove(types::WAITING),
    };
    let (degraded, reason, text) = match &status.last_backup {
        None => (
            Status::False,
            reasons::NO_RUN_YET,
            "no backup has run yet".to_owned(),
        ),
        Some(run) => {
            let text = run.message.clone().unwrap_or_default();
            match run.result {
                BackupResult::Succeeded => (
                    Status::False,
                    reasons::BACKUP_SUCCEEDED,
                    "the last backup succeeded".to_owned(),
                ),
                BackupResult::PartiallyFailed => (Status::True, reasons::BACKUP_PARTIALLY_FAILED, text),
                BackupResult::Failed => (Status::True, reasons::BACKUP_FAILED, text),
            }
        }
    };
    conditions.set(types::DEGRADED, degraded, reason, text);
}

#[cfg(test)]
mod tests {
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
            unschedulable: (phase == "Pending")
                .then(|| "0/1 nodes are available: 1 Insufficient cpu.".into()),
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

    fn look(
        old: &ResticBackupStatus,
        runs: &[JobWithPods],
        now: i64,
    ) -> (ResticBackupStatus, Option<Timestamp>) {
        with_runs(old, &backup(), runs, None, at(now))
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
        let (status, _) = with_runs(&ResticBackupStatus::default(), &backup(), &[], words, at(10));
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
        replacing.spec.job_config =
            serde_json::from_value(json!({ "concurrencyPolicy": "Replace" })).unwrap();
        let (status, _) = look(&ResticBackupStatus::default(), &[run(1, None, vec![])], 40);
        let (status, _) = with_runs(&status, &replacing, &[run(2, None, vec![])], None, at(50));
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
}
