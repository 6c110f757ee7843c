//! The last run of each backup.

use prometheus::{Error, GaugeVec, IntGaugeVec};

use super::series::Series;
use crate::world::Key;

/// Values of label `result`.
const RESULTS: [&str; 3] = ["Succeeded", "PartiallyFailed", "Failed"];

/// Series by namespace and name.
pub struct Backups {
    success: GaugeVec,
    size: GaugeVec,
    duration: GaugeVec,
    result: IntGaugeVec,
}

impl Backups {
    pub fn new(series: Series<'_>) -> Result<Backups, Error> {
        let resource = &["namespace", "name"];
        Ok(Backups {
            success: series.gauges(
                "fleet_backup_last_success_timestamp_seconds",
                "Unix time of the last backup that succeeded",
                resource,
            )?,
            size: series.gauges(
                "fleet_backup_last_size_bytes",
                "Bytes read by the last backup",
                resource,
            )?,
            duration: series.gauges(
                "fleet_backup_last_duration_seconds",
                "Duration of the last backup",
                resource,
            )?,
            result: series.int_gauges(
                "fleet_backup_last_result",
                "1 for the result of the last backup",
                &["namespace", "name", "result"],
            )?,
        })
    }

    pub fn set(&self, key: &Key, last_success: Option<f64>, size: Option<f64>, duration: Option<f64>) {
        let labels = &[&*key.namespace, &*key.name];
        let set = |series: &GaugeVec, value: Option<f64>| {
            if let Some(value) = value {
                series.with_label_values(labels).set(value);
            }
        };
        set(&self.success, last_success);
        set(&self.size, size);
        set(&self.duration, duration);
    }

    pub fn set_result(&self, key: &Key, result: &str) {
        for known in RESULTS {
            let series = self.result.with_label_values(&labels(key, known));
            series.set(i64::from(known == result));
        }
    }

    pub fn remove(&self, key: &Key) {
        let resource = &[&*key.namespace, &*key.name];
        for series in [&self.success, &self.size, &self.duration] {
            // An error means that there was no such series.
            let _ = series.remove_label_values(resource);
        }
        for known in RESULTS {
            let _ = self.result.remove_label_values(&labels(key, known));
        }
    }
}

fn labels<'a>(key: &'a Key, result: &'a str) -> [&'a str; 3] {
    [&*key.namespace, &*key.name, result]
}
