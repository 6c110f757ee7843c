//! Supervisor of one kind: key -> actor. Starts an actor when a resource appears, stops it when it goes, and starts it
//! anew when it crashes, with rising back-off, so that one poison resource never hurts its neighbours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use super::actor::{ActorMessage, ResourceActor, WakeFlag};
use super::{Cause, Kind};
use crate::backoff::{Backoff, Jitter};
use crate::context::Context;
use crate::world::Key;

const RESTART: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300), Jitter::Half);
/// An actor that lived this long has recovered: its next crash is the first of a new row.
const STABLE: Duration = Duration::from_secs(600);
/// Turns under way may end within this time.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Crashes in a row after which the resource's status reports them.
const CRASHES_TO_REPORT: u32 = 3;

/// Messages to a supervisor. Each is a hint to read the store: one that is lost or comes twice does no harm.
pub enum SupervisorMessage {
    /// The resource appeared, changed, was replaced or went: compare with the store.
    Look(Key, Cause),
    /// Every resource of the kind.
    LookAtAll(Cause),
    /// Restart after a crash is due.
    Restart(Key, String),
    /// A resource's store entry went.
    Gone(Key, String),
    /// This replica leads: actors start, with nothing remembered.
    Lead,
    /// This replica no longer leads: actors are stopped, and answered when the last one has ended.
    Follow(oneshot::Sender<()>),
}

/// The way to wake actors of a kind.
#[derive(Clone)]
pub struct KindHandle {
    supervisor: ActorRef<SupervisorMessage>,
}

impl KindHandle {
    /// The supervisor behind it.
    #[must_use]
    pub fn new(supervisor: ActorRef<SupervisorMessage>) -> KindHandle {
        KindHandle { supervisor }
    }

    /// Wakes one actor; coalesced with wake-ups under way.
    pub fn poke(&self, key: Key, cause: Cause) {
        self.cast(SupervisorMessage::Look(key, cause));
    }

    /// Wakes all.
    pub fn poke_all(&self, cause: Cause) {
        self.cast(SupervisorMessage::LookAtAll(cause));
    }

    /// The resource went out of the store.
    pub fn gone(&self, key: Key, uid: String) {
        self.cast(SupervisorMessage::Gone(key, uid));
    }

    /// This replica leads.
    pub fn lead(&self) {
        self.cast(SupervisorMessage::Lead);
    }

    /// This replica no longer leads. Resolves when no actor is left.
    pub async fn follow(&self) {
        let (stopped, done) = oneshot::channel();
        self.cast(SupervisorMessage::Follow(stopped));
        // An error means that the spoke is stopping.
        let _ = done.await;
    }

    fn cast(&self, message: SupervisorMessage) {
        // An error means that the spoke is stopping.
        let _ = self.supervisor.cast(message);
    }
}

/// Supervisor of kind `K`.
pub struct Supervisor<K: Kind> {
    pub kind: Arc<K>,
    pub context: Arc<Context>,
}

/// One resource.
struct Child<K: Kind> {
    uid: String,
    failures: u32,
    started: Instant,
    phase: Phase<K>,
    /// The report of a crash, while it is being written.
    report: Option<AbortOnDropHandle<()>>,
}

enum Phase<K: Kind> {
    Running {
        actor: ActorRef<ActorMessage<K::WorkResult>>,
        flag: Arc<WakeFlag>,
    },
    /// Asked to stop. A successor starts only after its end: two actors of one name would write against each other.
    Stopping { id: ActorId },
    /// Crashed; waits for its restart.
    Crashed,
}

/// Actors by key, and keys by actor.
pub struct Children<K: Kind> {
    /// Actors run only while this replica leads.
    leading: bool,
    by_key: HashMap<Key, Child<K>>,
    by_id: HashMap<ActorId, Key>,
}

impl<K: Kind> Actor for Supervisor<K> {
    type Msg = SupervisorMessage;
    type State = Children<K>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(Children {
            leading: false,
            by_key: HashMap::new(),
            by_id: HashMap::new(),
        })
    }

    async fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // Without this, stopping would kill the children in the middle of their turns.
        myself.stop_children_and_wait(None, Some(STOP_LIMIT)).await;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        children: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Lead => {
                children.leading = true;
                self.look_at_all(&myself, Cause::Leader, children).await;
            }
            SupervisorMessage::Follow(stopped) => {
                self.stop_all(&myself, children).await;
                // An error means that nobody waits for it.
                let _ = stopped.send(());
            }
            SupervisorMessage::Gone(key, uid) if !children.leading => self.kind.gone(&key, &uid),
            _ if !children.leading => {}
            SupervisorMessage::Look(key, cause) => self.look(&myself, key, cause, children).await,
            SupervisorMessage::LookAtAll(cause) => self.look_at_all(&myself, cause, children).await,
            SupervisorMessage::Gone(key, uid) => self.gone(&key, &uid, children),
            SupervisorMessage::Restart(key, uid) => {
                if children
                    .by_key
                    .get(&key)
                    .is_some_and(|c| c.uid == uid && matches!(c.phase, Phase::Crashed))
                {
                    self.start(&myself, key, Cause::Leader, children).await;
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        children: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, _, _) => {
                self.ended(&myself, cell.get_id(), None, children).await;
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                self.ended(&myself, cell.get_id(), Some(error.to_string()), children)
                    .await;
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl<K: Kind> Supervisor<K> {
    async fn look_at_all(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        cause: Cause,
        children: &mut Children<K>,
    ) {
        // Those that run as well: the end of a resource may not have been seen.
        let running = children.by_key.keys().filter(|key| self.kind.uid(key).is_none());
        let gone: Vec<Key> = running.cloned().collect();
        for key in self.kind.keys().into_iter().chain(gone) {
            self.look(myself, key, cause, children).await;
        }
    }

    /// Stops every actor. One that does not end in time is killed: it can write nothing any more, the leader gate is shut.
    async fn stop_all(&self, myself: &ActorRef<SupervisorMessage>, children: &mut Children<K>) {
        children.leading = false;
        myself.stop_children_and_wait(None, Some(STOP_LIMIT)).await;
        for child in std::mem::take(&mut children.by_key).into_values() {
            if let Phase::Running { actor, .. } = child.phase {
                actor.kill();
            }
        }
        let ended = i64::try_from(std::mem::take(&mut children.by_id).len()).unwrap_or(i64::MAX);
        self.context.metrics.actors(K::NAME, -ended);
    }

    /// Starts, replaces or stops the actor to match the store, then wakes it.
    async fn look(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        key: Key,
        cause: Cause,
        children: &mut Children<K>,
    ) {
        let Some(uid) = self.kind.uid(&key) else {
            if let Some(uid) = children.by_key.get(&key).map(|c| c.uid.clone()) {
                self.gone(&key, &uid, children);
            }
            return;
        };
        match children.by_key.get(&key) {
            Some(child) if child.uid == uid => {
                if let Phase::Running { actor, flag } = &child.phase
                    && flag.mark()
                {
                    // An error means that it is ending; its successor reads the same store.
                    let _ = actor.cast(ActorMessage::Wake(cause));
                }
            }
            // Deleted and created again under the same name.
            Some(child) => {
                let old = child.uid.clone();
                self.gone(&key, &old, children);
                if !children.by_key.contains_key(&key) {
                    self.start(myself, key, cause, children).await;
                }
            }
            None => self.start(myself, key, cause, children).await,
        }
    }

    async fn start(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        key: Key,
        cause: Cause,
        children: &mut Children<K>,
    ) {
        let Some(uid) = self.kind.uid(&key) else {
            children.by_key.remove(&key);
            return;
        };
        let before = children.by_key.remove(&key).filter(|c| c.uid == uid);
        let (failures, report) = before.map_or((0, None), |c| (c.failures, c.report));
        let flag = Arc::new(WakeFlag::default());
        let resident = ResourceActor {
            kind: self.kind.clone(),
            context: self.context.clone(),
            key: key.clone(),
            uid: uid.clone(),
            flag: flag.clone(),
        };
        // Unnamed: names are global to the process, and two spokes in one test would collide.
        match Actor::spawn_linked(None, resident, (), myself.get_cell()).await {
            Ok((actor, _)) => {
                self.context.metrics.actors(K::NAME, 1);
                children.by_id.insert(actor.get_id(), key.clone());
                flag.mark();
                let _ = actor.cast(ActorMessage::Wake(cause));
                children.by_key.insert(
                    key,
                    Child {
                        uid,
                        failures,
                        started: Instant::now(),
                        phase: Phase::Running { actor, flag },
                        report,
                    },
                );
            }
            Err(error) => {
                error!(kind = K::NAME, object = %key, %error, "could not start an actor");
                children.by_key.insert(
                    key.clone(),
                    Child {
                        uid: uid.clone(),
                        failures: failures + 1,
                        started: Instant::now(),
                        phase: Phase::Crashed,
                        report,
                    },
                );
                self.restart_later(myself, key, uid, failures + 1);
            }
        }
    }

    /// The resource with this uid is gone.
    fn gone(&self, key: &Key, uid: &str, children: &mut Children<K>) {
        let Some(child) = children.by_key.get_mut(key).filter(|c| c.uid == uid) else {
            return;
        };
        self.kind.gone(key, uid);
        match &child.phase {
            Phase::Running { actor, .. } => {
                let id = actor.get_id();
                actor.stop(None);
                child.phase = Phase::Stopping { id };
            }
            Phase::Stopping { .. } => {}
            Phase::Crashed => {
                children.by_key.remove(key);
            }
        }
    }

    /// An actor ended: on request, or by a crash.
    async fn ended(
        &self,
        myself: &ActorRef<SupervisorMessage>,
        id: ActorId,
        crash: Option<String>,
        children: &mut Children<K>,
    ) {
        let Some(key) = children.by_id.remove(&id) else {
            return;
        };
        self.context.metrics.actors(K::NAME, -1);
        let Some(child) = children.by_key.get_mut(&key) else {
            return;
        };
        match &child.phase {
            Phase::Stopping { id: stopping } if *stopping == id => {
                // Once more: a turn that was under way when the resource went may have put something back.
                self.kind.gone(&key, &child.uid);
                children.by_key.remove(&key);
                // A successor of the same name may be waiting.
                self.look(myself, key, Cause::Changed, children).await;
            }
            Phase::Running { actor, .. } if actor.get_id() == id => {
                child.failures = if child.started.elapsed() > STABLE {
                    1
                } else {
                    child.failures.saturating_add(1)
                };
                child.phase = Phase::Crashed;
                let (uid, failures) = (child.uid.clone(), child.failures);
                let cause = crash.unwrap_or_else(|| "it ended without an error".to_owned());
                self.context.metrics.crash(K::NAME);
                warn!(kind = K::NAME, object = %key, failures, cause, "an actor crashed and will be restarted");
                if failures >= CRASHES_TO_REPORT {
                    // Not awaited: an API server that is slow must not stop the neighbours' supervisor.
                    let (kind, key, uid) = (self.kind.clone(), key.clone(), uid.clone());
                    let report = async move { kind.crashed(key, uid, failures).await };
                    child.report = Some(AbortOnDropHandle::new(tokio::spawn(report)));
                }
                self.restart_later(myself, key, uid, failures);
            }
            _ => {}
        }
    }

    fn restart_later(&self, myself: &ActorRef<SupervisorMessage>, key: Key, uid: String, failures: u32) {
        let delay = RESTART.after(failures, &*self.context.random);
        let supervisor = myself.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = supervisor.cast(SupervisorMessage::Restart(key, uid));
        });
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
