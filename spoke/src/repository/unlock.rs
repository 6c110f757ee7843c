//! Watches restic's locks and has the left-over ones removed. Pure.

use std::collections::BTreeSet;

use crds::conditions::{self, Conditions, Status, reasons, types, whole_seconds};
use crds::repository::LastUnlock;
use crds::{ResticRepository, ResticRepositoryStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::locks::{Content, Life, Rules, Verdict, Watch};
use super::{Observed, Planning, RepositoryController, Work, build, status};
use crate::clock::Clock;
use crate::exchange::Finished;
use crate::kind::{Input, Moment, Removal};
use crate::pod;
use crate::restic::locks::LockFile;
use crate::world::JobView;

/// After a start, runs that failed this long ago still call for a look.
const RECENT: SignedDuration = SignedDuration::from_hours(1);
/// Longest pause between two attempts.
const PAUSE_MAX: u64 = 6 * 3_600_000;

/// What is remembered of locks and of attempts to remove them.
#[derive(Clone, Default)]
pub struct Locks {
    pub watch: Watch,
    /// When a look was last begun, in milliseconds since boot.
    attempted: Option<u64>,
    /// A look that was begun before this moment is out of date.
    look_after: u64,
    /// Attempts in a row that removed nothing.
    failures: u32,
    /// No other attempt before this moment, in milliseconds since boot.
    not_before: u64,
}

/// What a look found.
#[derive(Clone, Debug)]
pub struct Looked {
    pub start: Moment,
    pub end: Moment,
    pub ids: Vec<String>,
    pub read: Vec<(String, Content)>,
}

/// What a repository's plan does about its locks.
#[derive(Default)]
pub struct Tended {
    /// Locks that an operation may remove now.
    pub removable: Vec<String>,
    /// A Job that is not needed any more.
    pub removals: Vec<Removal>,
    /// A Job to start.
    pub job: Option<Job>,
}

/// How restic's locks are treated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Between two looks while there are locks, in milliseconds.
    pub interval: u64,
    /// Milliseconds after which an unchanged lock is left over.
    pub after: u64,
    pub after_end: u64,
    /// Tests remove locks that restic does not find old yet.
    pub test: bool,
}

/// Now, on both clocks.
pub fn moment(clock: &dyn Clock) -> Moment {
    Moment {
        boot: clock.since_boot(),
        wall: clock.now(),
    }
}

impl Locks {
    /// Takes a look in.
    pub fn take(&mut self, looked: Looked) {
        self.watch.look(&looked.ids, looked.start, looked.end);
        for (id, content) in looked.read {
            self.watch.read(&id, content);
        }
    }

    /// Ids that need not be read.
    pub fn known(&self) -> BTreeSet<String> {
        let locks = self.watch.locks().into_iter();
        let read = locks.filter(|(_, seen)| matches!(seen.content, Content::Read(_)));
        read.map(|(id, _)| id.to_owned()).collect()
    }

    /// Begins a look.
    pub fn look(&mut self, now: Moment) -> Work {
        self.attempted = Some(now.boot);
        Work::Locks { known: self.known() }
    }

    fn count(&mut self, finished: &Finished, interval: u64, now: u64) {
        let applied = finished.outcome.result == "Applied";
        self.failures = if applied {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let doubled = interval.saturating_mul(1u64.checked_shl(self.failures).unwrap_or(u64::MAX));
        let pause = doubled.min(PAUSE_MAX.max(interval));
        // An attempt that fails after hours holds the maintenance lock for half of the time at most.
        let took = match (applied, finished.started, finished.finished) {
            (false, Some(started), Some(ended)) => ended.duration_since(started).as_millis(),
            _ => 0,
        };
        self.look_after = now;
        self.not_before = now.saturating_add(pause.max(u64::try_from(took).unwrap_or_default()));
    }
}

/// When the locks are to be looked at; `None` while there is no reason to.
pub(super) fn look_due(
    planning: &Planning,
    observed: &Observed,
    status: &ResticRepositoryStatus,
    locks: &Locks,
    now: Moment,
) -> Option<Timestamp> {
    if !conditions::is_true(&status.conditions, types::READY) {
        return None;
    }
    let watch = &locks.watch;
    let last = watch.last();
    let recent = now.wall.checked_sub(RECENT).unwrap_or(now.wall);
    let since = last.map_or(recent, |last| last.wall);
    let (boot, interval) = (now.boot, planning.locks.interval);
    let due = match last {
        // The wait begins anew with this process.
        None if !status.locks.is_empty() => boot,
        _ if observed.failed.is_some_and(|failed| failed > since) => boot,
        Some(last) if last.boot < locks.look_after => boot,
        // A person asks; the pause below bounds that too.
        Some(last) if observed.unlocking.is_some_and(|since| last.boot < since) => boot,
        None if observed.unlocking.is_some() => boot,
        Some(last) if !watch.is_empty() => {
            let next = last.boot.saturating_add(interval);
            let judged = judge(planning, observed, watch, boot);
            let waits = judged.into_iter().filter_map(|(_, verdict)| match verdict {
                Verdict::Wait(until, _) => Some(until),
                Verdict::Remove | Verdict::Keep(_) => None,
            });
            waits.min().map_or(next, |until| until.min(next))
        }
        _ => return None,
    };
    // A look that fails, or a crowd of runs that fail, is no reason to look all the time.
    let pause = locks.attempted.map(|at| at.saturating_add(interval / 5));
    let left = due.max(pause.unwrap_or_default()).saturating_sub(boot);
    let left = SignedDuration::from_millis(i64::try_from(left).unwrap_or(i64::MAX));
    now.wall.checked_add(left).ok()
}

/// What is to become of each lock.
fn judge<'a>(
    planning: &Planning,
    observed: &Observed,
    watch: &'a Watch,
    boot: u64,
) -> Vec<(&'a str, Verdict)> {
    let settings = planning.locks;
    let rules = Rules {
        after: settings.after,
        after_end: settings.after_end,
        spread: if observed.shared { settings.after } else { 0 },
        cluster: &planning.cluster,
    };
    watch.judge(rules, boot, |lock| life(observed, lock))
}

/// Each lock that was read was looked up; a process of which nothing is known may be at work.
fn life(observed: &Observed, lock: &LockFile) -> Life {
    let life = observed.lives.get(&(lock.user.clone(), lock.host.clone()));
    life.cloned()
        .unwrap_or_else(|| Life::Alive("a process that was not looked up".to_owned()))
}

/// Takes results of removals into the status, once each.
pub(super) fn take_results(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
    locks: &mut Locks,
    status: &mut ResticRepositoryStatus,
) {
    let (generation, now) = (input.generation(), input.now);
    let finished = observed
        .operations
        .iter()
        .filter(|o| o.job_type == super::owner::UNLOCK);
    for finished in finished.filter_map(|o| o.finished.as_ref()) {
        let last = status.last_unlock.as_ref();
        if last.is_none_or(|last| last.job_uid != finished.operation) {
            locks.count(finished, planning.locks.interval, now.boot);
            record(status, finished, generation, now.wall);
        }
    }
}

/// Writes into the status what is known of locks, and has removed what is left over.
pub(super) fn tend(
    planning: &Planning,
    input: &Input<'_, RepositoryController>,
    observed: &Observed,
    locks: &mut Locks,
    status: &mut ResticRepositoryStatus,
) -> Tended {
    let now = input.now;
    locks.watch.meet(now.boot, |lock| life(observed, lock));
    let judged = judge(planning, observed, &locks.watch, now.boot);
    if locks.watch.last().is_some() {
        status.locks = status::locks(&locks.watch, &judged);
    }
    stuck(status, &locks.watch, &judged, planning, input.resource, now.wall);
    let (batch, host) = batch(planning.locks, &locks.watch, &judged);
    let last = locks.watch.last();
    let is_new = last.is_some_and(|last| last.boot >= locks.look_after);
    let acts = is_new && !batch.is_empty() && is_first(observed, status);
    let mut tended = Tended {
        removable: if acts { batch } else { Vec::new() },
        ..Tended::default()
    };
    match &observed.job {
        Some((at, job)) if is_unneeded(job, acts) => tended.removals.push(Removal::Job {
            at: at.clone(),
            uid: job.meta.uid.to_string(),
        }),
        Some(_) => {}
        None if acts && (now.boot >= locks.not_before || observed.unlocking.is_some()) => {
            let settings = pod::job_settings(None).ok();
            let job = |settings: pod::JobSettings| {
                let (cluster, image) = (&planning.cluster, &planning.image);
                build::unlock_job(input.key, cluster, input.resource, &settings, image, host)
            };
            tended.job = settings.map(job);
        }
        None => {}
    }
    tended
}

/// Locks that may be removed in one operation, and the host name for its pod.
fn batch(settings: Settings, watch: &Watch, judged: &[(&str, Verdict)]) -> (Vec<String>, Option<String>) {
    let removable = judged.iter().filter(|(_, verdict)| *verdict == Verdict::Remove);
    let removable: Vec<&str> = removable.map(|(id, _)| *id).collect();
    if !settings.test {
        return (removable.into_iter().map(str::to_owned).collect(), None);
    }
    let locks = watch.locks();
    let host = |id: &str| {
        let seen = locks.iter().find(|(of, _)| *of == id)?.1;
        match &seen.content {
            Content::Read(file) => Some(file.host.clone()),
            _ => None,
        }
    };
    let first = removable.first().and_then(|id| host(id));
    let same = removable.into_iter().filter(|id| host(id) == first);
    (same.map(str::to_owned).collect(), first)
}

/// Of several resources for one physical repository, one acts.
fn is_first(observed: &Observed, status: &ResticRepositoryStatus) -> bool {
    status.is_open() && !observed.is_preceded
}

/// A Job that waits although nothing is left over, or whose result is recorded.
fn is_unneeded(job: &JobView, acts: bool) -> bool {
    let waits = job.suspended && !job.is_spent() && job.start.is_none();
    let over = job.end.is_some() && job.released.is_some();
    (waits && !acts) || (over && acts)
}

/// Sets condition Degraded for locks that only a person can remove, and ends it when none is left.
fn stuck(
    status: &mut ResticRepositoryStatus,
    watch: &Watch,
    judged: &[(&str, Verdict)],
    planning: &Planning,
    repository: &ResticRepository,
    now: Timestamp,
) {
    let Some(last) = watch.last() else { return };
    let locks = watch.locks();
    let old = |id: &str| {
        let seen = locks.iter().find(|(of, _)| *of == id);
        seen.is_some_and(|(_, seen)| last.boot.saturating_sub(seen.first.boot) >= planning.locks.after)
    };
    let kept = judged.iter().find_map(|(id, verdict)| match verdict {
        Verdict::Keep(why) if old(id) => Some((*id, why)),
        _ => None,
    });
    let before = conditions::get(&status.conditions, types::DEGRADED);
    let before = before.map(|c| (c.status == "True", c.reason.clone()));
    let (value, reason, text) = match (kept, before) {
        (Some((id, why)), _) => (
            Status::True,
            reasons::REPOSITORY_LOCKED,
            format!(
                "restic's lock {} does not change, and stays: {why}; `fleet why-locked {}/{}/{}` shows what a person can do",
                id.get(..10).unwrap_or(id),
                planning.cluster,
                repository.metadata.namespace.as_deref().unwrap_or_default(),
                repository.metadata.name.as_deref().unwrap_or_default()
            ),
        ),
        (None, Some((true, reason))) if watch.is_empty() || reason == reasons::REPOSITORY_LOCKED => (
            Status::False,
            reasons::REPOSITORY_UNLOCKED,
            "no lock of a dead process is left".to_owned(),
        ),
        _ => return,
    };
    let generation = repository.metadata.generation;
    Conditions::at(&mut status.conditions, generation, now).set(types::DEGRADED, value, reason, text);
}

/// Takes a result into the status.
fn record(status: &mut ResticRepositoryStatus, finished: &Finished, generation: Option<i64>, now: Timestamp) {
    let outcome = &finished.outcome;
    status.last_unlock = Some(LastUnlock {
        job_uid: finished.operation.clone(),
        time: Some(Time(whole_seconds(finished.finished.unwrap_or(now)))),
        result: outcome.result.clone(),
        message: outcome.message.clone(),
        removed: outcome.removed_locks.clone(),
    });
    let (degraded, reason) = match outcome.result.as_str() {
        "Applied" => (Status::False, reasons::REPOSITORY_UNLOCKED),
        // Somebody else was quicker, or the process lives after all.
        "NothingToRemove" => return,
        _ => (Status::True, reasons::UNLOCK_FAILED),
    };
    let text = match outcome.reason.as_str() {
        "" => outcome.message.clone(),
        reason => format!("{reason}: {}", outcome.message),
    };
    Conditions::at(&mut status.conditions, generation, now).set(types::DEGRADED, degraded, reason, text);
}

#[cfg(test)]
#[path = "unlock_tests.rs"]
mod tests;
