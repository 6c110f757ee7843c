//! What follows the hub goes on when the hub is away for a while: it says so once, and tries again with rising pauses.

use std::time::Duration;

use crate::failure::Failure;
use crate::output::note;

/// Pause between two questions while all is well.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(15);
/// A hub that is ending may cut a new connection off, which looks like a refusal. So often it is taken for that.
const REFUSED: u8 = 3;

/// How it goes on.
pub struct Again {
    pause: Duration,
    away: bool,
    refused: u8,
}

impl Again {
    #[must_use]
    pub fn new() -> Again {
        Again {
            pause: PAUSE,
            away: false,
            refused: 0,
        }
    }

    /// The hub has answered.
    pub fn is_well(&mut self) {
        if self.away {
            note("the hub is back");
        }
        *self = Again::new();
    }

    /// Until the next question.
    pub async fn pause(&self) {
        tokio::time::sleep(PAUSE).await;
    }

    /// Waits until the next attempt.
    ///
    /// # Errors
    /// When another attempt changes nothing: the failure.
    pub async fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        let refused = matches!(failure, Failure::Refused { .. });
        self.refused = self.refused.saturating_add(u8::from(refused));
        let again = passes(&failure) || (refused && self.refused <= REFUSED);
        if !again {
            return Err(failure);
        }
        if !self.away {
            note(&format!(
                "{failure}; what was shown may be out of date, trying again"
            ));
            self.away = true;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST);
        Ok(())
    }
}

/// Whether a failure may pass by itself: the hub is away, restarts, or is slow.
fn passes(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Unreachable { .. } | Failure::Timeout(_) | Failure::Hub(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_rise_and_what_does_not_pass_ends_it() {
        let away = || Failure::Hub("away".to_owned());
        let mut again = Again::new();
        let start = tokio::time::Instant::now();
        for _ in 0..6 {
            assert!(again.failed(away()).await.is_ok());
        }
        assert_eq!(start.elapsed(), Duration::from_secs(1 + 2 + 4 + 8 + 15 + 15));
        again.is_well();
        let start = tokio::time::Instant::now();
        assert!(again.failed(away()).await.is_ok());
        assert_eq!(start.elapsed(), PAUSE);
        assert!(again.failed(Failure::Forbidden("no".to_owned())).await.is_err());
        let refused = || Failure::Refused {
            hub: "hub".to_owned(),
            cause: "cut off".to_owned(),
        };
        for _ in 0..3 {
            assert!(again.failed(refused()).await.is_ok());
        }
        assert!(again.failed(refused()).await.is_err());
    }
}
