//! One creation of a repository at a time in the whole fleet. Pure. Times are milliseconds of a monotonic clock.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Millis;

/// A spoke does not begin a creation after this time less a margin, and ends restic's process within it; only then is a
/// silent holder passed over.
pub const HOLD: Millis = 150_000;

/// Who creates, and who waits.
#[derive(Debug, Default)]
pub struct Creations {
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
    /// Grants nothing for one hold: what another hub, or this one before, has granted is not known.
    pub fn pause(&mut self, now: Millis) {
        self.not_before = now + HOLD;
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
            .take_if(|(_, since)| now.saturating_sub(*since) >= HOLD);
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
        let mut creations = Creations::default();
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
        let mut creations = Creations::default();
        creations.ask(ticket("a", 1));
        creations.ask(ticket("b", 1));
        creations.advance(0, |_| true);
        assert_eq!(creations.advance(HOLD - 1, |c| c == "b"), Some(ticket("a", 1)));
        assert_eq!(creations.advance(HOLD, |c| c == "b"), Some(ticket("b", 1)));
    }

    #[test]
    fn who_is_away_keeps_its_place_and_holds_nobody_up() {
        let mut creations = Creations::default();
        creations.ask(ticket("a", 1));
        creations.ask(ticket("b", 1));
        assert_eq!(creations.advance(0, |c| c == "b"), Some(ticket("b", 1)));
        creations.done(&ticket("b", 1));
        assert_eq!(creations.advance(1, |_| true), Some(ticket("a", 1)));
    }

    #[test]
    fn the_first_creation_of_a_new_process_is_not_the_one_of_the_old_process() {
        let mut creations = Creations::default();
        creations.ask(of("a", "old", 1));
        assert_eq!(creations.advance(0, |_| true), Some(of("a", "old", 1)));
        creations.ask(of("a", "new", 1));
        assert_eq!(creations.advance(1, |_| true), Some(of("a", "old", 1)));
        assert_eq!(creations.advance(HOLD, |_| true), Some(of("a", "new", 1)));
    }

    #[test]
    fn a_flood_of_questions_has_one_place() {
        let mut creations = Creations::default();
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
    fn after_a_start_nothing_is_granted_for_one_hold() {
        let mut creations = Creations::default();
        creations.pause(0);
        creations.ask(ticket("a", 1));
        assert_eq!(creations.advance(HOLD - 1, |_| true), None);
        assert_eq!(creations.advance(HOLD, |_| true), Some(ticket("a", 1)));
    }
}
