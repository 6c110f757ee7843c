//! Series of retention policies.

use crds::conditions::{self, reasons, types};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::definition::{Definition, OWN};
use super::resources::{Measured, Sample};
use super::values::{Samples, Scheduled};

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
    "1 while a run waits for the maintenance lock or its pod; 0 while it waits for spec.allowedWindow, or for a repository that is read-only",
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
        let none = GlobalRetentionPolicyStatus::default();
        let status = self.status.as_ref().unwrap_or(&none);
        samples.scheduled(
            [&INFO, &CREATED, &SUSPENDED, &RUNNING, &NEXT],
            &Scheduled {
                meta: &self.metadata,
                repository: &self.spec.repository_ref,
                suspended: self.spec.suspend,
                running: status.active.len(),
                next: status.next_run.as_ref(),
            },
        );
        let conditions = [
            (&READY, types::READY),
            (&DEGRADED, types::DEGRADED),
            (&APPROVAL, types::APPROVAL_REQUIRED),
        ];
        samples.conditions(&status.conditions, &conditions);
        samples.flag(&WAITING, waits(&status.conditions));
        samples.time(&LAST, status.last_run.as_ref());
        let result = status.last_run_result.as_deref();
        samples.state(&RESULT, RESULTS, result, Some("Failed"));
        samples.count(&REMOVED, status.snapshots_removed.map(i64::from));
        samples.count(&BEFORE, status.repository_size_before_bytes);
        samples.count(&AFTER, status.repository_size_after_bytes);
        samples.0
    }
}

/// Whether a run waits for something that a person may have to look at. A window that is closed is as somebody wants it.
fn waits(conditions: &[Condition]) -> bool {
    let waiting = conditions::get(conditions, types::WAITING);
    conditions::is_true(conditions, types::WAITING)
        && waiting.is_some_and(|waiting| waiting.reason != reasons::MAINTENANCE_CLOSED)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_closed_window_is_no_wait_and_a_lock_is_one() {
        for (reason, wanted) in [
            (reasons::MAINTENANCE_CLOSED, false),
            (reasons::WAITING_FOR_LOCK, true),
            (reasons::HUB_AWAY, true),
        ] {
            let mut list = Vec::new();
            conditions::Conditions::at(&mut list, None, Timestamp::UNIX_EPOCH).set(
                types::WAITING,
                true,
                reason,
                "x",
            );
            assert_eq!(waits(&list), wanted, "{reason}");
        }
        assert!(!waits(&[]));
    }
}
