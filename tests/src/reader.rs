//! Objects of a cluster, read over one connection that is kept: tests look at them several times in a second, and a kubectl
//! for each look would keep a small machine busy with nothing else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::bail;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cluster::Cluster;

/// An API server that is cut off does not answer at all.
const LIMIT: Duration = Duration::from_secs(10);
const OURS: (&str, &str) = ("backup.resticbackup.io", "v1alpha1");

/// Kinds that tests look at often: the name in kubectl, group and version, kind, plural.
const KINDS: &[(&str, (&str, &str), &str, &str)] = &[
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
];

/// An object as it is now, without its managed fields; null when there is none. `object` is `kind/name` as kubectl has it, or
/// a kind, for the list of all of them.
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
    let answer = runtime()?.block_on(async {
        let api: Api<DynamicObject> = Api::namespaced_with(client(cluster).await?, namespace, &resource);
        match tokio::time::timeout(LIMIT, api.get_opt(name)).await {
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
    let Some(mut object) = answer? else {
        return Ok(Value::Null);
    };
    object.metadata.managed_fields = None;
    Ok(serde_json::to_value(object)?)
}

fn resource(kind: &str) -> Option<ApiResource> {
    let (_, (group, version), kind, plural) = KINDS.iter().find(|(known, ..)| *known == kind)?;
    Some(ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, version, kind),
        plural,
    ))
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
