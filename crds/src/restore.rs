//! ResticRestore: brings a snapshot's files back, once.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{CrossNamespaceObjectReference, Hook, JobConfiguration, ObjectReference};
use crate::hooks::{HookRun, OpenHooks};
use crate::notifications::Notifications;
use crate::progress::RunProgress;

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
    validation = Rule::new("!has(self.spec.options) || !has(self.spec.options.delete) || !self.spec.options.delete || has(self.spec.target.pvc)")
        .message("options.delete needs target.pvc: a new claim holds nothing to delete"),
    validation = Rule::new("!has(self.spec.options) || !has(self.spec.options.delete) || !self.spec.options.delete || !has(self.spec.includePaths) || size(self.spec.includePaths) == 0")
        .message("options.delete and includePaths exclude each other: a path that is missing in the snapshot would only be deleted; use excludePaths, or snapshotPath with target.pvc.path"),
    validation = Rule::new(r"(has(self.status) && has(self.status.phase)) || !has(self.spec.options) || !has(self.spec.options.delete) || !self.spec.options.delete || !has(self.spec.snapshotPath) || self.spec.snapshotPath.matches('^/*([.]/+)*[.]?$') || !has(self.spec.target.pvc) || (has(self.spec.target.pvc.path) && !self.spec.target.pvc.path.matches('^/*([.]/+)*[.]?$'))")
        .message("options.delete with snapshotPath needs target.pvc.path: the content of one folder would take the place of the whole volume; write the folder there"),
    validation = Rule::new(r"(has(self.status) && has(self.status.phase)) || !has(self.spec.options) || !has(self.spec.options.delete) || !self.spec.options.delete || !has(self.spec.excludePaths) || self.spec.excludePaths.all(path, path != '/.' && (has(self.spec.options.pathMatching) && self.spec.options.pathMatching == 'Literal' ? path.matches('^/[^/]+$') : path.matches('^/[^/*?\\[\\]\\\\]+$')))")
        .message("options.delete takes only names at the top of the target as excludePaths, as /cache, without pattern characters: anything deeper would be deleted with the folder that it is in; restore folder by folder with snapshotPath and target.pvc.path"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in ['Completed', 'Failed']) || self.spec == oldSelf.spec")
        .message("this restore is over (Completed or Failed) and is not run again: create another ResticRestore instead"),
    validation = Rule::new(unchanged_while_at_work())
        .message("this restore has begun (InProgress): only ttlSecondsAfterFinished can be changed; create another ResticRestore instead"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Snapshot","type":"string","jsonPath":".status.snapshot"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".status.restoredSize"}"#,
    printcolumn = r#"{"name":"Percent","type":"integer","jsonPath":".status.progress.percent","priority":1}"#,
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
    /// Folder of the snapshot whose content is restored, relative to the data: in snapshots of this operator, to the root of
    /// the volume; in others, to the root of the snapshot, as in /data. All of the snapshot unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new(r"!self.matches('(^|/)\\.\\.(/|$)')").message("snapshotPath must stay inside the snapshot: remove \"..\""))]
    pub snapshot_path: Option<String>,
    /// Where the files go.
    pub target: RestoreTarget,
    /// Only these, relative to the data or to snapshotPath: /config is that very folder, config and *.conf are everything of
    /// that name. A leading ! is part of the name. With excludePaths: these without those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub include_paths: Vec<String>,
    /// All but these, written as includePaths are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub exclude_paths: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<RestoreOptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<RestoreHooks>,
    /// How the pod runs. Unless it names a securityContext, that of the backup is used, except for root and for an fsGroup on
    /// an existing claim: both have to be asked for here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!has(self.cache)").message(crate::cache::ONLY_BACKUPS))]
    pub job_config: Option<JobConfiguration>,
    /// Seconds after the end at which the Job is deleted, and with it its pod. It stays until the restore is deleted unless
    /// given. The restore, its status and the restored data stay in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Who is told of the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,
}

/// All of the spec but ttlSecondsAfterFinished.
const FROZEN: [&str; 12] = [
    "backupRef",
    "repositoryRef",
    "snapshotID",
    "snapshotSelector",
    "snapshotPath",
    "target",
    "includePaths",
    "excludePaths",
    "options",
    "hooks",
    "jobConfig",
    "notifications",
];

fn unchanged_while_at_work() -> String {
    let same = FROZEN.map(|field| {
        let (new, old) = (format!("self.spec.{field}"), format!("oldSelf.spec.{field}"));
        format!("has({new}) == has({old}) && (!has({new}) || {new} == {old})")
    });
    format!(
        "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase != 'InProgress' || ({})",
        same.join(" && ")
    )
}

/// Selects a snapshot; the newest that fits all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSelector {
    /// Changes nothing: the newest that fits is always meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
    /// Tags that the snapshot must carry, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Host name that the snapshot must have; any unless given.
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
    /// Name of the claim, in the namespace of the resource.
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
    /// Name of the claim, in the namespace of the resource.
    pub name: String,
    /// Class of the claim; the cluster's default unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// ReadWriteOnce unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
    /// The size of the snapshot, with 4 KiB for each file and a fifth more, rounded up to whole Gi, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("size must be a quantity such as 10Gi"))]
    pub size: Option<String>,
    /// Labels of the claim, beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('backup.resticbackup.io/'))")
        .message("labels of backup.resticbackup.io are the operator's own: remove them"))]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the claim, beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('backup.resticbackup.io/'))")
        .message("annotations of backup.resticbackup.io are the operator's own: remove them"))]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// How files are written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.delete) || !self.delete || !has(self.overwrite) || self.overwrite")
    .message("options.delete needs options.overwrite: a folder cannot become as it was while its files stay as they are"))]
pub struct RestoreOptions {
    /// false leaves files that are there already as they are.
    #[serde(default = "default_true", skip_serializing_if = "Option::is_none")]
    pub overwrite: Option<bool>,
    /// true reads every restored file again and compares it. A dry run has nothing to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// Whether long runs of zeros become holes, as in disk images, and take no space. false writes them. Unless given, true
    /// for a claim that is created, and false for one that is there, where space may be set aside for its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<bool>,
    /// true deletes what is in the target folder and not in the snapshot, so that the folder becomes as it was. Only in a
    /// claim that target.pvc names, without includePaths, with snapshotPath only into a target.pvc.path, and only from a
    /// snapshot that is known to hold all of the folder. With repositoryRef it needs a target.pvc.path. excludePaths may only be names at the top of the target, as /cache, without pattern
    /// characters: these stay, and so does lost+found at the root of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<bool>,
    /// true only counts what would be done: nothing is written, no claim is made, and hooks do not run. The counts are in
    /// status.preview, the files in the log of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// How includePaths and excludePaths are read.
    #[serde(default)]
    pub path_matching: PathMatching,
}

/// How paths are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatching {
    /// The characters * ? [ ] \ select many names, as in a shell. ** stands for any number of folders.
    #[default]
    Pattern,
    /// Each character stands for itself: a[1].txt is the file of that name, and not a1.txt.
    Literal,
}

#[allow(clippy::unnecessary_wraps)]
fn default_true() -> Option<bool> {
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
    /// How far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
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
    /// Files and folders that options.delete has deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_files: Option<i64>,
    /// What options.dryRun has counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<RestorePreview>,
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

/// What a restore would do. Folders count as files, and those that are there already as restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePreview {
    /// Files that are not there, and all folders: restic sets their attributes anew.
    #[serde(default)]
    pub restored: i64,
    /// Files that are there with another content.
    #[serde(default)]
    pub updated: i64,
    /// Files that stay as they are.
    #[serde(default)]
    pub unchanged: i64,
    /// Files that would be deleted.
    #[serde(default)]
    pub deleted: i64,
    /// Bytes that would be written: `1.5 GiB`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube::core::cel::Validator;
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_on_deletions_leave_restores_from_before_them_writable() {
        let crd = serde_json::to_value(ResticRestore::crd()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let whole = json!({ "snapshotPath": "/a" });
        let deep = json!({ "excludePaths": ["/a/b"] });
        for part in [whole, deep] {
            let mut restore = json!({ "metadata": { "name": "r" }, "spec": {
                "backupRef": { "name": "b" }, "target": { "pvc": { "claimName": "c" } }, "options": { "delete": true } } });
            for (name, value) in part.as_object().unwrap() {
                restore["spec"][name] = value.clone();
            }
            let taken = |new: &serde_json::Value, old: Option<&serde_json::Value>| {
                Validator::new().validate(schema, new, old).is_ok()
            };
            assert!(!taken(&restore, None), "{part}");
            for phase in ["Pending", "InProgress", "Completed"] {
                let mut begun = restore.clone();
                begun["status"] = json!({ "phase": phase });
                let mut later = begun.clone();
                later["status"]["duration"] = json!("1s");
                assert!(taken(&later, Some(&begun)), "{part} {phase}");
            }
        }
    }

    #[test]
    fn each_field_but_the_life_of_the_job_is_frozen() {
        let schema = serde_json::to_value(schemars::schema_for!(ResticRestoreSpec)).unwrap();
        let fields = schema["properties"].as_object().unwrap().keys();
        let mut fields: Vec<&str> = fields.map(String::as_str).collect();
        fields.retain(|field| *field != "ttlSecondsAfterFinished");
        let mut frozen = FROZEN.to_vec();
        frozen.sort_unstable();
        fields.sort_unstable();
        assert_eq!(frozen, fields);
    }
}
