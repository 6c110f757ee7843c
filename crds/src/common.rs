//! Types that several kinds share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::job::{BadPart, DEFAULT_DEADLINE_SECONDS, JobConfiguration};
pub use crate::variable::Variable;
use crate::{rules, schema};

/// A Secret, and a key in it where a single value is meant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeySelector {
    /// Name of the Secret, in the namespace of the resource.
    pub name: String,
    /// Key that holds the repository password. RESTIC_PASSWORD unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A resource by name, in another namespace if one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrossNamespaceObjectReference {
    /// Name of the resource.
    pub name: String,
    /// Namespace of the resource; that of the referring resource unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl CrossNamespaceObjectReference {
    /// The namespace meant, seen from a resource in `own`. An empty string means the own one, as in the original.
    #[must_use]
    pub fn namespace_or<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace
            .as_deref()
            .filter(|ns| !ns.is_empty())
            .unwrap_or(own)
    }
}

/// A generated object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    pub name: String,
    pub namespace: String,
    /// metadata.generation of the object as it was last applied; a different one means that somebody changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// Which snapshots to keep. A snapshot stays as long as one rule keeps it. keepTags alone is not enough.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::keeps_something("self")).message(rules::KEEPS_NOTHING),
    validation = Rule::new(rules::keeps_more_than_tags("self")).message(rules::TAGS_ALONE)
)]
pub struct RetentionPolicy {
    /// The last n snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keep_last: Option<i32>,
    /// The last snapshot of each of the last n hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keep_hourly: Option<i32>,
    /// The last snapshot of each of the last n days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keep_daily: Option<i32>,
    /// The last snapshot of each of the last n weeks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keep_weekly: Option<i32>,
    /// The last snapshot of each of the last n months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keep_monthly: Option<i32>,
    /// The last snapshot of each of the last n years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keep_yearly: Option<i32>,
    /// All snapshots within this time before the newest of their group, such as 14d or 1y6m (restic's --keep-within).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(rules::span_rule()).message(rules::BAD_SPAN))]
    pub keep_within: Option<String>,
    /// Hourly snapshots within this time before the newest of their group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(rules::span_rule()).message(rules::BAD_SPAN))]
    pub keep_within_hourly: Option<String>,
    /// Daily snapshots within this time before the newest of their group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(rules::span_rule()).message(rules::BAD_SPAN))]
    pub keep_within_daily: Option<String>,
    /// Weekly snapshots within this time before the newest of their group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(rules::span_rule()).message(rules::BAD_SPAN))]
    pub keep_within_weekly: Option<String>,
    /// Monthly snapshots within this time before the newest of their group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(rules::span_rule()).message(rules::BAD_SPAN))]
    pub keep_within_monthly: Option<String>,
    /// Yearly snapshots within this time before the newest of their group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new(rules::span_rule()).message(rules::BAD_SPAN))]
    pub keep_within_yearly: Option<String>,
    /// Snapshots that carry one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(rules::tags_rule()).message(rules::BAD_TAGS))]
    pub keep_tags: Vec<String>,
}

/// A command in running pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecHook {
    /// Pods of the same namespace. The command runs in each one that is running; that none is, is a failure.
    #[x_kube(validation = Rule::new("(has(self.matchLabels) && self.matchLabels.size() > 0) || (has(self.matchExpressions) && self.matchExpressions.size() > 0)")
        .message("podSelector selects every pod of the namespace: name at least one label"))]
    pub pod_selector: LabelSelector,
    /// The pod's default container unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Program and arguments. There is no shell unless it is the program, and no standard input.
    #[schemars(length(min = 1, max = 256), inner(length(max = 32768)))]
    #[x_kube(validation = Rule::new("self.size() > 0 && self[0] != ''").message("command needs a program: write [\"sh\", \"-c\", \"…\"], for example"))]
    pub command: Vec<String>,
    /// How long the command may take, such as 60s.
    #[serde(default = "default_hook_timeout", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Option<String>,
}

#[allow(clippy::unnecessary_wraps)]
fn default_hook_timeout() -> Option<String> {
    Some("60s".to_owned())
}

/// A pod that runs to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobHook {
    /// core/v1 PodTemplateSpec. restartPolicy is Never unless given.
    #[schemars(schema_with = "schema::schemaless")]
    pub pod_template: Value,
    /// How long its Job may take, such as 10m.
    #[serde(default = "default_job_hook_timeout", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Option<String>,
}

#[allow(clippy::unnecessary_wraps)]
fn default_job_hook_timeout() -> Option<String> {
    Some("10m".to_owned())
}

/// Something to do before or after: either exec or job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.exec) != has(self.job)")
    .message("a hook needs exactly one of exec and job: keep one and remove the other"))]
pub struct Hook {
    /// A command in running pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecHook>,
    /// A pod that runs to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobHook>,
}

/// `batch/v1` ConcurrencyPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    Allow,
    #[default]
    Forbid,
    Replace,
}

impl ConcurrencyPolicy {
    /// Spelling in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ConcurrencyPolicy::Allow => "Allow",
            ConcurrencyPolicy::Forbid => "Forbid",
            ConcurrencyPolicy::Replace => "Replace",
        }
    }
}
