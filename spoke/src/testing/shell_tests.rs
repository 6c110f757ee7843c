//! The shell: a whole spoke against an API server in memory, with time that passes at once.

use std::sync::Arc;
use std::time::Duration;

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use serde_json::json;

use super::restic::MemoryRestic;
use super::spoke::{SHOP, Spoke, backup, furnish, policy, restore};
use super::{Action, ApiServer, End, Fault};

const HOUR: Duration = Duration::from_secs(3600);

fn ready(object: &serde_json::Value) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
    let text = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason")))
}

pub(super) async fn settled(api: &ApiServer, name: &str) {
    api.until(&format!("backup {name} is ready"), |api| {
        ready(&api.json::<ResticBackup>(SHOP, name)).filter(|(status, _)| status == "True")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_changes_and_not_one_request_is_sent_for_an_hour() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    backup(&api, "orders");
    let spoke = Spoke::start(&api, &restic).await;
    settled(&api, "orders").await;
    assert!(api.get::<CronJob>(SHOP, "resticbackup-orders").is_some());
    assert!(ready(&api.json::<ResticRepository>(SHOP, "nas")).is_some());
    tokio::time::sleep(Duration::from_secs(60)).await;
    api.forget_requests();
    tokio::time::sleep(HOUR - Duration::from_secs(120)).await;
    let requests: Vec<_> = api.requests().into_iter().filter(|r| r.verb != "watch").collect();
    assert!(requests.is_empty(), "{requests:#?}");
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_writes_nothing() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    backup(&api, "orders");
    let spoke = Spoke::start(&api, &restic).await;
    settled(&api, "orders").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    spoke.stop().await;
    api.forget_requests();
    let spoke = Spoke::start(&api, &restic).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(api.writes(), []);
    assert!(api.requests().iter().any(|r| r.verb == "list"));
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn three_crashes_are_reported_and_a_neighbour_is_unharmed() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    let poison = Fault::new(Action::Panic)
        .on("apply", "serviceaccounts")
        .named("resticbackup-poison");
    api.fault(poison);
    backup(&api, "orders");
    backup(&api, "poison");
    let spoke = Spoke::start(&api, &restic).await;
    settled(&api, "orders").await;
    let reason = api
        .until("three crashes are reported", |api| {
            ready(&api.json::<ResticBackup>(SHOP, "poison")).filter(|(_, reason)| reason == "Crashed")
        })
        .await;
    assert_eq!(reason.0, "False");
    let attempts: Vec<_> = api
        .requests()
        .into_iter()
        .filter(|r| r.name == "resticbackup-poison" && r.verb == "apply")
        .map(|r| r.at)
        .collect();
    assert_eq!(attempts.len(), 3);
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses[0] >= Duration::from_secs(1) && pauses[1] >= Duration::from_secs(2),
        "{pauses:?}"
    );
    api.heal();
    settled(&api, "poison").await;
    assert!(api.get::<CronJob>(SHOP, "resticbackup-poison").is_some());
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_is_deleted_and_made_again_in_the_middle_of_a_turn_is_another_one() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    backup(&api, "orders");
    let slow = Fault::new(Action::Delay(Duration::from_secs(5)));
    api.fault(slow.on("apply", "cronjobs").times(1));
    let spoke = Spoke::start(&api, &restic).await;
    api.until("the CronJob is being written", |api| {
        let log = api.requests();
        log.iter()
            .any(|r| (r.verb, r.resource.as_str()) == ("apply", "cronjobs"))
            .then_some(())
    })
    .await;
    api.delete::<ResticBackup>(SHOP, "orders");
    backup(&api, "orders");
    let uid = api.get::<ResticBackup>(SHOP, "orders").unwrap().uid();
    settled(&api, "orders").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let cron_job = api.get::<CronJob>(SHOP, "resticbackup-orders").unwrap();
    let owners: Vec<_> = cron_job
        .owner_references()
        .iter()
        .map(|o| Some(o.uid.clone()))
        .collect();
    assert_eq!(owners, [uid]);
    api.delete::<ResticBackup>(SHOP, "orders");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(api.all::<CronJob>().is_empty());
    assert!(!spoke.context.metrics.render().contains("name=\"orders\""));
    spoke.stop().await;
}

/// Away while step `n` is done, and for half a minute before and after it.
async fn step(api: &ApiServer, away: usize, n: usize, act: impl FnOnce(&ApiServer)) {
    if away == n {
        api.away(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(30)).await;
        act(api);
        tokio::time::sleep(Duration::from_secs(35)).await;
    } else {
        act(api);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

pub(super) fn start_pods(api: &ApiServer) {
    for (namespace, pod) in api.settle_jobs() {
        api.run_pod(&namespace, &pod);
    }
}

pub(super) fn end_pods(api: &ApiServer, end: &End) {
    for pod in api.all::<k8s_openapi::api::core::v1::Pod>() {
        let phase = pod.status.as_ref().and_then(|s| s.phase.clone());
        if phase.as_deref() == Some("Running") {
            api.end_pod(&pod.namespace().unwrap(), &pod.name_any(), end);
        }
    }
}

pub(super) const STORED: &str = r#"{"exitCode":0,"summary":{"message_type":"summary","files_new":2,"files_changed":1,"data_added":100,"total_files_processed":5,"total_bytes_processed":900,"snapshot_id":"abc"}}"#;

#[tokio::test(start_paused = true)]
async fn a_backup_survives_an_api_server_that_is_away_in_each_of_its_phases() {
    for away in 0..4 {
        let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
        furnish(&api);
        let spoke = Spoke::start(&api, &restic).await;
        step(&api, away, 0, |api| backup(api, "orders")).await;
        settled(&api, "orders").await;
        step(&api, away, 1, |api| drop(api.fire(SHOP, "resticbackup-orders"))).await;
        step(&api, away, 2, start_pods).await;
        step(&api, away, 3, |api| end_pods(api, &End::success(STORED))).await;
        let run = api
            .until(&format!("the run is recorded, away in {away}"), |api| {
                let run = api.json::<ResticBackup>(SHOP, "orders")["status"]["lastBackup"].clone();
                run["result"].is_string().then_some(run)
            })
            .await;
        assert_eq!(
            (&run["result"], &run["snapshotID"]),
            (&json!("Succeeded"), &json!("abc")),
            "{away}"
        );
        let statistics = &api.json::<ResticBackup>(SHOP, "orders")["status"]["statistics"];
        assert_eq!(statistics["successfulBackups"], 1, "{away}: {statistics}");
        assert_eq!(
            ready(&api.json::<ResticBackup>(SHOP, "orders")).unwrap().0,
            "True",
            "{away}"
        );
        spoke.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_survives_an_api_server_that_is_away_in_each_of_its_phases() {
    for away in 0..4 {
        let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
        furnish(&api);
        backup(&api, "orders");
        let snapshot = json!({
            "id": "abc0".repeat(16), "time": "2025-12-31T00:00:00Z", "hostname": "orders", "paths": ["/backup"],
            "tags": ["fleet.cluster=a", "fleet.backup=shop/orders"],
        });
        restic.hold(vec![serde_json::from_value(snapshot).unwrap()]);
        let spoke = Spoke::start(&api, &restic).await;
        settled(&api, "orders").await;
        // The list of snapshots takes longer than the API server is there.
        restic.slow(Duration::from_secs(10));
        step(&api, away, 0, |api| restore(api, "back", "orders")).await;
        step(&api, away, 1, |_| ()).await;
        api.until(&format!("the Job is made, away in {away}"), |api| {
            api.all::<Job>().into_iter().next()
        })
        .await;
        step(&api, away, 2, start_pods).await;
        let restored = r#"{"exitCode":0,"summary":{"total_files":4,"files_restored":4,"total_bytes":9,"bytes_restored":9}}"#;
        step(&api, away, 3, |api| end_pods(api, &End::success(restored))).await;
        let status = api
            .until(&format!("the restore is over, away in {away}"), |api| {
                let status = api.json::<ResticRestore>(SHOP, "back")["status"].clone();
                matches!(status["phase"].as_str(), Some("Completed" | "Failed")).then_some(status)
            })
            .await;
        assert_eq!(
            (&status["phase"], &status["restoredFiles"]),
            (&json!("Completed"), &json!(4)),
            "{away}"
        );
        let made = |r: &&super::Request| r.resource == "jobs" && r.verb == "create" && r.code == Some(201);
        assert_eq!(api.requests().iter().filter(made).count(), 1, "{away}");
        spoke.stop().await;
    }
}

/// The Job of a policy, if its gate is open.
pub(super) fn open_job(api: &ApiServer, job: &str) -> Option<Job> {
    let job = api.get::<Job>(SHOP, job)?;
    (job.spec.as_ref()?.suspend == Some(false)).then_some(job)
}

pub(super) fn lock_holder(api: &ApiServer) -> Option<String> {
    let leases = api.all::<Lease>();
    let lock = leases
        .iter()
        .find(|lease| lease.name_any().starts_with("fleet-lock"))?;
    lock.spec
        .as_ref()?
        .holder_identity
        .clone()
        .filter(|holder| !holder.is_empty())
}

async fn recorded(api: &ApiServer, what: &str) -> String {
    let result = api
        .until(&format!("the run is recorded, {what}"), |api| {
            let status = api.json::<GlobalRetentionPolicy>(SHOP, "nightly")["status"].clone();
            status["lastRunResult"].as_str().map(str::to_owned)
        })
        .await;
    api.until(&format!("the lock is given back, {what}"), |api| {
        lock_holder(api).is_none().then_some(())
    })
    .await;
    result
}

pub(super) const APPLIED: &str = r#"{"result":"Applied","removed":0,"snapshots":3}"#;

#[tokio::test(start_paused = true)]
async fn a_retention_run_survives_an_api_server_that_is_away_in_each_of_its_phases() {
    for away in 0..4 {
        let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
        furnish(&api);
        let spoke = Spoke::start(&api, &restic).await;
        step(&api, away, 0, |api| policy(api, "nightly")).await;
        api.until(&format!("the CronJob is made, away in {away}"), |api| {
            api.get::<CronJob>(SHOP, "globalretention-nightly")
        })
        .await;
        step(&api, away, 1, |api| {
            drop(api.fire(SHOP, "globalretention-nightly"))
        })
        .await;
        let job = api
            .until(&format!("the gate opens, away in {away}"), |api| {
                api.all::<Job>()
                    .iter()
                    .find_map(|job| open_job(api, &job.name_any()))
            })
            .await;
        step(&api, away, 2, start_pods).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(
            open_job(&api, &job.name_any()).is_some(),
            "{away}: not interrupted"
        );
        step(&api, away, 3, |api| end_pods(api, &End::success(APPLIED))).await;
        assert_eq!(recorded(&api, &format!("away in {away}")).await, "Applied");
        spoke.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_maintenance_run_goes_on_while_leadership_passes_from_a_to_b_and_back() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    policy(&api, "nightly");
    let a = Spoke::start_as("a", &api, &restic, &[]).await;
    api.until("a makes the CronJob", |api| {
        api.get::<CronJob>(SHOP, "globalretention-nightly")
    })
    .await;
    let b = Spoke::start_as("b", &api, &restic, &[]).await;
    let job = api.fire(SHOP, "globalretention-nightly");
    api.until("the gate opens", |api| open_job(api, &job)).await;
    start_pods(&api);
    for (lost, leads) in [("a", "b"), ("b", "a")] {
        api.heal();
        api.fault(Fault::new(Action::Cut).from(lost));
        api.until(&format!("{leads} leads"), |api| {
            let lease = api.get::<Lease>("kube-system", "fleet-spoke")?;
            (lease.spec?.holder_identity? == *leads).then_some(())
        })
        .await;
        // Longer than the lease lives: what the other one remembers is out of date when it leads again.
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(
            open_job(&api, &job).is_some(),
            "{leads} has shut a run that is healthy"
        );
    }
    api.heal();
    end_pods(&api, &End::success(APPLIED));
    assert_eq!(recorded(&api, "after a, b, a").await, "Applied");
    let shut = api.get::<Job>(SHOP, &job).unwrap();
    assert!(
        !shut
            .annotations()
            .contains_key(crds::names::ANNOTATION_SHUT_REASON)
    );
    assert_eq!(api.all::<Job>().len(), 1, "not repeated");
    let writers = |r: &super::Request| r.is_write() && r.resource != "leases" && r.code.is_some();
    let mut turns: Vec<String> = Vec::new();
    for request in api.requests().into_iter().filter(writers) {
        if turns.last() != Some(&request.client) {
            turns.push(request.client);
        }
    }
    assert_eq!(turns, ["a", "b", "a"], "one writes at a time");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_arrives_while_the_api_server_is_away_is_written_later() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    restic.slow(Duration::from_secs(20));
    let spoke = Spoke::start(&api, &restic).await;
    api.until("the repository is asked", |_| restic.questions().first().copied())
        .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    api.away(Duration::from_secs(180));
    let at = tokio::time::Instant::now();
    api.until("the answer is in the status", |api| {
        ready(&api.json::<ResticRepository>(SHOP, "nas")).filter(|(status, _)| status == "True")
    })
    .await;
    assert!(at.elapsed() < Duration::from_secs(600), "{:?}", at.elapsed());
    let asked = restic.questions().iter().filter(|q| **q == "id").count();
    assert_eq!(asked, 1, "the answer was not lost");
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_older_spec_does_not_count_and_one_that_panics_is_asked_again() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    restic.slow(Duration::from_secs(20));
    restic.panic(1);
    let spoke = Spoke::start(&api, &restic).await;
    api.until("it is asked after the panic", |_| {
        (restic.questions().len() > 1).then_some(())
    })
    .await;
    api.edit::<ResticRepository>(SHOP, "nas", |object| {
        object["spec"]["repositoryURL"] = json!("rest:http://nas.lan:8000/other");
    });
    let status = api
        .until("the newer spec is answered", |api| {
            let object = api.json::<ResticRepository>(SHOP, "nas");
            ready(&object).filter(|(status, _)| status == "True")?;
            Some(object["status"].clone())
        })
        .await;
    assert_eq!(status["observedGeneration"], 2);
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_pod_is_seen_later_than_its_job_has_not_lost_its_result() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    backup(&api, "orders");
    let spoke = Spoke::start(&api, &restic).await;
    settled(&api, "orders").await;
    api.fire(SHOP, "resticbackup-orders");
    start_pods(&api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    // The watch of pods takes longer to come back than that of Jobs, and longer than the patience with a pod.
    api.fault(Fault::new(Action::Cut).on("watch", "pods").times(6));
    api.cut_watches();
    end_pods(&api, &End::success(STORED));
    let run = api
        .until("the run is recorded", |api| {
            let run = api.json::<ResticBackup>(SHOP, "orders")["status"]["lastBackup"].clone();
            run["result"].is_string().then_some(run)
        })
        .await;
    assert_eq!(run["result"], "Succeeded", "{run}");
    spoke.stop().await;
}
