//! The only place that writes to Kubernetes: server-side apply, each write under a deadline and behind the leader gate.

mod takeover;

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::leader::LeaderGate;
use crate::metrics::Metrics;
use crate::world::Key;

/// Owner of the fields of generated objects.
pub const MANAGER: &str = "restic-fleet-spoke";
/// Owner of status fields. Apart from the one above, so that a field left out of a status is really removed.
const STATUS_MANAGER: &str = "restic-fleet-spoke/status";
/// Longest log that is read, in bytes: a plan of 8 MiB, and what stands around it.
const LOG_MAX: i64 = 9 << 20;
/// A single write; includes the client's own retries.
const DEADLINE: Duration = Duration::from_secs(15);

/// The end of a log; others wait for it.
const LOG_END_DEADLINE: Duration = Duration::from_secs(5);

/// What became of a write.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another replica leads: it writes.
    #[error("this replica is not the leader")]
    NotLeader,
    /// The object, or its namespace, is gone.
    #[error("the object is gone: {0}")]
    Gone(String),
    /// The object was replaced by one of the same name, or exists already.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The API server refuses what was written. Trying again is no use.
    #[error("{0}")]
    Invalid(String),
    /// RBAC, an admission policy or a quota refuses the write.
    #[error("{0}")]
    Forbidden(String),
    /// The API server could not be asked, or not in time.
    #[error("the API server did not answer: {0}")]
    Unavailable(String),
}

impl ApplyError {
    /// Closed set of metric labels.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            ApplyError::NotLeader => "not_leader",
            ApplyError::Gone(_) => "gone",
            ApplyError::Conflict(_) => "conflict",
            ApplyError::Invalid(_) => "invalid",
            ApplyError::Forbidden(_) => "forbidden",
            ApplyError::Unavailable(_) => "unavailable",
        }
    }
}

impl From<kube::Error> for ApplyError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => ApplyError::Gone(status.message.clone()),
                409 => ApplyError::Conflict(status.message.clone()),
                400 | 422 => ApplyError::Invalid(status.message.clone()),
                401 | 403 => ApplyError::Forbidden(status.message.clone()),
                _ => ApplyError::Unavailable(status.message.clone()),
            },
            other => ApplyError::Unavailable(other.to_string()),
        }
    }
}

/// Anything that can be applied: a typed, namespaced object.
pub trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Serialize
    + DeserializeOwned
    + Debug
    + Send
    + Sync
{
}

impl<T> Object for T where
    T: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Serialize
        + DeserializeOwned
        + Debug
        + Send
        + Sync
{
}

/// The other program that owns parts of an object's spec, and wrote them last.
#[must_use]
pub fn other_writer<T: Object>(present: &T) -> Option<&str> {
    takeover::other_writer(MANAGER, present.managed_fields())
}

/// Writes objects.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    leader: LeaderGate,
    metrics: std::sync::Arc<Metrics>,
}

impl Applier {
    #[must_use]
    pub fn new(client: Client, leader: LeaderGate, metrics: std::sync::Arc<Metrics>) -> Applier {
        Applier {
            client,
            leader,
            metrics,
        }
    }

    /// Creates an object or makes it what the manifest says. Returns the object as it is stored.
    pub async fn apply<T: Object>(&self, manifest: &T) -> Result<T, ApplyError> {
        let (api, name) = (
            self.api::<T>(manifest.namespace().as_deref()),
            manifest.name_any(),
        );
        let body = Patch::Apply(typed::<T>(manifest)?);
        let parameters = PatchParams::apply(MANAGER).force();
        self.write("apply", &T::kind(&()), api.patch(&name, &parameters, &body))
            .await
    }

    /// The same for an object that another program may have made: what that one has set and the manifest does not name is
    /// removed. `present` is the object as it is.
    pub async fn take_over<T: Object>(&self, manifest: &T, present: &T) -> Result<T, ApplyError> {
        let entries = takeover::taken_over(MANAGER, present.managed_fields());
        if let Some(entries) = entries {
            let key = Key::new(present.namespace().unwrap_or_default(), present.name_any());
            let version = present.resource_version();
            let patch = json!({ "metadata": { "managedFields": entries, "resourceVersion": version } });
            self.merge::<T>(&key, &patch).await?;
        }
        self.apply(manifest).await
    }

    /// Makes a resource's status what is given. The uid keeps it off a successor of the same name.
    pub async fn status<T: Object>(
        &self,
        key: &Key,
        uid: &str,
        status: &impl Serialize,
    ) -> Result<T, ApplyError> {
        let api = self.api::<T>(Some(&key.namespace));
        let body = Patch::Apply(json!({
            "apiVersion": T::api_version(&()),
            "kind": T::kind(&()),
            "metadata": { "name": &*key.name, "namespace": &*key.namespace, "uid": uid },
            "status": status,
        }));
        let parameters = PatchParams::apply(STATUS_MANAGER).force();
        self.write(
            "status",
            &T::kind(&()),
            api.patch_status(&key.name, &parameters, &body),
        )
        .await
    }

    /// Sets parts of a resource's spec as a manager of their own, beside the others and against none: a field that another
    /// manager has set otherwise is a [`ApplyError::Conflict`], and what this one names no more is given up.
    pub async fn share<T: Object>(
        &self,
        key: &Key,
        uid: &str,
        manager: &str,
        spec: &Value,
    ) -> Result<T, ApplyError> {
        let api = self.api::<T>(Some(&key.namespace));
        let body = Patch::Apply(json!({
            "apiVersion": T::api_version(&()),
            "kind": T::kind(&()),
            "metadata": { "name": &*key.name, "namespace": &*key.namespace, "uid": uid },
            "spec": spec,
        }));
        let parameters = PatchParams::apply(manager);
        self.write("apply", &T::kind(&()), api.patch(&key.name, &parameters, &body))
            .await
    }

    /// Creates an object; one of the same name is a [`ApplyError::Conflict`].
    pub async fn create<T: Object>(&self, manifest: &T) -> Result<T, ApplyError> {
        let api = self.api::<T>(manifest.namespace().as_deref());
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.write("create", &T::kind(&()), api.create(&parameters, manifest))
            .await
    }

    /// Patches parts of an object as a JSON merge patch.
    pub async fn merge<T: Object>(&self, key: &Key, patch: &Value) -> Result<T, ApplyError> {
        let api = self.api::<T>(Some(&key.namespace));
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.write(
            "merge",
            &T::kind(&()),
            api.patch(&key.name, &parameters, &Patch::Merge(patch)),
        )
        .await
    }

    /// Deletes one very object. That it is gone already is fine.
    pub async fn delete<T: Object>(&self, key: &Key, uid: &str) -> Result<(), ApplyError> {
        let api = self.api::<T>(Some(&key.namespace));
        let preconditions = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        let parameters = DeleteParams::background().preconditions(preconditions);
        match self
            .write("delete", &T::kind(&()), api.delete(&key.name, &parameters))
            .await
        {
            Ok(_) | Err(ApplyError::Gone(_) | ApplyError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes one very object unless it has changed since it was read.
    ///
    /// # Errors
    /// [`ApplyError::Conflict`] when it has.
    pub async fn delete_as_it_is<T: Object>(&self, key: &Key, present: &T) -> Result<(), ApplyError> {
        let api = self.api::<T>(Some(&key.namespace));
        let preconditions = Preconditions {
            uid: present.uid(),
            resource_version: present.resource_version(),
        };
        let parameters = DeleteParams::background().preconditions(preconditions);
        let kind = T::kind(&());
        let deleted = self.write("delete", &kind, api.delete(&key.name, &parameters));
        match deleted.await {
            Ok(_) | Err(ApplyError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads one object. Reads are rare: the stores hold what the controllers need, Secrets excepted.
    pub async fn get<T: Object>(&self, key: &Key) -> Result<Option<T>, ApplyError> {
        let api = self.api::<T>(Some(&key.namespace));
        match timeout(DEADLINE, api.get_opt(&key.name)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ApplyError::Unavailable(format!("no answer within {DEADLINE:?}"))),
        }
    }

    /// What a container of a pod has logged.
    pub async fn log(&self, pod: &Key, container: &str) -> Result<String, ApplyError> {
        let api = self.api::<k8s_openapi::api::core::v1::Pod>(Some(&pod.namespace));
        let parameters = kube::api::LogParams {
            container: Some(container.to_owned()),
            limit_bytes: Some(LOG_MAX),
            ..kube::api::LogParams::default()
        };
        match timeout(DEADLINE, api.logs(&pod.name, &parameters)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ApplyError::Unavailable(format!("no answer within {DEADLINE:?}"))),
        }
    }

    /// The end of what a container of a running pod has logged: so many lines, and of these so many bytes at most.
    pub async fn log_end(
        &self,
        pod: &Key,
        container: &str,
        (lines, bytes): (i64, i64),
    ) -> Result<String, ApplyError> {
        let api = self.api::<k8s_openapi::api::core::v1::Pod>(Some(&pod.namespace));
        let parameters = kube::api::LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(lines),
            limit_bytes: Some(bytes),
            ..kube::api::LogParams::default()
        };
        match timeout(LOG_END_DEADLINE, api.logs(&pod.name, &parameters)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ApplyError::Unavailable(format!(
                "no answer within {LOG_END_DEADLINE:?}"
            ))),
        }
    }

    fn api<T: Object>(&self, namespace: Option<&str>) -> Api<T> {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::default_namespaced(self.client.clone()),
        }
    }

    /// The leader gate stands here, at the last moment before a write: a replica that lost its lease in the middle of
    /// a turn writes nothing more.
    async fn write<R>(
        &self,
        verb: &'static str,
        kind: &str,
        request: impl Future<Output = kube::Result<R>>,
    ) -> Result<R, ApplyError> {
        let result = if !self.leader.is_leader() {
            Err(ApplyError::NotLeader)
        } else {
            match timeout(DEADLINE, request).await {
                Ok(result) => result.map_err(ApplyError::from),
                Err(_) => Err(ApplyError::Unavailable(format!("no answer within {DEADLINE:?}"))),
            }
        };
        self.metrics
            .write(verb, kind, result.as_ref().err().map_or("ok", ApplyError::kind));
        result
    }
}

/// Server-side apply needs apiVersion and kind in the body, which k8s-openapi's serialisation adds and ours does too.
fn typed<T: Object>(manifest: &T) -> Result<Value, ApplyError> {
    let mut value = serde_json::to_value(manifest).map_err(|e| ApplyError::Invalid(e.to_string()))?;
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".to_owned(), json!(T::api_version(&())));
        map.insert("kind".to_owned(), json!(T::kind(&())));
    }
    Ok(value)
}
