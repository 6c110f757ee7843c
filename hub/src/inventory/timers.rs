//! When something changes by itself: a backup comes due, a cluster's silence becomes too long.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Millis;

/// Moments by time. One that no longer holds does no harm: it only makes the hub look again.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(Millis, Arc<str>)>);

impl Timers {
    /// Sets one.
    pub fn set(&mut self, at: Millis, name: &Arc<str>) {
        self.0.insert((at, name.clone()));
    }

    /// Takes one back.
    pub fn unset(&mut self, at: Millis, name: &Arc<str>) {
        self.0.remove(&(at, name.clone()));
    }

    /// Takes the first that has come, with its time.
    pub fn due(&mut self, now: Millis) -> Option<(Millis, Arc<str>)> {
        match self.0.first() {
            Some((at, _)) if *at <= now => self.0.pop_first(),
            _ => None,
        }
    }
}
