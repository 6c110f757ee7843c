//! What the actors of backups let each other know of the queue.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::world::Key;

/// Shared by the actors of all backups.
#[derive(Default)]
pub struct Places {
    /// Held while a parked run is opened.
    pub opening: tokio::sync::Mutex<()>,
    /// Backups whose parked runs may not be opened now, as found in their last turns.
    closed: Mutex<BTreeSet<Key>>,
    moved: Notify,
}

impl Places {
    /// Whether the parked runs of a backup may be opened, as found in its turn.
    pub fn report(&self, backup: &Key, opens: bool) {
        let mut closed = self.lock();
        let changed = if opens {
            closed.remove(backup)
        } else {
            closed.insert(backup.clone())
        };
        drop(closed);
        if changed {
            self.moved();
        }
    }

    /// The places may be others now.
    pub fn moved(&self) {
        self.moved.notify_one();
    }

    /// Resolves when that was said since the last call.
    pub async fn wait(&self) {
        self.moved.notified().await;
    }

    /// Backups whose parked runs may not be opened.
    #[must_use]
    pub fn closed(&self) -> BTreeSet<Key> {
        self.lock().clone()
    }

    /// Another term begins: each backup takes a turn again.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
