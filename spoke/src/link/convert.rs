//! Custom resources as the hub sees them: their status, and no secret.

use crds::backup::{BackupResult, BackupRun};
use crds::conditions::{self, types};
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use proto::time::from_unix_millis;
use proto::v1::{self, ObjectState, object_state::Body};

use crate::secrets::redact;

/// A repository's state.
#[must_use]
pub fn repository_state(repository: &ResticRepository) -> ObjectState {
    let status = repository.status.clone().unwrap_or_default();
    let statistics = status
        .statistics
        .as_ref()
        .map(|figures| v1::RepositoryStatistics {
            as_of: figures.as_of.as_ref().map(time),
            stored_bytes: unsigned(figures.total_size_bytes),
            uncompressed_bytes: unsigned(figures.uncompressed_size_bytes),
            snapshots: unsigned(figures.snapshot_count.map(i64::from)),
            hosts: figures
                .hosts
                .iter()
                .map(|host| v1::HostStatistics {
                    host: host.host.clone(),
                    snapshots: unsigned(Some(host.snapshot_count.into())),
                    latest: host.latest_snapshot.as_ref().map(time),
                })
                .collect(),
        });
    let body = v1::RepositoryState {
        url: redact(&repository.spec.repository_url),
        restic_id: status.repository_id.clone().unwrap_or_default(),
        statistics,
        locks: status.locks.iter().map(restic_lock).collect(),
    };
    object(&repository.metadata, &status.conditions, Body::Repository(body))
}

fn restic_lock(lock: &crds::repository::ResticLock) -> v1::ResticLock {
    v1::ResticLock {
        id: lock.id.clone(),
        exclusive: lock.exclusive,
        user: lock.user.clone().unwrap_or_default(),
        host: lock.host.clone().unwrap_or_default(),
        created: lock.created.as_ref().map(time),
        kept_because: lock.kept_because.clone().unwrap_or_default(),
        unchanged_since: lock.unchanged_since.as_ref().map(time),
    }
}

/// A backup's state. `repository` is what it refers to, if that exists.
#[must_use]
pub fn backup_state(backup: &ResticBackup, repository: Option<&ResticRepository>) -> ObjectState {
    let status = backup.status.clone().unwrap_or_default();
    let spec = &backup.spec;
    let namespace = backup.metadata.namespace.as_deref().unwrap_or_default();
    let figures = status.statistics.clone().unwrap_or_default();
    let source = match (
        &spec.source.pvc,
        &spec.source.pod_volume_backup,
        &spec.source.custom_source,
    ) {
        (Some(pvc), ..) => format!("pvc/{}", pvc.claim_name),
        (_, Some(volume), _) => format!("podVolume/{}", volume.volume_name),
        (.., Some(_)) => "custom".to_owned(),
        _ => String::new(),
    };
    let body = v1::BackupState {
        repository_namespace: spec.repository_ref.namespace_or(namespace).to_owned(),
        repository_name: spec.repository_ref.name.clone(),
        restic_id: repository
            .and_then(|r| r.status.as_ref()?.repository_id.clone())
            .unwrap_or_default(),
        schedule: spec.schedule.clone(),
        timezone: spec.timezone.clone().unwrap_or_default(),
        suspended: spec.suspend,
        last_run: status.last_backup.as_ref().map(run),
        last_success: status.last_successful_backup.as_ref().map(time),
        next_run: status.next_backup.as_ref().map(time),
        runs_total: unsigned(Some(figures.total_backups.into())),
        runs_succeeded: unsigned(Some(figures.successful_backups.into())),
        runs_failed: unsigned(Some(figures.failed_backups.into())),
        running: conditions::is_true(&status.conditions, types::PROGRESSING),
        source,
    };
    object(&backup.metadata, &status.conditions, Body::Backup(body))
}

/// A retention policy's state. `spec` is what it asks for, if that is valid.
#[must_use]
pub fn policy_state(
    policy: &GlobalRetentionPolicy,
    repository: Option<&ResticRepository>,
    spec: Option<v1::RetentionPolicySpec>,
) -> ObjectState {
    let status = policy.status.clone().unwrap_or_default();
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let reference = &policy.spec.repository_ref;
    let body = v1::PolicyState {
        repository_namespace: reference.namespace_or(namespace).to_owned(),
        repository_name: reference.name.clone(),
        restic_id: repository
            .and_then(|r| r.status.as_ref()?.repository_id.clone())
            .unwrap_or_default(),
        spec,
        schedule: policy.spec.schedule.clone(),
        suspended: policy.spec.suspend,
        last_run: status.last_run.as_ref().map(time),
        last_result: status.last_run_result.clone().unwrap_or_default(),
    };
    object(&policy.metadata, &status.conditions, Body::Policy(body))
}

fn run(run: &BackupRun) -> v1::BackupRun {
    let result = match run.result {
        BackupResult::Succeeded => v1::BackupResult::Succeeded,
        BackupResult::PartiallyFailed => v1::BackupResult::PartiallyFailed,
        BackupResult::Failed => v1::BackupResult::Failed,
    };
    v1::BackupRun {
        started: run.start_time.as_ref().map(time),
        finished: run.completion_time.as_ref().map(time),
        result: result.into(),
        reason: run.reason.clone().unwrap_or_default(),
        message: run.message.clone().unwrap_or_default(),
        snapshot_id: run.snapshot_id.clone().unwrap_or_default(),
        bytes_added: unsigned(run.bytes_added),
        bytes_processed: unsigned(run.bytes_processed),
        files_processed: unsigned(run.files_processed),
    }
}

fn object(meta: &ObjectMeta, conditions: &[Condition], body: Body) -> ObjectState {
    ObjectState {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        created: meta.creation_timestamp.as_ref().map(time),
        conditions: conditions.iter().map(condition).collect(),
        body: Some(body),
    }
}

fn condition(condition: &Condition) -> v1::Condition {
    v1::Condition {
        r#type: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition: Some(time(&condition.last_transition_time)),
    }
}

fn time(Time(time): &Time) -> prost_types::Timestamp {
    millis(*time)
}

fn millis(time: Timestamp) -> prost_types::Timestamp {
    from_unix_millis(time.as_millisecond())
}

fn unsigned(count: Option<i64>) -> u64 {
    count.and_then(|c| u64::try_from(c).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_password_in_a_url_never_leaves_the_cluster() {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryURL": "rest:https://fleet:hidden@nas:8000/", "credentialsSecretRef": { "name": "nas" } },
            "status": { "repositoryID": "f00d", "statistics": { "totalSizeBytes": 5, "snapshotCount": 2 } },
        }))
        .unwrap();
        let state = repository_state(&repository);
        assert!(!format!("{state:?}").contains("hidden"));
        let Some(Body::Repository(body)) = state.body else {
            panic!()
        };
        assert_eq!(
            (body.restic_id.as_str(), body.statistics.unwrap().stored_bytes),
            ("f00d", 5)
        );
    }

    #[test]
    fn a_backup_tells_its_last_run() {
        let backup: ResticBackup = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": "orders", "namespace": "shop", "uid": "u", "generation": 2 },
            "spec": { "repositoryRef": { "name": "nas", "namespace": "" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } },
            "status": { "lastBackup": { "result": "PartiallyFailed", "reason": "FilesUnreadable", "bytesAdded": 7 },
                        "statistics": { "totalBackups": 3, "failedBackups": 1 } },
        }))
        .unwrap();
        let Some(Body::Backup(body)) = backup_state(&backup, None).body else {
            panic!()
        };
        assert_eq!(
            (body.repository_namespace.as_str(), body.source.as_str()),
            ("shop", "pvc/data")
        );
        let run = body.last_run.unwrap();
        assert_eq!(
            (run.result(), run.bytes_added),
            (v1::BackupResult::PartiallyFailed, 7)
        );
    }
}
