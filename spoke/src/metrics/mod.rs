//! Every series of the spoke. Labels are closed sets, names of resources excepted, and those are deleted with their
//! resource. docs/metrics.md lists them.

mod backups;
mod definition;
mod policies;
mod process;
mod repositories;
mod resources;
mod restores;
mod values;

use std::time::Instant;

use prometheus::{Encoder as _, IntCounterVec, IntGauge, Registry, TextEncoder};

use definition::Registrar;
pub use definition::{Definition, Type};
use process::Actors;
pub use process::{Cluster, Link};
pub use resources::{Measured, OPERATIONS, Resources, Sample};

/// Everything that /metrics shows.
pub struct Metrics {
    registry: Registry,
    definitions: Vec<Definition>,
    actors: Actors,
    /// What the process does with the cluster.
    pub cluster: Cluster,
    /// The link to the hub.
    pub link: Link,
    notifications: IntCounterVec,
    /// Notifications that wait or are under way.
    pub notifications_queued: IntGauge,
    /// Series of resources.
    pub resources: Resources,
}

impl Metrics {
    /// All series registered.
    ///
    /// # Errors
    /// Two of them have one name.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let mut of = Registrar::new();
        let actors = Actors::new(&mut of)?;
        let cluster = Cluster::new(&mut of)?;
        let link = Link::new(&mut of)?;
        let notifications = of.counters(
            "fleet_notifications_total",
            "Notifications by receiver (pushgateway, ntfy, email, webhook, slack) and outcome (sent, failed, refused, dropped)",
            &["target", "outcome"],
        )?;
        let notifications_queued = of.gauge(
            "fleet_notifications_queued",
            "Notifications that wait or are under way",
        )?;
        Ok(Metrics {
            actors,
            cluster,
            link,
            notifications,
            notifications_queued,
            resources: Resources::default(),
            registry: of.registry,
            definitions: of.definitions,
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

    /// This replica leads now, or does not any more: then another one has the series of resources.
    pub fn leads(&self, leads: bool) {
        self.cluster.leader.set(i64::from(leads));
        if !leads {
            self.resources.clear();
        }
    }

    /// Version and name of the cluster, to join other series with.
    pub fn info(&self, cluster: &str) {
        let labels = &[env!("CARGO_PKG_VERSION"), cluster];
        self.cluster.info.with_label_values(labels).set(1);
    }

    /// Measures a turn; call `done` on what is returned.
    #[must_use]
    pub fn turn(&self, kind: &'static str) -> TurnMeasure<'_> {
        self.actors.running.with_label_values(&[kind]).inc();
        TurnMeasure {
            metrics: self,
            kind,
            start: Instant::now(),
        }
    }

    /// An actor was started (+1) or ended (-1).
    pub fn actors(&self, kind: &'static str, change: i64) {
        self.actors.actors.with_label_values(&[kind]).add(change);
    }

    /// An actor panicked.
    pub fn crash(&self, kind: &'static str) {
        self.actors.crashes.with_label_values(&[kind]).inc();
    }

    /// A long-lived part panicked or ended.
    pub fn service_failure(&self, service: &str) {
        self.actors.service_failures.with_label_values(&[service]).inc();
    }

    /// An event of a watch.
    pub fn watch_event(&self, resource: &str) {
        self.cluster.watch_events.with_label_values(&[resource]).inc();
    }

    /// A watch broke and is started again.
    pub fn watch_error(&self, resource: &str) {
        self.cluster.watch_errors.with_label_values(&[resource]).inc();
    }

    /// An object could not be decoded.
    pub fn undecodable(&self, resource: &str) {
        self.cluster.undecodable.with_label_values(&[resource]).inc();
    }

    /// A write to the API server ended.
    pub fn write(&self, verb: &'static str, kind: &str, outcome: &'static str) {
        self.cluster
            .writes
            .with_label_values(&[verb, kind, outcome])
            .inc();
    }

    /// A Kubernetes Event was published, dropped or refused.
    pub fn event(&self, outcome: &'static str) {
        self.cluster.events.with_label_values(&[outcome]).inc();
    }

    /// A notification was sent, failed for good, was refused or dropped.
    pub fn notification(&self, target: &'static str, outcome: &'static str) {
        self.notifications.with_label_values(&[target, outcome]).inc();
    }

    /// A restic process in the manager ended.
    pub fn restic_run(&self, command: &'static str, outcome: &'static str, seconds: f64) {
        self.cluster.restic.with_label_values(&[command, outcome]).inc();
        self.cluster
            .restic_seconds
            .with_label_values(&[command])
            .observe(seconds);
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
        self.metrics
            .actors
            .turns
            .with_label_values(&[self.kind, outcome])
            .inc();
        self.metrics
            .actors
            .turn_seconds
            .with_label_values(&[self.kind])
            .observe(self.start.elapsed().as_secs_f64());
    }
}

impl Drop for TurnMeasure<'_> {
    // Also reached when the turn panics.
    fn drop(&mut self) {
        self.metrics.actors.running.with_label_values(&[self.kind]).dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
