//! How the pods of a resource are run.

use crds::common::{BadPart, ConcurrencyPolicy, JobConfiguration};
use k8s_openapi::api::core::v1::{Affinity, PodSecurityContext, ResourceRequirements, Toleration};

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
    pub node_selector: std::collections::BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub affinity: Option<Affinity>,
    pub service_account: Option<String>,
}

/// Parses `spec.jobConfig`.
///
/// # Errors
/// When a part without a schema is not what Kubernetes expects there.
pub fn job_settings(config: Option<&JobConfiguration>) -> Result<JobSettings, BadPart> {
    let empty = JobConfiguration::default();
    let config = config.unwrap_or(&empty);
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
    })
}
