//! Waits for the ends of operations. What is waited for goes on without the one who waits.

use std::time::Duration;

use proto::v1::{CommandState, Operation, WatchOperationRequest};
use tokio::time::{Instant, sleep};

use super::show::{is_over, state, state_line};
use crate::arguments::{HubArguments, Wait};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::output::note;

/// A hub that is away for longer than this is told as a failure.
const PATIENCE: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_secs(2);

/// Waits for all ends unless that is not wanted. The worst end is the exit code.
pub async fn ends(
    hub: &HubArguments,
    client: Client,
    operations: Vec<Operation>,
    wait: &Wait,
) -> Result<u8, Failure> {
    if wait.no_wait {
        for operation in &operations {
            note(&state_line(operation));
        }
        return Ok(0);
    }
    let mut client = client;
    let mut worst = 0;
    for operation in operations {
        let ended = follow(hub, &mut client, operation).await?;
        worst = worst.max(exit(&ended));
    }
    Ok(worst)
}

/// Waits for one end.
pub async fn end(hub: &HubArguments, mut client: Client, operation: Operation) -> Result<u8, Failure> {
    let ended = follow(hub, &mut client, operation).await?;
    Ok(exit(&ended))
}

/// Waits until it is known whether an operation was taken back.
pub async fn cancelled(hub: &HubArguments, mut client: Client, operation: Operation) -> Result<u8, Failure> {
    if !is_over(&operation) && (!operation.connected || operation.state() == CommandState::Running) {
        note(&state_line(&operation));
        note(match operation.connected {
            true => "it has begun, and goes on",
            false => "its cluster is told when it is back; if it has not begun by then, it never does",
        });
        return Ok(code::FINDING);
    }
    let ended = follow(hub, &mut client, operation).await?;
    Ok(match ended.state() {
        CommandState::Cancelled => 0,
        _ => code::FINDING,
    })
}

/// Exit code of taking back what has ended, which is shown.
pub fn too_late(operation: &Operation) -> u8 {
    note(&state_line(operation));
    match operation.state() {
        CommandState::Cancelled => 0,
        _ => {
            note("it has ended: there is nothing to take back");
            code::FINDING
        }
    }
}

/// Exit code of an end.
fn exit(operation: &Operation) -> u8 {
    match operation.state() {
        CommandState::Done => 0,
        CommandState::Refused => code::FORBIDDEN,
        CommandState::Expired => code::TIMEOUT,
        _ if operation.text.starts_with("ApprovalRequired") => code::APPROVAL,
        _ => code::FINDING,
    }
}

/// Shows each change until the end.
async fn follow(hub: &HubArguments, client: &mut Client, operation: Operation) -> Result<Operation, Failure> {
    let id = operation.id.clone();
    let mut shown = String::new();
    let mut last = operation;
    let mut away: Option<Instant> = None;
    loop {
        let mut control = client.control();
        let request = WatchOperationRequest { id: id.clone() };
        let failure = match client.answer(control.watch_operation(request)).await {
            Err(failure) => failure,
            Ok(mut changes) => loop {
                match changes.message().await {
                    Ok(Some(operation)) => {
                        away = None;
                        let text = state_line(&operation);
                        if text != shown {
                            note(&text);
                            shown = text;
                        }
                        last = operation;
                        if is_over(&last) {
                            return Ok(last);
                        }
                    }
                    Ok(None) => break Failure::Hub("it ended the watch".to_owned()),
                    Err(status) => break client.broken(&status),
                }
            },
        };
        let since = *away.get_or_insert_with(Instant::now);
        let lasting = matches!(
            failure,
            Failure::Usage(_) | Failure::Forbidden(_) | Failure::Refused { .. }
        );
        if lasting || since.elapsed() > PATIENCE {
            note(&format!(
                "operation {id} goes on ({}); fleet operations wait {id}",
                state(&last)
            ));
            return Err(failure);
        }
        sleep(RETRY).await;
        if let Ok(again) = Client::connect(hub).await {
            *client = again;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_taken_back_again() {
        let ended = |state: CommandState| {
            too_late(&Operation {
                state: state.into(),
                ..Operation::default()
            })
        };
        assert_eq!(ended(CommandState::Cancelled), 0);
        assert_eq!(ended(CommandState::Done), code::FINDING);
    }

    #[test]
    fn the_exit_code_follows_from_the_end() {
        let end = |state: CommandState, text: &str| {
            exit(&Operation {
                state: state.into(),
                text: text.to_owned(),
                ..Operation::default()
            })
        };
        assert_eq!(end(CommandState::Done, ""), 0);
        assert_eq!(end(CommandState::Failed, "x"), code::FINDING);
        assert_eq!(
            end(CommandState::Failed, "ApprovalRequired: 41 % > 30 %"),
            code::APPROVAL
        );
        assert_eq!(end(CommandState::Refused, ""), code::FORBIDDEN);
        assert_eq!(end(CommandState::Expired, ""), code::TIMEOUT);
        assert_eq!(end(CommandState::Cancelled, ""), code::FINDING);
    }
}
