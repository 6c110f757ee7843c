//! Kubernetes Events, on transitions only: a bounded queue and one task that publishes. An Event that cannot be queued
//! is dropped and counted; the condition it tells of stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// How long a repeated Event is counted up instead of written anew.
const SERIES: Duration = Duration::from_secs(6 * 60);
/// Texts of which repetitions are counted at most. A recorder holds its Event, and after a burst of thousands nobody would
/// come to throw them away.
const TEXTS: usize = 128;

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

/// Recorders, one for each text. A recorder counts Events of one object and reason as a series and keeps the text of the
/// first; with a recorder of its own, another text is another Event.
struct Series<R> {
    recorders: HashMap<(Option<String>, String, String), (R, Instant)>,
}

impl<R: Clone> Series<R> {
    fn of(&mut self, queued: &Queued, now: Instant, new: impl FnOnce() -> R) -> R {
        self.recorders
            .retain(|_, (_, used)| now.duration_since(*used) < SERIES);
        let key = (
            queued.about.uid.clone(),
            queued.reason.clone(),
            queued.note.clone(),
        );
        if self.recorders.len() >= TEXTS && !self.recorders.contains_key(&key) {
            let oldest = self.recorders.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(text, _)| text.clone()) {
                self.recorders.remove(&oldest);
            }
        }
        let (recorder, used) = self.recorders.entry(key).or_insert_with(|| (new(), now));
        *used = now;
        recorder.clone()
    }
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
        let mut series = Series {
            recorders: HashMap::new(),
        };
        let mut recorder = |queued: &Queued| {
            series.of(queued, Instant::now(), || {
                Recorder::new(client.clone(), reporter.clone())
            })
        };
        let mut queue = self.queue.lock().await;
        loop {
            let queued = tokio::select! {
                queued = queue.recv() => queued,
                () = shutdown.cancelled() => break,
            };
            let Some(queued) = queued else { return };
            let publish = self.publish(recorder(&queued), &leader, queued);
            tokio::pin!(publish);
            tokio::select! {
                () = &mut publish => {}
                () = shutdown.cancelled() => {
                    // An error means that it takes too long.
                    let _ = timeout(LAST, publish).await;
                    break;
                }
            }
        }
        // What the last turns have said.
        let rest = async {
            while let Ok(queued) = queue.try_recv() {
                self.publish(recorder(&queued), &leader, queued).await;
            }
        };
        let _ = timeout(LAST, rest).await;
    }

    async fn publish(&self, recorder: Recorder, leader: &LeaderGate, queued: Queued) {
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
    fn another_text_is_another_event_and_the_same_one_a_series() {
        let mut series = Series {
            recorders: HashMap::new(),
        };
        let queued = |uid: &str, note: &str| Queued {
            about: ObjectReference {
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason: "BackupFailed".to_owned(),
            note: note.to_owned(),
        };
        let begin = Instant::now();
        let mut made = 0;
        let mut recorder = |queued: &Queued, seconds: u64| {
            series.of(queued, begin + Duration::from_secs(seconds), || {
                made += 1;
                made
            })
        };
        let first = recorder(&queued("a", "snapshot is empty"), 0);
        assert_ne!(
            recorder(&queued("a", "unable to read root certificate"), 1),
            first
        );
        assert_ne!(recorder(&queued("b", "snapshot is empty"), 1), first);
        assert_eq!(recorder(&queued("a", "snapshot is empty"), 300), first);
        assert_eq!(
            recorder(&queued("a", "snapshot is empty"), 600),
            first,
            "it was repeated meanwhile"
        );
        assert_ne!(
            recorder(&queued("a", "snapshot is empty"), 1000),
            first,
            "a series ends"
        );
    }

    #[test]
    fn a_burst_leaves_few_recorders_and_keeps_the_newest() {
        let mut series = Series {
            recorders: HashMap::new(),
        };
        let queued = |number: usize| Queued {
            about: ObjectReference {
                uid: Some(number.to_string()),
                ..ObjectReference::default()
            },
            severity: Severity::Normal,
            reason: "Reconciled".to_owned(),
            note: String::new(),
        };
        let begin = Instant::now();
        for number in 0..TEXTS * 3 {
            let now = begin + Duration::from_millis(number as u64);
            series.of(&queued(number), now, || number);
        }
        assert_eq!(series.recorders.len(), TEXTS);
        let later = begin + Duration::from_secs(1);
        assert_eq!(series.of(&queued(TEXTS * 3 - 1), later, || 0), TEXTS * 3 - 1);
        assert_eq!(series.of(&queued(TEXTS), later, || 0), 0, "the oldest went");
    }

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
