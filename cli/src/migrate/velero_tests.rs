#![allow(clippy::unwrap_used)]

use super::*;
use crate::migrate::fixtures::{of_kind, valid};

fn repository(kind: &str) -> Value {
    json!({
        "apiVersion": "velero.io/v1", "kind": "BackupRepository",
        "metadata": { "name": format!("shop-default-{kind}"), "namespace": "velero" },
        "spec": {
            "backupStorageLocation": "default", "maintenanceFrequency": "168h0m0s", "repositoryType": kind,
            "resticIdentifier": "s3:http://minio:9000/velero/cluster/restic/shop", "volumeNamespace": "shop",
        },
    })
}

fn volume(claim: Option<&str>, uid: &str, day: u32) -> Value {
    let annotations = claim.map(|claim| json!({ CLAIM: claim }));
    json!({
        "metadata": { "name": format!("b-{day}"), "namespace": "velero", "annotations": annotations,
                      "creationTimestamp": format!("2026-11-{day:02}T00:00:00Z") },
        "spec": {
            "pod": { "namespace": "shop", "name": "db-0" }, "volume": "data", "uploaderType": "restic",
            "tags": { "backup": format!("b-{day}"), "ns": "shop", "pvc-uid": uid },
        },
        "status": { "phase": "Completed", "snapshotID": "abcd" },
    })
}

fn found() -> Found {
    Found {
        repositories: vec![repository("restic"), repository("kopia")],
        locations: vec![json!({
            "metadata": { "name": "default", "namespace": "velero" },
            "spec": { "provider": "aws", "objectStorage": { "bucket": "velero", "prefix": "cluster" } },
        })],
        volumes: vec![
            volume(Some("db"), "u1", 1),
            volume(Some("db"), "u1", 2),
            volume(None, "", 2),
        ],
        schedules: vec![
            json!({ "metadata": { "name": "other", "namespace": "velero" },
                    "spec": { "schedule": "0 1 * * *", "template": { "includedNamespaces": ["web"] } } }),
            json!({ "metadata": { "name": "all", "namespace": "velero" },
                    "spec": { "schedule": "CRON_TZ=Europe/Berlin 0 7 * * *", "template": { "ttl": "240h0m0s" } } }),
        ],
        claims: vec![json!({ "metadata": { "name": "db", "namespace": "shop", "uid": "u1" } })],
    }
}

#[test]
fn a_repository_stays_with_velero_and_its_volumes_become_backups_of_the_workload() {
    let plan = plan(&found(), false);
    valid(&plan);
    let repositories = of_kind(&plan, "ResticRepository");
    assert_eq!(repositories.len(), 1, "kopia's cannot be read");
    let repository = repositories[0];
    assert_eq!(at(repository), ("velero", "restic-shop"));
    assert_eq!(
        repository["spec"]["repositoryURL"],
        "s3:http://minio:9000/velero/cluster/restic/shop"
    );
    assert_eq!(
        repository["spec"]["allowedNamespaces"]["selector"]["matchLabels"],
        json!({ "kubernetes.io/metadata.name": "shop" })
    );
    let secret = &plan.secrets[0];
    assert_eq!(
        secret.namespace, "velero",
        "the keys of the bucket do not go anywhere else"
    );
    assert_eq!(
        secret.entries["RESTIC_PASSWORD"],
        Source::whole("velero-repo-credentials", "repository-password")
    );
    let backups = of_kind(&plan, "ResticBackup");
    assert_eq!(backups.len(), 1);
    assert_eq!(at(backups[0]), ("shop", "db"));
    let spec = &backups[0]["spec"];
    assert_eq!(
        spec["repositoryRef"],
        json!({ "name": "restic-shop", "namespace": "velero" })
    );
    assert_eq!(
        (&spec["schedule"], &spec["timezone"]),
        (&json!("0 7 * * *"), &json!("Europe/Berlin"))
    );
    assert_eq!(
        spec["restic"],
        json!({ "hostname": "velero", "tags": ["pvc-uid=u1"] })
    );
    let policy = of_kind(&plan, "GlobalRetentionPolicy")[0];
    assert_eq!(
        policy["spec"]["policies"],
        json!([{ "selector": { "hostname": "velero", "tags": ["fleet.backup=shop/db"] }, "retention": { "keepWithin": "10d" } }]),
        "Velero expires its own"
    );
    assert_eq!(policy["spec"]["prune"], false, "Velero goes on to do that");
    let notes: String = plan.notes.iter().map(|note| format!("{}\n", note.text)).collect();
    assert!(
        notes.contains("a repository of kopia") && notes.contains("\"data\" of its pods is no claim"),
        "{notes}"
    );
    assert_eq!(secrets(&found()).len(), 2);
}

#[test]
fn history_of_a_claim_that_is_gone_or_made_anew_is_left_to_velero() {
    let mut found = found();
    found.claims = vec![];
    let gone = plan(&found, false);
    valid(&gone);
    assert!(of_kind(&gone, "ResticBackup").is_empty());
    assert!(of_kind(&gone, "GlobalRetentionPolicy").is_empty());
    found.claims = vec![json!({ "metadata": { "name": "db", "namespace": "shop", "uid": "u2" } })];
    let anew = plan(&found, false);
    valid(&anew);
    let rules = &of_kind(&anew, "GlobalRetentionPolicy")[0]["spec"]["policies"];
    assert!(
        rules.to_string().contains("fleet.backup=") && !rules.to_string().contains("pvc-uid"),
        "{rules}"
    );
    assert_eq!(
        of_kind(&anew, "ResticBackup")[0]["spec"]["restic"]["tags"],
        json!(["pvc-uid=u2"])
    );
    let notes: String = anew.notes.iter().map(|note| format!("{}\n", note.text)).collect();
    assert!(
        notes.contains("made anew since: its snapshots of before have the tag pvc-uid=u1"),
        "{notes}"
    );
}

#[test]
fn no_policy_is_made_where_it_is_not_certain_what_velero_keeps() {
    let all = found().schedules.remove(1);
    let mut odd = all.clone();
    odd["spec"]["template"]["ttl"] = json!("forever");
    for (schedules, said) in [
        (vec![], "no Schedule covers shop"),
        (vec![all.clone(), all], "1 more Schedules cover shop"),
        (vec![odd], "ttl \"forever\" cannot be read"),
    ] {
        let mut found = found();
        found.schedules = schedules;
        let plan = plan(&found, false);
        valid(&plan);
        assert_eq!(of_kind(&plan, "ResticBackup").len(), 1);
        assert!(of_kind(&plan, "GlobalRetentionPolicy").is_empty(), "{said}");
        assert!(
            plan.notes.iter().any(|note| note.text.contains(said)),
            "{:?}",
            plan.notes
        );
    }
}
