//! What people make clusters do through the hub, with the CLI.

mod cut;

use serde_json::{Value, json};
use tests::fleet;

use crate::retention::restic;
use crate::support::{Place, bed, fleet_json, rest, s3};

/// The CLI's exit code and all that it printed.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = fleet::shell(bed(), "fleet", arguments, &[]).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Names of the Jobs in a namespace.
fn jobs(place: &Place) -> Vec<String> {
    let names = place
        .kubectl(&["get", "jobs", "-o", "jsonpath={.items[*].metadata.name}"])
        .unwrap();
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_backup_is_run_once_through_the_hub_and_its_snapshot_is_named() {
    let place = Place::new("a", "asked");
    let url = s3(0, "asked");
    place.apply(&[
        place.repository("nas", &url),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    let (code, text) = run(&["backups", "run", "a/asked/orders"]);
    assert_eq!(code, 0, "{text}");
    let id = text.lines().next().unwrap();
    assert_eq!(jobs(&place), [format!("resticbackup-orders-{id}")]);
    let operation = fleet_json(&["operations", "show", id]);
    assert_eq!(operation["state"], "done", "{operation:#}");
    let list: Value = serde_json::from_str(&restic(&url, &["snapshots", "--json"])).unwrap();
    let [snapshot] = list.as_array().unwrap().as_slice() else {
        panic!("{list:#}")
    };
    let short = &snapshot["id"].as_str().unwrap()[..8];
    assert!(
        operation["text"].as_str().unwrap().contains(short),
        "{operation:#}"
    );
    let (code, text) = run(&["backups", "suspend", "a/asked/orders"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(place.get("resticbackup/orders")["spec"]["suspend"], true);
    let (code, text) = run(&["backups", "resume", "a/asked/orders"]);
    assert_eq!(code, 0, "{text}");
    assert_ne!(place.get("resticbackup/orders")["spec"]["suspend"], true);
    // A person, or a GitOps tool, has set it.
    let suspended = r#"{"spec":{"suspend":true}}"#;
    place
        .kubectl(&["patch", "resticbackup/orders", "--type=merge", "-p", suspended])
        .unwrap();
    let (code, text) = run(&["backups", "resume", "a/asked/orders"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("kubectl-patch has set it"), "{text}");
    let (code, text) = run(&["backups", "run", "a/asked/none"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("has no ResticBackup asked/none"), "{text}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn retention_is_previewed_and_run_and_a_repository_checked_through_the_hub() {
    let place = Place::new("b", "kept");
    let url = rest("kept");
    let mut repository = place.repository("nas", &url);
    repository["spec"]["integrityCheck"] = json!({ "schedule": "@yearly" });
    let policy = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
        "metadata": { "name": "nightly" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "initialRun": "Apply",
                  "guard": { "maxRemovedPercent": 100 },
                  "policies": [{ "selector": {}, "retention": { "keepLast": 1 } }] } });
    place.apply(&[
        repository,
        place.backup("orders", json!({ "name": "nas" }), json!({})),
        policy,
    ]);
    place.until_ready("resticbackup/orders");
    place.until_ready("globalretentionpolicy/nightly");
    for _ in 0..2 {
        let (code, text) = run(&["backups", "run", "b/kept/orders"]);
        assert_eq!(code, 0, "{text}");
    }
    let count = || {
        let list: Value = serde_json::from_str(&restic(&url, &["snapshots", "--json"])).unwrap();
        list.as_array().unwrap().len()
    };
    let (code, text) = run(&["retention", "preview", "b/kept/nightly"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Preview"), "{text}");
    assert_eq!(count(), 2, "nothing is removed");
    let (code, text) = run(&["retention", "run", "b/kept/nightly"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(count(), 1, "{text}");
    let (code, text) = run(&["repos", "check", "b/kept/nas"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Passed"), "{text}");
    let (code, text) = run(&["repos", "unlock", "b/kept/nas"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("no lock"), "{text}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_is_made_where_it_is_allowed_and_refused_elsewhere_with_the_setting() {
    let places = [Place::new("a", "brought-back"), Place::new("b", "brought-back")];
    for place in &places {
        let name = format!("brought-back-{}", place.cluster.name);
        place.apply(&[
            place.repository("nas", &s3(0, &name)),
            place.backup("orders", json!({ "name": "nas" }), json!({})),
        ]);
        place.until_ready("resticbackup/orders");
        let target = format!("{}/brought-back/orders", place.cluster.name);
        let (code, text) = run(&["backups", "run", &target]);
        assert_eq!(code, 0, "{text}");
    }
    let [a, b] = &places;
    let (code, text) = run(&[
        "restore",
        "create",
        "a/brought-back/orders",
        "--claim",
        "data",
        "--path",
        "back",
    ]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("add restore to --allow"), "{text}");
    assert_eq!(
        a.kubectl(&["get", "resticrestores", "-o", "name"])
            .unwrap()
            .trim(),
        ""
    );
    let (code, text) = run(&[
        "restore",
        "create",
        "b/brought-back/orders",
        "--claim",
        "data",
        "--path",
        "back",
    ]);
    assert_eq!(code, 0, "{text}");
    let id = text.lines().next().unwrap();
    assert_eq!(
        b.get(&format!("resticrestore/restore-{id}"))["status"]["phase"],
        "Completed"
    );
    assert_eq!(
        std::fs::read(b.data().join("back/small/a.txt")).unwrap(),
        b"hello"
    );
}
