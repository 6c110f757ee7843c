//! The maintenance lock of every physical repository. [`grantor`] decides (pure), [`keeper`] owns everything in one task,
//! so that no two decisions meet, [`messages`] checks what spokes send and does it, [`carry`] carries out and [`waiting`]
//! informs those who wait. [`hosts`] bounds what is at work on one storage (pure). [`asks`] keeps the questions (pure), [`given`] composes what an operation is to do by [`run`]
//! (pure), [`keys`] knows who opens a repository with which key (pure), [`parts`] gathers plans (pure), [`ends`] takes
//! outcomes in, [`bind`] keeps the table of bindings, [`people`] answers persons, as [`describe`] (pure) puts it and
//! [`narrow`] (pure) leaves out what they may not see, and [`decisions`] does what they decide.

mod asks;
mod bind;
mod carry;
pub(crate) mod copies;
mod decisions;
mod describe;
mod ends;
mod given;
pub mod grantor;
mod hosts;
mod keeper;
mod keys;
mod lease;
mod messages;
pub mod narrow;
mod parts;
mod pause;
pub(crate) mod people;
mod places;
mod recalled;
mod repository;
mod restic;
mod restored;
mod run;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::v1::{
    DecideBindingRequest, DecidePlanRequest, LeaseAsk, LeaseRelease, LeaseRenew, LeaseWithdraw, LocksRequest,
    LocksResponse, OperationOutcome, PlanPart, PlansRequest, PlansResponse, PossessionProof,
    ReleaseLockRequest, StoreProbeAnswer,
};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::Millis;
use crate::access::{Person, Sight};
use crate::config::Config;
use grantor::Terms;

pub use keeper::Keeper;

/// Whether the outcome of a run that was kept (fleet.v1.OperationOutcome) is one that counts for all policies that took part.
#[must_use]
pub fn is_conclusive(outcome: Option<&[u8]>) -> bool {
    let outcome = outcome.and_then(|bytes| OperationOutcome::decode(bytes).ok());
    outcome.is_some_and(|outcome| run::is_conclusive(&outcome.result))
}

/// Commands on their way to the keeper.
const COMMANDS: usize = 1024;

/// How the lock behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub terms: Terms,
    /// How often a holder renews, in milliseconds.
    pub renew: u64,
    /// A policy that took part in a run this long ago needs no run of its own.
    pub coalesce: Option<Duration>,
    /// How long audit, plans and decisions are kept.
    pub audit: Millis,
    /// Bytes of all plans' documents together.
    pub documents: u64,
    /// Operations at work on one storage host at most; 0 for any number.
    pub per_host: usize,
}

impl Settings {
    /// Settings of a hub.
    #[must_use]
    pub fn of(config: &Config) -> Settings {
        let millis = |span: crate::config::Span| u64::try_from(span.millis()).unwrap_or(u64::MAX);
        Settings {
            terms: Terms {
                ttl: millis(config.lease_ttl),
                delay: millis(config.lock_delay),
                drain: millis(config.drain_limit),
                patience: 10 * 60_000,
            },
            renew: (millis(config.lease_ttl) / 5).max(1),
            coalesce: config.coalesce_window.0,
            audit: config.audit_retention.millis(),
            documents: config.audit_plans_mib << 20,
            per_host: config.per_host,
        }
    }
}

pub use crate::outbound::Outgoing;

/// A hub as a cluster has seen it: incarnation of its store, and epoch.
pub type SeenHub = (String, u64);

/// A message of a spoke about locks and bindings.
#[derive(Debug)]
pub enum Message {
    Ask(LeaseAsk),
    Withdraw(LeaseWithdraw),
    Renew(LeaseRenew),
    Release(Box<LeaseRelease>),
    Part(PlanPart),
    Proof(PossessionProof),
    /// Whether a cluster lists a snapshot.
    Probed(StoreProbeAnswer),
    /// Repositories that its inventory names and the table of bindings does not.
    Uses(Vec<String>),
}

/// What the keeper has to do, and questions to it.
pub enum Command {
    Attach {
        cluster: Arc<str>,
        session: u64,
        outgoing: Outgoing,
        /// Hub that the cluster has seen before; an empty incarnation for none.
        seen: SeenHub,
    },
    Detach {
        cluster: Arc<str>,
        session: u64,
    },
    Message {
        cluster: Arc<str>,
        session: u64,
        message: Box<Message>,
    },
    Locks(LocksRequest, Sight, oneshot::Sender<LocksResponse>),
    Revoke(
        ReleaseLockRequest,
        Arc<Person>,
        oneshot::Sender<Result<(), Status>>,
    ),
    Plans(
        PlansRequest,
        Sight,
        oneshot::Sender<Result<PlansResponse, Status>>,
    ),
    Decide(
        DecidePlanRequest,
        Arc<Person>,
        oneshot::Sender<Result<(), Status>>,
    ),
    /// The answer is what the decision means.
    Bind(
        DecideBindingRequest,
        Arc<Person>,
        oneshot::Sender<Result<String, Status>>,
    ),
    /// The listing of the collector of a store lacks what a cluster reports.
    Suspect(Arc<str>, copies::Suspect),
    /// A person pauses all maintenance for a reason, or resumes it.
    Pause(Option<String>, Arc<str>, oneshot::Sender<Result<(), Status>>),
    /// A person has given a cluster up: its bindings end. The answer is how many did.
    Forget(Arc<str>, Arc<str>, oneshot::Sender<Result<usize, Status>>),
}

/// The way to the keeper.
#[derive(Clone)]
pub struct Locks {
    commands: mpsc::Sender<Command>,
}

impl Locks {
    /// A way, and its other end.
    #[must_use]
    pub fn new() -> (Locks, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        (Locks { commands }, receiver)
    }

    /// Sends a command.
    pub async fn tell(&self, command: Command) {
        // An error means that the hub is stopping.
        let _ = self.commands.send(command).await;
    }

    /// Sends what `find` finds, if that fits into half of the queue: a fleet whose clusters all report for the first time must
    /// hold up neither its heartbeats nor renewals. Otherwise `find` is not called, and there will be another time.
    pub fn offer(&self, find: impl FnOnce() -> Option<Command>) {
        if self.commands.capacity() <= COMMANDS / 2 {
            return;
        }
        let Ok(room) = self.commands.try_reserve() else {
            return;
        };
        if let Some(command) = find() {
            room.send(command);
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the hub is stopping.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await;
        answer
            .await
            .map_err(|_| Status::unavailable("the hub is stopping"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_reports_take_half_of_the_queue_and_renewals_find_room() {
        let (locks, mut keeper) = Locks::new();
        let command = || Command::Detach {
            cluster: "a".into(),
            session: 1,
        };
        let mut looked = 0;
        for _ in 0..COMMANDS {
            locks.offer(|| {
                looked += 1;
                Some(command())
            });
        }
        assert_eq!(looked, COMMANDS / 2, "what finds no room is not taken");
        for _ in 0..COMMANDS / 2 {
            locks.commands.try_send(command()).unwrap();
        }
        for _ in 0..=COMMANDS / 2 {
            keeper.recv().await.unwrap();
        }
        locks.offer(|| {
            looked += 1;
            None
        });
        assert_eq!(looked, COMMANDS / 2 + 1, "and is when there is room again");
    }
}
