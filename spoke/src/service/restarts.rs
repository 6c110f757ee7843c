//! When a failed service is started again, and when that is given up. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, Jitter};
use crate::clock::SystemRandom;

/// How often a service may fail, and how fast it is started again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub backoff: Backoff,
    /// Failures within this time count together.
    pub window: Duration,
    /// This many of them are too many.
    pub limit: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30), Jitter::Half),
            window: Duration::from_secs(600),
            limit: 6,
        }
    }
}

/// The failures of one service.
#[derive(Debug)]
pub struct Restarts {
    pace: Pace,
    /// When it failed, within the window, oldest first.
    recent: VecDeque<Instant>,
}

impl Restarts {
    #[must_use]
    pub fn new(pace: Pace) -> Restarts {
        Restarts {
            pace,
            recent: VecDeque::new(),
        }
    }

    /// Notes a failure. Returns the delay before the next start; `None` when there have been too many.
    pub fn failed(&mut self, now: Instant) -> Option<Duration> {
        let window = self.pace.window;
        self.recent
            .retain(|then| now.saturating_duration_since(*then) < window);
        self.recent.push_back(now);
        let failures = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        (self.recent.len() < self.pace.limit).then(|| self.pace.backoff.after(failures, &SystemRandom))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_within_the_window_add_up_and_older_ones_are_forgiven() {
        let pace = Pace {
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(3), Jitter::None),
            window: Duration::from_secs(100),
            limit: 4,
        };
        let start = Instant::now();
        let mut restarts = Restarts::new(pace);
        let mut at = |seconds| {
            restarts
                .failed(start + Duration::from_secs(seconds))
                .map(|d| d.as_secs())
        };
        assert_eq!(at(0), Some(1));
        assert_eq!(at(10), Some(2));
        assert_eq!(at(20), Some(3));
        // The first one is older than the window.
        assert_eq!(at(105), Some(3));
        assert_eq!(at(106), None, "four within the window");
        assert_eq!(at(300), Some(1), "all forgotten");
    }
}
