//! Delays between attempts. One doubling back-off for everything that is tried again. Pure but for the jitter.

use std::time::Duration;

use crate::clock::Random;

/// How far a delay is spread at random below its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Not at all: one caller, or callers that do not meet.
    None,
    /// Over the upper half: never soon, and a thousand callers that failed together do not come back together.
    Half,
    /// From zero: many callers of one server, such as all spokes of a hub that restarts.
    Full,
}

/// A delay that doubles with each failure in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub min: Duration,
    /// Ceiling after many.
    pub max: Duration,
    pub jitter: Jitter,
}

impl Backoff {
    #[must_use]
    pub const fn new(min: Duration, max: Duration, jitter: Jitter) -> Backoff {
        Backoff { min, max, jitter }
    }

    /// Delay after `failures` failures in a row. None counts as one.
    #[must_use]
    pub fn after(&self, failures: u32, random: &dyn Random) -> Duration {
        let ceiling = self.ceiling(failures);
        match self.jitter {
            Jitter::None => ceiling,
            Jitter::Half => ceiling / 2 + (ceiling / 2).mul_f64(random.unit()),
            Jitter::Full => ceiling.mul_f64(random.unit()),
        }
    }

    /// The longest delay after so many failures.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.min.saturating_mul(doubled).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandom;

    #[test]
    fn a_delay_doubles_up_to_its_ceiling_and_stays_within_its_jitter() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(300));
        for failures in 1..100 {
            let ceiling = min.saturating_mul(2u32.saturating_pow(failures - 1)).min(max);
            let delay = |jitter| Backoff::new(min, max, jitter).after(failures, &SystemRandom);
            assert_eq!(delay(Jitter::None), ceiling);
            let half = delay(Jitter::Half);
            assert!(half >= ceiling / 2 && half <= ceiling, "{failures}: {half:?}");
            assert!(delay(Jitter::Full) <= ceiling);
        }
        assert_eq!(Backoff::new(min, max, Jitter::None).after(0, &SystemRandom), min);
    }
}
