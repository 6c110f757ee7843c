//! What is different about a kind: pure functions from what is asked for and what was observed to a plan.

use std::fmt::{Debug, Display};
use std::sync::Arc;

use crds::ResticRepository;
use crds::conditions::{self, Conditions, Status, reasons, types};
use crds::effect::WithoutEffect;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::core::object::HasStatus;

use super::WorkHandle;
use super::actor_state::Delivery;
use super::children::{Applied, Cause, Children, Refused};
use super::driver::ResourceStatus;
use crate::apply::{ApplyError, Object};
use crate::clock::Clock;
use crate::context::Context;
use crate::events::Severity;
use crate::exchange::{Board, CertificateName, Collectors, Commands, Copies, Creations, Leases};
use crate::metrics::Measured;
use crate::notify::Notifying;
use crate::queue::Places;
use crate::secrets::{Credentials, SecretError};
use crate::world::{Key, Store, Stored, World};

/// What a plan may look at: the watch cache, and what other actors have published. No client.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    pub world: &'a World,
    pub leases: &'a Leases,
    pub operations: &'a Board,
    pub certificate: &'a CertificateName,
    pub collectors: &'a Collectors,
    /// Other stores with the id of a repository.
    pub copies: &'a Copies,
    pub places: &'a Places,
    pub commands: &'a Commands,
}

/// A moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub wall: Timestamp,
    /// Milliseconds since boot, suspend included.
    pub boot: u64,
}

/// What a plan follows from, beside what was observed.
pub struct Input<'a, C: Controller> {
    pub key: &'a Key,
    pub resource: &'a C::Resource,
    pub valid: Result<&'a C::Valid, &'a C::Refusal>,
    /// What the plan before remembered.
    pub state: &'a C::State,
    /// Results of work, and messages of others. They are given again until the status that follows was written.
    pub found: &'a [C::Found],
    /// Work under way.
    pub running: &'a [C::Work],
    pub now: Moment,
}

impl<C: Controller> Input<'_, C> {
    /// The status before this turn.
    #[must_use]
    pub fn status(&self) -> C::Status {
        self.resource.status().cloned().unwrap_or_default()
    }

    /// metadata.generation
    #[must_use]
    pub fn generation(&self) -> Option<i64> {
        self.resource.meta().generation
    }

    /// metadata.uid
    #[must_use]
    pub fn uid(&self) -> &str {
        Stored::uid(self.resource)
    }
}

/// What a turn does.
pub struct Plan<C: Controller> {
    /// The status if all children can be applied. [`Controller::conclude`] adds what follows from them.
    pub status: C::Status,
    pub children: Children,
    /// Locks that the next maintenance operation of this resource may remove. `None` for kinds that offer nothing.
    pub removable: Option<Vec<String>>,
    /// Work to start, unless the turn fails. Of each variant of the kind's `Work` one is under way at most: a new one replaces it.
    pub work: Vec<Task<C::Work>>,
    pub state: C::State,
    /// Next turn without any change.
    pub next: Option<Timestamp>,
}

impl<C: Controller> Plan<C> {
    /// A plan that does nothing but write this status.
    #[must_use]
    pub fn status(status: C::Status, state: C::State) -> Plan<C> {
        Plan {
            status,
            children: Children::default(),
            removable: None,
            work: Vec::new(),
            state,
            next: None,
        }
    }
}

/// How a turn ends.
pub struct Settled<C: Controller> {
    pub status: C::Status,
    pub state: C::State,
    pub next: Option<Timestamp>,
    /// The turn is repeated with rising back-off.
    pub failed: bool,
}

/// Work that takes long and needs the credentials of a repository. It runs beside the actor.
#[derive(Clone)]
pub struct Task<W> {
    pub repository: Arc<ResticRepository>,
    pub work: W,
}

/// Why the credentials of a task could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the Secret could not be read: {0}")]
    Api(ApplyError),
    #[error(transparent)]
    Secret(SecretError),
}

impl Unreadable {
    /// The API server failed, and the Secret may be as good as ever.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Unreadable::Api(ApplyError::Unavailable(_)))
    }
}

/// What work may use beside restic.
pub struct Tools {
    pub(super) context: Arc<Context>,
}

impl Tools {
    /// Permission to create repositories.
    #[must_use]
    pub fn creations(&self) -> &Creations {
        &self.context.creations
    }

    /// Who collects the figures of which repository.
    #[must_use]
    pub fn collectors(&self) -> &Collectors {
        &self.context.collectors
    }

    /// The spoke's clocks.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.context.clock
    }
}

/// Delivers to an actor what others have for it.
pub struct Mailbox<F: Send + 'static> {
    pub(super) handle: WorkHandle<Delivery<F>>,
}

impl<F: Send + 'static> Mailbox<F> {
    /// The actor takes a turn with it.
    pub fn send(&self, found: F) {
        self.handle.send(Delivery::Found(found));
    }
}

/// An Event, and a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub severity: Severity,
    pub reason: String,
    pub note: String,
}

/// One kind of custom resource.
pub trait Controller: Send + Sync + Sized + 'static {
    type Resource: Object + Stored + HasStatus<Status = Self::Status> + WithoutEffect + Notifying + Measured;
    type Status: ResourceStatus;
    /// A spec as it may be worked with. What comes after reads only this.
    type Valid: Send + Sync;
    /// Why a spec is refused.
    type Refusal: Display + Send + Sync;
    /// What the plan depends on beside the resource.
    type Observed: Send + Sync;
    /// What is remembered between turns. Lost with the actor: everything that matters is in the status.
    type State: Clone + Default + Send + Sync;
    /// Work that takes long.
    type Work: Clone + Debug + Send + Sync;
    /// What work finds, and what others send.
    type Found: Send + Sync;

    /// Kind as in the API, for logs, Events and metric labels.
    const NAME: &'static str;
    /// Finalizer of the original operator, which is taken off a resource that is being deleted.
    const FINALIZER: Option<&'static str> = None;
    /// Its resources own maintenance operations: changes of these wake the actor, and they are woken after each turn.
    const OWNS_OPERATIONS: bool = false;

    /// Where the resources are.
    fn store<'a>(&'a self, world: &'a World) -> &'a Store<Self::Resource>;

    /// Checks what the schema cannot.
    ///
    /// # Errors
    /// Why the spec is refused, with the field to change.
    fn validate(&self, key: &Key, resource: &Self::Resource) -> Result<Self::Valid, Self::Refusal>;

    /// Takes from the cache what the plan depends on.
    fn observe(&self, cache: Cache<'_>, input: &Input<'_, Self>) -> Self::Observed;

    /// What is to be done. Pure.
    fn plan(&self, input: &Input<'_, Self>, observed: &Self::Observed) -> Plan<Self>;

    /// The status that follows from what was applied. Pure. `settled` is what the plan asked for; it counts as failed if
    /// an object was refused.
    fn conclude(
        &self,
        input: &Input<'_, Self>,
        observed: &Self::Observed,
        settled: &mut Settled<Self>,
        applied: &Applied,
    ) {
        let _ = (input, observed, settled, applied);
    }

    /// What is announced when the status changes. Pure.
    fn events(old: &Self::Status, new: &Self::Status) -> Vec<Announcement> {
        ready_changed(old.conditions(), new.conditions())
            .into_iter()
            .collect()
    }

    /// Does work.
    fn perform(
        &self,
        tools: Tools,
        task: Task<Self::Work>,
        credentials: Result<Credentials, Unreadable>,
    ) -> BoxFuture<'static, Self::Found>;

    /// What work found that panicked.
    fn panicked(work: &Self::Work) -> Self::Found;

    /// A resource's actor has started: others may send to it.
    fn subscribe(&self, context: &Context, uid: &str, mailbox: Mailbox<Self::Found>) {
        let _ = (context, uid, mailbox);
    }

    /// A resource was deleted: nothing is kept of it. Owner references take care of what was made.
    fn gone(context: &Context, key: &Key, uid: &str) {
        let _ = (context, key, uid);
    }
}

/// What a manifest that is applied together with it may bring a moment later.
const MAY_COME: [&str; 6] = [
    reasons::POD_NOT_FOUND,
    reasons::REPOSITORY_NOT_FOUND,
    reasons::REPOSITORY_NOT_READY,
    reasons::CREDENTIALS_NOT_FOUND,
    reasons::BACKUP_NOT_FOUND,
    reasons::PVC_NOT_FOUND,
];

/// The announcement that condition Ready has another reason than before, or the repository another reason not to be
/// ready. A Warning is for a person: an unknown state, or a first report of something that may come later, is none.
#[must_use]
pub fn ready_changed(old: &[Condition], new: &[Condition]) -> Option<Announcement> {
    let ready = conditions::get(new, types::READY)?;
    let before = conditions::get(old, types::READY);
    let same = |before: &Condition| {
        let quotes = ready.reason == reasons::REPOSITORY_NOT_READY;
        before.reason == ready.reason && (!quotes || before.message == ready.message)
    };
    if before.is_some_and(same) {
        return None;
    }
    let first = before.is_none_or(|before| before.reason == reasons::CHECKING);
    let early = ready.status == "Unknown"
        || (first && MAY_COME.contains(&ready.reason.as_str()))
        || crate::consent::is_being_checked(ready);
    Some(announce(ready, ready.status == "True" || early))
}

/// Generation of the spec that condition Ready is about.
#[must_use]
pub fn observed_generation(list: &[Condition]) -> Option<i64> {
    conditions::get(list, types::READY)?.observed_generation
}

/// A condition as an announcement.
#[must_use]
pub fn announce(condition: &Condition, well: bool) -> Announcement {
    Announcement {
        severity: if well { Severity::Normal } else { Severity::Warning },
        reason: condition.reason.clone(),
        note: condition.message.clone(),
    }
}

/// Condition Ready after an object was refused. The API server being away is no fault of the resource: what was known of
/// it stays.
pub fn failed_as(list: &mut Vec<Condition>, refused: &Refused, generation: Option<i64>, now: Timestamp) {
    let known = conditions::get(list, types::READY).is_some_and(|c| c.reason != reasons::CHECKING);
    let mut conditions = Conditions::at(list, generation, now);
    if refused.is_final() {
        conditions.set(types::READY, false, refused.reason(), refused.to_string());
    } else if !known && matches!(refused.cause, Cause::Write(_)) {
        let text = refused.to_string();
        conditions.set(types::READY, Status::Unknown, reasons::API_ERROR, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str, reason: &str, message: &str) -> Vec<Condition> {
        let mut list = Vec::new();
        let status = match status {
            "True" => Status::True,
            "False" => Status::False,
            _ => Status::Unknown,
        };
        Conditions::at(&mut list, None, Timestamp::UNIX_EPOCH).set(types::READY, status, reason, message);
        list
    }

    fn quoted(why: &str) -> Vec<Condition> {
        let text = format!("ResticRepository shop/nas is not ready: {why}");
        ready("False", reasons::REPOSITORY_NOT_READY, &text)
    }

    fn severity(old: &[Condition], new: &[Condition]) -> Option<Severity> {
        ready_changed(old, new).map(|event| event.severity)
    }

    #[test]
    fn a_first_apply_warns_of_nothing() {
        for first in [
            quoted("not checked yet"),
            quoted("Checking: checking the repository"),
            ready("False", reasons::REPOSITORY_NOT_FOUND, "it does not exist"),
            ready("False", reasons::CREDENTIALS_NOT_FOUND, "no Secret"),
            ready("Unknown", reasons::CHECKING, "checking"),
        ] {
            assert_eq!(severity(&[], &first), Some(Severity::Normal), "{first:?}");
        }
        assert_eq!(
            severity(&[], &ready("False", reasons::INVALID_SPEC, "paths")),
            Some(Severity::Warning)
        );
    }

    #[test]
    fn the_cause_that_comes_later_is_told() {
        let (checking, wrong) = (quoted("not checked yet"), quoted("WrongPassword: wrong password"));
        assert_eq!(severity(&checking, &wrong), Some(Severity::Warning));
        assert_eq!(severity(&wrong, &wrong), None);
        assert_eq!(
            severity(&wrong, &quoted("RepositoryUnreachable: no route")),
            Some(Severity::Warning)
        );
        let gone = ready("False", reasons::REPOSITORY_NOT_FOUND, "it does not exist");
        assert_eq!(severity(&wrong, &gone), Some(Severity::Warning), "it was there");
        // Other messages hold figures that change without a new cause.
        let done = |files: u32| ready("True", reasons::RESTORE_COMPLETED, &format!("{files} files"));
        assert_eq!(severity(&done(1), &done(2)), None);
    }
}
