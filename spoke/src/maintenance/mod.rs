//! The gate of maintenance: suspended Jobs, opened one at a time per physical repository. Each Job has a [`holder`]
//! (pure), which its resource's actor feeds; [`Leases`] is the actor's way to whoever grants: the hub, or without one
//! a Kubernetes Lease of this cluster ([`local`]). [`tokens`] keeps the highest token that this cluster has seen.

pub mod holder;
mod local;
mod local_lock;
mod tokens;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::v1::spoke_message::Body;
use proto::v1::{
    LeaseAsk, LeaseRelease, LeaseRenew, LeaseWithdraw, OperationOutcome, RetentionRun, hub_message,
};
use tokio::sync::{Notify, mpsc};

pub use local::Local;
pub use tokens::claim;

/// What whoever grants says about an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new session: what was said in the old one may be lost.
    Connected,
    /// The hub cannot be reached; what is shared waits.
    Away,
    Granted {
        token: u64,
        ttl: u64,
        renew: u64,
        /// Absent without a hub: then the cluster's own policies count.
        run: Option<RetentionRun>,
    },
    Renewed {
        token: u64,
        seq: u64,
    },
    Revoked {
        token: u64,
        reason: String,
    },
    Released {
        token: u64,
    },
    Waiting {
        position: u32,
        reason: String,
    },
    /// Another cluster's run has done it.
    Covered {
        by: String,
        token: u64,
        outcome: OperationOutcome,
    },
    /// A person has approved a plan of the policy.
    Approved {
        hash: String,
    },
}

type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// The way to whoever grants.
pub struct Leases {
    /// A hub grants; otherwise the local one.
    fleet: bool,
    inner: Mutex<Inner>,
    changed: Notify,
    local: mpsc::UnboundedSender<Body>,
}

#[derive(Default)]
struct Inner {
    connected: bool,
    outgoing: Vec<Body>,
    /// By uid of the Job.
    operations: HashMap<String, Listener>,
    /// By uid of the policy.
    policies: HashMap<String, Listener>,
    /// What Jobs hold or wait for, by uid: it has to be given back although their policy is deleted.
    claims: HashMap<String, Claim>,
    /// Repositories whose backups are held, by restic id.
    drains: HashMap<String, Instant>,
}

/// What a Job holds or waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub operation: String,
    /// uid of the policy.
    pub policy: String,
    pub restic_id: String,
    /// The last that it was granted; absent while it never was.
    pub token: Option<u64>,
}

impl Leases {
    /// With a hub, or with the questions that go to the local grantor.
    #[must_use]
    pub fn new(fleet: bool) -> (Leases, mpsc::UnboundedReceiver<Body>) {
        let (local, questions) = mpsc::unbounded_channel();
        let leases = Leases {
            fleet,
            inner: Mutex::default(),
            changed: Notify::new(),
            local,
        };
        (leases, questions)
    }

    /// Whether the lock spans clusters.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.fleet
    }

    /// Whether whoever grants can be asked now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.fleet || self.lock().connected
    }

    /// Hears what is said about an operation from now on.
    pub fn listen(&self, operation: &str, listener: impl Fn(Event) + Send + Sync + 'static) {
        self.lock()
            .operations
            .insert(operation.to_owned(), Arc::new(listener));
    }

    /// Hears what is said about a policy.
    pub fn listen_policy(&self, uid: &str, listener: impl Fn(Event) + Send + Sync + 'static) {
        self.lock().policies.insert(uid.to_owned(), Arc::new(listener));
    }

    /// An operation is over.
    pub fn forget(&self, operation: &str) {
        let mut inner = self.lock();
        inner.operations.remove(operation);
        inner.claims.remove(operation);
    }

    /// Notes what a Job holds or waits for.
    pub fn note(&self, claim: Claim) {
        self.lock().claims.insert(claim.operation.clone(), claim);
    }

    /// What the Jobs of a policy hold or wait for.
    #[must_use]
    pub fn claims(&self, policy: &str) -> Vec<Claim> {
        let inner = self.lock();
        inner
            .claims
            .values()
            .filter(|c| c.policy == policy)
            .cloned()
            .collect()
    }

    /// A policy is gone.
    pub fn forget_policy(&self, uid: &str) {
        self.lock().policies.remove(uid);
    }

    pub fn ask(&self, ask: LeaseAsk) {
        self.say(Body::LeaseAsk(ask));
    }

    pub fn withdraw(&self, operation: &str, restic_id: &str, opened: u64) {
        self.say(Body::LeaseWithdraw(LeaseWithdraw {
            operation: operation.to_owned(),
            restic_id: restic_id.to_owned(),
            token: opened,
        }));
    }

    pub fn renew(&self, operation: &str, restic_id: &str, token: u64, seq: u64) {
        self.say(Body::LeaseRenew(LeaseRenew {
            operation: operation.to_owned(),
            restic_id: restic_id.to_owned(),
            token,
            seq,
            ..Default::default()
        }));
    }

    pub fn release(&self, release: LeaseRelease) {
        self.say(Body::LeaseRelease(release));
    }

    /// What is said while nobody listens is lost: each holder says it again when there is a new session.
    fn say(&self, body: Body) {
        if !self.fleet {
            // An error means that the spoke is stopping.
            let _ = self.local.send(body);
            return;
        }
        let mut inner = self.lock();
        if inner.connected {
            inner.outgoing.push(body);
            drop(inner);
            self.changed.notify_one();
        }
    }

    /// For how long new backups into a repository are still to be held. Ends by itself, whatever becomes of the hub.
    #[must_use]
    pub fn drain_left(&self, restic_id: &str) -> Option<Duration> {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.drains.retain(|_, until| *until > now);
        inner.drains.get(restic_id).map(|until| *until - now)
    }

    /// A session has begun, or ended.
    pub(crate) fn connected(&self, connected: bool) {
        let listeners: Vec<Listener> = {
            let mut inner = self.lock();
            inner.connected = connected;
            inner.outgoing.clear();
            inner.operations.values().cloned().collect()
        };
        let event = if connected { Event::Connected } else { Event::Away };
        for listener in listeners {
            listener(event.clone());
        }
    }

    /// What goes to the hub.
    pub(crate) fn take(&self) -> Vec<Body> {
        std::mem::take(&mut self.lock().outgoing)
    }

    /// Resolves when something goes to the hub.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Delivers what the hub says; gives back what is not about leases. Says which repository's backups are to be
    /// looked at again.
    pub(crate) fn deliver(&self, body: hub_message::Body) -> Option<String> {
        let (operation, event) = match body {
            hub_message::Body::LeaseGrant(m) => (
                m.operation,
                Event::Granted {
                    token: m.token,
                    ttl: m.ttl_ms,
                    renew: m.renew_ms,
                    run: m.run,
                },
            ),
            hub_message::Body::LeaseRenewed(m) => (
                m.operation,
                Event::Renewed {
                    token: m.token,
                    seq: m.seq,
                },
            ),
            hub_message::Body::LeaseRevoke(m) => (
                m.operation,
                Event::Revoked {
                    token: m.token,
                    reason: m.reason,
                },
            ),
            hub_message::Body::LeaseReleased(m) => (m.operation, Event::Released { token: m.token }),
            hub_message::Body::LeaseWaiting(m) => (
                m.operation,
                Event::Waiting {
                    position: m.position,
                    reason: m.reason,
                },
            ),
            hub_message::Body::LeaseCovered(m) => (
                m.operation,
                Event::Covered {
                    by: m.by,
                    token: m.token,
                    outcome: m.outcome.unwrap_or_default(),
                },
            ),
            hub_message::Body::PlanApproved(m) => {
                let listener = self.lock().policies.get(&m.policy).cloned();
                if let Some(listener) = listener {
                    listener(Event::Approved { hash: m.hash });
                }
                return None;
            }
            hub_message::Body::Drain(m) => {
                let mut inner = self.lock();
                if m.duration_ms == 0 {
                    inner.drains.remove(&m.restic_id);
                } else {
                    let until = Instant::now() + Duration::from_millis(m.duration_ms.min(3_600_000));
                    inner.drains.insert(m.restic_id.clone(), until);
                }
                return Some(m.restic_id);
            }
            _ => return None,
        };
        self.tell(&operation, event);
        None
    }

    /// Tells an operation.
    pub(crate) fn tell(&self, operation: &str, event: Event) {
        let listener = self.lock().operations.get(operation).cloned();
        if let Some(listener) = listener {
            listener(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_while_the_hub_is_away_is_said_again_by_those_who_said_it() {
        let (leases, _) = Leases::new(true);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        leases.listen("job", move |event| ears.lock().unwrap().push(event));
        leases.renew("job", "r", 1, 1);
        assert!(leases.take().is_empty());
        leases.connected(true);
        assert_eq!(*heard.lock().unwrap(), [Event::Connected]);
        leases.renew("job", "r", 1, 2);
        assert_eq!(leases.take().len(), 1);
        leases.tell("other", Event::Released { token: 1 });
        assert_eq!(heard.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_drain_ends_when_it_is_said_or_by_itself() {
        let (leases, _) = Leases::new(true);
        let drain = |duration_ms| {
            leases.deliver(hub_message::Body::Drain(proto::v1::Drain {
                restic_id: "r".to_owned(),
                duration_ms,
            }))
        };
        assert_eq!(drain(60_000).as_deref(), Some("r"));
        assert!(leases.drain_left("r").is_some() && leases.drain_left("s").is_none());
        drain(0);
        assert!(leases.drain_left("r").is_none());
        drain(1);
        std::thread::sleep(Duration::from_millis(5));
        assert!(leases.drain_left("r").is_none());
    }
}
