//! Runs of backups that no kubelet takes part in: a finished Job of the CronJob, and its finished pod with a termination
//! message as the entrypoint writes it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::load::{self, Progress, Sample, WORKERS};

/// Neither the Job controller nor the scheduler touches what names another.
const CONTROLLER: &str = "resticbackup.io/bench";

/// Makes a run of a backup that has ended well; returns the name of its pod. `cron_job` gives the template, `owner` is the
/// uid of the backup's own CronJob.
pub async fn finish(
    client: &Client,
    namespace: &str,
    backup: &str,
    cron_job: &CronJob,
    owner: &str,
) -> anyhow::Result<String> {
    let name = format!("resticbackup-{backup}-1");
    let (job, pod) = manifests(backup, &name, cron_job, owner);
    let now = Timestamp::now();
    let started = now - SignedDuration::from_secs(5);
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let made = jobs.create(&PostParams::default(), &job).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut pod = pod;
    pod.metadata.owner_references = Some(vec![owned("Job", &name, &made.metadata.uid.unwrap_or_default())]);
    pods.create(&PostParams::default(), &pod).await?;
    let parameters = PatchParams::default();
    let summary = json!({ "message_type": "summary", "files_new": 12, "files_changed": 3, "files_unmodified": 1985, "dirs_new": 1,
        "dirs_changed": 2, "dirs_unmodified": 37, "data_blobs": 15, "tree_blobs": 3, "data_added": 7_340_032, "data_added_packed": 3_145_728,
        "total_files_processed": 2000, "total_bytes_processed": 314_572_800, "total_duration": 4.2,
        "backup_start": started.to_string(), "backup_end": now.to_string(), "snapshot_id": "5".repeat(64) });
    let message = json!({ "exitCode": 0, "summary": summary, "fatal": null, "ssh": null, "errors": 0, "lockLost": false, "items": [] });
    let terminated = json!({ "exitCode": 0, "reason": "Completed", "startedAt": seconds(started), "finishedAt": seconds(now),
        "message": message.to_string() });
    let status = json!({ "status": { "phase": "Succeeded", "startTime": seconds(started), "containerStatuses": [{ "name": "restic",
        "image": "restic", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": terminated } }] } });
    pods.patch_status(&name, &parameters, &Patch::Merge(status))
        .await?;
    let condition = |kind: &str| {
        json!({ "type": kind, "status": "True", "reason": "CompletionsReached",
        "lastTransitionTime": seconds(now), "lastProbeTime": seconds(now) })
    };
    let status = json!({ "status": { "startTime": seconds(started), "completionTime": seconds(now), "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")] } });
    jobs.patch_status(&name, &parameters, &Patch::Merge(status))
        .await?;
    Ok(name)
}

/// A run of each backup of a namespace, by as many workers as the bare client has. `owners`: uids of CronJobs by backup.
pub async fn all(
    client: &Client,
    namespace: &str,
    sample: &Sample,
    owners: &HashMap<String, String>,
) -> anyhow::Result<()> {
    let shown = Progress::of("have run");
    let bare = namespace == "bare";
    stream::iter(owners)
        .map(|(name, owner)| {
            let shown = &shown;
            async move {
                let pod = finish(client, namespace, name, &sample.cron_job, owner).await?;
                if bare {
                    load::status(client, name, &sample.ran).await?;
                    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
                    pods.delete(&pod, &DeleteParams::default()).await?;
                }
                shown.step();
                Ok::<(), anyhow::Error>(())
            }
        })
        .buffer_unordered(WORKERS)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// From the first Job until each status of namespace `load` has its result.
pub async fn by_spoke(
    client: &Client,
    sample: &Sample,
    owners: &HashMap<String, String>,
) -> anyhow::Result<Duration> {
    let (start, count) = (Instant::now(), owners.len());
    let results = load::until(client, count, "with a result", |object| {
        let status = object.status.as_ref();
        status.is_some_and(|s| s.last_backup.is_some())
    });
    futures::future::try_join(all(client, "load", sample, owners), results).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "load");
    tests::wait_until("the end of the pods", load::limit(count), || async {
        let left = pods
            .list_metadata(&kube::api::ListParams::default().limit(1))
            .await?;
        Ok(left.items.is_empty().then_some(()))
    })
    .await?;
    Ok(start.elapsed())
}

fn manifests(backup: &str, name: &str, cron_job: &CronJob, owner: &str) -> (Job, Pod) {
    let template = cron_job.spec.job_template.clone();
    let mut labels = template.metadata.and_then(|m| m.labels).unwrap_or_default();
    labels.insert(crds::names::LABEL_BACKUP.to_owned(), backup.to_owned());
    let meta = |owner| ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels.clone()),
        owner_references: owner,
        ..ObjectMeta::default()
    };
    let mut spec = template.spec.unwrap_or_default();
    let mut pod = spec.template.spec.take().unwrap_or_default();
    pod.service_account_name = Some(format!("resticbackup-{backup}"));
    pod.service_account = None;
    pod.scheduler_name = Some(CONTROLLER.to_owned());
    let annotations = spec.template.metadata.take().and_then(|m| m.annotations);
    let job = Job {
        metadata: meta(Some(vec![owned(
            "CronJob",
            &format!("resticbackup-{backup}"),
            owner,
        )])),
        spec: Some(JobSpec {
            managed_by: Some(CONTROLLER.to_owned()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels.clone()),
                    annotations: annotations.clone(),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod.clone()),
            },
            ..spec
        }),
        ..Job::default()
    };
    let pod = Pod {
        metadata: ObjectMeta {
            annotations,
            ..meta(None)
        },
        spec: Some(pod),
        ..Pod::default()
    };
    (job, pod)
}

fn owned(kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// As Kubernetes writes times.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
