//! How each long-lived part is, for /readyz.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Well,
    /// It runs, and is not of use yet. With what it waits for.
    Waits(String),
    /// It failed, and is started again later. The text is the cause.
    Failed(String),
}

/// Conditions by name of the service. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    services: Arc<Mutex<BTreeMap<String, Condition>>>,
}

impl Health {
    /// Notes how a service is now.
    pub fn set(&self, service: &str, condition: Condition) {
        self.lock().insert(service.to_owned(), condition);
    }

    /// One line for each service that is not well, in the order of their names. Empty when the process is ready.
    #[must_use]
    pub fn unwell(&self) -> Vec<String> {
        let services = self.lock();
        let lines = services.iter().filter_map(|(name, condition)| match condition {
            Condition::Well => None,
            Condition::Waits(what) => Some(format!("{name}: {what}")),
            Condition::Failed(cause) => Some(format!("{name}: failed and will be started again: {cause}")),
        });
        lines.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Condition>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
