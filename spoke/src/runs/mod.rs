//! What became of a Job: it waits, runs, or has ended, and how. One meaning for backups, restores, maintenance, and what
//! else runs restic in a Job; kinds only map an [`Ending`] to their own conditions. Pure, but for [`JobWithPods::of`], which
//! reads the cache.

mod claim;
mod ending;
mod explanation;
pub mod finished;
pub mod hooks;
pub mod progress;
mod waiting;

use std::sync::Arc;

use crds::progress::RunProgress;
use jiff::{SignedDuration, Timestamp};

use crate::world::{Delivery, JobView, Key, Notice, PodView, World};

pub use claim::{Unusable, missing, readable, writable};
pub use ending::{Ended, Ending, Report};
pub use explanation::{owner_hint, report};
pub use waiting::{Words, not_created};

/// Time for the end of a pod to become known after the end of its Job: two watches, two orders. Also for a pod to end
/// after its container `restic` has.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// A pod that has not started by then is reported.
pub const START_PATIENCE: SignedDuration = SignedDuration::from_secs(20);
/// Other containers of a pod are ended this long after `restic` has ended. The kubelet itself ends native sidecars.
const LINGER: SignedDuration = SignedDuration::from_secs(30);

/// A Job with its pods and the Events about them.
#[derive(Clone, Debug, Default)]
pub struct JobWithPods {
    pub key: Key,
    pub job: Arc<JobView>,
    pub pods: Vec<(Key, Arc<PodView>)>,
    /// Pods that were deleted before the Job's result was recorded, as they were last seen.
    pub deleted: Vec<(Key, Arc<PodView>)>,
    /// How far it has come.
    pub report: Option<Arc<RunProgress>>,
    /// By uid of the Job or of a pod.
    pub notices: Vec<(Box<str>, Arc<Notice>)>,
    /// Message of condition Waiting as it was last written: it outlives a restart.
    pub last_words: Option<String>,
    /// Whether the watch of pods delivers: while it does not, a missing pod is unknown, not absent.
    pub delivery: Delivery,
}

impl JobWithPods {
    /// A Job with what the cache holds of it.
    #[must_use]
    pub fn of(world: &World, key: Key, job: Arc<JobView>) -> JobWithPods {
        let pods = world.pods.group(&Key::new("", &job.meta.uid));
        let deleted = world.last_seen.of(&job.meta.uid);
        let uids = pods.iter().chain(&deleted).map(|(_, pod)| &pod.meta.uid);
        let notices = std::iter::once(&job.meta.uid)
            .chain(uids)
            .filter_map(|uid| Some((uid.clone(), world.notices.get(uid)?)))
            .collect();
        JobWithPods {
            report: progress::newest(world, pods.iter().map(|(_, pod)| pod)),
            key,
            job,
            pods,
            deleted,
            notices,
            last_words: None,
            delivery: world.pods.delivery(),
        }
    }

    /// The pod whose container ended last, or any; those that were deleted count after those that are there.
    #[must_use]
    pub fn newest(&self) -> Option<&(Key, Arc<PodView>)> {
        let finished = |pod: &PodView| pod.restic.as_ref().map(|t| t.finished.unwrap_or(Timestamp::MIN));
        self.deleted
            .iter()
            .chain(&self.pods)
            .max_by_key(|(_, pod)| finished(pod))
    }

    fn notice(&self, uid: &str) -> Option<&Notice> {
        let mut notices = self.notices.iter();
        notices
            .find(|(about, _)| &**about == uid)
            .map(|(_, notice)| notice.as_ref())
    }

    /// When the Job began, or was to begin.
    fn since(&self) -> Option<Timestamp> {
        self.job.start.or(self.job.created)
    }

    /// The pod whose container `restic` has ended although the pod goes on: another container of it stays. `None` while
    /// the Job makes another attempt when that pod ends.
    fn outlived(&self) -> Option<(&Key, &PodView)> {
        let (key, pod) = self
            .pods
            .iter()
            .find(|(_, pod)| pod.restic.is_some() && &*pod.phase == "Running")?;
        (self.job.end.is_none() && !self.job.meta.deleting).then_some((key, pod.as_ref()))
    }

    /// When to look again at a Job that has ended without the end of a pod being known: the watch of Jobs may be ahead of
    /// that of pods, and without a watch of pods nothing is known of them. `None`: there is no more to come.
    fn unsettled(&self, ended: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let since = self.delivery.since(now).map_or(now, |since| since.max(ended));
        let until = since.saturating_add(PATIENCE).unwrap_or(now);
        (now < until).then_some(until)
    }

    /// Whether a failed container means that the Job has failed.
    fn is_last_attempt(&self) -> bool {
        let all = self.pods.iter().chain(&self.deleted);
        let failed = all
            .filter(|(_, pod)| pod.restic.as_ref().is_some_and(|t| t.exit_code != 0))
            .count();
        i32::try_from(failed).is_ok_and(|failed| failed > self.job.backoff_limit)
    }

    /// A pod to be ended, as another container of it stays although `restic` has ended; or when to look again.
    fn lingers(&self, now: Timestamp) -> Option<Result<Lingering, Timestamp>> {
        let (key, pod) = self.outlived()?;
        let termination = pod.restic.as_ref()?;
        let finished = termination.finished.unwrap_or(now);
        let until = finished.checked_add(LINGER + hooks::time_to_end(pod)).ok()?;
        if now < until {
            return Some(Err(until));
        }
        let over = termination.exit_code == 0 || self.is_last_attempt();
        Some(Ok(Lingering {
            pod: key.clone(),
            job: over.then(|| self.key.clone()),
        }))
    }
}

/// A pod that goes on although `restic` has ended: it is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lingering {
    pub pod: Key,
    /// Its Job, which is not to make another attempt.
    pub job: Option<Key>,
}

/// The pods of Jobs that are to be ended, and when to look again.
#[must_use]
pub fn lingering<'a>(
    jobs: impl IntoIterator<Item = &'a JobWithPods>,
    now: Timestamp,
) -> (Vec<Lingering>, Option<Timestamp>) {
    let (mut pods, mut next) = (Vec::new(), None);
    for lingers in jobs.into_iter().filter_map(|run| run.lingers(now)) {
        match lingers {
            Ok(pod) => pods.push(pod),
            Err(at) => next = next.into_iter().chain([at]).min(),
        }
    }
    (pods, next)
}

/// Where a Job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State<M> {
    /// None of its pods runs. `words` is `None` within the first seconds; look again at `again`.
    Waiting {
        words: Option<Words>,
        again: Option<Timestamp>,
    },
    Running,
    /// Too little is known yet of its pods: look again then.
    Settling(Timestamp),
    Ended(Ended<M>),
}

/// Where a Job stands. `M` is what its container reports.
#[must_use]
pub fn state<M: Report>(run: &JobWithPods, now: Timestamp) -> State<M> {
    let job = &run.job;
    if let Some((at, end)) = &job.end {
        let at = at.unwrap_or(now);
        let known = |pod: &PodView| pod.restic.is_some() || hooks::failed_before(pod);
        let known = run.newest().is_some_and(|(_, pod)| known(pod));
        if !known && let Some(again) = run.unsettled(at, now) {
            return State::Settling(again);
        }
        if let Some(again) = hooks::busy_until(run, at).filter(|until| now < *until) {
            return State::Settling(again);
        }
        return State::Ended(ending::of_job(run, end, at));
    }
    if job.meta.deleting {
        return State::Ended(Ended::without_pod(Ending::Deleted, now));
    }
    if run.pods.iter().any(|(_, pod)| pod.started || pod.preparing) {
        return State::Running;
    }
    if let Some((_, pod)) = run.outlived() {
        let finished = pod.restic.as_ref().and_then(|t| t.finished).unwrap_or(now);
        let until = finished
            .saturating_add(PATIENCE + hooks::time_to_end(pod))
            .unwrap_or(now);
        if now < until {
            return State::Settling(until);
        }
        let succeeded = pod.restic.as_ref().is_some_and(|t| t.exit_code == 0);
        if succeeded || run.is_last_attempt() {
            return State::Ended(ending::of_outlived(run, pod));
        }
    }
    if run.delivery.since(now).is_none() {
        return State::Settling(now.saturating_add(PATIENCE).unwrap_or(now));
    }
    let (words, again) = waiting::explain(run, now);
    State::Waiting { words, again }
}

#[cfg(test)]
mod tests;
