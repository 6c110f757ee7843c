//! How far runs have come: read from the logs of their pods, and shown, at a bounded rate.

use std::sync::Arc;
use std::time::Duration;

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::restic::MemoryRestic;
use super::shell_tests::{APPLIED, STORED, end_pods, open_job, settled, start_pods};
use super::spoke::{SHOP, Spoke, backup, furnish, policy, restore};
use super::{ApiServer, End};

const SECOND: Duration = Duration::from_secs(1);

fn line(percent: u32) -> String {
    format!(
        r#"{{"message_type":"status","seconds_elapsed":60,"seconds_remaining":60,"percent_done":{:.2},"total_files":10,"files_done":{percent},"total_bytes":1000,"bytes_done":{},"current_files":["/backup/secret-name"]}}"#,
        f64::from(percent) / 100.0,
        percent * 10
    )
}

fn print(api: &ApiServer, log: &str) {
    for pod in api.all::<Pod>() {
        api.set_log(SHOP, &pod.name_any(), log);
    }
}

fn count(api: &ApiServer, verb: &str, resource: &str) -> usize {
    let log = api.requests();
    log.iter()
        .filter(|r| r.verb == verb && r.resource == resource)
        .count()
}

fn progress(api: &ApiServer) -> Value {
    api.json::<ResticBackup>(SHOP, "orders")["status"]["progress"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_run_shows_how_far_it_has_come_with_one_write_in_half_a_minute_and_not_after_its_end() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    backup(&api, "orders");
    let spoke = Spoke::start(&api, &restic).await;
    settled(&api, "orders").await;
    let job = api.fire(SHOP, "resticbackup-orders");
    start_pods(&api);
    print(&api, &line(12));
    tokio::time::sleep(25 * SECOND).await;
    assert_eq!(count(&api, "log", "pods/log"), 0, "a short run costs no request");
    let shown = api
        .until("progress", |api| progress(api)["percent"].as_i64())
        .await;
    assert_eq!(shown, 12);
    assert_eq!(
        (&progress(&api)["job"], &progress(&api)["bytesTotal"]),
        (&json!(job), &json!(1000))
    );
    let text = api.json::<ResticBackup>(SHOP, "orders").to_string();
    assert!(!text.contains("secret-name"), "{text}");
    // The same figures are no news, and new ones are one write in half a minute.
    api.forget_requests();
    tokio::time::sleep(120 * SECOND).await;
    assert!(
        (3..=4).contains(&count(&api, "log", "pods/log")),
        "{:?}",
        api.requests()
    );
    assert_eq!(api.writes(), []);
    for percent in 20..50 {
        print(&api, &line(percent));
        tokio::time::sleep(10 * SECOND).await;
    }
    let writes = count(&api, "apply", "resticbackups/status");
    assert!((9..=10).contains(&writes), "{writes} writes in five minutes");
    end_pods(&api, &End::success(STORED));
    api.until("the run is recorded", |api| {
        let status = api.json::<ResticBackup>(SHOP, "orders")["status"].clone();
        status["lastBackup"]["result"].is_string().then_some(())
    })
    .await;
    assert_eq!(progress(&api), Value::Null);
    api.forget_requests();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(count(&api, "log", "pods/log"), 0, "nothing runs");
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_running_pods_are_read_in_turns_at_the_pace_of_the_cluster() {
    const RUNS: usize = 40;
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    for n in 0..RUNS {
        backup(&api, &format!("b{n}"));
    }
    let spoke = Spoke::start(&api, &restic).await;
    for n in 0..RUNS {
        settled(&api, &format!("b{n}")).await;
        api.fire(SHOP, &format!("resticbackup-b{n}"));
    }
    start_pods(&api);
    print(&api, &line(12));
    tokio::time::sleep(30 * SECOND).await;
    api.forget_requests();
    tokio::time::sleep(120 * SECOND).await;
    let requests = api.requests();
    let read: Vec<&str> = requests
        .iter()
        .filter(|r| r.verb == "log")
        .map(|r| r.name.as_str())
        .collect();
    assert!(read.len() <= 4 * 120 + 1, "{} reads in two minutes", read.len());
    let mut each: Vec<&str> = read.iter().take(RUNS).copied().collect();
    each.sort_unstable();
    each.dedup();
    assert_eq!(each.len(), RUNS, "none is read twice before all others");
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restores_prunes_and_checks_show_it_too() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    policy(&api, "nightly");
    api.edit::<ResticRepository>(SHOP, "nas", |nas| {
        nas["spec"]["integrityCheck"] = json!({ "schedule": "0 5 * * *" });
    });
    let spoke = Spoke::start(&api, &restic).await;
    for cron_job in ["globalretention-nightly", "integritycheck-nas"] {
        api.until("its CronJob", |api| {
            api.get::<k8s_openapi::api::batch::v1::CronJob>(SHOP, cron_job)
        })
        .await;
        let job = api.fire(SHOP, cron_job);
        api.until("the gate opens", |api| open_job(api, &job)).await;
        start_pods(&api);
        print(&api, "token 1\n[0:30] 70.00%  7 / 10 packs\n");
        let step = |api: &ApiServer| {
            let policy = api.json::<GlobalRetentionPolicy>(SHOP, "nightly");
            let nas = api.json::<ResticRepository>(SHOP, "nas");
            let shown = if cron_job.starts_with("global") {
                policy["status"]["progress"].clone()
            } else {
                nas["status"]["integrityCheck"]["progress"].clone()
            };
            shown["step"].as_str().map(str::to_owned)
        };
        assert_eq!(api.until(cron_job, step).await, "7 / 10 packs");
        let end = if cron_job.starts_with("global") {
            APPLIED
        } else {
            r#"{"result":"Passed"}"#
        };
        end_pods(&api, &End::success(end));
        api.until("it is over", |api| step(api).is_none().then_some(()))
            .await;
    }
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_shows_it_until_its_end() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    backup(&api, "orders");
    let snapshot = json!({
        "id": "abc0".repeat(16), "time": "2025-12-31T00:00:00Z", "hostname": "orders", "paths": ["/backup"],
        "tags": ["fleet.cluster=a", "fleet.backup=shop/orders"],
    });
    restic.hold(vec![serde_json::from_value(snapshot).unwrap()]);
    restore(&api, "back", "orders");
    let spoke = Spoke::start(&api, &restic).await;
    api.until("its Job", |api| {
        api.get::<k8s_openapi::api::batch::v1::Job>(SHOP, "resticrestore-back")
    })
    .await;
    start_pods(&api);
    print(
        &api,
        r#"{"message_type":"status","seconds_elapsed":30,"percent_done":0.5,"total_files":4,"files_restored":2,"total_bytes":10,"bytes_restored":5}"#,
    );
    let percent =
        |api: &ApiServer| api.json::<ResticRestore>(SHOP, "back")["status"]["progress"]["percent"].as_i64();
    assert_eq!(api.until("progress", percent).await, 50);
    end_pods(
        &api,
        &End::success(
            r#"{"exitCode":0,"summary":{"message_type":"summary","total_files":4,"files_restored":4,"total_bytes":10,"bytes_restored":10}}"#,
        ),
    );
    api.until("its end", |api| {
        let status = api.json::<ResticRestore>(SHOP, "back")["status"].clone();
        (status["phase"] == "Completed").then_some(())
    })
    .await;
    assert_eq!(percent(&api), None);
    spoke.stop().await;
}
