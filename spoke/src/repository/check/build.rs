//! The CronJob of a repository's integrity checks. Pure.

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::CHECK;
use crate::pod::{self, Frame, JobSettings, Source, hashed, lease};
use crate::repository::validate::Check;
use crate::world::Key;

/// A check ends by itself before this, with a result (`worker::check::TIME`).
const DEADLINE_SECONDS: i64 = 72 * 3600;
/// A start missed by more waits for the next slot.
const STARTING_DEADLINE_SECONDS: i64 = 3600;
/// Kubernetes makes one in each namespace. It is not used: the pod has no token.
const SERVICE_ACCOUNT: &str = "default";

/// The CronJob. Its Jobs are born suspended: the gate opens them, also those made by hand. What a Job reads is in its order, so
/// that the template stays as it is from check to check.
#[must_use]
pub fn cron_job(
    key: &Key,
    cluster: &str,
    repository: &ResticRepository,
    settings: &JobSettings,
    check: &Check,
    image: &str,
) -> CronJob {
    let source = Source::own(&key.name);
    let mut arguments: Vec<String> = ["maintenance", "check", "--"].map(str::to_owned).into();
    arguments.extend(pod::repository_flags(repository));
    let template = Frame {
        job: settings,
        service_account: SERVICE_ACCOUNT.to_owned(),
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
    .template(labels(key, false));
    let name = names::check_cron_job(&key.name);
    hashed(CronJob {
        metadata: pod::controlled(repository, key, name, labels(key, true)),
        spec: CronJobSpec {
            schedule: check.cron.clone(),
            time_zone: Some("UTC".to_owned()),
            concurrency_policy: Some("Forbid".to_owned()),
            suspend: Some(false),
            starting_deadline_seconds: Some(STARTING_DEADLINE_SECONDS),
            successful_jobs_history_limit: Some(settings.successful_history),
            failed_jobs_history_limit: Some(settings.failed_history),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(key, false)),
                    ..ObjectMeta::default()
                }),
                spec: Some(JobSpec {
                    suspend: Some(true),
                    // A second attempt is an operation of its own, with a lock of its own.
                    backoff_limit: Some(0),
                    active_deadline_seconds: Some(DEADLINE_SECONDS),
                    template,
                    ..JobSpec::default()
                }),
            },
        },
        ..CronJob::default()
    })
}

fn labels(key: &Key, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_REPOSITORY, CHECK, &key.name, top)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_jobs_are_maintenance_jobs_born_suspended() {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" },
                      "integrityCheck": { "schedule": "0 3 * * 0", "readDataSubset": "1/20" } },
        }))
        .unwrap();
        let check = Check::of(&repository).unwrap().unwrap();
        let settings = pod::job_settings(None).unwrap();
        let cron_job = cron_job(
            &Key::new("shop", "nas"),
            "prod-eu",
            &repository,
            &settings,
            &check,
            "spoke:1",
        );
        insta::assert_yaml_snapshot!("check_cron_job", cron_job);
    }
}
