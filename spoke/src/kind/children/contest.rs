//! Another program changes an object each time it was put right, as an operator does that reacts to every event: both
//! would write as fast as the API server answers. Pure.

use std::time::Duration;

use crate::backoff::{Backoff, Jitter};

/// Changes in a row that are put right at once: people, and the original operator as it starts and ends.
const AT_ONCE: u32 = 3;
/// A change that comes later than this after the last one was put right is no answer to that.
const CALM: Duration = Duration::from_secs(60);
/// Between two writes of the ones after those.
const DELAY: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300), Jitter::None);

/// What is remembered of it. Losing it costs a few writes.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    in_a_row: u32,
    /// Time since boot in milliseconds, of the last write.
    last: Option<u64>,
}

impl Contest {
    /// Whether what another program changed may be put right at `now`, in milliseconds since boot. Counts it if so.
    pub(super) fn puts_right(&mut self, now: u64) -> bool {
        let passed = self
            .last
            .map(|last| Duration::from_millis(now.saturating_sub(last)));
        let delay = self.delay();
        match passed {
            Some(passed) if passed < delay => return false,
            Some(passed) if passed < delay + CALM => self.in_a_row = self.in_a_row.saturating_add(1),
            _ => self.in_a_row = 1,
        }
        self.last = Some(now);
        true
    }

    fn delay(&self) -> Duration {
        match self.in_a_row.checked_sub(AT_ONCE) {
            None => Duration::ZERO,
            Some(more) => DELAY.ceiling(more + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_changes_it_again_and_again_is_answered_ever_more_rarely() {
        let mut contest = Contest::default();
        let writes: Vec<u64> = (0..3_600_000)
            .step_by(100)
            .filter(|now| contest.puts_right(*now))
            .collect();
        assert_eq!(writes[..5], [0, 100, 200, 10_200, 30_200]);
        assert!(writes.len() < 20, "{writes:?}");
        let last = writes[writes.len() - 1];
        assert!(
            contest.puts_right(last + 361_000) && contest.puts_right(last + 361_100),
            "it was given up"
        );
    }

    #[test]
    fn changes_that_are_far_apart_are_put_right_at_once() {
        let mut contest = Contest::default();
        assert!((0..50).all(|minute| contest.puts_right(minute * 61_000)));
    }
}
