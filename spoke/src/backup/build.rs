//! The objects of a backup. Pure: a valid spec and a repository in, manifests out.

use std::collections::BTreeMap;

use crds::{ResticBackup, ResticRepository, names};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::validate::Valid;
use crate::hooks::{self, Rights};
use crate::pod::{self, Frame, Source, hashed};
use crate::site::Site;
use crate::world::Key;

/// A start missed by more (a control plane that was away) waits for the next slot instead of a stampede.
const STARTING_DEADLINE_SECONDS: i64 = 3600;

/// Everything that is made for a backup.
#[derive(Clone, Debug)]
pub struct Objects {
    pub service_account: Option<ServiceAccount>,
    /// Only where there are hooks.
    pub rights: Option<Rights>,
    /// Metadata of the copy of the credentials. Only where the repository lies in another namespace.
    pub credentials: Option<ObjectMeta>,
    pub cron_job: CronJob,
}

/// Builds the objects.
#[must_use]
pub fn build(
    key: &Key,
    site: &Site,
    backup: &ResticBackup,
    valid: &Valid,
    repository: &ResticRepository,
) -> Objects {
    let meta = |name: String| pod::controlled(backup, key, name, labels(&key.name, true));
    let account = || pod::account(meta(names::backup_service_account(&key.name)));
    let service_account = valid.job.service_account.is_none().then(account);
    let credentials = foreign(key, valid).then(|| meta(names::backup_credentials(&key.name)));
    let source = Source::of(key, &valid.repository, names::backup_credentials(&key.name));
    let job = &valid.job;
    let hooks = valid.hooks.as_ref();
    let rights = hooks.map(|plan| hooks::rights(key, plan, &meta(names::backup_service_account(&key.name))));
    let mut template = pod_template(key, &site.cluster, valid, repository, &source);
    if let Some(plan) = hooks {
        hooks::install(&mut template, plan, &site.image);
    }
    let cron_job = CronJob {
        metadata: meta(names::backup_cron_job(&key.name)),
        spec: CronJobSpec {
            schedule: valid.cron.clone(),
            time_zone: Some(valid.timezone.clone()),
            concurrency_policy: Some(job.concurrency.as_str().to_owned()),
            suspend: Some(valid.suspend),
            starting_deadline_seconds: Some(STARTING_DEADLINE_SECONDS),
            successful_jobs_history_limit: Some(job.successful_history),
            failed_jobs_history_limit: Some(job.failed_history),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(&key.name, false)),
                    annotations: hooks.map(|plan| [(names::ANNOTATION_HOOKS.to_owned(), plan.json())].into()),
                    ..ObjectMeta::default()
                }),
                spec: Some(JobSpec {
                    backoff_limit: Some(job.backoff_limit),
                    active_deadline_seconds: Some(job.deadline),
                    template,
                    ..JobSpec::default()
                }),
            },
        },
        ..CronJob::default()
    };
    Objects {
        service_account,
        rights,
        credentials,
        cron_job: hashed(cron_job),
    }
}

/// Whether the repository lies in another namespace.
fn foreign(key: &Key, valid: &Valid) -> bool {
    valid.repository.namespace != key.namespace
}

/// Metadata of a Job that runs hooks which a run of the backup owes.
#[must_use]
pub fn hook_job(key: &Key, backup: &ResticBackup) -> ObjectMeta {
    let labels = pod::labels(names::LABEL_BACKUP, "hook", &key.name, true);
    pod::controlled(backup, key, String::new(), labels)
}

fn labels(name: &str, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_BACKUP, "backup", name, top)
}

fn pod_template(
    key: &Key,
    cluster: &str,
    valid: &Valid,
    repository: &ResticRepository,
    source: &Source,
) -> PodTemplateSpec {
    let mut arguments = vec![
        "backup".to_owned(),
        "--json".to_owned(),
        "--retry-lock".to_owned(),
        crate::config::RETRY_LOCK.to_owned(),
    ];
    arguments.extend(pod::repository_flags(repository));
    arguments.extend(valid.arguments.iter().cloned());
    let (script, script_volume) = pod::entrypoint();
    Frame {
        job: &valid.job,
        service_account: names::backup_service_account(&key.name),
        image: valid.image.clone(),
        repository,
        source,
        command: vec![pod::ENTRYPOINT.to_owned()],
        arguments,
        mounts: vec![pod::mount("source-data", pod::SOURCE_DIR, true), script],
        volumes: vec![pod::claim("source-data", &valid.claim, true), script_volume],
        environment: std::iter::once(pod::variable(pod::SOURCE_VARIABLE, pod::SOURCE_DIR))
            .chain(pod::identity(cluster, pod::POD_UID))
            .collect(),
        // Root may read what it does not own, and write nothing.
        root_capabilities: &["DAC_READ_SEARCH"],
        own_volumes: true,
    }
    .template(labels(&key.name, false))
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
