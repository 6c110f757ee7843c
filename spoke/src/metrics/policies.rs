//! Series of retention policies.

use crds::GlobalRetentionPolicy;
use crds::conditions::types;

use super::definition::Definition;
use super::resources::{Measured, Sample};
use super::values::Samples;

const OWN: &[&str] = &["namespace", "name"];
/// Results of a run; whatever else a status may hold counts as Failed.
const RESULTS: &[&str] = &[
    "Applied",
    "NothingToRemove",
    "Preview",
    "ApprovalRequired",
    "Failed",
];

pub(super) static ALL: &[&Definition] = &[
    &INFO, &CREATED, &READY, &SUSPENDED, &DEGRADED, &APPROVAL, &WAITING, &RUNNING, &NEXT, &LAST, &RESULT,
    &REMOVED, &BEFORE, &AFTER,
];

static INFO: Definition = Definition::gauge(
    "fleet_retention_info",
    "1 for each GlobalRetentionPolicy; names its repository",
    &["namespace", "name", "repository_namespace", "repository"],
);
static CREATED: Definition = Definition::gauge(
    "fleet_retention_created_timestamp_seconds",
    "Unix time at which the GlobalRetentionPolicy was created",
    OWN,
);
static READY: Definition = Definition::gauge("fleet_retention_ready", "1 while the policy is Ready", OWN);
static SUSPENDED: Definition =
    Definition::gauge("fleet_retention_suspended", "1 while spec.suspend is true", OWN);
static DEGRADED: Definition = Definition::gauge(
    "fleet_retention_degraded",
    "1 while the last run was not what it should have been",
    OWN,
);
static APPROVAL: Definition = Definition::gauge(
    "fleet_retention_approval_required",
    "1 while a plan waits for a person",
    OWN,
);
static WAITING: Definition = Definition::gauge(
    "fleet_retention_waiting",
    "1 while a run waits, such as for the maintenance lock",
    OWN,
);
static RUNNING: Definition = Definition::gauge(
    "fleet_retention_running",
    "Jobs of the policy that run or wait for the lock",
    OWN,
);
static NEXT: Definition = Definition::gauge(
    "fleet_retention_next_run_timestamp_seconds",
    "Unix time of the next run of the schedule; absent while there is none",
    OWN,
);
static LAST: Definition = Definition::gauge(
    "fleet_retention_last_run_timestamp_seconds",
    "Unix time of the end of the last run, whatever its result; absent before the first",
    OWN,
);
static RESULT: Definition = Definition::gauge(
    "fleet_retention_last_result",
    "1 for the result of the last run (Applied, NothingToRemove, Preview, ApprovalRequired, Failed), 0 for the others",
    &["namespace", "name", "result"],
);
static REMOVED: Definition = Definition::gauge(
    "fleet_retention_last_removed_snapshots",
    "Snapshots that the last run removed",
    OWN,
);
static BEFORE: Definition = Definition::gauge(
    "fleet_retention_repository_size_before_bytes",
    "Bytes stored before the last run that pruned",
    OWN,
);
static AFTER: Definition = Definition::gauge(
    "fleet_retention_repository_size_after_bytes",
    "Bytes stored after the last run that pruned",
    OWN,
);

impl Measured for GlobalRetentionPolicy {
    fn samples(&self) -> Vec<Sample> {
        let mut samples = Samples::default();
        let status = self.status.clone().unwrap_or_default();
        let own = self.metadata.namespace.clone().unwrap_or_default();
        let reference = &self.spec.repository_ref;
        let repository = vec![reference.namespace_or(&own).to_owned(), reference.name.clone()];
        samples.0.push(Sample::labelled(&INFO, repository, 1.0));
        samples.time(&CREATED, self.metadata.creation_timestamp.as_ref());
        samples.flag(&SUSPENDED, self.spec.suspend);
        for (of, type_) in [
            (&READY, types::READY),
            (&DEGRADED, types::DEGRADED),
            (&APPROVAL, types::APPROVAL_REQUIRED),
            (&WAITING, types::WAITING),
        ] {
            samples.condition(of, &status.conditions, type_);
        }
        samples.length(&RUNNING, status.active.len());
        samples.time(&NEXT, status.next_run.as_ref());
        samples.time(&LAST, status.last_run.as_ref());
        let result = status.last_run_result.as_deref();
        samples.state(&RESULT, RESULTS, result, Some("Failed"));
        samples.count(&REMOVED, status.snapshots_removed.map(i64::from));
        samples.count(&BEFORE, status.repository_size_before_bytes);
        samples.count(&AFTER, status.repository_size_after_bytes);
        samples.0
    }
}
