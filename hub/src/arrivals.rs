//! Whole inventories are taken in by few sessions at the same time. Each costs milliseconds, and after a loss of the store
//! all clusters send theirs at once: heartbeats and renewals of locks must not stand in line behind them.

use proto::v1::spoke_message::Body;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Inventories that are taken in at the same time.
const TURNS: usize = 4;

/// Turns of the sessions, first come, first served.
#[derive(Debug)]
pub struct Arrivals {
    turns: Semaphore,
}

impl Default for Arrivals {
    fn default() -> Self {
        Arrivals {
            turns: Semaphore::new(TURNS),
        }
    }
}

impl Arrivals {
    /// Waits until a message may be taken in; small ones need no turn.
    pub async fn turn(&self, body: Option<&Body>) -> Option<SemaphorePermit<'_>> {
        match body {
            // The semaphore is never closed.
            Some(Body::Inventory(_)) => self.turns.acquire().await.ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt as _;
    use proto::v1::{Heartbeat, Inventory};

    use super::*;

    #[test]
    fn heartbeats_do_not_wait_for_inventories() {
        let (arrivals, whole) = (Arrivals::default(), Body::Inventory(Inventory::default()));
        let turn = || arrivals.turn(Some(&whole)).now_or_never();
        let mut taken: Vec<_> = (0..TURNS).map(|_| turn().unwrap().unwrap()).collect();
        assert!(turn().is_none(), "one more waits");
        let beat = Body::Heartbeat(Heartbeat::default());
        assert!(arrivals.turn(Some(&beat)).now_or_never().is_some());
        assert!(arrivals.turn(None).now_or_never().is_some());
        taken.pop();
        assert!(turn().is_some(), "until another has ended");
    }
}
