//! What a ResticBackup reads.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema;

/// A selector that names something.
const SELECTS: &str = "(has(self.matchLabels) && self.matchLabels.size() > 0) || (has(self.matchExpressions) && self.matchExpressions.size() > 0)";
const SELECTS_NOTHING: &str =
    "the selector must name a label: an empty one matches every pod of the namespace";

/// Exactly one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.pvc), has(self.podVolumeBackup), has(self.customSource), has(self.stdin)].filter(x, x).size() == 1")
    .message("source needs exactly one of pvc, podVolumeBackup, customSource and stdin: keep one and remove the others"))]
pub struct BackupSource {
    /// A PersistentVolumeClaim in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<PvcSource>,
    /// The claim behind a volume of running pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_volume_backup: Option<PodVolumeSource>,
    /// A pod that brings its own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_source: Option<CustomSource>,
    /// What a command writes to its standard output, such as a dump of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<StdinSource>,
}

/// A PersistentVolumeClaim, mounted read-only at /backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PvcSource {
    /// Name of the claim.
    pub claim_name: String,
    /// Folders and files in the volume; all of it unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    #[x_kube(validation = Rule::new(r"self.all(p, !p.matches('(^|/)\\.\\.(/|$)') && !p.matches('[\\x00\\n]'))")
        .message("paths must stay inside the volume: remove \"..\" and line breaks"))]
    pub paths: Vec<String>,
    /// Patterns as restic's --exclude takes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    #[x_kube(validation = Rule::new(r"self.all(p, p != '' && !p.matches('[\\x00\\n]'))")
        .message("excludes must not be empty or hold line breaks"))]
    pub excludes: Vec<String>,
    /// true backs up the folder lost+found at the root of the volume as well, which belongs to the file system and which
    /// only root can read. It is left out unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_lost_and_found: Option<bool>,
}

/// The claim behind a volume of running pods, mounted read-only at /backup, on the node where it is in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodVolumeSource {
    /// Pods in the same namespace. Where several match, their volumes must be one claim.
    pub selector: LabelSelector,
    /// Name of the volume in the pods' spec.volumes. A claim must be behind it.
    #[schemars(length(min = 1, max = 63))]
    pub volume_name: String,
    /// Only what this container sees of the volume: where it mounts a subPath of it, that folder is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
}

/// A pod that brings its own data. Its init containers and then its containers run to their end, each after the one before,
/// then restic backs up. What is to run beside restic is an init container with restartPolicy Always. One that fails
/// leaves no snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CustomSource {
    /// `core/v1` PodTemplateSpec. It may not share a namespace of processes or of the host, use a volume of the host, or
    /// refer to the credentials of a repository.
    #[schemars(schema_with = "schema::schemaless")]
    pub pod_template: Value,
    /// Folder or file in a container of the template, in a volume that the container mounts.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new(r"self.startsWith('/') && !self.matches('(^|/)\\.\\.(/|$)') && !self.matches('[\\x00\\n]')")
        .message("backupPath must begin with \"/\" and hold no \"..\" and no line breaks"))]
    pub backup_path: String,
}

/// What a command writes to its standard output. One that fails, or writes nothing, leaves no snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.exec) != has(self.pod)")
    .message("stdin needs exactly one of exec and pod: keep one and remove the other"))]
pub struct StdinSource {
    /// Name of the file in the snapshot, such as orders.sql.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(r"!self.matches('[/\\x00\\n]') && !(self in ['.', '..'])")
        .message("filename is one name, without \"/\" and line breaks, such as orders.sql"))]
    pub filename: String,
    /// A command in a running pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecSource>,
    /// A command in a pod of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSource>,
}

/// A command in a running pod, as of `kubectl exec`. Where several pods match, it is the oldest one that is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecSource {
    /// Pods in the same namespace.
    #[x_kube(validation = Rule::new(SELECTS).message(SELECTS_NOTHING))]
    pub pod_selector: LabelSelector,
    /// Container of the pod; the first one, or the one of annotation kubectl.kubernetes.io/default-container, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
    /// Program and arguments. No shell reads them unless it is the program.
    #[schemars(length(min = 1, max = 256), inner(length(max = 4096)))]
    #[x_kube(validation = Rule::new("self[0] != ''").message("command needs a program, such as pg_dumpall"))]
    pub command: Vec<String>,
}

/// A command in a pod of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSource {
    /// `core/v1` PodTemplateSpec, with the same limits as that of a customSource.
    #[schemars(schema_with = "schema::schemaless")]
    pub pod_template: Value,
    /// Container whose standard output is backed up. It needs `command`: that of its image cannot be known. May be left out
    /// where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
}
