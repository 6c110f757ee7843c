//! Series of the process: actors and services, what it does with the cluster, the link to the hub.

use prometheus::{Error, Gauge, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::definition::Registrar;

/// Buckets from a quick turn to a hanging one, in seconds.
const TURN_BUCKETS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];
/// Buckets of restic runs in the manager, in seconds.
const RESTIC_BUCKETS: &[f64] = &[0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// Actors and services.
pub struct Actors {
    pub turns: IntCounterVec,
    pub turn_seconds: HistogramVec,
    pub actors: IntGaugeVec,
    pub crashes: IntCounterVec,
    pub running: IntGaugeVec,
    pub service_failures: IntCounterVec,
}

impl Actors {
    pub(super) fn new(of: &mut Registrar) -> Result<Actors, Error> {
        Ok(Actors {
            turns: of.counters(
                "fleet_turns_total",
                "Turns taken by actors, by outcome (ok, retry)",
                &["kind", "outcome"],
            )?,
            turn_seconds: of.histograms(
                "fleet_turn_duration_seconds",
                "Duration of turns",
                TURN_BUCKETS,
                &["kind"],
            )?,
            actors: of.gauges("fleet_actors", "Running actors", &["kind"])?,
            crashes: of.counters(
                "fleet_actor_crashes_total",
                "Actors that panicked and were restarted",
                &["kind"],
            )?,
            running: of.gauges("fleet_turns_running", "Turns that run now", &["kind"])?,
            service_failures: of.counters(
                "fleet_service_failures_total",
                "Long-lived parts of the process that panicked or ended, and were started again",
                &["service"],
            )?,
        })
    }
}

/// What the process does with the cluster.
pub struct Cluster {
    pub info: IntGaugeVec,
    pub leader: IntGauge,
    pub watch_events: IntCounterVec,
    pub watch_errors: IntCounterVec,
    pub undecodable: IntCounterVec,
    pub writes: IntCounterVec,
    pub events: IntCounterVec,
    pub restic: IntCounterVec,
    pub restic_seconds: HistogramVec,
}

impl Cluster {
    pub(super) fn new(of: &mut Registrar) -> Result<Cluster, Error> {
        Ok(Cluster {
            info: of.gauges(
                "fleet_info",
                "1; names the version, and the cluster as the fleet calls it",
                &["version", "cluster"],
            )?,
            leader: of.gauge("fleet_leader", "1 while this replica leads")?,
            watch_events: of.counters("fleet_watch_events_total", "Events of watches", &["resource"])?,
            watch_errors: of.counters("fleet_watch_errors_total", "Errors of watches", &["resource"])?,
            undecodable: of.counters(
                "fleet_undecodable_objects_total",
                "Objects that could not be decoded",
                &["resource"],
            )?,
            writes: of.counters(
                "fleet_api_writes_total",
                "Writes to the API server",
                &["verb", "kind", "outcome"],
            )?,
            events: of.counters(
                "fleet_events_total",
                "Kubernetes Events by outcome (published, refused, dropped)",
                &["outcome"],
            )?,
            restic: of.counters(
                "fleet_restic_runs_total",
                "Runs of restic in the manager",
                &["command", "outcome"],
            )?,
            restic_seconds: of.histograms(
                "fleet_restic_run_duration_seconds",
                "Duration of restic runs in the manager",
                RESTIC_BUCKETS,
                &["command"],
            )?,
        })
    }
}

/// The link to the hub.
pub struct Link {
    /// 1 while a hub is configured.
    pub configured: IntGauge,
    /// 1 while the hub is connected.
    pub connected: IntGauge,
    /// The hub knows this cluster by another name than the configured one.
    pub name_differs: IntGauge,
    /// Messages sent to the hub and received from it.
    pub messages: IntCounterVec,
    /// Unix time of the last connection to the hub.
    pub since: Gauge,
}

impl Link {
    pub(super) fn new(of: &mut Registrar) -> Result<Link, Error> {
        Ok(Link {
            configured: of.gauge("fleet_link_configured", "1 where a hub is configured")?,
            connected: of.gauge("fleet_link_connected", "1 while the hub is connected")?,
            name_differs: of.gauge(
                "fleet_link_name_differs",
                "1 while the certificate names another cluster than the configured one",
            )?,
            messages: of.counters(
                "fleet_link_messages_total",
                "Messages on the link by direction (sent, received)",
                &["direction", "type"],
            )?,
            since: of.time(
                "fleet_link_connected_timestamp_seconds",
                "Unix time of the last connection to the hub",
            )?,
        })
    }
}
