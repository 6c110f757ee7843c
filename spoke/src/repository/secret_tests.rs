//! A Secret that cannot be read: the API server failed, or refuses it.

use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{self, types};
use crds::{ResticBackup, ResticRepository, ResticRepositoryStatus};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::testing::restic::MemoryRestic;
use crate::testing::spoke::{SHOP, Spoke, backup, furnish};
use crate::testing::{Action, ApiServer, Fault};

const HOUR: Duration = Duration::from_secs(3600);

fn status(api: &ApiServer) -> ResticRepositoryStatus {
    let repository: Option<ResticRepository> = api.get(SHOP, "nas");
    repository.and_then(|r| r.status).unwrap_or_default()
}

fn ready(api: &ApiServer) -> Option<Condition> {
    conditions::get(&status(api).conditions, types::READY).cloned()
}

fn backup_ready(api: &ApiServer) -> Option<Condition> {
    let backup: Option<ResticBackup> = api.get(SHOP, "orders");
    conditions::get(&backup?.status?.conditions, types::READY).cloned()
}

/// A repository that is Ready, and a backup that is scheduled.
async fn started() -> (ApiServer, Spoke) {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    backup(&api, "orders");
    let spoke = Spoke::start(&api, &restic).await;
    api.until("the backup is scheduled", |api| {
        backup_ready(api).filter(|c| c.status == "True")
    })
    .await;
    // From the creation to the look after it.
    api.until("the repository is accessible", |api| {
        ready(api).filter(|c| c.status == "True")
    })
    .await;
    (api, spoke)
}

fn on_secret(action: Action) -> Fault {
    Fault::new(action).on("get", "secrets").named("nas")
}

#[tokio::test(start_paused = true)]
async fn a_ready_repository_stays_ready_while_the_api_server_fails_to_serve_its_secret() {
    for action in [
        Action::Refuse(500, "etcd has no leader".to_owned()),
        Action::Refuse(429, "too many requests".to_owned()),
        Action::Hang,
    ] {
        let (api, spoke) = started().await;
        let (before, scheduled) = (status(&api), backup_ready(&api));
        api.fault(on_secret(action.clone()));
        let marked = api
            .until("the failed look is reported", |api| {
                ready(api).filter(|c| c.message.contains("Secret could not be read"))
            })
            .await;
        // Several attempts, each with a longer pause.
        tokio::time::sleep(HOUR).await;
        let reads = |api: &ApiServer| {
            let requests = api.requests().into_iter();
            requests
                .filter(|r| (r.verb, r.name.as_str()) == ("get", "nas"))
                .count()
        };
        let after = status(&api);
        let now = ready(&api).unwrap();
        let kept = conditions::get(&before.conditions, types::READY).unwrap();
        for condition in [&marked, &now] {
            assert_eq!(
                (
                    &condition.status,
                    &condition.reason,
                    &condition.last_transition_time
                ),
                (&kept.status, &kept.reason, &kept.last_transition_time),
                "{action:?}"
            );
            assert!(
                condition.message.starts_with(&kept.message),
                "{}",
                condition.message
            );
            let notes = condition.message.matches("Secret could not be read").count();
            assert_eq!(notes, 1, "{}", condition.message);
        }
        let without = |status: &ResticRepositoryStatus| ResticRepositoryStatus {
            conditions: Vec::new(),
            ..status.clone()
        };
        assert_eq!(without(&after), without(&before), "{action:?}");
        assert_eq!(backup_ready(&api), scheduled, "{action:?}");
        let cron_job: CronJob = api.get(SHOP, "resticbackup-orders").unwrap();
        assert_eq!(cron_job.spec.suspend, Some(false));
        let attempts = reads(&api);
        assert!((4..40).contains(&attempts), "{attempts} attempts");
        api.heal();
        let healed = api
            .until("a look succeeds", |api| {
                ready(api).filter(|c| !c.message.contains("Secret could not be read"))
            })
            .await;
        assert_eq!(healed.status, "True");
        spoke.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_was_never_looked_at_is_unknown_while_its_secret_cannot_be_read() {
    let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
    furnish(&api);
    api.fault(on_secret(Action::Refuse(500, "etcd has no leader".to_owned())));
    let spoke = Spoke::start(&api, &restic).await;
    let unknown = api
        .until("the failed look is reported", |api| {
            ready(api).filter(|c| c.message.contains("etcd has no leader"))
        })
        .await;
    assert_eq!(
        (unknown.status.as_str(), unknown.reason.as_str()),
        ("Unknown", "ApiError")
    );
    assert!(restic.questions().is_empty(), "nothing was created");
    api.heal();
    api.until("a look succeeds", |api| ready(api).filter(|c| c.status == "True"))
        .await;
    spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_may_not_be_read_is_a_failure() {
    let (api, spoke) = started().await;
    api.fault(on_secret(Action::Refuse(
        403,
        "secrets \"nas\" is forbidden".to_owned(),
    )));
    let refused = api
        .until("the refusal is reported", |api| {
            ready(api).filter(|c| c.status == "False")
        })
        .await;
    assert!(refused.message.contains("is forbidden"), "{}", refused.message);
    spoke.stop().await;
}
