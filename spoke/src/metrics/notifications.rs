//! Notifications by receiver.

use prometheus::{Error, IntCounterVec, IntGauge};

use super::series::Series;

const TARGETS: [&str; 5] = ["pushgateway", "ntfy", "email", "webhook", "slack"];
const OUTCOMES: [&str; 4] = ["sent", "failed", "refused", "dropped"];

pub struct Notifications {
    total: IntCounterVec,
    queued: IntGauge,
}

impl Notifications {
    pub fn new(series: Series<'_>) -> Result<Notifications, Error> {
        let total = series.counters(
            "fleet_notifications_total",
            "Notifications by receiver (pushgateway, ntfy, email, webhook, slack) and outcome (sent, failed, refused, dropped)",
            &["target", "outcome"],
        )?;
        // From 0, so that the first loss is an increase.
        for target in TARGETS {
            for outcome in OUTCOMES {
                total.with_label_values(&[target, outcome]).inc_by(0);
            }
        }
        let queued = series.switch(
            "fleet_notifications_queued",
            "Notifications that wait or are under way",
        )?;
        Ok(Notifications { total, queued })
    }

    pub fn count(&self, target: &'static str, outcome: &'static str) {
        self.total.with_label_values(&[target, outcome]).inc();
    }

    pub fn queued(&self, count: usize) {
        self.queued.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
