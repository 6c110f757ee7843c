//! Series of repositories and of the locks in them.

use crds::conditions::types;
use crds::{ResticRepository, ResticRepositoryStatus};

use super::definition::{Definition, OWN};
use super::resources::{Measured, Sample};
use super::values::Samples;

pub(super) static ALL: &[&Definition] = &[
    &INFO,
    &CREATED,
    &READY,
    &DEGRADED,
    &DAMAGED,
    &SIZE,
    &UNCOMPRESSED,
    &SNAPSHOTS,
    &FILES,
    &STATISTICS,
    &LOCKS,
    &OLDEST,
    &UNLOCK,
    &CHECK,
];

static INFO: Definition = Definition::gauge(
    "fleet_repository_info",
    "1 for each ResticRepository; names restic's own id (empty until it is known), which is the same in all clusters",
    &["namespace", "name", "repository_id"],
);
static CREATED: Definition = Definition::gauge(
    "fleet_repository_created_timestamp_seconds",
    "Unix time at which the ResticRepository was created",
    OWN,
);
static READY: Definition = Definition::gauge(
    "fleet_repository_ready",
    "1 while the repository can be opened",
    OWN,
);
static DEGRADED: Definition = Definition::gauge(
    "fleet_repository_degraded",
    "1 while condition Degraded is True: locks that stay, or damage",
    OWN,
);
static DAMAGED: Definition = Definition::gauge(
    "fleet_repository_damaged",
    "1 while the repository is damaged, missing or another one",
    OWN,
);
static SIZE: Definition = Definition::gauge("fleet_repository_size_bytes", "Bytes stored", OWN);
static UNCOMPRESSED: Definition = Definition::gauge(
    "fleet_repository_uncompressed_size_bytes",
    "The same data without compression",
    OWN,
);
static SNAPSHOTS: Definition =
    Definition::gauge("fleet_repository_snapshots", "Snapshots in the repository", OWN);
static FILES: Definition =
    Definition::gauge("fleet_repository_files", "Files in all snapshots together", OWN);
static STATISTICS: Definition = Definition::gauge(
    "fleet_repository_statistics_timestamp_seconds",
    "Unix time at which size, snapshots and files were read",
    OWN,
);
static LOCKS: Definition = Definition::gauge(
    "fleet_repository_locks",
    "restic's own locks in the repository as of the last look, 20 at most",
    OWN,
);
static OLDEST: Definition = Definition::gauge(
    "fleet_repository_oldest_lock_timestamp_seconds",
    "Unix time since which the oldest of these locks has not changed; absent without one",
    OWN,
);
static UNLOCK: Definition = Definition::gauge(
    "fleet_repository_last_unlock_timestamp_seconds",
    "Unix time of the last attempt to remove locks of dead processes",
    OWN,
);
static CHECK: Definition = Definition::gauge(
    "fleet_repository_last_check_timestamp_seconds",
    "Unix time of the last integrity check",
    OWN,
);

impl Measured for ResticRepository {
    fn samples(&self) -> Vec<Sample> {
        let mut samples = Samples::default();
        let none = ResticRepositoryStatus::default();
        let status = self.status.as_ref().unwrap_or(&none);
        let id = status.repository_id.clone().unwrap_or_default();
        samples.0.push(Sample::labelled(&INFO, vec![id], 1.0));
        samples.time(&CREATED, self.metadata.creation_timestamp.as_ref());
        let conditions = [(&READY, types::READY), (&DEGRADED, types::DEGRADED)];
        samples.conditions(&status.conditions, &conditions);
        samples.flag(&DAMAGED, status.damage().is_some());
        if let Some(statistics) = &status.statistics {
            samples.count(&SIZE, statistics.total_size_bytes);
            samples.count(&UNCOMPRESSED, statistics.uncompressed_size_bytes);
            samples.count(&SNAPSHOTS, statistics.snapshot_count.map(i64::from));
            samples.count(&FILES, statistics.total_file_count);
            samples.time(&STATISTICS, statistics.as_of.as_ref());
        }
        samples.length(&LOCKS, status.locks.len());
        let unchanged = status
            .locks
            .iter()
            .filter_map(|lock| lock.unchanged_since.as_ref());
        samples.time(&OLDEST, unchanged.min());
        let unlock = status.last_unlock.as_ref();
        samples.time(&UNLOCK, unlock.and_then(|unlock| unlock.time.as_ref()));
        samples.time(&CHECK, status.last_integrity_check.as_ref());
        samples.0
    }
}
