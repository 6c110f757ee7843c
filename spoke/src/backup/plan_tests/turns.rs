//! Runs that may not begin yet.

use super::*;

#[test]
fn runs_are_held_while_maintenance_begins() {
    let table = table(json!({}));
    let observed = Observed {
        held: Some(Duration::from_secs(40)),
        ..ready()
    };
    let (cron_job, _) = table.plan(&observed).children.cron_job.unwrap();
    assert_eq!(cron_job.spec.suspend, Some(true));
    let settled = table.settle(&observed, None);
    assert!(
        condition(&settled.status.conditions, "Ready")
            .1
            .contains("maintenance")
    );
    let wait = settled.next.unwrap().duration_since(table.now.wall);
    assert_eq!(wait.as_secs(), 40);
}

/// The repository, not ready for this reason since half past midnight.
fn not_ready(reason: &str) -> Option<Arc<ResticRepository>> {
    let mut repository = ResticRepository::clone(&repository());
    let conditions = &mut repository.status.as_mut().unwrap().conditions;
    let ready = conditions.iter_mut().find(|c| c.type_ == "Ready").unwrap();
    (ready.status, ready.reason) = ("False".to_owned(), reason.to_owned());
    ready.last_transition_time.0 = "2025-12-29T00:30:00Z".parse().unwrap();
    Some(Arc::new(repository))
}

/// A Job that was made suspended, and waits for its turn.
fn parked(uid: &str) -> JobWithPods {
    let mut job = JobView {
        suspended: true,
        parked: true,
        ..JobView::default()
    };
    job.meta.uid = uid.into();
    JobWithPods {
        key: Key::new("ns", format!("resticbackup-orders-{uid}")),
        job: Arc::new(job),
        ..JobWithPods::default()
    }
}

#[test]
fn a_parked_run_is_opened_when_its_turn_comes_and_shows_its_place_until_then() {
    let mut table = table(json!({}));
    let waits = Waits {
        words: runs::Words {
            reason: "Parked".to_owned(),
            text: "resticbackup-orders-1: waiting for nas".to_owned(),
        },
        place: Some(3),
    };
    let with = |turn: Turn| Observed {
        runs: vec![parked("1")],
        turns: [("1".to_owned(), turn)].into(),
        ..ready()
    };
    let waits = table.plan(&with(Turn::Waits(waits)));
    assert!(waits.children.openings.is_empty());
    let (waiting, text) = condition(&waits.status.conditions, "Waiting");
    assert_eq!(
        (waiting.as_str(), text.as_str()),
        ("True/Parked", "resticbackup-orders-1: waiting for nas")
    );
    assert_eq!(waits.status.queue_place, Some(3));
    assert_eq!(waits.next, table.plan(&ready()).next, "its place is not polled");
    assert!(waits.status.active.is_empty(), "maintenance does not wait for it");
    let begins = table.plan(&with(Turn::Begins));
    assert_eq!(begins.status.queue_place, None);
    let begins = begins.children;
    assert_eq!((begins.openings.len(), begins.opens), (1, Some(true)));

    // Before turns are computed, as after a change of leader.
    table.resource.status = Some(waits.status.clone());
    let unknown = Observed {
        runs: vec![parked("1")],
        ..ready()
    };
    let unknown = table.plan(&unknown).status;
    assert_eq!(unknown.queue_place, Some(3));
    assert_eq!(
        condition(&unknown.conditions, "Waiting"),
        condition(&waits.status.conditions, "Waiting")
    );
}

/// A backup whose parked run has its turn.
fn turned() -> Observed {
    Observed {
        runs: vec![parked("1")],
        turns: [("1".to_owned(), Turn::Begins)].into(),
        ..ready()
    }
}

#[test]
fn a_run_whose_backup_may_not_run_takes_no_place() {
    let table = table(json!({}));
    let held = Observed {
        held: Some(Duration::from_secs(5)),
        ..turned()
    };
    let down = Observed {
        repository: not_ready("RepositoryUnreachable"),
        ..turned()
    };
    let no_claim = Observed {
        source: locate::Surroundings::default(),
        ..turned()
    };
    let no_consent = Observed {
        consent_ended: true,
        ..turned()
    };
    for stopped in [held, down, no_claim, no_consent] {
        let plan = table.plan(&stopped);
        assert_eq!(
            (plan.children.openings.len(), plan.children.opens),
            (0, Some(false))
        );
        let (_, text) = condition(&plan.status.conditions, "Waiting");
        assert_eq!(
            text,
            "resticbackup-orders-1: it is opened when the backup is ready"
        );
    }
    assert_eq!(table.plan(&ready()).children.opens, None, "no run is parked");
}

#[test]
fn what_would_not_stop_the_cron_job_does_not_keep_a_run_parked() {
    let mut table = table(json!({}));
    for reason in ["ResticFailed", "RepositoryLocked", "CredentialsInvalid"] {
        let waiting = Observed {
            repository: not_ready(reason),
            ..turned()
        };
        assert_eq!(table.plan(&waiting).children.openings.len(), 1, "{reason}");
    }
    table.resource.spec.schedule = "61 * * * *".to_owned();
    assert_eq!(table.plan(&turned()).children.openings.len(), 1, "a typing error");
    table.resource.spec.restic = serde_json::from_value(json!({ "tags": ["fleet.cluster=b"] })).unwrap();
    table.resource.spec.schedule = "0 3 * * *".to_owned();
    assert!(table.plan(&turned()).children.openings.is_empty(), "unsafe");
}

#[test]
fn no_run_begins_while_the_storage_does_not_serve_and_then_they_go_on() {
    let table = table(json!({ "backup.resticbackup.io/run": "1" }));
    let down = Observed {
        repository: not_ready("RepositoryUnreachable"),
        cron_job: cron_job(false),
        ..ready()
    };
    let plan = table.plan(&down);
    let schedule = Removal::Schedule(Key::new("ns", "resticbackup-orders"));
    assert_eq!(plan.children.removals, [schedule]);
    assert!(plan.children.cron_job.is_none() && plan.children.runs.is_empty());
    let settled = table.settle(&down, None);
    let (reason, text) = condition(&settled.status.conditions, "Ready");
    assert_eq!(reason, "False/RepositoryNotReady");
    assert!(
        text.contains("since 2025-12-29T00:31:30Z no run begins: 3 were due"),
        "{text}"
    );
    assert_eq!(settled.status.next_backup, None);
    let next = settled.next.unwrap();
    assert_eq!(
        next.to_string(),
        "2026-01-01T03:00:00Z",
        "the next slot, and no turn before"
    );
    let (healed, _) = table.plan(&ready()).children.cron_job.unwrap();
    assert_eq!(healed.spec.suspend, Some(false));
    let unknown = Observed {
        repository: not_ready("ResticFailed"),
        ..down
    };
    assert!(
        table.plan(&unknown).children.removals.is_empty(),
        "pods may well reach it"
    );
}

#[test]
fn no_run_by_request_begins_while_runs_are_held() {
    let table = table(json!({ "backup.resticbackup.io/run": "1" }));
    let held = Observed {
        held: Some(std::time::Duration::from_secs(5)),
        ..ready()
    };
    assert!(table.plan(&held).children.runs.is_empty());
    assert_eq!(table.plan(&ready()).children.runs.len(), 1);
}

#[test]
fn a_run_that_waits_for_the_old_node_counts_as_no_run() {
    let mut table = table(json!({ "backup.resticbackup.io/run": "now" }));
    let status = json!({ "active": ["resticbackup-orders-1"], "lastRunRequest": "now" });
    table.resource.status = Some(serde_json::from_value(status).unwrap());
    let mut observed = ready();
    let pinned = crate::world::JobView {
        nodes: vec!["gone".into()],
        ..crate::world::JobView::default()
    };
    let pod = crate::world::PodView {
        phase: "Pending".into(),
        unschedulable: Some("0/1 nodes are available".into()),
        ..crate::world::PodView::default()
    };
    observed.runs = vec![JobWithPods {
        key: Key::new("ns", "resticbackup-orders-1"),
        job: Arc::new(pinned),
        pods: vec![(Key::new("ns", "p"), Arc::new(pod))],
        delivery: crate::world::Delivery::complete(jiff::Timestamp::MIN),
        ..JobWithPods::default()
    }];
    let plan = table.plan(&observed);
    assert_eq!(plan.children.runs.len(), 1);
    assert!(
        plan.children
            .removals
            .iter()
            .any(|r| matches!(r, Removal::Job { .. }))
    );
    assert!(plan.status.active.is_empty() && plan.status.statistics.is_none());
    let settled = table.settle(&observed, None).status;
    assert_eq!(
        settled.last_run_request.as_deref(),
        Some("now"),
        "what was asked for is done once"
    );
}

fn cron_job(suspend: bool) -> Option<Arc<CronJobView>> {
    let (mut view, uid) = (CronJobView::default(), "cron-job");
    (view.suspend, view.meta.uid) = (suspend, uid.into());
    Some(Arc::new(view))
}

#[test]
fn no_next_backup_is_shown_while_none_can_begin() {
    let mut table = table(json!({}));
    table.resource.spec.repository_ref.namespace = Some("storage".to_owned());
    let mut elsewhere = ResticRepository::clone(&repository());
    elsewhere.metadata.namespace = Some("storage".to_owned());
    elsewhere.spec.allowed_namespaces = serde_json::from_value(json!({ "from": "All" })).unwrap();
    let well = Observed {
        repository: Some(Arc::new(elsewhere.clone())),
        cron_job: cron_job(false),
        ..ready()
    };
    let status = table.settle(&well, None).status;
    assert!(status.next_backup.is_some());
    table.resource.status = Some(status);
    elsewhere.status = None;
    let unready = Some(Arc::new(elsewhere));
    let next = |observed: &Observed| table.settle(observed, None).status.next_backup;
    let goes_on = Observed {
        repository: unready.clone(),
        cron_job: cron_job(false),
        ..ready()
    };
    assert!(next(&goes_on).is_some(), "its CronJob is not suspended");
    for (repository, consent_ended, cron_job, what) in [
        (
            None,
            true,
            cron_job(false),
            "the repository was deleted: consent has ended",
        ),
        (unready.clone(), true, cron_job(false), "consent has ended"),
        (unready.clone(), false, cron_job(true), "the CronJob is suspended"),
        (unready, false, None, "there is no CronJob"),
    ] {
        let observed = Observed {
            repository,
            consent_ended,
            cron_job,
            ..ready()
        };
        assert_eq!(next(&observed), None, "{what}");
    }
}
