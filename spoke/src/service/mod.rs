//! Long-lived parts of the process: watches, link, local grantor, events, scripts, leader election, admin.
//!
//! ```text
//! Root
//! ├── Services          starts them, starts one again that panicked or ended, with back-off
//! │   └── Runner × n    one service each
//! └── supervisors of the kinds
//! ```
//!
//! A service that keeps failing ends the process with an error that names it: what cannot be mended by a new start of one
//! part may be mended by a new process, and the kubelet's restarts are seen where people look.

mod health;
mod restarts;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::metrics::Metrics;

pub use health::{Condition, Health};
pub use restarts::{Pace, Restarts};

/// How long a service may take to end after its token was cancelled.
const STOP_LIMIT: Duration = Duration::from_secs(6);

/// When a service is stopped: in this order, and the supervisors of the kinds between `Intake` and `Edge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What wakes actors.
    Intake,
    /// What actors use while they end: link, local grantor, Events.
    Edge,
    /// Leader election: the Lease is given back after the last write.
    Election,
    /// What is looked at from outside until the end.
    Admin,
}

type Work = Box<dyn Fn(Running) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// One long-lived part.
pub struct Service {
    /// Shown in logs, in /readyz and as a metric label.
    pub name: String,
    pub stage: Stage,
    /// What a person can do when it keeps failing.
    advice: &'static str,
    work: Work,
}

impl Service {
    /// A part that `work` runs until its token is cancelled. `work` is called anew for each start, so what must outlive a
    /// failure (receivers, state) is shared by all calls.
    pub fn new<F>(
        name: impl Into<String>,
        stage: Stage,
        advice: &'static str,
        work: impl Fn(Running) -> F + Send + Sync + 'static,
    ) -> Service
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Service {
            name: name.into(),
            stage,
            advice,
            work: Box::new(move |running| Box::pin(work(running))),
        }
    }
}

#[cfg(test)]
impl Service {
    /// The same, which panics in the middle of its work each time that `trigger` is notified.
    pub(crate) fn breakable(self, trigger: Arc<tokio::sync::Notify>) -> Service {
        let Service {
            name,
            stage,
            advice,
            work,
        } = self;
        Service::new(name, stage, advice, move |running| {
            let (mut work, trigger) = (work(running), trigger.clone());
            async move {
                let mut fired = Box::pin(trigger.notified());
                std::future::poll_fn(|cx| {
                    assert!(fired.as_mut().poll(cx).is_pending(), "injected");
                    work.as_mut().poll(cx)
                })
                .await
            }
        })
    }
}

/// What a service is given at each start.
#[derive(Clone)]
pub struct Running {
    /// Cancelled when it is to end.
    pub stop: CancellationToken,
    name: Arc<str>,
    health: Health,
}

impl Running {
    /// It is of use from now on. Counts from the start unless [`Running::waits`] is called.
    pub fn well(&self) {
        self.health.set(&self.name, Condition::Well);
    }

    /// It is not of use yet; /readyz shows what it waits for.
    pub fn waits(&self, what: impl Into<String>) {
        self.health.set(&self.name, Condition::Waits(what.into()));
    }
}

/// Why the process has to end. The first cause counts.
#[derive(Clone)]
pub struct Fatal {
    cause: watch::Sender<Option<String>>,
}

impl Default for Fatal {
    fn default() -> Self {
        Fatal {
            cause: watch::channel(None).0,
        }
    }
}

impl Fatal {
    /// The process has to end.
    pub fn fail(&self, cause: String) {
        self.cause.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(cause);
            first
        });
    }

    /// Resolves with the cause.
    pub async fn failed(&self) -> String {
        let mut causes = self.cause.subscribe();
        match causes.wait_for(Option::is_some).await.map(|cause| cause.clone()) {
            Ok(Some(cause)) => cause,
            // Cannot be: this end keeps the channel open.
            _ => std::future::pending().await,
        }
    }
}

/// Runs one service. Whatever ends it before its time is its failure.
struct Runner {
    service: Arc<Service>,
    running: Running,
}

impl Actor for Runner {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.running.well();
        let ended = (self.service.work)(self.running.clone()).await;
        if self.running.stop.is_cancelled() {
            myself.stop(None);
            return Ok(());
        }
        match ended {
            Ok(()) => Err("it ended by itself".into()),
            Err(error) => Err(format!("{error:#}").into()),
        }
    }
}

/// Messages to the supervisor of the services.
pub enum ServicesMessage {
    /// A restart is due.
    Restart(usize),
    /// Ends the services of a stage; answered when the last one has ended.
    Stop(Stage, oneshot::Sender<()>),
}

/// The way to stop services.
#[derive(Clone)]
pub struct ServicesHandle {
    actor: ActorRef<ServicesMessage>,
}

impl ServicesHandle {
    /// Starts services below `parent`.
    ///
    /// # Errors
    /// When an actor cannot be started.
    pub async fn start(
        parent: ActorCell,
        supervisor: Services,
        services: Vec<Service>,
    ) -> anyhow::Result<ServicesHandle> {
        let started = Actor::spawn_linked(None, supervisor, services, parent).await;
        let (actor, _) = started.map_err(|error| anyhow::anyhow!("the services do not start: {error}"))?;
        Ok(ServicesHandle { actor })
    }

    /// Ends the services of a stage, in time or not.
    pub async fn stop(&self, stage: Stage) {
        let (stopped, done) = oneshot::channel();
        // An error means that they have ended already.
        if self.actor.cast(ServicesMessage::Stop(stage, stopped)).is_ok() {
            let _ = done.await;
        }
    }
}

/// Supervisor of the services.
pub struct Services {
    pub health: Health,
    pub metrics: Arc<Metrics>,
    pub fatal: Fatal,
    pub pace: Pace,
}

/// One service, and what became of it.
pub struct Slot {
    service: Arc<Service>,
    stop: CancellationToken,
    restarts: Restarts,
    actor: Option<ActorRef<()>>,
}

impl Actor for Services {
    type Msg = ServicesMessage;
    type State = Vec<Slot>;
    type Arguments = Vec<Service>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        services: Vec<Service>,
    ) -> Result<Self::State, ActorProcessingErr> {
        for service in &services {
            self.health
                .set(&service.name, Condition::Waits("starting".to_owned()));
        }
        let mut slots = Vec::new();
        for service in services {
            let mut slot = Slot {
                service: Arc::new(service),
                stop: CancellationToken::new(),
                restarts: Restarts::new(self.pace),
                actor: None,
            };
            self.run(&myself, &mut slot).await?;
            slots.push(slot);
        }
        Ok(slots)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        slots: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ServicesMessage::Restart(n) => {
                if let Some(slot) = slots.get_mut(n).filter(|slot| !slot.stop.is_cancelled()) {
                    self.run(&myself, slot).await?;
                }
            }
            ServicesMessage::Stop(stage, stopped) => {
                stop(slots.iter_mut().filter(|slot| slot.service.stage == stage)).await;
                // An error means that nobody waits for it.
                let _ = stopped.send(());
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        slots: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, cause) = match event {
            SupervisionEvent::ActorFailed(cell, cause) => (cell, cause.to_string()),
            SupervisionEvent::ActorTerminated(cell, ..) => (cell, "it was ended".to_owned()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let is = |slot: &Slot| slot.actor.as_ref().map(|actor| actor.get_id()) == Some(cell.get_id());
        let Some(n) = slots.iter().position(is) else {
            return Ok(());
        };
        let slot = &mut slots[n];
        slot.actor = None;
        if !slot.stop.is_cancelled() {
            self.failed(&myself, n, slot, &cause);
        }
        Ok(())
    }
}

impl Services {
    async fn run(
        &self,
        myself: &ActorRef<ServicesMessage>,
        slot: &mut Slot,
    ) -> Result<(), ActorProcessingErr> {
        let runner = Runner {
            service: slot.service.clone(),
            running: Running {
                stop: slot.stop.clone(),
                name: slot.service.name.as_str().into(),
                health: self.health.clone(),
            },
        };
        let (actor, _) = Actor::spawn_linked(None, runner, (), myself.get_cell()).await?;
        // Its work is the one message that it gets.
        actor.cast(())?;
        slot.actor = Some(actor);
        Ok(())
    }

    /// Counts a failure, and starts the service again later, or ends the process.
    fn failed(&self, myself: &ActorRef<ServicesMessage>, n: usize, slot: &mut Slot, cause: &str) {
        let (name, advice) = (slot.service.name.as_str(), slot.service.advice);
        self.metrics.service_failure(name);
        self.health.set(name, Condition::Failed(cause.to_owned()));
        let Some(delay) = slot.restarts.failed(Instant::now()) else {
            error!(service = name, cause, "a service keeps failing: {advice}");
            let Pace { limit, window, .. } = self.pace;
            return self.fatal.fail(format!(
                "service {name} failed {limit} times within {} seconds, last: {cause}. {advice}",
                window.as_secs()
            ));
        };
        warn!(service = name, cause, restart_in = ?delay, "a service failed and will be started again; if it keeps failing: {advice}");
        let supervisor = myself.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // An error means that the spoke is stopping.
            let _ = supervisor.cast(ServicesMessage::Restart(n));
        });
    }
}

/// Ends services. One that does not end in time is killed.
async fn stop(slots: impl Iterator<Item = &mut Slot>) {
    let mut ending = Vec::new();
    for slot in slots {
        slot.stop.cancel();
        ending.extend(slot.actor.take().map(|actor| (slot.service.name.clone(), actor)));
    }
    let ended = ending.into_iter().map(|(name, actor)| async move {
        if actor.wait(Some(STOP_LIMIT)).await.is_err() {
            warn!(service = name, limit = ?STOP_LIMIT, "a service did not end in time and was killed");
            actor.kill();
        }
    });
    futures::future::join_all(ended).await;
}

#[cfg(test)]
mod tests;
