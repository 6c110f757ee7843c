//! Sends what is queued: several receivers at a time, each attempt within a limit, failed ones again with rising pauses.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::http::{Client, Failure};
use super::lanes::{Lane, Lanes, Waiting};
use super::requests::{self, Data};
use super::trust::Trust;
use super::{Addresses, Delivery, Queue, Target, mail, render};
use crate::backoff::{Backoff, Jitter};
use crate::clock::{Clock, Random};
use crate::events::{Events, Severity};
use crate::metrics::Metrics;
use crate::world::Key;

/// Deliveries that are under way at the same time.
const RUNNING: usize = 16;
/// For what is queued when the spoke stops. Below the limit of services.
const LAST: Duration = Duration::from_secs(4);

/// Why a Secret is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It may be had later.
    Later(&'static str),
    /// Its content is not for receivers of notifications.
    Refused(&'static str),
}

/// Reads Secrets.
pub trait Secrets: Send + Sync {
    /// The data of a Secret; `None` if there is none.
    fn read(&self, key: Key) -> BoxFuture<'_, Result<Option<Data>, Unread>>;
}

/// How often and how long a delivery is attempted.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub backoff: Backoff,
    pub attempts: u32,
    /// Of one attempt.
    pub attempt: Duration,
    /// From queueing to giving up.
    pub deadline: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            backoff: Backoff::new(Duration::from_secs(2), Duration::from_secs(300), Jitter::Half),
            attempts: 12,
            attempt: Duration::from_secs(20),
            deadline: Duration::from_secs(3600),
        }
    }
}

/// What the sender uses.
pub struct Parts {
    pub secrets: Arc<dyn Secrets>,
    pub addresses: Addresses,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub pace: Pace,
}

/// The service behind [`super::Notifier`]. Queue and lanes outlive a failure of it.
pub struct Sender {
    queue: Mutex<Queue>,
    lanes: StdMutex<Lanes>,
    trust: Arc<Trust>,
    client: Client,
    parts: Parts,
}

type Ended = (Lane, Waiting, Result<(), Failure>);

impl Sender {
    #[must_use]
    pub fn new(queue: Queue, parts: Parts) -> Sender {
        let trust = Arc::<Trust>::default();
        Sender {
            queue: Mutex::new(queue),
            lanes: StdMutex::default(),
            client: Client::new(parts.addresses, trust.clone()),
            trust,
            parts,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends until shutdown, and then what can be sent within a limit. It does not matter who leads: what is queued here is
    /// queued nowhere else.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut queue = self.queue.lock().await;
        let mut running = JoinSet::new();
        self.lanes().reset();
        loop {
            self.start(&mut running);
            let wake = self.lanes().wake(Instant::now());
            tokio::select! {
                delivery = queue.recv() => match delivery {
                    Some(delivery) => self.take(delivery),
                    None => break,
                },
                Some(Ok(ended)) = running.join_next() => self.end(ended),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                () = shutdown.cancelled() => break,
            }
        }
        while let Ok(delivery) = queue.try_recv() {
            self.take(delivery);
        }
        let rest = async {
            loop {
                self.start(&mut running);
                match running.join_next().await {
                    Some(Ok(ended)) => self.end(ended),
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        };
        // An error means that it takes too long.
        let _ = timeout(LAST, rest).await;
    }

    fn take(&self, delivery: Delivery) {
        let target = delivery.target.name();
        if !self.lanes().push(delivery, Instant::now()) {
            self.parts.metrics.notification(target, "dropped");
        }
        self.measure();
    }

    fn measure(&self) {
        let queued = self.lanes().len();
        self.parts.metrics.notifications_queued(queued);
    }

    /// Starts what is due and has room.
    fn start(self: &Arc<Self>, running: &mut JoinSet<Ended>) {
        while running.len() < RUNNING {
            let Some((lane, waiting)) = self.lanes().next(Instant::now()) else {
                return;
            };
            let sender = self.clone();
            running.spawn(async move {
                let result = sender.bounded(&waiting.delivery).await;
                (lane, waiting, result)
            });
        }
    }

    /// One attempt. One that takes too long or panics has failed: its lane goes on.
    async fn bounded(&self, delivery: &Delivery) -> Result<(), Failure> {
        let attempt = AssertUnwindSafe(self.attempt(delivery)).catch_unwind();
        match timeout(self.parts.pace.attempt, attempt).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::last("the attempt panicked; see the operator's log")),
            Err(_) => Err(Failure::later("no answer in time")),
        }
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<(), Failure> {
        let (notification, target) = (&*delivery.notification, &delivery.target);
        let secret = self.secret(delivery).await?;
        if let Target::Email(config) = target {
            return mail::send(
                (self.parts.addresses, &self.trust),
                config,
                notification,
                secret.as_ref(),
            )
            .await;
        }
        let now = self.parts.clock.now();
        let request = requests::outgoing(target, notification, secret.as_ref(), now)?;
        self.client.send(request).await
    }

    /// `None` where none is named. Only of the resource's namespace: who may write the resource there chooses who is sent what is in it.
    async fn secret(&self, delivery: &Delivery) -> Result<Option<Data>, Failure> {
        let key = &delivery.notification.subject.key;
        let Some(name) = delivery.target.secret() else {
            return Ok(None);
        };
        let namespace = match &delivery.target {
            Target::Ntfy(config) => config.credentials_secret_ref.as_ref(),
            _ => None,
        };
        let namespace = namespace.map(|reference| reference.namespace_or(&key.namespace));
        if namespace.is_some_and(|namespace| namespace != &*key.namespace) {
            return Err(Failure::last(
                "credentialsSecretRef.namespace is another one: Secrets are read in the namespace of the resource alone",
            ));
        }
        match self.parts.secrets.read(key.sibling(name)).await {
            Ok(Some(data)) => Ok(Some(data)),
            Ok(None) => Err(Failure::later(format!("Secret {name:?} does not exist"))),
            Err(Unread::Later(why)) => Err(Failure::later(format!(
                "Secret {name:?} could not be read: {why}"
            ))),
            Err(Unread::Refused(why)) => Err(Failure::last(format!("Secret {name:?} is not used: {why}"))),
        }
    }

    fn end(&self, (lane, waiting, result): Ended) {
        let Waiting {
            delivery,
            since,
            failures,
            ..
        } = waiting;
        let (target, id) = (delivery.target.name(), &delivery.notification.id);
        let (pace, now) = (&self.parts.pace, Instant::now());
        match result {
            Ok(()) => {
                debug!(target, id, "a notification was sent");
                self.parts.metrics.notification(target, "sent");
                self.lanes().done(&lane);
            }
            Err(failure) => {
                let failures = failures + 1;
                let delay = pace.backoff.after(failures, &*self.parts.random);
                let in_time = now + delay < since + pace.deadline;
                if failure.again && failures < pace.attempts && in_time {
                    debug!(target, id, %failure, ?delay, "a notification is sent again later");
                    self.lanes().failed(&lane, delay, now);
                } else {
                    self.give_up(&delivery, &failure, failures);
                    self.lanes().done(&lane);
                }
            }
        }
        self.measure();
    }

    fn give_up(&self, delivery: &Delivery, failure: &Failure, attempts: u32) {
        let (target, notification) = (delivery.target.name(), &*delivery.notification);
        let subject = &notification.subject;
        let outcome = if failure.refused { "refused" } else { "failed" };
        self.parts.metrics.notification(target, outcome);
        let title = render::title(notification);
        let note =
            format!("spec.notifications.{target}: {failure}; {title:?} was not sent ({attempts} attempts)");
        warn!(kind = subject.kind, object = %subject.key, note, "a notification was not sent");
        let (severity, reason) = (Severity::Warning, "NotificationFailed");
        self.parts
            .events
            .publish(subject.kind, &subject.key, &subject.uid, severity, reason, &note);
    }
}
