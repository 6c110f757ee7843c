//! The driver of all kinds: the only code of a turn that has a client.

use std::sync::Arc;

use crds::conditions::{Conditions, reasons, types};
use crds::effect::WithoutEffect as _;
use crds::{GlobalRetentionPolicyStatus, ResticBackupStatus, ResticRepositoryStatus, ResticRestoreStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::object::HasStatus as _;
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use tracing::warn;

use super::actor_state::{ActorState, Delivery};
use super::announce;
use super::controller::{Cache, Controller, Input, Mailbox, Moment, Plan, Settled, Task, Tools, Unreadable};
use super::{Kind, Requeue, Turn, WorkHandle};
use crate::apply::ApplyError;
use crate::context::Context;
use crate::credentials;
use crate::metrics::Measured as _;
use crate::world::{Key, Stored, slim};

/// What the statuses of all kinds have.
pub trait ResourceStatus: Clone + Default + PartialEq + Serialize + Send + Sync + 'static {
    fn conditions(&self) -> &[Condition];
    fn conditions_mut(&mut self) -> &mut Vec<Condition>;
}

macro_rules! statuses {
    ($($status:ty),*) => {$(
        impl ResourceStatus for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
            fn conditions_mut(&mut self) -> &mut Vec<Condition> {
                &mut self.conditions
            }
        }
    )*};
}

statuses!(
    ResticRepositoryStatus,
    ResticBackupStatus,
    ResticRestoreStatus,
    GlobalRetentionPolicyStatus
);

/// Drives the resources of one kind.
pub struct Driver<C> {
    controller: Arc<C>,
    context: Arc<Context>,
}

impl<C: Controller> Driver<C> {
    /// A driver of a kind's resources in this cluster.
    #[must_use]
    pub fn new(context: Arc<Context>, controller: C) -> Driver<C> {
        Driver {
            controller: Arc::new(controller),
            context,
        }
    }

    fn get(&self, key: &Key, uid: &str) -> Option<Arc<C::Resource>> {
        let resource = self.controller.store(&self.context.world).get(key)?;
        (Stored::uid(&*resource) == uid).then_some(resource)
    }

    /// Takes the original operator's finalizer off. Nothing of ours needs one: owner references take care of what was made.
    /// With it, an object could not be deleted while no operator runs.
    async fn release(&self, key: &Key, resource: &C::Resource, now: Timestamp) -> Requeue {
        let finalizers = resource.finalizers();
        let is = |name: &String| Some(name.as_str()) == C::FINALIZER;
        if !finalizers.iter().any(is) {
            return Requeue::default();
        }
        let rest: Vec<&String> = finalizers.iter().filter(|name| !is(name)).collect();
        let version = resource.resource_version();
        let patch = json!({ "metadata": { "finalizers": rest, "resourceVersion": version } });
        match self.context.applier.merge::<C::Resource>(key, &patch).await {
            Ok(mut written) => {
                slim(written.meta_mut());
                // One that was deleted is gone with its last finalizer, and its end comes through the watch.
                if written.meta().deletion_timestamp.is_none() {
                    let store = self.controller.store(&self.context.world);
                    store.put(key.clone(), Arc::new(written));
                }
                Requeue::default()
            }
            Err(ApplyError::Gone(_)) => Requeue::default(),
            // What was changed meanwhile is on its way through the watch.
            Err(ApplyError::Conflict(_)) => Requeue::at(now.checked_add(SignedDuration::from_secs(1)).ok()),
            Err(ApplyError::NotLeader) => Requeue::retry(),
            Err(error) => {
                let finalizer = C::FINALIZER;
                warn!(kind = C::NAME, object = %key, finalizer, %error, "a finalizer of the original operator could not be removed");
                Requeue::retry()
            }
        }
    }

    fn subscribe(&self, uid: &str, work: &WorkHandle<Delivery<C::Found>>, actor: &mut ActorState<C>) {
        if std::mem::replace(&mut actor.subscribed, true) {
            return;
        }
        if C::OWNS_OPERATIONS {
            let handle = work.clone();
            let wake = move || handle.send(Delivery::Operation);
            self.context.operations.listen(uid, wake);
        }
        let handle = work.clone();
        self.controller.subscribe(&self.context, uid, Mailbox { handle });
    }

    /// Starts tasks beside the actor. Each takes the place of one of the same variant.
    fn start(
        &self,
        tasks: Vec<Task<C::Work>>,
        handle: &WorkHandle<Delivery<C::Found>>,
        actor: &mut ActorState<C>,
    ) {
        for task in tasks {
            let number = actor.make_room(&task.work);
            let work = task.work.clone();
            let panicked = Delivery::Work(number, C::panicked(&task.work));
            let found = self.perform(task);
            let result = async move { Delivery::Work(number, found.await) };
            actor.started(number, work, handle.work(result, panicked));
        }
    }

    /// Reads the credentials that a task needs, and does its work.
    fn perform(&self, task: Task<C::Work>) -> impl Future<Output = C::Found> + Send + use<C> {
        let (context, controller) = (self.context.clone(), self.controller.clone());
        async move {
            let credentials = match credentials::read(&context, &task.repository).await {
                Ok(Ok(credentials)) => Ok(credentials),
                Ok(Err(error)) => Err(Unreadable::Secret(error)),
                Err(error) => Err(Unreadable::Api(error)),
            };
            let tools = Tools { context };
            controller.perform(tools, task, credentials).await
        }
    }

    /// Writes the status if it has changed, and announces what is new. Whether the resource was edited meanwhile.
    ///
    /// `unannounced` is the status whose changes were announced last, where the answer to a later write was lost: the write
    /// may have succeeded all the same, and the store then has its result already.
    async fn write(
        &self,
        key: &Key,
        resource: &C::Resource,
        new: &C::Status,
        unannounced: &mut Option<C::Status>,
    ) -> Result<bool, ApplyError> {
        let store = self.controller.store(&self.context.world);
        let old = resource.status().cloned().unwrap_or_default();
        let planned = (key, resource.meta());
        let written = self.context.write_status(store, planned, &old, new).await;
        if matches!(written, Err(ApplyError::Unavailable(_))) {
            unannounced.get_or_insert(old);
            return written;
        }
        let edited = written?;
        let old = unannounced.take().unwrap_or(old);
        announce::announce::<C>(&self.context, key, resource, (&old, new));
        if let Some(present) = self.get(key, Stored::uid(resource)) {
            let resources = &self.context.metrics.resources;
            resources.set(C::NAME, key, present.samples());
        }
        if C::OWNS_OPERATIONS {
            // Their results are recorded now, or they find that their owner refers to something else.
            self.context.operations.wake(Stored::uid(resource));
        }
        Ok(edited)
    }

    /// Plans, carries the plan out, and records what became of it.
    async fn carry_out(&self, turn: Turn<'_, Self>, resource: &C::Resource) -> Requeue {
        let (key, actor, context) = (turn.key, turn.state, &self.context);
        let valid = self.controller.validate(key, resource);
        let state = actor.state.clone();
        let input = Input {
            key,
            resource,
            valid: valid.as_ref(),
            state: &state,
            found: &actor.found,
            running: &actor.work,
            now: Moment {
                wall: turn.now,
                boot: context.clock.since_boot(),
            },
        };
        let observed = self.controller.observe(self.cache(), &input);
        let Plan {
            status,
            children,
            removable,
            work,
            state,
            next,
        } = self.controller.plan(&input, &observed);
        if let Some(removable) = removable {
            context.operations.offer(turn.uid, removable);
        }
        let applied = children.apply(context, key, turn.uid, &mut actor.contest).await;
        if let Some(refused) = &applied.refused {
            if refused.is_not_leader() {
                return Requeue::retry();
            }
            warn!(kind = C::NAME, object = %key, %refused, "an object could not be applied");
        }
        let mut settled = Settled {
            status,
            state,
            next,
            failed: applied.refused.is_some(),
        };
        self.controller
            .conclude(&input, &observed, &mut settled, &applied);
        let requeue = self.record(key, resource, settled, actor, turn.now).await;
        if !requeue.failed {
            self.start(work, &turn.work, actor);
        }
        requeue
    }

    fn cache(&self) -> Cache<'_> {
        let context = &self.context;
        Cache {
            world: &context.world,
            leases: &context.leases,
            operations: &context.operations,
            certificate: &context.certificate,
            collectors: &context.collectors,
            copies: &context.copies,
            places: &context.places,
            commands: &context.commands,
        }
    }

    /// Writes the status of a turn. The actor remembers the turn only if that succeeds: otherwise the next one begins from
    /// the state before, with the same results of work.
    async fn record(
        &self,
        key: &Key,
        resource: &C::Resource,
        settled: Settled<C>,
        actor: &mut ActorState<C>,
        now: Timestamp,
    ) -> Requeue {
        let Settled {
            mut status,
            state,
            next,
            failed,
        } = settled;
        let fields = resource.without_effect();
        let generation = resource.meta().generation;
        crds::effect::set_condition(status.conditions_mut(), &fields, generation, now);
        match self.write(key, resource, &status, &mut actor.unannounced).await {
            Ok(edited) => {
                actor.state = state;
                actor.found.clear();
                let next = if edited { Some(now) } else { next };
                Requeue { next, failed }
            }
            Err(error) => {
                let quiet = matches!(
                    error,
                    ApplyError::NotLeader | ApplyError::Gone(_) | ApplyError::Conflict(_)
                );
                if !quiet {
                    warn!(kind = C::NAME, object = %key, %error, "could not write the status");
                }
                // What was due at once waits for the status: the back-off counts.
                let next = next.filter(|at| *at > now);
                Requeue { next, failed: true }
            }
        }
    }
}

impl<C: Controller> Kind for Driver<C> {
    type State = ActorState<C>;
    type WorkResult = Delivery<C::Found>;
    const NAME: &'static str = C::NAME;

    fn uid(&self, key: &Key) -> Option<String> {
        let resource = self.controller.store(&self.context.world).get(key)?;
        Some(Stored::uid(&*resource).to_owned())
    }

    fn keys(&self) -> Vec<Key> {
        self.controller.store(&self.context.world).keys()
    }

    async fn turn(&self, mut turn: Turn<'_, Self>) -> Requeue {
        let Some(resource) = self.get(turn.key, turn.uid) else {
            return Requeue::default();
        };
        let released = self.release(turn.key, &resource, turn.now).await;
        // As it is after that.
        let Some(resource) = self.get(turn.key, turn.uid) else {
            return released;
        };
        if resource.meta().deletion_timestamp.is_some() {
            return released;
        }
        self.subscribe(turn.uid, &turn.work, turn.state);
        if let Some(delivery) = turn.result.take() {
            turn.state.receive(delivery);
        }
        let requeue = self.carry_out(turn, &resource).await;
        Requeue {
            next: requeue.next.into_iter().chain(released.next).min(),
            failed: requeue.failed || released.failed,
        }
    }

    fn gone(&self, key: &Key, uid: &str) {
        if C::OWNS_OPERATIONS {
            self.context.operations.forget_owner(uid);
        }
        self.context.metrics.resources.remove(C::NAME, key);
        C::gone(&self.context, key, uid);
    }

    async fn crashed(&self, key: Key, uid: String, failures: u32) {
        let Some(resource) = self.get(&key, &uid) else {
            return;
        };
        let mut new = resource.status().cloned().unwrap_or_default();
        let text = format!(
            "the controller of this resource crashed {failures} times in a row; see the operator's log"
        );
        let (generation, now) = (resource.meta().generation, self.context.clock.now());
        let mut conditions = Conditions::at(new.conditions_mut(), generation, now);
        conditions.set(types::READY, false, reasons::CRASHED, text);
        if let Err(error) = self.write(&key, &resource, &new, &mut None).await {
            warn!(kind = C::NAME, object = %key, %error, "a crash could not be reported in the status");
        }
    }
}
