//! Refusals on their way to the audit: one entry a minute for each sender and RPC, however often it tries.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::principal::Principal;
use crate::Millis;
use crate::store::{HubStore, StoreError, StoredDecision};

/// Refusals that wait to be written; beyond that they are only counted.
const WAITING: usize = 256;
/// The same refusal is recorded this often, in milliseconds.
const QUIET: Millis = 60_000;
/// Senders and RPCs that are remembered for that.
const REMEMBERED: usize = 10_000;

/// One refusal.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub at: Millis,
    pub who: String,
    pub path: String,
    pub why: String,
}

/// The way to the task that records refusals.
#[derive(Clone)]
pub struct Refusals(mpsc::Sender<Refusal>);

impl Refusals {
    /// The way, and its other end.
    #[must_use]
    pub fn new() -> (Refusals, mpsc::Receiver<Refusal>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Refusals(sender), receiver)
    }

    /// Has a refusal recorded.
    pub fn note(&self, refusal: Refusal) {
        // When too many wait, one more shows nothing new.
        let _ = self.0.try_send(refusal);
    }
}

/// Name of a sender in the audit.
#[must_use]
pub fn name(principal: &Principal) -> String {
    match principal {
        Principal::Spoke { cluster } => format!("spoke {cluster}"),
        Principal::Person(person) => person.name.to_string(),
        Principal::Anyone => "nobody".to_owned(),
    }
}

/// Which refusals were recorded lately.
#[derive(Default)]
struct Recent(HashMap<(String, String), Millis>);

impl Recent {
    fn is_new(&mut self, refusal: &Refusal) -> bool {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| refusal.at.saturating_sub(*at) < QUIET);
        }
        if self.0.len() >= REMEMBERED {
            return false;
        }
        let key = (refusal.who.clone(), refusal.path.clone());
        let last = self.0.get(&key);
        if last.is_some_and(|last| refusal.at.saturating_sub(*last) < QUIET) {
            return false;
        }
        self.0.insert(key, refusal.at);
        true
    }
}

/// Records refusals until `stop`.
///
/// # Errors
/// When another process has taken the store over.
pub async fn record(
    store: Arc<dyn HubStore>,
    mut refusals: mpsc::Receiver<Refusal>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut recent = Recent::default();
    loop {
        let refusal = tokio::select! {
            refusal = refusals.recv() => refusal,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(refusal) = refusal else {
            stop.cancelled().await;
            return Ok(());
        };
        if !recent.is_new(&refusal) {
            continue;
        }
        let decision = StoredDecision {
            at: refusal.at,
            who: refusal.who,
            what: "refused".to_owned(),
            subject: refusal.path,
            after: refusal.why,
            ..StoredDecision::default()
        };
        match store.decide(decision).await {
            Err(fenced) if fenced.is_fenced() => return Err(fenced),
            Err(error) => warn!(%error, "a refusal could not be recorded"),
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_recorded_once_a_minute() {
        let refusal = |at, who: &str, path: &str| Refusal {
            at,
            who: who.to_owned(),
            path: path.to_owned(),
            why: String::new(),
        };
        let mut recent = Recent::default();
        assert!(recent.is_new(&refusal(0, "ann", "/a")));
        assert!(!recent.is_new(&refusal(QUIET - 1, "ann", "/a")));
        assert!(recent.is_new(&refusal(1, "bob", "/a")) && recent.is_new(&refusal(1, "ann", "/b")));
        assert!(recent.is_new(&refusal(QUIET, "ann", "/a")));
    }
}
