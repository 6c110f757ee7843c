//! Latest state of each resource on its way to the hub. Holds as much as there are resources, however long the hub is
//! away and however often they change.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use proto::v1::ObjectState;
use tokio::sync::Notify;

/// Where actors put their latest state.
#[derive(Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<String, Arc<ObjectState>>,
    dirty: HashSet<String>,
    gone: HashSet<String>,
}

/// What has changed since the last call.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    pub objects: Vec<Arc<ObjectState>>,
    /// uids.
    pub gone: Vec<String>,
}

impl Outbox {
    /// Puts a state. The same one again is nothing new.
    pub fn put(&self, state: ObjectState) {
        {
            let mut inner = self.lock();
            if inner
                .objects
                .get(&state.uid)
                .is_some_and(|present| **present == state)
            {
                return;
            }
            let uid = state.uid.clone();
            inner.gone.remove(&uid);
            inner.dirty.insert(uid.clone());
            inner.objects.insert(uid, Arc::new(state));
        }
        self.changed.notify_one();
    }

    /// The resource is gone.
    pub fn gone(&self, uid: &str) {
        {
            let mut inner = self.lock();
            if inner.objects.remove(uid).is_none() {
                return;
            }
            inner.dirty.remove(uid);
            inner.gone.insert(uid.to_owned());
        }
        self.changed.notify_one();
    }

    /// Everything, for a new session; what was to be sent as a change goes with it.
    pub fn all(&self) -> Vec<Arc<ObjectState>> {
        let mut inner = self.lock();
        inner.dirty.clear();
        inner.gone.clear();
        inner.objects.values().cloned().collect()
    }

    /// What has changed since `all` or the last call.
    pub fn changes(&self) -> Changes {
        let mut inner = self.lock();
        let dirty = std::mem::take(&mut inner.dirty);
        let objects = dirty
            .iter()
            .filter_map(|uid| inner.objects.get(uid).cloned())
            .collect();
        Changes {
            objects,
            gone: std::mem::take(&mut inner.gone).into_iter().collect(),
        }
    }

    /// Resolves when there may be changes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
