//! What the hub has found out about other stores with the id of a repository. See copy.proto.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use proto::v1::RepositoryCopies;

/// What the hub sent last, by restic id. Nothing is known of what it has not sent yet: a status keeps what it shows.
#[derive(Debug, Default)]
pub struct Copies(Mutex<HashMap<String, RepositoryCopies>>);

impl Copies {
    /// What is known of other stores with this id; `None` for nothing yet.
    #[must_use]
    pub fn of(&self, restic_id: Option<&str>) -> Option<RepositoryCopies> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(restic_id?).cloned()
    }

    /// The hub has sent it.
    pub(crate) fn told(&self, copies: RepositoryCopies) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(copies.restic_id.clone(), copies);
    }
}
