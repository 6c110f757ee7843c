//! Operations as people see them: one, a page of them, and the changes of one.

use std::collections::HashSet;
use std::sync::Arc;

use proto::time::from_unix_millis;
use proto::v1::{CommandState, ListOperationsRequest, ListOperationsResponse, Operation};
use tokio::sync::mpsc;
use tonic::Status;

use crate::access::{self, Person, Sight, Verb};
use crate::commands::{Record, State};
use crate::hub::Hub;
use crate::watch::ended;
use crate::{Millis, now};

/// Operations of one page.
const PAGE: u32 = 200;
/// Pages of the store that are read at most for one page of what a person sees.
const PAGES: usize = 50;
/// A cluster that is connected and has not answered for this long is not taken for one that is about to.
const UNANSWERED: Millis = 60_000;

/// The one operation that is meant.
pub(super) async fn find(hub: &Hub, id: &str, person: &Person) -> Result<Record, Status> {
    let found = hub.store().commands_named(id).await;
    let mut found = found.map_err(|error| Status::unavailable(error.to_string()))?;
    let sight = person.sight(Verb::See);
    found.retain(|record| sees(&sight, record));
    let exact = found.iter().position(|record| record.id == id);
    match (exact, found.len()) {
        (Some(at), _) => Ok(found.swap_remove(at)),
        (None, 1) => Ok(found.swap_remove(0)),
        (None, 0) => Err(Status::not_found(format!(
            "there is no operation {id:?}; `fleet operations list` shows them"
        ))),
        (None, _) => Err(Status::invalid_argument(format!(
            "several operations fit {id:?}; write more of the id"
        ))),
    }
}

/// A page of the operations that are seen, newest first.
///
/// # Errors
/// InvalidArgument for a page token that is none, Unavailable when the store cannot be read.
pub(super) async fn page(
    hub: &Hub,
    sight: &Sight,
    request: ListOperationsRequest,
) -> Result<ListOperationsResponse, Status> {
    let ListOperationsRequest {
        clusters,
        open,
        limit,
        before,
    } = request;
    let limit = if limit == 0 { PAGE } else { limit.min(PAGE) };
    let (mut before, mut seen, mut more) = (cursor(&before)?, Vec::new(), true);
    for _ in 0..PAGES {
        let room = limit.saturating_sub(u32::try_from(seen.len()).unwrap_or(limit));
        if room == 0 || !more {
            break;
        }
        let found = hub
            .store()
            .commands(clusters.clone(), open, room, before.clone())
            .await;
        let found = found.map_err(|error| Status::unavailable(error.to_string()))?;
        more = u32::try_from(found.len()).is_ok_and(|count| count == room);
        before = found
            .last()
            .map(|last| (last.created, last.id.clone()))
            .or(before);
        seen.extend(found.into_iter().filter(|record| sees(sight, record)));
    }
    let known = |cluster: &str| {
        sight.reaches_cluster(cluster) && hub.read(|inventory| inventory.member(cluster).is_some())
    };
    if seen.is_empty()
        && let Some(wrong) = clusters.iter().find(|cluster| !known(cluster))
    {
        return Err(Status::not_found(format!(
            "there is no cluster {wrong:?}; `fleet clusters` lists them"
        )));
    }
    let connected = hub.commands.connected().await;
    let next = before.filter(|_| more);
    Ok(ListOperationsResponse {
        as_of: Some(from_unix_millis(now())),
        next_page: next.map_or_else(String::new, |(created, id)| format!("{created}.{id}")),
        operations: seen.iter().map(|record| operation(record, &connected)).collect(),
    })
}

/// Whether an operation is in a scope.
pub(super) fn sees(sight: &Sight, record: &Record) -> bool {
    let names = [record.restic_id.as_str(), record.repository.as_str()];
    sight.takes(&record.cluster, record.namespace(), &names)
}

/// The right that an operation needs.
pub(super) fn verb_of(record: &Record) -> Verb {
    match record.what.as_str() {
        "create restore" => Verb::Restore,
        _ => Verb::Run,
    }
}

/// An operation as people see it.
pub(super) fn operation(record: &Record, connected: &HashSet<Arc<str>>) -> Operation {
    let connected = connected.contains(record.cluster.as_str());
    let text = match record.state {
        State::Waiting => format!(
            "cluster {} is not connected; it is sent when it is back",
            record.cluster
        ),
        State::Sent if !connected && record.text.is_empty() => format!(
            "cluster {} is not connected; whether it has received this is known when it is back",
            record.cluster
        ),
        State::Sent if record.text.is_empty() && now().saturating_sub(record.changed) > UNANSWERED => {
            format!(
                "cluster {} is connected and does not answer; an operator of a version without commands has to be updated",
                record.cluster
            )
        }
        _ => record.text.clone(),
    };
    Operation {
        id: record.id.clone(),
        cluster: record.cluster.clone(),
        what: record.what.clone(),
        subject: record.subject.clone(),
        who: record.who.clone(),
        created: Some(from_unix_millis(record.created)),
        expires: Some(from_unix_millis(record.expires)),
        state: state(record.state).into(),
        text,
        object: record.object.clone(),
        changed: Some(from_unix_millis(record.changed)),
        ended: record.ended.map(from_unix_millis),
        cancelled_by: record.cancelled_by.clone(),
        connected,
    }
}

fn state(state: State) -> CommandState {
    match state {
        State::Waiting => CommandState::Waiting,
        State::Sent => CommandState::Sent,
        State::Accepted => CommandState::Accepted,
        State::Running => CommandState::Running,
        State::Done => CommandState::Done,
        State::Failed => CommandState::Failed,
        State::Refused => CommandState::Refused,
        State::Expired => CommandState::Expired,
        State::Cancelled => CommandState::Cancelled,
    }
}

/// Where the next page begins.
fn cursor(text: &str) -> Result<Option<(Millis, String)>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts = text.split_once('.');
    let parts = parts.and_then(|(created, id)| Some((created.parse().ok()?, id.to_owned())));
    parts
        .map(Some)
        .ok_or_else(|| Status::invalid_argument("the page token is none that the hub has given"))
}

type Shown = mpsc::Sender<Result<Operation, Status>>;

/// The operation, if the person may still see it.
async fn visible(hub: &Hub, id: &str, person: &Person) -> Result<Record, Status> {
    let found = hub.store().command(id).await;
    let found = found.map_err(|error| Status::unavailable(error.to_string()))?;
    let record = found.ok_or_else(|| Status::not_found("the operation was removed"))?;
    let person = hub.authority.again(person, now())?;
    if sees(&person.sight(Verb::See), &record) {
        Ok(record)
    } else {
        let what = format!("{}/{}", record.cluster, record.subject);
        Err(access::out_of_scope(&person, Verb::See, &what))
    }
}

/// Sends an operation when it looks different, until it has ended, its reader has gone, or may not see it any more.
pub(super) async fn watch(
    hub: &Hub,
    id: &str,
    person: &Person,
    sender: &Shown,
) -> Result<(), mpsc::error::SendError<Result<Operation, Status>>> {
    let mut changes = hub.commands.changes();
    let mut rights = hub.authority.changes();
    let mut shown = None;
    loop {
        changes.mark_unchanged();
        rights.mark_unchanged();
        let record = match visible(hub, id, person).await {
            Ok(record) => record,
            Err(status) => return sender.send(Err(status)).await,
        };
        let seen = operation(&record, &hub.commands.connected().await);
        if shown.as_ref() != Some(&seen) {
            sender.send(Ok(seen.clone())).await?;
            shown = Some(seen);
        }
        if record.state.is_end() {
            return Ok(());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            changed = rights.changed() => if changed.is_err() { return Ok(()) },
            () = ended(person.until.map(|until| until.saturating_sub(now()))) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_as_it_was_written() {
        assert_eq!(cursor("").unwrap(), None);
        assert_eq!(cursor("17.abc").unwrap(), Some((17, "abc".to_owned())));
        assert!(cursor("abc").is_err() && cursor("x.abc").is_err());
    }

    #[test]
    fn what_waits_for_a_cluster_says_so() {
        let record = |state| Record {
            cluster: "a".to_owned(),
            state,
            ..Record::default()
        };
        let near: HashSet<Arc<str>> = HashSet::from(["a".into()]);
        let text = |state, connected: &HashSet<Arc<str>>| operation(&record(state), connected).text;
        let far = HashSet::new();
        assert!(text(State::Waiting, &far).contains("a is not connected"));
        assert!(text(State::Sent, &far).contains("whether it has received"));
        assert!(text(State::Sent, &near).contains("does not answer"));
        let just_now = Record {
            changed: now(),
            ..record(State::Sent)
        };
        assert_eq!(operation(&just_now, &near).text, "");
    }
}
