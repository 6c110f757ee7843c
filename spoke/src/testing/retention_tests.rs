//! The retention policy of a backup, as the API server has it.

use std::sync::Arc;
use std::time::Duration;

use crds::{GlobalRetentionPolicy, ResticBackup};
use serde_json::json;

use super::restic::MemoryRestic;
use super::shell_tests::settled;
use super::spoke::{SHOP, Spoke, backup, furnish};
use super::{Action, ApiServer, Fault};

const NAME: &str = "resticbackup-orders";

/// A spoke with a backup that has a retention policy.
async fn started(api: &ApiServer) -> Spoke {
    furnish(api);
    backup(api, "orders");
    edit_backup(api, &json!({ "enabled": true, "policy": { "keepLast": 2 } }));
    let spoke = Spoke::start(api, &Arc::new(MemoryRestic::default())).await;
    settled(api, "orders").await;
    until(api, "the policy is made", |_| true).await;
    spoke
}

fn edit_backup(api: &ApiServer, retention: &serde_json::Value) {
    api.edit::<ResticBackup>(SHOP, "orders", |backup| {
        backup["spec"]["retention"] = retention.clone();
    });
}

fn schedule(api: &ApiServer, schedule: &str) {
    edit_backup(
        api,
        &json!({ "enabled": true, "policy": { "keepLast": 2 }, "schedule": schedule }),
    );
}

async fn until(
    api: &ApiServer,
    what: &str,
    state: impl Fn(&GlobalRetentionPolicy) -> bool,
) -> GlobalRetentionPolicy {
    let get = |api: &ApiServer| api.get::<GlobalRetentionPolicy>(SHOP, NAME);
    api.until(what, |api| get(api).filter(|policy| state(policy)))
        .await
}

#[tokio::test(start_paused = true)]
async fn a_person_may_suspend_the_policy_of_a_backup() {
    let api = ApiServer::new();
    let spoke = started(&api).await;
    api.edit::<GlobalRetentionPolicy>(SHOP, NAME, |policy| policy["spec"]["suspend"] = json!(true));
    schedule(&api, "5 6 * * *");
    let is = |policy: &GlobalRetentionPolicy| policy.spec.schedule == "5 6 * * *";
    let policy = until(&api, "the change is carried out", is).await;
    assert!(policy.spec.suspend);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(until(&api, "it is there", |_| true).await.spec.suspend);
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retention_is_switched_off_although_another_object_is_refused() {
    let api = ApiServer::new();
    let spoke = started(&api).await;
    for verb in ["apply", "create", "patch"] {
        api.fault(
            Fault::new(Action::Refuse(403, "no".to_owned()))
                .on(verb, "cronjobs")
                .named(NAME),
        );
    }
    api.edit::<ResticBackup>(SHOP, "orders", |backup| {
        backup["spec"]["schedule"] = json!("5 5 * * *");
        backup["spec"]["retention"]["enabled"] = json!(false);
    });
    api.until("the policy is gone or going", |api| {
        let policy = api.get::<GlobalRetentionPolicy>(SHOP, NAME);
        policy
            .is_none_or(|policy| policy.metadata.deletion_timestamp.is_some())
            .then_some(())
    })
    .await;
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_that_name_that_somebody_makes_meanwhile_is_not_written() {
    let api = ApiServer::new();
    let spoke = started(&api).await;
    let slow = Fault::new(Action::Delay(Duration::from_secs(10)));
    api.fault(slow.on("apply", "globalretentionpolicies").named(NAME).times(1));
    api.forget_requests();
    schedule(&api, "5 6 * * *");
    let applied = |api: &ApiServer| {
        api.requests()
            .into_iter()
            .find(|request| request.verb == "apply" && request.resource == "globalretentionpolicies")
    };
    api.until("it is applied", applied).await;
    api.edit::<GlobalRetentionPolicy>(SHOP, NAME, |policy| policy["metadata"]["finalizers"] = json!([]));
    api.delete::<GlobalRetentionPolicy>(SHOP, NAME);
    api.put(&json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
        "metadata": { "name": NAME, "namespace": SHOP },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@monthly", "suspend": true,
                  "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] },
    }));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let policy = until(&api, "it is there", |_| true).await;
    assert_eq!(
        (policy.spec.schedule.as_str(), policy.metadata.owner_references),
        ("@monthly", None)
    );
    spoke.stop().await;
}
