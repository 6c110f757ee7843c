//! `jobConfig`: how the pods of a resource are run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, PodSecurityContext, ResourceRequirements, Toleration,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::{JobCache, ONLY_BACKUPS};
use crate::common::ConcurrencyPolicy;
use crate::schema;
use crate::variable::Variable;

/// How the pods of a resource are run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobConfiguration {
    /// What to do when a run is due while the one before it still runs.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Finished Jobs to keep. 0 counts as 1, because the result is read from the finished Job.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0))]
    pub successful_jobs_history_limit: i32,
    /// Failed Jobs to keep. 0 counts as 1.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0))]
    pub failed_jobs_history_limit: i32,
    /// Seconds after which a run is ended, whatever it is doing.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: i64,
    /// How often a failed pod is tried again within one run.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub backoff_limit: i32,
    /// core/v1 PodSecurityContext, laid over the default (not root, uid and gid 65532, RuntimeDefault seccomp profile).
    /// Files that only their owner may read need runAsUser: <owner>, or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::schemaless")]
    pub security_context: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<Value>,
    /// Labels of the nodes on which the pods run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods bear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// core/v1 Affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::schemaless")]
    pub affinity: Option<Value>,
    /// ServiceAccount of the pods; one is made unless given. Its token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Labels of the pods, beside those of the operator, whose names are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new(unreserved()).message(BAD_KEY))]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of the pods, beside those of the operator, whose names are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[x_kube(validation = Rule::new(unreserved()).message(BAD_KEY))]
    pub pod_annotations: BTreeMap<String, String>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets, in the namespace of the resource, with which the images are pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Variables of restic's container: RESTIC_COMPRESSION, RESTIC_PACK_SIZE, RESTIC_READ_CONCURRENCY, HTTPS_PROXY,
    /// NO_PROXY, GOGC, GOMEMLIMIT, GOMAXPROCS. They win over those of the repository's Secret. Others are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env: Vec<Variable>,
    /// Most that restic sends, in KiB per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit_upload: Option<i32>,
    /// Most that restic receives, in KiB per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit_download: Option<i32>,
    /// Where restic's cache stays between the runs of a ResticBackup; it lasts as long as a pod unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<JobCache>,
}

const BAD_KEY: &str = "names that begin with backup.resticbackup.io/ or batch.kubernetes.io/, and controller-uid, job-name, \
app.kubernetes.io/name, app.kubernetes.io/component and app.kubernetes.io/managed-by are the operator's: choose others";
/// What labels and annotations of the operator, and of the controller of Jobs, begin with.
const RESERVED_PREFIXES: [&str; 2] = ["backup.resticbackup.io/", "batch.kubernetes.io/"];
const RESERVED_KEYS: [&str; 5] = [
    "controller-uid",
    "job-name",
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
];

/// CEL: no name in `self` is reserved.
fn unreserved() -> String {
    let prefixes = RESERVED_PREFIXES.map(|prefix| format!("!k.startsWith('{prefix}')"));
    let keys = RESERVED_KEYS.map(|key| format!("'{key}'"));
    format!(
        "self.all(k, {} && !(k in [{}]))",
        prefixes.join(" && "),
        keys.join(", ")
    )
}

fn is_reserved(key: &str) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) || RESERVED_KEYS.contains(&key)
}

/// A day and a half would end the first backup of a large volume; three days only end what hangs.
pub const DEFAULT_DEADLINE_SECONDS: i64 = 3 * 24 * 3600;

fn default_history() -> i32 {
    3
}

fn default_deadline() -> i64 {
    DEFAULT_DEADLINE_SECONDS
}

impl Default for JobConfiguration {
    fn default() -> Self {
        JobConfiguration {
            concurrency_policy: ConcurrencyPolicy::default(),
            successful_jobs_history_limit: default_history(),
            failed_jobs_history_limit: default_history(),
            active_deadline_seconds: default_deadline(),
            backoff_limit: 0,
            security_context: None,
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            service_account_name: None,
            pod_labels: BTreeMap::new(),
            pod_annotations: BTreeMap::new(),
            priority_class_name: None,
            image_pull_secrets: Vec::new(),
            env: Vec::new(),
            limit_upload: None,
            limit_download: None,
            cache: None,
        }
    }
}

/// A part of `spec.jobConfig` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPart {
    #[error("spec.{field} is not a {kind}: {source}")]
    Shape {
        field: &'static str,
        kind: &'static str,
        source: serde_json::Error,
    },
    #[error("spec.jobConfig.{field}: {key:?} is the operator's own; choose another name")]
    Reserved { field: &'static str, key: String },
    #[error("spec.jobConfig.env: {name:?} cannot be set: {why}")]
    Variable { name: String, why: String },
    #[error("spec.{0}")]
    Cache(&'static str),
}

impl JobConfiguration {
    /// Checks names of labels, annotations and variables.
    ///
    /// # Errors
    /// The first that cannot be set.
    pub fn check_names(&self) -> Result<(), BadPart> {
        for (field, map) in [
            ("podLabels", &self.pod_labels),
            ("podAnnotations", &self.pod_annotations),
        ] {
            if let Some(key) = map.keys().find(|key| is_reserved(key)) {
                let key = key.clone();
                return Err(BadPart::Reserved { field, key });
            }
        }
        for (n, variable) in self.env.iter().enumerate() {
            let twice = self.env.iter().take(n).any(|other| other.name == variable.name);
            let twice = twice.then(|| "it is given twice".to_owned());
            if let Some(why) = variable.wrong().or(twice) {
                let name = variable.name.clone();
                return Err(BadPart::Variable { name, why });
            }
        }
        Ok(())
    }

    /// Checks that no cache is asked for, where the kind has none.
    ///
    /// # Errors
    /// There is one.
    pub fn check_without_cache(&self) -> Result<(), BadPart> {
        match &self.cache {
            Some(_) => Err(BadPart::Cache(ONLY_BACKUPS)),
            None => Ok(()),
        }
    }

    /// `securityContext` as the type it must be.
    pub fn parsed_security_context(&self) -> Result<Option<PodSecurityContext>, BadPart> {
        parse(
            "jobConfig.securityContext",
            "core/v1 PodSecurityContext",
            self.security_context.as_ref(),
        )
    }

    /// `affinity` as the type it must be.
    pub fn parsed_affinity(&self) -> Result<Option<Affinity>, BadPart> {
        parse("jobConfig.affinity", "core/v1 Affinity", self.affinity.as_ref())
    }

    /// `resources` as the type it must be. Quantities may be written as numbers.
    pub fn parsed_resources(&self) -> Result<Option<ResourceRequirements>, BadPart> {
        let mut value = self.resources.clone();
        for list in ["limits", "requests"] {
            if let Some(Value::Object(quantities)) = value.as_mut().and_then(|v| v.get_mut(list)) {
                for quantity in quantities.values_mut().filter(|q| q.is_number()) {
                    *quantity = Value::String(quantity.to_string());
                }
            }
        }
        parse(
            "jobConfig.resources",
            "core/v1 ResourceRequirements",
            value.as_ref(),
        )
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    field: &'static str,
    kind: &'static str,
    value: Option<&Value>,
) -> Result<Option<T>, BadPart> {
    value
        .map(|v| T::deserialize(v).map_err(|source| BadPart::Shape { field, kind, source }))
        .transpose()
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube::core::cel::Validator;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_job_configuration_has_all_defaults() {
        assert_eq!(
            serde_json::from_value::<JobConfiguration>(json!({})).unwrap(),
            JobConfiguration::default()
        );
    }

    #[test]
    fn quantities_may_be_numbers() {
        let job: JobConfiguration =
            serde_json::from_value(json!({ "resources": { "limits": { "cpu": 1, "memory": "1Gi" } } }))
                .unwrap();
        let limits = job.parsed_resources().unwrap().unwrap().limits.unwrap();
        assert_eq!(limits["cpu"].0, "1");
    }

    #[test]
    fn a_wrong_part_names_its_field() {
        let job = JobConfiguration {
            affinity: Some(json!({ "nodeAffinity": 3 })),
            ..JobConfiguration::default()
        };
        assert!(
            job.parsed_affinity()
                .unwrap_err()
                .to_string()
                .starts_with("spec.jobConfig.affinity is not")
        );
    }

    /// What the API server says of a `jobConfig`, and what the operator does.
    fn judged(job: &Value) -> (bool, Result<(), String>) {
        let crd = serde_json::to_value(crate::ResticBackup::crd()).unwrap();
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/jobConfig";
        let admitted = Validator::new().validate(crd.pointer(path).unwrap(), job, None);
        let job: JobConfiguration = serde_json::from_value(job.clone()).unwrap();
        (admitted.is_ok(), job.check_names().map_err(|bad| bad.to_string()))
    }

    #[test]
    fn labels_and_annotations_of_the_operator_are_refused() {
        let names = RESERVED_KEYS
            .into_iter()
            .chain(["backup.resticbackup.io/users", "batch.kubernetes.io/job-name"]);
        for name in names {
            for field in ["podLabels", "podAnnotations"] {
                let (admitted, checked) = judged(&json!({ field: { "team": "a", name: "b" } }));
                let text = checked.unwrap_err();
                assert!(!admitted && text.contains(name) && text.contains(field), "{text}");
            }
        }
        let free = json!({ "podLabels": { "team": "a", "app.kubernetes.io/part-of": "shop" },
                           "podAnnotations": { "sidecar.istio.io/inject": "false" } });
        assert_eq!(judged(&free), (true, Ok(())));
    }

    #[test]
    fn variables_are_those_of_a_list() {
        let check = |name: &str, value: &str| judged(&json!({ "env": [{ "name": name, "value": value }] })).1;
        for (name, value) in [
            ("RESTIC_COMPRESSION", "max"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("NO_PROXY", ".svc,10.0.0.0/8"),
            ("GOGC", "20"),
            ("GOMEMLIMIT", "800MiB"),
            ("GOMEMLIMIT", "1000"),
            ("GOMEMLIMIT", "off"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}={value}");
        }
        for (name, value) in [
            ("RESTIC_REPOSITORY", "rest:http://thief"),
            ("RESTIC_PASSWORD_COMMAND", "sh"),
            ("RESTIC_CACERT", "/x"),
            ("RESTIC_HOST", "other"),
            ("AWS_ACCESS_KEY_ID", "x"),
            ("RCLONE_CONFIG_A_TYPE", "local"),
            ("HTTP_PROXY", "http://thief"),
            ("HTTPS_PROXY", "http://me:secret@proxy"),
            ("SSL_CERT_FILE", "/x"),
            ("LD_PRELOAD", "/x"),
            ("GODEBUG", "x=1"),
            ("FLEET_OPERATION", "x"),
            ("GOGC", "1\n"),
            ("GOMEMLIMIT", "1G"),
            ("GOMEMLIMIT", ""),
        ] {
            let text = check(name, value).unwrap_err();
            assert!(text.contains(&format!("{name:?}")), "{text}");
        }
        let twice = json!({ "env": [{ "name": "GOGC", "value": "1" }, { "name": "GOGC", "value": "2" }] });
        assert!(judged(&twice).1.unwrap_err().contains("twice"));
    }
}
