//! What the actors of backups share of the queue.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Turns;
use crate::world::Key;

/// Shared by the actors of all backups.
#[derive(Default)]
pub struct Places {
    /// Held while a parked run is opened.
    pub opening: tokio::sync::Mutex<()>,
    /// Backups whose parked runs may not be opened now, as found in their last turns.
    closed: Mutex<BTreeSet<Key>>,
    /// As computed after the last change of the queue.
    turns: Mutex<Arc<Turns>>,
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

    /// The queue has changed: turns have to be computed anew.
    pub fn moved(&self) {
        self.moved.notify_one();
    }

    /// Resolves when it has changed since the last call.
    pub async fn wait(&self) {
        self.moved.notified().await;
    }

    /// Backups whose parked runs may not be opened.
    #[must_use]
    pub fn closed(&self) -> BTreeSet<Key> {
        self.lock().clone()
    }

    pub(super) fn publish(&self, turns: Arc<Turns>) {
        *self.turns.lock().unwrap_or_else(PoisonError::into_inner) = turns;
    }

    /// The turns of all parked runs. A run that has just come is not among them yet; its backup is woken when it is.
    #[must_use]
    pub fn turns(&self) -> Arc<Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another term begins: each backup takes a turn again.
    pub fn clear(&self) {
        self.lock().clear();
        self.publish(Arc::default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
