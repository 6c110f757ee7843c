//! `spec.retention` of a backup on real pods: its own snapshots, and no others.

use serde_json::{Value, json};

use crate::retention::{make_snapshots, policy, snapshots, start, until_fleet_knows, until_run};
use crate::support::{Place, condition, s3};

const POLICY: &str = "resticbackup-orders";

fn patch(place: &Place, object: &str, patch: &Value) {
    let patch = patch.to_string();
    place
        .kubectl(&["patch", object, "--type=merge", "-p", &patch])
        .unwrap();
}

fn until_retention(place: &Place, reason: &str) -> Value {
    place.until("resticbackup/orders", reason, |o| {
        condition(o, "RetentionReady")["reason"] == reason
    })
}

#[test]
#[ignore = "needs clusters: make test"]
fn retention_of_a_backup_previews_and_then_removes_its_own_snapshots_and_no_others() {
    let place = Place::new("a", "ownkeep");
    let url = s3(0, "ownkeep");
    place.write("file", b"content");
    let retention = json!({ "enabled": true, "policy": { "keepLast": 2 } });
    place.apply(&[
        place.repository("nas", &url),
        place.backup(
            "orders",
            json!({ "name": "nas" }),
            json!({ "retention": retention }),
        ),
    ]);
    place.until_ready("resticbackup/orders");
    for run in ["1", "2", "3", "4"] {
        assert_eq!(place.run("orders", run)["result"], "Succeeded");
    }
    // Another backup of this cluster, and the namesake in another cluster.
    // The first only differs in the name of its backup.
    let uid = [
        "get",
        "namespace",
        "kube-system",
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let uid = format!("fleet.cluster-uid={}", place.kubectl(&uid).unwrap().trim());
    make_snapshots(&url, "a", "ownkeep/other", &uid, 1..4);
    make_snapshots(&url, "b", "ownkeep/orders", "x", 1..4);
    let own = "fleet.cluster=a,fleet.backup=ownkeep/orders";
    let (mine, all) = (snapshots(&url, own), snapshots(&url, ""));
    let of_cluster = snapshots(&url, &uid);
    assert_eq!(
        of_cluster.len(),
        7,
        "it is the uid of the operator's own snapshots"
    );
    assert_eq!((mine.len(), all.len()), (4, 10));

    until_retention(&place, "RetentionPolicyConfigured");
    until_fleet_knows(&place, 1);
    start(&place, POLICY, "one");
    let first = until_run(&place, POLICY, &json!({}));
    assert_eq!(
        (&first["lastRunResult"], &first["snapshotsRemoved"]),
        (&json!("Preview"), &json!(0)),
        "{first:#}"
    );
    assert_eq!(snapshots(&url, ""), all, "nothing was removed");
    let object = until_retention(&place, "RetentionPreviewed");
    let plan = first["plan"].as_str().unwrap();
    let message = condition(&object, "RetentionReady")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains(&format!("globalretentionpolicy/{POLICY}")) && message.contains(plan),
        "{message}"
    );
    assert_eq!(object["status"]["snapshotsAfterRetention"], 4);

    let annotation = format!("backup.resticbackup.io/approve-plan={plan}");
    place
        .kubectl(&[
            "annotate",
            &format!("globalretentionpolicy/{POLICY}"),
            &annotation,
        ])
        .unwrap();
    let second = until_run(&place, POLICY, &first);
    assert_eq!(
        (&second["lastRunResult"], &second["snapshotsRemoved"]),
        (&json!("Applied"), &json!(2)),
        "{second:#}"
    );
    assert_eq!(snapshots(&url, own), mine[2..]);
    let left: Vec<String> = all.into_iter().filter(|id| !mine[..2].contains(id)).collect();
    assert_eq!(snapshots(&url, ""), left, "those of others are untouched");
    let object = until_retention(&place, "RetentionSucceeded");
    assert_eq!(object["status"]["snapshotsAfterRetention"], 2);
    assert_eq!(object["status"]["lastRetentionRun"], second["lastRun"]);

    // What somebody makes of the policy is put back.
    let child = format!("globalretentionpolicy/{POLICY}");
    let edit = json!({ "spec": { "guard": { "maxRemovedPercent": 100 }, "notifications": {},
                                 "policies": [{ "selector": {}, "retention": { "keepLast": 1 } }] } });
    patch(&place, &child, &edit);
    place.until(&child, "the policy as it was", |o| {
        let spec = &o["spec"];
        spec["guard"]["maxRemovedPercent"] == 30
            && spec["notifications"].is_null()
            && spec["policies"][0]["selector"]["tags"]
                .as_array()
                .is_some_and(|tags| tags.len() == 3)
    });

    patch(
        &place,
        "resticbackup/orders",
        &json!({ "spec": { "retention": { "enabled": false, "policy": null } } }),
    );
    place
        .kubectl(&["wait", "--for=delete", &child, "--timeout=60s"])
        .unwrap();
    assert_eq!(snapshots(&url, ""), left, "and the snapshots stay");

    // One of somebody else is left alone, and its end is noticed.
    place.apply(&[policy(
        POLICY,
        json!([{ "selector": {}, "retention": { "keepLast": 99 } }]),
        json!({}),
    )]);
    patch(
        &place,
        "resticbackup/orders",
        &json!({ "spec": { "retention": retention } }),
    );
    until_retention(&place, "RetentionPolicyExists");
    assert_eq!(
        place.get(&child)["spec"]["policies"][0]["retention"]["keepLast"],
        99
    );
    place.kubectl(&["delete", &child]).unwrap();
    place.until(&child, "a policy of the backup", |o| {
        o["metadata"]["ownerReferences"][0]["kind"] == "ResticBackup"
    });

    place.kubectl(&["delete", "resticbackup/orders"]).unwrap();
    place
        .kubectl(&["wait", "--for=delete", &child, "--timeout=60s"])
        .unwrap();
    assert_eq!(snapshots(&url, ""), left);
}
