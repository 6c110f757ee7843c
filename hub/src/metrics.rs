//! Every series of the hub. Labels are closed sets.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// A registry of its own: two hubs in one test process do not meet.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
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
    /// Attempts to join, by outcome.
    pub enrolments: IntCounterVec,
}

impl Metrics {
    /// All series registered.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let series = IntGauge::new(name, help)?;
            registry.register(Box::new(series.clone()))?;
            Ok(series)
        };
        let messages = IntCounterVec::new(
            Opts::new("fleet_hub_messages_total", "Messages of spokes"),
            &["direction", "type"],
        )?;
        registry.register(Box::new(messages.clone()))?;
        let buckets = vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0];
        let commit = HistogramOpts::new("fleet_hub_store_commit_duration_seconds", "Duration of commits")
            .buckets(buckets);
        let commit_seconds = Histogram::with_opts(commit)?;
        registry.register(Box::new(commit_seconds.clone()))?;
        let store_failures = IntCounter::new(
            "fleet_hub_store_failures_total",
            "Accesses of the store that failed",
        )?;
        registry.register(Box::new(store_failures.clone()))?;
        let refused = IntCounterVec::new(
            Opts::new("fleet_hub_refused_total", "Words of spokes that do not count"),
            &["message", "reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        let enrolments = IntCounterVec::new(
            Opts::new("fleet_hub_enrolments_total", "Attempts to join with a token"),
            &["outcome"],
        )?;
        registry.register(Box::new(enrolments.clone()))?;
        Ok(Metrics {
            sessions: gauge("fleet_hub_sessions", "Sessions of spokes that are open")?,
            objects: gauge("fleet_hub_objects", "Resources of all clusters")?,
            revision: gauge("fleet_hub_revision", "Revisions since the start")?,
            watches: gauge("fleet_hub_watches", "Watches of viewers that are open")?,
            messages,
            store_failures,
            refused,
            enrolments,
            commit_seconds,
            registry,
        })
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
