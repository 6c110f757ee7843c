//! The maintenance lock of every physical repository: [`grantor`] decides (pure), [`keeper`] carries out (one task, so
//! that no two decisions meet), [`run`] says what a granted operation is to do (pure), [`ends`] takes outcomes in,
//! [`people`] answers and obeys them, in the words of [`describe`] (pure).

mod describe;
mod ends;
pub mod grantor;
mod keeper;
mod lease;
mod people;
mod run;

use std::sync::Arc;
use std::time::Duration;

use proto::v1::{
    AuditRequest, AuditResponse, DecidePlanRequest, HubMessage, LeaseAsk, LeaseRelease, LeaseRenew,
    LeaseWithdraw, LocksRequest, LocksResponse, PlansRequest, PlansResponse, ReleaseLockRequest,
};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::config::Config;
use grantor::Terms;

pub use keeper::Keeper;

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
        }
    }
}

/// Messages on their way to one spoke.
pub type Outgoing = mpsc::Sender<Result<HubMessage, Status>>;

/// What the keeper is told and asked.
pub enum Command {
    Attach {
        cluster: Arc<str>,
        session: u64,
        outgoing: Outgoing,
    },
    Detach {
        cluster: Arc<str>,
        session: u64,
    },
    Ask(Arc<str>, LeaseAsk),
    Withdraw(Arc<str>, LeaseWithdraw),
    Renew(Arc<str>, LeaseRenew),
    Release(Arc<str>, LeaseRelease),
    Locks(LocksRequest, oneshot::Sender<LocksResponse>),
    Revoke(ReleaseLockRequest, oneshot::Sender<Result<(), Status>>),
    Plans(PlansRequest, oneshot::Sender<Result<PlansResponse, Status>>),
    Decide(DecidePlanRequest, Arc<str>, oneshot::Sender<Result<(), Status>>),
    Audit(AuditRequest, oneshot::Sender<Result<AuditResponse, Status>>),
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

    /// Tells.
    pub async fn tell(&self, command: Command) {
        // An error means that the hub is stopping.
        let _ = self.commands.send(command).await;
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
