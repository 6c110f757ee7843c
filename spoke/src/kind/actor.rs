//! The actor of one resource. At most one wake-up waits in its mailbox, whatever happens around it; it takes one turn
//! at a time, and between turns it holds a timer and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, info_span, warn};

use super::supervisor::SupervisorMessage;
use super::{Cause, Kind, Requeue, Turn, WorkHandle};
use crate::backoff::{Backoff, Jitter};
use crate::context::Context;
use crate::world::Key;

/// After a failed turn: a failing resource costs at most one attempt in five minutes.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300), Jitter::Half);

/// Messages of an actor.
pub enum ActorMessage<R> {
    /// Look again. Sent only when none is waiting already.
    Wake(Cause),
    /// The timer armed by turn number n.
    Timer(u64),
    /// Work has ended.
    Result(R),
}

/// Whether a wake-up is already on its way.
#[derive(Default)]
pub struct WakeFlag {
    dirty: AtomicBool,
}

impl WakeFlag {
    /// Marks the flag; `true` if the caller has to send the wake-up.
    pub fn mark(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    fn clear(&self) {
        self.dirty.store(false, Ordering::Release);
    }
}

/// Actor of one resource: what never changes about it.
pub struct ResourceActor<K: Kind> {
    pub kind: Arc<K>,
    pub context: Arc<Context>,
    pub key: Key,
    pub uid: String,
    pub flag: Arc<WakeFlag>,
}

/// What changes about it.
pub struct ActorState<K: Kind> {
    state: K::State,
    /// Aborted when replaced or dropped: a ractor timer would outlive its actor.
    timer: Option<AbortOnDropHandle<()>>,
    turns: u64,
    failures: u32,
}

impl<K: Kind> Actor for ResourceActor<K> {
    type Msg = ActorMessage<K::WorkResult>;
    type State = ActorState<K>;
    type Arguments = ();

    // No I/O here: the supervisor waits for it.
    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(ActorState {
            state: K::State::default(),
            timer: None,
            turns: 0,
            failures: 0,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (cause, result) = match message {
            ActorMessage::Wake(cause) => {
                // Cleared before the turn reads anything: a change during the turn wakes the actor again.
                self.flag.clear();
                (cause, None)
            }
            ActorMessage::Timer(turn) if turn != state.turns => return Ok(()),
            ActorMessage::Timer(_) => (Cause::Timer, None),
            ActorMessage::Result(result) => (Cause::Report, Some(result)),
        };
        // Nothing is lost: leadership that lapsed is another term, and its actors begin with nothing remembered.
        if !self.context.leader.is_leader() {
            return Ok(());
        }
        // In this order: a turn is tens of kilobytes of manifests, which an actor that waits for its place has not taken
        // yet, and boxed, so that none holds them between turns.
        let Ok(_permit) = self.kind.permits(&self.context).acquire().await else {
            return Ok(());
        };
        Box::pin(self.turn(&myself, cause, result, state)).await;
        Ok(())
    }
}

impl<K: Kind> ResourceActor<K> {
    async fn turn(
        &self,
        myself: &ActorRef<ActorMessage<K::WorkResult>>,
        cause: Cause,
        result: Option<K::WorkResult>,
        state: &mut ActorState<K>,
    ) {
        let measure = self.context.metrics.turn(K::NAME);
        let turn = Turn {
            key: &self.key,
            uid: &self.uid,
            now: self.context.clock.now(),
            state: &mut state.state,
            result,
            work: WorkHandle {
                actor: myself.clone(),
            },
        };
        let span =
            info_span!(parent: None, "turn", kind = K::NAME, object = %self.key, cause = cause.as_str());
        let requeue = match timeout(K::TURN_LIMIT, self.kind.turn(turn).instrument(span)).await {
            Ok(requeue) => requeue,
            Err(_) => {
                warn!(kind = K::NAME, object = %self.key, limit = ?K::TURN_LIMIT, "turn took too long and was ended");
                Requeue::retry()
            }
        };
        measure.done(requeue.failed);
        state.turns += 1;
        self.arm(myself, requeue, state);
        // Removed from the store by this very turn: no watch event reaches the supervisor.
        if self.kind.uid(&self.key).as_ref() != Some(&self.uid)
            && let Some(supervisor) = myself.try_get_supervisor()
        {
            // An error means that the spoke is stopping.
            let _ = supervisor.send_message(SupervisorMessage::Look(self.key.clone(), Cause::Related));
        }
    }

    fn arm(
        &self,
        myself: &ActorRef<ActorMessage<K::WorkResult>>,
        requeue: Requeue,
        state: &mut ActorState<K>,
    ) {
        state.failures = if requeue.failed {
            state.failures.saturating_add(1)
        } else {
            0
        };
        let due = requeue.next.map(|next| until(self.context.clock.now(), next));
        let retry = requeue
            .failed
            .then(|| RETRY.after(state.failures, &*self.context.random));
        let delay = match (due, retry) {
            (Some(due), Some(retry)) => Some(due.min(retry)),
            (due, retry) => due.or(retry),
        };
        state.timer = delay.map(|delay| {
            let (actor, turn) = (myself.clone(), state.turns);
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                // An error means that the actor is gone.
                let _ = actor.cast(ActorMessage::Timer(turn));
            }))
        });
    }
}

/// A time in the past is due at once, but never in a busy loop.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now))
        .unwrap_or_default()
        .max(Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_mark_sends_a_wake_up() {
        let flag = WakeFlag::default();
        assert!(flag.mark());
        assert!(!flag.mark());
        flag.clear();
        assert!(flag.mark());
    }

    #[test]
    fn a_time_in_the_past_is_no_busy_loop() {
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(
            until(now, Timestamp::from_second(10).unwrap()),
            Duration::from_millis(100)
        );
        assert_eq!(
            until(now, Timestamp::from_second(101).unwrap()),
            Duration::from_secs(1)
        );
    }
}
