//! The objects of a retention policy. Pure.

use std::collections::BTreeMap;

use crds::{GlobalRetentionPolicy, ResticRepository, names};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::validate::Valid;
use crate::pod::{self, Frame, Source, hashed, lease};
use crate::world::Key;

/// A start missed by more waits for the next slot.
const STARTING_DEADLINE_SECONDS: i64 = 3600;

/// The pods' own account.
#[must_use]
pub fn service_account(key: &Key, policy: &GlobalRetentionPolicy) -> ServiceAccount {
    let name = names::retention_service_account(&key.name);
    pod::account(pod::controlled(policy, key, name, labels(key, true)))
}

/// Metadata of the copy of the credentials of a repository in another namespace.
#[must_use]
pub fn credentials(key: &Key, policy: &GlobalRetentionPolicy) -> ObjectMeta {
    let name = names::retention_credentials(&key.name);
    pod::controlled(policy, key, name, labels(key, true))
}

/// The CronJob. Its Jobs are born suspended: the gate opens them, also one that was made by hand.
#[must_use]
pub fn cron_job(
    key: &Key,
    cluster: &str,
    policy: &GlobalRetentionPolicy,
    valid: &Valid,
    repository: &ResticRepository,
    (image, retry_lock): (&str, &str),
) -> CronJob {
    let job = &valid.job;
    hashed(CronJob {
        metadata: pod::controlled(
            policy,
            key,
            names::retention_cron_job(&key.name),
            labels(key, true),
        ),
        spec: CronJobSpec {
            schedule: valid.cron.clone(),
            time_zone: Some(valid.timezone.clone()),
            concurrency_policy: Some("Forbid".to_owned()),
            suspend: Some(valid.suspend),
            starting_deadline_seconds: Some(STARTING_DEADLINE_SECONDS),
            successful_jobs_history_limit: Some(job.successful_history),
            failed_jobs_history_limit: Some(job.failed_history),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(key, false)),
                    ..ObjectMeta::default()
                }),
                spec: Some(JobSpec {
                    suspend: Some(true),
                    // A second attempt is a run of its own, with a lock of its own.
                    backoff_limit: Some(0),
                    active_deadline_seconds: Some(job.deadline),
                    template: frame(key, cluster, valid, repository, (image, retry_lock)),
                    ..JobSpec::default()
                }),
            },
        },
        ..CronJob::default()
    })
}

fn frame(
    key: &Key,
    cluster: &str,
    valid: &Valid,
    repository: &ResticRepository,
    (image, retry_lock): (&str, &str),
) -> PodTemplateSpec {
    let source = Source::of(key, &valid.repository, names::retention_credentials(&key.name));
    let mut arguments = ["maintenance", "retention"].map(str::to_owned).to_vec();
    if retry_lock != crate::config::RETRY_LOCK {
        arguments.push(format!("--retry-lock={retry_lock}"));
    }
    arguments.push("--".to_owned());
    arguments.extend(pod::repository_flags(repository));
    Frame {
        job: &valid.job,
        service_account: names::retention_service_account(&key.name),
        image: image.to_owned(),
        repository,
        source: &source,
        command: vec!["fleet-spoke".to_owned()],
        arguments,
        mounts: vec![lease::mount()],
        volumes: vec![lease::volume()],
        environment: lease::variables()
            .into_iter()
            .chain(pod::identity(cluster, pod::JOB_UID))
            .collect(),
        root_capabilities: &[],
        own_volumes: true,
    }
    .template(labels(key, false))
}

fn labels(key: &Key, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_RETENTION, "retention", &key.name, top)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::retention::validate::validate;

    #[test]
    fn the_jobs_are_born_suspended_and_read_their_lease_from_annotations() {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" } },
        }))
        .unwrap();
        let policy: GlobalRetentionPolicy = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "nightly", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "0 4 * * *",
                      "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] },
        }))
        .unwrap();
        let key = Key::new("shop", "nightly");
        let valid = validate(&key, &policy).unwrap();
        insta::assert_yaml_snapshot!(
            "retention_cron_job",
            cron_job(
                &key,
                "prod-eu",
                &policy,
                &valid,
                &repository,
                ("spoke:1", crate::config::RETRY_LOCK)
            )
        );
    }
}
