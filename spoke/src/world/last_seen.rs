//! Pods that were deleted before their Job had ended, as they were last seen: an evicted pod goes before its Job is marked
//! as failed, and its end with it. Bounded, and forgotten with the Job.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Key, PodView};

/// Pods that are kept.
const MAX: usize = 512;

/// The pods, oldest first.
#[derive(Default)]
pub struct LastSeen {
    inner: Mutex<VecDeque<(Key, Arc<PodView>)>>,
}

impl LastSeen {
    /// A pod was deleted.
    pub fn put(&self, key: Key, pod: Arc<PodView>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.retain(|(_, known)| known.meta.uid != pod.meta.uid);
        if inner.len() >= MAX {
            inner.pop_front();
        }
        inner.push_back((key, pod));
    }

    /// The deleted pods of a Job.
    #[must_use]
    pub fn of(&self, job_uid: &str) -> Vec<(Key, Arc<PodView>)> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let its = inner
            .iter()
            .filter(|(_, pod)| pod.meta.owner.as_deref() == Some(job_uid));
        its.cloned().collect()
    }

    /// A Job was deleted.
    pub fn forget(&self, job_uid: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.retain(|(_, pod)| pod.meta.owner.as_deref() != Some(job_uid));
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
}
