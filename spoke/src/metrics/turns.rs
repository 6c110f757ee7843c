//! Actors and their turns.

use std::time::Instant;

use prometheus::{Error, HistogramVec, IntCounterVec, IntGaugeVec};

use super::series::Series;

/// Buckets from a quick turn to a hanging one, in seconds.
const BUCKETS: &[f64] = &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];

/// Series by kind.
pub struct Turns {
    total: IntCounterVec,
    seconds: HistogramVec,
    running: IntGaugeVec,
    pub actors: IntGaugeVec,
    pub crashes: IntCounterVec,
}

impl Turns {
    pub fn new(series: Series<'_>) -> Result<Turns, Error> {
        Ok(Turns {
            total: series.counters("fleet_turns_total", "Turns taken by actors", &["kind", "outcome"])?,
            seconds: series.histograms(
                "fleet_turn_duration_seconds",
                "Duration of turns",
                BUCKETS,
                &["kind"],
            )?,
            running: series.int_gauges("fleet_turns_running", "Turns that run now", &["kind"])?,
            actors: series.int_gauges("fleet_actors", "Running actors", &["kind"])?,
            crashes: series.counters(
                "fleet_actor_crashes_total",
                "Actors that panicked and were restarted",
                &["kind"],
            )?,
        })
    }

    pub fn begin(&self, kind: &'static str) -> TurnMeasure<'_> {
        self.running.with_label_values(&[kind]).inc();
        TurnMeasure {
            turns: self,
            kind,
            start: Instant::now(),
        }
    }
}

/// A turn under way.
pub struct TurnMeasure<'a> {
    turns: &'a Turns,
    kind: &'static str,
    start: Instant,
}

impl TurnMeasure<'_> {
    /// The turn is over.
    pub fn done(self, failed: bool) {
        let outcome = if failed { "retry" } else { "ok" };
        let turns = self.turns;
        turns.total.with_label_values(&[self.kind, outcome]).inc();
        let seconds = self.start.elapsed().as_secs_f64();
        turns.seconds.with_label_values(&[self.kind]).observe(seconds);
    }
}

impl Drop for TurnMeasure<'_> {
    // Also reached when the turn panics.
    fn drop(&mut self) {
        self.turns.running.with_label_values(&[self.kind]).dec();
    }
}
