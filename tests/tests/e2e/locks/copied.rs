//! Field trial "cloned repository": a repository whose files were copied, each used by another cluster.

use serde_json::{Value, json};
use tests::storage_log;

use crate::faults::until;
use crate::retention::{make_snapshots, policy, repository_id, restic, snapshots, start, until_run};
use crate::support::{Place, bed, condition, faulty, fleet_json, rest};

use super::deleting::within;
use super::{Blocker, lock};

fn row(key: &str) -> Value {
    let rows = fleet_json(&["repos"]);
    let rows = rows["items"].as_array().unwrap();
    rows.iter()
        .find(|row| row["key"] == key || row["resticID"] == key)
        .cloned()
        .unwrap_or_default()
}

/// Clusters of the pods that deleted something of a repository.
fn deleted_by(name: &str) -> Vec<String> {
    let at = format!("/{name}");
    let log = bed().servers().rest_proxy().log(&format!("{at}/")).unwrap();
    let deletes = log.iter().filter(|entry| storage_log::deletes(entry, &at));
    let networks = bed().pod_networks();
    let mut clusters: Vec<String> = deletes
        .filter_map(|entry| {
            let of = networks
                .iter()
                .find(|(prefix, _)| entry.client.starts_with(prefix.as_str()));
            of.map(|(_, cluster)| cluster.clone())
        })
        .collect();
    clusters.sort();
    clusters.dedup();
    clusters
}

fn copied(place: &Place) -> (Value, Value) {
    let condition = condition(&place.get("resticrepository/nas"), "Copied");
    (condition["status"].clone(), condition["reason"].clone())
}

#[test]
#[ignore = "needs clusters: make long"]
fn a_cloned_repository_has_two_rows_and_each_store_is_kept_by_its_own_runs() {
    let (a, b) = (Place::new("a", "cloned"), Place::new("b", "cloned"));
    a.apply(&[a.repository("nas", &faulty("cloned"))]);
    a.until_ready("resticrepository/nas");
    let id = repository_id(&a);
    make_snapshots(&rest("cloned"), "a", "cloned/x", "x", 1..4);

    let data = bed().servers().rest_data();
    let (from, to) = (data.join("cloned"), data.join("clone"));
    let done = std::process::Command::new("cp")
        .arg("-a")
        .args([&from, &to])
        .status()
        .unwrap();
    assert!(done.success());
    b.apply(&[b.repository("nas", &faulty("clone"))]);
    b.until_ready("resticrepository/nas");
    assert_eq!(repository_id(&b), id, "a copy of the files has the id");
    let second = format!("{id}@2");
    until("two rows", || row(&second)["clusters"] == json!(["b"]));
    assert_eq!(row(&id)["clusters"], json!(["a"]));
    for place in [&a, &b] {
        until("the condition", || {
            copied(place) == (json!("True"), json!("CopyFound"))
        });
    }
    for key in [&id, &second] {
        let alarm = row(key)["alarm"].as_str().unwrap_or_default().to_owned();
        assert!(alarm.contains("copy of the repository"), "{alarm}");
    }
    // The probe has left nothing.
    for name in ["cloned", "clone"] {
        until("no lock", || {
            restic(&rest(name), &["list", "locks", "--no-lock"])
                .trim()
                .is_empty()
        });
        assert_eq!(snapshots(&rest(name), "").len(), 3, "{name}");
    }

    make_snapshots(&rest("clone"), "b", "cloned/y", "y", 1..4);
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    for place in [&a, &b] {
        place.apply(&[policy("p", keep.clone(), more.clone())]);
        place.until_ready("globalretentionpolicy/p");
    }
    until("each policy at its store", || {
        row(&id)["policies"] == 1 && row(&second)["policies"] == 1
    });
    // Both hold a lock at the same time: a waits for a lock of restic in its store.
    let blocker = Blocker::new(&rest("cloned"));
    start(&a, "p", "first");
    within(super::deleting::MENDED, "a's lock", || {
        lock(&id)["state"] == "held"
    });
    start(&b, "p", "first");
    let ran = until_run(&b, "p", &json!({}));
    assert_eq!(
        (&ran["lastRunResult"], &ran["snapshotsRemoved"]),
        (&json!("Applied"), &json!(2)),
        "{ran:#}"
    );
    assert_eq!(lock(&id)["state"], "held", "a holds its own all the time");
    drop(blocker);
    let ran = until_run(&a, "p", &json!({}));
    assert_eq!(
        (&ran["lastRunResult"], &ran["snapshotsRemoved"]),
        (&json!("Applied"), &json!(2)),
        "{ran:#}"
    );
    assert_eq!(snapshots(&rest("cloned"), "x").len(), 1);
    assert_eq!(snapshots(&rest("clone"), "y").len(), 1);
    assert_eq!(
        snapshots(&rest("clone"), "x").len(),
        3,
        "a is not bound to the copy"
    );
    assert_eq!(deleted_by("cloned"), ["a"]);
    assert_eq!(deleted_by("clone"), ["b"]);
    for name in ["cloned", "clone"] {
        restic(&rest(name), &["check", "--read-data", "-q"]);
    }

    b.kubectl(&["delete", "globalretentionpolicy/p", "resticrepository/nas"])
        .unwrap();
    until("the end of the condition", || {
        copied(&a) == (json!("False"), json!("OneStore"))
    });
    until("the end of the alarm", || row(&id)["alarm"].is_null());
    assert_eq!(row(&second), Value::Null);
}
