//! Where time and randomness come from. Traits, so that tests decide.

use jiff::Timestamp;
use rand::Rng as _;

/// Milliseconds since boot.
pub type BootMillis = u64;

/// The wall clock and the boot clock.
pub trait Clock: Send + Sync {
    /// Now, by the wall clock. It may be set back.
    fn now(&self) -> Timestamp;

    /// Milliseconds since boot, suspend included: a machine that slept has lost its lease.
    fn since_boot(&self) -> BootMillis;
}

/// The machine's clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn since_boot(&self) -> BootMillis {
        since_boot()
    }
}

/// Milliseconds since boot by the machine's clock, for processes that run outside of the operator.
#[must_use]
pub fn since_boot() -> BootMillis {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (
        time.tv_sec.max(0).unsigned_abs(),
        time.tv_nsec.max(0).unsigned_abs(),
    );
    seconds * 1000 + nanos / 1_000_000
}

/// A source of randomness.
pub trait Random: Send + Sync {
    /// A number from 0 to 1.
    fn unit(&self) -> f64;
}

/// The machine's randomness.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn unit(&self) -> f64 {
        rand::rng().random_range(0.0..=1.0)
    }
}
