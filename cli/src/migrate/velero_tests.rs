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
            "backupStorageLocation": "default",
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

/// Two locations: `default` each night, and `offsite` each week.
fn two_locations() -> Found {
    let mut found = found();
    let mut repository = repository("restic");
    repository["metadata"]["name"] = json!("shop-offsite-restic");
    repository["spec"]["backupStorageLocation"] = json!("offsite");
    repository["spec"]["resticIdentifier"] = json!("s3:http://far:9000/velero/restic/shop");
    found.repositories.push(repository);
    let mut location = found.locations[0].clone();
    location["metadata"]["name"] = json!("offsite");
    found.locations.push(location);
    let mut weekly = found.schedules[1].clone();
    weekly["metadata"]["name"] = json!("weekly");
    weekly["spec"] =
        json!({ "schedule": "0 4 * * 0", "template": { "storageLocation": "offsite", "ttl": "2160h0m0s" } });
    found.schedules.push(weekly);
    let mut stored = volume(Some("db"), "u1", 3);
    stored["spec"]["backupStorageLocation"] = json!("offsite");
    found.volumes.push(stored);
    found
        .claims
        .push(json!({ "metadata": { "name": "files", "namespace": "shop", "uid": "u2" } }));
    found.volumes.push(volume(Some("files"), "u2", 3));
    found
}

/// Name, repository and schedule of each backup.
fn backups(plan: &Plan) -> Vec<[&str; 3]> {
    of_kind(plan, "ResticBackup")
        .into_iter()
        .map(|backup| {
            ["/metadata/name", "/spec/repositoryRef/name", "/spec/schedule"].map(|at| text(backup, at))
        })
        .collect()
}

fn said(plan: &Plan) -> String {
    plan.notes
        .iter()
        .map(|note| format!("{}: {}\n", note.about, note.text))
        .collect()
}

#[test]
fn each_location_has_the_claims_and_the_schedule_that_velero_stores_there() {
    let found = two_locations();
    let both = plan(&found, false);
    valid(&both);
    assert_eq!(
        backups(&both),
        [
            ["db", "restic-shop", "0 7 * * *"],
            ["files", "restic-shop", "0 7 * * *"],
            ["db-2", "restic-shop-2", "0 4 * * 0"],
        ]
    );
    let kept: Vec<&Value> = of_kind(&both, "GlobalRetentionPolicy")
        .into_iter()
        .map(|policy| &policy["spec"]["policies"][0]["retention"])
        .collect();
    assert_eq!(
        kept,
        [&json!({ "keepWithin": "10d" }), &json!({ "keepWithin": "90d" })]
    );
    // The default may have another name.
    let mut renamed = two_locations();
    renamed.locations[1]["spec"]["default"] = json!(true);
    renamed.schedules[2]["spec"]["template"]["storageLocation"] = json!("default");
    let schedules: Vec<&str> = vec!["0 4 * * 0", "0 4 * * 0", "0 7 * * *"];
    let renamed = plan(&renamed, false);
    assert_eq!(
        backups(&renamed).iter().map(|one| one[2]).collect::<Vec<_>>(),
        schedules
    );
}

#[test]
fn a_location_that_velero_has_left_gets_no_backups() {
    let mut found = two_locations();
    found.schedules.remove(2);
    let history = plan(&found, false);
    valid(&history);
    assert_eq!(
        of_kind(&history, "ResticRepository").len(),
        2,
        "snapshots are there to restore"
    );
    assert!(
        backups(&history).iter().all(|one| one[1] == "restic-shop"),
        "{:?}",
        backups(&history)
    );
    let notes = said(&history);
    assert!(
        notes.contains("no Schedule stores shop in offsite any more: only its repository is made"),
        "{notes}"
    );
    // Nothing is there any more.
    found
        .volumes
        .retain(|volume| volume["spec"]["backupStorageLocation"] == "default");
    let gone = plan(&found, false);
    assert_eq!(of_kind(&gone, "ResticRepository").len(), 1);
    let notes = said(&gone);
    assert!(
        notes
            .contains("BackupRepository velero/shop-offsite-restic: no PodVolumeBackup of restic in offsite"),
        "{notes}"
    );
    // Stored by the other uploader since.
    let mut kopia = volume(Some("db"), "u1", 4);
    kopia["spec"]["backupStorageLocation"] = json!("offsite");
    kopia["spec"]["uploaderType"] = json!("kopia");
    found.volumes.push(kopia);
    assert_eq!(of_kind(&plan(&found, false), "ResticRepository").len(), 1);
}

#[test]
fn a_location_that_is_read_only_is_written_by_nobody() {
    let mut found = found();
    found.locations[0]["spec"]["accessMode"] = json!("ReadOnly");
    let plan = plan(&found, false);
    valid(&plan);
    assert_eq!(of_kind(&plan, "ResticRepository")[0]["spec"]["readOnly"], true);
    assert!(of_kind(&plan, "ResticBackup").is_empty());
    assert!(said(&plan).contains("accessMode ReadOnly"), "{}", said(&plan));
}

#[test]
fn a_paused_schedule_does_not_count_and_what_a_schedule_has_beyond_times_is_named() {
    let mut found = two_locations();
    found.schedules[2]["spec"]["template"]["storageLocation"] = json!("");
    found.schedules[2]["spec"]["paused"] = json!(true);
    found
        .volumes
        .retain(|volume| volume["spec"]["backupStorageLocation"] == "default");
    found.schedules[1]["spec"]["template"]["hooks"] = json!({ "resources": [{ "name": "freeze" }] });
    found.schedules[1]["spec"]["template"]["labelSelector"] = json!({ "matchLabels": { "a": "b" } });
    found.schedules[1]["spec"]["template"]["snapshotVolumes"] = json!(true);
    let plan = plan(&found, false);
    assert_eq!(backups(&plan)[0], ["db", "restic-shop", "0 7 * * *"]);
    assert_eq!(
        of_kind(&plan, "GlobalRetentionPolicy").len(),
        1,
        "one Schedule counts"
    );
    let notes = said(&plan);
    for text in [
        "Schedule weekly is paused",
        "hooks, labelSelector of Schedule all",
    ] {
        assert!(notes.contains(text), "{text}: {notes}");
    }
    assert!(notes.contains("fleet coverage"), "{notes}");
}
