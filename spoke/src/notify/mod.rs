//! Notifications: who is told what a change of a status means.
//!
//! ```text
//! driver: (old status, new status) ── changes ──> Notifier ──bounded queue──> Sender ──lanes──> ntfy, mail, webhook, …
//! ```
//! What is told follows from the difference of two statuses ([`changes`], pure), taken when the new one has been written:
//! that write succeeds once for each change, whichever replica leads. So a run is told of at most once. One that is still
//! queued when the process is killed is lost; the other order (send, then record) would tell of it twice after each crash
//! in between, and the status, the Event and the metrics hold the result anyway.

mod address;
mod changes;
mod http;
mod lanes;
mod mail;
mod render;
mod requests;
mod sender;
mod target;
mod trust;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crds::notifications::NotificationConfig;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::world::Key;

pub use address::Addresses;
pub use changes::Notifying;
pub use http::Failure;
pub use requests::Data;
pub use sender::{Pace, Parts, Secrets, Sender, Unread};
pub use target::Target;

/// Deliveries that wait between actors and sender.
const QUEUE: usize = 1024;
/// Ids of notifications that are remembered, so that a condition that comes and goes is told of once.
const REMEMBERED: usize = 8192;
/// Bytes of a message that are sent.
const MESSAGE_MAX: usize = 2048;

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occasion {
    Success,
    Failure,
    Partial,
    Suspicious,
    Stale,
    Damage,
    ApprovalWanted,
    RestoreCompleted,
    RestoreFailed,
}

impl Occasion {
    pub const ALL: [Occasion; 9] = [
        Occasion::Success,
        Occasion::Failure,
        Occasion::Partial,
        Occasion::Suspicious,
        Occasion::Stale,
        Occasion::Damage,
        Occasion::ApprovalWanted,
        Occasion::RestoreCompleted,
        Occasion::RestoreFailed,
    ];

    /// As it stands in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Occasion::Success => "success",
            Occasion::Failure => "failure",
            Occasion::Partial => "partial",
            Occasion::Suspicious => "suspicious",
            Occasion::Stale => "stale",
            Occasion::Damage => "damage",
            Occasion::ApprovalWanted => "approval-wanted",
            Occasion::RestoreCompleted => "restore-completed",
            Occasion::RestoreFailed => "restore-failed",
        }
    }

    /// Nobody has to do anything.
    #[must_use]
    pub fn is_well(self) -> bool {
        matches!(self, Occasion::Success | Occasion::RestoreCompleted)
    }
}

/// Figures of a run of a backup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub started: Option<Timestamp>,
    /// Seconds.
    pub duration: Option<f64>,
    /// Bytes read from the source.
    pub size: Option<i64>,
    pub files: Option<i64>,
    /// Full id of the snapshot.
    pub snapshot: Option<String>,
    /// End of the last run that succeeded, this one included.
    pub last_success: Option<Timestamp>,
}

/// Something in a status that somebody wants to know of.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub occasion: Occasion,
    /// What it happened to, such as the name of a Job. There is one notification for each resource, run and occasion.
    pub run: String,
    /// One word.
    pub reason: Option<String>,
    pub message: String,
    /// Of a run of a backup only.
    pub figures: Option<Figures>,
}

/// What a notification is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// As in the API, such as ResticBackup.
    pub kind: &'static str,
    pub key: Key,
    pub uid: String,
    /// Name of the cluster in the fleet.
    pub cluster: String,
}

/// A change of a resource, as it is told to every target.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Hash of resource, run and occasion: the same for each attempt.
    pub id: String,
    pub subject: Subject,
    pub change: Change,
    pub time: Timestamp,
}

impl Notification {
    fn new(subject: &Subject, mut change: Change, time: Timestamp) -> Notification {
        let mut end = change.message.len().min(MESSAGE_MAX);
        while !change.message.is_char_boundary(end) {
            end -= 1;
        }
        change.message.truncate(end);
        let of = format!("{}/{}/{}", subject.uid, change.run, change.occasion.as_str());
        let mut id = hex::encode(Sha256::digest(of));
        id.truncate(32);
        Notification {
            id,
            subject: subject.clone(),
            change,
            time,
        }
    }
}

/// A notification on its way to one target.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub notification: Arc<Notification>,
    pub target: Target,
}

/// Ids of notifications, the newest ones.
#[derive(Default)]
struct Remembered {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Remembered {
    /// Whether it is new.
    fn insert(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED {
            self.order
                .pop_front()
                .inspect(|oldest| _ = self.known.remove(oldest));
        }
        true
    }
}

/// Where the driver puts notifications. It never waits.
#[derive(Clone)]
pub struct Notifier {
    queue: mpsc::Sender<Delivery>,
    remembered: Arc<Mutex<Remembered>>,
    metrics: Arc<Metrics>,
}

/// The other end of the queue.
pub type Queue = mpsc::Receiver<Delivery>;

impl Notifier {
    /// A queue.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Notifier, Queue) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let remembered = Arc::default();
        let notifier = Notifier {
            queue,
            remembered,
            metrics,
        };
        (notifier, receiver)
    }

    /// Queues what has changed, once for each target. What finds the queue full is dropped and counted.
    pub fn publish(
        &self,
        subject: &Subject,
        config: &NotificationConfig,
        changes: Vec<Change>,
        now: Timestamp,
    ) {
        for change in changes {
            let notification = Arc::new(Notification::new(subject, change, now));
            let targets = target::wanted(config, &notification);
            if targets.is_empty() || !self.remember(&notification.id) {
                continue;
            }
            for target in targets {
                let name = target.name();
                let delivery = Delivery {
                    notification: notification.clone(),
                    target,
                };
                if self.queue.try_send(delivery).is_err() {
                    self.metrics.notification(name, "dropped");
                }
            }
        }
    }

    fn remember(&self, id: &str) -> bool {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.insert(id)
    }
}

#[cfg(test)]
mod tests;
