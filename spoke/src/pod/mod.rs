//! What all pods that run restic have in common: the restricted security standard, credentials, cache, entrypoint. Pure.

mod frame;
pub mod guest;
mod job;
pub mod lease;
mod literal;
pub mod maintenance;
pub mod message;
#[cfg(test)]
mod missed_tests;
pub mod placement;
mod security;
pub mod stream;
pub mod token;
pub mod user;
mod volumes;

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;

use crate::secrets::{Backend, CREDENTIALS_DIR, Projection, SSH_DIR, backend_flags, file_flags};
use crate::world::{Key, Meta};

pub use frame::Frame;
pub use job::{JobSettings, job_settings, uncached_settings};
pub use literal::{literal, literal_container};
pub use security::{USER, runs_as_root};
pub use volumes::{claim, empty_dir, entrypoint, mount};

/// Seconds for which the start of a backup can be made up for. Whatever was missed while the control plane was away, the
/// repository could not be reached or runs were held, Kubernetes starts the last of it, once; what is older than this waits
/// for the next slot.
pub const BACKUP_DEADLINE: i64 = 7 * 24 * 3600;
/// The same of maintenance, which works for hours where backups wait for it: one that was missed waits for its next slot.
pub const MAINTENANCE_DEADLINE: i64 = 3600;
/// Where the entrypoint lies in the pod.
pub const ENTRYPOINT: &str = "/backup-entrypoint.sh";
/// Key of the entrypoint in the ConfigMap.
pub const ENTRYPOINT_KEY: &str = "entrypoint.sh";
/// Variable that names the folder which a backup must not leave by a link.
pub const SOURCE_VARIABLE: &str = "FLEET_SOURCE_DIR";
/// Name of the cluster, and uid of the pod or of its Job: what runs restic puts both into `USER`, so that restic's locks
/// tell whose they are.
pub const CLUSTER_VARIABLE: &str = "FLEET_CLUSTER";
pub const OPERATION_VARIABLE: &str = "FLEET_OPERATION";
/// Where a pod finds its own uid, and that of its Job.
pub const POD_UID: &str = "metadata.uid";
pub const JOB_UID: &str = "metadata.labels['batch.kubernetes.io/controller-uid']";
/// Where a source is mounted, and what paths in snapshots begin with.
pub const SOURCE_DIR: &str = "/backup";

/// The Secret in which pods find location, password, variables and files: never the one that people write, always a
/// copy of it as the manager reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    /// That of a repository in the pod's own namespace.
    #[must_use]
    pub fn own(name: &str) -> Source {
        Source(names::repository_location(name))
    }

    /// Name of the Secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// That, or the consumer's own where the repository lies in another namespace.
    #[must_use]
    pub fn of(own: &Key, at: &Key, projection: String) -> Source {
        if at.namespace == own.namespace {
            Source::own(&at.name)
        } else {
            Source(projection)
        }
    }
}

/// Flags that every restic command of a repository needs, with those of the settings.
#[must_use]
pub fn repository_flags(repository: &ResticRepository, job: &JobSettings) -> Vec<String> {
    let backend = Backend::of(&repository.spec.repository_url);
    let mut flags = backend
        .map(|backend| file_flags(backend, CREDENTIALS_DIR, SSH_DIR))
        .unwrap_or_default();
    flags.extend(backend_flags(repository));
    let cached = repository
        .spec
        .cache
        .as_ref()
        .is_none_or(|c| c.enabled != Some(false));
    // One that is asked for by the resource itself wins. Nothing else would ever remove what is not used any more.
    flags.extend(match &job.cache {
        Some(_) => Some("--cleanup-cache".to_owned()),
        None => (!cached).then(|| "--no-cache".to_owned()),
    });
    flags.extend(job.limits.iter().cloned());
    flags
}

/// Labels of everything made for a resource. `top` for what no other object of ours controls.
#[must_use]
pub fn labels(label: &str, component: &str, name: &str, top: bool) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (names::LABEL_APP.to_owned(), names::APP.to_owned()),
        (names::LABEL_COMPONENT.to_owned(), component.to_owned()),
        (label.to_owned(), names::label_value(name)),
        (names::LABEL_TYPE.to_owned(), component.to_owned()),
    ]);
    if top {
        labels.insert(names::LABEL_MANAGED_BY.to_owned(), names::APP.to_owned());
    }
    labels
}

/// Metadata of an object that a resource controls.
#[must_use]
pub fn controlled<K: Resource<DynamicType = ()>>(
    owner: &K,
    key: &Key,
    name: String,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(key.namespace.to_string()),
        labels: Some(labels),
        owner_references: owner.controller_owner_ref(&()).map(|o| {
            vec![OwnerReference {
                block_owner_deletion: Some(true),
                ..o
            }]
        }),
        ..ObjectMeta::default()
    }
}

/// The pods' own account, which may do nothing.
#[must_use]
pub fn account(metadata: ObjectMeta) -> ServiceAccount {
    hashed(ServiceAccount {
        metadata,
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}

/// Credentials of a repository in another namespace. Marked not with the hash of its own content: whether it is still
/// right must be known without reading any Secret.
#[must_use]
pub fn credentials(metadata: ObjectMeta, (mark, data): Projection) -> Secret {
    let marks = BTreeMap::from([(names::ANNOTATION_APPLIED.to_owned(), mark)]);
    Secret {
        metadata: ObjectMeta {
            annotations: Some(marks),
            ..metadata
        },
        data: Some(data),
        ..Secret::default()
    }
}

/// A Job as a CronJob would make it, now, as by `kubectl create job --from`.
#[must_use]
pub fn manual_job(cron_job: &CronJob, owner_uid: &str, name: String) -> Job {
    let template = cron_job.spec.job_template.clone();
    let (labels, annotations) = template
        .metadata
        .map(|m| (m.labels, m.annotations))
        .unwrap_or_default();
    let mut annotations = annotations.unwrap_or_default();
    annotations.insert(names::ANNOTATION_INSTANTIATE.to_owned(), "manual".to_owned());
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron_job.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "CronJob".to_owned(),
                name: cron_job.metadata.name.clone().unwrap_or_default(),
                uid: owner_uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        ..Job::default()
    }
}

/// Who runs restic. It writes its user's name into its locks, and that is `USER` where the image does not know the
/// user and `HOME` is set too.
#[must_use]
pub fn identity(cluster: &str, uid: &str) -> [EnvVar; 2] {
    let operation = EnvVar {
        name: OPERATION_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: uid.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    [variable(CLUSTER_VARIABLE, cluster), operation]
}

/// A variable with a value.
#[must_use]
pub fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

/// Marks a manifest with its own hash.
pub fn hashed<T: Serialize + kube::Resource>(mut manifest: T) -> T {
    let text = serde_json::to_vec(&manifest).unwrap_or_default();
    let annotations = manifest.meta_mut().annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_APPLIED.to_owned(), names::short_hash(&text));
    manifest
}

/// Whether an object has to be written: it is not there, or was made from another manifest.
#[must_use]
pub fn stale(present: Option<&Meta>, wanted: &ObjectMeta) -> bool {
    let hash = wanted
        .annotations
        .as_ref()
        .and_then(|a| a.get(names::ANNOTATION_APPLIED));
    present.is_none_or(|meta| meta.applied.as_deref() != hash.map(String::as_str))
}
