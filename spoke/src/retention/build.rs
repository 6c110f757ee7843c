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
