//! ResticRestore: brings a snapshot's files back, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{CrossNamespaceObjectReference, Hook, JobConfiguration, ObjectReference};
use crate::hooks::{HookRun, OpenHooks};
use crate::notifications::Notifications;

/// A restore.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "backup.resticbackup.io",
    version = "v1alpha1",
    kind = "ResticRestore",
    plural = "resticrestores",
    shortname = "rres",
    category = "resticfleet",
    namespaced,
    status = "ResticRestoreStatus",
    derive = "PartialEq",
    validation = Rule::new("has(self.spec.backupRef) != has(self.spec.repositoryRef)")
        .message("spec needs exactly one of backupRef and repositoryRef: keep one and remove the other"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in ['Completed', 'Failed']) || self.spec == oldSelf.spec")
        .message("this restore is over (Completed or Failed) and is not run again: create another ResticRestore instead"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Snapshot","type":"string","jsonPath":".status.snapshot"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".status.restoredSize"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ResticRestoreSpec {
    /// Backup whose snapshots are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<CrossNamespaceObjectReference>,
    /// Repository to restore from where there is no ResticBackup, as in a fresh cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_ref: Option<CrossNamespaceObjectReference>,
    /// Snapshot by its short or full id, or "latest".
    #[serde(rename = "snapshotID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == '' || self == 'latest' || self.matches('^[0-9a-f]{4,64}$')")
        .message("snapshotID must be latest or 4 to 64 hex digits"))]
    pub snapshot_id: Option<String>,
    /// Snapshot by what it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_selector: Option<SnapshotSelector>,
    /// Where the files go.
    pub target: RestoreTarget,
    /// Only these, relative to the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub include_paths: Vec<String>,
    /// All but these, relative to the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub exclude_paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<RestoreOptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<RestoreHooks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_config: Option<JobConfiguration>,
    /// Who is told of the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,
}

/// Selects a snapshot; the newest that fits all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSelector {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
    /// Tags that the snapshot must carry, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Only snapshots from before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Time>,
}

/// Exactly one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.pvc) != has(self.newPVC)")
    .message("target needs exactly one of pvc and newPVC: keep one and remove the other"))]
pub struct RestoreTarget {
    /// An existing claim in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<PvcTarget>,
    /// A claim that is created.
    #[serde(rename = "newPVC", default, skip_serializing_if = "Option::is_none")]
    pub new_pvc: Option<NewPvc>,
}

/// An existing claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PvcTarget {
    pub claim_name: String,
    /// Folder in the volume; its root unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new(r"!self.matches('(^|/)\\.\\.(/|$)')").message("path must stay inside the volume: remove \"..\""))]
    pub path: Option<String>,
}

/// A claim to create.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewPvc {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// ReadWriteOnce unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("size must be a quantity such as 10Gi"))]
    pub size: String,
}

/// How files are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOptions {
    /// false leaves files that are there already as they are.
    #[serde(default = "default_overwrite", skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// true reads every restored file again and compares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
}

#[allow(clippy::unnecessary_wraps)]
fn default_overwrite() -> Option<bool> {
    Some(true)
}

/// What is done before and after a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreHooks {
    /// Before restic begins. Where it fails, nothing is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_restore: Option<Hook>,
    /// After restic has ended, however it has, and after each preRestore hook that began. It may run more than once, so it
    /// has to bear that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_restore: Option<Hook>,
}

/// Phases of a restore. Completed and Failed are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    Pending,
    InProgress,
    Completed,
    Failed,
}

/// What is known of a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResticRestoreStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// First 8 digits of the snapshot that is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Full id of the snapshot that was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_snapshot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_files: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_size_bytes: Option<i64>,
    /// `1m5s`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Its hooks, in the order in which they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRun>,
    /// Hooks that may not have ended: what makes a postRestore hook run after every preRestore hook that began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_hooks: Vec<OpenHooks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_ref: Option<ObjectReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
