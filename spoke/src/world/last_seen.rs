//! Pods that were deleted before the result of their Job was recorded, as they were last seen: an evicted pod is deleted
//! before its Job is marked as failed, a finished one perhaps right after. Bounded, and forgotten with the Job.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Key, PodView};

/// Pods that are kept.
const MAX: usize = 512;

/// The pods.
#[derive(Default)]
pub struct LastSeen {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Oldest first.
    pods: VecDeque<(Key, Arc<PodView>)>,
    /// uids of Jobs whose result is recorded.
    recorded: HashSet<Box<str>>,
    /// uids of deleted Jobs of which pods are kept for their hooks.
    owing: HashSet<Box<str>>,
}

impl LastSeen {
    /// A pod was deleted.
    pub fn put(&self, key: Key, pod: Arc<PodView>) {
        let mut inner = self.lock();
        let owner = pod.meta.owner.as_deref().unwrap_or_default();
        if inner.recorded.contains(owner) {
            return;
        }
        inner.pods.retain(|(_, known)| known.meta.uid != pod.meta.uid);
        if inner.pods.len() >= MAX {
            inner.pods.pop_front();
        }
        inner.pods.push_back((key, pod));
    }

    /// The deleted pods of a Job.
    #[must_use]
    pub fn of(&self, job_uid: &str) -> Vec<(Key, Arc<PodView>)> {
        let inner = self.lock();
        let its = inner
            .pods
            .iter()
            .filter(|(_, pod)| pod.meta.owner.as_deref() == Some(job_uid));
        its.cloned().collect()
    }

    /// The result of a Job is recorded: its pods are not asked for any more.
    pub fn recorded(&self, job_uid: &str) {
        self.forget(job_uid);
        self.lock().recorded.insert(job_uid.into());
    }

    /// A Job was deleted whose hooks are open: its pods are kept until [`LastSeen::closed`].
    pub fn owes(&self, job_uid: &str) {
        self.lock().owing.insert(job_uid.into());
    }

    /// The hooks of a run are closed. While its Job is there, its pods are asked for all the same.
    pub fn closed(&self, job_uid: &str) {
        if self.lock().owing.contains(job_uid) {
            self.forget(job_uid);
        }
    }

    /// A Job was deleted.
    pub fn forget(&self, job_uid: &str) {
        let mut inner = self.lock();
        inner.recorded.remove(job_uid);
        inner.owing.remove(job_uid);
        inner
            .pods
            .retain(|(_, pod)| pod.meta.owner.as_deref() != Some(job_uid));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: usize, job: &str) -> Arc<PodView> {
        let mut pod = PodView::default();
        pod.meta.uid = uid.to_string().into();
        pod.meta.owner = Some(job.into());
        Arc::new(pod)
    }

    #[test]
    fn a_jobs_deleted_pods_are_kept_until_the_job_is_deleted_and_within_bounds() {
        let seen = LastSeen::default();
        seen.put(Key::new("ns", "p"), pod(0, "job"));
        seen.put(Key::new("ns", "p"), pod(0, "job"));
        assert_eq!(seen.of("job").len(), 1);
        for uid in 1..=MAX {
            seen.put(Key::new("ns", "q"), pod(uid, "other"));
        }
        assert!(seen.of("job").is_empty(), "the oldest went");
        seen.forget("other");
        assert!(seen.of("other").is_empty());
    }

    #[test]
    fn nothing_is_kept_of_a_job_whose_result_is_recorded() {
        let seen = LastSeen::default();
        seen.put(Key::new("ns", "p"), pod(0, "job"));
        seen.recorded("job");
        seen.put(Key::new("ns", "q"), pod(1, "job"));
        assert!(seen.of("job").is_empty());
        seen.forget("job");
        assert!(seen.lock().recorded.is_empty(), "the Job is deleted");
    }
}
