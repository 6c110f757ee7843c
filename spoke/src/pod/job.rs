//! How the pods of a resource are run.

use crds::cache::{Cache, JobCache};
use crds::common::{BadPart, ConcurrencyPolicy, JobConfiguration};
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, PodSecurityContext, ResourceRequirements, Toleration,
};

use super::variable;

/// `spec.jobConfig`, parsed.
#[derive(Clone, Debug)]
pub struct JobSettings {
    pub concurrency: ConcurrencyPolicy,
    pub successful_history: i32,
    pub failed_history: i32,
    pub deadline: i64,
    pub backoff_limit: i32,
    pub security: Option<PodSecurityContext>,
    pub resources: Option<ResourceRequirements>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub affinity: Option<Affinity>,
    pub service_account: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub priority_class: Option<String>,
    pub pull_secrets: Vec<LocalObjectReference>,
    /// Variables of restic's container.
    pub environment: Vec<EnvVar>,
    /// restic's flags for what is sent and received.
    pub limits: Vec<String>,
    /// Where the cache stays between runs.
    pub cache: Option<Cache>,
}

/// Parses `spec.jobConfig`.
///
/// # Errors
/// When a part without a schema is not what Kubernetes expects there, or a name cannot be set.
pub fn job_settings(config: Option<&JobConfiguration>) -> Result<JobSettings, BadPart> {
    let empty = JobConfiguration::default();
    let config = config.unwrap_or(&empty);
    config.check_names()?;
    let cache = config.cache.as_ref().map(JobCache::parse);
    Ok(JobSettings {
        concurrency: config.concurrency_policy,
        // The result is read from the finished Job, so at least one must stay.
        successful_history: config.successful_jobs_history_limit.max(1),
        failed_history: config.failed_jobs_history_limit.max(1),
        deadline: config.active_deadline_seconds.max(1),
        backoff_limit: config.backoff_limit.max(0),
        security: config.parsed_security_context()?,
        resources: config.parsed_resources()?,
        node_selector: config.node_selector.clone(),
        tolerations: config.tolerations.clone(),
        affinity: config.parsed_affinity()?,
        service_account: config
            .service_account_name
            .clone()
            .filter(|name| !name.is_empty()),
        labels: config.pod_labels.clone(),
        annotations: config.pod_annotations.clone(),
        priority_class: config.priority_class_name.clone().filter(|name| !name.is_empty()),
        pull_secrets: config.image_pull_secrets.clone(),
        environment: config.env.iter().map(|v| variable(&v.name, &v.value)).collect(),
        limits: limits(config),
        cache: cache.transpose().map_err(BadPart::Cache)?,
    })
}

/// The same for a kind whose cache lasts as long as a pod.
///
/// # Errors
/// As of [`job_settings`], and where a cache is given.
pub fn uncached_settings(config: Option<&JobConfiguration>) -> Result<JobSettings, BadPart> {
    if let Some(config) = config {
        config.check_without_cache()?;
    }
    job_settings(config)
}

fn limits(config: &JobConfiguration) -> Vec<String> {
    let limits = [
        ("--limit-upload", config.limit_upload),
        ("--limit-download", config.limit_download),
    ];
    let given = limits
        .into_iter()
        .filter_map(|(flag, limit)| Some((flag, limit.filter(|limit| *limit > 0)?)));
    given.map(|(flag, limit)| format!("{flag}={limit}")).collect()
}
