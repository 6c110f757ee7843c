use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::kind::table::{Table, condition, forbidden, repository};

fn table(more: &Value) -> Table<BackupController> {
    table_of("orders", more)
}

fn table_of(name: &str, more: &Value) -> Table<BackupController> {
    let mut spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "0 3 * * *", "timezone": "Europe/Berlin",
                           "source": { "pvc": { "claimName": "data" } } });
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    let backup = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": name, "namespace": "ns", "uid": "b", "generation": 3 }, "spec": spec,
    });
    Table::new(BackupController::new(&Site::of_tests()), backup)
}

fn keep_two() -> Value {
    json!({ "retention": { "enabled": true, "policy": { "keepLast": 2 } } })
}

fn applied(table: &Table<BackupController>, observed: &Observed) -> GlobalRetentionPolicy {
    match table.plan(observed).children.policy {
        Some(PolicyChange::Apply(policy)) => *policy,
        other => panic!("{other:?}"),
    }
}

/// The policy as the API server has it after its own controller's turn.
fn stored(mut policy: GlobalRetentionPolicy, status: Value) -> Observed {
    policy.metadata.uid = Some("p".to_owned());
    policy.metadata.generation = Some(1);
    policy.status = serde_json::from_value(status).unwrap();
    Observed {
        repository: Some(repository()),
        policy: Some(Arc::new(policy)),
        ..Observed::default()
    }
}

fn conditions_of(list: &[(&str, &str, &str, &str)]) -> Value {
    let condition = |(type_, status, reason, message): &(&str, &str, &str, &str)| {
        json!({ "type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
    };
    list.iter().map(condition).collect()
}

fn shown(table: &Table<BackupController>, observed: &Observed) -> (String, String) {
    condition(&table.plan(observed).status.conditions, "RetentionReady")
}

#[test]
fn the_policy_selects_this_backup_of_this_cluster_alone_and_begins_with_a_preview() {
    let policy = applied(&table(&keep_two()), &Observed::default());
    assert_eq!(policy.metadata.name.as_deref(), Some("resticbackup-orders"));
    let owner = &policy.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
        ("ResticBackup", "b", Some(true))
    );
    let spec = serde_json::to_value(&policy.spec).unwrap();
    assert_eq!(
        spec["policies"],
        json!([{ "selector": { "tags": ["fleet.cluster=a", "fleet.cluster-uid=uid-of-a", "fleet.backup=ns/orders"] },
                 "retention": { "keepLast": 2 }, "groupBy": ["host", "tags"] }])
    );
    assert_eq!(
        (&spec["scope"], &spec["initialRun"], &spec["prune"]),
        (&json!("Cluster"), &json!("Preview"), &json!(false))
    );
    assert_eq!(spec["guard"], json!({ "maxRemovedPercent": 30 }));
    assert_eq!(
        (&spec["timezone"], spec.get("suspend")),
        (&json!("Europe/Berlin"), None),
        "a person may suspend it"
    );
    assert_eq!(spec["repositoryRef"], json!({ "name": "nas", "namespace": "ns" }));
    let taken =
        crate::retention::policies::spec_of(&Key::new("ns", "resticbackup-orders"), &policy, "a", "id");
    assert!(taken.own_cluster_only && taken.preview && taken.unclear.is_empty());
}

#[test]
fn what_is_given_is_carried_over() {
    let given = json!({
        "suspend": true,
        "retention": { "enabled": true, "policy": { "keepDaily": 7 }, "prune": true, "groupBy": ["paths"], "schedule": "5 6 * * 0" },
        "notifications": { "pushgateway": { "url": "http://p" }, "slack": { "credentialsSecretRef": { "name": "s" } } },
        "jobConfig": { "backoffLimit": 2, "activeDeadlineSeconds": 60, "concurrencyPolicy": "Allow", "nodeSelector": { "disk": "fast" } },
    });
    let spec = applied(&table(&given), &Observed::default()).spec;
    assert_eq!(
        (spec.prune, spec.suspend, spec.schedule.as_str()),
        (Some(true), true, "5 6 * * 0")
    );
    assert_eq!(spec.policies[0].group_by, ["paths"]);
    let job = spec.job_config.clone().unwrap();
    assert_eq!(
        (job.backoff_limit, job.active_deadline_seconds),
        (0, JobConfiguration::default().active_deadline_seconds)
    );
    assert_eq!(job.node_selector["disk"], "fast");
    assert!(spec.notifications.unwrap().slack.is_some());
}

#[test]
fn by_default_all_backups_of_a_repository_run_together_once_a_day() {
    let of = |name: &str| daily(&Key::new("ns", name));
    let schedule = |backup: &str| {
        let table = table_of(backup, &keep_two());
        applied(&table, &Observed::default()).spec.schedule
    };
    assert_eq!((schedule("a"), schedule("b")), (of("nas"), of("nas")));
    let times: std::collections::BTreeSet<String> = (0..50).map(|n| of(&format!("b{n}"))).collect();
    assert!(times.len() > 40, "{times:?}");
    for time in &times {
        assert!(
            Schedule::parse(time, "UTC").is_ok() && time.ends_with(" * * *"),
            "{time}"
        );
    }
}

#[test]
fn nothing_is_made_unless_it_is_switched_on_and_what_was_made_goes() {
    let on = applied(&table(&keep_two()), &Observed::default());
    for off in [
        json!({}),
        json!({ "retention": {} }),
        json!({ "retention": { "policy": { "keepLast": 2 } } }),
        json!({ "retention": { "enabled": false, "policy": {} } }),
    ] {
        let table = table(&off);
        let plan = table.plan(&Observed::default());
        assert_eq!(plan.children.policy, None);
        let observed = stored(
            on.clone(),
            json!({ "lastRun": "2026-01-01T00:00:00Z", "snapshotsLeft": 2 }),
        );
        let plan = table.plan(&observed);
        let at = Key::new("ns", "resticbackup-orders");
        assert_eq!(
            plan.children.policy,
            Some(PolicyChange::Delete {
                at,
                uid: "p".to_owned()
            })
        );
        assert_eq!(condition(&plan.status.conditions, "RetentionReady").0, "");
        assert_eq!(
            plan.status.snapshots_after_retention,
            Some(2),
            "what the last run left is still known"
        );
    }
}

#[test]
fn rules_that_keep_nothing_are_refused_and_the_backup_runs() {
    for (retention, words) in [
        (json!({ "enabled": true }), "keeps nothing"),
        (
            json!({ "enabled": true, "policy": { "keepTags": ["gold"] } }),
            "add keepLast: 1",
        ),
        (
            json!({ "enabled": true, "policy": { "keepLast": 1 }, "groupBy": ["user"] }),
            "groupBy",
        ),
        (
            json!({ "enabled": true, "policy": { "keepLast": 1 }, "schedule": "61 * * * *" }),
            "spec.retention.schedule",
        ),
        (
            json!({ "enabled": true, "policy": { "keepLast": 1 }, "schedule": "*/30 * * * *" }),
            "spec.retention.schedule: \"*/30 * * * *\" is due more than once an hour",
        ),
    ] {
        let on = applied(&table(&keep_two()), &Observed::default());
        let table = table(&json!({ "retention": retention }));
        let (reason, message) = shown(&table, &Observed::default());
        assert!(
            reason == "False/InvalidSpec" && message.contains(words),
            "{reason}: {message}"
        );
        // What others may remove is what this policy keeps no more: it stays.
        assert!(table.plan(&stored(on, json!({}))).children.policy.is_none());
    }
}

#[test]
fn an_object_of_somebody_else_is_left_alone() {
    let on = applied(&table(&keep_two()), &Observed::default());
    let mut observed = stored(
        on,
        json!({ "lastRun": "2026-01-01T00:00:00Z", "snapshotsLeft": 9 }),
    );
    for owner in [None, Some("another")] {
        let policy = Arc::make_mut(observed.policy.as_mut().unwrap());
        match owner {
            None => policy.metadata.owner_references = None,
            Some(uid) => {
                policy.metadata.owner_references = applied(&table(&keep_two()), &Observed::default())
                    .metadata
                    .owner_references
                    .map(|mut owners| {
                        owners[0].uid = uid.to_owned();
                        owners
                    })
            }
        }
        let plan = table(&keep_two()).plan(&observed);
        assert_eq!(plan.children.policy, None);
        assert_eq!(plan.status.snapshots_after_retention, None);
        let (reason, message) = condition(&plan.status.conditions, "RetentionReady");
        assert!(reason == "False/RetentionPolicyExists" && message.contains("ns/resticbackup-orders"));
        assert_eq!(
            table(&json!({})).plan(&observed).children.policy,
            None,
            "nor deleted"
        );
    }
}

#[test]
fn the_backup_shows_what_the_policy_says() {
    let table = table(&keep_two());
    let policy = || applied(&table, &Observed::default());
    let ready = ("Ready", "True", "RetentionPolicyConfigured", "");
    let of = |list: &[(&str, &str, &str, &str)], more: Value| {
        let mut status = json!({ "conditions": conditions_of(list) });
        for (name, value) in more.as_object().unwrap() {
            status[name] = value.clone();
        }
        shown(&table, &stored(policy(), status))
    };
    assert_eq!(shown(&table, &Observed::default()).0, "Unknown/RetentionStarting");
    assert_eq!(of(&[], json!({})).0, "Unknown/RetentionStarting");
    assert_eq!(of(&[ready], json!({})).0, "True/RetentionPolicyConfigured");
    let away = ("Ready", "False", "RepositoryNotReady", "no route");
    let (reason, message) = of(&[away], json!({}));
    assert!(reason == "False/RepositoryNotReady" && message.contains("no route"));
    let run = json!({ "lastRun": "2026-01-01T00:00:00Z", "lastRunResult": "Preview", "plan": "beef", "lastRunMessage": "would remove 2" });
    let (reason, message) = of(&[ready, ("Degraded", "False", "RetentionPreviewed", "")], run);
    assert_eq!(reason, "True/RetentionPreviewed");
    for words in [
        "would remove 2",
        "-n ns globalretentionpolicy/resticbackup-orders",
        "approve-plan=beef",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let (reason, message) = of(
        &[ready, ("ApprovalRequired", "True", "OverGuard", "approve beef")],
        json!({}),
    );
    assert!(
        reason == "False/OverGuard" && message.contains("approve beef"),
        "{reason}: {message}"
    );
    assert_eq!(
        of(&[ready, ("Degraded", "True", "RetentionFailed", "x")], json!({})).0,
        "False/RetentionFailed"
    );
    assert_eq!(
        of(
            &[ready, ("Degraded", "True", "NothingMatched", "x")],
            json!({ "lastRun": "2026-01-01T00:00:00Z" })
        )
        .0,
        "True/NothingMatched",
        "no backup has run yet"
    );
    let well = ("Degraded", "False", "RetentionSucceeded", "removed 2 of 4");
    let (reason, message) = of(&[ready, well], json!({ "lastRun": "2026-01-01T00:00:00Z" }));
    assert!(reason == "True/RetentionSucceeded" && message.contains("removed 2 of 4"));
    assert_eq!(
        of(&[ready, ("Waiting", "True", "HubAway", "x")], json!({})).0,
        "Unknown/HubAway"
    );
}

#[test]
fn a_run_is_shown_and_an_edited_policy_is_put_back() {
    let table = table(&keep_two());
    let status = json!({ "conditions": conditions_of(&[("Ready", "True", "RetentionPolicyConfigured", "")]),
                         "lastRun": "2026-01-01T00:00:00Z", "snapshotsLeft": 2 });
    let mut observed = stored(applied(&table, &Observed::default()), status);
    let shown_status = table.plan(&observed).status;
    assert_eq!(
        shown_status.last_retention_run.unwrap().0.to_string(),
        "2026-01-01T00:00:00Z"
    );
    assert_eq!(shown_status.snapshots_after_retention, Some(2));
    let policy = Arc::make_mut(observed.policy.as_mut().unwrap());
    policy.spec.policies[0].selector = PolicySelector::default();
    assert_eq!(shown(&table, &observed).0, "Unknown/RetentionStarting");
    assert_eq!(applied(&table, &observed).spec.policies[0].selector.tags.len(), 3);
}

#[test]
fn a_policy_that_cannot_be_written_does_not_keep_the_backup_from_running() {
    let table = table(&keep_two());
    let observed = Observed {
        repository: Some(repository()),
        source: super::super::locate::Surroundings {
            claims: [("data".to_owned(), Arc::new(super::super::plan_tests::bound()))].into(),
            ..super::super::locate::Surroundings::default()
        },
        ..Observed::default()
    };
    let settled = table.settle(&observed, Some(("GlobalRetentionPolicy", forbidden("no"))));
    let list = &settled.status.conditions;
    assert_eq!(condition(list, "Ready").0, "True/BackupConfigured");
    assert_eq!(condition(list, "RetentionReady").0, "False/RetentionPolicyFailed");
    assert!(settled.failed, "it is tried again");
}

#[test]
fn retention_that_is_switched_off_or_suspended_stops_although_the_rest_is_invalid() {
    let on = applied(&table(&keep_two()), &Observed::default());
    let with = |more: &Value| {
        let mut spec = json!({ "schedule": "61 * * * *" });
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        table(&spec)
    };
    let observed = stored(on, json!({}));
    let change = |more: &Value| with(more).plan(&observed).children.policy;
    let (at, uid) = (Key::new("ns", "resticbackup-orders"), "p".to_owned());
    assert_eq!(change(&keep_two()), None, "it stays as it is");
    let delete = PolicyChange::Delete {
        at: at.clone(),
        uid: uid.clone(),
    };
    assert_eq!(
        change(&json!({ "retention": { "enabled": false } })),
        Some(delete)
    );
    let mut off = keep_two();
    off["suspend"] = json!(true);
    let suspend = PolicyChange::Suspend { at, uid };
    assert_eq!(change(&off), Some(suspend.clone()));
    assert_eq!(shown(&with(&off), &observed).0, "True/RetentionSuspended");
    // The same when spec.retention itself is what is wrong.
    let bad = json!({ "suspend": true, "retention": { "enabled": true, "policy": {} } });
    assert_eq!(table(&bad).plan(&observed).children.policy, Some(suspend));
}

#[test]
fn a_policy_that_a_person_has_suspended_is_shown_as_such() {
    let table = table(&keep_two());
    let ready = conditions_of(&[("Ready", "True", "RetentionPolicyConfigured", "")]);
    let mut observed = stored(
        applied(&table, &Observed::default()),
        json!({ "conditions": ready }),
    );
    Arc::make_mut(observed.policy.as_mut().unwrap()).spec.suspend = true;
    let (reason, message) = shown(&table, &observed);
    assert!(
        reason == "True/RetentionSuspended" && message.contains("its own spec.suspend"),
        "{reason}: {message}"
    );
}
