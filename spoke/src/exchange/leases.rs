//! Messages between operations and the grantor of the maintenance lock: the hub, or without one the local grantor.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1::spoke_message::Body;
use proto::v1::{
    LeaseAsk, LeaseRelease, LeaseRenew, LeaseWithdraw, OperationOutcome, PlanPart, RetentionRun, hub_message,
};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::warn;

/// Asked of the local grantor.
pub enum Question {
    Ask(Box<Body>),
    /// This replica no longer leads: who waits, and since when a holder is silent, is forgotten.
    Reset,
}

/// Message of the grantor about an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A new session: what was sent in the old one may be lost.
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
        /// The run as composed now, if the pod has another one.
        run: Option<RetentionRun>,
    },
    Revoked {
        token: u64,
        reason: String,
        /// A person has taken the lock back.
        by_person: bool,
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
        outcome: Box<OperationOutcome>,
    },
    /// A person has approved a plan of the policy. Sent in each session until a run under the approval was granted.
    Approved {
        hash: String,
        restic_id: String,
    },
}

type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Longest part of a plan in one message, in bytes.
const PLAN_PART: usize = 256 << 10;
/// Policies whose approvals are kept until somebody listens.
const APPROVALS: usize = 1024;
/// Longest drain in milliseconds, whatever the hub asks for.
const DRAIN_MAX: u64 = 3_600_000;

/// Client of the grantor.
pub struct Leases {
    /// A hub grants; otherwise the local grantor.
    fleet: bool,
    inner: Mutex<Inner>,
    changed: Notify,
    local: mpsc::UnboundedSender<Question>,
}

#[derive(Default)]
struct Inner {
    connected: bool,
    /// At most one message of each sort for each operation and session.
    outgoing: Vec<Body>,
    /// Plans in parts, each followed by its release. They wait for everything in `outgoing`, part by part.
    documents: VecDeque<Body>,
    /// By uid of the Job, with the restic id that it was pinned to.
    operations: HashMap<String, (String, Listener)>,
    /// By uid of the policy.
    policies: HashMap<String, Listener>,
    /// Approvals of this session for policies to which nobody listens yet: their actors have just begun.
    approvals: HashMap<String, Vec<Event>>,
    /// Repositories whose backups are held, by restic id.
    drains: HashMap<String, Instant>,
}

impl Leases {
    /// With a hub, or with the questions that go to the local grantor.
    #[must_use]
    pub fn new(fleet: bool) -> (Leases, mpsc::UnboundedReceiver<Question>) {
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

    /// Whether the grantor can be reached now. The local one always can.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.fleet || self.lock().connected
    }

    /// Passes messages about an operation to `listener`. A message about another repository is dropped.
    pub fn listen(&self, operation: &str, restic_id: &str, listener: impl Fn(Event) + Send + Sync + 'static) {
        let entry: (String, Listener) = (restic_id.to_owned(), Arc::new(listener));
        self.lock().operations.insert(operation.to_owned(), entry);
    }

    /// Passes messages about a policy to `listener`.
    pub fn listen_policy(&self, uid: &str, listener: impl Fn(Event) + Send + Sync + 'static) {
        let listener: Listener = Arc::new(listener);
        let mut inner = self.lock();
        inner.policies.insert(uid.to_owned(), listener.clone());
        let waiting = inner.approvals.remove(uid).unwrap_or_default();
        drop(inner);
        waiting.into_iter().for_each(|approval| listener(approval));
    }

    /// An operation is over.
    pub fn forget(&self, operation: &str) {
        self.lock().operations.remove(operation);
    }

    /// A policy was deleted.
    pub fn forget_policy(&self, uid: &str) {
        self.lock().policies.remove(uid);
    }

    /// This replica no longer leads: what it has learnt in this term is dropped.
    pub fn reset(&self) {
        let mut inner = self.lock();
        *inner = Inner {
            connected: inner.connected,
            ..Inner::default()
        };
        drop(inner);
        // An error means that the spoke is stopping.
        let _ = self.local.send(Question::Reset);
    }

    pub fn ask(&self, ask: LeaseAsk) {
        self.send(Body::LeaseAsk(ask));
    }

    pub fn withdraw(&self, withdraw: LeaseWithdraw) {
        self.send(Body::LeaseWithdraw(withdraw));
    }

    pub fn renew(&self, renew: LeaseRenew) {
        self.send(Body::LeaseRenew(renew));
    }

    /// Releases a lease. The plan of the run goes before, in parts.
    pub fn release(&self, release: LeaseRelease, plan: &[u8]) {
        if plan.is_empty() || !self.fleet {
            return self.send(Body::LeaseRelease(release));
        }
        let mut inner = self.lock();
        if !inner.connected {
            return;
        }
        let about = |body: &Body| match body {
            Body::PlanPart(part) => part.operation == release.operation,
            Body::LeaseRelease(known) => known.operation == release.operation,
            _ => false,
        };
        // Still on its way: the same again helps nobody.
        if inner.documents.iter().any(about) {
            return;
        }
        for (n, data) in plan.chunks(PLAN_PART).enumerate() {
            inner.documents.push_back(Body::PlanPart(PlanPart {
                operation: release.operation.clone(),
                restic_id: release.restic_id.clone(),
                token: release.token,
                offset: (n * PLAN_PART) as u64,
                data: data.to_vec(),
            }));
        }
        inner.documents.push_back(Body::LeaseRelease(release));
        drop(inner);
        self.changed.notify_one();
    }

    /// Messages sent while disconnected are dropped; holders resend on [`Event::Connected`].
    fn send(&self, body: Body) {
        if !self.fleet {
            // An error means that the spoke is stopping.
            let _ = self.local.send(Question::Ask(Box::new(body)));
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
            inner.documents.clear();
            // The hub sends them again in each session.
            inner.approvals.clear();
            inner
                .operations
                .values()
                .map(|(_, listener)| listener.clone())
                .collect()
        };
        let event = if connected { Event::Connected } else { Event::Away };
        for listener in listeners {
            listener(event.clone());
        }
    }

    /// What goes to the hub now: everything that is short, and one part of what is long.
    pub(crate) fn take(&self) -> Vec<Body> {
        let mut inner = self.lock();
        let mut messages = std::mem::take(&mut inner.outgoing);
        messages.extend(inner.documents.pop_front());
        if !inner.documents.is_empty() {
            self.changed.notify_one();
        }
        messages
    }

    /// Resolves when something goes to the hub.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Dispatches a lease message of the hub. Returns the restic id of a repository whose backups must be reconciled.
    pub(crate) fn deliver(&self, body: hub_message::Body) -> Option<String> {
        let (operation, restic_id, event) = match body {
            hub_message::Body::PlanApproved(m) => {
                let (hash, restic_id) = (m.hash, m.restic_id);
                let approval = Event::Approved { hash, restic_id };
                let mut inner = self.lock();
                if let Some(listener) = inner.policies.get(&m.policy).cloned() {
                    drop(inner);
                    listener(approval);
                } else if inner.approvals.len() < APPROVALS {
                    inner.approvals.entry(m.policy).or_default().push(approval);
                }
                return None;
            }
            hub_message::Body::Drain(m) => {
                self.drain(&m.restic_id, m.duration_ms);
                return Some(m.restic_id);
            }
            body => event_of(body)?,
        };
        self.notify(&operation, &restic_id, event);
        None
    }

    fn drain(&self, restic_id: &str, duration_ms: u64) {
        let mut inner = self.lock();
        if duration_ms == 0 {
            inner.drains.remove(restic_id);
        } else {
            let until = Instant::now() + Duration::from_millis(duration_ms.min(DRAIN_MAX));
            inner.drains.insert(restic_id.to_owned(), until);
        }
    }

    /// Passes an event to an operation, if it is about the repository that the operation was pinned to.
    pub(crate) fn notify(&self, operation: &str, restic_id: &str, event: Event) {
        let entry = self.lock().operations.get(operation).cloned();
        match entry {
            Some((pinned, listener)) if pinned == restic_id => listener(event),
            Some((pinned, _)) => {
                warn!(
                    operation,
                    pinned, restic_id, "a lease message about another repository is dropped"
                );
            }
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease message as operation, restic id and event.
fn event_of(body: hub_message::Body) -> Option<(String, String, Event)> {
    Some(match body {
        hub_message::Body::LeaseGrant(m) => {
            let event = Event::Granted {
                token: m.token,
                ttl: m.ttl_ms,
                renew: m.renew_ms,
                run: m.run,
            };
            (m.operation, m.restic_id, event)
        }
        hub_message::Body::LeaseRenewed(m) => {
            let (token, seq, run) = (m.token, m.seq, m.run);
            (m.operation, m.restic_id, Event::Renewed { token, seq, run })
        }
        hub_message::Body::LeaseRevoke(m) => {
            let event = Event::Revoked {
                token: m.token,
                by_person: m.by_person,
                reason: m.reason,
            };
            (m.operation, m.restic_id, event)
        }
        hub_message::Body::LeaseReleased(m) => (m.operation, m.restic_id, Event::Released { token: m.token }),
        hub_message::Body::LeaseWaiting(m) => {
            let (position, reason) = (m.position, m.reason);
            (m.operation, m.restic_id, Event::Waiting { position, reason })
        }
        hub_message::Body::LeaseCovered(m) => {
            let event = Event::Covered {
                by: m.by,
                token: m.token,
                outcome: Box::new(m.outcome.unwrap_or_default()),
            };
            (m.operation, m.restic_id, event)
        }
        _ => return None,
    })
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
