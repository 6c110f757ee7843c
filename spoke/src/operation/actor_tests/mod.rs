//! The whole way of a Job, against an API server in memory that behaves as Kubernetes does where it matters: versions, uids
//! and the template of a Job that was started.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use crds::names;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use proto::digest::run_hash;
use proto::v1::spoke_message::Body;
use proto::v1::{
    LeaseGrant, LeaseRelease, LeaseReleased, LeaseRenew, LeaseRenewed, LeaseRevoke, OperationKind,
    RetentionRun, hub_message,
};
use ractor::Actor;
use serde_json::{Value, json};

mod following;
mod losing;
mod opening;

use super::super::{Assignment, Order, Owner, Pinned, order};
use super::*;
use crate::context::test_context_on;
use crate::exchange::Progress;
use crate::kind::{Cause, KindHandle, Supervisor};
use crate::world::{Delivery, JobView};

const JOB: &str = "/apis/batch/v1/namespaces/ns/jobs/first";
const POD: &str = "/api/v1/namespaces/ns/pods/pod";
const CRON_JOB: &str = "/apis/batch/v1/namespaces/ns/cronjobs/cron";

/// Objects by path.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<(u64, BTreeMap<String, Value>)>>);

impl Api {
    fn put(&self, path: &str, mut object: Value) {
        let mut inner = self.0.lock().unwrap();
        inner.0 += 1;
        object["metadata"]["resourceVersion"] = json!(inner.0.to_string());
        inner.1.insert(path.to_owned(), object);
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().1.get(path).cloned()
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap();
        change(&mut object);
        self.put(path, object);
    }

    fn patch(&self, path: &str, patch: &Value) -> Result<Value, (u16, String)> {
        let before = self.get(path).ok_or((404, "not found".to_owned()))?;
        let same = |field: &str| {
            let wanted = &patch["metadata"][field];
            wanted.is_null() || *wanted == before["metadata"][field]
        };
        if !same("resourceVersion") {
            return Err((409, "the object has been modified".to_owned()));
        }
        if !same("uid") {
            return Err((422, "metadata.uid: field is immutable".to_owned()));
        }
        let mut after = before.clone();
        merge(&mut after, patch);
        let begun = !before["status"]["startTime"].is_null();
        if begun && after["spec"]["template"] != before["spec"]["template"] {
            return Err((422, "spec.template: field is immutable".to_owned()));
        }
        self.put(path, after);
        Ok(self.get(path).unwrap())
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

async fn serve(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, Json<Value>) {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = uri.path().to_owned();
    let answer = match method {
        Method::GET => api.get(&path).ok_or((404, "not found".to_owned())),
        Method::PATCH => api.patch(&path, &body),
        Method::POST => {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            if api.get(&path).is_some() {
                Err((409, "exists".to_owned()))
            } else {
                api.put(&path, body);
                Ok(api.get(&path).unwrap())
            }
        }
        _ => {
            let removed = api.0.lock().unwrap().1.remove(&path);
            removed.ok_or((404, "not found".to_owned()))
        }
    };
    match answer {
        Ok(object) => (StatusCode::OK, Json(object)),
        Err((code, message)) => {
            let reason = if code == 404 { "NotFound" } else { "Refused" };
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                 "code": code, "reason": reason, "message": message });
            (StatusCode::from_u16(code).unwrap(), Json(status))
        }
    }
}

/// One resource that owns all Jobs.
struct Someone {
    restic_id: Mutex<String>,
    recorded: AtomicBool,
    /// The next look at it panics.
    poison: AtomicBool,
    /// Without a hub: the run as its policies make it now.
    own: Mutex<Option<RetentionRun>>,
    closed: Mutex<Option<Closed>>,
}

impl Owner for Someone {
    fn job_type(&self) -> &'static str {
        "retention"
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Retention
    }

    fn assignment(&self, _: &Key, _: &JobView) -> Option<Assignment> {
        assert!(!self.poison.swap(false, Ordering::Relaxed), "poisoned");
        Some(Assignment {
            owner: Key::new("ns", "p"),
            owner_uid: "p".to_owned(),
            repository: Key::new("ns", "r"),
            restic_id: Some(self.restic_id.lock().unwrap().clone()),
            exists: true,
        })
    }

    fn subject(&self, _: &Pinned) -> String {
        "retention ns/p".to_owned()
    }

    fn order(&self, _: &Pinned, _: &JobView, run: Option<RetentionRun>) -> Result<Order, String> {
        let run = run
            .or_else(|| self.own.lock().unwrap().clone())
            .unwrap_or_default();
        order(&run, run_hash(&run), &format!("{} policies", run.policies.len()))
    }

    fn closed(&self, _: &Pinned, _: jiff::Timestamp) -> Option<Closed> {
        self.closed.lock().unwrap().clone()
    }

    fn is_recomposed(&self) -> bool {
        self.own.lock().unwrap().is_some()
    }

    fn is_recorded(&self, _: &Pinned) -> bool {
        self.recorded.load(Ordering::Relaxed)
    }

    fn is_repeated(&self, _: &Pinned) -> bool {
        true
    }
}

struct Bench {
    api: Api,
    context: Arc<Context>,
    owner: Arc<Someone>,
    handle: KindHandle,
    /// Messages to the hub that nobody has looked at.
    said: Vec<Body>,
}

fn run(cluster: &str) -> RetentionRun {
    RetentionRun {
        restic_id: "one".to_owned(),
        clusters: vec![cluster.to_owned()],
        ..RetentionRun::default()
    }
}

impl Bench {
    async fn new() -> Bench {
        let bench = Bench::following().await;
        bench.handle.lead();
        bench
    }

    /// A replica that does not lead yet.
    async fn following() -> Bench {
        let api = Api::default();
        let router = axum::Router::new().fallback(serve).with_state(api.clone());
        let context = test_context_on(kube::Client::new(router, "ns"));
        let owner = Arc::new(Someone {
            restic_id: Mutex::new("one".to_owned()),
            recorded: AtomicBool::new(false),
            poison: AtomicBool::new(false),
            own: Mutex::default(),
            closed: Mutex::default(),
        });
        let operations = Operations::new(context.clone(), "system", vec![owner.clone()]);
        let supervisor = Supervisor {
            kind: Arc::new(operations),
            context: context.clone(),
        };
        let (actor, _) = Actor::spawn(None, supervisor, ()).await.unwrap();
        let controller = json!([{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "cron", "uid": "cron", "controller": true }]);
        let template = json!({ "metadata": {}, "spec": { "containers": [] } });
        api.put(CRON_JOB, json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": { "name": "cron", "namespace": "ns", "uid": "cron" },
            "spec": { "schedule": "@daily", "jobTemplate": { "spec": { "suspend": true, "template": template } } },
        }));
        api.put(JOB, json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": "first", "namespace": "ns", "uid": "first", "ownerReferences": controller,
                          "labels": { names::LABEL_TYPE: "retention", names::LABEL_RETENTION: "p" } },
            "spec": { "suspend": true, "template": template },
        }));
        let bench = Bench {
            api,
            context,
            owner,
            handle: KindHandle::new(actor),
            said: Vec::new(),
        };
        bench.context.leases.connected(true);
        bench.watch();
        bench
    }

    /// What the watches do.
    fn watch(&self) {
        let (jobs, key) = (&self.context.world.jobs, Key::new("ns", "first"));
        match self.api.get(JOB) {
            Some(job) => {
                let job: Job = serde_json::from_value(job).unwrap();
                jobs.put(key.clone(), Arc::new(JobView::of(&job)));
            }
            None => drop(jobs.remove(&key, None)),
        }
        let (pods, at) = (&self.context.world.pods, Key::new("ns", "pod"));
        match self.api.get(POD) {
            Some(pod) => {
                let pod: Pod = serde_json::from_value(pod).unwrap();
                pods.put(at, Arc::new(PodView::of(&pod)));
            }
            None => drop(pods.remove(&at, None)),
        }
        self.handle.poke(key, Cause::Related);
    }

    async fn until<R>(&mut self, what: &str, mut look: impl FnMut(&mut Bench) -> Option<R>) -> R {
        for _ in 0..2000 {
            self.said.extend(self.context.leases.take());
            if let Some(found) = look(self) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "{what} did not come; said: {:#?}; Job: {:#?}",
            self.said,
            self.api.get(JOB)
        );
    }

    /// Until the operation has asked for the lock.
    async fn asks(&mut self) {
        self.until("the question", |b| {
            let asked = b.said.iter().any(|body| matches!(body, Body::LeaseAsk(_)));
            asked.then_some(())
        })
        .await;
    }

    /// Until a renewal that was answered has reached the pod.
    async fn counts(&mut self) {
        self.until("the count", |b| {
            (b.api.get(POD)?["metadata"]["annotations"][names::ANNOTATION_RENEWALS] == "1").then_some(())
        })
        .await;
    }

    async fn renewal(&mut self) -> LeaseRenew {
        self.until("a renewal", |b| {
            let at = b
                .said
                .iter()
                .position(|body| matches!(body, Body::LeaseRenew(_)))?;
            match b.said.remove(at) {
                Body::LeaseRenew(renew) => Some(renew),
                _ => None,
            }
        })
        .await
    }

    fn released(&self) -> Option<LeaseRelease> {
        self.said.iter().find_map(|body| match body {
            Body::LeaseRelease(release) => Some(release.clone()),
            _ => None,
        })
    }

    fn deliver(&self, body: hub_message::Body) {
        self.context.leases.deliver(body);
    }

    fn answer(&self, renew: &LeaseRenew, run: Option<RetentionRun>) {
        self.deliver(hub_message::Body::LeaseRenewed(LeaseRenewed {
            operation: "first".to_owned(),
            token: renew.token,
            seq: renew.seq,
            restic_id: "one".to_owned(),
            run,
        }));
    }

    fn grant(&self, run: RetentionRun) {
        self.deliver(hub_message::Body::LeaseGrant(LeaseGrant {
            operation: "first".to_owned(),
            token: 5,
            ttl_ms: 300_000,
            renew_ms: 60_000,
            run: Some(run),
            restic_id: "one".to_owned(),
        }));
    }

    fn give_back(&self) {
        self.deliver(hub_message::Body::LeaseReleased(LeaseReleased {
            operation: "first".to_owned(),
            token: 5,
            restic_id: "one".to_owned(),
        }));
    }

    /// Until the Job is open, and its pod runs.
    async fn open(&mut self) {
        let annotations = self.open_job().await;
        self.put_pod(&annotations);
        self.watch();
    }

    /// Until the Job is open and started; the annotations of its pods.
    async fn open_job(&mut self) -> Value {
        self.until("the question", |b| {
            b.said.iter().find_map(|body| match body {
                Body::LeaseAsk(ask) => {
                    assert_eq!((ask.restic_id.as_str(), ask.seen_token), ("one", 0));
                    Some(())
                }
                _ => None,
            })
        })
        .await;
        self.grant(run("a"));
        let renew = self.renewal().await;
        assert_eq!(renew.run_hash, run_hash(&run("a")));
        self.answer(&renew, None);
        self.until("the open gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == false).then_some(())
        })
        .await;
        self.api.change(JOB, |job| {
            job["status"] = json!({ "startTime": "2026-11-25T00:00:00Z" })
        });
        self.api.get(JOB).unwrap()["spec"]["template"]["metadata"]["annotations"].clone()
    }

    fn put_pod(&self, annotations: &Value) {
        self.api.put(POD, json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "pod", "namespace": "ns", "uid": "pod", "annotations": annotations,
                          "labels": { names::LABEL_RETENTION: "p" },
                          "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "first", "uid": "first", "controller": true }] },
            "spec": { "nodeName": "n", "containers": [] },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }],
                        "containerStatuses": [container(&json!({ "running": {} }))] },
        }));
    }

    fn pod_ends(&self, message: &str) {
        self.api.change(POD, |pod| {
            let state = json!({ "terminated": { "exitCode": 0, "message": message, "finishedAt": "2026-11-25T00:01:00Z" } });
            pod["status"] = json!({ "phase": "Succeeded", "containerStatuses": [container(&state)] });
        });
        self.watch();
    }

    async fn until_left(&mut self) {
        self.until("the end", |b| {
            b.context.operations.of("p").is_empty().then_some(())
        })
        .await;
    }
}

fn container(state: &Value) -> Value {
    json!({ "name": "restic", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state })
}
