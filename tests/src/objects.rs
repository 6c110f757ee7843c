//! Objects of a cluster, read and written over one connection that is kept: tests look at them several times in a second, and
//! a kubectl for each would keep a small machine busy with nothing else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::api::{
    ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective,
};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cluster::Cluster;

/// An API server that is cut off does not answer at all.
const LIMIT: Duration = Duration::from_secs(10);
const OURS: (&str, &str) = ("backup.resticbackup.io", "v1alpha1");

/// The name in kubectl, group and version, kind, plural.
type Kind = (
    &'static str,
    (&'static str, &'static str),
    &'static str,
    &'static str,
);

/// Kinds that tests look at often.
const KINDS: &[Kind] = &[
    ("resticbackup", OURS, "ResticBackup", "resticbackups"),
    ("resticrepository", OURS, "ResticRepository", "resticrepositories"),
    ("resticrestore", OURS, "ResticRestore", "resticrestores"),
    (
        "globalretentionpolicy",
        OURS,
        "GlobalRetentionPolicy",
        "globalretentionpolicies",
    ),
    ("cronjob", ("batch", "v1"), "CronJob", "cronjobs"),
    ("job", ("batch", "v1"), "Job", "jobs"),
    ("pod", ("", "v1"), "Pod", "pods"),
    (
        "pvc",
        ("", "v1"),
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
    ),
    ("secret", ("", "v1"), "Secret", "secrets"),
    ("configmap", ("", "v1"), "ConfigMap", "configmaps"),
    ("pv", ("", "v1"), "PersistentVolume", "persistentvolumes"),
    ("namespace", ("", "v1"), "Namespace", "namespaces"),
];

/// An object as it is now, without its managed fields; null when there is none. `object` is `kind/name` as kubectl has it, or
/// a kind, for the list of all of them. `namespace` is empty for what belongs to none.
///
/// # Errors
/// The API server did not answer, or refused.
pub fn get(cluster: &Cluster, namespace: &str, object: &str) -> anyhow::Result<Value> {
    let one = object.split_once('/');
    let Some((resource, name)) = one.and_then(|(kind, name)| Some((resource(kind)?, name))) else {
        let words = ["-n", namespace, "get", object, "--ignore-not-found", "-o", "json"];
        let text = cluster.kubectl(&words)?;
        return if text.is_empty() {
            Ok(Value::Null)
        } else {
            Ok(serde_json::from_str(&text)?)
        };
    };
    let found = ask(cluster, namespace, &resource, async |api| api.get_opt(name).await)?;
    let Some(mut object) = found else {
        return Ok(Value::Null);
    };
    object.metadata.managed_fields = None;
    Ok(serde_json::to_value(object)?)
}

/// Names of all objects of a kind in a namespace.
///
/// # Errors
/// The API server did not answer, or refused, or the kind is not one of those that are known here.
pub fn names(cluster: &Cluster, namespace: &str, kind: &str) -> anyhow::Result<Vec<String>> {
    let resource = known(kind)?;
    let list = ask(cluster, namespace, &resource, async |api| {
        api.list(&ListParams::default()).await
    })?;
    Ok(list
        .items
        .into_iter()
        .filter_map(|object| object.metadata.name)
        .collect())
}

/// Merges a patch into an object, `kind/name` as kubectl has it.
///
/// # Errors
/// The same.
pub fn merge(cluster: &Cluster, namespace: &str, object: &str, patch: &Value) -> anyhow::Result<()> {
    let (kind, name) = object.split_once('/').unwrap_or((object, ""));
    let resource = known(kind)?;
    ask(cluster, namespace, &resource, async |api| {
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
    })
    .map(drop)
}

/// Creates a namespace that must not be there yet.
///
/// # Errors
/// The same.
pub fn create_namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let resource = known("namespace")?;
    let namespace = DynamicObject::new(name, &resource);
    ask(cluster, "", &resource, async |api| {
        api.create(&PostParams::default(), &namespace).await
    })
    .map(drop)
}

/// Applies objects that name their namespaces, as `kubectl apply --server-side --force-conflicts` does.
///
/// # Errors
/// The same; nothing of `objects` is applied then behind the one that was refused.
pub fn apply(cluster: &Cluster, objects: &[Value]) -> anyhow::Result<()> {
    for object in objects {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let Some(resource) = declared(text("/apiVersion"), text("/kind")) else {
            cluster.apply(&object.to_string())?;
            continue;
        };
        let parameters = PatchParams {
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply("kubectl").force()
        };
        ask(cluster, text("/metadata/namespace"), &resource, async |api| {
            api.patch(text("/metadata/name"), &parameters, &Patch::Apply(object))
                .await
        })?;
    }
    Ok(())
}

/// One request to the API server of a cluster.
fn ask<T>(
    cluster: &Cluster,
    namespace: &str,
    resource: &ApiResource,
    request: impl AsyncFnOnce(Api<DynamicObject>) -> kube::Result<T>,
) -> anyhow::Result<T> {
    let answer = runtime()?.block_on(async {
        let client = client(cluster).await?;
        let api = match namespace {
            "" => Api::all_with(client, resource),
            namespace => Api::namespaced_with(client, namespace, resource),
        };
        match tokio::time::timeout(LIMIT, request(api)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => bail!(
                "the API server of cluster {} did not answer within {LIMIT:?}",
                cluster.name
            ),
        }
    });
    if answer.is_err() {
        // Perhaps it is another server by now, with another authority.
        clients().remove(&cluster.kubeconfig());
    }
    answer
}

fn known(kind: &str) -> anyhow::Result<ApiResource> {
    resource(kind).with_context(|| format!("{kind} is not one of the kinds that are known here"))
}

fn resource(kind: &str) -> Option<ApiResource> {
    KINDS.iter().find(|(known, ..)| *known == kind).map(made)
}

/// By what stands in a manifest.
fn declared(api_version: &str, kind: &str) -> Option<ApiResource> {
    let is = |(_, (group, version), known, _): &&Kind| {
        let (of, at) = api_version.split_once('/').unwrap_or(("", api_version));
        (of, at, kind) == (*group, *version, *known)
    };
    KINDS.iter().find(is).map(made)
}

fn made((_, (group, version), kind, plural): &Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Threads of tests come and go; connections stay.
fn runtime() -> anyhow::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(RUNTIME.get_or_init(|| made))
}

fn clients() -> MutexGuard<'static, HashMap<PathBuf, Client>> {
    static CLIENTS: OnceLock<Mutex<HashMap<PathBuf, Client>>> = OnceLock::new();
    CLIENTS
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    if let Some(client) = clients().get(&cluster.kubeconfig()) {
        return Ok(client.clone());
    }
    let made = cluster.client().await?;
    clients().insert(cluster.kubeconfig(), made.clone());
    Ok(made)
}
