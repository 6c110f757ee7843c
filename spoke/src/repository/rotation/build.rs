//! The Job that adds or removes a key. Pure.

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{KeyToPath, SecretVolumeSource, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::KEY;
use crate::pod::maintenance::{DEFAULT_ACCOUNT, Maintenance, suspended_job};
use crate::pod::{self, JobSettings, Source, mount};
use crate::secrets::{NEW_PASSWORD_DIR, NEW_PASSWORD_FILE, NEW_PASSWORD_KEY};
use crate::world::Key;

/// restic may wait for its lock of others, each command for longer than it works.
const DEADLINE_SECONDS: i64 = 4 * 3600;
/// Log and result stay for people to read.
const KEPT_SECONDS: i32 = 24 * 3600;
const VOLUME: &str = "new-password";

/// The Job, born suspended. `removes` is the key that it removes; without one it adds that of the new password.
#[must_use]
pub fn key_job(
    key: &Key,
    cluster: &str,
    repository: &ResticRepository,
    settings: &JobSettings,
    image: &str,
    removes: Option<&str>,
) -> Job {
    let source = Source::own(&key.name);
    let mut template = Maintenance {
        job: settings,
        service_account: DEFAULT_ACCOUNT.to_owned(),
        image,
        repository,
        source: &source,
        cluster,
        arguments: vec![KEY.to_owned()],
    }
    .template(labels(key, false));
    if let Some(spec) = &mut template.spec {
        spec.volumes.get_or_insert_default().push(new_password(&source));
        if let Some(container) = spec.containers.first_mut() {
            let mounts = container.volume_mounts.get_or_insert_default();
            mounts.push(mount(VOLUME, NEW_PASSWORD_DIR, true));
        }
    }
    Job {
        metadata: ObjectMeta {
            annotations: removes.map(|id| [(names::ANNOTATION_REMOVE_KEY.to_owned(), id.to_owned())].into()),
            ..pod::controlled(repository, key, names::key_job(&key.name), labels(key, true))
        },
        spec: Some(JobSpec {
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            ..suspended_job(DEADLINE_SECONDS, template)
        }),
        ..Job::default()
    }
}

/// The new password as a file: restic takes it from nowhere else without a terminal. There is none when a key is removed.
fn new_password(source: &Source) -> Volume {
    let item = KeyToPath {
        key: NEW_PASSWORD_KEY.to_owned(),
        path: NEW_PASSWORD_FILE.to_owned(),
        mode: Some(0o444),
        ..KeyToPath::default()
    };
    Volume {
        name: VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(source.name().to_owned()),
            items: Some(vec![item]),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn labels(key: &Key, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_REPOSITORY, KEY, &key.name, top)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::JobView;

    #[test]
    fn the_job_is_a_maintenance_job_born_suspended_and_has_the_new_password_as_a_file() {
        let repository: ResticRepository = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" } },
        }))
        .unwrap();
        let settings = pod::job_settings(None).unwrap();
        let key = Key::new("shop", "nas");
        let job = key_job(&key, "prod-eu", &repository, &settings, "spoke:1", Some("id"));
        assert_eq!(JobView::of(&job).removes_key.as_deref(), Some("id"));
        let job = key_job(&key, "prod-eu", &repository, &settings, "spoke:1", None);
        let view = JobView::of(&job);
        assert_eq!(view.removes_key, None);
        assert!(view.suspended && view.type_.as_deref() == Some(KEY));
        let spec = job.spec.unwrap().template.spec.unwrap();
        let text = serde_json::to_string(&spec.containers).unwrap();
        assert!(!text.contains(NEW_PASSWORD_KEY), "no variable has it: {text}");
        let volumes = serde_json::to_string(&spec.volumes).unwrap();
        assert_eq!(volumes.matches(NEW_PASSWORD_KEY).count(), 1);
    }
}
