//! A wall clock that moves with tokio's.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::context::Clock;

/// Wall clock of a test: starts at a given time and moves with tokio's clock, also while that is paused.
#[derive(Clone, Copy, Debug)]
pub struct PausedClock {
    start: Timestamp,
    since: Instant,
}

impl PausedClock {
    /// A clock that shows `start` now.
    #[must_use]
    pub fn at(start: Timestamp) -> PausedClock {
        PausedClock {
            start,
            since: Instant::now(),
        }
    }
}

impl Default for PausedClock {
    /// 2026-01-01 00:00 UTC, a Thursday.
    fn default() -> PausedClock {
        PausedClock::at(Timestamp::constant(1_767_225_600, 0))
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.start.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }
}
