//! Every series of the spoke. Labels are closed sets, names of resources excepted, and those go with their resource.

use std::time::Instant;

use prometheus::{
    Encoder as _, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::world::Key;

/// A registry of its own, not the process's: two spokes in one test process do not meet.
pub struct Metrics {
    registry: Registry,
    turns: IntCounterVec,
    turn_seconds: HistogramVec,
    actors: IntGaugeVec,
    crashes: IntCounterVec,
    service_failures: IntCounterVec,
    queue: IntGaugeVec,
    watch_events: IntCounterVec,
    watch_restarts: IntCounterVec,
    undecodable: IntCounterVec,
    writes: IntCounterVec,
    events_dropped: IntCounterVec,
    restic: IntCounterVec,
    restic_seconds: HistogramVec,
    backup_success: GaugeVec,
    backup_size: GaugeVec,
    backup_duration: GaugeVec,
    backup_result: IntGaugeVec,
    notifications: IntCounterVec,
    /// Notifications that wait or are under way.
    pub notifications_queued: IntGauge,
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

/// Buckets from a quick turn to a hanging one, in seconds.
const TURN_BUCKETS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];
/// Buckets of restic runs in the manager, in seconds.
const RESTIC_BUCKETS: &[f64] = &[0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0];

impl Metrics {
    /// All series registered.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let series = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(series.clone()))?;
            Ok(series)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<GaugeVec, prometheus::Error> {
            let series = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(series.clone()))?;
            Ok(series)
        };
        let int_gauges =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
                let series = IntGaugeVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(series.clone()))?;
                Ok(series)
            };
        let int_gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let series = IntGauge::new(name, help)?;
            registry.register(Box::new(series.clone()))?;
            Ok(series)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let series = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
            registry.register(Box::new(series.clone()))?;
            Ok::<_, prometheus::Error>(series)
        };
        let link_since = Gauge::new(
            "fleet_link_connected_since_seconds",
            "Unix time of the last connection to the hub",
        )?;
        registry.register(Box::new(link_since.clone()))?;
        let resource = &["namespace", "name"];
        Ok(Metrics {
            turns: counter("fleet_turns_total", "Turns taken by actors", &["kind", "outcome"])?,
            turn_seconds: histogram(
                "fleet_turn_duration_seconds",
                "Duration of turns",
                TURN_BUCKETS,
                &["kind"],
            )?,
            actors: int_gauges("fleet_actors", "Running actors", &["kind"])?,
            crashes: counter(
                "fleet_actor_crashes_total",
                "Actors that panicked and were restarted",
                &["kind"],
            )?,
            service_failures: counter(
                "fleet_service_failures_total",
                "Long-lived parts of the process that panicked or ended, and were started again",
                &["service"],
            )?,
            queue: int_gauges("fleet_turns_running", "Turns that run now", &["kind"])?,
            watch_events: counter("fleet_watch_events_total", "Events of watches", &["resource"])?,
            watch_restarts: counter("fleet_watch_errors_total", "Errors of watches", &["resource"])?,
            undecodable: counter(
                "fleet_undecodable_objects_total",
                "Objects that could not be decoded",
                &["resource"],
            )?,
            writes: counter(
                "fleet_api_writes_total",
                "Writes to the API server",
                &["verb", "kind", "outcome"],
            )?,
            events_dropped: counter(
                "fleet_events_total",
                "Kubernetes Events by what became of them",
                &["outcome"],
            )?,
            restic: counter(
                "fleet_restic_runs_total",
                "Runs of restic in the manager",
                &["command", "outcome"],
            )?,
            restic_seconds: histogram(
                "fleet_restic_run_duration_seconds",
                "Duration of restic runs in the manager",
                RESTIC_BUCKETS,
                &["command"],
            )?,
            backup_success: gauges(
                "fleet_backup_last_success_timestamp_seconds",
                "Unix time of the last backup that succeeded",
                resource,
            )?,
            backup_size: gauges(
                "fleet_backup_last_size_bytes",
                "Bytes read by the last backup",
                resource,
            )?,
            backup_duration: gauges(
                "fleet_backup_last_duration_seconds",
                "Duration of the last backup",
                resource,
            )?,
            backup_result: int_gauges(
                "fleet_backup_last_result",
                "1 for the result of the last backup",
                &["namespace", "name", "result"],
            )?,
            notifications: counter(
                "fleet_notifications_total",
                "Notifications by receiver and by what became of them",
                &["target", "outcome"],
            )?,
            notifications_queued: int_gauge(
                "fleet_notifications_queued",
                "Notifications that wait or are under way",
            )?,
            leader: int_gauge("fleet_leader", "1 while this replica leads")?,
            link_connected: int_gauge("fleet_link_connected", "1 while the hub is connected")?,
            link_name_differs: int_gauge(
                "fleet_link_name_differs",
                "1 while the certificate names another cluster than the configured one",
            )?,
            link_messages: counter(
                "fleet_link_messages_total",
                "Messages on the link",
                &["direction", "type"],
            )?,
            link_since,
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
        self.queue.with_label_values(&[kind]).inc();
        TurnMeasure {
            metrics: self,
            kind,
            start: Instant::now(),
        }
    }

    /// An actor was started (+1) or ended (-1).
    pub fn actors(&self, kind: &'static str, change: i64) {
        self.actors.with_label_values(&[kind]).add(change);
    }

    /// An actor panicked.
    pub fn crash(&self, kind: &'static str) {
        self.crashes.with_label_values(&[kind]).inc();
    }

    /// A long-lived part panicked or ended.
    pub fn service_failure(&self, service: &str) {
        self.service_failures.with_label_values(&[service]).inc();
    }

    /// An event of a watch.
    pub fn watch_event(&self, resource: &str) {
        self.watch_events.with_label_values(&[resource]).inc();
    }

    /// A watch broke and is started again.
    pub fn watch_error(&self, resource: &str) {
        self.watch_restarts.with_label_values(&[resource]).inc();
    }

    /// An object could not be decoded.
    pub fn undecodable(&self, resource: &str) {
        self.undecodable.with_label_values(&[resource]).inc();
    }

    /// A write to the API server ended.
    pub fn write(&self, verb: &'static str, kind: &str, outcome: &'static str) {
        self.writes.with_label_values(&[verb, kind, outcome]).inc();
    }

    /// A Kubernetes Event was published, dropped or refused.
    pub fn event(&self, outcome: &'static str) {
        self.events_dropped.with_label_values(&[outcome]).inc();
    }

    /// A notification was sent, failed for good, was refused or dropped.
    pub fn notification(&self, target: &'static str, outcome: &'static str) {
        self.notifications.with_label_values(&[target, outcome]).inc();
    }

    /// A restic process in the manager ended.
    pub fn restic_run(&self, command: &'static str, outcome: &'static str, seconds: f64) {
        self.restic.with_label_values(&[command, outcome]).inc();
        self.restic_seconds.with_label_values(&[command]).observe(seconds);
    }

    /// The last run of a backup. `None` leaves a series as it is.
    pub fn backup(&self, key: &Key, last_success: Option<f64>, size: Option<f64>, duration: Option<f64>) {
        let labels = &[&*key.namespace, &*key.name];
        let set = |series: &GaugeVec, value: Option<f64>| {
            if let Some(value) = value {
                series.with_label_values(labels).set(value);
            }
        };
        set(&self.backup_success, last_success);
        set(&self.backup_size, size);
        set(&self.backup_duration, duration);
    }

    /// Result of the last run: 1 for the one given, 0 for the others.
    pub fn backup_result(&self, key: &Key, result: &str) {
        for known in ["Succeeded", "PartiallyFailed", "Failed"] {
            let labels = &[&*key.namespace, &*key.name, known];
            self.backup_result
                .with_label_values(labels)
                .set(i64::from(known == result));
        }
    }

    /// The backup is gone, and its series with it.
    pub fn backup_gone(&self, key: &Key) {
        let labels = &[&*key.namespace, &*key.name];
        // An error means that there was no such series.
        let _ = self.backup_success.remove_label_values(labels);
        let _ = self.backup_size.remove_label_values(labels);
        let _ = self.backup_duration.remove_label_values(labels);
        for known in ["Succeeded", "PartiallyFailed", "Failed"] {
            let _ = self
                .backup_result
                .remove_label_values(&[&*key.namespace, &*key.name, known]);
        }
    }
}

/// A turn under way.
pub struct TurnMeasure<'a> {
    metrics: &'a Metrics,
    kind: &'static str,
    start: Instant,
}

impl TurnMeasure<'_> {
    /// The turn is over.
    pub fn done(self, failed: bool) {
        let outcome = if failed { "retry" } else { "ok" };
        self.metrics.turns.with_label_values(&[self.kind, outcome]).inc();
        self.metrics
            .turn_seconds
            .with_label_values(&[self.kind])
            .observe(self.start.elapsed().as_secs_f64());
    }
}

impl Drop for TurnMeasure<'_> {
    // Also reached when the turn panics.
    fn drop(&mut self) {
        self.metrics.queue.with_label_values(&[self.kind]).dec();
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
