//! The Job that removes left-over locks. Pure.

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::owner::UNLOCK;
use crate::pod::maintenance::{DEFAULT_ACCOUNT, Maintenance, suspended_job};
use crate::pod::{self, JobSettings, Source};
use crate::world::Key;

/// A check of a large repository takes hours: it ends by itself before this (`worker::limits::CHECK`), with a result.
const DEADLINE_SECONDS: i64 = 24 * 3600;
/// Log and result stay for people to read.
const KEPT_SECONDS: i32 = 24 * 3600;

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
    let mut template = Maintenance {
        job: settings,
        service_account: DEFAULT_ACCOUNT.to_owned(),
        image,
        repository,
        source: &Source::own(&key.name),
        cluster,
        arguments: vec![UNLOCK.to_owned()],
    }
    .template(labels(key, false));
    if let Some(spec) = &mut template.spec {
        spec.hostname = host;
    }
    Job {
        metadata: pod::controlled(repository, key, names::unlock_job(&key.name), labels(key, true)),
        spec: Some(JobSpec {
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            ..suspended_job(DEADLINE_SECONDS, template)
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
