//! One creation of a repository at a time in the whole fleet. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Millis;

/// A spoke ends a creation within this time, or restic's process with it; only then is a silent holder passed over.
const HOLD: Millis = 150_000;

/// Who creates, and who waits.
#[derive(Debug, Default)]
pub struct Creations {
    holder: Option<(Ticket, Millis)>,
    waiting: VecDeque<Ticket>,
}

/// A creation of a cluster. Ids of different clusters may be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub cluster: Arc<str>,
    pub id: u64,
}

impl Creations {
    /// A spoke asks, perhaps again.
    pub fn ask(&mut self, ticket: Ticket) {
        let holds = self.holder.as_ref().is_some_and(|(holder, _)| *holder == ticket);
        if !holds && !self.waiting.contains(&ticket) {
            self.waiting.push_back(ticket);
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

    fn ticket(cluster: &str, id: u64) -> Ticket {
        Ticket {
            cluster: cluster.into(),
            id,
        }
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
}
