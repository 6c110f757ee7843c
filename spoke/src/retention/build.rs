//! The objects of a retention policy. Pure.

use std::collections::BTreeMap;

use crds::{GlobalRetentionPolicy, ResticRepository, names};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::validate::Valid;
use crate::pod::maintenance::{self, Maintenance, Slots, suspended_job};
use crate::pod::{self, Source};
use crate::world::Key;

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

/// The CronJob.
#[must_use]
pub fn cron_job(
    key: &Key,
    cluster: &str,
    policy: &GlobalRetentionPolicy,
    valid: &Valid,
    repository: &ResticRepository,
    (image, retry_lock): (&str, &str),
) -> CronJob {
    let slots = Slots {
        cron: &valid.cron,
        timezone: &valid.timezone,
        suspend: valid.suspend,
    };
    let name = names::retention_cron_job(&key.name);
    let template = template(key, cluster, valid, repository, (image, retry_lock));
    maintenance::cron_job(
        pod::controlled(policy, key, name, labels(key, true)),
        &slots,
        &valid.job,
        suspended_job(valid.job.deadline, template),
    )
}

fn template(
    key: &Key,
    cluster: &str,
    valid: &Valid,
    repository: &ResticRepository,
    (image, retry_lock): (&str, &str),
) -> PodTemplateSpec {
    let mut arguments = vec!["retention".to_owned()];
    if retry_lock != crate::config::RETRY_LOCK {
        arguments.push(format!("--retry-lock={retry_lock}"));
    }
    Maintenance {
        job: &valid.job,
        service_account: names::retention_service_account(&key.name),
        image,
        repository,
        source: &Source::of(key, &valid.repository, names::retention_credentials(&key.name)),
        cluster,
        arguments,
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

    /// The CronJob of a policy with this in its spec.
    fn built(more: &serde_json::Value) -> CronJob {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" } },
        }))
        .unwrap();
        let mut policy = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "nightly", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "0 4 * * *",
                      "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] },
        });
        for (name, value) in more.as_object().unwrap() {
            policy["spec"][name] = value.clone();
        }
        let policy: GlobalRetentionPolicy = serde_json::from_value(policy).unwrap();
        let key = Key::new("shop", "nightly");
        let valid = validate(&key, &policy).unwrap();
        let image = ("spoke:1", crate::config::RETRY_LOCK);
        cron_job(&key, "prod-eu", &policy, &valid, &repository, image)
    }

    #[test]
    fn the_jobs_are_born_suspended_and_read_their_lease_from_annotations() {
        insta::assert_yaml_snapshot!("retention_cron_job", built(&json!({})));
    }

    #[test]
    fn slots_and_settings_are_those_of_the_spec() {
        let spec = built(&json!({
            "timezone": "Europe/Berlin", "suspend": true,
            "jobConfig": { "successfulJobsHistoryLimit": 5, "failedJobsHistoryLimit": 0, "activeDeadlineSeconds": 60,
                           "backoffLimit": 4, "concurrencyPolicy": "Allow", "nodeSelector": { "disk": "ssd" } },
        }))
        .spec;
        assert_eq!(
            (spec.time_zone.as_deref(), spec.suspend),
            (Some("Europe/Berlin"), Some(true))
        );
        assert_eq!(
            (spec.successful_jobs_history_limit, spec.failed_jobs_history_limit),
            (Some(5), Some(1))
        );
        assert_eq!(spec.concurrency_policy.as_deref(), Some("Forbid"));
        let job = spec.job_template.spec.unwrap();
        assert_eq!(
            (job.active_deadline_seconds, job.backoff_limit),
            (Some(60), Some(0))
        );
        let pod = job.template.spec.unwrap();
        assert_eq!(pod.node_selector.unwrap()["disk"], "ssd");
    }
}
