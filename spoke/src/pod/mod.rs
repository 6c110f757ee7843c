//! What all pods that run restic have in common: the restricted security standard, credentials, cache, entrypoint. Pure.

mod job;
pub mod lease;
mod literal;
pub mod message;
mod security;
pub mod user;

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    EphemeralVolumeSource, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimSpec,
    PersistentVolumeClaimTemplate, PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, Secret,
    SecretKeySelector, SecretVolumeSource, SecurityContext, ServiceAccount, Volume, VolumeMount,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;

use crate::secrets::Projection;
use crate::secrets::{
    Backend, CREDENTIALS_DIR, FILES_VARIABLE, FileKey, PASSWORD_VARIABLE, PRIVATE_FILES_VARIABLE,
    REPOSITORY_VARIABLE, SSH_DIR,
};
use crate::world::{Key, Meta, RESTIC_CONTAINER};

pub use job::{JobSettings, job_settings};
pub use literal::literal;
use security::runs_as_root;

/// Where the entrypoint lies in the pod.
pub const ENTRYPOINT: &str = "/backup-entrypoint.sh";
/// Key of the entrypoint in the ConfigMap.
pub const ENTRYPOINT_KEY: &str = "entrypoint.sh";
/// What kubectl writes on a Job that it makes from a CronJob.
const MANUAL: &str = "cronjob.kubernetes.io/instantiate";
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
const TMP_DIR: &str = "/tmp";
const CACHE_DIR: &str = "/cache";
/// restic takes up to a minute to remove its lock after SIGTERM.
const GRACE_SECONDS: i64 = 120;

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

/// A pod to be.
pub struct Frame<'a> {
    pub job: &'a JobSettings,
    pub service_account: String,
    pub image: String,
    pub repository: &'a ResticRepository,
    pub source: &'a Source,
    pub command: Vec<String>,
    pub arguments: Vec<String>,
    /// Beside those of entrypoint, cache and credentials.
    pub mounts: Vec<VolumeMount>,
    pub volumes: Vec<Volume>,
    pub environment: Vec<EnvVar>,
    /// What root may do, where it is asked for.
    pub root_capabilities: &'static [&'static str],
    /// The kubelet may give the volumes to the pod's group. Never where one of them holds an application's files and
    /// is mounted to be written: it would change group and mode of all of them.
    pub own_volumes: bool,
}

impl Frame<'_> {
    /// The pod, with these labels.
    #[must_use]
    pub fn template(self, labels: BTreeMap<String, String>) -> PodTemplateSpec {
        let job = self.job;
        let backend = Backend::of(&self.repository.spec.repository_url);
        let files = backend.map(Backend::files).unwrap_or_default();
        let cache = self.repository.spec.cache.clone().unwrap_or_default();
        let security = security::laid_over(job.security.clone().unwrap_or_default(), self.own_volumes);
        let root = runs_as_root(&security);
        let (mut mounts, mut volumes) = (self.mounts, self.volumes);
        mounts.push(mount("tmp", TMP_DIR, false));
        volumes.push(empty_dir("tmp", None));
        if cache.enabled != Some(false) {
            mounts.push(mount("cache", CACHE_DIR, false));
            let size = cache.size.clone().unwrap_or_else(|| "5Gi".to_owned());
            volumes.push(match &cache.storage_class_name {
                Some(class) => ephemeral("cache", class, size),
                None => empty_dir("cache", Some(size)),
            });
        }
        let users = user::users(&security);
        if users.is_some() {
            mounts.push(user::mount());
            volumes.push(user::volume());
        }
        if !files.is_empty() {
            mounts.push(mount("credentials", CREDENTIALS_DIR, true));
            volumes.push(credentials_volume(self.source, files));
        }
        let mut environment = environment(self.source, backend, job);
        let private = files.iter().filter(|f| f.private);
        let private: Vec<String> = private
            .map(|f| format!("{CREDENTIALS_DIR}/{0}={SSH_DIR}/{0}", f.file))
            .collect();
        if !private.is_empty() {
            mounts.push(mount("ssh", SSH_DIR, false));
            volumes.push(in_memory("ssh"));
            environment.push(variable(PRIVATE_FILES_VARIABLE, &private.join(" ")));
        }
        let named = files.iter().filter_map(|f| Some((f.variable?, f.file)));
        let named: Vec<String> = named
            .map(|(variable, file)| format!("{variable}={CREDENTIALS_DIR}/{file}"))
            .collect();
        environment.extend((!named.is_empty()).then(|| variable(FILES_VARIABLE, &named.join(" "))));
        environment.extend(self.environment);
        let spec = PodSpec {
            service_account_name: Some(job.service_account.clone().unwrap_or(self.service_account)),
            // restic needs no token of the API server, whosever it is.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(security),
            node_selector: Some(job.node_selector.clone()).filter(|s| !s.is_empty()),
            tolerations: Some(job.tolerations.clone()).filter(|t| !t.is_empty()),
            affinity: job.affinity.clone(),
            containers: vec![literal::literal_container(Container {
                name: RESTIC_CONTAINER.to_owned(),
                image: Some(self.image),
                image_pull_policy: Some("IfNotPresent".to_owned()),
                command: Some(self.command),
                args: Some(self.arguments),
                env: Some(environment),
                resources: job.resources.clone(),
                security_context: Some(container_security(root, self.root_capabilities)),
                volume_mounts: Some(mounts),
                ..Container::default()
            })],
            volumes: Some(volumes),
            ..PodSpec::default()
        };
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels),
                annotations: users.map(|users| [(user::ANNOTATION.to_owned(), users)].into()),
                ..ObjectMeta::default()
            }),
            spec: Some(spec),
        }
    }
}

/// The files of a back end, readable for any user of the pod.
fn credentials_volume(source: &Source, files: &[FileKey]) -> Volume {
    let items = files.iter().map(|f| KeyToPath {
        key: f.key.to_owned(),
        path: f.file.to_owned(),
        mode: Some(0o444),
        ..KeyToPath::default()
    });
    Volume {
        name: "credentials".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(source.0.clone()),
            items: Some(items.collect()),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A volume that never reaches the node's disk.
fn in_memory(name: &str) -> Volume {
    let empty_dir = EmptyDirVolumeSource {
        medium: Some("Memory".to_owned()),
        size_limit: Some(Quantity("1Mi".to_owned())),
        ..EmptyDirVolumeSource::default()
    };
    Volume {
        name: name.to_owned(),
        empty_dir: Some(empty_dir),
        ..Volume::default()
    }
}

/// Flags that every restic command of a repository needs.
#[must_use]
pub fn repository_flags(repository: &ResticRepository) -> Vec<String> {
    let backend = Backend::of(&repository.spec.repository_url);
    let mut flags = backend
        .map(|b| b.options(CREDENTIALS_DIR, SSH_DIR))
        .unwrap_or_default();
    let cached = repository
        .spec
        .cache
        .as_ref()
        .is_none_or(|c| c.enabled != Some(false));
    flags.extend((!cached).then(|| "--no-cache".to_owned()));
    flags
}

/// Mount and volume of the entrypoint.
#[must_use]
pub fn entrypoint() -> (VolumeMount, Volume) {
    let mount = VolumeMount {
        sub_path: Some(ENTRYPOINT_KEY.to_owned()),
        ..mount("backup-script", ENTRYPOINT, true)
    };
    let volume = Volume {
        name: "backup-script".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::SCRIPTS.to_owned(),
            default_mode: Some(0o755),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    (mount, volume)
}

/// A claim's volume. `read_only` reaches the kubelet, which otherwise changes group and mode of what is in it (fsGroup)
/// and its SELinux labels, whatever the mount says.
#[must_use]
pub fn claim(name: &str, claim: &str, read_only: bool) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    }
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
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron_job.metadata.namespace.clone(),
            labels: template.metadata.and_then(|m| m.labels),
            annotations: Some([(MANUAL.to_owned(), "manual".to_owned())].into()),
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

fn environment(source: &Source, backend: Option<Backend>, job: &JobSettings) -> Vec<EnvVar> {
    let secret = |variable: &str, optional: bool| EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: source.0.clone(),
                key: variable.to_owned(),
                optional: optional.then_some(true),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let mut variables = vec![
        secret(REPOSITORY_VARIABLE, false),
        secret(PASSWORD_VARIABLE, false),
    ];
    let own = backend.into_iter().flat_map(Backend::variables);
    variables.extend(own.map(|variable| secret(variable, true)));
    variables.extend([
        variable("RESTIC_CACHE_DIR", CACHE_DIR),
        variable("TMPDIR", TMP_DIR),
        variable("HOME", TMP_DIR),
        variable("TZ", "UTC"),
        // One line of progress in ten seconds: the log is for people.
        variable("RESTIC_PROGRESS_FPS", "0.1"),
    ]);
    // Go would take all memory that the node has, and be killed at the container's limit.
    let limit = job
        .resources
        .as_ref()
        .and_then(|r| r.limits.as_ref()?.get("memory"));
    let limit = limit.and_then(|Quantity(limit)| memory_bytes(limit));
    // A tenth is left for what Go does not count.
    variables.extend(limit.map(|bytes| variable("GOMEMLIMIT", &(bytes / 10 * 9).to_string())));
    variables
}

/// Bytes of a Kubernetes quantity such as 512Mi or 1G. Go ends a process whose limit it cannot read, so what is not
/// understood is left out.
fn memory_bytes(quantity: &str) -> Option<u64> {
    let digits = quantity
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(quantity.len());
    let count: u64 = quantity.get(..digits)?.parse().ok()?;
    let unit = match quantity.get(digits..)? {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    count.checked_mul(unit)
}

/// Root is an explicit choice in `jobConfig.securityContext`, and then it may read what it does not own.
fn container_security(root: bool, capabilities: &[&str]) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: (!root).then_some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: root.then(|| capabilities.iter().map(|&c| c.to_owned()).collect()),
        }),
        ..SecurityContext::default()
    }
}

/// A mount.
#[must_use]
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// A volume that lives as long as the pod.
#[must_use]
pub fn empty_dir(name: &str, limit: Option<String>) -> Volume {
    let empty_dir = EmptyDirVolumeSource {
        size_limit: limit.map(Quantity),
        ..EmptyDirVolumeSource::default()
    };
    Volume {
        name: name.to_owned(),
        empty_dir: Some(empty_dir),
        ..Volume::default()
    }
}

/// A volume of a storage class for the life of the pod: no two pods ever fight for it.
fn ephemeral(name: &str, class: &str, size: String) -> Volume {
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: Some(class.to_owned()),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size))])),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    let template = PersistentVolumeClaimTemplate {
        spec,
        ..PersistentVolumeClaimTemplate::default()
    };
    let ephemeral = EphemeralVolumeSource {
        volume_claim_template: Some(template),
    };
    Volume {
        name: name.to_owned(),
        ephemeral: Some(ephemeral),
        ..Volume::default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_bytes_or_nothing() {
        assert_eq!(memory_bytes("512Mi"), Some(512 << 20));
        assert_eq!(memory_bytes("1G"), Some(1_000_000_000));
        assert_eq!(memory_bytes("1.5Gi"), None);
        assert_eq!(memory_bytes("many"), None);
    }
}
