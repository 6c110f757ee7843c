//! What the CronJob and Job controllers and the kubelet would do, one step per call.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::rules::seconds;
use super::server::ApiServer;

/// How container `restic`, or the first one, ends.
#[derive(Clone, Debug)]
pub struct End {
    pub exit_code: i32,
    /// kubelet's reason, such as Completed, Error or OOMKilled.
    pub reason: String,
    /// What it wrote to its termination log.
    pub message: String,
}

impl End {
    /// Exit code 0, and a message.
    #[must_use]
    pub fn success(message: impl Into<String>) -> End {
        End {
            exit_code: 0,
            reason: "Completed".to_owned(),
            message: message.into(),
        }
    }

    /// Another exit code, and a message.
    #[must_use]
    pub fn failure(exit_code: i32, message: impl Into<String>) -> End {
        End {
            exit_code,
            reason: "Error".to_owned(),
            message: message.into(),
        }
    }
}

impl ApiServer {
    /// A run of a CronJob that is due now, also if it is suspended. Returns the Job's name.
    ///
    /// # Panics
    /// When there is no such CronJob.
    pub fn fire(&self, namespace: &str, cron_job: &str) -> String {
        let from = self.get::<CronJob>(namespace, cron_job).unwrap();
        let (now, template) = (self.now(), from.spec.job_template);
        let name = format!("{cron_job}-{}", now.as_second() / 60);
        let template = serde_json::to_value(template).unwrap();
        let mut meta = template["metadata"].clone();
        meta["name"] = json!(name);
        meta["namespace"] = json!(namespace);
        meta["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"] = json!(seconds(now));
        meta["ownerReferences"] = json!([owner("CronJob", cron_job, &from.metadata.uid)]);
        self.put(
            &json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"] }),
        );
        self.edit::<CronJob>(namespace, cron_job, |object| {
            object["status"]["lastScheduleTime"] = json!(seconds(now));
        });
        name
    }

    /// Makes a pending pod for each Job that wants one, and removes the pods of suspended Jobs. Returns the new pods as
    /// namespace and name.
    pub fn settle_jobs(&self) -> Vec<(String, String)> {
        let mut made = Vec::new();
        for job in self.all::<Job>() {
            let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
            let status = job.status.clone().unwrap_or_default();
            let ended = status
                .conditions
                .iter()
                .flatten()
                .any(|c| c.type_ == "Complete" || c.type_ == "Failed");
            let suspended = job.spec.as_ref().and_then(|s| s.suspend).unwrap_or_default();
            let pods = self.pods_of(&namespace, &name);
            if suspended && !ended {
                pods.iter()
                    .for_each(|pod| self.delete::<Pod>(&namespace, &pod.name_any()));
            } else if !ended && pods.is_empty() && job.metadata.deletion_timestamp.is_none() {
                made.push((namespace.clone(), self.make_pod(&job)));
                let start = json!(seconds(self.now()));
                self.edit::<Job>(&namespace, &name, |job| {
                    job["status"]["active"] = json!(1);
                    job["status"]["startTime"] = start;
                });
            }
        }
        made
    }

    /// Pods of a Job.
    #[must_use]
    pub fn pods_of(&self, namespace: &str, job: &str) -> Vec<Pod> {
        let of = |pod: &Pod| {
            pod.owner_references()
                .iter()
                .any(|o| o.kind == "Job" && o.name == job)
        };
        let here = |pod: &Pod| pod.namespace().as_deref() == Some(namespace);
        self.all::<Pod>()
            .into_iter()
            .filter(|pod| here(pod) && of(pod))
            .collect()
    }

    /// The kubelet has started all containers of a pod.
    pub fn run_pod(&self, namespace: &str, pod: &str) {
        let started = json!({ "running": { "startedAt": seconds(self.now()) } });
        self.edit::<Pod>(namespace, pod, |pod| {
            pod["spec"]["nodeName"] = json!("node-1");
            pod["status"]["phase"] = json!("Running");
            pod["status"]["conditions"] =
                json!([condition("PodScheduled", "True"), condition("Ready", "True")]);
            pod["status"]["containerStatuses"] = containers(pod, |_| started.clone());
        });
    }

    /// All containers of a pod end: restic as given, the others well. The Job ends with it.
    ///
    /// # Panics
    /// When there is no such pod.
    pub fn end_pod(&self, namespace: &str, pod: &str, end: &End) {
        let now = seconds(self.now());
        let job = self.get::<Pod>(namespace, pod).unwrap().owner_references()[0]
            .name
            .clone();
        self.edit::<Pod>(namespace, pod, |pod| {
            let ended = |name: &str| {
                let end = if name == "restic" {
                    end.clone()
                } else {
                    End::success("")
                };
                let state = json!({ "exitCode": end.exit_code, "reason": end.reason, "message": end.message,
                    "startedAt": pod["metadata"]["creationTimestamp"], "finishedAt": now });
                json!({ "terminated": state })
            };
            let statuses = containers(pod, ended);
            pod["spec"]["nodeName"] = json!("node-1");
            pod["status"]["phase"] = json!(if end.exit_code == 0 { "Succeeded" } else { "Failed" });
            pod["status"]["conditions"] =
                json!([condition("PodScheduled", "True"), condition("Ready", "False")]);
            pod["status"]["containerStatuses"] = statuses;
        });
        self.edit::<Job>(namespace, &job, |job| {
            let (type_, count) = if end.exit_code == 0 { ("Complete", "succeeded") } else { ("Failed", "failed") };
            let reason = if end.exit_code == 0 { "CompletionsReached" } else { "BackoffLimitExceeded" };
            let start = job["status"]["startTime"].clone();
            job["status"] = json!({ "startTime": start, (count): 1, "conditions": [{
                "type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now }] });
            if end.exit_code == 0 {
                job["status"]["completionTime"] = json!(now);
            }
        });
    }

    /// Does all of the above by itself, each second: pods run at once, and end after a time as `end` decides of their Job.
    /// `None` runs on. Stops when it is dropped.
    pub fn work(
        &self,
        time: Duration,
        end: impl Fn(&Job) -> Option<End> + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        let server = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                server.settle_jobs();
                for pod in server.all::<Pod>() {
                    server.work_on(&pod, time, &end);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }))
    }

    fn work_on(&self, pod: &Pod, time: Duration, end: &impl Fn(&Job) -> Option<End>) {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let status = pod.status.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            self.remove_pod(&namespace, &name);
            return;
        }
        let states = status.container_statuses.unwrap_or_default();
        let started = states
            .first()
            .and_then(|c| c.state.as_ref()?.running.as_ref()?.started_at.clone());
        let over = |started: &Time| self.now().duration_since(started.0).unsigned_abs() >= time;
        match (status.phase.as_deref(), started) {
            (Some("Pending"), _) => self.run_pod(&namespace, &name),
            (Some("Running"), Some(started)) if over(&started) => {
                let job = pod
                    .owner_references()
                    .first()
                    .map(|o| o.name.clone())
                    .unwrap_or_default();
                if let Some(end) = self.get::<Job>(&namespace, &job).as_ref().and_then(end) {
                    self.end_pod(&namespace, &name, &end);
                }
            }
            _ => {}
        }
    }

    fn make_pod(&self, job: &Job) -> String {
        let template = serde_json::to_value(job.spec.as_ref().map(|s| &s.template)).unwrap();
        let (name, uid) = (job.name_any(), job.uid());
        let mut meta = template["metadata"].clone();
        let attempts = job.status.as_ref().and_then(|s| s.failed).unwrap_or_default();
        let pod = format!("{name}-pod{attempts}");
        meta["name"] = json!(pod);
        meta["namespace"] = json!(job.namespace());
        meta["labels"]["batch.kubernetes.io/job-name"] = json!(name);
        meta["labels"]["batch.kubernetes.io/controller-uid"] = json!(uid);
        meta["ownerReferences"] = json!([owner("Job", &name, &uid)]);
        let status = json!({ "phase": "Pending" });
        self.put(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"], "status": status }));
        pod
    }
}

fn owner(kind: &str, name: &str, uid: &Option<String>) -> Value {
    json!({ "apiVersion": "batch/v1", "kind": kind, "name": name, "uid": uid, "controller": true,
        "blockOwnerDeletion": true })
}

fn condition(type_: &str, status: &str) -> Value {
    json!({ "type": type_, "status": status })
}

/// A status for each container of a pod.
fn containers(pod: &Value, state: impl Fn(&str) -> Value) -> Value {
    let containers = pod["spec"]["containers"].as_array();
    let status = |container: &Value| {
        let state = state(container["name"].as_str().unwrap_or_default());
        json!({ "name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
            "ready": state["running"].is_object(), "state": state })
    };
    containers.into_iter().flatten().map(status).collect()
}
