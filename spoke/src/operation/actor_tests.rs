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

#[tokio::test]
async fn a_job_is_pinned_opened_counted_recorded_and_only_then_released() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let pinned = bench.api.get(JOB).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(
        (
            &pinned[names::ANNOTATION_RESTIC_ID],
            &pinned[names::ANNOTATION_REPOSITORY]
        ),
        (&json!("one"), &json!("ns/r"))
    );
    // The policies have changed: the order goes with the renewal.
    let renew = bench.renewal().await;
    // The kubelet writes at the same moment.
    bench.api.change(POD, |pod| pod["status"]["message"] = json!("x"));
    bench.answer(&renew, Some(run("b")));
    bench
        .until("the count", |b| {
            let annotations = b.api.get(POD)?["metadata"]["annotations"].clone();
            let hash = hex::encode(run_hash(&run("b")));
            (annotations[names::ANNOTATION_RENEWALS] == "1").then(|| {
                assert_eq!(annotations[names::ANNOTATION_ORDER_HASH], hash);
            })
        })
        .await;
    bench.api.change(JOB, |job| {
        job["status"]["conditions"] = json!([{ "type": "Complete", "status": "True" }]);
    });
    bench.pod_ends(r#"{"result":"Applied","removed":3}"#);
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!((result.outcome.removed, result.token), (3, Some(5)));
    assert!(bench.released().is_none(), "its owner has not recorded it");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!(
        (release.token, release.restic_id.as_str(), release.policy.as_str()),
        (5, "one", "p")
    );
    assert_eq!(release.outcome.unwrap().result, "Applied");
    bench.give_back();
    bench.until_left().await;
    let annotations = bench.api.get(JOB).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(annotations[names::ANNOTATION_RELEASED], "5");
}

#[tokio::test]
async fn a_policy_that_means_another_repository_shuts_its_job_under_the_first_id_and_another_follows() {
    let mut bench = Bench::new().await;
    bench.open().await;
    "two".clone_into(&mut bench.owner.restic_id.lock().unwrap());
    bench.context.operations.wake("p");
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    bench.pod_ends(r#"{"result":"Interrupted","reason":"Stopped"}"#);
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(result.outcome.reason, "RepositoryChanged");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!((release.token, release.restic_id.as_str()), (5, "one"));
    for body in &bench.said {
        if let Body::LeaseRenew(renew) = body {
            assert_eq!(
                renew.restic_id, "one",
                "its token is never used for another repository"
            );
        }
    }
    bench.give_back();
    bench.until_left().await;
    assert!(bench.api.get(JOB).is_none(), "it can never be opened again");
    let next = format!(
        "/apis/batch/v1/namespaces/ns/jobs/cron-{}",
        names::short_hash(b"first")
    );
    assert_eq!(bench.api.get(&next).unwrap()["spec"]["suspend"], true);
}

/// A run that no Job can hold.
fn too_long() -> RetentionRun {
    let policy = |n| proto::v1::RetentionPolicySpec {
        source: format!("cluster-{n}/shop/nightly"),
        ..proto::v1::RetentionPolicySpec::default()
    };
    RetentionRun {
        policies: (0..10_000).map(policy).collect(),
        ..run("a")
    }
}

#[tokio::test]
async fn without_a_hub_policies_that_changed_since_the_grant_reach_the_pod_with_the_next_renewal() {
    let mut bench = Bench::new().await;
    *bench.owner.own.lock().unwrap() = Some(run("a"));
    bench.open().await;
    let renew = bench.renewal().await;
    *bench.owner.own.lock().unwrap() = Some(run("b"));
    bench.answer(&renew, None);
    let annotations = bench
        .until("the count", |b| {
            let annotations = b.api.get(POD)?["metadata"]["annotations"].clone();
            (annotations[names::ANNOTATION_RENEWALS] == "1").then_some(annotations)
        })
        .await;
    assert_eq!(
        annotations[names::ANNOTATION_ORDER_HASH],
        hex::encode(run_hash(&run("b")))
    );
}

/// A run that became too long after the Job was opened: `answer` is what the renewal brings.
async fn cannot_be_passed_on(mut bench: Bench, answer: Option<RetentionRun>) {
    let renew = bench.renewal().await;
    bench.answer(&renew, answer);
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    let annotations = bench.api.get(POD).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(annotations[names::ANNOTATION_RENEWALS], "0", "it removes nothing");
    bench.pod_ends("");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let release = bench.until("the release", |b| b.released()).await;
    let outcome = release.outcome.unwrap();
    assert_eq!(
        (outcome.result.as_str(), outcome.reason.as_str()),
        ("Interrupted", "RunNotUsable")
    );
    assert!(outcome.message.contains("10000 policies"), "{}", outcome.message);
}

#[tokio::test]
async fn a_run_that_cannot_be_passed_on_gives_the_lease_back_with_its_reason() {
    let mut bench = Bench::new().await;
    bench.open().await;
    cannot_be_passed_on(bench, Some(too_long())).await;
    let mut bench = Bench::new().await;
    *bench.owner.own.lock().unwrap() = Some(run("a"));
    bench.open().await;
    *bench.owner.own.lock().unwrap() = Some(too_long());
    cannot_be_passed_on(bench, None).await;
}

#[tokio::test]
async fn a_grant_whose_run_does_not_fit_into_a_job_is_given_back_and_says_why() {
    let mut bench = Bench::new().await;
    bench
        .until("the question", |b| {
            let asked = b.said.iter().any(|body| matches!(body, Body::LeaseAsk(_)));
            asked.then_some(())
        })
        .await;
    bench.grant(too_long());
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!(release.token, 5);
    bench.give_back();
    bench
        .until("the reason", |b| {
            let progress = b.context.operations.of("p").pop()?.progress;
            format!("{progress:?}").contains("10000 policies").then_some(())
        })
        .await;
    assert_eq!(bench.api.get(JOB).unwrap()["spec"]["suspend"], true);
}

#[tokio::test]
async fn a_finished_job_whose_result_is_recorded_after_its_release_stays() {
    let mut bench = Bench::following().await;
    bench.api.change(JOB, |job| {
        job["metadata"]["annotations"] = json!({
            names::ANNOTATION_RESTIC_ID: "one", names::ANNOTATION_REPOSITORY: "ns/r",
            names::ANNOTATION_OWNER_UID: "p", names::ANNOTATION_RELEASED: "5",
        });
        job["spec"]["suspend"] = json!(false);
        job["spec"]["template"]["metadata"]["annotations"] = json!({
            names::ANNOTATION_TOKEN: "5", names::ANNOTATION_LEASE_TTL: "300000",
            names::ANNOTATION_LEASE_RENEW: "60000",
        });
        job["status"] = json!({ "startTime": "2026-11-25T00:00:00Z",
                                "conditions": [{ "type": "Complete", "status": "True" }] });
    });
    bench.put_pod(&json!({}));
    bench.pod_ends(r#"{"result":"Applied","removed":3}"#);
    bench.handle.lead();
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(result.outcome.removed, 3);
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    bench.until_left().await;
    let job = bench.api.get(JOB).expect("the Job stays as history");
    assert_eq!(job["spec"]["suspend"], false);
}

/// The Job that follows one which has failed by itself with this message.
async fn follower(message: &str) -> Option<JobView> {
    let mut bench = Bench::new().await;
    bench.open().await;
    bench.api.change(JOB, |job| {
        job["status"]["conditions"] = json!([{ "type": "Failed", "status": "True" }]);
    });
    bench.pod_ends(message);
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    bench.context.operations.wake("p");
    bench.until("the release", |b| b.released()).await;
    bench.give_back();
    bench.until_left().await;
    let kept = bench.api.get(JOB).unwrap();
    assert_eq!(kept["metadata"]["annotations"][names::ANNOTATION_RELEASED], "5");
    let next = format!(
        "/apis/batch/v1/namespaces/ns/jobs/cron-{}",
        names::short_hash(b"first")
    );
    let next: Job = serde_json::from_value(bench.api.get(&next)?).unwrap();
    Some(JobView::of(&next))
}

#[tokio::test]
async fn a_run_that_met_the_lock_of_a_dead_one_gives_its_lease_back_and_is_tried_again_later() {
    let told = r#"{"result":"Failed","reason":"StaleLock","message":"x"}"#;
    let next = follower(told).await.unwrap();
    let pause = next.not_before.unwrap() - jiff::Timestamp::now();
    let seconds = pause.total(jiff::Unit::Second).unwrap();
    assert!((2000.0..=2400.0).contains(&seconds), "{pause}");
}

#[tokio::test]
async fn a_run_whose_restic_left_its_lock_is_followed_when_that_lock_should_be_gone() {
    let told = r#"{"result":"Interrupted","reason":"LeaseLost","message":"x","lockLeft":true}"#;
    let next = follower(told).await.unwrap();
    let pause = next.not_before.unwrap() - jiff::Timestamp::now();
    assert!(pause.total(jiff::Unit::Second).unwrap() > 2000.0, "{pause}");
    assert_eq!(next.follows.as_deref(), Some("StaleLock"));
}

#[tokio::test]
async fn a_job_that_asks_later_says_what_for() {
    let mut bench = Bench::new().await;
    for (follows, reason, part) in [
        (Some("StaleLock"), "RepositoryLocked", "removed first"),
        (Some("PodNotStarted"), "PodNeverStarted", "did not start"),
        // Made by an earlier version.
        (None, "WaitingForLock", "did not do its work"),
    ] {
        bench.api.change(JOB, |job| {
            let later = jiff::Timestamp::now().as_second() + 600;
            job["metadata"]["annotations"][names::ANNOTATION_NOT_BEFORE] = json!(later.to_string());
            job["metadata"]["annotations"][names::ANNOTATION_FOLLOWS] = json!(follows.unwrap_or_default());
        });
        bench.watch();
        bench
            .until(reason, |b| match b.context.operations.of("p").pop()?.progress {
                Progress::Waiting {
                    reason: told,
                    message,
                } => (told == reason && message.contains(part)).then_some(()),
                _ => None,
            })
            .await;
    }
}

#[tokio::test]
async fn a_job_deleted_after_its_pod_had_ended_keeps_the_pods_report() {
    let mut bench = Bench::new().await;
    bench.open().await;
    bench.pod_ends(r#"{"result":"Applied","plan":"hash","removed":3}"#);
    bench.api.0.lock().unwrap().1.remove(JOB);
    bench.watch();
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(
        (result.outcome.result.as_str(), result.outcome.removed),
        ("Applied", 3)
    );
}

#[tokio::test]
async fn a_pod_that_lost_its_lease_or_was_told_to_end_is_followed_and_other_failures_are_not() {
    let told = r#"{"result":"Interrupted","reason":"LeaseLost","message":"x"}"#;
    assert_eq!(follower(told).await.map(|next| next.not_before), Some(None));
    let told = r#"{"result":"Interrupted","reason":"Stopped","message":"x"}"#;
    assert_eq!(follower(told).await.map(|next| next.not_before), Some(None));
    let told = r#"{"result":"Failed","reason":"RepositoryLocked","message":"x"}"#;
    assert_eq!(follower(told).await, None);
}

#[tokio::test]
async fn a_lock_that_a_person_takes_back_is_followed_by_no_job() {
    let mut bench = Bench::new().await;
    bench.open().await;
    bench.deliver(hub_message::Body::LeaseRevoke(LeaseRevoke {
        operation: "first".to_owned(),
        token: 5,
        reason: "the lease was taken back by a person".to_owned(),
        restic_id: "one".to_owned(),
        by_person: true,
    }));
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    bench.pod_ends("");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(
        (result.outcome.result.as_str(), result.outcome.reason.as_str()),
        ("Interrupted", "TakenBack")
    );
    bench.context.operations.wake("p");
    bench.until("the release", |b| b.released()).await;
    bench.give_back();
    bench.until_left().await;
    let jobs = bench
        .api
        .0
        .lock()
        .unwrap()
        .1
        .keys()
        .filter(|path| path.contains("/jobs/"))
        .count();
    assert_eq!(jobs, 0);
}

#[tokio::test]
async fn a_job_that_the_api_server_refuses_to_open_gives_its_lock_back_and_says_so() {
    let mut bench = Bench::new().await;
    bench
        .until("the question", |b| {
            let asked = b.said.iter().any(|body| matches!(body, Body::LeaseAsk(_)));
            asked.then_some(())
        })
        .await;
    // Started and suspended again behind the operator's back: its template is fixed.
    bench.api.change(JOB, |job| {
        job["status"] = json!({ "startTime": "2026-11-25T00:00:00Z" })
    });
    bench.grant(run("a"));
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    bench.until("the release", |b| b.released()).await;
    bench.give_back();
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(result.outcome.reason, "OpenRefused", "{result:?}");
    assert!(result.outcome.message.contains("immutable"), "{result:?}");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    bench.until_left().await;
    assert!(bench.api.get(JOB).is_none());
}

#[tokio::test]
async fn an_actor_that_panics_and_a_replica_that_leads_again_adopt_the_open_job() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let first = bench.renewal().await;
    bench.owner.poison.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let adopted = bench.renewal().await;
    assert!(
        adopted.token == 5 && adopted.seq > first.seq,
        "under the same token, by a new holder"
    );
    // a leads, b leads, a leads again.
    bench.handle.follow().await;
    bench.context.leases.reset();
    bench.said.clear();
    bench.handle.lead();
    let again = bench.renewal().await;
    assert!(again.token == 5 && again.seq > adopted.seq);
    assert_eq!(
        bench.api.get(JOB).unwrap()["spec"]["suspend"],
        false,
        "never shut"
    );
    bench.answer(&again, None);
    bench
        .until("the count", |b| {
            (b.api.get(POD)?["metadata"]["annotations"][names::ANNOTATION_RENEWALS] == "1").then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_job_deleted_beside_its_pod_is_released_when_the_pod_has_ended_and_not_if_its_end_was_not_seen() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    bench
        .until("the count", |b| {
            (b.api.get(POD)?["metadata"]["annotations"][names::ANNOTATION_RENEWALS] == "1").then_some(())
        })
        .await;
    bench.owner.recorded.store(true, Ordering::Relaxed);
    // delete --cascade=orphan: the pod loses its owner and works on.
    bench
        .api
        .change(POD, |pod| pod["metadata"]["ownerReferences"] = json!([]));
    bench.watch();
    bench.api.0.lock().unwrap().1.remove(JOB);
    bench.watch();
    bench.until_left().await;
    assert!(bench.released().is_none(), "its lease runs out at the grantor");
}

#[tokio::test]
async fn while_pods_are_not_watched_a_deleted_job_gives_nothing_back() {
    let mut bench = Bench::new().await;
    let annotations = bench.open_job().await;
    bench.owner.recorded.store(true, Ordering::Relaxed);
    // Its pod is made while the watch of pods has failed.
    let delivery = |change: Delivery| bench.context.world.pods.note(|pods| *pods = change);
    delivery(Delivery::default());
    bench.api.0.lock().unwrap().1.remove(JOB);
    bench.watch();
    let turn = bench.context.clock.since_boot();
    bench
        .until("some looks later", |b| {
            b.watch();
            (b.context.clock.since_boot() > turn + 300).then_some(())
        })
        .await;
    assert!(bench.released().is_none(), "a pod may be at work");
    bench.put_pod(&annotations);
    bench.watch();
    bench
        .context
        .world
        .pods
        .note(|pods| *pods = Delivery::complete(jiff::Timestamp::MIN));
    bench.pod_ends("");
    bench.until("the release", |b| b.released()).await;
}

#[tokio::test]
async fn a_lease_is_taken_and_renewed_while_ordinary_turns_hold_every_permit() {
    let mut bench = Bench::new().await;
    let context = bench.context.clone();
    let all = u32::try_from(crate::context::TURNS).unwrap();
    let _turns = context.turns.acquire_many(all).await.unwrap();
    bench.open().await;
    bench.renewal().await;
}

#[tokio::test]
async fn a_job_that_fails_after_its_pod_was_lost_gives_nothing_back_however_often_it_is_taken_up() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    bench
        .until("the count", |b| {
            (b.api.get(POD)?["metadata"]["annotations"][names::ANNOTATION_RENEWALS] == "1").then_some(())
        })
        .await;
    // Its node is deleted, and with it the pod's object.
    bench.watch();
    bench.api.0.lock().unwrap().1.remove(POD);
    bench.watch();
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    bench.api.change(JOB, |job| {
        job["status"]["conditions"] =
            json!([{ "type": "Failed", "status": "True", "lastTransitionTime": "2026-11-25T00:00:00Z" }]);
    });
    bench.watch();
    let late = bench.api.get(JOB).unwrap();
    bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    bench.until_left().await;
    assert!(bench.api.get(JOB).is_none(), "it can never be opened again");
    // Another leader sees the Job, whose deletion has not come through the watch yet, and knows nothing of the pod.
    bench.handle.follow().await;
    bench.api.put(JOB, late);
    bench.watch();
    bench.handle.lead();
    bench
        .until("the Job is deleted again", |b| {
            b.api.get(JOB).is_none().then_some(())
        })
        .await;
    assert!(bench.released().is_none(), "its lease runs out at the grantor");
}

fn closed() -> Closed {
    Closed {
        text: "outside of the window, which opens tomorrow".to_owned(),
        again: jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24),
    }
}

fn waits_for(b: &Bench, reason: &str) -> Option<String> {
    match b.context.operations.of("p").pop()?.progress {
        Progress::Waiting {
            reason: told,
            message,
        } => (told == reason).then_some(message),
        _ => None,
    }
}

#[tokio::test]
async fn outside_of_its_window_a_job_asks_for_nothing_and_says_until_when() {
    let mut bench = Bench::following().await;
    *bench.owner.closed.lock().unwrap() = Some(closed());
    bench.handle.lead();
    bench.watch();
    let message = bench
        .until("the reason", |b| waits_for(b, "MaintenanceClosed"))
        .await;
    assert!(message.contains("opens tomorrow"), "{message}");
    for _ in 0..20 {
        bench.watch();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.said.extend(bench.context.leases.take());
    let asked = |b: &Bench| b.said.iter().any(|body| matches!(body, Body::LeaseAsk(_)));
    assert!(!asked(&bench), "{:?}", bench.said);
    *bench.owner.closed.lock().unwrap() = None;
    bench.watch();
    bench.open().await;
    // What has begun goes on after the window.
    *bench.owner.closed.lock().unwrap() = Some(closed());
    bench.watch();
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    assert_eq!(bench.api.get(JOB).unwrap()["spec"]["suspend"], false);
}

#[tokio::test]
async fn a_grant_that_comes_after_the_window_is_given_back() {
    let mut bench = Bench::new().await;
    bench
        .until("the question", |b| {
            b.said
                .iter()
                .any(|body| matches!(body, Body::LeaseAsk(_)))
                .then_some(())
        })
        .await;
    *bench.owner.closed.lock().unwrap() = Some(closed());
    bench.grant(run("a"));
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!(release.token, 5);
    bench.give_back();
    bench
        .until("the reason", |b| waits_for(b, "MaintenanceClosed"))
        .await;
    assert_eq!(bench.api.get(JOB).unwrap()["spec"]["suspend"], true);
}
