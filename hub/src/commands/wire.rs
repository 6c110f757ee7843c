//! Commands and states as they go over the link.

use prost::Message as _;
use proto::v1::hub_message::Body;
use proto::v1::{Command, CommandBody, CommandState, HubMessage};

use super::{Record, State};
use crate::Millis;

/// A message of a session.
pub(super) fn message(body: Body) -> HubMessage {
    HubMessage { body: Some(body) }
}

/// A command as its spoke gets it.
pub(super) fn command(record: &Record, now: Millis) -> Command {
    Command {
        id: record.id.clone(),
        begin_within_ms: record.left(now),
        // What was kept was encoded here.
        body: CommandBody::decode(record.body.as_slice()).ok(),
        who: record.who.clone(),
        cancel: !record.cancelled_by.is_empty(),
    }
}

/// A state as spokes report it; `None` for what only the hub decides, and for one of a later version.
pub(super) fn reported(state: CommandState) -> Option<State> {
    Some(match state {
        CommandState::Accepted => State::Accepted,
        CommandState::Running => State::Running,
        CommandState::Done => State::Done,
        CommandState::Failed => State::Failed,
        CommandState::Refused => State::Refused,
        CommandState::Expired => State::Expired,
        CommandState::Cancelled => State::Cancelled,
        CommandState::Unspecified | CommandState::Waiting | CommandState::Sent => return None,
    })
}
