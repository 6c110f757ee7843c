//! The intake: watches that fail, hang or are behind, under a whole spoke.

use std::sync::Arc;
use std::time::Duration;

use crds::{ResticBackup, names};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::restic::MemoryRestic;
use super::shell_tests::{APPLIED, STORED, end_pods, lock_holder, open_job, settled, start_pods};
use super::spoke::{SHOP, Spoke, backup, furnish, policy};
use super::{Action, ApiServer, End, Fault};

const MINUTE: Duration = Duration::from_secs(60);

async fn spoke_with_backup(api: &ApiServer) -> Spoke {
    furnish(api);
    backup(api, "orders");
    let spoke = Spoke::start(api, &Arc::new(MemoryRestic::default())).await;
    settled(api, "orders").await;
    spoke
}

fn status(api: &ApiServer) -> Value {
    api.json::<ResticBackup>(SHOP, "orders")["status"].clone()
}

async fn recorded(api: &ApiServer) -> Value {
    api.until("the run is recorded", |api| {
        let run = status(api)["lastBackup"].clone();
        run["result"].is_string().then_some(run)
    })
    .await
}

/// Every watch ends and has to list anew.
fn expire_watches(api: &ApiServer) {
    api.namespace("newer-than-every-watch");
    api.compact();
    api.cut_watches();
}

/// The lists of pods, ours and those of applications, take an hour.
fn hang_pods(api: &ApiServer) {
    api.fault(Fault::new(Action::Delay(60 * MINUTE)).on("list", "pods").times(2));
    expire_watches(api);
}

#[tokio::test(start_paused = true)]
async fn while_the_list_of_pods_hangs_a_run_is_not_concluded() {
    let api = ApiServer::new();
    let spoke = spoke_with_backup(&api).await;
    api.fire(SHOP, "resticbackup-orders");
    start_pods(&api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    hang_pods(&api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    end_pods(&api, &End::success(STORED));
    tokio::time::sleep(50 * MINUTE).await;
    assert_eq!(status(&api)["lastBackup"], Value::Null);
    let run = recorded(&api).await;
    assert_eq!(
        (&run["result"], &run["snapshotID"]),
        (&"Succeeded".into(), &"abc".into())
    );
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_list_of_pods_hangs_no_job_is_said_to_have_no_pod() {
    let api = ApiServer::new();
    let spoke = spoke_with_backup(&api).await;
    hang_pods(&api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    api.fire(SHOP, "resticbackup-orders");
    start_pods(&api);
    let waiting = |api: &ApiServer| {
        let conditions = status(api)["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .into_iter()
            .any(|c| c["type"] == "Waiting" && c["status"] == "True")
    };
    tokio::time::sleep(50 * MINUTE).await;
    assert!(!waiting(&api), "{}", status(&api));
    assert_eq!(status(&api)["active"].as_array().map(Vec::len), Some(1));
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_list_of_pods_hangs_the_lock_of_an_ended_job_is_not_free() {
    let api = ApiServer::new();
    furnish(&api);
    policy(&api, "nightly");
    let spoke = Spoke::start(&api, &Arc::new(MemoryRestic::default())).await;
    let cron_job = "globalretention-nightly";
    api.until("the CronJob is made", |api| {
        api.get::<k8s_openapi::api::batch::v1::CronJob>(SHOP, cron_job)
    })
    .await;
    let first = api.fire(SHOP, cron_job);
    api.until("the gate opens", |api| open_job(api, &first)).await;
    start_pods(&api);
    end_pods(&api, &End::success(APPLIED));
    api.until("the lock is given back", |api| {
        lock_holder(api).is_none().then_some(())
    })
    .await;
    let leases = api.all::<Lease>();
    let lock = leases
        .iter()
        .find(|lease| lease.name_any().starts_with("fleet-lock"));
    api.edit::<Lease>("kube-system", &lock.unwrap().name_any(), |lease| {
        lease["spec"]["holderIdentity"] = "job-that-is-not-there".into();
    });
    hang_pods(&api);
    // Jobs are named by the minute.
    tokio::time::sleep(2 * MINUTE).await;
    let second = api.fire(SHOP, cron_job);
    tokio::time::sleep(50 * MINUTE).await;
    assert_eq!(lock_holder(&api).as_deref(), Some("job-that-is-not-there"));
    api.until("the gate opens once pods are known", |api| open_job(api, &second))
        .await;
    spoke.stop().await;
}

/// Lists of a resource within ten minutes in which all fail.
async fn lists_in_ten_minutes(resource: &str, code: u16) -> usize {
    let api = ApiServer::new();
    let spoke = spoke_with_backup(&api).await;
    tokio::time::sleep(MINUTE).await;
    api.fault(Fault::new(Action::Refuse(code, "no".to_owned())).on("list", resource));
    api.forget_requests();
    expire_watches(&api);
    tokio::time::sleep(10 * MINUTE).await;
    let requests = api.requests();
    api.heal();
    spoke.stop().await;
    requests
        .iter()
        .filter(|r| r.verb == "list" && r.resource == resource)
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_is_tried_again_at_growing_intervals() {
    for code in [403, 429, 500] {
        for resource in ["configmaps", "secrets", "resticbackups"] {
            let lists = lists_in_ten_minutes(resource, code).await;
            assert!((5..20).contains(&lists), "{resource} {code}: {lists}");
        }
        // Two watches: ours, and those of applications.
        let lists = lists_in_ten_minutes("pods", code).await;
        assert!((10..40).contains(&lists), "pods {code}: {lists}");
        // Three watches, one for each kind of object that Events are about.
        let lists = lists_in_ten_minutes("events", code).await;
        assert!((15..60).contains(&lists), "events {code}: {lists}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_pod_that_is_deleted_after_its_jobs_end_is_kept_until_it_is_recorded() {
    let api = ApiServer::new();
    let spoke = spoke_with_backup(&api).await;
    api.fire(SHOP, "resticbackup-orders");
    start_pods(&api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let refuse = Fault::new(Action::Refuse(500, "no".to_owned()));
    api.fault(refuse.on("apply", "resticbackups/status"));
    end_pods(&api, &End::success(STORED));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for pod in api.all::<Pod>() {
        api.remove_pod(SHOP, &pod.name_any());
    }
    tokio::time::sleep(MINUTE).await;
    assert_eq!(status(&api)["lastBackup"], Value::Null);
    api.heal();
    let run = recorded(&api).await;
    assert_eq!(
        (&run["result"], &run["snapshotID"]),
        (&"Succeeded".into(), &"abc".into())
    );
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_because_its_result_is_recorded_is_not_kept() {
    let api = ApiServer::new();
    let spoke = spoke_with_backup(&api).await;
    let job = api.fire(SHOP, "resticbackup-orders");
    start_pods(&api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    end_pods(&api, &End::success(STORED));
    recorded(&api).await;
    api.until("the pod is deleted", |api| {
        api.all::<Pod>()
            .iter()
            .all(|p| p.metadata.deletion_timestamp.is_some())
            .then_some(())
    })
    .await;
    for pod in api.all::<Pod>() {
        api.remove_pod(SHOP, &pod.name_any());
    }
    tokio::time::sleep(MINUTE).await;
    let job = api.get::<k8s_openapi::api::batch::v1::Job>(SHOP, &job).unwrap();
    assert!(spoke.context.world.last_seen.of(&job.uid().unwrap()).is_empty());
    spoke.stop().await;
}

const OBJECTS: usize = 10_000;

/// Time as it passes: without a pause of a timer for each object it takes about a second.
#[tokio::test]
#[ignore = "a measurement"]
async fn ten_thousand_objects_are_listed_without_a_timer_for_each() {
    let api = ApiServer::new();
    api.namespace(SHOP);
    for n in 0..OBJECTS {
        let labels = json!({ names::LABEL_APP: names::APP });
        api.put(&json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": { "name": format!("c{n}"), "namespace": SHOP, "labels": labels },
            "spec": { "schedule": "@daily", "jobTemplate": {} },
        }));
    }
    let start = tokio::time::Instant::now();
    let spoke = Spoke::start(&api, &Arc::new(MemoryRestic::default())).await;
    api.until("every type is listed", |_| {
        spoke.health.unwell().is_empty().then_some(())
    })
    .await;
    let elapsed = start.elapsed();
    assert_eq!(spoke.context.world.cron_jobs.len(), OBJECTS);
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
    spoke.stop().await;
}

/// A ResticBackup that nobody but an operator of that namespace may touch.
fn elsewhere(api: &ApiServer) {
    api.namespace("elsewhere");
    let mut other = api.json::<ResticBackup>(SHOP, "orders");
    other["metadata"] = json!({ "name": "orders", "namespace": "elsewhere" });
    api.put(&other);
}

async fn spoke_of(api: &ApiServer, namespaces: &str) -> Spoke {
    furnish(api);
    backup(api, "orders");
    elsewhere(api);
    let arguments = ["--leader-elect", "false", "--namespaces", namespaces];
    Spoke::start_as("", api, &Arc::new(MemoryRestic::default()), &arguments).await
}

#[tokio::test(start_paused = true)]
async fn an_operator_of_some_namespaces_asks_for_nothing_outside_of_them() {
    let api = ApiServer::new();
    let spoke = spoke_of(&api, "shop,till").await;
    settled(&api, "orders").await;
    tokio::time::sleep(5 * MINUTE).await;
    let own = ["shop", "till", "kube-system"];
    let outside: Vec<_> = api
        .requests()
        .into_iter()
        .filter(|r| {
            r.resource != "namespaces" && !own.contains(&r.namespace.as_str()) && !r.resource.is_empty()
        })
        .collect();
    assert!(outside.is_empty(), "{outside:#?}");
    assert_eq!(
        api.json::<ResticBackup>("elsewhere", "orders")["status"],
        Value::Null
    );
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_lists_anew_takes_nothing_from_others() {
    let api = ApiServer::new();
    let spoke = spoke_of(&api, "elsewhere,shop").await;
    settled(&api, "orders").await;
    api.fault(
        Fault::new(Action::Delay(60 * MINUTE))
            .on("list", "resticbackups")
            .times(1),
    );
    expire_watches(&api);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(spoke.context.world.backups.len(), 2);
    api.delete::<ResticBackup>("elsewhere", "orders");
    tokio::time::sleep(70 * MINUTE).await;
    assert_eq!(spoke.context.world.backups.len(), 1, "the other is still there");
    spoke.stop().await;
}
