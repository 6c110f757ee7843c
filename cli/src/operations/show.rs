//! Operations as text and as documents. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{CommandState, ListOperationsResponse, Operation};
use serde_json::{Value, json};

use crate::document::API_VERSION;
use crate::render::align;
use crate::text::{ago, rfc3339, until};

/// A state as people read it.
#[must_use]
pub fn state(operation: &Operation) -> &'static str {
    match operation.state() {
        CommandState::Waiting => "WAITING",
        CommandState::Sent => "SENT",
        CommandState::Accepted => "ACCEPTED",
        CommandState::Running => "RUNNING",
        CommandState::Done => "DONE",
        CommandState::Failed => "FAILED",
        CommandState::Refused => "REFUSED",
        CommandState::Expired => "EXPIRED",
        CommandState::Cancelled => "CANCELLED",
        CommandState::Unspecified => "UNKNOWN",
    }
}

/// Whether nothing changes any more.
#[must_use]
pub fn is_over(operation: &Operation) -> bool {
    operation.ended.is_some()
}

/// `fleet operations list`
#[must_use]
pub fn table(operations: &[Operation], wide: bool, now: Timestamp) -> String {
    let mut heading = vec![
        "ID", "CLUSTER", "WHAT", "SUBJECT", "STATE", "AGE", "EXPIRES", "WHO",
    ];
    heading.extend(wide.then_some("OBJECT"));
    heading.push("WHY");
    let mut lines = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for operation in operations {
        let expires = match operation.state() {
            CommandState::Waiting | CommandState::Sent | CommandState::Accepted => {
                until(operation.expires.as_ref(), now)
            }
            _ => "-".to_owned(),
        };
        let mut cells = vec![
            operation.id.clone(),
            operation.cluster.clone(),
            operation.what.clone(),
            operation.subject.clone(),
            state(operation).to_owned(),
            ago(operation.created.as_ref(), now),
            expires,
            operation.who.clone(),
        ];
        cells.extend(wide.then(|| operation.object.clone()));
        cells.push(operation.text.clone());
        lines.push(cells);
    }
    align(&lines)
}

/// `fleet operations show`
#[must_use]
pub fn one(operation: &Operation, now: Timestamp) -> String {
    let mut text = format!(
        "{}  {} {}/{}  {}\n",
        operation.id,
        operation.what,
        operation.cluster,
        operation.subject,
        state(operation)
    );
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<10}{value}");
        }
    };
    add("why", &operation.text);
    add("object", &operation.object);
    add(
        "asked by",
        &format!("{}, {}", operation.who, ago(operation.created.as_ref(), now)),
    );
    if !is_over(operation) {
        add(
            "begins",
            &format!(
                "before {}",
                rfc3339(operation.expires.as_ref()).unwrap_or_default()
            ),
        );
    }
    if operation.ended.is_some() {
        add("ended", &ago(operation.ended.as_ref(), now));
    }
    if !operation.cancelled_by.is_empty() {
        let came_late = is_over(operation) && operation.state() != CommandState::Cancelled;
        let late = if came_late { "; too late" } else { "" };
        add("cancelled", &format!("by {}{late}", operation.cancelled_by));
    }
    cleaned_lines(&text)
}

/// Text of clusters: nothing in it may move the cursor.
fn cleaned_lines(text: &str) -> String {
    text.lines().map(|line| cleaned(line) + "\n").collect()
}

/// One line for people who wait.
#[must_use]
pub fn state_line(operation: &Operation) -> String {
    let text = match operation.text.as_str() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    cleaned(&format!(
        "{} {}/{} {}{text}",
        operation.what,
        operation.cluster,
        operation.subject,
        state(operation)
    ))
}

/// An operation as a document.
#[must_use]
pub fn document(operation: &Operation) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Operation",
        "id": operation.id,
        "cluster": operation.cluster,
        "what": operation.what,
        "subject": operation.subject,
        "state": state(operation).to_lowercase(),
        "text": operation.text,
        "object": operation.object,
        "who": operation.who,
        "created": rfc3339(operation.created.as_ref()),
        "expires": rfc3339(operation.expires.as_ref()),
        "changed": rfc3339(operation.changed.as_ref()),
        "ended": rfc3339(operation.ended.as_ref()),
        "cancelledBy": operation.cancelled_by,
        "connected": operation.connected,
    })
}

/// A page as a document.
#[must_use]
pub fn list(answer: &ListOperationsResponse) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "OperationList",
        "asOf": rfc3339(answer.as_of.as_ref()),
        "nextBefore": answer.next_page,
        "items": answer.operations.iter().map(document).collect::<Vec<_>>(),
    })
}
