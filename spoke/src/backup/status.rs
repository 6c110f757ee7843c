//! The status that follows from runs and decisions. Pure.

use std::sync::Arc;

use crds::backup::{BackupResult, BackupRun};
use crds::conditions::{self, Status, reasons, types};
use crds::{ResticBackup, ResticBackupStatus};
use jiff::{SignedDuration, Timestamp};

use super::{options, result};
use crate::pod::finished::Ended;
use crate::pod::message;
use crate::units;
use crate::world::{JobEnd, JobView, Key, PodView};

/// Time for the end of a pod to become known after the end of its Job: two watches, two orders.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// A pod that has not started by then is worth a word.
const START_PATIENCE: SignedDuration = SignedDuration::from_secs(20);

/// A Job of this backup with its pods.
pub struct Run {
    pub key: Key,
    pub job: Arc<JobView>,
    pub pods: Vec<Arc<PodView>>,
}

/// Takes finished Jobs into the counters, each once, and says when to look again although nothing changes.
#[must_use]
pub fn with_runs(
    old: &ResticBackupStatus,
    backup: &ResticBackup,
    runs: &[Run],
    behind: Timestamp,
    now: Timestamp,
) -> (ResticBackupStatus, Option<Timestamp>) {
    let mut status = old.clone();
    let skip_unchanged = backup
        .spec
        .restic
        .as_ref()
        .is_some_and(|r| options::parse(&r.extra_args).is_ok_and(|options| options.skip_unchanged));
    let mut look_again: Option<Timestamp> = None;
    let mut soon = |at: Timestamp| look_again = Some(look_again.map_or(at, |t: Timestamp| t.min(at)));
    let is_counted = |run: &Run| old.counted_jobs.iter().any(|uid| **uid == *run.job.meta.uid);

    let mut finished: Vec<&Run> = runs
        .iter()
        .filter(|run| run.job.end.is_some() && !is_counted(run))
        .collect();
    finished.sort_by_key(|run| run.job.end.as_ref().and_then(|(at, _)| *at));
    // Jobs that are gone need no memory: nothing can count them again.
    let mut counted: Vec<String> = runs
        .iter()
        .filter(|run| is_counted(run))
        .map(|run| run.job.meta.uid.to_string())
        .collect();
    for run in finished {
        let ended = run.job.end.as_ref().and_then(|(at, _)| *at).unwrap_or(now);
        let known = ended.max(behind);
        let patience_over = now.duration_since(known) >= PATIENCE;
        let pods: Vec<&PodView> = run.pods.iter().map(AsRef::as_ref).collect();
        match result::run(&run.key.name, &run.job, &pods, skip_unchanged, patience_over) {
            Some(outcome) => {
                count(&mut status, outcome);
                counted.push(run.job.meta.uid.to_string());
            }
            None => soon(known.checked_add(PATIENCE).unwrap_or(now)),
        }
    }
    counted.sort();
    status.counted_jobs = counted;
    let running: Vec<&Run> = runs
        .iter()
        .filter(|run| run.job.end.is_none() && !run.job.meta.deleting)
        .collect();
    status.active = running.iter().map(|run| run.key.name.to_string()).collect();
    status.active.sort();
    let waiting = running.iter().find_map(|run| {
        let patient_until = run
            .job
            .start
            .or(run.job.created)?
            .checked_add(START_PATIENCE)
            .ok()?;
        let pod = run.pods.iter().find(|pod| &*pod.phase == "Pending")?;
        if now < patient_until {
            soon(patient_until);
            return None;
        }
        message::waiting_for(pod)
            .map(|(reason, words)| (reason.to_owned(), format!("pod of {}: {words}", run.key.name)))
    });
    progress(&mut status, waiting, backup.metadata.generation, now);
    (status, look_again)
}

/// Jobs that have ended and are counted in a status.
#[must_use]
pub fn ended(status: &ResticBackupStatus, runs: &[Run]) -> Vec<Ended> {
    let counted = |run: &&Run| status.counted_jobs.iter().any(|uid| **uid == *run.job.meta.uid);
    let ended = |run: &Run| {
        let (at, end) = run.job.end.as_ref()?;
        Some(Ended {
            job_uid: run.job.meta.uid.to_string(),
            at: at.or(run.job.created).unwrap_or(Timestamp::MIN),
            well: *end == JobEnd::Complete,
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
fn progress(
    status: &mut ResticBackupStatus,
    waiting: Option<(String, String)>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let running = !status.active.is_empty();
    let (reason, text) = if running {
        (
            reasons::BACKUP_RUNNING,
            format!("running: {}", status.active.join(", ")),
        )
    } else {
        (reasons::IDLE, "no backup is running".to_owned())
    };
    conditions::set(
        &mut status.conditions,
        types::PROGRESSING,
        running.into(),
        reason,
        &text,
        generation,
        now,
    );
    match waiting {
        Some((reason, words)) => {
            conditions::set(
                &mut status.conditions,
                types::WAITING,
                Status::True,
                &reason,
                &words,
                generation,
                now,
            );
        }
        None => status.conditions.retain(|c| c.type_ != types::WAITING),
    }
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
    conditions::set(
        &mut status.conditions,
        types::DEGRADED,
        degraded,
        reason,
        &text,
        generation,
        now,
    );
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::world::{JobEnd, Meta, Termination};

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
        let end = ended.map(|s| (Some(at(s)), JobEnd::Complete));
        Arc::new(JobView {
            meta,
            of: None,
            start: Some(at(1)),
            end,
            created: Some(at(1)),
            snapshot: None,
            suspended: false,
            lease: None,
            approved: None,
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
            meta: Meta::default(),
            of: None,
            phase: phase.into(),
            reason: "".into(),
            message: "".into(),
            started: false,
            token: None,
            renewals: 0,
            restic,
            waiting: None,
            unschedulable: (phase == "Pending")
                .then(|| "0/1 nodes are available: 1 Insufficient cpu.".into()),
            ..PodView::default()
        })
    }

    fn run(n: u8, ended: Option<i64>, pods: Vec<Arc<PodView>>) -> Run {
        Run {
            key: Key::new("ns", format!("b-{n}")),
            job: job(n, ended),
            pods,
        }
    }

    #[test]
    fn a_job_whose_pod_has_not_been_seen_to_end_waits_a_little() {
        let runs = [run(1, Some(50), vec![pod(None, "Running")])];
        let (status, again) = with_runs(
            &ResticBackupStatus::default(),
            &backup(),
            &runs,
            Timestamp::MIN,
            at(51),
        );
        assert_eq!((status.statistics, again), (None, Some(at(60))));
        let (status, again) = with_runs(
            &ResticBackupStatus::default(),
            &backup(),
            &runs,
            Timestamp::MIN,
            at(60),
        );
        assert_eq!((status.statistics.unwrap().failed_backups, again), (1, None));
    }

    #[test]
    fn a_pod_that_does_not_start_shows_the_schedulers_words() {
        let runs = [run(1, None, vec![pod(None, "Pending")])];
        let (status, again) = with_runs(
            &ResticBackupStatus::default(),
            &backup(),
            &runs,
            Timestamp::MIN,
            at(5),
        );
        assert!(conditions::get(&status.conditions, types::WAITING).is_none() && again == Some(at(21)));
        let (status, _) = with_runs(
            &ResticBackupStatus::default(),
            &backup(),
            &runs,
            Timestamp::MIN,
            at(30),
        );
        let waiting = conditions::get(&status.conditions, types::WAITING).unwrap();
        assert_eq!(waiting.reason, "Unschedulable");
        assert!(waiting.message.contains("Insufficient cpu"));
    }

    #[test]
    fn the_next_run_respects_suspension_and_the_last_start() {
        let every = crds::schedule::Schedule::parse("@every 1h", "UTC").unwrap();
        assert_eq!(crate::schedule::next_run(&every, true, None, at(0)), None);
        assert_eq!(
            crate::schedule::next_run(&every, false, Some(at(3000)), at(4000)),
            Some(Time(at(6600)))
        );
        assert_eq!(
            crate::schedule::next_run(&every, false, Some(at(0)), at(4000)),
            Some(Time(at(7600)))
        );
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
                let runs: Vec<Run> = view.iter().map(|n| run(*n, Some(100 + i64::from(*n)), vec![pod(Some(100 + i64::from(*n)), "Succeeded")])).collect();
                for _ in 0..2 {
                    (status, _) = with_runs(&status, &backup(), &runs, Timestamp::MIN, at(1000));
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
