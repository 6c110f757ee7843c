//! Maintenance operations: one actor per maintenance Job, from its birth (suspended) to the release of its lease.
//!
//! ```text
//! owner's actor (policy, repository)                 operation's actor (this module)            grantor
//!   makes a suspended Job  ───────────────────────────▶ pins repository id and owner
//!                                                        asks ─────────────────────────────────▶
//!                                                        claims the token, opens the Job ◀────── grant
//!                                                        counts each renewal on the pod ◀──────▶ renewals
//!   ◀──────── Board: progress, result ────────────────── outcome of Job and pod, plan from its log
//!   records the result in its status ── Board::wake ───▶ releases ─────────────────────────────▶
//! ```
//!
//! The decisions are the pure [`Holder`](crate::maintenance::holder::Holder)'s; [`record`] adds what is remembered beside
//! it, [`life`] and [`result`] what pods mean, [`gate`] the patches, [`grant`] what the grantor's messages mean,
//! [`progress`] where it stands, [`conclusion`] its result, [`end`] what follows. What matters is in the Job's annotations (`crds::names`): the actor can be started anew at any
//! time, after a panic or a change of the leader, and adopts what it finds.
//!
//! # A new sort of operation (unlock, check)
//! 1. Its Jobs are born suspended with a label `names::LABEL_TYPE` of its own, and read lease and order as
//!    `retention::build` shows (volume `lease`, the variables for token and ttl).
//! 2. An [`Owner`] names the resource that a Job works for, makes its order under a grant, and knows whether its result was
//!    recorded.
//! 3. The owner's actor listens on the [`Board`] (`Board::listen`), takes results with [`Board::of`] into its status, and
//!    calls [`Board::wake`] after the status was written.
//! 4. One line in `run.rs` adds the owner to [`Operations::new`].

mod actor;
mod adopt;
mod conclusion;
mod end;
mod gate;
mod grant;
pub mod life;
mod plan;
mod progress;
mod record;
mod repository;
pub mod result;

use jiff::Timestamp;
use proto::v1::{OperationKind, RetentionRun};

use crate::apply::ApplyError;
use crate::context::Context;
use crate::exchange::Pinned;
use crate::world::{JobView, Key};

pub use actor::Operations;
pub use gate::{Order, order};
pub use repository::{assigned, assigned_by_owner, pinned_to};

/// Type of the Jobs that run retention of a repository for a cluster that is away.
pub const BEHALF: &str = "retention-on-behalf";

/// What a Job's owner refers to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub owner: Key,
    pub owner_uid: String,
    pub repository: Key,
    /// `None` while the repository was not looked at yet.
    pub restic_id: Option<String>,
    /// The ResticRepository exists.
    pub exists: bool,
}

/// An operation may not ask for the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why, and until when, in a sentence.
    pub text: String,
    /// When to look again; a change of its resources is seen before.
    pub again: Timestamp,
}

/// The resources of one kind, as owners of operations.
pub trait Owner: Send + Sync + 'static {
    /// Value of `names::LABEL_TYPE` on its Jobs.
    fn job_type(&self) -> &'static str;

    /// The sort of operation, for the grantor.
    fn kind(&self) -> OperationKind;

    /// Whom a Job works for; `None` if its owner does not exist (any more).
    fn assignment(&self, at: &Key, job: &JobView) -> Option<Assignment>;

    /// For people, such as `retention shop/nightly`.
    fn subject(&self, pinned: &Pinned) -> String;

    /// What the pod is to do under a grant. `run` is the hub's; without a hub there is none.
    ///
    /// # Errors
    /// Why the lease cannot be used, in a sentence.
    fn order(&self, pinned: &Pinned, job: &JobView, run: Option<RetentionRun>) -> Result<Order, String>;

    /// Whether the order is made anew at each renewal that brings no run: without a hub nothing else shows that policies
    /// have changed since the grant.
    fn is_recomposed(&self) -> bool {
        false
    }

    /// Why the operation may not ask for the lock now: by a person's settings. `None` where it may.
    fn closed(&self, pinned: &Pinned, now: Timestamp) -> Option<Closed> {
        let _ = (pinned, now);
        None
    }

    /// Whether the result of a Job is in its owner's status. Also true if there is no owner any more.
    fn is_recorded(&self, pinned: &Pinned) -> bool;

    /// Whether the pod logs a plan, as a line of JSON.
    fn has_plan(&self) -> bool {
        false
    }

    /// Whether another Job is to be made when this one was interrupted. It is made from the CronJob that controls it.
    fn is_repeated(&self, pinned: &Pinned) -> bool {
        let _ = pinned;
        false
    }
}

/// Whether this spoke may ask for maintenance of a repository; otherwise the reason in a sentence. One that it knows to
/// be shared is not touched without the hub that serialises the clusters.
///
/// # Errors
/// When what is known of it could not be read.
pub async fn maintenance_allowed(
    context: &Context,
    restic_id: &str,
) -> Result<Result<(), String>, ApplyError> {
    let (applier, leases) = (&context.applier, &context.leases);
    context.shared.allowed(applier, leases, restic_id).await
}
