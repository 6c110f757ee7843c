//! How far the runs of our pods have come, by the last look at their logs. Bounded by the pods that run.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use crds::progress::RunProgress;

/// The newest report by uid of the pod.
#[derive(Default)]
pub struct Reports {
    inner: RwLock<HashMap<Box<str>, Arc<RunProgress>>>,
}

impl Reports {
    /// Keeps a report. Returns whether its figures are others than those before, which keep their time else.
    pub fn put(&self, pod_uid: &str, report: RunProgress) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let known = inner.get(pod_uid);
        let news = known.is_none_or(|known| !known.is_as(&report));
        if news {
            inner.insert(pod_uid.into(), Arc::new(report));
        }
        news
    }

    /// The newest report of a pod.
    #[must_use]
    pub fn get(&self, pod_uid: &str) -> Option<Arc<RunProgress>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.get(pod_uid).cloned()
    }

    /// Forgets all pods but these.
    pub fn keep(&self, pod_uids: &HashSet<&str>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.retain(|uid, _| pod_uids.contains(&**uid));
    }
}
