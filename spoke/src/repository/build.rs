//! The Job that removes left-over locks. Pure.

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::owner::UNLOCK;
use crate::pod::{self, Frame, JobSettings, Source, lease};
use crate::world::Key;

/// A check of a large repository takes hours: it ends by itself before this (`worker::limits::CHECK`), with a result.
const DEADLINE_SECONDS: i64 = 24 * 3600;
/// Log and result stay for people to read.
const KEPT_SECONDS: i32 = 24 * 3600;
/// Kubernetes makes one in each namespace. It is not used: the pod has no token.
const SERVICE_ACCOUNT: &str = "default";

/// The Job, born suspended. `host` gives the pod that very host name: for tests, where a lock of less than 30 minutes is
/// to go, which restic does only for its own host.
#[must_use]
pub fn unlock_job(
    key: &Key,
    cluster: &str,
    repository: &ResticRepository,
    settings: &JobSettings,
    image: &str,
    host: Option<String>,
) -> Job {
    let source = Source::own(&key.name);
    let mut arguments: Vec<String> = ["maintenance", "unlock", "--"].map(str::to_owned).into();
    arguments.extend(pod::repository_flags(repository));
    let mut template = Frame {
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
    if let Some(spec) = &mut template.spec {
        spec.hostname = host;
    }
    Job {
        metadata: pod::controlled(repository, key, names::unlock_job(&key.name), labels(key, true)),
        spec: Some(JobSpec {
            suspend: Some(true),
            // A second attempt is an operation of its own, with a lock of its own.
            backoff_limit: Some(0),
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn labels(key: &Key, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_REPOSITORY, UNLOCK, &key.name, top)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::JobView;

    #[test]
    fn the_job_is_a_maintenance_job_born_suspended() {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" } },
        }))
        .unwrap();
        let settings = pod::job_settings(None).unwrap();
        let key = Key::new("shop", "nas");
        let job = unlock_job(&key, "prod-eu", &repository, &settings, "spoke:1", None);
        let view = JobView::of(&job);
        assert!(
            view.suspended
                && view.type_.as_deref() == Some(UNLOCK)
                && view.meta.owner.as_deref() == Some("u")
        );
        insta::assert_yaml_snapshot!("unlock_job", job);
    }
}
