//! Each alert is raised by its cause and ends with the mend: real causes, a real Prometheus, the rules that are shipped.

mod backups;
mod operator;
mod prometheus;
mod repositories;

/// Alerts of faults of the program itself: no cause outside of it is known. Unit tests of services and of turns show that
/// their counters rise, those of the rules that the alerts follow.
const OF_PANICS: [&str; 2] = ["FleetServiceFailing", "FleetActorCrashing"];

/// Alerts of the hub's own series. That a hub at work shows these series, and that each rule follows them, is tested with the
/// hub (`hub/tests/observability.rs`) and by promtool.
const OF_THE_HUB: [&str; 10] = [
    "FleetNotSafe",
    "FleetClusterStale",
    "FleetClusterRefused",
    "FleetMaintenanceWaits",
    "FleetHubStoreFailing",
    "FleetHubBackupOld",
    "FleetHubStoreRestored",
    "FleetHubCertificateExpires",
    "FleetHubRefuses",
    "FleetMaintenancePaused",
];

#[test]
#[ignore = "needs clusters: make test"]
fn each_alert_has_a_cause_here() {
    let mut caused: Vec<&str> = [
        backups::ALERTS,
        repositories::ALERTS,
        operator::ALERTS,
        &OF_PANICS,
        &OF_THE_HUB,
    ]
    .concat();
    caused.sort_unstable();
    let mut all = prometheus::names();
    all.sort_unstable();
    assert_eq!(caused, all);
}
