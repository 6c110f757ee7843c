//! The objects of a backup. Pure: a valid spec and a repository in, manifests out.

use std::collections::BTreeMap;

use crds::{ResticBackup, ResticRepository, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    EphemeralVolumeSource, KeyToPath, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, Secret,
    SecretKeySelector, SecretVolumeSource, SecurityContext, ServiceAccount, Volume, VolumeMount,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use serde::Serialize;

use super::validate::{SOURCE_DIR, Valid};
use crate::secrets::{Backend, CREDENTIALS_DIR, PASSWORD_VARIABLE, REPOSITORY_VARIABLE};
use crate::world::{Key, RESTIC_CONTAINER};

/// Where the entrypoint lies in the pod.
const ENTRYPOINT: &str = "/backup-entrypoint.sh";
/// Key of the entrypoint in the ConfigMap.
pub const ENTRYPOINT_KEY: &str = "entrypoint.sh";
const TMP_DIR: &str = "/tmp";
const CACHE_DIR: &str = "/cache";
/// uid and gid that pods run as by default; the original operator's.
const USER: i64 = 65532;
/// How long a backup waits for another client's lock before it gives up.
const RETRY_LOCK: &str = "30m";
/// restic takes up to a minute to remove its lock after SIGTERM.
const GRACE_SECONDS: i64 = 120;
/// A start missed by more (a control plane that was away) waits for the next slot instead of a stampede.
const STARTING_DEADLINE_SECONDS: i64 = 3600;

/// Everything that is made for a backup.
#[derive(Clone, Debug)]
pub struct Objects {
    pub service_account: Option<ServiceAccount>,
    /// Only where the repository lies in another namespace.
    pub credentials: Option<Secret>,
    pub cron_job: CronJob,
}

/// Where the pods find location, password and the back end's variables.
struct Source {
    location: String,
    password: (String, String),
    variables: String,
}

/// Builds the objects. `projection` is the data for the Secret of credentials, where the repository lies in another
/// namespace, and the mark that tells which state of the source it was taken from.
#[must_use]
pub fn build(
    key: &Key,
    backup: &ResticBackup,
    valid: &Valid,
    repository: &ResticRepository,
    projection: Option<(String, BTreeMap<String, ByteString>)>,
) -> Objects {
    let owner = backup.controller_owner_ref(&());
    let meta = |name: String| ObjectMeta {
        name: Some(name),
        namespace: Some(key.namespace.to_string()),
        labels: Some(labels(&key.name, true)),
        owner_references: owner.clone().map(|o| {
            vec![OwnerReference {
                block_owner_deletion: Some(true),
                ..o
            }]
        }),
        ..ObjectMeta::default()
    };
    let service_account = valid.job.service_account.is_none().then(|| {
        hashed(ServiceAccount {
            metadata: meta(names::backup_service_account(&key.name)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        })
    });
    let credentials = projection.map(|(mark, data)| {
        let mut metadata = meta(names::backup_credentials(&key.name));
        // Not the hash of its own content: whether it is still right must be known without reading any Secret.
        metadata.annotations = Some(BTreeMap::from([(names::ANNOTATION_APPLIED.to_owned(), mark)]));
        Secret {
            metadata,
            data: Some(data),
            ..Secret::default()
        }
    });
    let source = if foreign(key, valid) {
        let projected = names::backup_credentials(&key.name);
        Source {
            location: projected.clone(),
            password: (projected.clone(), PASSWORD_VARIABLE.to_owned()),
            variables: projected,
        }
    } else {
        let reference = &repository.spec.credentials_secret_ref;
        let named = repository.status.as_ref().and_then(|s| s.credentials_key.clone());
        let named = named.unwrap_or_else(|| PASSWORD_VARIABLE.to_owned());
        Source {
            location: names::repository_location(&valid.repository.name),
            password: (reference.name.clone(), named),
            variables: reference.name.clone(),
        }
    };
    let job = &valid.job;
    let cron_job = CronJob {
        metadata: meta(names::backup_cron_job(&key.name)),
        spec: CronJobSpec {
            schedule: valid.cron.clone(),
            time_zone: Some(valid.timezone.clone()),
            concurrency_policy: Some(job.concurrency.as_str().to_owned()),
            suspend: Some(valid.suspend),
            starting_deadline_seconds: Some(STARTING_DEADLINE_SECONDS),
            successful_jobs_history_limit: Some(job.successful_history),
            failed_jobs_history_limit: Some(job.failed_history),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(&key.name, false)),
                    ..ObjectMeta::default()
                }),
                spec: Some(JobSpec {
                    backoff_limit: Some(job.backoff_limit),
                    active_deadline_seconds: Some(job.deadline),
                    template: PodTemplateSpec {
                        metadata: Some(ObjectMeta {
                            labels: Some(labels(&key.name, false)),
                            ..ObjectMeta::default()
                        }),
                        spec: Some(pod(key, valid, repository, &source)),
                    },
                    ..JobSpec::default()
                }),
            },
        },
        ..CronJob::default()
    };
    Objects {
        service_account,
        credentials,
        cron_job: hashed(cron_job),
    }
}

/// Whether the repository lies in another namespace.
#[must_use]
pub fn foreign(key: &Key, valid: &Valid) -> bool {
    valid.repository.namespace != key.namespace
}

fn labels(name: &str, top: bool) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (names::LABEL_APP.to_owned(), names::APP.to_owned()),
        (names::LABEL_COMPONENT.to_owned(), "backup".to_owned()),
        (names::LABEL_BACKUP.to_owned(), names::label_value(name)),
        (names::LABEL_TYPE.to_owned(), "backup".to_owned()),
    ]);
    if top {
        labels.insert(names::LABEL_MANAGED_BY.to_owned(), names::APP.to_owned());
    }
    labels
}

fn pod(key: &Key, valid: &Valid, repository: &ResticRepository, source: &Source) -> PodSpec {
    let job = &valid.job;
    let backend = Backend::of(&repository.spec.repository_url);
    let files = backend.map(Backend::files).unwrap_or_default();
    let cache = repository.spec.cache.clone().unwrap_or_default();
    let cached = cache.enabled != Some(false);
    let root = runs_as_root(job.security.as_ref());

    let mut arguments = vec![
        "backup".to_owned(),
        "--json".to_owned(),
        "--retry-lock".to_owned(),
        RETRY_LOCK.to_owned(),
    ];
    arguments.extend(backend.map(|b| b.options(CREDENTIALS_DIR)).unwrap_or_default());
    arguments.extend((!cached).then(|| "--no-cache".to_owned()));
    arguments.extend(valid.arguments.iter().cloned());

    let mut mounts = vec![
        mount("source-data", SOURCE_DIR, true),
        VolumeMount {
            sub_path: Some(ENTRYPOINT_KEY.to_owned()),
            ..mount("backup-script", ENTRYPOINT, true)
        },
        mount("tmp", TMP_DIR, false),
    ];
    let mut volumes = vec![
        Volume {
            name: "source-data".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: valid.claim.clone(),
                read_only: None,
            }),
            ..Volume::default()
        },
        Volume {
            name: "backup-script".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::SCRIPTS.to_owned(),
                default_mode: Some(0o755),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        empty_dir("tmp", None),
    ];
    if cached {
        mounts.push(mount("cache", CACHE_DIR, false));
        let size = cache.size.clone().unwrap_or_else(|| "5Gi".to_owned());
        volumes.push(match &cache.storage_class_name {
            Some(class) => ephemeral("cache", class, size),
            None => empty_dir("cache", Some(size)),
        });
    }
    if !files.is_empty() {
        mounts.push(mount("credentials", CREDENTIALS_DIR, true));
        let items = files.iter().map(|f| KeyToPath {
            key: f.key.to_owned(),
            path: f.file.to_owned(),
            mode: Some(0o440),
            ..KeyToPath::default()
        });
        volumes.push(Volume {
            name: "credentials".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(source.variables.clone()),
                items: Some(items.collect()),
                optional: Some(true),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    PodSpec {
        service_account_name: Some(
            job.service_account
                .clone()
                .unwrap_or_else(|| names::backup_service_account(&key.name)),
        ),
        automount_service_account_token: job.service_account.is_none().then_some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(job.security.clone().unwrap_or_else(restricted)),
        node_selector: Some(job.node_selector.clone()).filter(|s| !s.is_empty()),
        tolerations: Some(job.tolerations.clone()).filter(|t| !t.is_empty()),
        affinity: job.affinity.clone(),
        containers: vec![Container {
            name: RESTIC_CONTAINER.to_owned(),
            image: Some(valid.image.clone()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(vec![ENTRYPOINT.to_owned()]),
            args: Some(arguments),
            env: Some(environment(source, backend, valid)),
            resources: job.resources.clone(),
            security_context: Some(container_security(root)),
            volume_mounts: Some(mounts),
            ..Container::default()
        }],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn environment(source: &Source, backend: Option<Backend>, valid: &Valid) -> Vec<EnvVar> {
    let secret = |variable: &str, secret: &str, key: &str, optional: bool| EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: key.to_owned(),
                optional: optional.then_some(true),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let plain = |variable: &str, value: &str| EnvVar {
        name: variable.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    let mut variables = vec![
        secret(REPOSITORY_VARIABLE, &source.location, REPOSITORY_VARIABLE, false),
        secret(PASSWORD_VARIABLE, &source.password.0, &source.password.1, false),
    ];
    let own = backend.into_iter().flat_map(Backend::variables);
    variables.extend(own.map(|variable| secret(variable, &source.variables, variable, true)));
    variables.extend([
        plain("RESTIC_CACHE_DIR", CACHE_DIR),
        plain("TMPDIR", TMP_DIR),
        plain("HOME", TMP_DIR),
        plain("TZ", "UTC"),
        // One line of progress in ten seconds: the log is for people.
        plain("RESTIC_PROGRESS_FPS", "0.1"),
    ]);
    // Go would take all memory that the node has, and be killed at the container's limit.
    let limit = valid
        .job
        .resources
        .as_ref()
        .and_then(|r| r.limits.as_ref()?.get("memory"));
    let limit = limit.and_then(|Quantity(limit)| memory_bytes(limit));
    // A tenth is left for what Go does not count.
    variables.extend(limit.map(|bytes| plain("GOMEMLIMIT", &(bytes / 10 * 9).to_string())));
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

/// The "restricted" Pod Security Standard.
fn restricted() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn runs_as_root(security: Option<&PodSecurityContext>) -> bool {
    security.is_some_and(|s| s.run_as_user == Some(0) || s.run_as_non_root == Some(false))
}

/// Root is an explicit choice in `jobConfig.securityContext`, and then it may read what it does not own.
fn container_security(root: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: (!root).then_some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: root.then(|| vec!["DAC_READ_SEARCH".to_owned()]),
        }),
        ..SecurityContext::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn empty_dir(name: &str, limit: Option<String>) -> Volume {
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

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
