//! What an actor of the driver remembers between turns, with the tasks that it has under way.

use std::mem::discriminant;

use tokio_util::task::AbortOnDropHandle;

use super::children::Contest;
use super::controller::Controller;

/// What an actor is given beside wake-ups.
pub enum Delivery<F> {
    /// What a task found, by its number.
    Work(u64, F),
    Found(F),
    /// A maintenance operation of the resource has moved.
    Operation,
}

/// What an actor remembers between turns.
pub struct ActorState<C: Controller> {
    pub(super) state: C::State,
    pub(super) subscribed: bool,
    /// Not in a written status yet.
    pub(super) found: Vec<C::Found>,
    running: Vec<Running>,
    /// Work under way, in the order of `running`.
    pub(super) work: Vec<C::Work>,
    /// See `Driver::write`.
    pub(super) unannounced: Option<C::Status>,
    /// Number of the task that was started last.
    last: u64,
    /// Over the CronJob.
    pub(super) contest: Contest,
}

/// A task under way. Dropping it ends it.
struct Running {
    number: u64,
    _task: AbortOnDropHandle<()>,
}

impl<C: Controller> Default for ActorState<C> {
    fn default() -> Self {
        ActorState {
            state: C::State::default(),
            subscribed: false,
            found: Vec::new(),
            running: Vec::new(),
            work: Vec::new(),
            unannounced: None,
            last: 0,
            contest: Contest::default(),
        }
    }
}

impl<C: Controller> ActorState<C> {
    /// Takes a delivery in.
    pub(super) fn receive(&mut self, delivery: Delivery<C::Found>) {
        match delivery {
            Delivery::Work(number, found) => {
                // The result of a task that was replaced meanwhile is about something else.
                if let Some(at) = self.running.iter().position(|r| r.number == number) {
                    self.running.remove(at);
                    self.work.remove(at);
                    self.found.push(found);
                }
            }
            Delivery::Found(found) => self.found.push(found),
            Delivery::Operation => {}
        }
    }

    /// Ends a task of the same variant. Returns the number of the new one.
    pub(super) fn make_room(&mut self, work: &C::Work) -> u64 {
        let same = |other: &C::Work| discriminant(other) == discriminant(work);
        if let Some(at) = self.work.iter().position(same) {
            self.work.remove(at);
            self.running.remove(at);
        }
        self.last += 1;
        self.last
    }

    /// A task is under way. It ends when its handle is dropped.
    pub(super) fn started(&mut self, number: u64, work: C::Work, task: AbortOnDropHandle<()>) {
        self.work.push(work);
        self.running.push(Running { number, _task: task });
    }
}
