//! Watches of the API server, by resource.

use prometheus::{Error, IntCounterVec};

use super::series::Series;

pub struct Watches {
    pub events: IntCounterVec,
    pub restarts: IntCounterVec,
    pub undecodable: IntCounterVec,
}

impl Watches {
    pub fn new(series: Series<'_>) -> Result<Watches, Error> {
        let resource = &["resource"];
        Ok(Watches {
            events: series.counters("fleet_watch_events_total", "Events of watches", resource)?,
            restarts: series.counters("fleet_watch_errors_total", "Errors of watches", resource)?,
            undecodable: series.counters(
                "fleet_undecodable_objects_total",
                "Objects that could not be decoded",
                resource,
            )?,
        })
    }
}
