//! Pauses of a watch whose requests fail. A request is not progress: only what the watch delivers is.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::watcher::{Error, Event};
use tokio::time::Instant;

use crate::backoff::{Backoff, Jitter};
use crate::clock::Random;

const AGAIN: Backoff = Backoff::new(Duration::from_millis(800), Duration::from_secs(60), Jitter::Half);
/// A watch that has lasted so long without a failure is a new one: in a quiet cluster it delivers nothing.
const STABLE: Duration = Duration::from_secs(120);
/// Longest pause that the API server can ask for.
const ASKED_MAX: u64 = 600;

/// Pauses of one watch.
pub struct Pauses {
    failures: u32,
    /// End of the last pause.
    resumed: Option<Instant>,
    random: Arc<dyn Random>,
}

impl Pauses {
    /// No failure yet.
    #[must_use]
    pub fn new(random: Arc<dyn Random>) -> Pauses {
        Pauses {
            failures: 0,
            resumed: None,
            random,
        }
    }

    /// The watch has yielded an event. The beginning of a list is none of the API server's, and a list can fail at each of
    /// its pages.
    pub fn yielded<T>(&mut self, event: &Event<T>) {
        if matches!(event, Event::Apply(_) | Event::Delete(_) | Event::InitDone) {
            self.failures = 0;
        }
    }

    /// The pause after a failure at `now`.
    pub fn failed(&mut self, error: &Error, now: Instant) -> Duration {
        let lasted = self.resumed.map(|resumed| now.saturating_duration_since(resumed));
        if lasted.is_some_and(|lasted| lasted >= STABLE) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let pause = AGAIN.after(self.failures, &*self.random).max(asked(error));
        self.resumed = Some(now + pause);
        pause
    }
}

/// The pause that the API server asks for in its answer. In a header the client itself obeys it.
fn asked(error: &Error) -> Duration {
    let status = match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status))
        | Error::WatchError(status) => status,
        _ => return Duration::ZERO,
    };
    let seconds = status
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(u64::from(seconds).min(ASKED_MAX))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::testing::Longest;

    fn refused(code: u16, retry_after_seconds: u32) -> Error {
        let mut status = Status::failure("no", "no").with_code(code);
        let details = serde_json::json!({ "retryAfterSeconds": retry_after_seconds });
        status.details = Some(serde_json::from_value(details).unwrap());
        Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn pauses_grow_to_a_minute_and_only_what_is_delivered_ends_that() {
        let mut pauses = Pauses::new(Arc::new(Longest));
        let now = Instant::now();
        let mut seconds = Vec::new();
        for _ in 0..9 {
            pauses.yielded(&Event::<()>::Init);
            pauses.yielded(&Event::InitApply(()));
            seconds.push(pauses.failed(&refused(403, 0), now).as_secs());
        }
        assert_eq!(seconds, [0, 1, 3, 6, 12, 25, 51, 60, 60]);
        for event in [Event::Apply(()), Event::Delete(()), Event::InitDone] {
            pauses.yielded(&event);
            assert_eq!(pauses.failed(&refused(403, 0), now).as_millis(), 800);
        }
        pauses.failed(&refused(403, 0), now);
        let later = now + Duration::from_secs(3) + STABLE;
        assert_eq!(
            pauses.failed(&refused(403, 0), later).as_millis(),
            800,
            "a new watch"
        );
    }

    #[test]
    fn the_api_server_can_ask_for_a_longer_pause() {
        let mut pauses = Pauses::new(Arc::new(Longest));
        let now = Instant::now();
        assert_eq!(pauses.failed(&refused(429, 30), now), Duration::from_secs(30));
        assert_eq!(
            pauses.failed(&refused(429, 1), now),
            Duration::from_millis(1600),
            "not for a shorter one"
        );
    }
}
