//! Watches: changes as lines of JSON, bookmarks, and their end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::call::Call;
use super::objects::Change;
use super::serve::{Inner, cut};

/// A watch sends a bookmark after this time without an event.
const BOOKMARK: Duration = Duration::from_secs(60);

/// A watch under way.
pub struct Watch {
    pub server: Arc<Inner>,
    pub call: Call,
    /// Last version whose change was looked at.
    pub seen: u64,
    pub end: Instant,
    pub versions: watch::Receiver<u64>,
    pub cuts: watch::Receiver<u64>,
}

impl Watch {
    /// The next line; `None` when its time is over.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let pause = Instant::now() + BOOKMARK;
        loop {
            // A cut comes first: what happens behind it is not delivered any more.
            if self.cuts.has_changed().unwrap_or(true) {
                return Some(Err(cut()));
            }
            self.versions.borrow_and_update();
            if let Some(line) = self.event() {
                return Some(Ok(line));
            }
            tokio::select! {
                _ = self.versions.changed() => {}
                _ = self.cuts.changed() => return Some(Err(cut())),
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep_until(pause) => return Some(Ok(self.bookmark())),
            }
        }
    }

    fn event(&mut self) -> Option<Bytes> {
        let objects = self.server.objects();
        let start = objects
            .history
            .partition_point(|change| change.version <= self.seen);
        for change in &objects.history[start..] {
            self.seen = change.version;
            if let Some(line) = event_of(&self.call, change) {
                return Some(line);
            }
        }
        None
    }

    fn bookmark(&self) -> Bytes {
        let meta = json!({ "resourceVersion": self.seen.to_string() });
        line(
            "BOOKMARK",
            &json!({ "apiVersion": "v1", "kind": "Bookmark", "metadata": meta }),
        )
    }
}

/// The event of a change, for those who watch what it is about.
fn event_of(call: &Call, change: &Change) -> Option<Bytes> {
    let namespace = &call.id.namespace;
    let about =
        change.id.resource == call.id.resource && (namespace.is_empty() || *namespace == change.id.namespace);
    let before = about && change.before.as_ref().is_some_and(|object| call.selects(object));
    let after = about && !change.deleted && call.selects(&change.after);
    let kind = match (before, after) {
        (false, false) => return None,
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
    };
    Some(line(kind, &call.view(&change.after)))
}

pub fn line(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({ "type": kind, "object": object })).into()
}
