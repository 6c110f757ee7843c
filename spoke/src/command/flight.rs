//! One step of a command, on its own: it holds nothing of the desk, so that many can be under way.

use std::sync::Arc;

use proto::v1::CommandState;

use super::handler::{Handler, Lane, Order, Step, Tools};
use super::ledger::End;

/// What a step needs to know.
pub(super) struct Flight {
    pub tools: Tools,
    pub handler: Arc<dyn Handler>,
    pub order: Order,
    pub cancelled: bool,
    /// The hub does not know the command any more, and nothing was made for it.
    pub forgotten: bool,
    /// Why its handler is not asked now; it can still end by time or by a person.
    pub held: Option<String>,
}

/// Where the step has led.
pub(super) struct Landed {
    pub id: String,
    pub lane: Lane,
    pub step: Step,
    /// Something could not be asked.
    pub unavailable: bool,
    /// The handler was not asked.
    pub held: bool,
}

impl Flight {
    pub(super) async fn run(self) -> Landed {
        let step = match &self.held {
            Some(text) => Step::Waits(text.clone()),
            None => self.handler.advance(&self.tools, &self.order).await,
        };
        let unavailable = matches!(step, Step::Unavailable(_));
        let ended = match &step {
            Step::Waits(text) | Step::Unavailable(text) => self.ended(text).await,
            // Its Job waits for its turn, or for the lock.
            Step::Runs {
                begun: false, text, ..
            } => self.ended(text).await,
            Step::Runs { .. } | Step::Ends(_) => None,
        };
        Landed {
            lane: self.handler.lane(),
            step: ended.map_or(step, Step::Ends),
            unavailable,
            held: self.held.is_some(),
            id: self.order.id,
        }
    }

    /// What has not begun ends when its time is over, or when a person has taken it back.
    async fn ended(&self, text: &str) -> Option<End> {
        let now = self.tools.context.clock.since_boot();
        let expired = self.order.before.map_or(self.forgotten, |before| now >= before);
        if !expired && !self.cancelled {
            return None;
        }
        if !self.handler.withdraw(&self.tools, &self.order).await {
            return None;
        }
        Some(match self.cancelled {
            true => End::new(CommandState::Cancelled, "it had not begun"),
            false => End::new(
                CommandState::Expired,
                format!("it could not begin in time: {text}"),
            ),
        })
    }
}
