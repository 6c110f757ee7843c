//! Which watches have not listed yet: actors start when all have.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch as signal;
use tracing::debug;

use super::Routes;

/// Which watches have not listed yet.
pub(super) struct Lists {
    missing: Mutex<BTreeSet<String>>,
    routes: Arc<Routes>,
    /// Kept until the end: a dropped sender would look like a change to the receivers.
    synced: signal::Sender<bool>,
}

impl Lists {
    pub fn new(routes: Arc<Routes>, synced: signal::Sender<bool>) -> Lists {
        Lists {
            missing: Mutex::default(),
            routes,
            synced,
        }
    }

    pub fn expect(&self, name: &str) {
        self.lock().insert(name.to_owned());
    }

    /// A watch has listed. `false` if it had before, in an earlier start.
    pub fn listed(&self, name: &str) -> bool {
        let mut missing = self.lock();
        if !missing.remove(name) {
            return false;
        }
        debug!(resource = name, "listed");
        if missing.is_empty() {
            self.routes.open();
            self.synced.send_replace(true);
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
