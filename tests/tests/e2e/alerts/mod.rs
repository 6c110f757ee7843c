//! Each alert is raised by its cause and ends with the mend: real causes, a real Prometheus, the rules that are shipped.

mod backups;
mod hub;
mod operator;
mod prometheus;
mod repositories;

/// Alerts of faults of the program itself: no cause outside of it is known. Unit tests of services and of turns show that
/// their counters rise, those of the rules that the alerts follow.
const OF_PANICS: [&str; 2] = ["FleetServiceFailing", "FleetActorCrashing"];

/// Alerts of the hub that are not raised here: a disk that fails, a store of which no test has made a backup yet, a store that is put back (its mend is the end of the last
/// lease, after more than half an hour), and a certificate that was given and is old. That a hub at work shows their series,
/// and that each rule follows them, is tested with the hub (`hub/tests/observability.rs`) and by promtool.
const BY_SERIES: [&str; 4] = [
    "FleetHubBackupMissing",
    "FleetHubStoreFailing",
    "FleetHubStoreRestored",
    "FleetHubCertificateExpires",
];

#[test]
#[ignore = "needs clusters: make test"]
fn each_alert_has_a_cause_here() {
    let mut caused: Vec<&str> = [
        backups::ALERTS,
        repositories::ALERTS,
        operator::ALERTS,
        hub::ALERTS,
        &OF_PANICS,
        &BY_SERIES,
    ]
    .concat();
    caused.sort_unstable();
    let mut all = prometheus::names();
    all.sort_unstable();
    assert_eq!(caused, all);
}
