//! Notifications through a whole spoke. The receiver's address is one that is not called, so that each notification is
//! counted as refused at once, without a network.

use std::sync::Arc;
use std::time::Duration;

use crds::ResticBackup;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::restic::MemoryRestic;
use super::spoke::{SHOP, Spoke, furnish};
use super::{Action, ApiServer, End, Fault};

const STORED: &str = r#"{"exitCode":0,"summary":{"message_type":"summary","files_new":2,"files_changed":1,"data_added":100,"total_files_processed":5,"total_bytes_processed":900,"snapshot_id":"abc"}}"#;

fn notified(api: &ApiServer) {
    api.put(&json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": SHOP },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "0 2 * * *", "source": { "pvc": { "claimName": "data" } },
                  "notifications": { "webhook": { "url": "http://127.0.0.1:9/" } } },
    }));
}

fn status(api: &ApiServer) -> Value {
    api.json::<ResticBackup>(SHOP, "orders")["status"].clone()
}

async fn run(api: &ApiServer, total: i64) {
    api.until("the CronJob", |api| {
        let ready = status(api)["conditions"].to_string().contains("BackupConfigured");
        ready.then_some(())
    })
    .await;
    drop(api.fire(SHOP, "resticbackup-orders"));
    for (namespace, pod) in api.settle_jobs() {
        api.run_pod(&namespace, &pod);
    }
    for pod in api.all::<k8s_openapi::api::core::v1::Pod>() {
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        if phase.as_deref() == Some("Running") {
            api.end_pod(&pod.namespace().unwrap(), &pod.name_any(), &End::success(STORED));
        }
    }
    api.until("the run is recorded", |api| {
        (status(api)["statistics"]["totalBackups"] == total).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(120)).await;
}

fn sent(spoke: &Spoke) -> String {
    let text = spoke.context.metrics.render();
    let line = text.lines().find_map(|line| {
        line.strip_prefix("fleet_notifications_total{outcome=\"refused\",target=\"webhook\"} ")
    });
    line.unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_run_is_told_of_once_whatever_becomes_of_the_answer_to_its_status_and_over_restarts() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    notified(&api);
    let spoke = Spoke::start(&api, &restic).await;
    run(&api, 1).await;
    assert_eq!(sent(&spoke), "1");
    api.fault(
        Fault::new(Action::LoseAnswer)
            .on("apply", "resticbackups/status")
            .times(3),
    );
    run(&api, 2).await;
    assert_eq!(sent(&spoke), "2", "the status was written, and its answer lost");
    spoke.stop().await;
    let spoke = Spoke::start(&api, &restic).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(sent(&spoke), "0", "nothing is told of again");
    let text = spoke.context.metrics.render();
    let runs = "fleet_backup_runs_total{namespace=\"shop\",name=\"orders\",result=\"Succeeded\"} 2";
    assert!(text.contains(runs), "rebuilt from status: {text}");
    spoke.stop().await;
}
