//! Every series of the spoke. Labels are closed sets, names of resources excepted, and those are deleted with their
//! resource. docs/metrics.md lists them.

mod backups;
mod definition;
mod notifications;
mod policies;
mod repositories;
mod resources;
mod restic;
mod restores;
mod series;
mod turns;
mod values;
mod watches;

use std::cell::RefCell;

use prometheus::{Encoder as _, Gauge, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

pub use definition::{Definition, Type};
use notifications::Notifications;
pub use resources::{Measured, OPERATIONS, Resources, Sample};
use restic::Runs;
use series::Series;
pub use turns::TurnMeasure;
use turns::Turns;
use watches::Watches;

/// A registry of its own, not the process's: two spokes in one test process do not meet.
pub struct Metrics {
    registry: Registry,
    definitions: Vec<Definition>,
    turns: Turns,
    watches: Watches,
    restic: Runs,
    notifications: Notifications,
    /// Series of resources.
    pub resources: Resources,
    info: IntGaugeVec,
    service_failures: IntCounterVec,
    writes: IntCounterVec,
    events: IntCounterVec,
    /// 1 while this replica leads.
    pub leader: IntGauge,
    /// 1 where a hub is configured.
    pub link_configured: IntGauge,
    /// 1 while the hub is connected.
    pub link_connected: IntGauge,
    /// The hub knows this cluster by another name than the configured one.
    pub link_name_differs: IntGauge,
    /// The certificate of this cluster.
    pub certificate: Certificate,
    /// Messages sent to the hub and received from it.
    pub link_messages: IntCounterVec,
    /// Unix time of the last connection to the hub.
    pub link_since: Gauge,
}

/// When the certificate of this cluster ends, and how often it could not be renewed.
pub struct Certificate {
    pub expiry: Gauge,
    /// There is none to connect with, and a person has to do something about it.
    pub missing: IntGauge,
    pub failures: IntCounterVec,
}

impl Certificate {
    fn new(series: Series<'_>) -> Result<Certificate, prometheus::Error> {
        Ok(Certificate {
            expiry: series.gauge(
                "fleet_link_certificate_expiry_timestamp_seconds",
                "Unix time at which the certificate of this cluster ends; it is renewed half-way through its life",
            )?,
            missing: series.switch(
                "fleet_link_certificate_missing",
                "1 while this cluster has no certificate with which it could connect to its hub, and gets none without a person",
            )?,
            failures: series.counters(
                "fleet_link_certificate_failures_total",
                "Certificates that the hub did not issue (refused), and what it sent that could not be kept (lost)",
                &["outcome"],
            )?,
        })
    }
}

impl Metrics {
    /// All series registered.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let definitions = RefCell::default();
        let series = Series::new(&registry, &definitions);
        let metrics = Metrics {
            turns: Turns::new(series)?,
            watches: Watches::new(series)?,
            restic: Runs::new(series)?,
            notifications: Notifications::new(series)?,
            resources: Resources::default(),
            info: series.int_gauges(
                "fleet_info",
                "1; names the version, and the cluster as the fleet calls it",
                &["version", "cluster"],
            )?,
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
                "Kubernetes Events by outcome (published, refused, dropped)",
                &["outcome"],
            )?,
            leader: series.switch("fleet_leader", "1 while this replica leads")?,
            link_configured: series.switch("fleet_link_configured", "1 where a hub is configured")?,
            link_connected: series.switch("fleet_link_connected", "1 while the hub is connected")?,
            link_name_differs: series.switch(
                "fleet_link_name_differs",
                "1 while the certificate names another cluster than the configured one",
            )?,
            link_messages: series.counters(
                "fleet_link_messages_total",
                "Messages on the link by direction and type",
                &["direction", "type"],
            )?,
            link_since: series.gauge(
                "fleet_link_connected_timestamp_seconds",
                "Unix time of the last connection to the hub",
            )?,
            certificate: Certificate::new(series)?,
            definitions: Vec::new(),
            registry: registry.clone(),
        };
        Ok(Metrics {
            definitions: definitions.into_inner(),
            ..metrics
        })
    }

    /// Every series, by name.
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        let mut all = self.definitions.clone();
        all.extend(resources::definitions().copied());
        all.sort_by_key(|definition| definition.name);
        all
    }

    /// Text exposition format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut buffer = Vec::new();
        // Writing into memory fails only for a metric without labels registered twice, which `new` rules out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut buffer);
        let mut text = String::from_utf8(buffer).unwrap_or_default();
        self.resources.render(&mut text);
        text
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

    /// A notification was sent, failed for good, was refused or dropped.
    pub fn notification(&self, target: &'static str, outcome: &'static str) {
        self.notifications.count(target, outcome);
    }

    /// Notifications that wait or are under way.
    pub fn notifications_queued(&self, count: usize) {
        self.notifications.queued(count);
    }

    /// This replica leads now, or does not any more: then another one has the series of resources.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        self.resources.leads(leads);
    }

    /// Version and name of the cluster, to join other series with.
    pub fn info(&self, cluster: &str) {
        let labels = &[env!("CARGO_PKG_VERSION"), cluster];
        self.info.with_label_values(labels).set(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Key;

    fn orders(status: serde_json::Value) -> crds::ResticBackup {
        let backup = serde_json::json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": "orders", "namespace": "shop", "creationTimestamp": "2026-11-26T00:00:00Z" },
            "spec": { "repositoryRef": { "name": "nas", "namespace": "storage" }, "schedule": "@daily", "source": {} },
            "status": status,
        });
        serde_json::from_value(backup).unwrap()
    }

    fn series_of(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render();
        let own = text.lines().filter(|line| line.contains("name=\"orders\""));
        own.map(str::to_owned).collect()
    }

    #[test]
    fn a_backup_that_never_ran_has_series_and_one_that_is_deleted_has_none() {
        let (metrics, key) = (Metrics::new().unwrap(), Key::new("shop", "orders"));
        metrics.leads(true);
        metrics
            .resources
            .set("ResticBackup", &key, orders(serde_json::json!({})).samples());
        let lines = series_of(&metrics);
        for line in [
            "fleet_backup_info{namespace=\"shop\",name=\"orders\",repository_namespace=\"storage\",repository=\"nas\"} 1",
            "fleet_backup_created_timestamp_seconds{namespace=\"shop\",name=\"orders\"} 1795651200",
            "fleet_backup_last_result{namespace=\"shop\",name=\"orders\",result=\"Failed\"} 0",
            "fleet_backup_runs_total{namespace=\"shop\",name=\"orders\",result=\"Failed\"} 0",
            "fleet_backup_ready{namespace=\"shop\",name=\"orders\"} 0",
        ] {
            assert!(lines.iter().any(|known| known == line), "{line} in {lines:#?}");
        }
        assert!(
            !lines.iter().any(|line| line.contains("last_success")),
            "there was none"
        );
        metrics.resources.remove("ResticBackup", &key);
        assert_eq!(series_of(&metrics), Vec::<String>::new());
    }

    #[test]
    fn another_replica_has_the_same_series_from_the_same_status() {
        let status = serde_json::json!({
            "lastBackup": { "result": "PartiallyFailed", "startTime": "2026-11-26T00:00:00Z", "completionTime": "2026-11-26T00:01:10Z", "bytesProcessed": 9 },
            "statistics": { "totalBackups": 3, "successfulBackups": 2, "failedBackups": 1 },
        });
        let (a, b, key) = (
            Metrics::new().unwrap(),
            Metrics::new().unwrap(),
            Key::new("shop", "orders"),
        );
        for metrics in [&a, &b] {
            metrics.leads(true);
            metrics
                .resources
                .set("ResticBackup", &key, orders(status.clone()).samples());
        }
        assert_eq!(series_of(&a), series_of(&b));
        let partial =
            "fleet_backup_last_result{namespace=\"shop\",name=\"orders\",result=\"PartiallyFailed\"} 1";
        assert!(series_of(&a).iter().any(|line| line == partial));
        let duration = "fleet_backup_last_duration_seconds{namespace=\"shop\",name=\"orders\"} 70";
        assert!(series_of(&a).iter().any(|line| line == duration));
        let turn = |metrics: &Metrics| {
            let samples = orders(status.clone()).samples();
            metrics.resources.set("ResticBackup", &key, samples);
        };
        a.leads(false);
        assert_eq!(series_of(&a), Vec::<String>::new(), "the new leader has them");
        turn(&a);
        assert_eq!(
            series_of(&a),
            Vec::<String>::new(),
            "a turn that was under way does not bring them back"
        );
        a.leads(true);
        turn(&a);
        assert_eq!(series_of(&a), series_of(&b), "it leads again");
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
