//! `fleet activity`: what happened in the fleet, newest first, in pages or followed.

use std::collections::HashSet;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::time::from_unix_millis;
use proto::v1::{ActivityEntry, ActivityKind, ActivityRequest, ActivityResponse, ActivityResult};
use serde_json::{Value, json};

use crate::again::Again;
use crate::arguments::{Activity, Format, HubArguments, Kind};
use crate::client::Client;
use crate::document::{API_VERSION, text};
use crate::failure::Failure;
use crate::maintenance::{more, print};
use crate::output::{line, note};
use crate::render::align;
use crate::text::{ago, bytes, rfc3339};

/// Most entries of a page.
const PAGE: u32 = 200;

/// Carries the command out.
pub async fn activity(hub: &HubArguments, arguments: &Activity) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let request = ActivityRequest {
        clusters: arguments.cluster.clone(),
        kinds: arguments.kind.iter().map(|kind| wire(*kind).into()).collect(),
        since: arguments.since.map(|at| from_unix_millis(at.as_millisecond())),
        limit: arguments.limit,
        before: arguments.before.clone(),
    };
    let answer = client.activity(request.clone()).await?;
    if arguments.watch {
        return follow(hub, client, arguments.output, request, answer).await;
    }
    if answer.entries.is_empty() && matches!(arguments.output, Format::Table | Format::Wide) {
        note("nothing has happened that matches; fleet status shows how the fleet is");
        return Ok(0);
    }
    let names = answer.entries.iter().map(name);
    print(arguments.output, &list(&answer), names, || {
        table(
            &answer.entries,
            arguments.output == Format::Wide,
            Timestamp::now(),
        )
    });
    more(arguments.output, &answer.next_before);
    Ok(0)
}

/// Prints what is new, a line each, until it is interrupted. A hub that restarts is waited for.
async fn follow(
    hub: &HubArguments,
    mut client: Client,
    output: Format,
    mut request: ActivityRequest,
    first: ActivityResponse,
) -> Result<u8, Failure> {
    let mut shown = Shown::default();
    let mut again = Again::new();
    let mut answer = Ok(first);
    loop {
        match answer {
            Ok(answer) => {
                again.is_well();
                for entry in shown.news(&answer.entries) {
                    line(&followed(output, entry));
                }
                request.since = shown.since;
                request.limit = PAGE;
                again.pause().await;
            }
            Err(failure) => {
                again.failed(failure).await?;
                if let Ok(new) = Client::connect(hub).await {
                    client = new;
                }
            }
        }
        answer = client.activity(request.clone()).await;
    }
}

/// What was shown already. An entry that changes, such as a restore that ends, is shown again.
#[derive(Default)]
struct Shown {
    seen: HashSet<(String, ActivityResult)>,
    /// The oldest entry that has not ended, or the newest one.
    since: Option<prost_types::Timestamp>,
}

impl Shown {
    /// New entries, oldest first.
    fn news<'a>(&mut self, entries: &'a [ActivityEntry]) -> Vec<&'a ActivityEntry> {
        let newest = entries.iter().filter_map(|entry| entry.at);
        let newest = newest.max_by_key(|at| (at.seconds, at.nanos));
        let open = entries
            .iter()
            .filter(|entry| entry.result() == ActivityResult::Open);
        let oldest = open
            .filter_map(|entry| entry.at)
            .min_by_key(|at| (at.seconds, at.nanos));
        self.since = oldest.or(newest).or(self.since);
        let mut news: Vec<&ActivityEntry> = Vec::new();
        for entry in entries.iter().rev() {
            if self.seen.insert((name(entry), entry.result())) {
                news.push(entry);
            }
        }
        news
    }
}

fn wire(kind: Kind) -> ActivityKind {
    match kind {
        Kind::Backup => ActivityKind::Backup,
        Kind::Restore => ActivityKind::Restore,
        Kind::Maintenance => ActivityKind::Maintenance,
        Kind::Operation => ActivityKind::Operation,
        Kind::Decision => ActivityKind::Decision,
    }
}

fn kind(entry: &ActivityEntry) -> &'static str {
    match entry.kind() {
        ActivityKind::Backup => "backup",
        ActivityKind::Restore => "restore",
        ActivityKind::Maintenance => "maintenance",
        ActivityKind::Operation => "operation",
        ActivityKind::Decision => "decision",
        ActivityKind::Unspecified => "unknown",
    }
}

/// A result as people read it. What is not known is not done.
#[must_use]
pub fn result(entry: &ActivityEntry) -> &'static str {
    match entry.result() {
        ActivityResult::Failed => "FAILED",
        ActivityResult::Partial => "PARTIAL",
        ActivityResult::Open => "OPEN",
        ActivityResult::Done => "DONE",
        ActivityResult::Unspecified => "UNKNOWN",
    }
}

/// What an entry is known by, whatever became of it.
fn name(entry: &ActivityEntry) -> String {
    let at = rfc3339(entry.at.as_ref()).unwrap_or_default();
    let parts = [
        at.as_str(),
        kind(entry),
        &entry.cluster,
        &entry.subject,
        &entry.what,
        &entry.id,
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.map(cleaned).collect::<Vec<_>>().join(" ")
}

/// A page as JSON.
#[must_use]
pub fn list(answer: &ActivityResponse) -> Value {
    let items: Vec<Value> = answer.entries.iter().map(document).collect();
    json!({
        "apiVersion": API_VERSION, "kind": "ActivityList", "asOf": rfc3339(answer.as_of.as_ref()),
        "nextBefore": text(&answer.next_before), "items": items,
    })
}

/// One entry as JSON.
#[must_use]
pub fn document(entry: &ActivityEntry) -> Value {
    json!({
        "kind": kind(entry), "at": rfc3339(entry.at.as_ref()), "began": rfc3339(entry.began.as_ref()),
        "ended": rfc3339(entry.ended.as_ref()), "cluster": text(&entry.cluster), "subject": entry.subject, "what": entry.what,
        "result": result(entry), "text": text(&entry.text), "who": text(&entry.who), "resticID": text(&entry.restic_id),
        "id": text(&entry.id), "bytesAdded": entry.bytes_added,
    })
}

fn cells(entry: &ActivityEntry, wide: bool, at: String) -> Vec<String> {
    let mut cells = vec![
        at,
        entry.cluster.clone(),
        entry.what.clone(),
        entry.subject.clone(),
        result(entry).to_owned(),
        entry.who.clone(),
    ];
    if wide {
        let added = if entry.bytes_added == 0 {
            "-".to_owned()
        } else {
            bytes(entry.bytes_added)
        };
        cells.extend([entry.id.clone(), added]);
    }
    cells.push(entry.text.clone());
    cells
}

fn table(entries: &[ActivityEntry], wide: bool, now: Timestamp) -> String {
    let mut header = vec!["WHEN", "CLUSTER", "WHAT", "SUBJECT", "RESULT", "WHO"];
    header.extend(if wide { &["ID", "ADDED"][..] } else { &[] });
    header.push("TEXT");
    let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    lines.extend(
        entries
            .iter()
            .map(|entry| cells(entry, wide, ago(entry.at.as_ref(), now))),
    );
    align(&lines)
}

/// One line of what is followed.
fn followed(output: Format, entry: &ActivityEntry) -> String {
    match output {
        Format::Json | Format::Yaml => document(entry).to_string(),
        Format::Name => name(entry),
        Format::Table | Format::Wide => {
            let at = rfc3339(entry.at.as_ref()).unwrap_or_default();
            let cells = cells(entry, output == Format::Wide, at).into_iter();
            let cells: Vec<String> = cells
                .filter(|cell| !cell.is_empty())
                .map(|cell| cleaned(&cell))
                .collect();
            cells.join("  ")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(seconds: i64, subject: &str, result: ActivityResult) -> ActivityEntry {
        ActivityEntry {
            kind: ActivityKind::Restore.into(),
            at: Some(proto::time::from_unix(seconds)),
            subject: subject.to_owned(),
            what: "restore".to_owned(),
            result: result.into(),
            ..ActivityEntry::default()
        }
    }

    #[test]
    fn each_change_is_shown_once_and_the_oldest_that_runs_is_asked_for_again() {
        let mut shown = Shown::default();
        let first = [
            entry(30, "c", ActivityResult::Done),
            entry(20, "b", ActivityResult::Open),
            entry(10, "a", ActivityResult::Done),
        ];
        let names = |news: Vec<&ActivityEntry>| news.iter().map(|e| e.subject.clone()).collect::<Vec<_>>();
        assert_eq!(names(shown.news(&first)), ["a", "b", "c"]);
        assert_eq!(shown.since.unwrap().seconds, 20);
        assert!(shown.news(&first).is_empty());
        let later = [
            entry(40, "d", ActivityResult::Done),
            entry(20, "b", ActivityResult::Failed),
        ];
        assert_eq!(names(shown.news(&later)), ["b", "d"]);
        assert_eq!(shown.since.unwrap().seconds, 40);
        assert!(shown.news(&[]).is_empty());
        assert_eq!(shown.since.unwrap().seconds, 40);
    }

    #[test]
    fn what_is_not_known_is_not_done() {
        assert_eq!(result(&ActivityEntry::default()), "UNKNOWN");
        assert_eq!(kind(&ActivityEntry::default()), "unknown");
    }
}
