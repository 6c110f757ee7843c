//! Every series of the hub. Labels are closed sets, names of clusters excepted. docs/hub-metrics.md lists them.

mod definition;
mod figures;
mod scrape;

use std::cell::RefCell;
use std::sync::Arc;

use prometheus::{
    Encoder as _, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use self::definition::Series;
pub use self::definition::{Definition, Type};
pub use self::figures::{Figures, figures};
pub use self::scrape::Scrape;

/// A registry of its own: two hubs in one test process do not meet.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    definitions: Arc<Vec<Definition>>,
    /// Sessions of spokes that are open.
    pub sessions: IntGauge,
    /// Resources of all clusters.
    pub objects: IntGauge,
    /// Revisions since the start.
    pub revision: IntGauge,
    /// Watches of viewers that are open.
    pub watches: IntGauge,
    /// Messages by direction and type.
    pub messages: IntCounterVec,
    /// Duration of commits of the store.
    pub commit_seconds: Histogram,
    /// Writes and looks that failed.
    pub store_failures: IntCounter,
    /// Messages of spokes that were refused, by what they were about and why.
    pub refused: IntCounterVec,
    /// 1 while nothing is granted because the store is an older one.
    pub restored: IntGauge,
    /// Attempts to join, by outcome.
    pub enrolments: IntCounterVec,
    state: State,
}

/// Series that are measured when they are asked for.
#[derive(Clone)]
struct State {
    info: IntGaugeVec,
    verdict: IntGaugeVec,
    clusters: IntGaugeVec,
    repositories: IntGaugeVec,
    backups: IntGaugeVec,
    attention: IntGaugeVec,
    cluster_stale: IntGaugeVec,
    stored: IntGauge,
    locks: IntGaugeVec,
    waiters: IntGauge,
    longest_wait: prometheus::Gauge,
    own: Own,
}

/// Those of the hub itself.
#[derive(Clone)]
struct Own {
    certificates: IntGaugeVec,
    store_bytes: IntGauge,
    store_backup: IntGaugeVec,
    paused: IntGaugeVec,
}

impl Own {
    fn new(series: &Series<'_>) -> Result<Own, prometheus::Error> {
        Ok(Own {
            certificates: series.gauges(
                "fleet_hub_certificate_expiry_timestamp_seconds",
                "Unix time at which a certificate expires: a given one of the hub (hub), that of a given authority of its clients (clients), or that of its own authority (authority)",
                &["certificate"],
            )?,
            store_bytes: series.gauge(
                "fleet_hub_store_bytes",
                "Bytes of the store and its journal on disk",
            )?,
            store_backup: series.gauges(
                "fleet_hub_store_backup_timestamp_seconds",
                "Unix time of the last backup of the store; absent before the first",
                &[],
            )?,
            paused: series.gauges(
                "fleet_hub_paused_timestamp_seconds",
                "Unix time since which maintenance of the fleet is paused; absent while it is not",
                &[],
            )?,
        })
    }
}

impl State {
    fn new(series: &Series<'_>) -> Result<State, prometheus::Error> {
        Ok(State {
            info: series.gauges("fleet_hub_info", "1; names the version", &["version"])?,
            verdict: series.gauges(
                "fleet_hub_verdict",
                "1 for the verdict on the whole fleet (safe, not-safe, unknown), 0 for the others",
                &["verdict"],
            )?,
            clusters: series.gauges(
                "fleet_hub_clusters",
                "Clusters by state (banned, conflict, refused, stale, connected)",
                &["state"],
            )?,
            repositories: series.gauges(
                "fleet_hub_repositories",
                "Physical repositories by state (unready, stale, degraded, ready)",
                &["state"],
            )?,
            backups: series.gauges(
                "fleet_hub_backups",
                "Backups by state (failed, late, partial, notready, stale, never, running, suspended, ok)",
                &["state"],
            )?,
            attention: series.gauges(
                "fleet_hub_attention",
                "What needs a person besides backups and clusters, by state as fleet status shows it",
                &["state"],
            )?,
            cluster_stale: series.gauges(
                "fleet_hub_cluster_stale",
                "1 while the spoke of the cluster is silent, unless it is banned",
                &["cluster"],
            )?,
            stored: series.gauge(
                "fleet_hub_stored_bytes",
                "Bytes stored in all physical repositories, each counted once",
            )?,
            locks: series.gauges(
                "fleet_hub_locks",
                "Maintenance locks in use by state (draining, granting, held, delayed)",
                &["state"],
            )?,
            waiters: series.gauge(
                "fleet_hub_lock_waiters",
                "Operations that wait for a maintenance lock",
            )?,
            longest_wait: series.fraction(
                "fleet_hub_lock_longest_wait_seconds",
                "Time for which the operation that waits longest has waited; 0 while none waits",
            )?,
            own: Own::new(series)?,
        })
    }
}

impl Metrics {
    /// All series registered.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let series = Series {
            registry: &registry,
            definitions: RefCell::default(),
        };
        let metrics = Metrics {
            sessions: series.gauge("fleet_hub_sessions", "Sessions of spokes that are open")?,
            objects: series.gauge("fleet_hub_objects", "Resources of all clusters")?,
            revision: series.gauge("fleet_hub_revision", "Revisions since the start")?,
            watches: series.gauge("fleet_hub_watches", "Watches of viewers that are open")?,
            messages: series.counters(
                "fleet_hub_messages_total",
                "Messages of spokes",
                &["direction", "type"],
            )?,
            commit_seconds: series.histogram(
                "fleet_hub_store_commit_duration_seconds",
                "Duration of commits",
                &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0],
            )?,
            store_failures: series.counter(
                "fleet_hub_store_failures_total",
                "Accesses of the store that failed",
            )?,
            refused: series.counters(
                "fleet_hub_refused_total",
                "Messages of spokes that were refused, by what they were about and why",
                &["message", "reason"],
            )?,
            restored: series.gauge(
                "fleet_hub_store_restored",
                "1 while no lock is granted because the store was put back from a backup, or no hub had worked on it",
            )?,
            enrolments: series.counters(
                "fleet_hub_enrolments_total",
                "Attempts to join with a token",
                &["outcome"],
            )?,
            state: State::new(&series)?,
            definitions: Arc::default(),
            registry: registry.clone(),
        };
        let mut definitions = series.definitions.into_inner();
        definitions.sort_by_key(|definition| definition.name);
        Ok(Metrics {
            definitions: Arc::new(definitions),
            ..metrics
        })
    }

    /// Every series, by name.
    #[must_use]
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// Text exposition format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut buffer = Vec::new();
        // Writing into memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut buffer);
        String::from_utf8(buffer).unwrap_or_default()
    }
}

/// Counts something open for as long as it lives.
pub struct Open(IntGauge);

impl Open {
    /// One more.
    #[must_use]
    pub fn count(gauge: &IntGauge) -> Open {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
