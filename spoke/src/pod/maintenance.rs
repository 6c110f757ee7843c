//! Jobs of maintenance operations: born suspended, so that the gate opens them, with pods that read their lease. Pure.

use std::collections::BTreeMap;

use crds::ResticRepository;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Frame, JOB_UID, JobSettings, MAINTENANCE_DEADLINE, Source, hashed, identity, lease, repository_flags,
};

/// Kubernetes makes one in each namespace. It is for pods without a token, which do not use it.
pub const DEFAULT_ACCOUNT: &str = "default";

/// A pod of an operation.
pub struct Maintenance<'a> {
    pub job: &'a JobSettings,
    pub service_account: String,
    pub image: &'a str,
    pub repository: &'a ResticRepository,
    pub source: &'a Source,
    pub cluster: &'a str,
    /// Name of the operation and its flags, as of `fleet-spoke maintenance`.
    pub arguments: Vec<String>,
}

impl Maintenance<'_> {
    /// The pod, with these labels.
    #[must_use]
    pub fn template(self, labels: BTreeMap<String, String>) -> PodTemplateSpec {
        let mut arguments = vec!["maintenance".to_owned()];
        arguments.extend(self.arguments);
        arguments.push("--".to_owned());
        arguments.extend(repository_flags(self.repository, self.job));
        Frame {
            job: self.job,
            service_account: self.service_account,
            image: self.image.to_owned(),
            repository: self.repository,
            source: self.source,
            command: vec!["fleet-spoke".to_owned()],
            arguments,
            mounts: vec![lease::mount()],
            volumes: vec![lease::volume()],
            environment: lease::variables()
                .into_iter()
                .chain(identity(self.cluster, JOB_UID))
                .collect(),
            cache: None,
            root_capabilities: &[],
            own_volumes: true,
        }
        .template(labels)
    }
}

/// A Job with this pod and this deadline in seconds.
#[must_use]
pub fn suspended_job(deadline: i64, template: PodTemplateSpec) -> JobSpec {
    JobSpec {
        suspend: Some(true),
        // A second attempt is an operation of its own, with a lock of its own.
        backoff_limit: Some(0),
        active_deadline_seconds: Some(deadline),
        template,
        ..JobSpec::default()
    }
}

/// When the Jobs of a CronJob are made.
pub struct Slots<'a> {
    pub cron: &'a str,
    pub timezone: &'a str,
    pub suspend: bool,
}

/// A CronJob that makes such Jobs, with the labels of their pods.
#[must_use]
pub fn cron_job(metadata: ObjectMeta, slots: &Slots<'_>, settings: &JobSettings, job: JobSpec) -> CronJob {
    let labels = job.template.metadata.as_ref().and_then(|m| m.labels.clone());
    hashed(CronJob {
        metadata,
        spec: CronJobSpec {
            schedule: slots.cron.to_owned(),
            time_zone: Some(slots.timezone.to_owned()),
            concurrency_policy: Some("Forbid".to_owned()),
            suspend: Some(slots.suspend),
            starting_deadline_seconds: Some(MAINTENANCE_DEADLINE),
            successful_jobs_history_limit: Some(settings.successful_history),
            failed_jobs_history_limit: Some(settings.failed_history),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels,
                    ..ObjectMeta::default()
                }),
                spec: Some(job),
            },
        },
        ..CronJob::default()
    })
}
