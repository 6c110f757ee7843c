//! Names and labels of the objects that the controllers make, kept as the original operator spelt them.

use sha2::{Digest as _, Sha256};

/// Label on everything made for a ResticBackup: its name.
pub const LABEL_BACKUP: &str = "backup.resticbackup.io/backup";
/// Label on everything made for a ResticRestore: its name.
pub const LABEL_RESTORE: &str = "backup.resticbackup.io/restore";
/// Label on everything made for a GlobalRetentionPolicy: its name.
pub const LABEL_RETENTION: &str = "backup.resticbackup.io/retentionpolicy";
/// Label on everything made for a ResticRepository: its name.
pub const LABEL_REPOSITORY: &str = "backup.resticbackup.io/repository";
/// What a pod does: `backup`, `restore`, `retention`, `retention-on-behalf`, `unlock`, `check`, `key` or `hook`.
pub const LABEL_TYPE: &str = "backup.resticbackup.io/type";
/// Recommended labels of Kubernetes.
pub const LABEL_APP: &str = "app.kubernetes.io/name";
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of `app.kubernetes.io/name` and `/managed-by`.
pub const APP: &str = "restic-backup-operator";

/// Hash of the manifest as it was last applied: an equal hash means that there is nothing to write.
pub const ANNOTATION_APPLIED: &str = "backup.resticbackup.io/applied";
/// Set to a new value on a ResticBackup, it asks for one run now.
pub const ANNOTATION_RUN: &str = "backup.resticbackup.io/run";
/// On a ResticBackup: id of the snapshot, or its first 8 digits, with which condition Suspicious began and which is as it
/// should be.
pub const ANNOTATION_ACCEPT: &str = "backup.resticbackup.io/accept-suspicious";
/// Set to a new value on a ResticRepository, it asks for the key of the new password to be added (see
/// [`crate::rotation`]).
pub const ANNOTATION_ROTATE: &str = "backup.resticbackup.io/rotate-password";
/// On the same: id of the key of restic that is removed after the password was changed, or its first 8 digits. On the Job
/// that does it: the whole id.
pub const ANNOTATION_REMOVE_KEY: &str = "backup.resticbackup.io/remove-key";
/// On a ResticRepository: restic id, or its first 8 digits at least, of the repository that lies at the location now and is
/// meant (status.changedID). Until then no maintenance of either repository begins.
pub const ANNOTATION_ACCEPT_REPOSITORY: &str = "backup.resticbackup.io/accept-repository";
/// On the Job of a ResticRestore: full id of the snapshot that it restores.
pub const ANNOTATION_SNAPSHOT: &str = "backup.resticbackup.io/snapshot";
/// On the same: files in that snapshot, if restic has counted them.
pub const ANNOTATION_SNAPSHOT_FILES: &str = "backup.resticbackup.io/snapshot-files";
/// On the same: what its spec asked for when the Job was made, as JSON.
pub const ANNOTATION_ASKED: &str = "backup.resticbackup.io/asked";
/// On a claim that a ResticRestore made: uid of the restore.
pub const ANNOTATION_RESTORE_UID: &str = "backup.resticbackup.io/restore-uid";
/// On a GlobalRetentionPolicy: hash of a plan that may be carried out although it is over the guard. On a Job: the same.
pub const ANNOTATION_APPROVE: &str = "backup.resticbackup.io/approve-plan";
/// On the pods of a maintenance Job: fencing token of the lease under which they run.
pub const ANNOTATION_TOKEN: &str = "backup.resticbackup.io/token";
/// On the same: life of the lease in milliseconds, and how often it is renewed.
pub const ANNOTATION_LEASE_TTL: &str = "backup.resticbackup.io/lease-ttl";
pub const ANNOTATION_LEASE_RENEW: &str = "backup.resticbackup.io/lease-renew";
/// On the same: how often the lease was renewed. The pod ends itself when it does not move for the life of the lease.
pub const ANNOTATION_RENEWALS: &str = "backup.resticbackup.io/renewals";
/// On the same: what to do, fleet.v1.RetentionRun, UnlockRun, CheckRun or KeyRun as JSON.
pub const ANNOTATION_ORDER: &str = "backup.resticbackup.io/order";
/// On the same: proto::digest::run_hash of the run in the order, as hex digits.
pub const ANNOTATION_ORDER_HASH: &str = "backup.resticbackup.io/order-hash";
/// On a maintenance Job: restic id of the repository that it was made for, and namespace and name of the
/// ResticRepository. Written when the Job is first seen; its lease is for this id, whatever its owner refers to later.
pub const ANNOTATION_RESTIC_ID: &str = "backup.resticbackup.io/restic-id";
pub const ANNOTATION_REPOSITORY: &str = "backup.resticbackup.io/repository-ref";
/// On the same: uid of the custom resource that it works for.
pub const ANNOTATION_OWNER_UID: &str = "backup.resticbackup.io/owner-uid";
/// On the same: why it was shut for good, such as `TakenBack`, and a sentence.
pub const ANNOTATION_SHUT_REASON: &str = "backup.resticbackup.io/shut-reason";
pub const ANNOTATION_SHUT_MESSAGE: &str = "backup.resticbackup.io/shut-message";
/// On the same: token that was given back; 0 if it never held one. Nothing is left to do for its lease.
pub const ANNOTATION_RELEASED: &str = "backup.resticbackup.io/released";
/// On a Job that replaces one which was interrupted: how many were before it, and when it asks for the lock at the
/// earliest (seconds since 1970).
pub const ANNOTATION_ATTEMPT: &str = "backup.resticbackup.io/attempt";
pub const ANNOTATION_NOT_BEFORE: &str = "backup.resticbackup.io/not-before";
/// On the same: the reason for which the Job before it did not do its work, such as `StaleLock`.
pub const ANNOTATION_FOLLOWS: &str = "backup.resticbackup.io/follows";
/// On the Job of a run with hooks: the hooks, as its pods were given them.
pub const ANNOTATION_HOOKS: &str = "backup.resticbackup.io/hooks";
/// On the Job of a backup that waits for its turn: it was made suspended for that, and is opened with the mark taken off.
pub const ANNOTATION_PARKED: &str = "backup.resticbackup.io/parked";
/// On a Job or a ResticRestore that was made for a command of the hub: id of the command.
pub const ANNOTATION_COMMAND: &str = "backup.resticbackup.io/command";
/// On the Job of a retention run: it shows what would be removed, and removes nothing.
pub const ANNOTATION_PREVIEW: &str = "backup.resticbackup.io/preview";
/// On a PersistentVolumeClaim or a namespace: why nobody backs it up. It is not counted as missing a backup then.
pub const ANNOTATION_EXCLUDE: &str = "backup.resticbackup.io/exclude";
/// When that ends: a day such as 2027-03-01, at its begin in UTC, or a time as of RFC 3339.
pub const ANNOTATION_EXCLUDE_UNTIL: &str = "backup.resticbackup.io/exclude-until";
/// On the Job of a retention run that the hub asked for: the policy of a cluster that is away in whose place it runs.
pub const ANNOTATION_ON_BEHALF: &str = "backup.resticbackup.io/on-behalf-of";
/// What kubectl writes on a Job that it makes from a CronJob, and the operator on one that was asked for.
pub const ANNOTATION_INSTANTIATE: &str = "cronjob.kubernetes.io/instantiate";
/// ConfigMap with the entrypoint, one in each namespace that has backups.
pub const SCRIPTS: &str = "restic-operator-scripts";

/// Longest CronJob name: the controller appends 11 characters for the Jobs it makes.
pub const CRON_JOB_MAX: usize = 52;
/// Longest name where a label value or a host name is made of it.
pub const LABEL_MAX: usize = 63;

/// `<prefix><name>`, cut and hashed when longer than `max`, so that two long names never meet.
#[must_use]
pub fn bounded(prefix: &str, name: &str, max: usize) -> String {
    let full = format!("{prefix}{name}");
    if full.len() <= max {
        return full;
    }
    let hash = short_hash(full.as_bytes());
    let room = max.saturating_sub(hash.len() + 1);
    let kept: String = full.chars().take(room).collect();
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}

/// First 8 hex digits of SHA-256.
#[must_use]
pub fn short_hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes)).chars().take(8).collect()
}

/// Job that a CronJob's template makes for a command of the hub. The id is always whole: one command makes one Job.
#[must_use]
pub fn command_job(cron_job: &str, id: &str) -> String {
    let suffix = format!("-{id}");
    let room = LABEL_MAX.saturating_sub(suffix.len());
    format!("{}{suffix}", bounded("", cron_job, room))
}

/// Id of the command that the Job of this name was made for, if it was made for one: 16 of 0-9 and a-v.
#[must_use]
pub fn command_of_job<'a>(cron_job: &str, job: &'a str) -> Option<&'a str> {
    let (_, id) = job.rsplit_once('-')?;
    let is = id.len() == 16
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'v').contains(&b));
    (is && command_job(cron_job, id) == job).then_some(id)
}

/// ResticRestore that a command of the hub makes.
#[must_use]
pub fn command_restore(id: &str) -> String {
    format!("restore-{id}")
}

/// CronJob of a ResticBackup.
#[must_use]
pub fn backup_cron_job(name: &str) -> String {
    bounded("resticbackup-", name, CRON_JOB_MAX)
}

/// GlobalRetentionPolicy that a ResticBackup with `retention` makes.
#[must_use]
pub fn backup_retention(name: &str) -> String {
    bounded("resticbackup-", name, CRON_JOB_MAX)
}

/// ServiceAccount of a ResticBackup's pods.
#[must_use]
pub fn backup_service_account(name: &str) -> String {
    bounded("resticbackup-", name, LABEL_MAX)
}

/// Secret with what a ResticBackup may use of a repository in another namespace.
#[must_use]
pub fn backup_credentials(name: &str) -> String {
    bounded("resticbackup-", &format!("{name}-credentials"), LABEL_MAX)
}

/// Claim for the cache of a ResticBackup's pods.
#[must_use]
pub fn backup_cache(name: &str) -> String {
    bounded("resticbackup-", &format!("{name}-cache"), LABEL_MAX)
}

/// Job that runs hooks which a run of a ResticBackup or a ResticRestore owes. `prefix` is the name of its account.
#[must_use]
pub fn hook_job(prefix: &str, run_uid: &str) -> String {
    let suffix = format!("-hook-{}", short_hash(run_uid.as_bytes()));
    let room = LABEL_MAX.saturating_sub(suffix.len());
    format!("{}{suffix}", bounded("", prefix, room))
}

/// CronJob of a GlobalRetentionPolicy.
#[must_use]
pub fn retention_cron_job(name: &str) -> String {
    bounded("globalretention-", name, CRON_JOB_MAX)
}

/// ServiceAccount of a GlobalRetentionPolicy's pods.
#[must_use]
pub fn retention_service_account(name: &str) -> String {
    bounded("globalretention-", name, LABEL_MAX)
}

/// Secret with what a GlobalRetentionPolicy may use of a repository in another namespace.
#[must_use]
pub fn retention_credentials(name: &str) -> String {
    bounded("globalretention-", &format!("{name}-credentials"), LABEL_MAX)
}

/// Job of a ResticRestore.
#[must_use]
pub fn restore_job(name: &str) -> String {
    bounded("resticrestore-", name, LABEL_MAX)
}

/// ServiceAccount of a ResticRestore's pod.
#[must_use]
pub fn restore_service_account(name: &str) -> String {
    bounded("resticrestore-", name, LABEL_MAX)
}

/// Secret with what a ResticRestore may use of a repository in another namespace.
#[must_use]
pub fn restore_credentials(name: &str) -> String {
    bounded("resticrestore-", &format!("{name}-credentials"), LABEL_MAX)
}

/// Job that removes left-over locks from a ResticRepository.
#[must_use]
pub fn unlock_job(name: &str) -> String {
    bounded("resticunlock-", name, LABEL_MAX)
}

/// Job that adds or removes a key of a ResticRepository.
#[must_use]
pub fn key_job(name: &str) -> String {
    bounded("resticrotate-", name, LABEL_MAX)
}

/// First part of the name of a Job that runs retention of a ResticRepository for a cluster that is away.
#[must_use]
pub fn behalf_job(name: &str) -> String {
    bounded("resticretention-", name, CRON_JOB_MAX)
}

/// CronJob of a ResticRepository's integrity checks.
#[must_use]
pub fn check_cron_job(name: &str) -> String {
    bounded("integritycheck-", name, CRON_JOB_MAX)
}

/// Secret with a ResticRepository's location, beside the repository.
#[must_use]
pub fn repository_location(name: &str) -> String {
    bounded("resticrepository-", name, LABEL_MAX)
}

/// Whether a CronJob, Job or pod of this name may be one of ours.
#[must_use]
pub fn is_of_a_run(name: &str) -> bool {
    [
        "resticbackup-",
        "resticrestore-",
        "globalretention-",
        "resticunlock-",
        "resticrotate-",
        "resticretention-",
        "integritycheck-",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// Whether a Secret of this name may hold the keys of a repository.
#[must_use]
pub fn is_of_credentials(name: &str) -> bool {
    name.starts_with("resticrepository-") || is_of_a_run(name)
}

/// A custom resource's name as a label value, which is limited to 63 characters.
#[must_use]
pub fn label_value(name: &str) -> String {
    bounded("", name, LABEL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay_as_they_are() {
        assert_eq!(backup_cron_job("app"), "resticbackup-app");
        let all = [
            backup_cron_job("a"),
            restore_job("a"),
            retention_cron_job("a"),
            unlock_job("a"),
            key_job("a"),
            behalf_job("a"),
            check_cron_job("a"),
        ];
        assert!(all.iter().all(|name| is_of_a_run(name)) && !is_of_a_run("app"));
    }

    #[test]
    fn long_names_fit_and_differ() {
        let (a, b) = ("x".repeat(60), format!("{}y", "x".repeat(60)));
        assert!(backup_cron_job(&a).len() <= CRON_JOB_MAX);
        assert_ne!(backup_cron_job(&a), backup_cron_job(&b));
    }

    #[test]
    fn a_cut_name_does_not_end_in_a_separator_before_its_hash() {
        let name = format!("{}-{}", "x".repeat(29), "y".repeat(40));
        assert!(!backup_cron_job(&name).contains("--"));
    }
}
