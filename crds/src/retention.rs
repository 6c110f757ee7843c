//! GlobalRetentionPolicy: which snapshots of a repository stay, across everything that writes into it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{CrossNamespaceObjectReference, JobConfiguration, ObjectReference, RetentionPolicy};
use crate::notifications::Notifications;
use crate::progress::RunProgress;
use crate::rules;
use crate::schedule::schema::{BAD_SCHEDULE, BAD_TIMEZONE, schedule_rule, timezone_rule};
use crate::window::AllowedWindow;

/// A retention policy of a whole repository.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "backup.resticbackup.io",
    version = "v1alpha1",
    kind = "GlobalRetentionPolicy",
    plural = "globalretentionpolicies",
    shortname = "grp",
    category = "resticfleet",
    namespaced,
    status = "GlobalRetentionPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Schedule","type":"string","jsonPath":".spec.schedule"}"#,
    printcolumn = r#"{"name":"Repository","type":"string","jsonPath":".spec.repositoryRef.name"}"#,
    printcolumn = r#"{"name":"Suspended","type":"boolean","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Last Run","type":"date","jsonPath":".status.lastRun"}"#,
    printcolumn = r#"{"name":"Last Result","type":"string","jsonPath":".status.lastRunResult"}"#,
    printcolumn = r#"{"name":"Removed","type":"integer","jsonPath":".status.snapshotsRemoved"}"#,
    printcolumn = r#"{"name":"Approval","type":"string","jsonPath":".status.conditions[?(@.type==\"ApprovalRequired\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Next Run","type":"string","jsonPath":".status.nextRun","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRetentionPolicySpec {
    /// Repository that is kept in order.
    pub repository_ref: CrossNamespaceObjectReference,
    /// Five cron fields such as "0 4 * * 0", or @weekly. H is a value that follows from namespace and name: "H 4 * * 0".
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(schedule_rule()).message(BAD_SCHEDULE))]
    pub schedule: String,
    /// IANA time zone of the schedule, such as Europe/Berlin.
    #[serde(default = "default_timezone", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(timezone_rule()).message(BAD_TIMEZONE))]
    pub timezone: Option<String>,
    /// When its runs may begin; at any time unless given. A run that is due outside of it waits until it opens. A run of another
    /// policy carries out the rules of this one at its own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_window: Option<AllowedWindow>,
    /// What is kept of which snapshots. A snapshot is removed only if every rule that selects it, of all policies of all
    /// clusters bound to the repository, would remove it. Each run of any of these policies carries out the rules of
    /// all of them, whatever their own schedules.
    #[schemars(length(min = 1, max = 64))]
    pub policies: Vec<PolicyRule>,
    /// Whose snapshots may be removed: Global reaches those of every cluster bound to the repository, Cluster only those
    /// of this cluster. Snapshots of clusters that are not bound, and those without a cluster, are removed only by a
    /// rule whose selector names them (tag fleet.cluster=NAME; a tag or hostname for those without).
    #[serde(default)]
    pub scope: Scope,
    /// true also frees the space of what was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<bool>,
    /// What the first run with these rules does, on this repository: Preview shows what it would remove and removes
    /// nothing, Apply removes it. Changed rules, scope or guard, or another repository, are shown again.
    #[serde(default)]
    pub initial_run: InitialRun,
    /// Plans that look like a mistake wait for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<RetentionGuard>,
    /// Who is told of the outcome of each run, and of plans that wait for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,
    /// How the pods are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!has(self.cache)").message(crate::cache::ONLY_BACKUPS))]
    pub job_config: Option<JobConfiguration>,
    /// true stops the schedule.
    // What is not written is not owned: a person may set it where the operator applies the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub suspend: bool,
}

#[allow(clippy::unnecessary_wraps)]
fn default_timezone() -> Option<String> {
    Some("UTC".to_owned())
}

/// Whose snapshots a policy may remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// Those of every cluster that is bound to the repository.
    #[default]
    Global,
    /// Those of the policy's own cluster.
    Cluster,
}

/// What the first run of a policy does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InitialRun {
    #[default]
    Preview,
    Apply,
}

/// When a plan waits for approval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionGuard {
    /// A plan that leaves a cluster, or a group of one host with the same paths and tags, with this part fewer snapshots
    /// than the last applied run did waits for approval; 30 unless given. Before the first applied run, the snapshots
    /// that are there count. The smallest number of the policies that remove something there applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_removed_percent: Option<i32>,
}

/// Per cent of a cluster's or group's snapshots that a run removes without approval.
pub const DEFAULT_MAX_REMOVED_PERCENT: i32 = 30;

/// Some snapshots, and what is kept of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    pub selector: PolicySelector,
    pub retention: RetentionPolicy,
    /// What makes snapshots one group, of which so many are kept (restic's --group-by): host, paths and tags. All three
    /// unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 8)))]
    #[x_kube(validation = Rule::new(rules::groups_rule()).message(rules::BAD_GROUPS))]
    pub group_by: Vec<String>,
}

/// Which snapshots a policy is about. Empty means all of the repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySelector {
    /// Tags that a snapshot must carry, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 340)))]
    #[x_kube(validation = Rule::new(rules::tags_rule()).message(rules::BAD_TAGS))]
    pub tags: Vec<String>,
    /// Host name that a snapshot must have; any unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new(rules::hostname_rule()).message(rules::BAD_HOSTNAME))]
    pub hostname: Option<String>,
}

/// Snapshots that a run left of a cluster or of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotsLeft {
    /// "cluster/NAME", or "group/" and a hash of host, paths and tags. The first one is "whole" or "cut": whether the list has all of
    /// them.
    pub key: String,
    pub snapshots: i32,
}

/// What is known of a retention policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRetentionPolicyStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_result: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_duration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_size_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_size_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_size_before_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_size_after_bytes: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_removed: Option<i32>,
    /// Snapshots that the policy's rules match, after the last run whose count is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_left: Option<i32>,
    /// restic id of the repository that the policy is bound to. Kept while the ResticRepository is deleted or not looked at
    /// yet: what the policy keeps stays kept.
    #[serde(rename = "repositoryID", default, skip_serializing_if = "Option::is_none")]
    pub repository_id: Option<String>,
    /// What the last run came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_message: Option<String>,
    /// Fencing token of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_token: Option<i64>,
    /// Cluster and policy whose Job did the last run; absent when it was a Job of this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_by: Option<String>,
    /// Hash of the plan that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Hash of the rules, guard and repository for which a preview has shown what the policy would remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previewed_for: Option<String>,
    /// Written by versions that did not know previewedFor. Read until the spec changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub previewed: bool,
    /// Snapshots that the last applied run left, by cluster and group: what the guard compares with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub left: Vec<SnapshotsLeft>,
    /// Last value of the approval annotation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_approval: Option<String>,
    /// Jobs that run or wait for the lock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<String>,
    /// How far a prune that is under way has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RunProgress>,
    /// uids of finished Jobs that are in the figures above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted_jobs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_job_ref: Option<ObjectReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
