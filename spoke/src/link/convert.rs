//! Custom resources as the hub sees them: their status, and no secret. Conversions read the caches and nothing else, so
//! that equal caches give equal bytes.

use crds::backup::{BackupResult, BackupRun, BackupSource};
use crds::conditions::{self, types};
use crds::integrity::damage_of;
use crds::progress::RunProgress;
use crds::window::AllowedWindow;
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use prost::Message as _;
use proto::text::without_credentials;
use proto::time::from_unix_millis;
use proto::v1::{self, ObjectState, object_state::Body};

use super::{manifest, unclear};
use crate::exchange::outbox::{Kind, Outbox, Place};
use crate::retention::policies;
use crate::world::{Key, World};

/// Most bytes of one state; a message has room for it and for what is around it.
const STATE_MAX: usize = proto::MESSAGE_MAX / 2;

/// What is sent of a place now; `None` when nothing is there.
pub fn state(world: &World, outbox: &Outbox, (kind, key): &Place) -> Option<ObjectState> {
    let id_at = |at: &Key| policies::restic_id(world, at);
    match kind {
        Kind::Repository => match world.repositories.undecodable(key) {
            Some(broken) => Some(unclear::repository(&broken)),
            None => world.repositories.get(key).map(|r| repository_state(&r)),
        },
        Kind::Backup => {
            if let Some(broken) = world.backups.undecodable(key) {
                return Some(unclear::backup(&broken, key, id_at));
            }
            let backup = world.backups.get(key)?;
            let reference = &backup.spec.repository_ref;
            let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
            Some(backup_state(&backup, id_at(&at)))
        }
        Kind::Policy => {
            if let Some(broken) = world.policies.undecodable(key) {
                return Some(unclear::policy(&broken, key, id_at, outbox));
            }
            let policy = world.policies.get(key)?;
            let reference = &policy.spec.repository_ref;
            let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
            let uid = policy.metadata.uid.as_deref().unwrap_or_default();
            let kept = policy.status.as_ref().and_then(|s| s.repository_id.as_deref());
            let id = binding(outbox, uid, &at, id_at(&at), kept);
            Some(policy_state(key, &policy, id))
        }
        Kind::Restore => {
            let restore = world.restores.get(key)?;
            let at = restored_from(world, key, &restore);
            let id = at.as_ref().and_then(id_at);
            Some(restore_state(&restore, at, id))
        }
    }
}

/// The bytes that are sent of a state. One that is too large loses its details rather than the connection.
#[must_use]
pub fn encode(state: &ObjectState) -> Vec<u8> {
    if state.encoded_len() <= STATE_MAX {
        return state.encode_to_vec();
    }
    let mut state = state.clone();
    state.manifest.clear();
    // The hub holds the snapshots of a suspicious backup by its condition.
    state
        .conditions
        .retain(|c| [types::READY, types::SUSPICIOUS].contains(&c.r#type.as_str()));
    for condition in &mut state.conditions {
        condition.message = cut(&condition.message);
    }
    match &mut state.body {
        Some(Body::Repository(repository)) => {
            repository.locks.clear();
            if let Some(figures) = &mut repository.statistics {
                figures.hosts.clear();
            }
        }
        Some(Body::Policy(policy)) => {
            if let Some(spec) = &mut policy.spec {
                spec.rules.clear();
                spec.unclear =
                    "spec.policies is too large to be sent to the hub: write fewer rules".to_owned();
            }
        }
        Some(Body::Backup(backup)) => {
            if let Some(run) = &mut backup.last_run {
                run.message = cut(&run.message);
            }
        }
        _ => {}
    }
    state.encode_to_vec()
}

/// The first KiB of a text.
fn cut(text: &str) -> String {
    text.chars().take(1024).collect()
}

/// The restic id that a policy is bound to: that of its repository, or while that has none the last known one.
pub(super) fn binding(
    outbox: &Outbox,
    uid: &str,
    at: &Key,
    present: Option<String>,
    kept: Option<&str>,
) -> String {
    match present.filter(|id| !id.is_empty()) {
        Some(id) => {
            outbox.bound(uid, &id);
            id
        }
        None => outbox.last_binding(uid, at, kept).unwrap_or_default(),
    }
}

/// Where a restore's snapshots are.
fn restored_from(world: &World, key: &Key, restore: &ResticRestore) -> Option<Key> {
    if let Some(reference) = &restore.spec.repository_ref {
        return Some(Key::new(reference.namespace_or(&key.namespace), &reference.name));
    }
    let reference = restore.spec.backup_ref.as_ref()?;
    let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
    let backup = world.backups.get(&at)?;
    let reference = &backup.spec.repository_ref;
    Some(Key::new(reference.namespace_or(&at.namespace), &reference.name))
}

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
            files: figures
                .total_file_count
                .and_then(|files| u64::try_from(files).ok()),
        });
    let check = status.integrity_check.as_ref();
    let body = v1::RepositoryState {
        url: without_credentials(&repository.spec.repository_url),
        restic_id: status.repository_id.clone().unwrap_or_default(),
        statistics,
        locks: status.locks.iter().map(restic_lock).collect(),
        damage: damage_of(repository).unwrap_or_default(),
        last_check: status.last_integrity_check.as_ref().map(time),
        last_check_result: status.last_integrity_check_result.clone().unwrap_or_default(),
        progress: check.and_then(|check| check.progress.as_ref()).map(progress),
        key_id: key_in_use(repository, &status),
        refresh_ms: refresh(repository),
        changed_id: status.changed_id.clone().unwrap_or_default(),
        read_only: repository.spec.read_only,
    };
    let state = object(&repository.metadata, &status.conditions, Body::Repository(body));
    manifest::with(state, "ResticRepository", &repository.metadata, &repository.spec)
}

/// The key that the repository was last opened with; empty while it does not open.
fn key_in_use(repository: &ResticRepository, status: &crds::ResticRepositoryStatus) -> String {
    let is_new = status.observed_generation == repository.metadata.generation;
    let key = status.key_id.clone().filter(|_| is_new && status.is_open());
    key.unwrap_or_default()
}

/// Time between two readings of figures in milliseconds, where the resource sets one.
fn refresh(repository: &ResticRepository) -> u64 {
    let set = repository.spec.refresh_interval.as_deref();
    let set = set.and_then(crds::schedule::parse_duration);
    set.and_then(|set| u64::try_from(set.as_millis()).ok())
        .unwrap_or(0)
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

/// What a backup reads, in a word or two.
fn source(source: &BackupSource) -> String {
    if let Some(pvc) = &source.pvc {
        return format!("pvc/{}", pvc.claim_name);
    }
    if let Some(volume) = &source.pod_volume_backup {
        return format!("podVolume/{}", volume.volume_name);
    }
    if let Some(stdin) = &source.stdin {
        return format!("stdin/{}", stdin.filename);
    }
    let custom = source.custom_source.as_ref();
    custom.map(|_| "custom".to_owned()).unwrap_or_default()
}

/// A backup's state. `restic_id` is that of the repository that it refers to, if it is known.
#[must_use]
pub fn backup_state(backup: &ResticBackup, restic_id: Option<String>) -> ObjectState {
    let status = backup.status.clone().unwrap_or_default();
    let spec = &backup.spec;
    let namespace = backup.metadata.namespace.as_deref().unwrap_or_default();
    let figures = status.statistics.clone().unwrap_or_default();
    let source = source(&spec.source);
    let body = v1::BackupState {
        repository_namespace: spec.repository_ref.namespace_or(namespace).to_owned(),
        repository_name: spec.repository_ref.name.clone(),
        restic_id: restic_id.unwrap_or_default(),
        schedule: resolved("ResticBackup", &backup.metadata, &spec.schedule),
        timezone: spec.timezone.clone().unwrap_or_default(),
        suspended: spec.suspend,
        last_run: status.last_backup.as_ref().map(run),
        last_success: status.last_successful_backup.as_ref().map(time),
        next_run: status.next_backup.as_ref().map(time),
        runs_total: unsigned(Some(figures.total_backups.into())),
        runs_succeeded: unsigned(Some(figures.successful_backups.into())),
        runs_failed: unsigned(Some(figures.failed_backups.into())),
        running: conditions::is_true(&status.conditions, types::PROGRESSING),
        under_way: !status.active.is_empty(),
        source,
        progress: status.progress.as_ref().map(progress),
    };
    let state = object(&backup.metadata, &status.conditions, Body::Backup(body));
    manifest::with(state, "ResticBackup", &backup.metadata, spec)
}

/// A retention policy's state. `restic_id` is what it is bound to, or was last known to be; empty if it never was.
#[must_use]
pub fn policy_state(key: &Key, policy: &GlobalRetentionPolicy, restic_id: String) -> ObjectState {
    let status = policy.status.clone().unwrap_or_default();
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let reference = &policy.spec.repository_ref;
    let body = v1::PolicyState {
        repository_namespace: reference.namespace_or(namespace).to_owned(),
        repository_name: reference.name.clone(),
        spec: Some(crate::retention::policy_spec(key, policy, &restic_id)),
        restic_id,
        schedule: resolved("GlobalRetentionPolicy", &policy.metadata, &policy.spec.schedule),
        suspended: policy.spec.suspend,
        last_run: status.last_run.as_ref().map(time),
        last_result: status.last_run_result.clone().unwrap_or_default(),
        progress: status.progress.as_ref().map(progress),
        timezone: Some(policy.spec.timezone.clone().unwrap_or_default()),
        allowed_window: policy
            .spec
            .allowed_window
            .as_ref()
            .map(|of| window(of, &policy.metadata)),
    };
    let state = object(&policy.metadata, &status.conditions, Body::Policy(body));
    manifest::with(state, "GlobalRetentionPolicy", &policy.metadata, &policy.spec)
}

/// The window of a policy. One that is not valid is never open.
fn window(window: &AllowedWindow, metadata: &ObjectMeta) -> v1::MaintenanceWindow {
    let kind = "GlobalRetentionPolicy";
    if window.parse(kind, metadata).is_err() {
        return v1::MaintenanceWindow::default();
    }
    let length = crds::schedule::parse_duration(&window.duration);
    v1::MaintenanceWindow {
        schedule: resolved(kind, metadata, &window.schedule),
        timezone: window.timezone.clone().unwrap_or_default(),
        length_ms: length
            .and_then(|d| u64::try_from(d.as_millis()).ok())
            .unwrap_or(0),
    }
}

/// The schedule that the CronJob has; one that is not valid stays as it is written.
fn resolved(kind: &str, metadata: &ObjectMeta, schedule: &str) -> String {
    let own = crds::schedule::seed(kind, metadata);
    crds::schedule::resolve(schedule, &own).unwrap_or_else(|_| schedule.to_owned())
}

/// A restore's state. `at` is the repository that it reads, as far as that is known.
#[must_use]
pub fn restore_state(restore: &ResticRestore, at: Option<Key>, restic_id: Option<String>) -> ObjectState {
    use crds::restore::RestorePhase;
    let status = restore.status.clone().unwrap_or_default();
    let target = &restore.spec.target;
    let claim = target.pvc.as_ref().map(|pvc| &pvc.claim_name);
    let claim = claim.or(target.new_pvc.as_ref().map(|pvc| &pvc.name));
    let phase = status.phase.map(|phase| match phase {
        RestorePhase::Pending => "Pending",
        RestorePhase::InProgress => "InProgress",
        RestorePhase::Completed => "Completed",
        RestorePhase::Failed => "Failed",
    });
    let body = v1::RestoreState {
        repository_namespace: at.as_ref().map(|at| at.namespace.to_string()).unwrap_or_default(),
        repository_name: at.as_ref().map(|at| at.name.to_string()).unwrap_or_default(),
        restic_id: restic_id.unwrap_or_default(),
        phase: phase.unwrap_or_default().to_owned(),
        snapshot_id: status.restored_snapshot.clone().unwrap_or_default(),
        started: status.start_time.as_ref().map(time),
        finished: status.completion_time.as_ref().map(time),
        files: unsigned(status.restored_files),
        bytes: unsigned(status.restored_size_bytes),
        target: claim.map(|claim| format!("pvc/{claim}")).unwrap_or_default(),
        progress: status.progress.as_ref().map(progress),
    };
    object(&restore.metadata, &status.conditions, Body::Restore(body))
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

/// How far a run has come.
fn progress(progress: &RunProgress) -> v1::RunProgress {
    let unsigned = |count: Option<i64>| count.and_then(|c| u64::try_from(c).ok());
    v1::RunProgress {
        job: progress.job.clone(),
        as_of: Some(time(&progress.as_of)),
        percent: progress.percent.and_then(|percent| u32::try_from(percent).ok()),
        bytes_done: unsigned(progress.bytes_done),
        bytes_total: unsigned(progress.bytes_total),
        files_done: unsigned(progress.files_done),
        files_total: unsigned(progress.files_total),
        step: progress.step.clone().unwrap_or_default(),
        estimated_completion: progress.estimated_completion.as_ref().map(time),
    }
}

pub(super) fn object(meta: &ObjectMeta, conditions: &[Condition], body: Body) -> ObjectState {
    ObjectState {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        created: meta.creation_timestamp.as_ref().map(time),
        conditions: conditions.iter().map(condition).collect(),
        body: Some(body),
        ..ObjectState::default()
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
#[path = "convert_tests.rs"]
mod tests;
