//! Parked runs are opened.

use serde_json::Value;

use super::*;
use crate::context::test_context_on;
use crate::queue::is_parked;
use crate::testing::{Action, ApiServer, Fault};

use super::super::{Children, Run};

const API: &str = "backup.resticbackup.io/v1alpha1";

/// A backup with a parked run, into the repository. The run as it is opened.
fn parked(server: &ApiServer, context: &Context, name: &str) -> Opening {
    let (cron_job, job) = (names::backup_cron_job(name), format!("{name}-1"));
    let backup = json!({ "apiVersion": API, "kind": "ResticBackup", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": {} } });
    let backup = serde_json::from_value(backup).unwrap();
    context
        .world
        .backups
        .put(Key::new("shop", name), Arc::new(backup));
    let stored = server.put(
        &json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": cron_job, "namespace": "shop" },
        "spec": { "schedule": "@daily", "jobTemplate": { "spec": { "template": {} } } } }),
    );
    let cron_uid = stored["metadata"]["uid"].clone();
    let view = CronJobView::of(&serde_json::from_value(stored).unwrap());
    context
        .world
        .cron_jobs
        .put(Key::new("shop", &cron_job), Arc::new(view));
    let stored = server.put(&json!({ "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": job, "namespace": "shop", "labels": { names::LABEL_BACKUP: name },
            "annotations": { names::ANNOTATION_PARKED: "true" },
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job, "uid": cron_uid, "controller": true }] },
        "spec": { "suspend": true, "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "restic" }] } } } }));
    let written: Job = serde_json::from_value(stored).unwrap();
    let at = key_of(&written);
    let view = JobView::of(&written);
    let uid = view.meta.uid.to_string();
    context.world.jobs.put(at.clone(), Arc::new(view));
    Opening { at, uid }
}

fn suspended(server: &ApiServer, opening: &Opening) -> Value {
    server.json::<Job>("shop", &opening.at.name)["spec"]["suspend"].clone()
}

#[tokio::test]
async fn of_two_runs_that_are_opened_at_once_the_place_is_for_one() {
    let server = ApiServer::new();
    let context = test_context_on(server.client());
    server.namespace("shop");
    let repository = json!({ "apiVersion": API, "kind": "ResticRepository", "metadata": { "name": "nas", "namespace": "shop" },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" }, "maxConcurrentBackups": 1 } });
    let repository = serde_json::from_value(repository).unwrap();
    context
        .world
        .repositories
        .put(Key::new("shop", "nas"), Arc::new(repository));
    let (first, second) = (parked(&server, &context, "a"), parked(&server, &context, "b"));
    let (one, other) = tokio::join!(open(&context, &second), open(&context, &first));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(
        (suspended(&server, &first), suspended(&server, &second)),
        (json!(false), json!(true))
    );
    let cached = context.world.jobs.get(&first.at).unwrap();
    assert!(
        !cached.suspended && !cached.parked && !is_parked(&cached),
        "the next look counts it"
    );
    assert!(open(&context, &second).await.is_ok());
    assert_eq!(suspended(&server, &second), json!(true));
    server.delete::<Job>("shop", &first.at.name);
    context.world.jobs.remove(&first.at, None);
    assert!(open(&context, &second).await.is_ok());
    assert_eq!(suspended(&server, &second), json!(false));
}

#[tokio::test]
async fn a_run_whose_opening_is_refused_keeps_its_place() {
    let server = ApiServer::new();
    let context = test_context_on(server.client());
    server.namespace("shop");
    let opening = parked(&server, &context, "a");
    server.fault(Fault::new(Action::Refuse(403, "no".to_owned())).on("patch", "jobs"));
    let children = Children {
        openings: vec![opening],
        opens: Some(true),
        ..Children::default()
    };
    let key = Key::new("shop", "a");
    let applied = children.apply(&context, &key, "b", &mut Contest::default()).await;
    assert!(applied.refused.is_some());
    assert!(
        context.places.closed().is_empty(),
        "it is tried again with pauses, not whenever the queue moves"
    );
}

#[tokio::test]
async fn a_run_that_is_made_anew_is_the_same_to_schedule_and_queue() {
    let server = ApiServer::new();
    let context = test_context_on(server.client());
    server.namespace("shop");
    let marks = json!({ names::ANNOTATION_PARKED: "true" });
    let stored = server.put(&json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "c", "namespace": "shop" },
        "spec": { "schedule": "@daily", "jobTemplate": { "metadata": { "annotations": marks },
            "spec": { "suspend": true, "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "restic" }] } } } } } }));
    let cron_job: CronJob = serde_json::from_value(stored).unwrap();
    let since: jiff::Timestamp = "2026-11-26T00:00:00Z".parse().unwrap();
    for (name, by_request) in [("c-1", false), ("c-2", true)] {
        let run = Run {
            name: name.to_owned(),
            instead_of: Some(Earlier {
                by_request,
                since: Some(since),
                command: None,
            }),
            ..Run::default()
        };
        let made = start(&context, &cron_job, &CronJobView::of(&cron_job), run).await;
        let Ok(at) = made else {
            panic!("{name} was refused")
        };
        let view = JobView::of(
            &serde_json::from_value(server.json::<Job>("shop", &at.as_ref().unwrap().name)).unwrap(),
        );
        assert_eq!(
            (view.by_request, view.parked, view.parked_since),
            (by_request, true, Some(since))
        );
    }
}
