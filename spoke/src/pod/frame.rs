//! A pod that runs restic. Pure.

use std::collections::BTreeMap;

use crds::ResticRepository;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, EnvVarSource, PodSecurityContext, PodSpec, PodTemplateSpec,
    SecretKeySelector, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::security::{self, runs_as_root};
use super::volumes::{self, credentials_volume, empty_dir, ephemeral, in_memory, mount};
use super::{JobSettings, Source, literal, user, variable};
use crate::secrets::{
    Backend, CREDENTIALS_DIR, FILES_VARIABLE, PASSWORD_VARIABLE, PRIVATE_FILES_VARIABLE, REPOSITORY_VARIABLE,
    SSH_DIR,
};
use crate::world::RESTIC_CONTAINER;

const TMP_DIR: &str = "/tmp";
const CACHE_DIR: &str = "/cache";
/// restic takes up to a minute to remove its lock after SIGTERM.
const GRACE_SECONDS: i64 = 120;

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
    /// Claim on which restic's cache stays.
    pub cache: Option<String>,
    /// The kubelet may give the volumes to the pod's group. Never where one of them holds an application's files and
    /// is mounted to be written: it would change group and mode of all of them.
    pub own_volumes: bool,
}

impl Frame<'_> {
    /// The pod, with these labels.
    #[must_use]
    pub fn template(mut self, labels: BTreeMap<String, String>) -> PodTemplateSpec {
        let given = self.job.security.clone().unwrap_or_default();
        let security = security::laid_over(given, self.own_volumes);
        let users = user::users(&security);
        self.work_space();
        if users.is_some() {
            self.mounts.push(user::mount());
            self.volumes.push(user::volume());
        }
        let backend = Backend::of(&self.repository.spec.repository_url);
        let mut environment = environment(self.source, backend, self.job);
        environment.extend(self.files(backend));
        environment.append(&mut self.environment);
        let given = &self.job.environment;
        environment.retain(|own| given.iter().all(|given| given.name != own.name));
        environment.extend(given.iter().cloned());
        let users = users.map(|users| (user::ANNOTATION.to_owned(), users));
        let annotations = users.into_iter().collect();
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(own_over(&self.job.labels, labels)),
                annotations: Some(own_over(&self.job.annotations, annotations)).filter(|a| !a.is_empty()),
                ..ObjectMeta::default()
            }),
            spec: Some(self.spec(security, environment)),
        }
    }

    /// Folders for temporary files and for the cache.
    fn work_space(&mut self) {
        self.mounts.push(mount("tmp", TMP_DIR, false));
        self.volumes.push(empty_dir("tmp", None));
        if let Some(claim) = &self.cache {
            self.mounts.push(mount("cache", CACHE_DIR, false));
            self.volumes.push(volumes::claim("cache", claim, false));
            return;
        }
        let cache = self.repository.spec.cache.clone().unwrap_or_default();
        if cache.enabled == Some(false) {
            return;
        }
        self.mounts.push(mount("cache", CACHE_DIR, false));
        let size = cache.size.clone().unwrap_or_else(|| "5Gi".to_owned());
        self.volumes.push(match &cache.storage_class_name {
            Some(class) => ephemeral("cache", class, size),
            None => empty_dir("cache", Some(size)),
        });
    }

    /// The files of a back end, and the variables that name them.
    fn files(&mut self, backend: Option<Backend>) -> Vec<EnvVar> {
        let files = backend.map(Backend::files).unwrap_or_default();
        if files.is_empty() {
            return Vec::new();
        }
        self.mounts.push(mount("credentials", CREDENTIALS_DIR, true));
        self.volumes.push(credentials_volume(self.source, files));
        let private = files.iter().filter(|f| f.private);
        let private: Vec<String> = private
            .map(|f| format!("{CREDENTIALS_DIR}/{0}={SSH_DIR}/{0}", f.file))
            .collect();
        let mut environment = Vec::new();
        if !private.is_empty() {
            self.mounts.push(mount("ssh", SSH_DIR, false));
            self.volumes.push(in_memory("ssh"));
            environment.push(variable(PRIVATE_FILES_VARIABLE, &private.join(" ")));
        }
        let named = files.iter().filter_map(|f| Some((f.variable?, f.file)));
        let named: Vec<String> = named
            .map(|(variable, file)| format!("{variable}={CREDENTIALS_DIR}/{file}"))
            .collect();
        environment.extend((!named.is_empty()).then(|| variable(FILES_VARIABLE, &named.join(" "))));
        environment
    }

    fn spec(self, security: PodSecurityContext, environment: Vec<EnvVar>) -> PodSpec {
        let (job, root) = (self.job, runs_as_root(&security));
        PodSpec {
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
            priority_class_name: job.priority_class.clone(),
            image_pull_secrets: Some(job.pull_secrets.clone()).filter(|list| !list.is_empty()),
            containers: vec![literal::literal_container(Container {
                name: RESTIC_CONTAINER.to_owned(),
                image: Some(self.image),
                image_pull_policy: Some("IfNotPresent".to_owned()),
                command: Some(self.command),
                args: Some(self.arguments),
                env: Some(environment),
                resources: job.resources.clone(),
                security_context: Some(container_security(root, self.root_capabilities)),
                volume_mounts: Some(self.mounts),
                ..Container::default()
            })],
            volumes: Some(self.volumes),
            ..PodSpec::default()
        }
    }
}

fn environment(source: &Source, backend: Option<Backend>, job: &JobSettings) -> Vec<EnvVar> {
    let secret = |variable: &str, optional: bool| EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: source.name().to_owned(),
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
    let limit = |resource: &str| job.resources.as_ref()?.limits.as_ref()?.get(resource);
    // Go would take all memory that the node has, and be killed at the container's limit.
    let memory = limit("memory").and_then(|Quantity(limit)| memory_bytes(limit));
    // A tenth is left for what Go does not count.
    variables.extend(memory.map(|bytes| variable("GOMEMLIMIT", &(bytes / 10 * 9).to_string())));
    // restic would begin as many readers as the node has processors, and be stopped for most of each period.
    let processors = limit("cpu").and_then(|Quantity(limit)| processors(limit));
    variables.extend(processors.map(|count| variable("GOMAXPROCS", &count.to_string())));
    variables
}

/// Labels or annotations of a person, under the operator's own.
fn own_over(given: &BTreeMap<String, String>, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    given.clone().into_iter().chain(own).collect()
}

/// Whole processors of a Kubernetes quantity such as 500m, 2 or 1.5, rounded up. `None` for 0, which is no limit, and for
/// other notations.
fn processors(quantity: &str) -> Option<u32> {
    let milli = match quantity.strip_suffix('m') {
        Some(milli) => milli.parse::<u32>().ok()?,
        None => {
            let (whole, fraction) = quantity.split_once('.').unwrap_or((quantity, ""));
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(fraction) {
                return None;
            }
            let more = u32::from(fraction.bytes().any(|b| b != b'0'));
            whole.parse::<u32>().ok()?.checked_add(more)?.checked_mul(1000)?
        }
    };
    Some(milli.div_ceil(1000)).filter(|count| *count > 0)
}

/// Bytes of a Kubernetes quantity such as 512Mi or 1G. `None` for 0, which is no limit, and for other notations. Go ends a
/// process whose limit is not a signed integer of 64 bits: `None` for more, too.
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
    let bytes = count.checked_mul(unit)?;
    (bytes > 0 && i64::try_from(bytes).is_ok()).then_some(bytes)
}

/// Root is an explicit choice in `jobConfig.securityContext`, and then it may read what it does not own.
pub(super) fn container_security(root: bool, capabilities: &[&str]) -> SecurityContext {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_processor_is_one() {
        for (quantity, count) in [
            ("500m", Some(1)),
            ("1500m", Some(2)),
            ("2", Some(2)),
            ("0.5", Some(1)),
            ("1.5", Some(2)),
            ("2.0", Some(2)),
            ("0", None),
            ("0m", None),
            ("many", None),
            ("1k", None),
            ("", None),
        ] {
            assert_eq!(processors(quantity), count, "{quantity}");
        }
    }

    #[test]
    fn quantities_become_bytes_or_nothing() {
        assert_eq!(memory_bytes("512Mi"), Some(512 << 20));
        assert_eq!(memory_bytes("1G"), Some(1_000_000_000));
        assert_eq!(memory_bytes("1.5Gi"), None);
        assert_eq!(memory_bytes("many"), None);
        assert_eq!(memory_bytes("0"), None, "no limit");
        assert_eq!(memory_bytes("8388607Ti"), Some(8_388_607 << 40));
        assert_eq!(
            memory_bytes("8388608Ti"),
            None,
            "Go does not start with more than 64 bits"
        );
    }
}
