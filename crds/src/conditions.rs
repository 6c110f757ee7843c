//! Conditions by the Kubernetes API conventions: one entry per type, the transition time moves only with the status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition types.
pub mod types {
    /// The resource does what its spec asks for. What `kubectl wait --for=condition=Ready` looks at.
    pub const READY: &str = "Ready";
    /// The referenced repository is Ready.
    pub const REPOSITORY_READY: &str = "RepositoryReady";
    /// Work on the resource is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// The resource works, but its last result was not what it should have been.
    pub const DEGRADED: &str = "Degraded";
    /// The resource waits for something that it names.
    pub const WAITING: &str = "Waiting";
    /// The spec has fields that are accepted and ignored.
    pub const NOT_IN_EFFECT: &str = "NotInEffect";
    /// A backup stored far less than it used to: its snapshots are not removed.
    pub const SUSPICIOUS: &str = "Suspicious";
    /// A restore is over and well, as of a Job.
    pub const COMPLETE: &str = "Complete";
    /// A restore is over and has failed, as of a Job.
    pub const FAILED: &str = "Failed";
    /// No run has succeeded for two slots of the schedule.
    pub const STALE: &str = "Stale";
    /// spec.retention of a backup does what it asks for.
    pub const RETENTION_READY: &str = "RetentionReady";
    /// A change of the repository's password is under way: its message has the next step.
    pub const PASSWORD_ROTATION: &str = "PasswordRotation";
    /// Nothing writes into the repository, by its spec.
    pub const READ_ONLY: &str = "ReadOnly";
    /// Another store holds a repository with the same id.
    pub const COPIED: &str = "Copied";
    /// A person has to approve before the resource goes on.
    pub const APPROVAL_REQUIRED: &str = "ApprovalRequired";
}

/// Reasons. Those of the original operator keep their spelling.
pub mod reasons {
    pub const INVALID_SPEC: &str = "InvalidSpec";
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    pub const INVALID_SOURCE: &str = "InvalidSource";
    pub const TEMPLATE_NOT_ALLOWED: &str = "TemplateNotAllowed";
    pub const IMAGE_NOT_ALLOWED: &str = "ImageNotAllowed";
    pub const DOES_NOT_APPLY: &str = "DoesNotApply";
    pub const CRASHED: &str = "Crashed";
    pub const API_ERROR: &str = "ApiError";

    pub const CREDENTIALS_NOT_FOUND: &str = "CredentialsNotFound";
    pub const CREDENTIALS_INVALID: &str = "CredentialsInvalid";
    pub const WRONG_PASSWORD: &str = "WrongPassword";
    pub const REPOSITORY_LOCKED: &str = "RepositoryLocked";
    pub const REPOSITORY_UNREACHABLE: &str = "RepositoryUnreachable";
    pub const REPOSITORY_DAMAGED: &str = "RepositoryDamaged";
    pub const REPOSITORY_FORBIDDEN: &str = "RepositoryForbidden";
    pub const REPOSITORY_MISSING: &str = "RepositoryMissing";
    pub const REPOSITORY_CHANGED: &str = "RepositoryChanged";
    pub const REPOSITORY_ACCEPTED: &str = "RepositoryAccepted";
    pub const REPOSITORY_READ_ONLY: &str = "RepositoryReadOnly";
    pub const REPOSITORY_WRITABLE: &str = "RepositoryWritable";
    pub const COPY_FOUND: &str = "CopyFound";
    pub const STORE_UNCLEAR: &str = "StoreUnclear";
    pub const ONE_STORE: &str = "OneStore";
    pub const RESTIC_FAILED: &str = "ResticFailed";
    pub const INITIALIZATION_FAILED: &str = "InitializationFailed";
    pub const REPOSITORY_INITIALIZED: &str = "RepositoryInitialized";
    pub const REPOSITORY_ACCESSIBLE: &str = "RepositoryAccessible";
    pub const CHECKING: &str = "Checking";
    pub const REPOSITORY_UNLOCKED: &str = "RepositoryUnlocked";
    pub const UNLOCK_FAILED: &str = "UnlockFailed";
    pub const KEY_ADDING: &str = "KeyAdding";
    pub const SWITCH_SECRET: &str = "SwitchSecret";
    pub const OLD_KEY_STAYS: &str = "OldKeyStays";
    pub const KEY_REMOVING: &str = "KeyRemoving";
    pub const ROTATION_FAILED: &str = "PasswordRotationFailed";
    pub const PASSWORD_ROTATED: &str = "PasswordRotated";
    pub const CHECK_RUNNING: &str = "IntegrityCheckRunning";
    pub const CHECK_PASSED: &str = "IntegrityCheckPassed";

    pub const REPOSITORY_NOT_FOUND: &str = "RepositoryNotFound";
    pub const REPOSITORY_NOT_READY: &str = "RepositoryNotReady";
    pub const REPOSITORY_READY: &str = "RepositoryReady";
    pub const NAMESPACE_NOT_ALLOWED: &str = "NamespaceNotAllowed";
    pub const PVC_NOT_FOUND: &str = "PersistentVolumeClaimNotFound";
    pub const PVC_NOT_BOUND: &str = "PersistentVolumeClaimNotBound";
    pub const PVC_NOT_USABLE: &str = "PersistentVolumeClaimNotUsable";
    pub const PVC_IN_USE: &str = "PersistentVolumeClaimInUse";
    pub const POD_NOT_FOUND: &str = "PodNotFound";
    pub const POD_VOLUME_NOT_USABLE: &str = "PodVolumeNotUsable";
    pub const POD_VOLUME_AMBIGUOUS: &str = "PodVolumeAmbiguous";
    pub const BACKUP_CONFIGURED: &str = "BackupConfigured";
    pub const CRON_JOB_FAILED: &str = "CronJobFailed";
    pub const SERVICE_ACCOUNT_FAILED: &str = "ServiceAccountFailed";
    pub const ROLE_FAILED: &str = "RoleFailed";
    pub const SECRET_FAILED: &str = "SecretFailed";
    pub const BACKUP_SUCCEEDED: &str = "BackupSucceeded";
    pub const BACKUP_PARTIALLY_FAILED: &str = "BackupPartiallyFailed";
    pub const BACKUP_FAILED: &str = "BackupFailed";
    pub const BACKUP_STARTING: &str = "BackupStarting";
    pub const PARKED: &str = "Parked";
    pub const BACKUP_RUNNING: &str = "BackupRunning";
    pub const PRE_HOOK_FAILED: &str = "PreHookFailed";
    pub const POST_HOOK_FAILED: &str = "PostHookFailed";
    pub const NO_RECENT_SUCCESS: &str = "NoRecentSuccess";
    pub const WITHIN_SCHEDULE: &str = "WithinSchedule";
    pub const SOURCE_EMPTY: &str = "SourceEmpty";
    pub const SOURCE_SHRUNK: &str = "SourceShrunk";
    pub const NO_RUN_YET: &str = "NoRunYet";
    pub const IDLE: &str = "Idle";

    pub const RETENTION_CONFIGURED: &str = "RetentionPolicyConfigured";
    pub const RETENTION_SUCCEEDED: &str = "RetentionSucceeded";
    pub const RETENTION_FAILED: &str = "RetentionFailed";
    pub const RETENTION_PREVIEWED: &str = "RetentionPreviewed";
    pub const RETENTION_RUNNING: &str = "RetentionRunning";
    pub const RETENTION_STARTING: &str = "RetentionStarting";
    pub const RETENTION_SUSPENDED: &str = "RetentionSuspended";
    pub const RETENTION_POLICY_EXISTS: &str = "RetentionPolicyExists";
    pub const RETENTION_POLICY_FAILED: &str = "RetentionPolicyFailed";
    pub const RULE_REFUSED: &str = "RuleRefused";
    pub const APPROVAL_REQUIRED: &str = "PlanOverGuard";
    pub const WAITING_FOR_LOCK: &str = "WaitingForLock";
    pub const HUB_AWAY: &str = "HubAway";
    pub const HUB_REQUIRED: &str = "HubRequired";
    pub const CLUSTER_NAME_DIFFERS: &str = "ClusterNameDiffers";
    pub const CLUSTER_NOT_JOINED: &str = "ClusterNotJoined";
    pub const CLUSTER_CERTIFICATE_EXPIRED: &str = "ClusterCertificateExpired";
    pub const MAINTENANCE_CLOSED: &str = "MaintenanceClosed";
    pub const MAINTENANCE_FORBIDDEN: &str = "MaintenanceForbidden";
    pub const TAKEN_BACK: &str = "TakenBack";
    pub const UNKNOWN_PLAN: &str = "UnknownPlan";

    pub const BACKUP_NOT_FOUND: &str = "BackupNotFound";
    pub const SELECTING_SNAPSHOT: &str = "SelectingSnapshot";
    pub const SNAPSHOT_NOT_FOUND: &str = "SnapshotNotFound";
    pub const SNAPSHOT_AMBIGUOUS: &str = "SnapshotAmbiguous";
    pub const TARGET_EXISTS: &str = "TargetExists";
    pub const TARGET_FAILED: &str = "TargetFailed";
    pub const JOB_CREATION_FAILED: &str = "JobCreationFailed";
    pub const JOB_NOT_FOUND: &str = "JobNotFound";
    pub const RESTORE_STARTED: &str = "RestoreStarted";
    pub const RESTORE_IN_PROGRESS: &str = "RestoreInProgress";
    pub const RESTORE_COMPLETED: &str = "RestoreCompleted";
    pub const RESTORE_PREVIEWED: &str = "RestorePreviewed";
    pub const RESTORE_FAILED: &str = "RestoreFailed";
    pub const SNAPSHOT_PATH_NOT_FOUND: &str = "SnapshotPathNotFound";
    pub const SNAPSHOT_EMPTY: &str = "SnapshotEmpty";
    pub const SNAPSHOT_PARTIAL: &str = "SnapshotPartial";
    pub const ATTRIBUTES_NOT_RESTORED: &str = "AttributesNotRestored";
    pub const VERIFICATION_SKIPPED: &str = "VerificationSkipped";
    pub const NOTHING_MATCHED: &str = "NothingMatched";
    pub const POD_NEVER_STARTED: &str = "PodNeverStarted";
}

/// Sets one condition. `lastTransitionTime` stays where the status stays, so an unchanged condition is an unchanged
/// value and needs no write.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: Status,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut next = Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(whole_seconds(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(present) => {
            if present.status == next.status {
                next.last_transition_time = present.last_transition_time.clone();
            }
            *present = next;
        }
        None => conditions.push(next),
    }
}

/// The conditions of one status, as one turn writes them.
///
/// ```text
/// Conditions::at(&mut status.conditions, generation, now)
///     .set(types::READY, true, reasons::BACKUP_CONFIGURED, "scheduled")
///     .remove(types::WAITING);
/// ```
pub struct Conditions<'a> {
    list: &'a mut Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl<'a> Conditions<'a> {
    /// Conditions that were observed at this generation, now.
    pub fn at(list: &'a mut Vec<Condition>, generation: Option<i64>, now: Timestamp) -> Conditions<'a> {
        Conditions {
            list,
            generation,
            now,
        }
    }

    /// Sets one condition; see [`set`].
    pub fn set(
        &mut self,
        type_: &str,
        status: impl Into<Status>,
        reason: &str,
        message: impl AsRef<str>,
    ) -> &mut Self {
        let message = message.as_ref();
        set(
            self.list,
            type_,
            status.into(),
            reason,
            message,
            self.generation,
            self.now,
        );
        self
    }

    /// Removes the condition of a type.
    pub fn remove(&mut self, type_: &str) -> &mut Self {
        self.list.retain(|c| c.type_ != type_);
        self
    }
}

/// The condition of a type.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of a type is present and `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

/// Status of a condition. `Unknown` is a status of its own and never counts as `True`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    /// Spelling in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::True => "True",
            Status::False => "False",
            Status::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(value: bool) -> Self {
        if value { Status::True } else { Status::False }
    }
}

/// The API server stores times in whole seconds; rounding first keeps a written status equal to the one read back.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", Status::False, "A", "a", Some(1), at(10));
        set(&mut conditions, "Ready", Status::False, "B", "b", Some(2), at(20));
        assert_eq!(conditions[0].last_transition_time, Time(at(10)));
        assert_eq!(
            (conditions[0].reason.as_str(), conditions[0].observed_generation),
            ("B", Some(2))
        );
        set(&mut conditions, "Ready", Status::True, "C", "c", Some(2), at(30));
        assert_eq!(conditions[0].last_transition_time, Time(at(30)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn unknown_is_not_true() {
        let mut conditions = Vec::new();
        set(&mut conditions, "Ready", Status::Unknown, "A", "", None, at(1));
        assert!(!is_true(&conditions, "Ready"));
        assert!(!is_true(&conditions, "Absent"));
    }

    /// Each reason is explained where users look it up.
    #[test]
    fn each_reason_is_in_the_documentation() {
        let (source, page) = (
            include_str!("conditions.rs"),
            include_str!("../../docs/conditions.md"),
        );
        let reasons = source.split("pub mod reasons {").nth(1).unwrap();
        let reasons = reasons.split("\n}").next().unwrap();
        let values = reasons.lines().filter_map(|line| line.split('"').nth(1));
        let missing: Vec<&str> = values
            .filter(|reason| !page.contains(&format!("`{reason}`")))
            .collect();
        assert!(missing.is_empty(), "not in docs/conditions.md: {missing:?}");
    }
}
