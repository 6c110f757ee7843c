//! Clocks that move with tokio's, and randomness that does not.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::clock::{BootMillis, Clock, Random};

/// Milliseconds that a test's machine has been up when the test begins.
const BOOTED: BootMillis = 86_400_000;

/// Clocks of a test: the wall clock starts at a given time, and both move with tokio's clock, also while that is paused.
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

    fn since_boot(&self) -> BootMillis {
        BOOTED + u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

/// Every random number is the largest one: delays are as long as they can be.
pub struct Longest;

impl Random for Longest {
    fn unit(&self) -> f64 {
        1.0
    }
}
