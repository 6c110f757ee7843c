//! Turns of a backup.

mod turns;

use serde_json::json;

use super::*;
use crate::kind::Removal;
use crate::kind::table::{Table, condition, forbidden, invalid, repository, unavailable};
use crate::queue::{Turn, Waits};
use crate::runs::finished::Finished;
use crate::world::{
    Access, AppPodView, AppVolume, Backing, ClaimView, JobEnd, JobView, PodView, Termination,
};

fn table(annotations: serde_json::Value) -> Table<BackupController> {
    let backup = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "ns", "uid": "b", "generation": 3, "annotations": annotations },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "0 3 * * *", "source": { "pvc": { "claimName": "data" } } },
    });
    Table::new(BackupController::new(&Site::of_tests()), backup)
}

pub(super) fn bound() -> ClaimView {
    ClaimView {
        phase: "Bound".into(),
        ..ClaimView::default()
    }
}

fn ready() -> Observed {
    Observed {
        repository: Some(repository()),
        source: locate::Surroundings {
            claims: [("data".to_owned(), Arc::new(bound()))].into(),
            ..locate::Surroundings::default()
        },
        ..Observed::default()
    }
}

#[test]
fn a_backup_that_may_run_gets_its_objects_and_then_is_ready() {
    let table = table(json!({}));
    let plan = table.plan(&ready());
    assert!(plan.children.account.is_some() && plan.children.cron_job.is_some());
    assert!(plan.children.credentials.is_none() && plan.children.runs.is_empty() && plan.work.is_empty());
    assert_eq!(
        condition(&plan.status.conditions, "Ready").0,
        "",
        "nothing was applied yet"
    );
    let settled = table.settle(&ready(), None);
    let status = settled.status;
    assert_eq!(condition(&status.conditions, "Ready").0, "True/BackupConfigured");
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.cron_job_ref.unwrap().generation, Some(1));
    let next = status.next_backup.unwrap().0;
    assert_eq!(next.to_string(), "2026-01-01T03:00:00Z");
    assert_eq!(settled.next.unwrap().duration_since(next).as_secs(), 1);
    assert!(!settled.failed);
}

#[test]
fn the_state_of_the_repository_is_a_condition_of_its_own() {
    let table = table(json!({}));
    let mut unready = ResticRepository::clone(&repository());
    unready.status = None;
    for (repository, expected) in [
        (Some(repository()), "True/RepositoryReady"),
        (Some(Arc::new(unready)), "False/RepositoryNotReady"),
        (None, "False/RepositoryNotFound"),
    ] {
        let observed = Observed {
            repository,
            ..ready()
        };
        let status = table.settle(&observed, None).status;
        assert_eq!(condition(&status.conditions, "RepositoryReady").0, expected);
    }
}

#[test]
fn the_object_that_is_refused_is_named_in_reason_and_message() {
    let table = table(json!({ "backup.resticbackup.io/run": "1" }));
    for (kind, cause, reason) in [
        ("ServiceAccount", forbidden("quota"), "False/ServiceAccountFailed"),
        ("CronJob", invalid("no"), "False/CronJobFailed"),
        ("Job", forbidden("quota"), "False/JobCreationFailed"),
        ("CronJob", unavailable(), "Unknown/ApiError"),
    ] {
        let settled = table.settle(&ready(), Some((kind, cause)));
        let (ready, message) = condition(&settled.status.conditions, "Ready");
        assert_eq!(ready, reason);
        assert!(message.starts_with(&format!("{kind} ")), "{message}");
        assert!(settled.failed && settled.status.last_run_request.is_none());
    }
}

#[test]
fn an_api_server_that_is_away_changes_nothing_that_is_known() {
    let mut table = table(json!({}));
    table.resource.status = Some(table.settle(&ready(), None).status);
    table.resource.metadata.generation = Some(4);
    let settled = table.settle(&ready(), Some(("CronJob", unavailable())));
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "True/BackupConfigured"
    );
    assert_eq!(
        settled.status.observed_generation,
        Some(3),
        "Ready is about the spec before"
    );
    assert!(settled.failed);
}

#[test]
fn a_run_is_asked_for_once() {
    let mut table = table(json!({ "backup.resticbackup.io/run": "now" }));
    let first = table.plan(&ready()).children.runs;
    assert_eq!(first.len(), 1);
    assert_eq!(
        table.plan(&ready()).children.runs,
        first,
        "the name follows from the request"
    );
    let status = table.settle(&ready(), None).status;
    assert_eq!(status.last_run_request.as_deref(), Some("now"));
    table.resource.status = Some(status);
    assert!(table.plan(&ready()).children.runs.is_empty());
}

#[test]
fn what_was_made_stops_when_consent_ends() {
    let elsewhere = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "storage", "uid": "r" },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } } });
    let mut table = table(json!({}));
    table.resource.spec.repository_ref.namespace = Some("storage".to_owned());
    for (repository, reason) in [
        (Some(elsewhere), "False/NamespaceNotAllowed"),
        (None, "False/RepositoryNotFound"),
    ] {
        let observed = Observed {
            repository: repository.map(|r| Arc::new(serde_json::from_value(r).unwrap())),
            consent_ended: true,
            ..ready()
        };
        let plan = table.plan(&observed);
        assert_eq!(condition(&plan.status.conditions, "Ready").0, reason);
        let credentials = Removal::Credentials(Key::new("ns", "resticbackup-orders-credentials"));
        let schedule = Removal::Schedule(Key::new("ns", "resticbackup-orders"));
        let rights = Removal::Grant(Key::new("ns", "resticbackup-orders"));
        assert_eq!(plan.children.removals, [credentials, schedule, rights]);
        assert!(plan.children.cron_job.is_none());
    }
}

#[test]
fn a_repository_elsewhere_needs_a_copy_of_its_credentials() {
    let mut elsewhere = ResticRepository::clone(&repository());
    elsewhere.metadata.namespace = Some("storage".to_owned());
    elsewhere.spec.allowed_namespaces = serde_json::from_value(json!({ "from": "All" })).unwrap();
    let mut table = table(json!({}));
    table.resource.spec.repository_ref.namespace = Some("storage".to_owned());
    let observed = Observed {
        repository: Some(Arc::new(elsewhere)),
        ..ready()
    };
    let children = table.plan(&observed).children;
    assert!(children.credentials.is_some());
    assert!(matches!(children.removals[..], [Removal::Grant(_)]));
}

#[test]
fn a_spec_that_would_give_keys_away_stops_what_an_earlier_version_made() {
    let mut table = table(json!({}));
    table.resource.spec.restic = serde_json::from_value(json!({ "tags": ["fleet.cluster=b"] })).unwrap();
    let plan = table.plan(&ready());
    assert_eq!(condition(&plan.status.conditions, "Ready").0, "False/InvalidSpec");
    assert_eq!(plan.children.removals.len(), 3);
    table.resource.spec.restic = None;
    table.resource.spec.schedule = "61 * * * *".to_owned();
    assert!(
        table.plan(&ready()).children.removals.is_empty(),
        "a typing error does not stop it"
    );
}

#[test]
fn the_schedule_follows_the_node_of_the_application() {
    let table = table(json!({}));
    let node_of = |observed: &Observed| {
        let (cron_job, _) = table.plan(observed).children.cron_job.unwrap();
        let affinity = cron_job
            .spec
            .job_template
            .spec
            .unwrap()
            .template
            .spec
            .unwrap()
            .affinity;
        serde_json::to_string(&affinity).unwrap()
    };
    let mut observed = ready();
    assert_eq!(node_of(&observed), "null");
    let claim = ClaimView {
        access: Access::Node,
        ..bound()
    };
    observed.source.claims.insert("data".to_owned(), Arc::new(claim));
    for node in ["n1", "n2"] {
        let pod = AppPodView {
            node: node.into(),
            volumes: vec![AppVolume {
                name: "v".into(),
                backing: Backing::Claim("data".into()),
                mounts: Vec::new(),
            }],
            ..AppPodView::default()
        };
        observed.source.pods = [(Key::new("ns", "app"), Arc::new(pod))].into();
        assert!(node_of(&observed).contains(&format!("\"values\":[\"{node}\"]")));
    }
}

#[test]
fn only_a_command_in_another_pod_gets_a_right_and_loses_it_again() {
    let mut table = table(json!({}));
    let with_right = |table: &Table<BackupController>, observed: &Observed| {
        let children = table.plan(observed).children;
        let removed = children
            .removals
            .iter()
            .any(|r| matches!(r, Removal::Grant(at) if *at.name == *"resticbackup-orders"));
        (children.grant.is_some(), removed)
    };
    assert_eq!(with_right(&table, &ready()), (false, true));
    let stdin = json!({ "filename": "a.sql", "exec": { "podSelector": { "matchLabels": { "app": "db" } }, "command": ["dump"] } });
    table.resource.spec.source = serde_json::from_value(json!({ "stdin": stdin })).unwrap();
    let mut observed = ready();
    let plan = table.plan(&observed);
    assert_eq!(condition(&plan.status.conditions, "Ready").0, "False/PodNotFound");
    assert!(
        matches!(plan.children.removals[..], [Removal::Schedule(_)]),
        "nothing is dumped without a pod"
    );
    let pod = AppPodView {
        running: true,
        ..AppPodView::default()
    };
    observed.source.pods = [(Key::new("ns", "db-0"), Arc::new(pod))].into();
    assert_eq!(with_right(&table, &observed), (true, false));
    let settled = table.settle(
        &observed,
        Some((
            "Role",
            forbidden("attempting to grant RBAC permissions not currently held"),
        )),
    );
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "False/RoleFailed"
    );
}

/// A Job that has ended at `second`, with its pod.
fn ended_run(second: i64) -> (JobWithPods, Finished) {
    let at = jiff::Timestamp::from_second(second).unwrap();
    let mut job = JobView::default();
    job.meta.uid = "job".into();
    job.end = Some((Some(at), JobEnd::Complete));
    let message = r#"{"result":"Succeeded"}"#;
    let mut pod = PodView {
        phase: "Succeeded".into(),
        restic: Some(Termination {
            exit_code: 0,
            reason: "Completed".into(),
            message: message.into(),
            started: Some(at),
            finished: Some(at),
        }),
        ..PodView::default()
    };
    pod.meta.uid = "pod".into();
    let place = Key::new("ns", "pod");
    let finished = Finished {
        at: place.clone(),
        uid: "pod".to_owned(),
        job_uid: "job".to_owned(),
    };
    let run = JobWithPods {
        key: Key::new("ns", "resticbackup-orders-1"),
        job: Arc::new(job),
        pods: vec![(place, Arc::new(pod))],
        ..JobWithPods::default()
    };
    (run, finished)
}

#[test]
fn a_result_is_in_the_status_before_its_pod_is_deleted() {
    let mut table = table(json!({}));
    let (run, pod) = ended_run(table.now.wall.as_second() - 60);
    // A claim that is being deleted takes the pod of a run that failed along too.
    let mut claim = bound();
    claim.meta.deleting = true;
    let observed = Observed {
        source: locate::Surroundings {
            claims: [("data".to_owned(), Arc::new(claim))].into(),
            ..locate::Surroundings::default()
        },
        runs: vec![run],
        ..ready()
    };
    let plan = table.plan(&observed);
    assert_eq!(plan.children.finished, [], "the result is not written yet");
    assert_eq!(plan.status.counted_jobs, ["job"]);
    assert_eq!(plan.next, Some(table.now.wall), "the next turn follows at once");
    // As long as the status could not be written, nothing changes.
    assert_eq!(table.plan(&observed).children.finished, []);
    table.resource.status = Some(plan.status);
    assert_eq!(table.plan(&observed).children.finished, [pod]);
}
