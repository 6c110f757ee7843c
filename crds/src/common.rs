//! Types that several kinds share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, PodSecurityContext, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// How the pods of a resource are run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobConfiguration {
    /// What to do when a run is due while the one before it still runs.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Finished Jobs to keep. 0 counts as 1, because the result is read from the finished Job.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0))]
    pub successful_jobs_history_limit: i32,
    #[serde(default = "default_history")]
    #[schemars(range(min = 0))]
    pub failed_jobs_history_limit: i32,
    /// Seconds after which a run is ended, whatever it is doing.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: i64,
    /// How often a failed pod is tried again within one run.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub backoff_limit: i32,
    /// core/v1 PodSecurityContext, laid over the default (not root, uid and gid 65532, RuntimeDefault seccomp profile).
    /// Files that only their owner may read need runAsUser: <owner>, or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::schemaless")]
    pub security_context: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// core/v1 Affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::schemaless")]
    pub affinity: Option<Value>,
    /// ServiceAccount of the pods; one is made unless given. Its token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
}

/// A day and a half would end the first backup of a large volume; three days only end what hangs.
pub const DEFAULT_DEADLINE_SECONDS: i64 = 3 * 24 * 3600;

fn default_history() -> i32 {
    3
}

fn default_deadline() -> i64 {
    DEFAULT_DEADLINE_SECONDS
}

impl Default for JobConfiguration {
    fn default() -> Self {
        JobConfiguration {
            concurrency_policy: ConcurrencyPolicy::default(),
            successful_jobs_history_limit: default_history(),
            failed_jobs_history_limit: default_history(),
            active_deadline_seconds: default_deadline(),
            backoff_limit: 0,
            security_context: None,
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            service_account_name: None,
        }
    }
}

/// A schemaless part of a spec that is not what Kubernetes expects there.
#[derive(Debug, thiserror::Error)]
#[error("spec.{field} is not a {kind}: {source}")]
pub struct BadPart {
    pub field: &'static str,
    pub kind: &'static str,
    source: serde_json::Error,
}

impl JobConfiguration {
    /// `securityContext` as the type it must be.
    pub fn parsed_security_context(&self) -> Result<Option<PodSecurityContext>, BadPart> {
        parse(
            "jobConfig.securityContext",
            "core/v1 PodSecurityContext",
            self.security_context.as_ref(),
        )
    }

    /// `affinity` as the type it must be.
    pub fn parsed_affinity(&self) -> Result<Option<Affinity>, BadPart> {
        parse("jobConfig.affinity", "core/v1 Affinity", self.affinity.as_ref())
    }

    /// `resources` as the type it must be. Quantities may be written as numbers.
    pub fn parsed_resources(&self) -> Result<Option<ResourceRequirements>, BadPart> {
        let mut value = self.resources.clone();
        for list in ["limits", "requests"] {
            if let Some(Value::Object(quantities)) = value.as_mut().and_then(|v| v.get_mut(list)) {
                for quantity in quantities.values_mut().filter(|q| q.is_number()) {
                    *quantity = Value::String(quantity.to_string());
                }
            }
        }
        parse(
            "jobConfig.resources",
            "core/v1 ResourceRequirements",
            value.as_ref(),
        )
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    field: &'static str,
    kind: &'static str,
    value: Option<&Value>,
) -> Result<Option<T>, BadPart> {
    value
        .map(|v| T::deserialize(v).map_err(|source| BadPart { field, kind, source }))
        .transpose()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_job_configuration_has_all_defaults() {
        assert_eq!(
            serde_json::from_value::<JobConfiguration>(json!({})).unwrap(),
            JobConfiguration::default()
        );
    }

    #[test]
    fn quantities_may_be_numbers() {
        let job: JobConfiguration =
            serde_json::from_value(json!({ "resources": { "limits": { "cpu": 1, "memory": "1Gi" } } }))
                .unwrap();
        let limits = job.parsed_resources().unwrap().unwrap().limits.unwrap();
        assert_eq!(limits["cpu"].0, "1");
    }

    #[test]
    fn a_wrong_part_names_its_field() {
        let job = JobConfiguration {
            affinity: Some(json!({ "nodeAffinity": 3 })),
            ..JobConfiguration::default()
        };
        assert!(
            job.parsed_affinity()
                .unwrap_err()
                .to_string()
                .starts_with("spec.jobConfig.affinity is not")
        );
    }
}
