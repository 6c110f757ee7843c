//! A thousand backups: the spoke against a bare client that writes the same.

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

use crate::Figure;
use crate::spoke::Spoke;

/// Resources in the measurements.
const COUNT: usize = 1000;
/// Requests that the bare client has under way.
const WORKERS: usize = 16;
/// Idle is watched for this long.
const IDLE: Duration = Duration::from_secs(60);

fn backup(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": name, "namespace": namespace },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "source": { "pvc": { "claimName": "data" } } } })
}

fn prepare(bed: &Bed, cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let (key, secret) = bed.servers().s3_credentials();
    let [url, _] = bed.servers().s3_urls();
    let objects = [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data", "namespace": namespace },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "nas", "namespace": namespace }, "stringData": {
                "RESTIC_PASSWORD": "bench", "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret } }),
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository", "metadata": { "name": "nas", "namespace": namespace },
                "spec": { "repositoryURL": format!("s3:{url}/bench"), "credentialsSecretRef": { "name": "nas" } } }),
    ];
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    cluster.apply(&text.join("\n---\n")).map(drop)
}

/// What a thousand backups cost.
pub async fn controller(bed: &Bed, cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    let client = cluster.client().await?;
    prepare(bed, cluster, "warm")?;
    let spoke = Spoke::start(bed, cluster)?;
    fleet::wait(
        cluster,
        "warm",
        "resticrepository/nas",
        "condition=Ready",
        Duration::from_secs(60),
    )?;
    // Warms both sides up, and shows what is written.
    let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "warm");
    backups
        .create(
            &PostParams::default(),
            &serde_json::from_value(backup("warm", "sample"))?,
        )
        .await?;
    fleet::wait(
        cluster,
        "warm",
        "resticbackup/sample",
        "condition=Ready",
        Duration::from_secs(60),
    )?;
    let sample = Sample::read(&client).await?;
    spoke.stop()?;

    progress(&format!(
        "{COUNT} backups by a bare client with {WORKERS} workers"
    ));
    prepare(bed, cluster, "bare")?;
    let bare = bare(&client, &sample).await?;
    cluster.kubectl(&["delete", "namespace", "bare", "--wait=true", "--timeout=300s"])?;

    progress(&format!("{COUNT} backups by the spoke"));
    prepare(bed, cluster, "load")?;
    let spoke = Spoke::start(bed, cluster)?;
    fleet::wait(
        cluster,
        "load",
        "resticrepository/nas",
        "condition=Ready",
        Duration::from_secs(60),
    )?;
    let loaded = load(&client).await?;
    let memory = spoke.memory()?;
    println!("bare client {bare:.1?}, spoke {loaded:.1?}");
    let cron_jobs = cluster
        .kubectl(&["get", "cronjobs", "-n", "load", "-o", "name"])?
        .lines()
        .count();
    ensure!(cron_jobs == COUNT, "{cron_jobs} CronJobs");
    let writes = spoke.sum("fleet_api_writes_total");

    progress(&format!("idle for {IDLE:?}"));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = requests(cluster)?;
    tokio::time::sleep(IDLE).await;
    let idle = requests(cluster)?.saturating_sub(before);
    let idle_memory = spoke.memory()?;
    spoke.stop()?;

    progress(&format!("restart with {COUNT} backups"));
    let spoke = Spoke::start(bed, cluster)?;
    let settled = loop {
        if spoke.sum("fleet_turns_total{kind=\"ResticBackup\"") >= (COUNT + 1) as f64 {
            break spoke.started.elapsed();
        }
        ensure!(
            spoke.started.elapsed() < Duration::from_secs(60),
            "the spoke did not settle: {}",
            spoke.metrics()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rewrites = spoke.sum("fleet_api_writes_total");
    spoke.stop()?;
    let figure = |name, value, unit, goal| Figure {
        name,
        value,
        unit,
        goal,
    };
    let per_backup = writes / COUNT as f64;
    Ok(vec![
        figure(
            "create_1000_backups_ratio_to_bare_client",
            loaded.as_secs_f64() / bare.as_secs_f64(),
            "x",
            "<= 1.15",
        ),
        figure("create_1000_backups", loaded.as_secs_f64(), "s", "none"),
        figure("api_writes_per_backup", per_backup, "requests", "none"),
        figure("manager_memory_after_1000_backups", memory, "MiB", "<= 40"),
        figure(
            "manager_memory_idle_with_1000_backups",
            idle_memory,
            "MiB",
            "<= 40",
        ),
        figure(
            "idle_api_requests_per_minute",
            idle as f64 * 60.0 / IDLE.as_secs_f64(),
            "requests",
            "0",
        ),
        figure(
            "restart_settle_time_with_1000_backups",
            settled.as_secs_f64(),
            "s",
            "<= 2",
        ),
        figure("restart_writes_with_1000_backups", rewrites, "requests", "0"),
    ])
}

/// What the spoke writes for one backup.
struct Sample {
    account: ServiceAccount,
    cron_job: CronJob,
    status: Value,
}

impl Sample {
    async fn read(client: &Client) -> anyhow::Result<Sample> {
        let mut account = Api::<ServiceAccount>::namespaced(client.clone(), "warm")
            .get("resticbackup-sample")
            .await?;
        let mut cron_job = Api::<CronJob>::namespaced(client.clone(), "warm")
            .get("resticbackup-sample")
            .await?;
        for meta in [&mut account.metadata, &mut cron_job.metadata] {
            meta.managed_fields = None;
            meta.resource_version = None;
            meta.uid = None;
            meta.creation_timestamp = None;
            meta.generation = None;
            meta.owner_references = None;
            meta.namespace = Some("bare".to_owned());
        }
        cron_job.status = None;
        let backup = Api::<crds::ResticBackup>::namespaced(client.clone(), "warm")
            .get("sample")
            .await?;
        Ok(Sample {
            account,
            cron_job,
            status: serde_json::to_value(backup.status)?,
        })
    }
}

/// The same writes without a controller: create, ServiceAccount, CronJob, status.
async fn bare(client: &Client, sample: &Sample) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let parameters = PatchParams::apply("bare").force();
    stream::iter(0..COUNT)
        .map(|n| {
            let parameters = &parameters;
            async move {
                let name = format!("b{n}");
                let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "bare");
                backups.create(&PostParams::default(), &serde_json::from_value(backup("bare", &name)).map_err(kube::Error::SerdeError)?).await?;
                let child = format!("resticbackup-{name}");
                let mut account = sample.account.clone();
                account.metadata.name = Some(child.clone());
                Api::<ServiceAccount>::namespaced(client.clone(), "bare").patch(&child, parameters, &Patch::Apply(account)).await?;
                let mut cron_job = sample.cron_job.clone();
                cron_job.metadata.name = Some(child.clone());
                Api::<CronJob>::namespaced(client.clone(), "bare").patch(&child, parameters, &Patch::Apply(cron_job)).await?;
                let status = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "status": sample.status });
                backups.patch_status(&name, parameters, &Patch::Apply(status)).await?;
                Ok::<(), kube::Error>(())
            }
        })
        .buffer_unordered(WORKERS)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(start.elapsed())
}

/// From the first create until all are Ready, seen through one watch.
async fn load(client: &Client) -> anyhow::Result<Duration> {
    let backups: Api<crds::ResticBackup> = Api::namespaced(client.clone(), "load");
    let mut events = Box::pin(watcher::watcher(backups.clone(), watcher::Config::default()));
    let start = Instant::now();
    let creating = tokio::spawn({
        let backups = backups.clone();
        async move {
            stream::iter(0..COUNT)
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
    let mut ready = std::collections::HashSet::new();
    while ready.len() < COUNT {
        ensure!(
            start.elapsed() < Duration::from_secs(300),
            "{} of {COUNT} were Ready",
            ready.len()
        );
        let event = tokio::time::timeout(Duration::from_secs(60), events.next())
            .await
            .context("no backup became Ready for a minute")?;
        if let Some(Ok(Event::Apply(object) | Event::InitApply(object))) = event
            && object
                .status
                .as_ref()
                .is_some_and(|s| crds::conditions::is_true(&s.conditions, crds::conditions::types::READY))
        {
            ready.extend(object.metadata.name);
        }
    }
    let elapsed = start.elapsed();
    creating.await??;
    Ok(elapsed)
}

/// Requests of the spoke so far, by the API server's own audit log: watches and the leader's lease apart.
fn requests(cluster: &Cluster) -> anyhow::Result<usize> {
    let entries = cluster.audit()?;
    let counts = |entry: &&Value| entry["verb"] != "watch" && entry["objectRef"]["resource"] != "leases";
    Ok(entries.iter().filter(counts).count())
}
