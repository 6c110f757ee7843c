//! ResticRepository: one restic repository, where it lies and with which credentials it opens.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::SecretKeySelector;
use crate::conditions::{self, reasons, types};
use crate::integrity::{IntegrityCheck, IntegrityCheckStatus};
use crate::notifications::Notifications;
use crate::rotation::PasswordRotation;
use crate::schema;
use crate::window::AllowedWindow;

/// A restic repository.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "backup.resticbackup.io",
    version = "v1alpha1",
    kind = "ResticRepository",
    plural = "resticrepositories",
    shortname = "rr",
    category = "resticfleet",
    namespaced,
    status = "ResticRepositoryStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.repositoryURL"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Snapshots","type":"integer","jsonPath":".status.statistics.snapshotCount"}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".status.statistics.totalSize"}"#,
    printcolumn = r#"{"name":"As Of","type":"date","jsonPath":".status.statistics.asOf"}"#,
    printcolumn = r#"{"name":"Checked","type":"date","jsonPath":".status.lastIntegrityCheck","priority":1}"#,
    printcolumn = r#"{"name":"Repository ID","type":"string","jsonPath":".status.repositoryID","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ResticRepositorySpec {
    /// Location as restic takes it: s3:, sftp:, rest:, azure:, gs:, b2:, swift: or rclone: and what follows.
    /// A folder (local:) cannot be one: the operator and the pods of backups would each see another folder.
    #[serde(rename = "repositoryURL")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new(r"self.matches('^(s3|sftp|rest|azure|gs|b2|swift|rclone|local):[^\\x00-\\x20]+$')")
        .message("repositoryURL must begin with a back end and contain no spaces: s3:https://host/bucket, \
rest:https://host:8000/path, sftp:user@host:/path, azure:, gs:, b2:, swift: or rclone:"))]
    #[x_kube(validation = Rule::new("!self.startsWith('local:') && !self.startsWith('rclone:/') && !self.startsWith('rclone::local')")
        .message("repositoryURL names a folder of the container that restic runs in: the operator and each backup would see \
another one. Put a server in front of the folder's volume (rest-server or SFTP), and write rest: or sftp:"))]
    #[x_kube(validation = Rule::new("self.split(':')[0] == oldSelf.split(':')[0]")
        .message("the back end of repositoryURL cannot be changed: create a new ResticRepository for another back end"))]
    pub repository_url: String,
    /// Secret in the same namespace with RESTIC_PASSWORD and the back end's variables, such as AWS_ACCESS_KEY_ID.
    pub credentials_secret_ref: SecretKeySelector,
    /// Whether a repository is created where there is none; IfMissing unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialize: Option<Initialize>,
    /// Regular checks of the repository's integrity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity_check: Option<IntegrityCheck>,
    /// Cache of the pods that use the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
    /// Options of the back end as restic calls them, such as `s3.storage-class: STANDARD_IA`. docs/backends.md lists those
    /// that may be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub backend_options: Option<BTreeMap<String, String>>,
    /// Who may use the repository from other namespaces. Nobody unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// How often statistics are read anew, at least one minute; 1h unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub refresh_interval: Option<String>,
    /// Most backups into it that run at the same time in this cluster. Others wait, first come, first served, with
    /// reason Parked in condition Waiting; restores never do. No limit unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_concurrent_backups: Option<i32>,
    /// true stops everything that writes: no backup and no maintenance begins, no repository is created, and left-over locks
    /// stay. Restores, checks and browsing go on, and write no lock. With a hub no cluster removes snapshots meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// When retention runs and integrity checks of this cluster may begin on the repository; at any time unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_window: Option<AllowedWindow>,
    /// Who is told of damage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,
}

/// Whether a repository is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Initialize {
    /// Where there is none, and none was there before.
    #[default]
    IfMissing,
    /// It has to be there: a mistyped URL is no new repository.
    Never,
}

/// Where restic's cache lies while a pod runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheConfig {
    /// false makes restic work without a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Size limit of the cache.
    #[serde(default = "default_cache_size", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("size must be a quantity such as 5Gi"))]
    pub size: Option<String>,
    /// Puts the cache on a volume of this class instead of the node's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
}

#[allow(clippy::unnecessary_wraps)]
fn default_cache_size() -> Option<String> {
    Some("5Gi".to_owned())
}

/// Namespaces whose resources may use the repository, beside its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from == 'Selector' ? has(self.selector) : !has(self.selector)")
    .message("selector belongs to from: Selector, which needs one; write selector: {matchLabels: {team: shop}} for example"))]
pub struct AllowedNamespaces {
    #[serde(default)]
    pub from: NamespacesFrom,
    /// Labels that a namespace must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespacesFrom {
    /// Only the repository's own namespace.
    #[default]
    Same,
    /// Every namespace of the cluster.
    All,
    /// Namespaces with the labels of `selector`.
    Selector,
}

/// Reasons of a repository whose data are not what they should be.
pub const DAMAGE: [&str; 3] = [
    reasons::REPOSITORY_DAMAGED,
    reasons::REPOSITORY_MISSING,
    reasons::REPOSITORY_CHANGED,
];

/// What is known of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResticRepositoryStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// restic's own id of the repository (64 hex digits): the same however it is reached.
    #[serde(rename = "repositoryID", default, skip_serializing_if = "Option::is_none")]
    pub repository_id: Option<String>,
    /// restic id of another repository that was found at the location, in the place of repositoryID. No retention run of
    /// either begins until a person accepts it with the annotation backup.resticbackup.io/accept-repository, or the known
    /// one is found again.
    #[serde(rename = "changedID", default, skip_serializing_if = "Option::is_none")]
    pub changed_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<RepositoryStatistics>,
    /// resourceVersion of the Secret that the last answer of the repository was got with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_version: Option<String>,
    /// Id of the key of restic (64 hex digits) that the password in the Secret opens.
    #[serde(rename = "keyID", default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The last change of the password that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_rotation: Option<PasswordRotation>,
    /// restic's own locks as of the last look, the oldest 20. Empty while nobody works on the repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<ResticLock>,
    /// The last attempt to remove locks of dead processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_unlock: Option<LastUnlock>,
    /// When the last integrity check ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_integrity_check: Option<Time>,
    /// Its result: Passed, Damaged, Failed (it could not read the repository, so that nothing is known anew) or
    /// Interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_integrity_check_result: Option<String>,
    /// What else is known of integrity checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity_check: Option<IntegrityCheckStatus>,
    /// The last retention run that the hub asked this cluster for, since the cluster of a policy that was due was away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_retention_on_behalf: Option<RetentionOnBehalf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl ResticRepositoryStatus {
    /// Ready, and opened by this operator: the original one called ready what it had never opened, and recorded no id.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.repository_id.is_some() && conditions::is_true(&self.conditions, types::READY)
    }

    /// The condition by which the data are not what they should be: damaged, missing, or those of another repository.
    /// Ready comes before Degraded.
    #[must_use]
    pub fn damage(&self) -> Option<&Condition> {
        let damage = |type_, bad: &str| {
            let condition = conditions::get(&self.conditions, type_)?;
            let is_damage = condition.status == bad && DAMAGE.contains(&condition.reason.as_str());
            is_damage.then_some(condition)
        };
        damage(types::READY, "False").or_else(|| damage(types::DEGRADED, "True"))
    }
}

/// A lock of restic. restic changes the id of a lock each five minutes while it works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResticLock {
    /// 64 hex digits.
    pub id: String,
    /// Nothing else may use the repository meanwhile; otherwise only forget and prune have to wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// User name in the lock; `fleet:<cluster>:<operation>:<token>` for what the fleet runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Time in the lock, by the clock of the machine that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// When this id was first seen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged_since: Option<Time>,
    /// Why it is not removed; absent while it is to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_because: Option<String>,
}

/// An attempt to remove locks of dead processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastUnlock {
    /// uid of the Job.
    #[serde(rename = "jobUID")]
    pub job_uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// "Applied", "NothingToRemove", "Failed" or "Interrupted".
    pub result: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Ids of the locks that it removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// A retention run that a cluster carried out for a policy of another one. It carries out all policies, as each run does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionOnBehalf {
    /// The policy that was due, `<cluster>/<namespace>/<name>`; absent for a run of a plan that was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// "Applied", "NothingToRemove", "Preview", "ApprovalRequired", "Failed" or "Interrupted".
    pub result: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_removed: Option<i32>,
    /// Hash of the plan that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// uids of Jobs whose results are in the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted_jobs: Vec<String>,
}

/// Figures of a repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatistics {
    /// Stored size for people, such as "1.5 GiB".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<String>,
    /// Stored bytes (restic stats --mode raw-data).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size_bytes: Option<i64>,
    /// The same blobs without compression, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed_size_bytes: Option<i64>,
    /// Uncompressed by stored size, such as "2.41".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_ratio: Option<String>,
    /// Files in all snapshots together, as the snapshots' own summaries count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_file_count: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_count: Option<i32>,
    /// Per host name in the snapshots, the 100 with the most snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostStatistics>,
    /// When these figures were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
    /// Cluster that read them, where the hub has appointed another one; absent where this cluster did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_by: Option<String>,
}

/// Snapshots of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatistics {
    pub host: String,
    pub snapshot_count: i32,
    /// Time of the newest snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_snapshot: Option<Time>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_a_bad_state_with_a_reason_of_the_data() {
        let of = |list: &[(&str, &str, &str)]| {
            let condition = |(type_, status, reason): &(&str, &str, &str)| {
                serde_json::json!({ "type": type_, "status": status, "reason": reason, "message": "",
                                    "lastTransitionTime": "2026-11-26T00:00:00Z" })
            };
            let list: Vec<_> = list.iter().map(condition).collect();
            let status = serde_json::json!({ "conditions": list });
            let status: ResticRepositoryStatus = serde_json::from_value(status).unwrap();
            status
                .damage()
                .map(|found| (found.type_.clone(), found.reason.clone()))
        };
        let found = |type_: &str, reason: &str| Some((type_.to_owned(), reason.to_owned()));
        for reason in ["RepositoryDamaged", "RepositoryMissing", "RepositoryChanged"] {
            assert_eq!(of(&[("Ready", "False", reason)]), found("Ready", reason));
            assert_eq!(of(&[("Degraded", "True", reason)]), found("Degraded", reason));
            let both = [
                ("Degraded", "True", reason),
                ("Ready", "False", reasons::REPOSITORY_MISSING),
            ];
            assert_eq!(of(&both), found("Ready", reasons::REPOSITORY_MISSING));
            assert_eq!(
                of(&[("Ready", "True", reason), ("Degraded", "False", reason)]),
                None
            );
            assert_eq!(of(&[("Ready", "Unknown", reason)]), None);
        }
        assert_eq!(of(&[("Ready", "False", reasons::REPOSITORY_UNREACHABLE)]), None);
        assert_eq!(of(&[("Degraded", "True", reasons::REPOSITORY_LOCKED)]), None);
        assert_eq!(of(&[]), None);
    }
}
