//! Every series of the spoke. Labels are closed sets, names of resources excepted, and those go with their resource.

mod backups;
mod restic;
mod series;
mod turns;
mod watches;

use prometheus::{Encoder as _, Gauge, IntCounterVec, IntGauge, Registry, TextEncoder};

use crate::world::Key;

use backups::Backups;
use restic::Runs;
use series::Series;
pub use turns::TurnMeasure;
use turns::Turns;
use watches::Watches;

/// A registry of its own, not the process's: two spokes in one test process do not meet.
pub struct Metrics {
    registry: Registry,
    turns: Turns,
    watches: Watches,
    restic: Runs,
    backups: Backups,
    service_failures: IntCounterVec,
    writes: IntCounterVec,
    events: IntCounterVec,
    /// 1 while this replica leads.
    pub leader: IntGauge,
    /// 1 while the hub is connected.
    pub link_connected: IntGauge,
    /// The hub knows this cluster by another name than the configured one.
    pub link_name_differs: IntGauge,
    /// Messages sent to the hub and received from it.
    pub link_messages: IntCounterVec,
    /// Unix time of the last connection to the hub.
    pub link_since: Gauge,
}

impl Metrics {
    /// All series registered.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let series = Series::new(&registry);
        Ok(Metrics {
            turns: Turns::new(series)?,
            watches: Watches::new(series)?,
            restic: Runs::new(series)?,
            backups: Backups::new(series)?,
            service_failures: series.counters(
                "fleet_service_failures_total",
                "Long-lived parts of the process that panicked or ended, and were started again",
                &["service"],
            )?,
            writes: series.counters(
                "fleet_api_writes_total",
                "Writes to the API server",
                &["verb", "kind", "outcome"],
            )?,
            events: series.counters(
                "fleet_events_total",
                "Kubernetes Events by what became of them",
                &["outcome"],
            )?,
            leader: series.switch("fleet_leader", "1 while this replica leads")?,
            link_connected: series.switch("fleet_link_connected", "1 while the hub is connected")?,
            link_name_differs: series.switch(
                "fleet_link_name_differs",
                "1 while the certificate names another cluster than the configured one",
            )?,
            link_messages: series.counters(
                "fleet_link_messages_total",
                "Messages on the link",
                &["direction", "type"],
            )?,
            link_since: series.gauge(
                "fleet_link_connected_since_seconds",
                "Unix time of the last connection to the hub",
            )?,
            registry,
        })
    }

    /// Text exposition format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut buffer = Vec::new();
        // Writing into memory fails only for a metric without labels registered twice, which `new` rules out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut buffer);
        String::from_utf8(buffer).unwrap_or_default()
    }

    /// Measures a turn; call `done` on what is returned.
    #[must_use]
    pub fn turn(&self, kind: &'static str) -> TurnMeasure<'_> {
        self.turns.begin(kind)
    }

    /// An actor was started (+1) or ended (-1).
    pub fn actors(&self, kind: &'static str, change: i64) {
        self.turns.actors.with_label_values(&[kind]).add(change);
    }

    /// An actor panicked.
    pub fn crash(&self, kind: &'static str) {
        self.turns.crashes.with_label_values(&[kind]).inc();
    }

    /// A long-lived part panicked or ended.
    pub fn service_failure(&self, service: &str) {
        self.service_failures.with_label_values(&[service]).inc();
    }

    /// An event of a watch.
    pub fn watch_event(&self, resource: &str) {
        self.watches.events.with_label_values(&[resource]).inc();
    }

    /// A watch broke and is started again.
    pub fn watch_error(&self, resource: &str) {
        self.watches.restarts.with_label_values(&[resource]).inc();
    }

    /// An object could not be decoded.
    pub fn undecodable(&self, resource: &str) {
        self.watches.undecodable.with_label_values(&[resource]).inc();
    }

    /// A write to the API server ended.
    pub fn write(&self, verb: &'static str, kind: &str, outcome: &'static str) {
        self.writes.with_label_values(&[verb, kind, outcome]).inc();
    }

    /// A Kubernetes Event was published, dropped or refused.
    pub fn event(&self, outcome: &'static str) {
        self.events.with_label_values(&[outcome]).inc();
    }

    /// A restic process in the manager ended.
    pub fn restic_run(&self, command: &'static str, outcome: &'static str, seconds: f64) {
        self.restic.count(command, outcome, seconds);
    }

    /// The last run of a backup. `None` leaves a series as it is.
    pub fn backup(&self, key: &Key, last_success: Option<f64>, size: Option<f64>, duration: Option<f64>) {
        self.backups.set(key, last_success, size, duration);
    }

    /// Result of the last run: 1 for the one given, 0 for the others.
    pub fn backup_result(&self, key: &Key, result: &str) {
        self.backups.set_result(key, result);
    }

    /// The backup is gone, and its series with it.
    pub fn backup_gone(&self, key: &Key) {
        self.backups.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new().unwrap();
        let key = Key::new("shop", "orders");
        metrics.backup(&key, Some(1.0), Some(2.0), Some(3.0));
        metrics.backup_result(&key, "Failed");
        assert!(metrics.render().contains("orders"));
        metrics.backup_gone(&key);
        assert!(!metrics.render().contains("orders"));
    }

    #[test]
    fn a_turn_counts_as_running_until_it_ends() {
        let metrics = Metrics::new().unwrap();
        let measure = metrics.turn("ResticBackup");
        assert!(
            metrics
                .render()
                .contains("fleet_turns_running{kind=\"ResticBackup\"} 1")
        );
        measure.done(false);
        assert!(
            metrics
                .render()
                .contains("fleet_turns_running{kind=\"ResticBackup\"} 0")
        );
    }
}
