//! The shell: a whole spoke against an API server in memory, with time that passes at once.

use std::sync::Arc;
use std::time::Duration;

use crds::{ResticBackup, ResticRepository};
use k8s_openapi::api::batch::v1::CronJob;

use super::restic::MemoryRestic;
use super::spoke::{SHOP, Spoke, backup, furnish};
use super::{Action, ApiServer, Fault};

const HOUR: Duration = Duration::from_secs(3600);

fn ready(object: &serde_json::Value) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
    let text = |name: &str| ready[name].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason")))
}

async fn settled(api: &ApiServer, name: &str) {
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
    let crashed = ("False".to_owned(), "Crashed".to_owned());
    api.until("three crashes are reported", |api| {
        ready(&api.json::<ResticBackup>(SHOP, "poison")).filter(|ready| *ready == crashed)
    })
    .await;
    let attempts: Vec<_> = api
        .requests()
        .into_iter()
        .filter(|r| r.name == "resticbackup-poison" && r.verb == "apply")
        .map(|r| r.at)
        .collect();
    assert_eq!(attempts.len(), 3);
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses[0] >= Duration::from_millis(500) && pauses[1] >= Duration::from_secs(1),
        "{pauses:?}"
    );
    api.heal();
    settled(&api, "poison").await;
    assert!(api.get::<CronJob>(SHOP, "resticbackup-poison").is_some());
    spoke.stop().await;
}
