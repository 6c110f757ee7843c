//! Measures the state of the fleet and of the hub's own files each time its metrics are asked for.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGaugeVec;
use proto::v1::LocksRequest;
use tokio::time::timeout;

use super::figures::{Counts, Figures, figures};
use super::{Metrics, State};
use crate::access::Sight;
use crate::hub::Hub;
use crate::lock::Command;

/// A hub that stops does not answer about its locks.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is measured.
pub struct Scrape {
    hub: Arc<Hub>,
    /// Series are set anew, so two readers take turns.
    turn: tokio::sync::Mutex<()>,
}

impl Scrape {
    /// Of a hub that serves.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Scrape {
        Scrape {
            hub,
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Text exposition format, as of now.
    pub async fn render(&self) -> String {
        let _turn = self.turn.lock().await;
        let ask = |reply| Command::Locks(LocksRequest::default(), Sight::EVERYTHING, reply);
        let locks = timeout(PATIENCE, self.hub.locks.ask(ask)).await;
        let locks = locks.ok().and_then(Result::ok).unwrap_or_default();
        let figures = figures(&self.hub.snapshot(), &locks);
        let Metrics { state, .. } = &self.hub.metrics;
        state.show(&figures);
        state.own.certificates.reset();
        for (name, ends) in self.hub.files.certificates() {
            // No series for what is not known.
            if let Some(ends) = ends {
                state.own.certificates.with_label_values(&[name]).set(ends / 1000);
            }
        }
        state.own.store_bytes.set(signed(self.hub.files.store_bytes()));
        state.own.store_backup.reset();
        if let Ok(Some(at)) = self.hub.store().last_copy().await {
            state
                .own
                .store_backup
                .with_label_values::<&str>(&[])
                .set(at / 1000);
        }
        state.own.paused.reset();
        if let Some(pause) = self.hub.paused() {
            state
                .own
                .paused
                .with_label_values::<&str>(&[])
                .set(pause.since / 1000);
        }
        self.hub.metrics.render()
    }
}

impl State {
    fn show(&self, figures: &Figures) {
        let version = env!("CARGO_PKG_VERSION");
        self.info.with_label_values(&[version]).set(1);
        set(&self.verdict, &figures.verdicts);
        set(&self.clusters, &figures.clusters);
        set(&self.repositories, &figures.repositories);
        set(&self.backups, &figures.backups);
        set(&self.attention, &figures.attention);
        set(&self.locks, &figures.locks);
        // A cluster that was forgotten has no series any more.
        self.cluster_stale.reset();
        for (cluster, stale) in &figures.stale {
            self.cluster_stale
                .with_label_values(&[cluster])
                .set(i64::from(*stale));
        }
        self.stored.set(signed(figures.stored_bytes));
        self.waiters.set(signed(figures.waiters));
        let wait = Duration::from_millis(figures.longest_wait);
        self.longest_wait.set(wait.as_secs_f64());
    }
}

fn set(series: &IntGaugeVec, counts: &Counts) {
    for (state, number) in counts {
        series.with_label_values(&[state]).set(signed(*number));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
