//! Rows out of custom resources, as the hub would make them. Pure.

use jiff::Timestamp;
use proto::time::from_unix_millis;
use proto::v1::{
    BackupResult, BackupRow, BackupRun, BackupState, Collection, Condition, Freshness, PolicyRow,
    PolicyState, RestoreRow, RestoreState, Row, RunProgress, row::Body,
};
use serde_json::Value;

use super::judge;
use crate::objects::{count, holds, is_true, name, namespace, text, time};

/// What is known of the cluster as a whole.
#[derive(Clone, Debug)]
pub struct Seen {
    pub cluster: String,
    /// Its operator does not run; `None` where that cannot be seen.
    pub silent: Option<bool>,
    /// When its operator last showed that it runs.
    pub heard: Option<Timestamp>,
    pub now: Timestamp,
}

impl Seen {
    /// `CLUSTER/NAMESPACE/NAME`.
    pub fn place(&self, object: &Value) -> String {
        format!("{}/{}/{}", self.cluster, namespace(object), name(object))
    }

    /// What is not known is stale.
    pub fn freshness(&self) -> Freshness {
        Freshness {
            stale: self.silent != Some(false),
            last_heard: self.heard.map(wire),
        }
    }

    /// Why what its operator reported may no longer hold; `None` while it is seen to run.
    pub fn unheard(&self) -> Option<&'static str> {
        match self.silent {
            Some(false) => None,
            Some(true) => Some("its operator does not run: this is the last that is known"),
            None => Some("whether its operator runs cannot be seen: this is the last that is known"),
        }
    }

    /// What a person has to know of this view.
    pub fn notice(&self) -> String {
        let operator = match self.silent {
            Some(false) => "",
            Some(true) => "; its operator does not run, and what is shown is the last that it reported",
            None => {
                "; whether its operator runs cannot be seen (Lease fleet-spoke in restic-fleet-system, and whether this machine's clock is right)"
            }
        };
        format!(
            "by kubeconfig alone: only cluster {} is seen, no other one{operator}; fleet login shows the fleet",
            self.cluster
        )
    }
}

fn wire(at: Timestamp) -> prost_types::Timestamp {
    from_unix_millis(at.as_millisecond())
}

/// A time at a JSON pointer.
pub fn at(object: &Value, pointer: &str) -> Option<prost_types::Timestamp> {
    time(object, pointer).map(wire)
}

/// The kind of a collection's resources.
pub fn kind(collection: Collection) -> &'static str {
    match collection {
        Collection::Backups => "ResticBackup",
        Collection::Policies => "GlobalRetentionPolicy",
        Collection::Restores => "ResticRestore",
        Collection::Repositories => "ResticRepository",
        Collection::Clusters | Collection::Unspecified => "",
    }
}

/// Conditions of a status.
pub fn conditions(object: &Value) -> Vec<Condition> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let of = |condition: &Value| Condition {
        r#type: text(condition, "/type").to_owned(),
        status: text(condition, "/status").to_owned(),
        reason: text(condition, "/reason").to_owned(),
        message: text(condition, "/message").to_owned(),
        last_transition: at(condition, "/lastTransitionTime"),
    };
    conditions.into_iter().flatten().map(of).collect()
}

/// Namespace and name of what a reference means.
pub fn reference(object: &Value, pointer: &str) -> (String, String) {
    let own = namespace(object);
    let of = text(object, &format!("{pointer}/namespace"));
    let of = if of.is_empty() { own } else { of };
    (of.to_owned(), text(object, &format!("{pointer}/name")).to_owned())
}

/// restic id of a repository of this cluster; empty while it is unknown.
fn restic_id(all: &[Value], namespace_: &str, name_: &str) -> String {
    let mut repositories = all.iter().filter(|of| text(of, "/kind") == "ResticRepository");
    let of = repositories.find(|of| namespace(of) == namespace_ && name(of) == name_);
    of.map(|of| text(of, "/status/repositoryID").to_owned())
        .unwrap_or_default()
}

/// The row of a backup, a policy or a restore.
pub fn row(seen: &Seen, all: &[Value], object: &Value) -> Row {
    let body = match text(object, "/kind") {
        "ResticBackup" => Body::Backup(backup(seen, all, object)),
        "GlobalRetentionPolicy" => Body::Policy(policy(seen, all, object)),
        _ => Body::Restore(restore(seen, all, object)),
    };
    Row {
        key: seen.place(object),
        body: Some(body),
    }
}

fn progress(object: &Value, pointer: &str) -> Option<RunProgress> {
    let of = object.pointer(pointer)?;
    let number = |pointer: &str| of.pointer(pointer).and_then(Value::as_u64);
    Some(RunProgress {
        job: text(of, "/job").to_owned(),
        as_of: at(of, "/asOf"),
        percent: number("/percent").and_then(|percent| u32::try_from(percent).ok()),
        bytes_done: number("/bytesDone"),
        bytes_total: number("/bytesTotal"),
        files_done: number("/filesDone"),
        files_total: number("/filesTotal"),
        step: text(of, "/step").to_owned(),
        estimated_completion: at(of, "/estimatedCompletion"),
    })
}

fn source(object: &Value) -> String {
    for (pointer, word) in [
        ("/spec/source/pvc/claimName", "pvc"),
        ("/spec/source/podVolumeBackup/volumeName", "podVolume"),
        ("/spec/source/stdin/filename", "stdin"),
    ] {
        let of = text(object, pointer);
        if !of.is_empty() {
            return format!("{word}/{of}");
        }
    }
    let custom = object.pointer("/spec/source/customSource");
    custom.map(|_| "custom".to_owned()).unwrap_or_default()
}

fn run(run: &Value) -> BackupRun {
    let result = match text(run, "/result") {
        "Succeeded" => BackupResult::Succeeded,
        "PartiallyFailed" => BackupResult::PartiallyFailed,
        "Failed" => BackupResult::Failed,
        _ => BackupResult::Unspecified,
    };
    BackupRun {
        started: at(run, "/startTime"),
        finished: at(run, "/completionTime"),
        result: result.into(),
        reason: text(run, "/reason").to_owned(),
        message: text(run, "/message").to_owned(),
        snapshot_id: text(run, "/snapshotID").to_owned(),
        bytes_added: count(run, "/bytesAdded"),
        bytes_processed: count(run, "/bytesProcessed"),
        files_processed: count(run, "/filesProcessed"),
    }
}

fn backup(seen: &Seen, all: &[Value], object: &Value) -> BackupRow {
    let (state, reason) = judge::backup(seen, object);
    let (repository_namespace, repository_name) = reference(object, "/spec/repositoryRef");
    let last = object.pointer("/status/lastBackup").filter(|of| !of.is_null());
    let since = match state {
        "failed" | "partial" => last.and_then(|run| at(run, "/completionTime")),
        "late" => holds(object, "Stale").and_then(|of| at(of, "/lastTransitionTime")),
        "notready" => crate::objects::condition(object, "Ready").and_then(|of| at(of, "/lastTransitionTime")),
        "stale" => seen.heard.map(wire),
        "never" => at(object, "/metadata/creationTimestamp"),
        _ => None,
    };
    BackupRow {
        cluster: seen.cluster.clone(),
        namespace: namespace(object).to_owned(),
        name: name(object).to_owned(),
        state: state.to_owned(),
        reason,
        ready: holds(object, "Ready").is_some(),
        freshness: Some(seen.freshness()),
        since,
        due: None,
        backup: Some(BackupState {
            restic_id: restic_id(all, &repository_namespace, &repository_name),
            repository_namespace,
            repository_name,
            schedule: text(object, "/spec/schedule").to_owned(),
            timezone: text(object, "/spec/timezone").to_owned(),
            suspended: is_true(object, "/spec/suspend"),
            last_run: last.map(run),
            last_success: at(object, "/status/lastSuccessfulBackup"),
            next_run: at(object, "/status/nextBackup"),
            runs_total: count(object, "/status/statistics/totalBackups"),
            runs_succeeded: count(object, "/status/statistics/successfulBackups"),
            runs_failed: count(object, "/status/statistics/failedBackups"),
            running: holds(object, "Progressing").is_some(),
            source: source(object),
            progress: progress(object, "/status/progress"),
            ..BackupState::default()
        }),
    }
}

fn policy(seen: &Seen, all: &[Value], object: &Value) -> PolicyRow {
    let (state, reason) = judge::policy(seen, object);
    let (repository_namespace, repository_name) = reference(object, "/spec/repositoryRef");
    PolicyRow {
        cluster: seen.cluster.clone(),
        namespace: namespace(object).to_owned(),
        name: name(object).to_owned(),
        state: state.to_owned(),
        reason,
        ready: holds(object, "Ready").is_some(),
        freshness: Some(seen.freshness()),
        next_run: at(object, "/status/nextRun"),
        policy: Some(PolicyState {
            restic_id: restic_id(all, &repository_namespace, &repository_name),
            repository_namespace,
            repository_name,
            schedule: text(object, "/spec/schedule").to_owned(),
            suspended: is_true(object, "/spec/suspend"),
            last_run: at(object, "/status/lastRun"),
            last_result: text(object, "/status/lastRunResult").to_owned(),
            progress: progress(object, "/status/progress"),
            ..PolicyState::default()
        }),
    }
}

fn restore(seen: &Seen, all: &[Value], object: &Value) -> RestoreRow {
    let (state, reason) = judge::restore(seen, object);
    let (repository_namespace, repository_name) = if object.pointer("/spec/repositoryRef").is_some() {
        reference(object, "/spec/repositoryRef")
    } else {
        let (namespace_, name_) = reference(object, "/spec/backupRef");
        let mut backups = all.iter().filter(|of| text(of, "/kind") == "ResticBackup");
        let of = backups.find(|of| namespace(of) == namespace_ && name(of) == name_);
        of.map(|of| reference(of, "/spec/repositoryRef"))
            .unwrap_or_default()
    };
    let claims = [
        text(object, "/spec/target/pvc/claimName"),
        text(object, "/spec/target/newPVC/name"),
    ];
    let target = claims.iter().find(|name| !name.is_empty());
    RestoreRow {
        cluster: seen.cluster.clone(),
        namespace: namespace(object).to_owned(),
        name: name(object).to_owned(),
        state: state.to_owned(),
        reason,
        freshness: Some(seen.freshness()),
        created: at(object, "/metadata/creationTimestamp"),
        restore: Some(RestoreState {
            restic_id: restic_id(all, &repository_namespace, &repository_name),
            repository_namespace,
            repository_name,
            phase: text(object, "/status/phase").to_owned(),
            snapshot_id: text(object, "/status/restoredSnapshot").to_owned(),
            started: at(object, "/status/startTime"),
            finished: at(object, "/status/completionTime"),
            files: count(object, "/status/restoredFiles"),
            bytes: count(object, "/status/restoredSizeBytes"),
            target: target.map(|name| format!("pvc/{name}")).unwrap_or_default(),
            progress: progress(object, "/status/progress"),
        }),
    }
}
