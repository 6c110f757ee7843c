//! Kinds of custom resources: one supervisor per kind, one actor per resource, one driver for all kinds.
//!
//! ```text
//! Supervisor<K> ── ResourceActor<K> ── Driver<C>::turn
//!   fetch → finalizer → C::validate → C::observe(cache) → C::plan → Children::apply → C::conclude
//!         → write status → C::events(old, new) → start work (C::perform), whose result is the next turn's `found`
//! ```
//! A kind is a folder with pure functions and their types, and an `impl` [`Controller`]. It is wired up in four places: its
//! store in `world`, its watch and what wakes it in `intake`, its supervisor in [`Kinds`], which `run::kinds` starts, and its
//! status in `driver::statuses!`. The driver is the only code of a turn that has a client.

mod actor;
mod actor_state;
mod announce;
mod children;
mod controller;
mod driver;
mod kinds;
mod scheduled;
mod supervisor;
#[cfg(test)]
pub mod table;

use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use ractor::ActorRef;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;
use crate::world::Key;

pub use actor::ActorMessage;
pub use children::end_lingering;
pub use children::{
    Applied, Cause as RefusedBecause, Children, Credentials, Earlier, Opening, Permission, PolicyChange,
    Refused, Removal, Run, is_as,
};
pub use controller::{
    Announcement, Cache, Controller, Input, Mailbox, Moment, Plan, Settled, Task, Tools, Unreadable,
    announce, failed_as, observed_generation, ready_changed,
};
pub use driver::{Driver, ResourceStatus};
pub use kinds::Kinds;
pub use scheduled::{next_start, reference, turn_after};
pub use supervisor::{KindHandle, Supervisor};

/// Why an actor takes a turn. Only for logs and metrics: a turn reads everything anew whatever the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The resource itself changed.
    Changed,
    /// Something that it depends on, or that was made for it, changed.
    Related,
    /// Its own timer.
    Timer,
    /// Work that it had started came back.
    Report,
    /// This replica has just become the leader, or has just started.
    Leader,
}

impl Cause {
    /// Closed set of metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Changed => "changed",
            Cause::Related => "related",
            Cause::Timer => "timer",
            Cause::Report => "report",
            Cause::Leader => "leader",
        }
    }
}

/// How a turn ended, and when the next one is due without any change.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requeue {
    /// Absolute; recomputed by each turn. `None` waits for a change.
    pub next: Option<Timestamp>,
    /// The turn could not carry out its plan: it is tried again with rising back-off, at `next` at the latest.
    pub failed: bool,
}

impl Requeue {
    /// Done; next turn at a time, or on change.
    #[must_use]
    pub fn at(next: Option<Timestamp>) -> Requeue {
        Requeue { next, failed: false }
    }

    /// Try again, with rising back-off.
    #[must_use]
    pub fn retry() -> Requeue {
        Requeue {
            next: None,
            failed: true,
        }
    }
}

/// Sends the result of long work back to the actor that started it. The result of an actor that has gone is dropped.
pub struct WorkHandle<R: Send + 'static> {
    actor: ActorRef<ActorMessage<R>>,
}

impl<R: Send + 'static> Clone for WorkHandle<R> {
    fn clone(&self) -> Self {
        WorkHandle {
            actor: self.actor.clone(),
        }
    }
}

impl<R: Send + 'static> WorkHandle<R> {
    /// Delivers a result; the actor takes a turn with it.
    pub fn send(&self, result: R) {
        // An error means that the actor is gone, and with it the interest in the result.
        let _ = self.actor.cast(ActorMessage::Result(result));
    }

    /// Starts work that takes long beside the actor, which takes a turn with its result. A panic is a result too:
    /// `panicked`. Dropping the handle ends the work.
    pub fn work(&self, work: impl Future<Output = R> + Send + 'static, panicked: R) -> AbortOnDropHandle<()> {
        let handle = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let result = std::panic::AssertUnwindSafe(work).catch_unwind().await;
            handle.send(result.unwrap_or(panicked));
        }))
    }
}

/// What a turn is given.
pub struct Turn<'a, K: Kind> {
    pub key: &'a Key,
    /// metadata.uid of the resource that this actor was made for.
    pub uid: &'a str,
    pub now: Timestamp,
    /// What the actor remembers between turns. Lost with the actor: everything that matters is in the status.
    pub state: &'a mut K::State,
    /// Result of work started in an earlier turn.
    pub result: Option<K::WorkResult>,
    pub work: WorkHandle<K::WorkResult>,
}

/// What a supervisor runs actors for: custom resources, by a [`Driver`] of their [`Controller`], and maintenance
/// operations.
pub trait Kind: Send + Sync + Sized + 'static {
    /// Kept by the actor between turns.
    type State: Default + Send + 'static;
    /// Result of work that an actor starts and does not wait for.
    type WorkResult: Send + 'static;
    /// Kind as in the API, for logs and metric labels.
    const NAME: &'static str;
    /// A turn is ended after this time; what it had begun is idempotent and tried again.
    const TURN_LIMIT: Duration = Duration::from_secs(60);

    /// Turns that may run at the same time. Shared by the kinds unless one must not queue behind the others.
    fn permits<'a>(&'a self, context: &'a Context) -> &'a Semaphore {
        &context.turns
    }

    /// uid of the resource as the store has it now; `None` when it is gone.
    fn uid(&self, key: &Key) -> Option<String>;

    /// Keys of all resources in the store.
    fn keys(&self) -> Vec<Key>;

    /// One turn: read the cache, plan, carry the plan out. Never fails: what goes wrong becomes status and a retry.
    fn turn(&self, turn: Turn<'_, Self>) -> impl Future<Output = Requeue> + Send;

    /// The resource is gone: forget metrics and the hub's copy. Owner references take care of what was made for it.
    fn gone(&self, key: &Key, uid: &str);

    /// The actor crashed `failures` times in a row: reports it where a person looks. Runs beside the supervisor.
    fn crashed(&self, key: Key, uid: String, failures: u32) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
mod fifth_tests;
