//! How many attempts to enrol are looked at. Pure.

use crate::Millis;

/// A bucket of attempts that fills up again.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// In thousandths of an attempt.
    left: i64,
    at: Millis,
}

/// Attempts that may come at once, and how many more each second.
const BURST: i64 = 100;
const PER_SECOND: i64 = 20;

impl Rate {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Millis) -> Rate {
        Rate {
            left: BURST * 1000,
            at: now,
        }
    }

    /// Whether one more attempt is looked at. `now` is by the steady clock.
    pub fn take(&mut self, now: Millis) -> bool {
        let passed = now.saturating_sub(self.at).clamp(0, 3_600_000);
        self.at = self.at.max(now);
        self.left = (self.left + passed * PER_SECOND).min(BURST * 1000);
        let enough = self.left >= 1000;
        if enough {
            self.left -= 1000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let mut rate = Rate::new(0);
        let taken = |rate: &mut Rate, now| (0..1000).filter(|_| rate.take(now)).count();
        assert_eq!(taken(&mut rate, 0), 100);
        assert_eq!(taken(&mut rate, 500), 10);
        assert_eq!(taken(&mut rate, 1_500), 20);
        assert_eq!(taken(&mut rate, 1_000), 0, "a clock that goes back gives nothing");
        assert_eq!(taken(&mut rate, 3_600_000), 100);
    }
}
