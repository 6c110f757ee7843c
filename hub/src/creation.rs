//! One creation of a repository at a time in the whole fleet. Pure. Times are milliseconds of a monotonic clock.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Millis;

/// Who creates, and who waits.
#[derive(Debug)]
pub struct Creations {
    /// A spoke ends a creation well within this time from its grant; only then is a silent holder passed over.
    hold: Millis,
    holder: Option<(Ticket, Millis)>,
    /// One per cluster, in the order of asking: each cluster's next one comes after everybody else's.
    waiting: VecDeque<Ticket>,
    not_before: Millis,
}

/// A creation of a process of a cluster's spoke. Ids of different processes may be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub cluster: Arc<str>,
    /// Of the spoke's process.
    pub incarnation: Arc<str>,
    pub id: u64,
}

impl Creations {
    /// Nobody creates.
    #[must_use]
    pub fn new(hold: Millis) -> Creations {
        Creations {
            hold,
            holder: None,
            waiting: VecDeque::new(),
            not_before: 0,
        }
    }

    /// How long the holder keeps the permission from now on if no message of it arrives.
    #[must_use]
    pub fn left(&self, now: Millis) -> Millis {
        let since = self.holder.as_ref().map_or(now, |(_, since)| *since);
        (self.hold - now.saturating_sub(since)).max(0)
    }

    /// Grants nothing for one hold: what another hub, or this one before, has granted is not known.
    pub fn pause(&mut self, now: Millis) {
        self.not_before = now + self.hold;
    }

    /// A spoke asks, perhaps again. A cluster has one place: another question takes it over.
    pub fn ask(&mut self, ticket: Ticket) {
        if self.holder.as_ref().is_some_and(|(holder, _)| *holder == ticket) {
            return;
        }
        match self.waiting.iter_mut().find(|w| w.cluster == ticket.cluster) {
            Some(place) => *place = ticket,
            None => self.waiting.push_back(ticket),
        }
    }

    /// A creation is over. One that was never granted is forgotten.
    pub fn done(&mut self, ticket: &Ticket) {
        self.holder.take_if(|(holder, _)| holder == ticket);
        self.waiting.retain(|waiting| waiting != ticket);
    }

    /// Who may create now. Those whose spoke is away keep their place.
    pub fn advance(&mut self, now: Millis, connected: impl Fn(&str) -> bool) -> Option<Ticket> {
        self.holder
            .take_if(|(_, since)| now.saturating_sub(*since) >= self.hold);
        if self.holder.is_none()
            && now >= self.not_before
            && let Some(next) = self.waiting.iter().position(|ticket| connected(&ticket.cluster))
        {
            self.holder = self.waiting.remove(next).map(|ticket| (ticket, now));
        }
        self.holder.as_ref().map(|(ticket, _)| ticket.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Millis = 150_000;

    fn of(cluster: &str, incarnation: &str, id: u64) -> Ticket {
        Ticket {
            cluster: cluster.into(),
            incarnation: incarnation.into(),
            id,
        }
    }

    fn ticket(cluster: &str, id: u64) -> Ticket {
        of(cluster, "one", id)
    }

    #[test]
    fn one_at_a_time_in_order() {
        let mut creations = Creations::new(HOLD);
        creations.ask(ticket("a", 1));
        creations.ask(ticket("b", 1));
        creations.ask(ticket("a", 1));
        assert_eq!(creations.advance(0, |_| true), Some(ticket("a", 1)));
        assert_eq!(creations.advance(1, |_| true), Some(ticket("a", 1)));
        creations.done(&ticket("b", 9));
        creations.done(&ticket("a", 1));
        assert_eq!(creations.advance(2, |_| true), Some(ticket("b", 1)));
        creations.done(&ticket("b", 1));
        assert_eq!(creations.advance(3, |_| true), None);
    }

    #[test]
    fn a_holder_that_vanished_is_passed_over_only_after_its_restic_must_have_ended() {
        let mut creations = Creations::new(HOLD);
        creations.ask(ticket("a", 1));
        creations.ask(ticket("b", 1));
        creations.advance(0, |_| true);
        assert_eq!(creations.advance(HOLD - 1, |c| c == "b"), Some(ticket("a", 1)));
        assert_eq!(creations.advance(HOLD, |c| c == "b"), Some(ticket("b", 1)));
    }

    #[test]
    fn who_is_away_keeps_its_place_and_holds_nobody_up() {
        let mut creations = Creations::new(HOLD);
        creations.ask(ticket("a", 1));
        creations.ask(ticket("b", 1));
        assert_eq!(creations.advance(0, |c| c == "b"), Some(ticket("b", 1)));
        creations.done(&ticket("b", 1));
        assert_eq!(creations.advance(1, |_| true), Some(ticket("a", 1)));
    }

    #[test]
    fn the_first_creation_of_a_new_process_is_not_the_one_of_the_old_process() {
        let mut creations = Creations::new(HOLD);
        creations.ask(of("a", "old", 1));
        assert_eq!(creations.advance(0, |_| true), Some(of("a", "old", 1)));
        creations.ask(of("a", "new", 1));
        assert_eq!(creations.advance(1, |_| true), Some(of("a", "old", 1)));
        assert_eq!(creations.advance(HOLD, |_| true), Some(of("a", "new", 1)));
    }

    #[test]
    fn a_flood_of_questions_has_one_place() {
        let mut creations = Creations::new(HOLD);
        creations.ask(ticket("flood", 0));
        creations.advance(0, |_| true);
        for id in 1..10_000 {
            creations.ask(ticket("flood", id));
        }
        assert_eq!(creations.waiting.len(), 1);
        creations.ask(ticket("b", 1));
        creations.done(&ticket("flood", 0));
        creations.advance(1, |_| true);
        creations.ask(ticket("flood", 10_001));
        creations.done(&ticket("flood", 9_999));
        assert_eq!(creations.advance(2, |_| true), Some(ticket("b", 1)), "its turn");
    }

    #[test]
    fn an_answer_that_is_given_again_leaves_what_is_left() {
        let mut creations = Creations::new(HOLD);
        creations.ask(ticket("a", 1));
        creations.advance(1000, |_| true);
        assert_eq!(
            (creations.left(1000), creations.left(41_000)),
            (HOLD, HOLD - 40_000)
        );
        assert_eq!(creations.left(1000 + 2 * HOLD), 0);
    }

    #[test]
    fn after_a_start_nothing_is_granted_for_one_hold() {
        let mut creations = Creations::new(HOLD);
        creations.pause(0);
        creations.ask(ticket("a", 1));
        assert_eq!(creations.advance(HOLD - 1, |_| true), None);
        assert_eq!(creations.advance(HOLD, |_| true), Some(ticket("a", 1)));
    }
}
