//! Turns of a policy.

use proto::v1::OperationOutcome;
use serde_json::json;

use super::*;
use crate::exchange::{Finished, Progress};
use crate::kind::table::{Table, condition, forbidden, repository};
use crate::kind::{RefusedBecause, Removal, Run};
use crate::testing::config;

fn table() -> Table<RetentionController> {
    let policy = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
        "metadata": { "name": "nightly", "namespace": "ns", "uid": "p", "generation": 2 },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "0 4 * * *",
                  "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] },
    });
    Table::new(RetentionController::new(&Site::of_tests(), &config()), policy)
}

fn ready() -> Observed {
    Observed {
        repository: Some(repository()),
        shared: true,
        ..Observed::default()
    }
}

fn approve(hash: &str, restic_id: &str) -> Found {
    Found::Approved {
        hash: hash.to_owned(),
        restic_id: restic_id.to_owned(),
    }
}

#[test]
fn a_policy_asks_for_permission_before_it_makes_its_objects() {
    let table = table();
    let children = table.plan(&ready()).children;
    assert_eq!(children.permission.unwrap().restic_id, "id");
    assert!(children.account.is_some() && children.cron_job.is_some() && children.runs.is_empty());
    let settled = table.settle(&ready(), None);
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "True/RetentionPolicyConfigured"
    );
    assert_eq!(
        settled.status.next_run.unwrap().0.to_string(),
        "2026-01-01T04:00:00Z"
    );
    let text = "start it with a hub".to_owned();
    let settled = table.settle(&ready(), Some(("Lease", RefusedBecause::NotAllowed(text))));
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "False/HubRequired"
    );
    assert!(
        !settled.failed && settled.status.next_run.is_none(),
        "only a change helps"
    );
}

#[test]
fn a_cron_job_that_somebody_else_has_written_starts_nothing_until_it_is_made_anew() {
    let mut table = table();
    let of = |applied: Option<&str>, generation: i64, owner: &str, repository| Observed {
        repository,
        cron_job: Some(Arc::new(CronJobView {
            meta: crate::world::Meta {
                applied: applied.map(Into::into),
                owner: (!owner.is_empty()).then(|| owner.into()),
                generation,
                ..crate::world::Meta::default()
            },
            ..CronJobView::default()
        })),
        ..ready()
    };
    let schedule = [Removal::Schedule(Key::new("ns", "globalretention-nightly"))];
    let removals = |table: &Table<RetentionController>, observed| table.plan(&observed).children.removals;
    for owner in ["p", ""] {
        assert_eq!(removals(&table, of(None, 1, owner, None)), schedule);
        assert_eq!(
            removals(&table, of(Some("hash"), 1, owner, None)),
            schedule,
            "the original overwrites the spec, the mark stays, and the record is lost"
        );
    }
    assert_eq!(removals(&table, of(None, 1, "namesake", None)), []);
    let adopted = table.plan(&of(None, 1, "p", Some(repository()))).children;
    assert!(adopted.cron_job.is_some() && !adopted.removals.contains(&schedule[0]));
    let reference =
        json!({ "cronJobRef": { "namespace": "ns", "name": "globalretention-nightly", "generation": 3 } });
    table.resource.status = Some(serde_json::from_value(reference).unwrap());
    assert_eq!(
        removals(&table, of(Some("hash"), 3, "p", None)),
        [],
        "it is the spoke's"
    );
    assert_eq!(removals(&table, of(Some("hash"), 4, "p", None)), schedule);
    table.resource.spec.schedule = "now".to_owned();
    assert_eq!(removals(&table, of(None, 3, "p", Some(repository()))), schedule);
}

#[test]
fn the_cron_job_is_named_in_the_status() {
    let status = table().settle(&ready(), None).status;
    assert_eq!(status.observed_generation, Some(2));
    let reference = status.cron_job_ref.unwrap();
    assert_eq!(
        (reference.name.as_str(), reference.namespace.as_str()),
        ("globalretention-nightly", "ns")
    );
}

#[test]
fn slots_and_settings_are_those_of_the_spec() {
    let mut table = table();
    let settings = json!({ "successfulJobsHistoryLimit": 5, "failedJobsHistoryLimit": 0, "activeDeadlineSeconds": 60,
                           "backoffLimit": 4, "concurrencyPolicy": "Allow", "nodeSelector": { "disk": "ssd" } });
    table.resource.spec.job_config = Some(serde_json::from_value(settings).unwrap());
    table.resource.spec.timezone = Some("Europe/Berlin".to_owned());
    table.resource.spec.suspend = true;
    let (cron_job, _) = table.plan(&ready()).children.cron_job.unwrap();
    let spec = cron_job.spec;
    assert_eq!(
        (spec.time_zone.as_deref(), spec.suspend),
        (Some("Europe/Berlin"), Some(true))
    );
    assert_eq!(
        (spec.successful_jobs_history_limit, spec.failed_jobs_history_limit),
        (Some(5), Some(1))
    );
    assert_eq!(spec.concurrency_policy.as_deref(), Some("Forbid"));
    let job = spec.job_template.spec.unwrap();
    assert_eq!(
        (job.active_deadline_seconds, job.backoff_limit),
        (Some(60), Some(0))
    );
    let pod = job.template.spec.unwrap();
    assert_eq!(pod.node_selector.unwrap()["disk"], "ssd");
}

#[test]
fn an_approval_is_kept_until_its_job_is_made_and_counts_for_its_repository_only() {
    let mut table = table();
    table.found = vec![approve("abcd", "id"), approve("beef", "other")];
    let blocked = Observed {
        repository: None,
        ..ready()
    };
    table.state = table.settle(&blocked, None).state;
    table.found.clear();
    assert_eq!(table.state.approvals.len(), 2, "the repository was not ready");
    let runs = table.plan(&ready()).children.runs;
    let [Run { approves, .. }] = runs.as_slice() else {
        panic!("{runs:?}")
    };
    assert_eq!(approves.as_deref(), Some("abcd"));
    let refused = table.settle(&ready(), Some(("Job", forbidden("quota"))));
    assert_eq!(refused.state.approvals.len(), 2);
    assert_eq!(
        condition(&refused.status.conditions, "Ready").0,
        "False/JobCreationFailed"
    );
    assert!(table.settle(&ready(), None).state.approvals.is_empty());
    let job = JobView {
        approved: Some("abcd".into()),
        ..JobView::default()
    };
    let under_way = Observed {
        jobs: vec![Arc::new(job)],
        ..ready()
    };
    assert!(
        table.plan(&under_way).children.runs.is_empty(),
        "a run under it is under way"
    );
}

#[test]
fn a_result_is_recorded_whatever_else_is_wrong() {
    let mut table = table();
    table.resource.spec.schedule = "61 * * * *".to_owned();
    let finished = Finished {
        operation: "job".to_owned(),
        outcome: OperationOutcome {
            result: "Applied".to_owned(),
            ..OperationOutcome::default()
        },
        started: None,
        finished: None,
        token: Some(7),
        by: None,
        approved: None,
    };
    let observed = Observed {
        operations: vec![Operation {
            job_type: "retention".to_owned(),
            job: Key::new("ns", "job"),
            progress: Progress::Ended,
            finished: Some(finished),
        }],
        ..ready()
    };
    let status = table.plan(&observed).status;
    assert_eq!(condition(&status.conditions, "Ready").0, "False/InvalidSchedule");
    assert_eq!(
        (status.last_run_result.as_deref(), status.last_run_token),
        (Some("Applied"), Some(7))
    );
    assert_eq!(status.counted_jobs, ["job"]);
    let events = RetentionController::events(&GlobalRetentionPolicyStatus::default(), &status);
    let reasons: Vec<&str> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["InvalidSchedule", "RetentionSucceeded"]);
}

#[test]
fn the_last_known_repository_stays_while_it_is_deleted() {
    let mut table = table();
    table.resource.status = Some(table.settle(&ready(), None).status);
    let deleted = Observed {
        repository: None,
        ..ready()
    };
    assert_eq!(table.plan(&deleted).status.repository_id.as_deref(), Some("id"));
}

#[test]
fn figures_of_another_repository_are_forgotten() {
    let mut table = table();
    let mut status = table.settle(&ready(), None).status;
    status.left = vec![crds::retention::SnapshotsLeft {
        key: "cluster/c".to_owned(),
        snapshots: 3,
    }];
    table.resource.status = Some(status.clone());
    assert_eq!(table.plan(&ready()).status.left.len(), 1);
    status.repository_id = Some("other".to_owned());
    table.resource.status = Some(status);
    assert!(table.plan(&ready()).status.left.is_empty());
}

#[test]
fn a_name_that_differs_from_the_certificates_stops_maintenance_and_names_both() {
    let text = "FLEET_CLUSTER is \"a\" and the certificate names \"b\"".to_owned();
    let differs = Observed {
        name_differs: Some(text.clone()),
        ..ready()
    };
    let permission = table().plan(&differs).children.permission.unwrap();
    assert_eq!(permission.denied.as_ref(), Some(&text));
    let settled = table().settle(
        &differs,
        Some(("Lease", RefusedBecause::NotAllowed(text.clone()))),
    );
    let (ready, message) = condition(&settled.status.conditions, "Ready");
    assert_eq!((ready.as_str(), message), ("False/ClusterNameDiffers", text));
    assert!(!settled.failed && settled.status.next_run.is_none());
}

#[test]
fn without_a_hub_a_policy_of_an_operator_of_some_namespaces_is_not_run() {
    let mut table = table();
    let site = Site {
        namespaces: vec!["ns".to_owned()],
        ..Site::of_tests()
    };
    let denied = |table: &Table<RetentionController>, shared: bool| {
        let observed = Observed { shared, ..ready() };
        table.plan(&observed).children.permission.unwrap().denied
    };
    assert_eq!(denied(&table, false), None);
    table.controller = RetentionController::new(&site, &config());
    assert_eq!(denied(&table, true), None);
    let text = denied(&table, false).unwrap();
    assert!(text.contains("--namespaces") && text.contains("hub"), "{text}");
    let alone = Observed {
        shared: false,
        ..ready()
    };
    let settled = table.settle(&alone, Some(("Lease", RefusedBecause::NotAllowed(text.clone()))));
    let (ready, message) = condition(&settled.status.conditions, "Ready");
    assert_eq!((ready.as_str(), message), ("False/HubRequired", text));
}

fn cron_job(suspend: bool) -> Option<Arc<CronJobView>> {
    let view = CronJobView {
        suspend,
        ..CronJobView::default()
    };
    Some(Arc::new(view))
}

#[test]
fn no_next_run_is_shown_while_none_can_begin() {
    let mut table = table();
    let status = table.settle(&ready(), None).status;
    assert!(status.next_run.is_some());
    table.resource.status = Some(status);
    // A day later: what was shown before is over.
    table.now = crate::kind::table::at(table.now.wall.as_second() + 24 * 3600);
    let next = |cron_job, consent_ended| {
        let observed = Observed {
            repository: None,
            cron_job,
            consent_ended,
            ..ready()
        };
        table.settle(&observed, None).status.next_run
    };
    let tomorrow = next(cron_job(false), false).expect("its CronJob is not suspended");
    assert_eq!(tomorrow.0.to_string(), "2026-01-02T04:00:00Z");
    assert_eq!(next(cron_job(true), false), None, "the CronJob is suspended");
    assert_eq!(next(None, false), None, "there is no CronJob");
    assert_eq!(next(cron_job(false), true), None, "consent has ended");
}

#[test]
fn a_damaged_repository_shows_in_the_policy_until_a_check_passes() {
    let mut table = table();
    let degraded = |table: &Table<RetentionController>, observed: &Observed| {
        let plan = table.plan(observed);
        assert!(plan.children.cron_job.is_some(), "the schedule stays");
        (condition(&plan.status.conditions, "Degraded"), plan.status)
    };
    let mut damaged = (*repository()).clone();
    let status = damaged.status.as_mut().unwrap();
    status.integrity_check.get_or_insert_default().damage = Some(crds::integrity::Damage {
        message: "pack 1 does not exist".to_owned(),
        ..Default::default()
    });
    let observed = Observed {
        repository: Some(Arc::new(damaged)),
        ..ready()
    };
    let ((reason, text), status) = degraded(&table, &observed);
    assert_eq!(reason, "True/RepositoryDamaged");
    assert!(
        text.contains("no snapshot is removed") && text.contains("pack 1"),
        "{text}"
    );
    table.resource.status = Some(status);
    let ((reason, _), status) = degraded(&table, &ready());
    assert_eq!(reason, "False/IntegrityCheckPassed");
    table.resource.status = Some(status.clone());
    assert_eq!(table.plan(&ready()).status, status);
}
