//! Backups by the spoke, and the same writes by a bare client.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tests::{Bed, Cluster, fleet, progress};

use crate::runs;
use crate::spoke::Spoke;

/// Requests that the bare client has under way.
pub const WORKERS: usize = 16;
/// A state that is waited for, of one object.
pub const SOON: Duration = Duration::from_secs(60);

fn backup(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": name, "namespace": namespace },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "source": { "pvc": { "claimName": "data" } } } })
}

/// A repository in a namespace of its own, with its credentials in a Secret of the same name.
pub fn repository(bed: &Bed, namespace: &str, name: &str, url: &str) -> [Value; 2] {
    let (key, secret) = bed.servers().s3_credentials();
    [
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace }, "stringData": {
                "RESTIC_PASSWORD": "bench", "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret } }),
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository", "metadata": { "name": name, "namespace": namespace },
                "spec": { "repositoryURL": format!("s3:{url}"), "credentialsSecretRef": { "name": name } } }),
    ]
}

/// Manifests as one text.
pub fn apply(cluster: &Cluster, objects: &[Value]) -> anyhow::Result<()> {
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    cluster.apply(&text.join("\n---\n")).map(drop)
}

/// What backups of a namespace need.
pub fn prepare(bed: &Bed, cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let [url, _] = bed.servers().s3_urls();
    let around = [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data", "namespace": namespace },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
    ];
    let repository = repository(bed, namespace, "nas", &format!("{url}/bench"));
    apply(cluster, &[&around[..], &repository[..]].concat())
}

/// The kinds, and the rights of the spoke.
pub fn install(bed: &Bed, cluster: &Cluster) -> anyhow::Result<()> {
    fleet::install_crds(cluster)?;
    let deploy = bed.workspace.root.join("deploy/spoke");
    for file in ["10-namespace.yaml", "20-rbac.yaml"] {
        cluster.kubectl(&["apply", "-f", &deploy.join(file).to_string_lossy()])?;
    }
    Ok(())
}

/// A spoke with a namespace whose repository is ready.
pub fn ready(bed: &Bed, cluster: &Cluster, profile: &str, namespace: &str) -> anyhow::Result<Spoke> {
    prepare(bed, cluster, namespace)?;
    let spoke = Spoke::start(bed, cluster, profile)?;
    fleet::wait(
        cluster,
        namespace,
        "resticrepository/nas",
        "condition=Ready",
        SOON,
    )?;
    Ok(spoke)
}

/// What the spoke writes for one backup.
pub struct Sample {
    pub account: ServiceAccount,
    pub cron_job: CronJob,
    /// Status before the first run, and after it.
    pub status: Value,
    pub ran: Value,
}

impl Sample {
    /// Makes a backup by the spoke, and a run of it; warms both sides up.
    pub async fn make(cluster: &Cluster, client: &Client) -> anyhow::Result<Sample> {
        let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "warm");
        let sample = serde_json::from_value(backup("warm", "sample"))?;
        backups.create(&PostParams::default(), &sample).await?;
        fleet::wait(cluster, "warm", "resticbackup/sample", "condition=Ready", SOON)?;
        let status = serde_json::to_value(backups.get("sample").await?.status)?;
        let mut account = Api::<ServiceAccount>::namespaced(client.clone(), "warm")
            .get("resticbackup-sample")
            .await?;
        let mut cron_job = Api::<CronJob>::namespaced(client.clone(), "warm")
            .get("resticbackup-sample")
            .await?;
        let owner = cron_job.metadata.uid.clone().unwrap_or_default();
        runs::finish(client, "warm", "sample", &cron_job, &owner).await?;
        let ran = tests::wait_until("the result of a run", SOON, || async {
            let status = backups.get("sample").await?.status;
            Ok(status.filter(|s| s.last_backup.is_some()))
        });
        let ran = serde_json::to_value(ran.await?)?;
        for meta in [&mut account.metadata, &mut cron_job.metadata] {
            meta.managed_fields = None;
            meta.resource_version = None;
            meta.uid = None;
            meta.creation_timestamp = None;
            meta.generation = None;
            meta.owner_references = None;
            meta.namespace = None;
        }
        cron_job.status = None;
        Ok(Sample {
            account,
            cron_job,
            status,
            ran,
        })
    }
}

/// Counts, and shows each thousand.
pub struct Progress {
    what: &'static str,
    count: AtomicUsize,
}

impl Progress {
    pub fn of(what: &'static str) -> Progress {
        let count = AtomicUsize::new(0);
        Progress { what, count }
    }

    pub fn step(&self) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(1000) {
            progress(&format!("{}: {count}", self.what));
        }
    }
}

/// Longest time that a state of so many objects is waited for.
pub fn limit(count: usize) -> Duration {
    Duration::from_secs(300) + Duration::from_millis(100) * u32::try_from(count).unwrap_or(u32::MAX)
}

/// The same writes without a controller: create, ServiceAccount, CronJob, status. Returns the uids of the CronJobs.
pub async fn bare(
    client: &Client,
    sample: &Sample,
    count: usize,
) -> anyhow::Result<(Duration, HashMap<String, String>)> {
    let start = Instant::now();
    let parameters = PatchParams::apply("bare").force();
    let shown = Progress::of("by a bare client");
    let made = stream::iter(0..count)
        .map(|n| {
            let (parameters, shown) = (&parameters, &shown);
            async move {
                let name = format!("b{n}");
                let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "bare");
                backups
                    .create(
                        &PostParams::default(),
                        &serde_json::from_value(backup("bare", &name))?,
                    )
                    .await?;
                let child = format!("resticbackup-{name}");
                let mut account = sample.account.clone();
                account.metadata.name = Some(child.clone());
                Api::<ServiceAccount>::namespaced(client.clone(), "bare")
                    .patch(&child, parameters, &Patch::Apply(account))
                    .await?;
                let mut cron_job = sample.cron_job.clone();
                cron_job.metadata.name = Some(child.clone());
                let cron_job = Api::<CronJob>::namespaced(client.clone(), "bare")
                    .patch(&child, parameters, &Patch::Apply(cron_job))
                    .await?;
                status(client, &name, &sample.status).await?;
                shown.step();
                Ok::<_, anyhow::Error>((name, cron_job.metadata.uid.unwrap_or_default()))
            }
        })
        .buffer_unordered(WORKERS)
        .try_collect()
        .await?;
    Ok((start.elapsed(), made))
}

/// Writes the status of a backup of the bare client.
pub async fn status(client: &Client, name: &str, status: &Value) -> anyhow::Result<()> {
    let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "bare");
    let status =
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "status": status });
    let parameters = PatchParams::apply("bare").force();
    backups
        .patch_status(name, &parameters, &Patch::Apply(status))
        .await?;
    Ok(())
}

/// From the first create until all are Ready, seen through one watch.
pub async fn load(client: &Client, count: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let creating = tokio::spawn({
        let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "load");
        async move {
            stream::iter(0..count)
                .map(|n| {
                    let backups = &backups;
                    async move {
                        let object = serde_json::from_value(backup("load", &format!("b{n}")))
                            .map_err(kube::Error::SerdeError)?;
                        backups.create(&PostParams::default(), &object).await
                    }
                })
                .buffer_unordered(WORKERS)
                .try_for_each(|_| async { Ok(()) })
                .await
        }
    });
    until(client, count, "Ready", |object| {
        let status = object.status.as_ref();
        status.is_some_and(|s| crds::conditions::is_true(&s.conditions, crds::conditions::types::READY))
    })
    .await?;
    let elapsed = start.elapsed();
    creating.await??;
    Ok(elapsed)
}

/// Waits until so many backups of namespace `load` are in a state.
pub async fn until(
    client: &Client,
    count: usize,
    state: &'static str,
    reached: impl Fn(&crds::ResticBackup) -> bool,
) -> anyhow::Result<()> {
    let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "load");
    let mut events = Box::pin(watcher::watcher(backups, watcher::Config::default()));
    let (start, shown) = (Instant::now(), Progress::of(state));
    let mut there = HashSet::new();
    while there.len() < count {
        ensure!(
            start.elapsed() < limit(count),
            "{} of {count} were {state} after {:?}",
            there.len(),
            limit(count)
        );
        let event = tokio::time::timeout(Duration::from_secs(120), events.next())
            .await
            .with_context(|| {
                format!(
                    "nothing changed for two minutes; {} of {count} are {state}",
                    there.len()
                )
            })?;
        if let Some(Ok(Event::Apply(object) | Event::InitApply(object))) = event
            && reached(&object)
            && there.insert(object.metadata.name)
        {
            shown.step();
        }
    }
    Ok(())
}
