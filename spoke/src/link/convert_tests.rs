use serde_json::json;

use super::*;

#[test]
fn a_password_in_a_url_never_leaves_the_cluster() {
    let repository: ResticRepository = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "u" },
        "spec": { "repositoryURL": "rest:https://fleet:hidden@nas:8000/", "credentialsSecretRef": { "name": "nas" } },
        "status": { "repositoryID": "f00d", "statistics": { "totalSizeBytes": 5, "snapshotCount": 2 } },
    }))
    .unwrap();
    let state = repository_state(&repository);
    assert!(!format!("{state:?}").contains("hidden"));
    let Some(Body::Repository(body)) = state.body else {
        panic!()
    };
    assert_eq!(
        (body.restic_id.as_str(), body.statistics.unwrap().stored_bytes),
        ("f00d", 5)
    );
}

#[test]
fn a_backups_last_run_is_sent() {
    let backup: ResticBackup = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u", "generation": 2 },
        "spec": { "repositoryRef": { "name": "nas", "namespace": "" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } },
        "status": { "lastBackup": { "result": "PartiallyFailed", "reason": "FilesUnreadable", "bytesAdded": 7 },
                    "statistics": { "totalBackups": 3, "failedBackups": 1 } },
    }))
    .unwrap();
    let Some(Body::Backup(body)) = backup_state(&backup, None).body else {
        panic!()
    };
    assert_eq!(
        (body.repository_namespace.as_str(), body.source.as_str()),
        ("shop", "pvc/data")
    );
    let run = body.last_run.unwrap();
    assert_eq!(
        (run.result(), run.bytes_added),
        (v1::BackupResult::PartiallyFailed, 7)
    );
}

#[test]
fn a_backup_is_under_way_before_its_pod_runs() {
    let mut backup: ResticBackup = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } },
        "status": { "active": ["resticbackup-orders-1"],
                    "conditions": [{ "type": "Progressing", "status": "False", "reason": "BackupStarting", "message": "",
                                     "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    }))
    .unwrap();
    let activity = |backup: &ResticBackup| {
        let Some(Body::Backup(body)) = backup_state(backup, None).body else {
            panic!()
        };
        (body.running, body.under_way)
    };
    assert_eq!(activity(&backup), (false, true));
    backup.status.as_mut().unwrap().active.clear();
    assert_eq!(activity(&backup), (false, false));
}

/// The hub knows when a backup is due without knowing how `H` is resolved.
#[test]
fn a_schedule_is_sent_as_the_cron_job_has_it() {
    let sent = |schedule: &str| {
        let backup: ResticBackup = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": "orders", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": schedule, "source": { "pvc": { "claimName": "data" } } },
        }))
        .unwrap();
        let Some(Body::Backup(body)) = backup_state(&backup, None).body else {
            panic!()
        };
        body.schedule
    };
    assert_eq!(sent("H H * * *"), "5 5 * * *");
    assert_eq!(sent("@daily"), "@daily");
    assert_eq!(sent("H(99-1) * * * *"), "H(99-1) * * * *");
}

#[test]
fn a_restore_names_its_repository_through_its_backup() {
    let world = World::default();
    let backup: ResticBackup = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "b", "resourceVersion": "1" },
        "spec": { "repositoryRef": { "name": "nas", "namespace": "store" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } },
    }))
    .unwrap();
    let restore: ResticRestore = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
        "metadata": { "name": "back", "namespace": "shop", "uid": "u", "resourceVersion": "2" },
        "spec": { "backupRef": { "name": "orders" }, "target": { "newPVC": { "name": "data2", "size": "1Gi" } } },
        "status": { "phase": "InProgress", "restoredFiles": 3 },
    }))
    .unwrap();
    let key = |name: &str| Key::new("shop", name);
    world.backups.put(key("orders"), std::sync::Arc::new(backup));
    world.restores.put(key("back"), std::sync::Arc::new(restore));
    let state = state(&world, &Outbox::default(), &(Kind::Restore, key("back"))).unwrap();
    let Some(Body::Restore(body)) = state.body else {
        panic!()
    };
    assert_eq!(
        (body.repository_namespace.as_str(), body.repository_name.as_str()),
        ("store", "nas")
    );
    assert_eq!(
        (body.phase.as_str(), body.files, body.target.as_str()),
        ("InProgress", 3, "pvc/data2")
    );
}

#[test]
fn the_hub_knows_when_a_policy_is_due_and_when_it_may_run() {
    let sent = |spec: serde_json::Value| {
        let mut full = json!({ "repositoryRef": { "name": "nas" }, "schedule": "H 4 * * *", "policies": [] });
        for (name, value) in spec.as_object().unwrap() {
            full[name] = value.clone();
        }
        let policy: GlobalRetentionPolicy = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "nightly", "namespace": "shop", "uid": "u" }, "spec": full,
        }))
        .unwrap();
        match policy_state(&Key::new("shop", "nightly"), &policy, "id".to_owned()).body {
            Some(Body::Policy(body)) => (body.timezone, body.allowed_window),
            other => panic!("{other:?}"),
        }
    };
    let window = |duration: &str| json!({ "schedule": "0 22 * * *", "duration": duration, "timezone": "Europe/Berlin" });
    let (zone, none) = sent(json!({ "timezone": "Europe/Berlin" }));
    assert_eq!((zone.as_deref(), none), (Some("Europe/Berlin"), None));
    let (_, open) = sent(json!({ "allowedWindow": window("6h") }));
    let open = open.unwrap();
    assert_eq!(
        (open.schedule.as_str(), open.timezone.as_str()),
        ("0 22 * * *", "Europe/Berlin")
    );
    assert_eq!(open.length_ms, 6 * 3_600_000);
    let (_, wrong) = sent(json!({ "allowedWindow": window("6 h") }));
    assert_eq!(wrong.unwrap().length_ms, 0, "it is never open");
}
