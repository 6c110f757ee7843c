//! ResticBackup: what is backed up, where to, and when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    CrossNamespaceObjectReference, Hook, JobConfiguration, ObjectReference, RetentionPolicy,
};
use crate::notifications::NotificationConfig;
pub use crate::source::{
    BackupSource, CustomSource, ExecSource, PodSource, PodVolumeSource, PvcSource, StdinSource,
};

use crate::hooks::{HookRun, OpenHooks};
use crate::progress::RunProgress;
use crate::schedule::schema::{BAD_SCHEDULE, BAD_TIMEZONE, schedule_rule, timezone_rule};
use crate::{rules, schema};

/// A scheduled backup.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "backup.resticbackup.io",
    version = "v1alpha1",
    kind = "ResticBackup",
    plural = "resticbackups",
    shortname = "rb",
    category = "resticfleet",
    namespaced,
    status = "ResticBackupStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Schedule","type":"string","jsonPath":".spec.schedule"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Running","type":"string","jsonPath":".status.conditions[?(@.type==\"Progressing\")].status"}"#,
    printcolumn = r#"{"name":"Last Result","type":"string","jsonPath":".status.lastBackup.result"}"#,
    printcolumn = r#"{"name":"Last Success","type":"date","jsonPath":".status.lastSuccessfulBackup"}"#,
    printcolumn = r#"{"name":"Failure","type":"string","jsonPath":".status.lastBackup.reason"}"#,
    printcolumn = r#"{"name":"Percent","type":"integer","jsonPath":".status.progress.percent","priority":1}"#,
    printcolumn = r#"{"name":"Next Run","type":"string","jsonPath":".status.nextBackup","priority":1}"#,
    printcolumn = r#"{"name":"Repository","type":"string","jsonPath":".spec.repositoryRef.name","priority":1}"#,
    printcolumn = r#"{"name":"Suspended","type":"boolean","jsonPath":".spec.suspend","priority":1}"#,
    printcolumn = r#"{"name":"Retention","type":"string","jsonPath":".status.conditions[?(@.type==\"RetentionReady\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
// What few backups have is in boxes: an operator holds each backup of its cluster.
pub struct ResticBackupSpec {
    /// Repository to back up into.
    pub repository_ref: CrossNamespaceObjectReference,
    /// Five cron fields such as "30 2 * * *", or @daily. H is a value that follows from kind, namespace and name, so that
    /// backups do not all begin at once: "H 3 * * *", "H H(0-5) * * *", "H/15 * * * *".
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(schedule_rule()).message(BAD_SCHEDULE))]
    pub schedule: String,
    /// IANA time zone of the schedule, such as Europe/Berlin.
    #[serde(default = "default_timezone", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(timezone_rule()).message(BAD_TIMEZONE))]
    pub timezone: Option<String>,
    /// What is backed up.
    pub source: BackupSource,
    /// How restic is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restic: Option<ResticConfig>,
    /// What is done before and after each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Box<BackupHooks>>,
    /// Which snapshots of this backup to keep. It makes a GlobalRetentionPolicy of its own, resticbackup-NAME, whose first run
    /// is a preview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Box<BackupRetention>>,
    /// Who is told of the outcome of each run, and when the backup becomes stale or suspicious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Box<NotificationConfig>>,
    /// How the pods are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_config: Option<Box<JobConfiguration>>,
    /// true stops the schedule; runs asked for by hand still happen.
    #[serde(default)]
    pub suspend: bool,
}

#[allow(clippy::unnecessary_wraps)]
fn default_timezone() -> Option<String> {
    Some("UTC".to_owned())
}

/// How restic is called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResticConfig {
    /// Host name in the snapshots; the resource's name unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x20]')").message("hostname must not hold spaces or line breaks"))]
    pub hostname: Option<String>,
    /// Tags of the snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    #[x_kube(validation = Rule::new(r"self.all(t, t != '' && !t.matches('[\\x00\\n\\r]'))")
        .message("tags must not be empty or hold line breaks"))]
    #[x_kube(validation = Rule::new(r"self.all(t, !t.matches('(^|,)\\s*fleet\\.'))")
        .message("tags that begin with fleet. are reserved: they say whose a snapshot is"))]
    pub tags: Vec<String>,
    /// Options of `restic backup`, with their values in the same or in the next entry. Allowed are those that choose and
    /// compare files, limit the transfer or change how data is stored, such as --exclude-caches or --limit-upload=1000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[x_kube(validation = Rule::new(r"self.size() == 0 || self[0].startsWith('-')")
        .message("extraArgs are options and their values: the first one must begin with -"))]
    #[x_kube(validation = Rule::new(r"self.all(a, !a.matches('^(--|-o.*|--option(=.*)?)$'))")
        .message("extraArgs must not hold -- or extended options (-o), which can run commands"))]
    #[x_kube(validation = Rule::new(r"self.all(a, !a.matches('^--tag=(.*,)?\\s*fleet\\.'))")
        .message("tags that begin with fleet. are reserved: they say whose a snapshot is"))]
    pub extra_args: Vec<String>,
    /// Image with restic 0.18 or later and a POSIX shell, from the operator's list (--allowed-images; restic's own unless
    /// changed).
    #[serde(default = "default_image", skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

#[allow(clippy::unnecessary_wraps)]
fn default_image() -> Option<String> {
    Some(crate::RESTIC_IMAGE.to_owned())
}

/// What is done before and after a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupHooks {
    /// Before restic begins, such as a flush and a freeze. Where it fails, no backup is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_backup: Option<Hook>,
    /// After restic has ended, however it has, and after each preBackup hook that began. It may run more than once, so it
    /// has to bear that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_backup: Option<Hook>,
    /// After postBackup, where restic did not end with exit code 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Hook>,
}

/// Which snapshots of this backup to keep. Only those that it made in this cluster, under its namespace and name, are removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::off_or(rules::keeps_something)).message(rules::KEEPS_NOTHING),
    validation = Rule::new(rules::off_or(rules::keeps_more_than_tags)).message(rules::TAGS_ALONE)
)]
pub struct BackupRetention {
    /// Nothing is removed unless it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// A snapshot stays as long as one rule keeps it. With enabled: true it has to keep something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::without_validations::<RetentionPolicy>")]
    pub policy: Option<RetentionPolicy>,
    /// Five cron fields, or @weekly, in the time zone of the backup. Unless given, once a day at a time that follows from
    /// the repository, so that all backups of one are taken in one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(schedule_rule()).message(BAD_SCHEDULE))]
    pub schedule: Option<String>,
    /// true also frees the space of what was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<bool>,
    /// restic's --group-by; host and tags unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 8)))]
    #[x_kube(validation = Rule::new(rules::groups_rule()).message(rules::BAD_GROUPS))]
    pub group_by: Vec<String>,
}

/// What is known of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResticBackupStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<BackupRun>,
    /// End of the last run with result Succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_backup: Option<Time>,
    /// Next time the schedule is due; absent while suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_backup: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<BackupStatistics>,
    /// Bytes read by the last good runs, the newest at the end: what is usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_sizes: Vec<i64>,
    /// The run with which condition Suspicious began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicious: Option<SuspiciousRun>,
    /// Last run of the policy that spec.retention makes, previews included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_retention_run: Option<Time>,
    /// Snapshots of this backup after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_after_retention: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_job_ref: Option<ObjectReference>,
    /// Jobs that run now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<String>,
    /// How far the run that began last and is under way has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// Place of its parked run among those that wait for the same limit, from 1 on. Not set beyond the 20th place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_place: Option<i32>,
    /// Runs whose hooks may not have all ended: what makes a postBackup hook run after every preBackup hook that began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_hooks: Vec<OpenHooks>,
    /// uids of finished Jobs that are in the counters and still exist: what makes each run count once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted_jobs: Vec<String>,
    /// The last 20 ended runs that commands of the hub asked for, the newest at the end: a hub that asks late what became of
    /// a command is answered although other runs have ended since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub commanded_runs: Vec<CommandedRun>,
    /// Last value of the annotation backup.resticbackup.io/run that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_request: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupResult {
    /// Everything was read and stored.
    Succeeded,
    /// restic exit code 3: a snapshot exists, but some files could not be read.
    PartiallyFailed,
    /// No snapshot that could be trusted.
    Failed,
}

impl BackupResult {
    /// Spelling in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BackupResult::Succeeded => "Succeeded",
            BackupResult::PartiallyFailed => "PartiallyFailed",
            BackupResult::Failed => "Failed",
        }
    }
}

/// One run of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRun {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Such as "1m12s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Full id of the snapshot, 64 hex digits.
    #[serde(rename = "snapshotID", default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    pub result: BackupResult,
    /// Why the result is not Succeeded, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Job that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Bytes that the repository grew by, compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_added: Option<i64>,
    /// Bytes read from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_processed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_processed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_new: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_changed: Option<i64>,
    /// Its hooks, in the order in which they ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRun>,
}

/// How a run has ended that a command of the hub asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandedRun {
    /// Id of the command.
    pub id: String,
    pub result: BackupResult,
    /// Full id of the snapshot, 64 hex digits.
    #[serde(rename = "snapshotID", default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// Why the result is not Succeeded: one word, and the beginning of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A run that stored far less than those before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspiciousRun {
    /// Full id of its snapshot. What annotation backup.resticbackup.io/accept-suspicious names to accept it.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Bytes read.
    pub bytes: i64,
    /// Median of the runs before it.
    pub usual_bytes: i64,
}

/// Counters over all runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatistics {
    #[serde(default)]
    pub total_backups: i32,
    #[serde(default)]
    pub successful_backups: i32,
    /// Failed and PartiallyFailed ones.
    #[serde(default)]
    pub failed_backups: i32,
    /// Bytes read by the last run that wrote a snapshot, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_size_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_files: Option<i64>,
}
