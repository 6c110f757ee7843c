//! The supervisors of all kinds.

use super::{Cause, KindHandle};

/// Supervisors by kind.
#[derive(Clone)]
pub struct Kinds {
    pub repositories: KindHandle,
    pub backups: KindHandle,
    pub restores: KindHandle,
    pub policies: KindHandle,
    pub operations: KindHandle,
}

impl Kinds {
    /// This replica leads: actors start.
    pub fn lead(&self) {
        for kind in self.all() {
            kind.lead();
        }
    }

    /// This replica no longer leads. Resolves when no actor is left.
    pub async fn follow(&self) {
        futures::future::join_all(self.all().map(KindHandle::follow)).await;
    }

    /// Wakes all actors of all kinds.
    pub fn poke_all(&self, cause: Cause) {
        for kind in self.all() {
            kind.poke_all(cause);
        }
    }

    // Operations first: their owners' first turns find what they publish.
    fn all(&self) -> [&KindHandle; 5] {
        [
            &self.operations,
            &self.repositories,
            &self.backups,
            &self.restores,
            &self.policies,
        ]
    }
}
