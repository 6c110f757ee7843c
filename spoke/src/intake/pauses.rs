//! Pauses of a watch that breaks again and again.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::utils::{Backoff as Pauses, ResetTimerBackoff};

use crate::backoff::{Backoff, Jitter};
use crate::clock::Random;

/// The longest pause is below the patience with the pods of a Job that has ended (10 s): the watch of Jobs may be back
/// before that of pods.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(800), Duration::from_secs(5), Jitter::Half);
/// A watch that has lasted so long is a new one.
const STABLE: Duration = Duration::from_secs(120);

struct Failures {
    count: u32,
    random: Arc<dyn Random>,
}

impl Iterator for Failures {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.count = self.count.saturating_add(1);
        Some(AGAIN.after(self.count, &*self.random))
    }
}

impl Pauses for Failures {
    fn reset(&mut self) {
        self.count = 0;
    }
}

/// Pauses of one watch.
pub fn of(random: Arc<dyn Random>) -> impl Pauses {
    ResetTimerBackoff::new(Failures { count: 0, random }, STABLE)
}
