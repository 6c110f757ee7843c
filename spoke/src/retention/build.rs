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
    let mut arguments = vec!["retention".to_owned(), format!("--policy={key}")];
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
    use serde_json::{Value, json};

    use super::*;
    use crate::retention::validate::validate;

    fn made(more: Value) -> CronJob {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" } },
        }))
        .unwrap();
        let mut spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "0 4 * * *",
                               "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let policy: GlobalRetentionPolicy = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "nightly", "namespace": "shop", "uid": "u" }, "spec": spec,
        }))
        .unwrap();
        let key = Key::new("shop", "nightly");
        let valid = validate(&key, &policy).unwrap();
        let settings = ("spoke:1", crate::config::RETRY_LOCK);
        cron_job(&key, "prod-eu", &policy, &valid, &repository, settings)
    }

    #[test]
    fn job_config_acts_on_maintenance_too() {
        let config = json!({ "podLabels": { "team": "shop" }, "priorityClassName": "low", "limitUpload": 500,
                             "imagePullSecrets": [{ "name": "mirror" }], "env": [{ "name": "GOGC", "value": "20" }] });
        let cron_job = made(json!({ "jobConfig": config }));
        let template = cron_job.spec.job_template.spec.unwrap().template;
        assert_eq!(template.metadata.unwrap().labels.unwrap()["team"], "shop");
        let pod = template.spec.unwrap();
        assert_eq!(pod.priority_class_name.as_deref(), Some("low"));
        assert_eq!(pod.image_pull_secrets.as_ref().unwrap()[0].name, "mirror");
        let container = &pod.containers[0];
        let arguments = container.args.as_ref().unwrap();
        let separator = arguments.iter().position(|a| a == "--").unwrap();
        assert!(
            arguments[separator..].contains(&"--limit-upload=500".to_owned()),
            "{arguments:?}"
        );
        assert!(container.env.as_ref().unwrap().iter().any(|v| v.name == "GOGC"));
    }

    #[test]
    fn the_jobs_are_born_suspended_and_read_their_lease_from_annotations() {
        insta::assert_yaml_snapshot!("retention_cron_job", made(json!({})));
    }
}
