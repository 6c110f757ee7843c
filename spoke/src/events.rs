//! Kubernetes Events, on transitions only: a bounded queue and one task that publishes. An Event that cannot be queued
//! is dropped and counted; the condition it tells of stays.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::leader::LeaderGate;
use crate::metrics::Metrics;
use crate::world::Key;

/// Transitions of a thousand resources at once fit; more are not read by anybody.
const QUEUE: usize = 1024;
/// The API server refuses longer notes.
const NOTE_MAX: usize = 1024;
const DEADLINE: Duration = Duration::from_secs(10);
/// For what is queued when the spoke stops.
const LAST: Duration = Duration::from_secs(2);

/// Normal or Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

struct Queued {
    about: ObjectReference,
    severity: Severity,
    reason: String,
    note: String,
}

/// Where actors put Events.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Queued>,
    metrics: Arc<Metrics>,
}

/// The part behind [`Events`].
pub struct Publisher {
    /// Outlives a failure of the part.
    queue: Mutex<mpsc::Receiver<Queued>>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// A queue and its publisher.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Events, Publisher) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (
            Events {
                queue: sender,
                metrics: metrics.clone(),
            },
            Publisher {
                queue: Mutex::new(receiver),
                metrics,
            },
        )
    }

    /// Queues an Event about one of our resources. `kind` as in the API, such as ResticBackup.
    pub fn publish(&self, kind: &str, key: &Key, uid: &str, severity: Severity, reason: &str, note: &str) {
        let about = ObjectReference {
            api_version: Some(format!("{}/{}", crds::GROUP, crds::VERSION)),
            kind: Some(kind.to_owned()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let note = note.chars().take(NOTE_MAX).collect();
        let queued = Queued {
            about,
            severity,
            reason: reason.to_owned(),
            note,
        };
        if self.queue.try_send(queued).is_err() {
            self.metrics.event("dropped");
        }
    }
}

impl Publisher {
    /// Publishes until shutdown, and then what is queued still, within a limit.
    pub async fn run(
        &self,
        client: Client,
        leader: LeaderGate,
        instance: String,
        shutdown: CancellationToken,
    ) {
        let reporter = Reporter {
            controller: "restic-fleet-spoke".to_owned(),
            instance: Some(instance),
        };
        let recorder = Recorder::new(client, reporter);
        let mut queue = self.queue.lock().await;
        loop {
            let queued = tokio::select! {
                queued = queue.recv() => queued,
                () = shutdown.cancelled() => break,
            };
            let Some(queued) = queued else { return };
            tokio::select! {
                () = self.publish(&recorder, &leader, queued) => {}
                () = shutdown.cancelled() => break,
            }
        }
        // What the last turns have said.
        let rest = async {
            while let Ok(queued) = queue.try_recv() {
                self.publish(&recorder, &leader, queued).await;
            }
        };
        let _ = timeout(LAST, rest).await;
    }

    async fn publish(&self, recorder: &Recorder, leader: &LeaderGate, queued: Queued) {
        if !leader.is_leader() {
            return;
        }
        let event = Event {
            type_: match queued.severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: queued.reason.clone(),
            note: Some(queued.note),
            action: queued.reason,
            secondary: None,
        };
        match timeout(DEADLINE, recorder.publish(&event, &queued.about)).await {
            Ok(Ok(_)) => self.metrics.event("published"),
            Ok(Err(error)) => {
                self.metrics.event("refused");
                debug!(%error, "an Event was refused");
            }
            Err(_) => self.metrics.event("refused"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (events, _publisher) = Events::new(metrics.clone());
        for _ in 0..QUEUE + 5 {
            events.publish(
                "ResticBackup",
                &Key::new("ns", "a"),
                "uid",
                Severity::Normal,
                "Reason",
                "note",
            );
        }
        assert!(
            metrics
                .render()
                .contains("fleet_events_total{outcome=\"dropped\"} 5")
        );
    }
}
