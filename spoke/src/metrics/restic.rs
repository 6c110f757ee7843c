//! Runs of restic in the manager.

use prometheus::{Error, HistogramVec, IntCounterVec};

use super::series::Series;

/// Buckets in seconds.
const BUCKETS: &[f64] = &[0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// Series by command.
pub struct Runs {
    total: IntCounterVec,
    seconds: HistogramVec,
}

impl Runs {
    pub fn new(series: Series<'_>) -> Result<Runs, Error> {
        Ok(Runs {
            total: series.counters(
                "fleet_restic_runs_total",
                "Runs of restic in the manager",
                &["command", "outcome"],
            )?,
            seconds: series.histograms(
                "fleet_restic_run_duration_seconds",
                "Duration of restic runs in the manager",
                BUCKETS,
                &["command"],
            )?,
        })
    }

    pub fn count(&self, command: &'static str, outcome: &'static str, seconds: f64) {
        self.total.with_label_values(&[command, outcome]).inc();
        self.seconds.with_label_values(&[command]).observe(seconds);
    }
}
