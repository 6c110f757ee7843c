//! The changes of an object that count for those that read it. Pure.

use crds::backup::BackupResult;
use crds::conditions::{self, types};
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository};

use super::relist::Change;
use crate::queue;
use crate::world::{AppPodView, ClaimView, JobView, Meta, NamespaceView};

pub(super) fn any<V>(_: &Change<V>) -> bool {
    true
}

/// Anything that is kept of a claim, its version excepted.
pub(super) fn usable(change: &Change<ClaimView>) -> bool {
    let read = |view: &ClaimView| {
        let mut view = view.clone();
        view.meta.version = 0;
        view
    };
    change.old.as_deref().map(read) != change.new.as_deref().map(read)
}

/// Anything that is kept of a pod of an application, its version excepted.
pub(super) fn seen(change: &Change<AppPodView>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => !old.is_alike(new),
        _ => true,
    }
}

/// It appeared, went, or its deletion began.
pub(super) fn presence<V>(change: &Change<V>, deleted: fn(&V) -> bool) -> bool {
    let present = |state: Option<&V>| state.is_some_and(|state| !deleted(state));
    present(change.old.as_deref()) != present(change.new.as_deref())
}

pub(super) fn deleted<K: kube::Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// What users read of a repository: its spec, whether and under which restic id it can be opened, and whether it is
/// damaged. Not its statistics and locks, which change all the time.
pub(super) fn usability(change: &Change<ResticRepository>) -> bool {
    let read = |repository: &ResticRepository| {
        let status = repository.status.as_ref();
        let ready = status.and_then(|s| conditions::get(&s.conditions, types::READY));
        // Users quote why it is not ready.
        let why = ready.map(|c| match c.status.as_str() {
            "True" => (true, String::new(), String::new()),
            _ => (false, c.reason.clone(), c.message.clone()),
        });
        let id = status.and_then(|s| s.repository_id.clone());
        // Nothing is removed from one that is damaged.
        let damage = crds::integrity::damage_of(repository);
        let meta = &repository.metadata;
        (
            meta.uid.clone(),
            meta.deletion_timestamp.is_some(),
            why,
            id,
            damage,
        )
    };
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => old.spec != new.spec || read(old) != read(new),
        _ => true,
    }
}

/// What a restore reads of the backup that it names.
pub(super) fn origin(change: &Change<ResticBackup>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            old.spec.repository_ref != new.spec.repository_ref
                || old.spec.restic != new.spec.restic
                || old.metadata.uid != new.metadata.uid
                || deleted(old.as_ref()) != deleted(new.as_ref())
        }
        _ => true,
    }
}

pub(super) fn backup_failed(change: &Change<ResticBackup>) -> bool {
    let failed = |backup: &ResticBackup| {
        let last = backup.status.as_ref()?.last_backup.as_ref()?;
        (last.result == BackupResult::Failed).then(|| last.completion_time.clone())
    };
    let (old, new) = (
        change.old.as_deref().and_then(failed),
        change.new.as_deref().and_then(failed),
    );
    new.is_some() && new != old
}

pub(super) fn policy_applied(change: &Change<GlobalRetentionPolicy>) -> bool {
    let applied = |policy: &GlobalRetentionPolicy| {
        let status = policy.status.as_ref()?;
        let removed = matches!(
            status.last_run_result.as_deref(),
            Some("Applied" | "NothingToRemove")
        );
        removed.then(|| status.last_run.clone())
    };
    let new = change.new.as_deref().and_then(applied);
    new.is_some() && new != change.old.as_deref().and_then(applied)
}

/// Anything of it but the numbers that each write changes.
pub(super) fn policy_changed(change: &Change<GlobalRetentionPolicy>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let meta = |policy: &GlobalRetentionPolicy| {
                (policy.metadata.uid.clone(), Meta::of(&policy.metadata).owner)
            };
            old.spec != new.spec
                || old.status != new.status
                || meta(old) != meta(new)
                || deleted(old.as_ref()) != deleted(new.as_ref())
        }
        _ => true,
    }
}

pub(super) fn policy_failed(change: &Change<GlobalRetentionPolicy>) -> bool {
    let failed = |policy: &GlobalRetentionPolicy| {
        let status = policy.status.as_ref()?;
        let ill = matches!(status.last_run_result.as_deref(), Some("Failed" | "Interrupted"));
        ill.then(|| (status.last_run_result.clone(), status.last_run.clone()))
    };
    let (old, new) = (
        change.old.as_deref().and_then(failed),
        change.new.as_deref().and_then(failed),
    );
    new.is_some() && new != old
}

/// Its parked runs may be opened now, or not any more, or need other places.
pub(super) fn queues_otherwise(change: &Change<ResticBackup>) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let read = |backup: &ResticBackup| {
                let deleting = backup.metadata.deletion_timestamp.is_some();
                (backup.spec.suspend, deleting, backup.spec.repository_ref.clone())
            };
            read(old) != read(new)
        }
        _ => true,
    }
}

pub(super) fn limits_otherwise(change: &Change<ResticRepository>) -> bool {
    let limit = |repository: &ResticRepository| repository.spec.max_concurrent_backups;
    change.old.as_deref().and_then(limit) != change.new.as_deref().and_then(limit)
}

/// A run of a backup is parked now, was opened, has ended, or went. Nothing follows from one that begins at once.
pub(super) fn moves_queue(change: &Change<JobView>) -> bool {
    let is_run = |job: &JobView| job.type_.is_none() && job.end.is_none();
    let parked = |job: Option<&JobView>| job.filter(|job| is_run(job)).map(queue::is_parked);
    let (old, new) = (parked(change.old.as_deref()), parked(change.new.as_deref()));
    old != new && (old, new) != (None, Some(false))
}

pub(super) fn labels(change: &Change<NamespaceView>) -> bool {
    let read = |namespace: &NamespaceView| (namespace.meta.uid.clone(), namespace.labels.clone());
    change.old.as_deref().map(read) != change.new.as_deref().map(read)
}
