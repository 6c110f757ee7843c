use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use super::*;
use crate::backup::plan_tests::bound;
use crate::kind::table::{Table, condition, repository};
use crate::world::{HookContainer, HookContainers, JobEnd, JobView, Key, PodView, Termination};

fn exec(seconds: &str) -> Value {
    json!({ "exec": { "podSelector": { "matchLabels": { "app": "db" } }, "command": ["true"], "timeout": seconds } })
}

fn table() -> Table<BackupController> {
    let hooks = json!({ "preBackup": exec("60s"), "postBackup": exec("30s") });
    let backup = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "ns", "uid": "b", "generation": 3 },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "0 3 * * *", "source": { "pvc": { "claimName": "data" } },
                  "hooks": hooks },
    });
    Table::new(BackupController::new(&Site::of_tests()), backup)
}

const PLAN: &str = r#"{"subject":"Backup","owner":{"kind":"ResticBackup","name":"orders","uid":"b"},"account":"resticbackup-orders",
    "before":{"exec":{"selector":{"matchLabels":{"app":"db"}},"container":null,"command":["true"],"seconds":60}},
    "after":{"exec":{"selector":{"matchLabels":{"app":"db"}},"container":null,"command":["true"],"seconds":30}}}"#;

/// A Job that is over since a minute; restic's exit code, if it ran, and what the hook containers reported.
fn over(table: &Table<BackupController>, restic: Option<i32>, reports: [&str; 2]) -> JobWithPods {
    let at = jiff::Timestamp::from_second(table.now.wall.as_second() - 60).unwrap();
    let ended = |exit_code, message: &str| Termination {
        exit_code,
        reason: "".into(),
        message: message.into(),
        started: Some(at),
        finished: Some(at),
    };
    let container = |message: &str| HookContainer {
        started: Some(at),
        running: false,
        ended: Some(ended(i32::from(restic.is_none()), message)),
    };
    let failed = JobEnd::Failed {
        reason: "BackoffLimitExceeded".into(),
        message: "its words".into(),
    };
    let mut job = JobView {
        end: Some((
            Some(at),
            if restic == Some(0) {
                JobEnd::Complete
            } else {
                failed
            },
        )),
        hooks: Some(PLAN.into()),
        tried: true,
        ..JobView::default()
    };
    job.meta.uid = "job".into();
    let message = r#"{"exitCode":0,"summary":{"snapshot_id":"abc","total_files_processed":1},"items":[]}"#;
    let pod = PodView {
        phase: "Failed".into(),
        scheduled: true,
        stopped: true,
        restic: restic.map(|code| ended(code, message)),
        hooks: HookContainers {
            before: Some(container(reports[0])),
            after: Some(container(reports[1])),
            grace: 30,
        },
        ..PodView::default()
    };
    JobWithPods {
        key: Key::new("ns", "resticbackup-orders-1"),
        job: Arc::new(job),
        pods: vec![(Key::new("ns", "pod"), Arc::new(pod))],
        ..JobWithPods::default()
    }
}

fn observed(run: JobWithPods) -> Observed {
    Observed {
        runs: vec![run],
        ..Observed::default()
    }
}

const BEFORE: &str = r#"{"hooks":[{"name":"preBackup","how":"Succeeded","millis":100}]}"#;

fn after(how: &str) -> String {
    json!({ "hooks": [{ "name": "postBackup", "how": how, "message": "its words" }] }).to_string()
}

#[test]
fn a_failed_hook_after_a_good_backup_is_owed_whatever_the_spec_says_then() {
    let mut table = table();
    let run = over(&table, Some(0), [BEFORE, &after("Failed")]);
    let plan = table.plan(&observed(run.clone()));
    let last = plan.status.last_backup.clone().unwrap();
    assert_eq!(
        (last.result, last.reason.as_deref(), last.snapshot_id.as_deref()),
        (BackupResult::PartiallyFailed, Some("PostHookFailed"), Some("abc"))
    );
    assert!(
        last.message
            .unwrap()
            .contains("postBackup hook has not ended well: its words")
    );
    assert_eq!(last.hooks.len(), 2);
    let name = names::hook_job("resticbackup-orders", "job");
    let job = plan.children.job.unwrap();
    assert_eq!(job.metadata.name.as_deref(), Some(name.as_str()));
    let (degraded, text) = condition(&plan.status.conditions, "Degraded");
    assert_eq!(degraded, "True/PostHookFailed");
    assert!(text.contains(&name), "{text}");

    // The next turns find it in the status, also when the spec has become another one, or none.
    table.resource.status = Some(plan.status);
    let mut ready = observed(run.clone());
    ready.repository = Some(repository());
    ready.source.claims = [("data".to_owned(), Arc::new(bound()))].into();
    let annotations = table.resource.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_RUN.to_owned(), "now".to_owned());
    for hooks in [table.resource.spec.hooks.clone(), None] {
        table.resource.spec.hooks = hooks;
        let children = table.plan(&ready).children;
        assert!(children.job.is_some());
        let (cron_job, _) = children.cron_job.unwrap();
        assert!(
            cron_job.spec.suspend == Some(true) && children.runs.is_empty(),
            "what is run now would undo what the hook before the next run does"
        );
        let rules = children.grant.unwrap().0.rules.unwrap();
        let exec = |rule: &PolicyRule| rule.resources == Some(vec!["pods/exec".to_owned()]);
        assert!(rules.iter().any(exec), "the hook that is owed needs its right");
        assert!(
            !children
                .removals
                .iter()
                .any(|r| matches!(r, crate::kind::Removal::Grant(_)))
        );
    }
    table.resource.spec.schedule = "nonsense".to_owned();
    assert!(table.plan(&observed(run)).children.job.is_some());
}

#[test]
fn a_run_whose_hook_before_failed_says_so_and_one_that_went_well_owes_nothing() {
    let table = table();
    let failed =
        json!({ "hooks": [{ "name": "preBackup", "how": "Failed", "message": "exit code 7: away" }] });
    let run = over(&table, None, [&failed.to_string(), &after("Succeeded")]);
    let plan = table.plan(&observed(run));
    let last = plan.status.last_backup.unwrap();
    assert_eq!(last.reason.as_deref(), Some("PreHookFailed"));
    assert!(last.message.unwrap().contains("exit code 7: away"));
    assert!(plan.status.open_hooks.is_empty() && plan.children.job.is_none());

    let run = over(&table, Some(0), [BEFORE, &after("Succeeded")]);
    let plan = table.plan(&observed(run));
    assert_eq!(plan.status.last_backup.unwrap().result, BackupResult::Succeeded);
    assert!(plan.status.open_hooks.is_empty() && plan.children.job.is_none());
}
