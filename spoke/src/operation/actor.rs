//! The actor of one operation: feeds observations and lease events into its holder, and carries the effects out. One
//! actor per Job under way, supervised like those of custom resources, with permits of its own: renewals do not queue
//! behind the reconciles of ten thousand resources.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use proto::v1::OperationOutcome;
use tokio::sync::Semaphore;
use tracing::warn;

use super::adopt::NotYet;
use super::life::{self, Pods};
use super::record::{LOCK_PAUSE, Plan, Record, ending};
use super::{Closed, Owner, maintenance_allowed};
use crate::apply::ApplyError;
use crate::context::Context;
use crate::exchange::{Event, Pinned};
use crate::kind::{Kind, Requeue, Turn};
use crate::maintenance::holder::{Effect, End, Input, Phase};
use crate::runs::{self, JobWithPods, State};
use crate::world::{JobView, Key, PodView};

/// Turns of operations that run at the same time.
const TURNS: usize = 64;
/// How soon an operation is looked at again while the pods are not watched.
const UNKNOWN_PODS: SignedDuration = SignedDuration::from_secs(5);

/// All operations of this cluster.
pub struct Operations {
    pub(super) context: Arc<Context>,
    /// Namespace of the Leases that keep the highest tokens.
    pub(super) namespace: String,
    pub(super) owners: Vec<Arc<dyn Owner>>,
    /// Seconds before a Job asks again that met restic's lock of a run that is over.
    pub(super) lock_pause: i64,
    permits: Semaphore,
}

/// What an actor remembers; adopted from the Job when it is lost.
#[derive(Default)]
pub struct Memory {
    record: Option<Box<Record>>,
}

/// What comes back to an actor.
pub enum Report {
    /// A message of the grantor.
    Lease(Box<Event>),
    /// The owner has recorded something, or refers to something else.
    Recorded,
    /// The plan from the pod's log; `None` when it could not be read.
    Plan(Option<Vec<u8>>),
}

impl Operations {
    /// Operations of these owners' Jobs.
    #[must_use]
    pub fn new(context: Arc<Context>, namespace: &str, owners: Vec<Arc<dyn Owner>>) -> Operations {
        Operations {
            context,
            namespace: namespace.to_owned(),
            owners,
            lock_pause: LOCK_PAUSE,
            permits: Semaphore::new(TURNS),
        }
    }

    /// With another time after which restic's lock of a run that is over should be removed.
    #[must_use]
    pub fn with_lock_pause(mut self, pause: Duration) -> Operations {
        self.lock_pause = i64::try_from(pause.as_secs()).unwrap_or(LOCK_PAUSE);
        self
    }

    /// Whether there is something left to do for a Job.
    fn is_open(&self, at: &Key, job: &JobView) -> bool {
        let Some(owner) = self.owner(job) else {
            return false;
        };
        let Some(pin) = job.pin.as_ref().filter(|_| job.released.is_some()) else {
            return true;
        };
        let pinned = Pinned {
            operation: job.meta.uid.to_string(),
            job_type: owner.job_type().to_owned(),
            job: at.clone(),
            owner: owner
                .assignment(at, job)
                .map_or_else(|| Key::new("", ""), |a| a.owner),
            owner_uid: pin.owner_uid.to_string(),
            repository: pin.repository.clone(),
            restic_id: pin.restic_id.to_string(),
        };
        !owner.is_recorded(&pinned)
    }

    /// The pods of an operation.
    pub(super) fn pods(&self, pinned: &Pinned) -> Vec<(Key, Arc<PodView>)> {
        self.context.world.pods.group(&Key::new("", &pinned.operation))
    }
}

impl Kind for Operations {
    type State = Memory;
    type WorkResult = Report;
    const NAME: &'static str = "Operation";

    fn permits<'a>(&'a self, _: &'a Context) -> &'a Semaphore {
        &self.permits
    }

    fn uid(&self, key: &Key) -> Option<String> {
        let board = &self.context.operations;
        // One whose Job is deleted lives until its lease is given back.
        board.uid(key).or_else(|| {
            let job = self.context.world.jobs.get(key)?;
            self.is_open(key, &job).then(|| {
                board.enter(key, &job.meta.uid);
                job.meta.uid.to_string()
            })
        })
    }

    fn keys(&self) -> Vec<Key> {
        let world = &self.context.world;
        let jobs = world.jobs.filter(|_, job| job.type_.is_some()).into_iter();
        jobs.map(|(key, _)| key)
            .chain(self.context.operations.keys())
            .collect()
    }

    async fn turn(&self, mut turn: Turn<'_, Self>) -> Requeue {
        if self.context.operations.uid(turn.key).as_deref() != Some(turn.uid) {
            return Requeue::default();
        }
        if turn.state.record.is_none() {
            match self.adopt(&turn).await {
                Ok(record) => turn.state.record = Some(Box::new(record)),
                Err(NotYet::Unassigned) => return self.unassigned(turn.key, turn.uid),
                Err(NotYet::Failed(error)) => return failed(turn.key, &error),
            }
        }
        let report = turn.result.take();
        let Turn {
            state: memory,
            key,
            work,
            ..
        } = turn;
        let Some(record) = memory.record.as_mut() else {
            return Requeue::retry();
        };
        let event = match report {
            Some(Report::Lease(event)) => Some(*event),
            Some(Report::Plan(read)) => {
                record.plan = Plan::Read(read.unwrap_or_default());
                None
            }
            Some(Report::Recorded) | None => None,
        };
        let mut outcome = match self.advance(record, event).await {
            Ok(()) => Requeue::default(),
            Err(error) => failed(key, &error),
        };
        self.read_plan(record, &work);
        self.publish(record);
        match self.end_if_over(record).await {
            Ok(true) => {
                memory.record = None;
                return Requeue::default();
            }
            Ok(false) => {}
            Err(error) => outcome = failed(key, &error),
        }
        let later = match self.end_lingering(record).await {
            Ok(later) => later,
            Err(error) => {
                outcome = failed(key, &error);
                None
            }
        };
        outcome.next = self.wake_at(record).into_iter().chain(later).min();
        outcome
    }

    fn gone(&self, _: &Key, uid: &str) {
        self.context.leases.forget(uid);
    }

    async fn crashed(&self, _: Key, _: String, _: u32) {
        // Its owner's status shows that the Job does not move; the reason is in the log.
    }
}

fn failed(key: &Key, error: &ApplyError) -> Requeue {
    if matches!(error, ApplyError::NotLeader) {
        return Requeue::default();
    }
    warn!(job = %key, %error, "the maintenance gate could not be moved");
    Requeue::retry()
}

impl Operations {
    /// A Job that belongs to nobody yet: its owner's actor wakes this one. Its pods do nothing without a token.
    fn unassigned(&self, key: &Key, uid: &str) -> Requeue {
        if self.job(key, uid).is_none() {
            self.context.operations.leave(key);
        }
        Requeue::default()
    }

    /// Cleans up after an operation that is at its end. `false` while it is not, or while its result is not recorded.
    async fn end_if_over(&self, record: &Record) -> Result<bool, ApplyError> {
        match record.holder.phase() {
            Phase::Done(end) => self.end(record, *end).await,
            _ if record.covered => self.end(record, End::Job).await,
            _ => Ok(false),
        }
    }

    /// Feeds what has happened into the holder.
    async fn advance(&self, record: &mut Record, event: Option<Event>) -> Result<(), ApplyError> {
        self.check_meaning(record);
        // It asks for nothing, so that no message can be about it; but for a question of the leader before this one.
        let granted = matches!(event, Some(Event::Granted { .. }));
        if record.covered || (self.is_early(record) && !granted) {
            return Ok(());
        }
        if let Some(closed) = self.closed(record).filter(|_| !granted) {
            record.waiting = Some(closed.text);
            return Ok(());
        }
        if let Some(event) = event
            && let Some(input) = self.apply_event(record, event).await?
        {
            self.feed(record, input).await?;
        }
        if record.covered {
            return Ok(());
        }
        // An operation that lost its meaning gives its lease back as if the grantor had taken it.
        if let (Some(_), Phase::Held(lease)) = (&record.ending, record.holder.phase()) {
            let token = lease.token;
            self.feed(record, Input::Revoked { token }).await?;
        }
        self.find_result(record);
        self.feed(record, Input::Look).await?;
        self.find_result(record);
        Ok(())
    }

    fn check_meaning(&self, record: &mut Record) {
        let Some(job) = self.job(&record.pinned.job, &record.pinned.operation) else {
            return;
        };
        if record.ending.is_none() && job.end.is_none() {
            let now = self
                .owner(&job)
                .and_then(|owner| owner.assignment(&record.pinned.job, &job));
            record.ending = ending(&record.pinned, now.as_ref());
        }
    }

    /// A Job that follows another one may have to wait before it asks.
    pub(super) fn is_early(&self, record: &Record) -> bool {
        let job = self.job(&record.pinned.job, &record.pinned.operation);
        let not_before = job.and_then(|job| job.not_before);
        let waits = matches!(record.holder.phase(), Phase::Waiting { .. });
        waits && record.ending.is_none() && not_before.is_some_and(|at| self.context.clock.now() < at)
    }

    /// Why a Job that has not asked for the lock yet may not ask now.
    pub(super) fn closed(&self, record: &Record) -> Option<Closed> {
        let waits = matches!(record.holder.phase(), Phase::Waiting { .. });
        if !waits || record.asked || record.ending.is_some() {
            return None;
        }
        let job = self.job(&record.pinned.job, &record.pinned.operation)?;
        self.owner(&job)?.closed(&record.pinned, self.context.clock.now())
    }

    async fn feed(&self, record: &mut Record, input: Input) -> Result<(), ApplyError> {
        let mut input = Some(input);
        while let Some(next) = input.take() {
            let pinned = &record.pinned;
            let job = self.job(&pinned.job, &pinned.operation);
            let pods = self.summary(pinned);
            let now = self.context.clock.since_boot();
            let open = record.open_for(job.as_deref(), now);
            let settled = self.is_settled(record, job.as_deref(), pods);
            let observed = life::observed(job.as_deref(), pods, settled, record.ending.is_some(), open);
            for effect in record.holder.step(next, observed, now) {
                input = self.carry_out(record, effect).await?.or(input);
            }
        }
        Ok(())
    }

    /// Carries an effect out. Returns what the holder takes in because of it.
    async fn carry_out(&self, record: &mut Record, effect: Effect) -> Result<Option<Input>, ApplyError> {
        match effect {
            Effect::Ask if record.ending.is_some() => {}
            Effect::Ask => {
                let allowed = maintenance_allowed(&self.context, &record.pinned.restic_id).await?;
                record.forbidden = allowed.err();
                if record.forbidden.is_none() {
                    record.asked = true;
                    self.ask(record);
                }
            }
            Effect::Withdraw { opened } => self.withdraw(record, opened),
            Effect::Renew { token, seq } => self.renew(record, token, seq),
            Effect::Release { token } => self.release(record, token),
            Effect::Open { token } => match self.open(record, token).await {
                Err(ApplyError::Invalid(text) | ApplyError::Forbidden(text)) => {
                    warn!(job = %record.pinned.job, token, text, "the Job cannot be opened");
                    record.waiting = Some(text);
                    return Ok(Some(Input::OpenRefused { token }));
                }
                result => result?,
            },
            Effect::Shut => {
                let (reason, message) = self.why(record);
                self.shut(record, reason, &message).await?;
            }
            Effect::Count { .. } => self.count(record).await?,
        }
        Ok(None)
    }

    pub(super) fn summary(&self, pinned: &Pinned) -> Pods {
        let pods = self.pods(pinned);
        let remembered = self
            .context
            .world
            .pods
            .remembered(&Key::new("", &pinned.operation));
        let mut summary = Pods::of(pods.iter().map(|(_, pod)| pod.as_ref()), remembered);
        summary.active |= !self.knows_pods();
        summary
    }

    /// Whether the pods are watched. While they are not, one that is not in the store may be at work.
    fn knows_pods(&self) -> bool {
        let now = self.context.clock.now();
        self.context.world.pods.delivery().since(now).is_some()
    }

    pub(super) fn run(&self, pinned: &Pinned, job: Arc<JobView>) -> JobWithPods {
        JobWithPods::of(&self.context.world, pinned.job.clone(), job)
    }

    /// When to look again although nothing happens.
    fn wake_at(&self, record: &Record) -> Option<jiff::Timestamp> {
        let now = self.context.clock.now();
        let in_millis = |at: u64| {
            let left = i64::try_from(at.saturating_sub(self.context.clock.since_boot())).unwrap_or(i64::MAX);
            now.checked_add(SignedDuration::from_millis(left)).ok()
        };
        let job = self.job(&record.pinned.job, &record.pinned.operation);
        let early = job.as_ref().and_then(|job| job.not_before).filter(|at| now < *at);
        let holder = record.holder.wake().and_then(in_millis);
        let result = match (&record.finished, job) {
            (Some(_), _) => in_millis(record.finished_at + super::record::RECORD_LIMIT),
            (None, Some(job)) => match runs::state::<OperationOutcome>(&self.run(&record.pinned, job), now) {
                State::Settling(again) => Some(again),
                State::Waiting { again, .. } => again,
                State::Running | State::Ended(_) => None,
            },
            (None, None) => None,
        };
        let closed = self.closed(record).map(|closed| closed.again);
        let due = match closed {
            _ if self.is_early(record) => early,
            None => holder,
            closed => closed,
        };
        // That they are watched again wakes nothing if no pod has changed.
        let unknown = (!self.knows_pods())
            .then(|| now.checked_add(UNKNOWN_PODS).ok())
            .flatten();
        [due, result, unknown].into_iter().flatten().min()
    }
}

#[cfg(test)]
#[path = "actor_tests/mod.rs"]
mod tests;
