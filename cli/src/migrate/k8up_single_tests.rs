#![allow(clippy::unwrap_used)]

use super::super::k8up;
use super::*;
use crate::migrate::fixtures::{of_kind, valid};
use crate::migrate::plan::SOURCE;

fn backend(bucket: &str) -> Value {
    json!({
        "repoPasswordSecretRef": { "name": "backup-repo", "key": "password" },
        "s3": {
            "endpoint": "http://minio:9000", "bucket": bucket,
            "accessKeyIDSecretRef": { "name": "minio", "key": "username" },
            "secretAccessKeySecretRef": { "name": "minio", "key": "password" },
        },
    })
}

/// `at` is the minute of its making.
fn backup(name: &str, at: u32, bucket: &str, more: Value) -> Value {
    let mut backup = json!({
        "apiVersion": "k8up.io/v1", "kind": "Backup",
        "metadata": { "name": name, "namespace": "shop", "creationTimestamp": format!("2026-11-01T10:{at:02}:00Z") },
        "spec": { "backend": backend(bucket) },
    });
    let spec = backup["spec"].as_object_mut().unwrap();
    spec.extend(more.as_object().unwrap().clone());
    backup
}

fn claim(name: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "shop", "labels": { "tier": name } } })
}

fn of_tier(name: &str) -> Value {
    json!({ "labelSelectors": [{ "matchLabels": { "tier": name } }] })
}

fn schedule(bucket: &str, backup: &Value) -> Value {
    json!({
        "apiVersion": "k8up.io/v1", "kind": "Schedule", "metadata": { "name": "nightly", "namespace": "shop" },
        "spec": { "backend": backend(bucket), "backup": backup },
    })
}

fn about(plan: &Plan, about: &str) -> String {
    let notes = plan.notes.iter().filter(|note| note.about == about);
    notes.map(|note| format!("{}\n", note.text)).collect()
}

#[test]
fn runs_that_were_asked_for_become_one_backup_and_the_newest_says_how() {
    let mut made = backup(
        "before-release-2",
        9,
        "b",
        json!({ "tags": ["new"], "podSecurityContext": { "runAsUser": 7 } }),
    );
    made["metadata"]["generateName"] = json!("before-release-");
    let found = Found {
        backups: vec![
            backup("first", 1, "b", json!({ "tags": ["old"] })),
            made,
            backup("second", 2, "b", json!({})),
        ],
        claims: vec![claim("data")],
        ..Found::default()
    };
    let plan = k8up::plan(&found, false);
    valid(&plan);
    let repositories = of_kind(&plan, "ResticRepository");
    assert_eq!(repositories.len(), 1);
    assert_eq!(repositories[0]["metadata"]["name"], "before-release");
    let backups = of_kind(&plan, "ResticBackup");
    assert_eq!(backups.len(), 1);
    let made = backups[0];
    assert_eq!(made["spec"]["restic"]["tags"], json!(["new"]));
    assert_eq!(made["spec"]["jobConfig"]["securityContext"]["runAsUser"], 7);
    assert_eq!(made["spec"]["schedule"], "H H * * *");
    assert_eq!(
        made["metadata"]["annotations"][SOURCE],
        "backups.k8up.io/shop/before-release"
    );
    assert!(of_kind(&plan, "GlobalRetentionPolicy").is_empty());
    let text = about(&plan, "Backup shop/before-release-2");
    assert!(text.contains("once a day, or set a schedule"), "{text}");
    let text = about(&plan, "Backups of shop");
    assert!(text.starts_with("2 of them stored what"), "{text}");
}

#[test]
fn what_a_schedule_stores_is_not_stored_twice() {
    let mut owned = backup("nightly-1", 3, "c", json!({}));
    owned["metadata"]["ownerReferences"] = json!([{ "kind": "Schedule", "name": "nightly" }]);
    let found = Found {
        schedules: vec![schedule(
            "b",
            &json!({ "schedule": "@daily", "labelSelectors": of_tier("data")["labelSelectors"] }),
        )],
        backups: vec![
            backup("all", 1, "b", json!({})),
            backup("again", 2, "b", of_tier("data")),
            owned,
        ],
        claims: vec![claim("data"), claim("media")],
        ..Found::default()
    };
    let plan = k8up::plan(&found, false);
    valid(&plan);
    assert_eq!(of_kind(&plan, "ResticRepository").len(), 1, "the Schedule's");
    let backups = of_kind(&plan, "ResticBackup");
    let claims: Vec<&str> = backups
        .iter()
        .map(|one| text(one, "/spec/source/pvc/claimName"))
        .collect();
    assert_eq!(claims, ["data", "media"]);
    let sources: Vec<&Value> = backups
        .iter()
        .map(|one| &one["metadata"]["annotations"][SOURCE])
        .collect();
    assert_eq!(
        sources,
        ["schedules.k8up.io/shop/nightly", "backups.k8up.io/shop/all"]
    );
    for one in backups {
        assert_eq!(one["spec"]["repositoryRef"]["name"], "nightly");
    }
}

#[test]
fn what_is_stored_elsewhere_is_stored_there_as_well() {
    let found = Found {
        schedules: vec![schedule("b", &json!({ "schedule": "@daily" }))],
        backups: vec![backup("offsite", 1, "far", json!({}))],
        claims: vec![claim("data")],
        ..Found::default()
    };
    let plan = k8up::plan(&found, false);
    valid(&plan);
    let urls: Vec<&str> = of_kind(&plan, "ResticRepository")
        .iter()
        .map(|one| text(one, "/spec/repositoryURL"))
        .collect();
    assert_eq!(urls, ["s3:http://minio:9000/b", "s3:http://minio:9000/far"]);
    let names: Vec<&str> = of_kind(&plan, "ResticBackup")
        .iter()
        .map(|one| text(one, "/spec/repositoryRef/name"))
        .collect();
    assert_eq!(names, ["nightly", "offsite"]);
}

#[test]
fn a_back_end_of_the_operators_environment_is_one_note_for_all() {
    let one = |name: &str| backup(name, 1, "b", json!({ "backend": {} }));
    let found = Found {
        backups: vec![one("x"), one("y")],
        claims: vec![claim("data")],
        ..Found::default()
    };
    let plan = k8up::plan(&found, false);
    assert!(plan.objects.is_empty());
    assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
}

#[test]
fn pods_alike_in_two_namespaces_have_a_dump_each() {
    let pod = |namespace: &str| {
        json!({
            "metadata": { "name": "db-0", "namespace": namespace, "labels": { "app": "db" },
                          "annotations": { "k8up.io/backupcommand": "pg_dumpall" } },
            "spec": { "containers": [{ "name": "db" }] },
        })
    };
    let of = |namespace: &str| {
        let mut schedule = schedule(namespace, &json!({ "schedule": "@daily" }));
        schedule["metadata"]["namespace"] = json!(namespace);
        schedule
    };
    let found = Found {
        schedules: vec![of("shop"), of("bank")],
        pods: vec![pod("shop"), pod("bank")],
        ..Found::default()
    };
    let plan = k8up::plan(&found, false);
    let dumps = of_kind(&plan, "ResticBackup");
    let namespaces: Vec<&str> = dumps.iter().map(|one| at(one).0).collect();
    assert_eq!(namespaces, ["shop", "bank"]);
}
