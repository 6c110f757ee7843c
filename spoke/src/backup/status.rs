//! The status that follows from runs and decisions. Pure.

use std::collections::BTreeSet;

use crds::backup::{BackupResult, BackupRun};
use crds::common::ConcurrencyPolicy;
use crds::conditions::{Conditions, Status, reasons, types};
use crds::{ResticBackup, ResticBackupStatus, names};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{commanded, hooks, result, suspicion};
use crate::pod::message::Message;
use crate::queue::{self, Turn, Turns, Waits};
use crate::restic::options;
use crate::runs::progress::Running;
use crate::runs::{self, Ended, Ending, JobWithPods, State, Words, finished};
use crate::units;
use crate::world::JobEnd;

/// What is under way.
#[derive(Default)]
struct UnderWay {
    running: BTreeSet<String>,
    /// Jobs none of whose pods runs.
    starting: BTreeSet<String>,
    /// The ones that run, each with when it was made.
    works: Vec<(Option<Timestamp>, Running)>,
    waiting: Option<Words>,
}

impl UnderWay {
    /// The ones that run, the one that began first before the others.
    fn in_order(&mut self) -> Vec<Running> {
        self.works.sort_by_key(|(created, _)| *created);
        self.works.drain(..).map(|(_, run)| run).collect()
    }
}

/// What parked runs wait for.
#[derive(Clone, Copy)]
pub struct Parked<'a> {
    /// By uid of their Jobs.
    pub turns: &'a Turns,
    /// Whether the backup may run now.
    pub opens: bool,
}

impl Parked<'_> {
    /// `old` is shown until turns are computed, as after a change of leader.
    fn waits(&self, job: &str, uid: &str, old: &ResticBackupStatus) -> Waits {
        let shown = || queue::shown(old).filter(|shown| shown.words.text.starts_with(&format!("{job}: ")));
        let words = match self.turns.get(uid) {
            _ if !self.opens => queue::not_ready(job),
            Some(Turn::Waits(waits)) => return waits.clone(),
            Some(Turn::Begins) => queue::begins(job),
            None => return shown().unwrap_or_else(|| Waits::of(queue::begins(job))),
        };
        Waits::of(words)
    }
}

/// A run that is counted now: its Job's name, how it ended, and its Job and pods where they are still there.
type EndedRun<'a> = (String, Ended<Message<result::Summary>>, Option<&'a JobWithPods>);

/// Takes Jobs that have ended into the counters, each once, and says when to look again although nothing changes.
/// `refused` is why no Job can be made, if that is so.
#[must_use]
pub fn with_runs(
    old: &ResticBackupStatus,
    backup: &ResticBackup,
    jobs: &[JobWithPods],
    (parked, refused): (Parked<'_>, Option<Words>),
    now: Timestamp,
) -> (ResticBackupStatus, Option<Timestamp>) {
    let mut status = old.clone();
    let mut look_again: Option<Timestamp> = None;
    let mut soon = |at: Option<Timestamp>| look_again = look_again.into_iter().chain(at).min();
    // Jobs that were deleted need no memory: nothing can count them again.
    let mut counted: Vec<String> = Vec::new();
    let gone = deleted(old, backup, jobs, now).into_iter();
    let mut ended: Vec<EndedRun<'_>> = gone.map(|(name, end)| (name, end, None)).collect();
    let mut under_way = UnderWay::default();
    status.queue_place = None;
    for run in jobs {
        let (name, uid) = (run.key.name.to_string(), run.job.meta.uid.to_string());
        if old.counted_jobs.contains(&uid) {
            counted.push(uid);
            continue;
        }
        // It is not under way: maintenance does not wait for it, and its deletion is no failed run.
        if queue::is_parked(&run.job) {
            if under_way.waiting.is_none() {
                let waits = parked.waits(&name, &uid, old);
                (status.queue_place, under_way.waiting) = (waits.place, Some(waits.words));
            }
            continue;
        }
        match runs::state(run, now) {
            State::Ended(end) => {
                ended.push((name, end, Some(run)));
                counted.push(uid);
            }
            State::Settling(again) => {
                under_way.running.extend(run.job.end.is_none().then_some(name));
                soon(Some(again));
            }
            State::Running => {
                under_way.works.push((run.job.created, Running::of(run)));
                under_way.running.insert(name);
            }
            State::Waiting { words, again } => {
                under_way.starting.insert(name);
                under_way.waiting = under_way.waiting.or(words);
                soon(again);
            }
        }
    }
    count_all(&mut status, backup, ended);
    counted.sort();
    status.counted_jobs = counted;
    status.active = under_way.running.union(&under_way.starting).cloned().collect();
    under_way.waiting = under_way.waiting.or(refused);
    status.progress = runs::progress::shown(&under_way.in_order(), old.progress.as_ref());
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
    let replaced = policy == Some(ConcurrencyPolicy::Replace)
        && jobs
            .iter()
            .any(|run| run.job.end.is_none() && !queue::is_parked(&run.job));
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

/// Takes ended runs into the counters in the order of their ends, and what a person has accepted since.
fn count_all(status: &mut ResticBackupStatus, backup: &ResticBackup, mut ended: Vec<EndedRun<'_>>) {
    ended.sort_by_key(|(_, end, _)| end.finished);
    let cron_job = names::backup_cron_job(&backup.name_any());
    for (name, end, of) in ended {
        let mut run = result::run(&name, end, skips_unchanged(backup));
        of.into_iter().for_each(|of| hooks::settle(&mut run, of));
        let by_name = || names::command_of_job(&cron_job, &name);
        let command = of.map_or_else(by_name, |of| of.job.command.as_deref());
        commanded::remember(status, command, &run);
        count(status, run);
    }
    let accepted = backup.annotations().get(names::ANNOTATION_ACCEPT);
    suspicion::accept(status, accepted.map(String::as_str));
}

fn count(status: &mut ResticBackupStatus, run: BackupRun) {
    suspicion::judge(status, &run);
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

/// Conditions that tell of runs under way: Progressing, Waiting.
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
    suspicion::tell(status.suspicious.as_ref(), &mut conditions);
    conditions.set(types::PROGRESSING, value, reason, text);
    match &under_way.waiting {
        Some(words) => conditions.set(types::WAITING, true, &words.reason, &words.text),
        None => conditions.remove(types::WAITING),
    };
}

/// Condition Degraded: of hooks that are owed, or of the last run.
pub fn degraded(
    status: &mut ResticBackupStatus,
    owing: Option<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let (degraded, reason, text) = match (&status.last_backup, owing) {
        (_, Some(text)) => (Status::True, reasons::POST_HOOK_FAILED, text),
        (None, None) => (
            Status::False,
            reasons::NO_RUN_YET,
            "no backup has run yet".to_owned(),
        ),
        (Some(run), None) => {
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
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    conditions.set(types::DEGRADED, degraded, reason, text);
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
