//! `--watch` of lists: the rows as they are, then each change. It goes on when the hub restarts.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use jiff::Timestamp;
use proto::v1::{Collection, Filter, ListRequest, Row, WatchEvent, WatchRequest, watch_event::Body};
use serde_json::json;
use tokio::time::timeout;

use crate::again::Again;
use crate::arguments::{Format, HubArguments, List};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, line, note};
use crate::run::{clear, yaml};
use crate::{document, render, sort};

/// The hub sends a heartbeat every 10 s: three missed, and nothing on the screen can be trusted.
const SILENCE: Duration = Duration::from_secs(30);

/// Watches until it is interrupted.
pub async fn watch(
    hub: &HubArguments,
    list: &List,
    collection: Collection,
    filter: Filter,
) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    // The hub knows which columns there are. A watch comes unsorted.
    let sorted = ListRequest {
        collection: collection.into(),
        filter: Some(filter.clone()),
        sort: list.sort.clone(),
        page_size: 1,
        ..ListRequest::default()
    };
    client.page(sorted).await?;
    let mut request = WatchRequest {
        collection: collection.into(),
        filter: Some(filter),
        ..WatchRequest::default()
    };
    let mut again = Again::new();
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    loop {
        let failure = match follow(&mut client, list, (&mut request, &mut rows), &mut again).await {
            Err(failure) => failure,
            Ok(()) => Failure::Hub("it ended the watch".to_owned()),
        };
        again.failed(failure).await?;
        if let Ok(new) = Client::connect(hub).await {
            client = new;
        }
    }
}

/// One watch, up to its end. The next one goes on where it ended, if the hub can.
async fn follow(
    client: &mut Client,
    list: &List,
    (request, rows): (&mut WatchRequest, &mut BTreeMap<String, Row>),
    again: &mut Again,
) -> Result<(), Failure> {
    if request.after == 0 {
        rows.clear();
    }
    let mut events = client.watch(request.clone()).await?;
    let mut complete = false;
    loop {
        let event = timeout(SILENCE, events.message()).await;
        let event = event.map_err(|_| Failure::Hub("no heartbeat for 30 seconds".to_owned()))?;
        let Some(event) = event.map_err(|status| client.broken(&status))? else {
            return Ok(());
        };
        if list.output.output == Format::Json {
            line(&event_line(&event).to_string());
        }
        let changed = match event.body {
            Some(Body::Upsert(row)) => {
                rows.insert(row.key.clone(), row.clone());
                Change::Row(Box::new(row))
            }
            Some(Body::Removed(key)) => {
                rows.remove(&key);
                Change::Removed(key)
            }
            Some(Body::Bookmark(bookmark)) => {
                complete = true;
                // A hub of an earlier version has no views, and cannot go on.
                if !bookmark.view.is_empty() {
                    (request.after, request.view) = (event.revision, bookmark.view);
                }
                again.is_well();
                Change::All
            }
            Some(Body::Begin(_)) => {
                rows.clear();
                continue;
            }
            Some(Body::Heartbeat(_)) if complete && request.after > 0 => {
                request.after = event.revision;
                continue;
            }
            Some(Body::Heartbeat(_)) | None => continue,
        };
        if complete && list.output.output != Format::Json {
            show(list, rows, &changed);
        }
    }
}

/// What has come.
enum Change {
    All,
    Row(Box<Row>),
    Removed(String),
}

/// On a terminal the whole table anew; in a pipe what has changed.
fn show(list: &List, rows: &BTreeMap<String, Row>, change: &Change) {
    let format = list.output.output;
    let wide = format == Format::Wide;
    let now = Timestamp::now();
    let table = matches!(format, Format::Table | Format::Wide);
    let mut changed: Vec<Row> = match change {
        Change::Row(row) if !(table && std::io::stdout().is_terminal()) => vec![(**row).clone()],
        Change::Removed(key) if !(table && std::io::stdout().is_terminal()) => {
            // In JSON it is an event of its own.
            note(&format!("{} was removed", proto::text::cleaned(key)));
            return;
        }
        _ => rows.values().cloned().collect(),
    };
    sort::sort(&mut changed, &list.sort);
    match format {
        Format::Yaml => changed.iter().for_each(|row| {
            output::print(&format!("---\n{}", yaml(&document::row(row))));
        }),
        Format::Name => changed.iter().for_each(|row| line(&row.key)),
        _ => {
            let text = render::table(&changed, wide, now);
            match change {
                Change::Row(_) if !std::io::stdout().is_terminal() => {
                    text.lines().skip(1).for_each(line);
                }
                _ => {
                    clear(&list.output);
                    output::table(&output::on_one_screen(&text), wide);
                }
            }
        }
    }
}

fn event_line(event: &WatchEvent) -> serde_json::Value {
    let (type_, row) = match &event.body {
        Some(Body::Upsert(row)) => ("UPSERT", document::row(row)),
        Some(Body::Removed(key)) => ("REMOVED", json!({ "key": key })),
        Some(Body::Bookmark(_)) => ("BOOKMARK", serde_json::Value::Null),
        Some(Body::Heartbeat(_)) => ("HEARTBEAT", serde_json::Value::Null),
        Some(Body::Begin(_)) => ("BEGIN", serde_json::Value::Null),
        None => ("UNKNOWN", serde_json::Value::Null),
    };
    let as_of = crate::text::rfc3339(event.as_of.as_ref());
    json!({ "type": type_, "revision": event.revision, "asOf": as_of, "object": row })
}
