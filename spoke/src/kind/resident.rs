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
use super::{Cause, Kind, Outcome, Reporter, Turn};
use crate::backoff::{Backoff, Jitter};
use crate::context::Context;
use crate::world::Key;

/// After a failed turn: a failing resource costs at most one attempt in five minutes.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300), Jitter::Half);

/// What an actor is told.
pub enum ResidentMessage<R> {
    /// Look again. Sent only when none is waiting already.
    Wake(Cause),
    /// The timer armed by turn number n.
    Timer(u64),
    /// Work came back.
    Report(R),
}

/// Whether a wake-up is already on its way.
#[derive(Default)]
pub struct Slot {
    dirty: AtomicBool,
}

impl Slot {
    /// Marks the slot; `true` if the caller has to send the wake-up.
    pub fn mark(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    fn clear(&self) {
        self.dirty.store(false, Ordering::Release);
    }
}

/// Actor of one resource: what never changes about it.
pub struct Resident<K: Kind> {
    pub kind: Arc<K>,
    pub context: Arc<Context>,
    pub key: Key,
    pub uid: String,
    pub slot: Arc<Slot>,
}

/// What changes about it.
pub struct State<K: Kind> {
    memory: K::Memory,
    /// Aborted when replaced or dropped: a ractor timer would outlive its actor.
    timer: Option<AbortOnDropHandle<()>>,
    turns: u64,
    failures: u32,
}

impl<K: Kind> Actor for Resident<K> {
    type Msg = ResidentMessage<K::Report>;
    type State = State<K>;
    type Arguments = ();

    // No I/O here: the supervisor waits for it.
    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(State {
            memory: K::Memory::default(),
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
        let (cause, report) = match message {
            ResidentMessage::Wake(cause) => {
                // Cleared before the turn reads anything: a change during the turn wakes the actor again.
                self.slot.clear();
                (cause, None)
            }
            ResidentMessage::Timer(turn) if turn != state.turns => return Ok(()),
            ResidentMessage::Timer(_) => (Cause::Timer, None),
            ResidentMessage::Report(report) => (Cause::Report, Some(report)),
        };
        // Nothing is lost: leadership that lapsed is another term, and its actors begin with nothing remembered.
        if !self.context.leader.is_leader() {
            return Ok(());
        }
        // Boxed: a turn is tens of kilobytes of manifests, and an actor would hold that room between turns too.
        Box::pin(self.turn(&myself, cause, report, state)).await;
        Ok(())
    }
}

impl<K: Kind> Resident<K> {
    async fn turn(
        &self,
        myself: &ActorRef<ResidentMessage<K::Report>>,
        cause: Cause,
        report: Option<K::Report>,
        state: &mut State<K>,
    ) {
        let Ok(_permit) = self.kind.permits(&self.context).acquire().await else {
            return;
        };
        let measure = self.context.metrics.turn(K::NAME);
        let turn = Turn {
            key: &self.key,
            uid: &self.uid,
            cause,
            now: self.context.clock.now(),
            memory: &mut state.memory,
            report,
            reporter: Reporter {
                actor: myself.clone(),
            },
        };
        let span =
            info_span!(parent: None, "turn", kind = K::NAME, object = %self.key, cause = cause.as_str());
        let outcome = match timeout(K::TURN_LIMIT, self.kind.turn(turn).instrument(span)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                warn!(kind = K::NAME, object = %self.key, limit = ?K::TURN_LIMIT, "turn took too long and was ended");
                Outcome::retry()
            }
        };
        measure.done(outcome.failed);
        state.turns += 1;
        self.arm(myself, outcome, state);
        // Removed from the store by this very turn: no watch event tells the supervisor.
        if self.kind.uid(&self.key).as_ref() != Some(&self.uid)
            && let Some(supervisor) = myself.try_get_supervisor()
        {
            // An error means that the spoke is stopping.
            let _ = supervisor.send_message(SupervisorMessage::Look(self.key.clone(), Cause::Related));
        }
    }

    fn arm(&self, myself: &ActorRef<ResidentMessage<K::Report>>, outcome: Outcome, state: &mut State<K>) {
        state.failures = if outcome.failed {
            state.failures.saturating_add(1)
        } else {
            0
        };
        let due = outcome.next.map(|next| until(self.context.clock.now(), next));
        let retry = outcome.failed.then(|| RETRY.after(state.failures));
        let delay = match (due, retry) {
            (Some(due), Some(retry)) => Some(due.min(retry)),
            (due, retry) => due.or(retry),
        };
        state.timer = delay.map(|delay| {
            let (actor, turn) = (myself.clone(), state.turns);
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                // An error means that the actor is gone.
                let _ = actor.cast(ResidentMessage::Timer(turn));
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
        let slot = Slot::default();
        assert!(slot.mark());
        assert!(!slot.mark());
        slot.clear();
        assert!(slot.mark());
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
