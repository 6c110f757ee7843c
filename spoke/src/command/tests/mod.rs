//! Commands carried out by a whole spoke on an API server in memory: each once, whatever is sent again or fails.

mod retention;

use std::sync::Arc;
use std::time::Duration;

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore, names};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt as _;
use proto::v1::command_body::What;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Command, CommandBody, CommandReport, CommandState, CreateRestore, ObjectName, ResumeResource,
    RetainRepository, RunBackup, RunCheck, RunRetention, SuspendResource, UnlockRepository, resume_resource,
    suspend_resource,
};
use serde_json::json;

use crate::exchange::Arrived;
use crate::testing::restic::MemoryRestic;
use crate::testing::spoke::{SHOP, Spoke, backup, furnish, policy};
use crate::testing::{Action, ApiServer, End, Fault, Request};
use crate::world::Key;

const STORED: &str = r#"{"exitCode":0,"summary":{"message_type":"summary","files_new":2,"data_added":100,"total_files_processed":5,"total_bytes_processed":900,"snapshot_id":"abcdef0123"}}"#;
const HOUR: u64 = 3_600_000;

struct Bench {
    api: ApiServer,
    restic: Arc<MemoryRestic>,
    spoke: Spoke,
    arguments: Vec<&'static str>,
}

impl Bench {
    async fn new(arguments: &[&'static str]) -> Bench {
        let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
        furnish(&api);
        backup(&api, "orders");
        Bench::on(api, restic, arguments).await
    }

    async fn on(api: ApiServer, restic: Arc<MemoryRestic>, arguments: &[&'static str]) -> Bench {
        let mut all = vec!["--leader-elect", "false", "--hub", "https://127.0.0.1:1"];
        all.extend(arguments);
        let spoke = Spoke::start_as("", &api, &restic, &all).await;
        let bench = Bench {
            api,
            restic,
            spoke,
            arguments: arguments.to_vec(),
        };
        bench.ready("orders").await;
        bench
    }

    async fn ready(&self, name: &str) {
        let is_ready = |api: &ApiServer| {
            let backup = api.json::<ResticBackup>(SHOP, name);
            let conditions = backup["status"]["conditions"].as_array()?.clone();
            let mut ready = conditions
                .iter()
                .filter(|c| c["type"] == "Ready" && c["status"] == "True");
            ready.next().map(drop)
        };
        self.api.until(&format!("{name} is ready"), is_ready).await;
    }

    /// The process is started anew.
    async fn restart(self) -> Bench {
        self.spoke.stop().await;
        Bench::on(self.api, self.restic, &self.arguments).await
    }

    fn send(&self, id: &str, within: u64, what: What) {
        self.deliver(id, within, what, false);
    }

    fn deliver(&self, id: &str, within: u64, what: What, cancel: bool) {
        let command = Command {
            id: id.to_owned(),
            begin_within_ms: within,
            body: Some(CommandBody { what: Some(what) }),
            who: "ann".to_owned(),
            cancel,
        };
        let before = self.spoke.context.clock.since_boot() + within;
        let commands = &self.spoke.context.commands;
        commands.deliver(Arrived::Command(Box::new(command), before));
    }

    /// The next report with this state.
    async fn until(&self, id: &str, state: CommandState) -> CommandReport {
        let what = format!("{id} is {state:?}");
        self.api
            .until(&what, |_| {
                let reports = self.spoke.context.commands.take_reports();
                reports.into_iter().find_map(|body| match body {
                    Body::CommandReport(report) if report.id == id && report.state() == state => Some(report),
                    _ => None,
                })
            })
            .await
    }

    fn jobs(&self) -> Vec<String> {
        let mut names: Vec<String> = self.api.all::<Job>().iter().map(|job| job.name_any()).collect();
        names.sort();
        names
    }

    /// Pods of all Jobs run and end.
    fn work(&self, end: &End) {
        for (namespace, pod) in self.api.settle_jobs() {
            self.api.run_pod(&namespace, &pod);
            self.api.end_pod(&namespace, &pod, end);
        }
        self.api.settle_jobs();
    }
}

fn named(name: &str) -> Option<ObjectName> {
    Some(ObjectName {
        namespace: SHOP.to_owned(),
        name: name.to_owned(),
    })
}

fn run_backup() -> What {
    What::RunBackup(RunBackup {
        backup: named("orders"),
    })
}

fn suspend(resume: bool) -> What {
    let name = named("orders").unwrap();
    if resume {
        What::Resume(ResumeResource {
            resource: Some(resume_resource::Resource::Backup(name)),
        })
    } else {
        What::Suspend(SuspendResource {
            resource: Some(suspend_resource::Resource::Backup(name)),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_run_once_whatever_is_sent_again() {
    let bench = Bench::new(&[]).await;
    bench.send("c1", HOUR, run_backup());
    bench.send("c1", HOUR, run_backup());
    let running = bench.until("c1", CommandState::Running).await;
    assert_eq!(running.object, "Job shop/resticbackup-orders-c1");
    assert_eq!(bench.jobs(), ["resticbackup-orders-c1"]);
    let job = bench.api.get::<Job>(SHOP, "resticbackup-orders-c1").unwrap();
    assert_eq!(
        job.annotations()
            .get(names::ANNOTATION_COMMAND)
            .map(String::as_str),
        Some("c1")
    );
    bench.send("c1", HOUR, run_backup());
    bench.until("c1", CommandState::Running).await;
    bench.work(&End::success(STORED));
    let done = bench.until("c1", CommandState::Done).await;
    assert_eq!(done.text, "snapshot abcdef01");
    // Its history is cut, and the end was lost on its way.
    bench.api.delete::<Job>(SHOP, "resticbackup-orders-c1");
    bench.send("c1", HOUR, run_backup());
    assert_eq!(
        bench.until("c1", CommandState::Done).await.text,
        "snapshot abcdef01"
    );
    let bench = bench.restart().await;
    bench.send("c1", HOUR, run_backup());
    assert_eq!(
        bench.until("c1", CommandState::Done).await.text,
        "snapshot abcdef01"
    );
    bench
        .spoke
        .context
        .commands
        .deliver(Arrived::Settled("c1".to_owned()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.send("c1", HOUR, run_backup());
    bench.until("c1", CommandState::Done).await;
    assert_eq!(bench.jobs(), [] as [&str; 0]);
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_later_one_has_overtaken_has_its_own_result() {
    let (first, second) = ("c1", "c2");
    let bench = Bench::new(&["--max-backups", "1"]).await;
    bench.send(first, HOUR, run_backup());
    bench.until(first, CommandState::Running).await;
    bench.send(second, HOUR, run_backup());
    let parked = |api: &ApiServer| api.get::<Job>(SHOP, "resticbackup-orders-c2").map(drop);
    bench.api.until("the second Job is made", parked).await;
    bench.spoke.stop().await;
    // Both end before anything is recorded.
    bench.api.edit::<Job>(SHOP, "resticbackup-orders-c2", |job| {
        job["spec"]["suspend"] = json!(false)
    });
    for (namespace, pod) in bench.api.settle_jobs() {
        bench.api.run_pod(&namespace, &pod);
    }
    let other = STORED.replace("abcdef0123", "1234567890");
    for (job, stored) in [
        ("resticbackup-orders-c1", STORED),
        ("resticbackup-orders-c2", &other),
    ] {
        for pod in bench.api.pods_of(SHOP, job) {
            bench.api.end_pod(SHOP, &pod.name_any(), &End::success(stored));
        }
    }
    bench.api.settle_jobs();
    let bench = Bench::on(bench.api, bench.restic, &[]).await;
    let both = |api: &ApiServer| {
        let backup = api.json::<ResticBackup>(SHOP, "orders");
        (backup["status"]["statistics"]["totalBackups"] == 2).then_some(())
    };
    bench.api.until("both are counted", both).await;
    bench.send(first, HOUR, run_backup());
    let done = bench.until(first, CommandState::Done).await;
    assert_eq!(done.text, "snapshot abcdef01");
    bench.send(second, HOUR, run_backup());
    let done = bench.until(second, CommandState::Done).await;
    assert_eq!(done.text, "snapshot 12345678");
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_fails_says_why() {
    let bench = Bench::new(&[]).await;
    bench.send("c1", HOUR, run_backup());
    bench.until("c1", CommandState::Running).await;
    for _ in 0..8 {
        bench.work(&End::failure(1, r#"{"exitCode":1,"error":"the disk is full"}"#));
    }
    let failed = bench.until("c1", CommandState::Failed).await;
    assert!(failed.text.starts_with("Failed"), "{}", failed.text);
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_is_started_anew_goes_on_and_begins_nothing_without_the_hub() {
    let bench = Bench::new(&[]).await;
    bench.api.fault(Fault::new(Action::Cut).on("create", "jobs"));
    bench.send("c1", HOUR, run_backup());
    bench.until("c1", CommandState::Accepted).await;
    bench.spoke.stop().await;
    bench.api.heal();
    let bench = Bench::on(bench.api, bench.restic, &[]).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        bench.jobs(),
        [] as [&str; 0],
        "how much time is left only the hub knows"
    );
    bench
        .api
        .fault(Fault::new(Action::LoseAnswer).on("create", "jobs").times(1));
    bench.send("c1", HOUR, run_backup());
    bench.until("c1", CommandState::Running).await;
    let bench = bench.restart().await;
    bench.work(&End::success(STORED));
    tokio::time::sleep(Duration::from_secs(30)).await;
    bench.send("c1", 0, run_backup());
    bench.until("c1", CommandState::Done).await;
    assert_eq!(bench.jobs(), ["resticbackup-orders-c1"]);
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_after_its_time() {
    let bench = Bench::new(&[]).await;
    bench.send("late", 0, run_backup());
    bench.until("late", CommandState::Expired).await;
    // Of a repository that does not exist.
    let spec = json!({ "repositoryRef": { "name": "none" }, "schedule": "0 2 * * *",
        "source": { "pvc": { "claimName": "data" } } });
    bench
        .api
        .edit::<ResticBackup>(SHOP, "orders", |backup| backup["spec"] = spec.clone());
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.send("c1", 60_000, run_backup());
    let waits = bench.until("c1", CommandState::Accepted).await;
    assert!(waits.text.contains("none"), "{}", waits.text);
    let expired = bench.until("c1", CommandState::Expired).await;
    assert!(
        expired.text.contains("could not begin in time"),
        "{}",
        expired.text
    );
    let back = json!({ "repositoryRef": { "name": "nas" }, "schedule": "0 2 * * *",
        "source": { "pvc": { "claimName": "data" } } });
    bench
        .api
        .edit::<ResticBackup>(SHOP, "orders", |backup| backup["spec"] = back.clone());
    bench.ready("orders").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.jobs(), [] as [&str; 0]);
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_its_turn_is_taken_back_and_one_that_runs_is_not() {
    let bench = Bench::new(&["--max-backups", "1"]).await;
    bench.send("c1", HOUR, run_backup());
    bench.until("c1", CommandState::Running).await;
    bench
        .api
        .until("it is opened", |api| {
            let job = api.get::<Job>(SHOP, "resticbackup-orders-c1")?;
            (job.spec?.suspend != Some(true)).then_some(())
        })
        .await;
    for (namespace, pod) in bench.api.settle_jobs() {
        bench.api.run_pod(&namespace, &pod);
    }
    bench.send("c2", 120_000, run_backup());
    bench.send("c3", HOUR, run_backup());
    bench
        .api
        .until("c3 is parked", |api| {
            api.get::<Job>(SHOP, "resticbackup-orders-c3").map(drop)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.deliver("c1", HOUR, run_backup(), true);
    bench.deliver("c3", HOUR, run_backup(), true);
    bench.until("c3", CommandState::Cancelled).await;
    bench.until("c2", CommandState::Expired).await;
    assert_eq!(bench.jobs(), ["resticbackup-orders-c1"]);
    bench.work(&End::success(STORED));
    for pod in bench.api.pods_of(SHOP, "resticbackup-orders-c1") {
        bench.api.end_pod(SHOP, &pod.name_any(), &End::success(STORED));
    }
    bench.api.settle_jobs();
    bench.until("c1", CommandState::Done).await;
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_or_not_there_is_refused_with_what_to_do() {
    let bench = Bench::new(&[]).await;
    policy(&bench.api, "nightly");
    let restore = |claim: &str| {
        What::CreateRestore(CreateRestore {
            backup: named("orders"),
            claim: claim.to_owned(),
            ..CreateRestore::default()
        })
    };
    bench.send("c1", HOUR, restore("data"));
    let refused = bench.until("c1", CommandState::Refused).await;
    assert!(
        refused.text.contains("add restore to --allow"),
        "{}",
        refused.text
    );
    assert!(bench.api.all::<ResticRestore>().is_empty());
    bench.send(
        "c2",
        HOUR,
        What::RunBackup(RunBackup {
            backup: named("none"),
        }),
    );
    let refused = bench.until("c2", CommandState::Refused).await;
    assert!(
        refused.text.contains("no ResticBackup shop/none"),
        "{}",
        refused.text
    );
    bench.send(
        "c3",
        HOUR,
        What::RunCheck(RunCheck {
            repository: named("nas"),
        }),
    );
    let refused = bench.until("c3", CommandState::Refused).await;
    assert!(refused.text.contains("spec.integrityCheck"), "{}", refused.text);
    bench
        .api
        .edit::<GlobalRetentionPolicy>(SHOP, "nightly", |policy| policy["spec"]["suspend"] = json!(true));
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.send(
        "c4",
        HOUR,
        What::RunRetention(RunRetention {
            policy: named("nightly"),
        }),
    );
    let refused = bench.until("c4", CommandState::Refused).await;
    assert!(refused.text.contains("suspended"), "{}", refused.text);
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_is_made_once_with_the_id_of_its_command() {
    let bench = Bench::new(&["--allow", "restore"]).await;
    let restore = || {
        What::CreateRestore(CreateRestore {
            backup: named("orders"),
            claim: "data".to_owned(),
            path: "back".to_owned(),
            ..CreateRestore::default()
        })
    };
    let lost = Fault::new(Action::Refuse(503, "away".to_owned())).on("create", "resticrestores");
    bench.api.fault(lost.times(2));
    bench.send("c1", HOUR, restore());
    bench.send("c1", HOUR, restore());
    bench.until("c1", CommandState::Running).await;
    let made = bench.api.all::<ResticRestore>();
    let [one] = made.as_slice() else {
        panic!("{made:?}")
    };
    assert_eq!(one.name_any(), "restore-c1");
    let pvc = one.spec.target.pvc.as_ref().unwrap();
    assert_eq!(
        (pvc.claim_name.as_str(), pvc.path.as_deref()),
        ("data", Some("back"))
    );
    bench.api.delete::<ResticRestore>(SHOP, "restore-c1");
    let failed = bench.until("c1", CommandState::Failed).await;
    assert!(failed.text.contains("deleted"), "{}", failed.text);
    bench.send("c2", HOUR, run_backup());
    bench.until("c2", CommandState::Refused).await;
    assert!(bench.api.all::<ResticRestore>().is_empty());
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_field_of_another_owner_is_left_alone_and_the_result_names_it() {
    let bench = Bench::new(&[]).await;
    let suspended = |api: &ApiServer| {
        api.get::<CronJob>(SHOP, "resticbackup-orders")
            .unwrap()
            .spec
            .suspend
    };
    bench.send("c1", HOUR, suspend(false));
    bench.until("c1", CommandState::Done).await;
    bench
        .api
        .until("its schedule stops", |api| {
            (suspended(api) == Some(true)).then_some(())
        })
        .await;
    let owners = bench
        .api
        .owners::<ResticBackup>(SHOP, "orders", &["spec", "suspend"]);
    assert!(format!("{owners:?}").contains("restic-fleet-hub"), "{owners:?}");
    bench.send("c2", HOUR, suspend(true));
    bench.until("c2", CommandState::Done).await;
    bench
        .api
        .until("its schedule goes on", |api| {
            (suspended(api) == Some(false)).then_some(())
        })
        .await;
    // A person, or a GitOps tool.
    bench
        .api
        .edit::<ResticBackup>(SHOP, "orders", |backup| backup["spec"]["suspend"] = json!(true));
    bench.send("c3", HOUR, suspend(true));
    let refused = bench.until("c3", CommandState::Refused).await;
    assert!(refused.text.contains("has set it"), "{}", refused.text);
    assert!(
        bench
            .api
            .get::<ResticBackup>(SHOP, "orders")
            .unwrap()
            .spec
            .suspend
    );
    bench.spoke.stop().await;
}

fn unlock(repository: &str) -> What {
    What::Unlock(UnlockRepository {
        repository: named(repository),
    })
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_does_not_answer_holds_up_no_other_command() {
    let bench = Bench::new(&["--allow", "run,unlock"]).await;
    let names: Vec<String> = (0..30).map(|n| format!("nas-{n}")).collect();
    for name in &names {
        bench.api.put(&json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": name, "namespace": SHOP },
            "spec": { "repositoryURL": "rest:http://nas/", "credentialsSecretRef": { "name": "nas" } },
        }));
    }
    let world = &bench.spoke.context.world;
    let present = |_: &ApiServer| (world.repositories.len() == 31).then_some(());
    bench.api.until("the repositories are known", present).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = || {
        let questions = bench.restic.questions();
        questions.iter().filter(|question| **question == "locks").count()
    };
    let before = asked();
    bench.restic.slow(Duration::from_secs(3600));
    bench.send("c00", HOUR, unlock("nas"));
    bench.send("c01", HOUR, unlock("nas"));
    bench.send("c02", HOUR, run_backup());
    let sent = tokio::time::Instant::now();
    bench.until("c02", CommandState::Running).await;
    assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
    assert_eq!(asked() - before, 1, "one at a time asks a repository");
    for (n, name) in names.iter().enumerate() {
        bench.send(&format!("d{n:02}"), HOUR, unlock(name));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(asked() - before, 16, "the whole is bounded");
    bench.restic.slow(Duration::ZERO);
    let mut done = std::collections::BTreeSet::new();
    let all = |_: &ApiServer| {
        for body in bench.spoke.context.commands.take_reports() {
            if let Body::CommandReport(report) = body
                && report.state() == CommandState::Done
            {
                done.insert(report.id);
            }
        }
        (done.len() == 32).then_some(())
    };
    bench.api.until("all have ended", all).await;
    bench.spoke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_last_stays_although_the_write_before_it_had_to_be_tried_again() {
    let bench = Bench::new(&[]).await;
    let away = Fault::new(Action::Refuse(503, "away".to_owned())).on("apply", "resticbackups");
    bench.api.fault(away.times(1));
    bench.send("c1", HOUR, suspend(false));
    bench.send("c2", HOUR, suspend(true));
    let waits = bench.until("c2", CommandState::Accepted).await;
    assert!(waits.text.contains("waits for c1"), "{}", waits.text);
    bench.until("c2", CommandState::Done).await;
    let applied = |request: &Request| {
        request.verb == "apply" && request.resource == "resticbackups" && request.code == Some(200)
    };
    let writes = bench.api.requests().into_iter().filter(applied).count();
    assert_eq!(writes, 2, "each was written once");
    let backup = bench.api.get::<ResticBackup>(SHOP, "orders").unwrap();
    assert!(!backup.spec.suspend);
    bench.spoke.stop().await;
}
