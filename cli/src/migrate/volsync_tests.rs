#![allow(clippy::unwrap_used)]

use super::*;
use crate::migrate::fixtures::{of_kind, secret, valid};

/// Of sources that are all there are in the cluster.
fn found(sources: &[Value]) -> Found {
    Found {
        sources: sources.to_vec(),
        others: Some(Vec::new()),
    }
}

fn plan(sources: &[Value], secrets: &Secrets, running: bool) -> Plan {
    super::plan(&found(sources), secrets, running)
}

fn source(name: &str, secret: &str, more: Value) -> Value {
    let mut source = json!({
        "apiVersion": "volsync.backube/v1alpha1", "kind": "ReplicationSource",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "sourcePVC": "data", "trigger": { "schedule": "0 */6 * * *" },
            "restic": {
                "pruneIntervalDays": 14, "repository": secret, "copyMethod": "Clone",
                "retain": { "hourly": 6, "daily": 5, "within": "3d" },
                "moverSecurityContext": { "runAsUser": 1000, "fsGroup": 1000 },
            },
        },
    });
    let restic = source["spec"]["restic"].as_object_mut().unwrap();
    restic.extend(more.as_object().unwrap().clone());
    source
}

fn keys() -> Secrets {
    secret(
        "shop",
        "restic-config",
        &[
            ("RESTIC_REPOSITORY", "s3:http://minio:9000/volsync/data"),
            ("RESTIC_PASSWORD", "p"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ],
    )
}

#[test]
fn a_source_becomes_a_repository_a_backup_and_a_policy_that_counts_ours_beside_theirs() {
    let plan = plan(&[source("db", "restic-config", json!({}))], &keys(), false);
    valid(&plan);
    assert!(plan.secrets.is_empty(), "its Secret has our names already");
    let repository = &of_kind(&plan, "ResticRepository")[0]["spec"];
    assert_eq!(repository["repositoryURL"], "s3:http://minio:9000/volsync/data");
    assert_eq!(
        repository["credentialsSecretRef"],
        json!({ "name": "restic-config" })
    );
    assert_eq!(repository["initialize"], "Never");
    let backup = &of_kind(&plan, "ResticBackup")[0]["spec"];
    assert_eq!(backup["schedule"], "0 */6 * * *");
    assert_eq!(backup["source"]["pvc"]["claimName"], "data");
    assert_eq!(backup["restic"]["hostname"], "volsync");
    assert_eq!(backup["jobConfig"]["securityContext"]["runAsUser"], 1000);
    let kept = json!({ "keepHourly": 6, "keepDaily": 5, "keepWithin": "3d" });
    assert_eq!(
        of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"],
        json!([
            { "selector": { "hostname": "volsync" }, "retention": kept },
            { "selector": { "tags": ["fleet.backup=shop/db"] }, "retention": kept },
        ]),
        "another cluster may store in the same repository: neither takes the place of its snapshots"
    );
    assert!(
        plan.notes
            .iter()
            .any(|note| note.text.contains("copyMethod Clone"))
    );
}

#[test]
fn sources_that_share_a_secret_are_told_apart_and_their_history_is_left_alone() {
    let two = [
        source("db", "restic-config", json!({})),
        source("files", "restic-config", json!({})),
    ];
    let plan = plan(&two, &keys(), false);
    valid(&plan);
    assert_eq!(of_kind(&plan, "ResticRepository").len(), 1);
    let hosts: Vec<&Value> = of_kind(&plan, "ResticBackup")
        .iter()
        .map(|backup| &backup["spec"]["restic"]["hostname"])
        .collect();
    assert_eq!(hosts, ["volsync.shop.db", "volsync.shop.files"]);
    let selected: Vec<&Value> = of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["selector"])
        .collect();
    assert_eq!(
        selected,
        [
            &json!({ "tags": ["fleet.backup=shop/db"] }),
            &json!({ "tags": ["fleet.backup=shop/files"] })
        ]
    );
}

#[test]
fn no_two_sources_have_one_host() {
    let mut first = source("prod-data", "restic-config", json!({}));
    first["metadata"]["namespace"] = json!("app");
    let mut second = source("data", "restic-config", json!({}));
    second["metadata"]["namespace"] = json!("app-prod");
    let url = [
        ("RESTIC_REPOSITORY", "s3:http://minio:9000/one"),
        ("RESTIC_PASSWORD", "p"),
    ];
    let mut secrets = secret("app", "restic-config", &url);
    secrets.extend(secret("app-prod", "restic-config", &url));
    let plan = plan(&[first, second], &secrets, false);
    let backups = of_kind(&plan, "ResticBackup");
    let [first, second] = [0, 1].map(|n| text(backups[n], "/spec/restic/hostname"));
    assert_ne!(first, second);
}

#[test]
fn what_cannot_be_carried_over_is_said() {
    let plan = plan(
        &[
            source("lost", "gone", json!({})),
            source(
                "none",
                "restic-config",
                json!({ "retain": { "within": "2w" }, "moverSecurityContext": null }),
            ),
            json!({ "metadata": { "name": "r", "namespace": "shop" }, "spec": { "rsyncTLS": {} } }),
        ],
        &keys(),
        false,
    );
    valid(&plan);
    let notes: Vec<String> = plan
        .notes
        .iter()
        .map(|note| format!("{}: {}", note.about, note.text))
        .collect();
    let said = |text: &str| notes.iter().any(|note| note.contains(text));
    assert!(said("Secret shop/gone cannot be read"), "{notes:#?}");
    assert!(
        said("retain.within \"2w\" cannot be written as a rule of ours: no rule is made"),
        "{notes:#?}"
    );
    assert!(of_kind(&plan, "GlobalRetentionPolicy").is_empty());
    assert!(said("its mover is not restic"), "{notes:#?}");
    assert_eq!(of_kind(&plan, "ResticBackup").len(), 1);
}

#[test]
fn an_authority_of_its_own_comes_into_the_secret() {
    let ca = json!({ "customCA": { "secretName": "tls", "key": "ca.crt" } });
    let sources = [source("db", "restic-config", ca)];
    assert_eq!(secrets(&found(&sources)).len(), 2);
    let plan = plan(&sources, &keys(), false);
    valid(&plan);
    let made = &plan.secrets[0];
    assert_eq!(made.entries["RESTIC_CACERT"], Source::whole("tls", "ca.crt"));
    assert_eq!(
        made.entries["RESTIC_PASSWORD"],
        Source::whole("restic-config", "RESTIC_PASSWORD")
    );
}

#[test]
fn sources_that_share_a_repository_by_two_secrets_or_from_two_namespaces_are_told_apart() {
    let url = ("RESTIC_REPOSITORY", "s3:http://minio:9000/one");
    let password = ("RESTIC_PASSWORD", "p");
    for namespace in ["shop", "web"] {
        let mut secrets = secret("shop", "first", &[url, password]);
        // Written with a slash at its end.
        let again = [("RESTIC_REPOSITORY", "s3:http://minio:9000/one/"), password];
        secrets.extend(secret(namespace, "second", &again));
        let mut other = source("files", "second", json!({}));
        other["metadata"]["namespace"] = json!(namespace);
        let plan = plan(&[source("db", "first", json!({})), other], &secrets, false);
        valid(&plan);
        let repositories = of_kind(&plan, "ResticRepository").len();
        assert_eq!(repositories, if namespace == "shop" { 1 } else { 2 });
        let hosts: Vec<&str> = of_kind(&plan, "ResticBackup")
            .iter()
            .map(|backup| text(backup, "/spec/restic/hostname"))
            .collect();
        assert_eq!(
            hosts,
            ["volsync.shop.db".to_owned(), format!("volsync.{namespace}.files")]
        );
        let rules: String = of_kind(&plan, "GlobalRetentionPolicy")
            .iter()
            .map(|policy| policy["spec"]["policies"].to_string())
            .collect();
        assert!(!rules.contains("\"volsync\""), "{rules}");
    }
}

#[test]
fn the_last_snapshot_is_kept_where_nothing_else_is_said() {
    let plan = plan(
        &[source("db", "restic-config", json!({ "retain": null }))],
        &keys(),
        false,
    );
    let rules = of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"].clone();
    assert!(
        rules
            .as_array()
            .unwrap()
            .iter()
            .all(|rule| rule["retention"] == json!({ "keepLast": 1 })),
        "{rules}"
    );
}

#[test]
fn what_keeps_everything_becomes_no_rule() {
    for retain in [
        json!({ "last": "unlimited", "daily": 3 }),
        json!({ "daily": -1, "last": "3" }),
        json!({ "last": "-1", "daily": 3 }),
    ] {
        let plan = plan(
            &[source("db", "restic-config", json!({ "retain": retain }))],
            &keys(),
            false,
        );
        assert!(of_kind(&plan, "GlobalRetentionPolicy").is_empty(), "{retain}");
        let host = &of_kind(&plan, "ResticBackup")[0]["spec"]["restic"]["hostname"];
        assert_eq!(
            host, "volsync.shop.db",
            "a rule of another cluster may select volsync"
        );
        assert!(
            plan.notes
                .iter()
                .any(|note| note.text.contains("no rule is made")),
            "{retain}"
        );
    }
}

#[test]
fn what_is_said_of_the_mover_is_carried_over_or_named() {
    let labels = json!({ "role": "mover", "app.kubernetes.io/name": "x" });
    let more = json!({
        "copyMethod": "Direct", "moverResources": { "limits": { "memory": "2Gi" } }, "moverServiceAccount": "mover",
        "moverAffinity": { "nodeAffinity": {} }, "moverPodLabels": labels, "cacheCapacity": "8Gi",
        "cacheStorageClassName": "fast", "moverVolumes": [{ "mountPath": "nfs" }], "unlock": "1", "capacity": "9Gi",
    });
    let of = |more: Value| {
        let plan = plan(&[source("db", "restic-config", more)], &keys(), false);
        valid(&plan);
        let notes: Vec<String> = plan.notes.iter().map(|note| note.text.clone()).collect();
        (
            of_kind(&plan, "ResticBackup")[0]["spec"]["jobConfig"].clone(),
            notes.join("\n"),
        )
    };
    let (job, notes) = of(more.clone());
    assert_eq!(
        job,
        json!({
            "securityContext": { "runAsUser": 1000, "fsGroup": 1000 }, "resources": { "limits": { "memory": "2Gi" } },
            "serviceAccountName": "mover", "affinity": { "nodeAffinity": {} }, "podLabels": { "role": "mover" },
            "cache": { "size": "8Gi", "storageClassName": "fast" },
        })
    );
    for said in [
        "restic.moverVolumes",
        "app.kubernetes.io/name",
        "pruneIntervalDays",
    ] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
    assert!(
        !notes.contains("unlock") && !notes.contains("capacity"),
        "{notes}"
    );
    // A copy of the volume may be anywhere, and the volume itself is where it is in use.
    let mut copied = more;
    copied["copyMethod"] = json!("Snapshot");
    let (job, notes) = of(copied);
    assert!(
        job.get("affinity").is_none() && notes.contains("moverAffinity"),
        "{notes}"
    );
    let (job, _) = of(json!({ "cacheStorageClassName": "fast", "cacheAccessModes": ["ReadWriteMany"] }));
    assert_eq!(job["cache"], json!({ "size": "1Gi", "storageClassName": "fast" }));
}

#[test]
fn a_source_that_a_person_has_paused_is_not_started() {
    let mut paused = source("db", "restic-config", json!({}));
    paused["spec"]["paused"] = json!(true);
    let of = |source: &Value| plan(std::slice::from_ref(source), &keys(), true);
    let plan = of(&paused);
    assert_eq!(of_kind(&plan, "ResticBackup")[0]["spec"]["suspend"], true);
    assert!(
        plan.notes.iter().any(|note| note.text.contains("it is paused")),
        "{:?}",
        plan.notes
    );
    // By finish.
    paused["metadata"]["annotations"] = json!({ "fleet.resticbackup.io/paused-by-finish": "true" });
    let plan = of(&paused);
    assert!(
        plan.notes.iter().all(|note| !note.text.contains("it is paused")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn labels_that_are_left_out_are_those_that_the_kind_refuses() {
    for name in [
        "job-name",
        "app.kubernetes.io/component",
        "batch.kubernetes.io/x",
        "role",
    ] {
        let labels = json!({ "moverPodLabels": { name: "x" } });
        let plan = plan(&[source("db", "restic-config", labels)], &keys(), false);
        let job: crds::common::JobConfiguration =
            serde_json::from_value(json!({ "podLabels": { name: "x" } })).unwrap();
        let ours = &of_kind(&plan, "ResticBackup")[0]["spec"]["jobConfig"]["podLabels"];
        assert_eq!(ours.is_object(), job.check_names().is_ok(), "{name}");
    }
}
