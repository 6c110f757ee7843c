//! Permission to create a repository: one creation at a time in the whole fleet, see CreationRequest in link.proto.
//! Without a hub one at a time in this cluster. With a hub that is away nothing is created until it is back: repositories
//! that exist are not affected.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::v1::spoke_message::Body;
use proto::v1::{CreationDone, CreationRequest};
use tokio::sync::{MutexGuard, Notify, oneshot};
use tokio::time::Instant;

/// Creations that this spoke wants to do.
#[derive(Default)]
pub struct Creations {
    /// A hub decides; otherwise only `local` counts.
    fleet: bool,
    local: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Duration>>,
    /// Not told to the hub yet.
    asked: Vec<u64>,
    done: Vec<u64>,
}

/// How long the permission lasts where no hub says it. Nobody else is permitted meanwhile, so it is longer than any
/// creation may take.
const HOLD: Duration = Duration::from_secs(3600);

/// One creation may happen while this lives.
pub struct Permit<'a> {
    until: Instant,
    _local: MutexGuard<'a, ()>,
    fleet: Option<(&'a Creations, u64)>,
}

impl Permit<'_> {
    /// A creation has to be over by then: later another cluster may create.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some((creations, id)) = self.fleet {
            {
                let mut inner = creations.lock();
                inner.waiting.remove(&id);
                inner.asked.retain(|asked| *asked != id);
                inner.done.push(id);
            }
            creations.changed.notify_one();
        }
    }
}

/// When a creation has to be over. A fifth is left out: the grant was some time on its way, and clocks differ in rate.
fn until(hold: Duration) -> Instant {
    Instant::now() + hold * 4 / 5
}

impl Creations {
    /// With a hub, or alone.
    #[must_use]
    pub fn new(fleet: bool) -> Creations {
        Creations {
            fleet,
            ..Creations::default()
        }
    }

    /// Waits for permission.
    pub async fn permit(&self) -> Permit<'_> {
        let local = self.local.lock().await;
        if !self.fleet {
            return Permit {
                until: until(HOLD),
                _local: local,
                fleet: None,
            };
        }
        let (sender, granted) = oneshot::channel();
        let id = {
            let mut inner = self.lock();
            inner.last += 1;
            let id = inner.last;
            inner.waiting.insert(id, sender);
            inner.asked.push(id);
            id
        };
        // Made before waiting: a caller that gives up tells the hub so.
        let mut permit = Permit {
            until: Instant::now(),
            _local: local,
            fleet: Some((self, id)),
        };
        self.changed.notify_one();
        permit.until = match granted.await {
            Ok(hold) => until(hold),
            // Only when the sender is dropped without a word, which nothing does.
            Err(_) => std::future::pending().await,
        };
        permit
    }

    /// A new session: everything that waits is asked again.
    pub(crate) fn restart(&self) {
        let mut inner = self.lock();
        inner.asked = inner.waiting.keys().copied().collect();
        drop(inner);
        self.changed.notify_one();
    }

    /// The hub has granted.
    pub(crate) fn granted(&self, id: u64, hold_ms: u64) {
        if let Some(waiting) = self.lock().waiting.remove(&id) {
            // An error means that the caller has given up, and has said so.
            let _ = waiting.send(Duration::from_millis(hold_ms));
        }
    }

    /// What the hub has to be told.
    pub(crate) fn take(&self) -> Vec<Body> {
        let mut inner = self.lock();
        let done = std::mem::take(&mut inner.done)
            .into_iter()
            .map(|id| Body::CreationDone(CreationDone { id }));
        let done: Vec<Body> = done.collect();
        let asked = std::mem::take(&mut inner.asked)
            .into_iter()
            .map(|id| Body::CreationRequest(CreationRequest { id }));
        done.into_iter().chain(asked).collect()
    }

    /// Resolves when the hub has to be told something.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn alone_one_creation_at_a_time() {
        let creations = Creations::new(false);
        let first = creations.permit().await;
        let second = tokio::time::timeout(Duration::from_millis(20), creations.permit()).await;
        assert!(second.is_err());
        drop(first);
        creations.permit().await;
    }

    #[tokio::test]
    async fn a_permission_is_long_enough_for_a_look_and_a_creation_as_they_are_configured_by_default() {
        use clap::Parser as _;
        let config = crate::arguments::Arguments::parse_from(["fleet-spoke"]).config;
        let permit = Creations::new(false).permit().await.until();
        // A look takes up to one deadline, `restic init` up to two, and it is not begun without the time for it.
        assert!(permit > Instant::now() + config.probe_deadline * 3);
    }

    #[tokio::test]
    async fn in_a_fleet_the_hub_decides_and_hears_of_the_end() {
        let creations = Creations::new(true);
        let (permit, ()) = tokio::join!(creations.permit(), async {
            creations.changed().await;
            assert_eq!(
                creations.take(),
                [Body::CreationRequest(CreationRequest { id: 1 })]
            );
            creations.restart();
            assert_eq!(
                creations.take(),
                [Body::CreationRequest(CreationRequest { id: 1 })],
                "asked again in a new session"
            );
            creations.granted(1, 1000);
        });
        drop(permit);
        assert_eq!(creations.take(), [Body::CreationDone(CreationDone { id: 1 })]);
        let given_up = tokio::time::timeout(Duration::from_millis(10), creations.permit()).await;
        assert!(given_up.is_err());
        assert_eq!(
            creations.take(),
            [Body::CreationDone(CreationDone { id: 2 })],
            "who gives up says so"
        );
    }
}
