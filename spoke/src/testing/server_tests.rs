//! The in-memory server behaves as Kubernetes does, where the product relies on it.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, WatchEvent};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{Action, ApiServer, End, Fault};

fn map(name: &str, data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "default" }, "data": data })
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> u16 {
    match result.unwrap_err() {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn writes_raise_versions_and_are_refused_on_old_ones() {
    let server = ApiServer::new();
    let api = maps(&server.client());
    let made: ConfigMap = serde_json::from_value(map("a", json!({ "k": "1" }))).unwrap();
    let made = api.create(&PostParams::default(), &made).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(code(api.create(&PostParams::default(), &made.clone()).await), 409);
    let mut next = made.clone();
    next.data
        .get_or_insert_default()
        .insert("k".to_owned(), "2".to_owned());
    let stored = api.replace("a", &PostParams::default(), &next).await.unwrap();
    assert_ne!(stored.resource_version(), made.resource_version());
    assert_eq!(code(api.replace("a", &PostParams::default(), &next).await), 409);
    let same = api.replace("a", &PostParams::default(), &stored).await.unwrap();
    assert_eq!(
        same.resource_version(),
        stored.resource_version(),
        "nothing changed"
    );
    assert_eq!(code(api.get("b").await), 404);
    let elsewhere = Api::<ConfigMap>::namespaced(server.client(), "nowhere");
    let stray: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "x" } })).unwrap();
    assert_eq!(code(elsewhere.create(&PostParams::default(), &stray).await), 404);
}

#[tokio::test(start_paused = true)]
async fn patches_merge_and_apply_owns_what_it_names() {
    let server = ApiServer::new();
    let api = maps(&server.client());
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    let apply = |data| Patch::Apply(map("a", data));
    api.patch("a", &one, &apply(json!({ "k": "1", "l": "1" })))
        .await
        .unwrap();
    assert_eq!(code(api.patch("a", &two, &apply(json!({ "k": "2" }))).await), 409);
    api.patch("a", &two.clone().force(), &apply(json!({ "k": "2" })))
        .await
        .unwrap();
    let left = api.patch("a", &one, &apply(json!({ "m": "1" }))).await.unwrap();
    let data = left.data.clone().unwrap_or_default();
    assert_eq!(
        data.keys().collect::<Vec<_>>(),
        ["k", "m"],
        "l was no longer applied, k is another manager's"
    );
    let again = api.patch("a", &one, &apply(json!({ "m": "1" }))).await.unwrap();
    assert_eq!(again.resource_version(), left.resource_version(), "no drift");
    let old = json!({ "metadata": { "resourceVersion": "1" }, "data": { "m": "2" } });
    assert_eq!(
        code(api.patch("a", &PatchParams::default(), &Patch::Merge(old)).await),
        409
    );
    let merged = api
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({ "data": { "k": null } })),
        )
        .await;
    assert!(!merged.unwrap().data.unwrap_or_default().contains_key("k"));
    let patch: json_patch::Patch =
        serde_json::from_value(json!([{ "op": "test", "path": "/data/m", "value": "9" }])).unwrap();
    assert_eq!(
        code(
            api.patch("a", &PatchParams::default(), &Patch::Json::<()>(patch))
                .await
        ),
        422
    );
    let gone = Patch::Apply(
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "b", "uid": "u" } }),
    );
    assert_eq!(
        code(api.patch("b", &one, &gone).await),
        409,
        "not made again for a uid that is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_status_and_the_rest_are_written_apart() {
    let server = ApiServer::new();
    let api: Api<Job> = Api::namespaced(server.client(), "default");
    let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "j" },
        "spec": { "suspend": true, "template": { "spec": { "containers": [] } } }, "status": { "active": 7 } });
    let job: Job = serde_json::from_value(job).unwrap();
    let made = api.create(&PostParams::default(), &job).await.unwrap();
    assert_eq!(made.status.clone().and_then(|s| s.active), None);
    let both = json!({ "spec": { "suspend": false }, "status": { "active": 1 } });
    let status = api
        .patch_status("j", &PatchParams::default(), &Patch::Merge(&both))
        .await
        .unwrap();
    assert_eq!(status.status.clone().and_then(|s| s.active), Some(1));
    assert_eq!(status.spec.as_ref().and_then(|s| s.suspend), Some(true));
    assert_eq!(status.metadata.generation, Some(1));
    let main = api
        .patch("j", &PatchParams::default(), &Patch::Merge(&both))
        .await
        .unwrap();
    assert_eq!(main.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn deletion_waits_for_finalizers_and_takes_what_was_owned() {
    let server = ApiServer::new();
    let api = maps(&server.client());
    let mut parent = map("parent", json!({}));
    parent["metadata"]["finalizers"] = json!(["test/hold"]);
    let uid = server.put(&parent)["metadata"]["uid"].clone();
    let mut child = map("child", json!({}));
    child["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": uid }]);
    server.put(&child);
    let other = DeleteParams::background().preconditions(Preconditions {
        uid: Some("other".to_owned()),
        resource_version: None,
    });
    assert_eq!(code(api.delete("parent", &other).await), 409);
    let marked = api
        .delete("parent", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());
    assert!(server.get::<ConfigMap>("default", "child").is_some());
    let release = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
    api.patch("parent", &PatchParams::default(), &release)
        .await
        .unwrap();
    assert!(server.all::<ConfigMap>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_of_what_is_selected() {
    let server = ApiServer::new();
    for n in 0..5 {
        let mut object = map(&format!("m{n}"), json!({}));
        object["metadata"]["labels"] = json!({ "app": if n == 3 { "b" } else { "a" } });
        server.put(&object);
    }
    let api: Api<ConfigMap> = Api::all(server.client());
    let all = ListParams::default().labels("app=a").limit(3);
    let first = api.list(&all).await.unwrap();
    let token = first
        .metadata
        .continue_
        .clone()
        .filter(|t| !t.is_empty())
        .unwrap();
    let second = api.list(&all.clone().continue_token(&token)).await.unwrap();
    let names =
        |list: &kube::core::ObjectList<ConfigMap>| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    assert_eq!(
        (names(&first), names(&second)),
        (vec!["m0".into(), "m1".into(), "m2".into()], vec!["m4".into()])
    );
    server.compact();
    server.put(&map("new", json!({})));
    server.compact();
    assert_eq!(code(api.list(&all.continue_token(&token)).await), 410);
    assert_eq!(
        api.list(&ListParams::default().fields("metadata.name=m3"))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_follows_selected_objects_and_ends_with_410_on_old_versions() {
    let server = ApiServer::new();
    let secret = |labels: Value| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s", "namespace": "default", "labels": labels } });
    let api: Api<Secret> = Api::all(server.client());
    let watch = kube::api::WatchParams::default().labels("app=a").timeout(100);
    let mut events = api.watch(&watch, "0").await.unwrap().boxed();
    server.put(&secret(json!({ "app": "a" })));
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
    server.put(&secret(json!({ "app": "a", "x": "y" })));
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Modified(_)))));
    server.put(&secret(json!({ "app": "b" })));
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Deleted(_)))));
    assert!(
        matches!(events.next().await, Some(Ok(WatchEvent::Bookmark(_)))),
        "after a minute"
    );
    assert!(events.next().await.is_none(), "its time is over");
    server.compact();
    let mut old = api.watch(&watch, "1").await.unwrap().boxed();
    assert!(matches!(old.next().await, Some(Ok(WatchEvent::Error(e))) if e.code == 410));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_survives_cut_connections_and_lost_history() {
    let server = ApiServer::new();
    server.put(&map("a", json!({})));
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::all(server.client());
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    assert!(matches!(events.next().await, Some(Ok(Event::Init))));
    assert!(matches!(events.next().await, Some(Ok(Event::InitApply(object))) if object.name_any() == "a"));
    assert!(matches!(events.next().await, Some(Ok(Event::InitDone))));
    server.put(&map("b", json!({})));
    assert!(matches!(events.next().await, Some(Ok(Event::Apply(object))) if object.name_any() == "b"));
    // What follows is no longer in the history when the watch begins again.
    server.cut_watches();
    server.put(&map("c", json!({})));
    server.compact();
    let mut names = Vec::new();
    for _ in 0..10 {
        if let Some(Ok(Event::InitApply(object))) = events.next().await {
            names.push(object.name_any());
        }
        if names.len() == 3 {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    let verbs: Vec<_> = server.requests().iter().map(|r| r.verb).collect();
    assert_eq!(verbs, ["list", "watch", "watch", "list"]);
}

#[tokio::test(start_paused = true)]
async fn requests_fail_by_script_and_are_logged() {
    let server = ApiServer::new();
    let api = maps(&server.client());
    server.put(&map("a", json!({})));
    server.fault(
        Fault::new(Action::Refuse(403, "no".to_owned()))
            .on("get", "configmaps")
            .after(1)
            .times(1),
    );
    assert!(api.get("a").await.is_ok());
    assert_eq!(code(api.get("a").await), 403);
    assert!(api.get("a").await.is_ok());
    server.fault(Fault::new(Action::LoseAnswer).on("patch", "configmaps").times(1));
    let change = Patch::Merge(json!({ "data": { "k": "v" } }));
    let lost = api.patch("a", &PatchParams::default(), &change).await;
    assert!(matches!(lost, Err(kube::Error::Service(_))));
    assert!(
        server.get::<ConfigMap>("default", "a").unwrap().data.is_some(),
        "it was carried out"
    );
    server.fault(Fault::new(Action::Hang).named("a").times(1));
    assert!(
        tokio::time::timeout(Duration::from_secs(60), api.get("a"))
            .await
            .is_err()
    );
    server.away(Duration::from_secs(60));
    assert!(api.get("a").await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(api.get("a").await.is_ok());
    let log: Vec<_> = server.requests().iter().map(|r| (r.verb, r.code)).collect();
    let get = |code| ("get", code);
    assert_eq!(
        log,
        [
            get(Some(200)),
            get(Some(403)),
            get(Some(200)),
            ("patch", None),
            get(None),
            get(None),
            get(Some(200))
        ]
    );
    assert_eq!(server.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn jobs_get_pods_run_and_end() {
    let server = ApiServer::new();
    let template = json!({ "metadata": { "labels": { "l": "1" } }, "spec": { "containers": [{ "name": "restic", "image": "i" }] } });
    server.put(&json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "c", "namespace": "default" },
        "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": { "suspend": true, "template": template } } } }));
    let job = server.fire("default", "c");
    assert!(server.settle_jobs().is_empty(), "suspended");
    server.edit::<Job>("default", &job, |job| job["spec"]["suspend"] = json!(false));
    let [(namespace, pod)] = &server.settle_jobs()[..] else {
        panic!("one pod")
    };
    server.run_pod(namespace, pod);
    server.end_pod(namespace, pod, &End::success("{}"));
    let pod = server.get::<Pod>(namespace, pod).unwrap();
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Succeeded"));
    assert!(
        server
            .get::<Job>("default", &job)
            .unwrap()
            .status
            .unwrap()
            .completion_time
            .is_some()
    );
    assert!(server.settle_jobs().is_empty(), "it has ended");
    let leases: Api<Lease> = Api::namespaced(server.client(), "default");
    assert!(
        leases
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(server.client().apiserver_version().await.unwrap().minor, "34");
}
