//! A policy whose cluster is away when it is due: the other cluster runs it, and it does not run again afterwards.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tests::fleet::{self, SYSTEM};

use super::audit;
use crate::faults::until;
use crate::retention::{make_snapshots, policy, repository_id, snapshots, until_fleet_knows, until_run};
use crate::support::{Place, bed, condition, fleet_json, s3};

/// Settings of the hub for this test, until it goes out of scope.
struct Quick;

impl Quick {
    fn new() -> Quick {
        Quick::set(&json!("10s"), &json!("1m"));
        Quick
    }

    fn set(away_after: &serde_json::Value, coalesce: &serde_json::Value) {
        let hub = bed().cluster("a").unwrap();
        let data =
            json!({ "data": { "FLEET_HUB_AWAY_AFTER": away_after, "FLEET_HUB_COALESCE_WINDOW": coalesce } });
        let patch = data.to_string();
        let names = [
            "patch",
            "-n",
            SYSTEM,
            "configmap",
            "fleet-hub-settings",
            "-p",
            &patch,
        ];
        hub.kubectl(&names).unwrap();
        hub.kubectl(&["rollout", "restart", "-n", SYSTEM, "deployment/fleet-hub"])
            .unwrap();
        fleet::rollout(&hub, "fleet-hub").unwrap();
    }
}

impl Drop for Quick {
    fn drop(&mut self) {
        // null takes a key out.
        Quick::set(&json!(null), &json!("off"));
    }
}

#[test]
#[ignore = "needs clusters: make long"]
fn a_policy_of_a_cluster_that_is_away_is_run_by_the_other_one_and_only_once() {
    let quick = Quick::new();
    let (a, b) = (Place::new("a", "behalf"), Place::new("b", "behalf"));
    for (place, address) in [(&a, 0), (&b, 1)] {
        place.apply(&[place.repository("nas", &s3(address, "behalf"))]);
        place.until_ready("resticrepository/nas");
    }
    // Two locations: until both clusters have shown that they are one store nothing is removed, for whomever.
    let limit = std::time::Duration::from_secs(240);
    b.until_within(limit, "resticrepository/nas", "the one store of both", |o| {
        condition(o, "Copied")["reason"] == "OneStore"
    });
    let (id, url) = (repository_id(&a), s3(0, "behalf"));
    make_snapshots(&url, "a", "behalf/x", "x", 1..4);
    let due = Timestamp::now() + SignedDuration::from_secs(100);
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 },
                       "schedule": due.strftime("%-M %-H * * *").to_string() });
    a.apply(&[policy("p", keep, more)]);
    a.until_ready("globalretentionpolicy/p");
    until_fleet_knows(&a, 1);
    a.cluster.scale("fleet-spoke", 0).unwrap();
    until("that a is away", || {
        let clusters = fleet_json(&["clusters", "a"]);
        clusters["items"][0]["connectedSince"].is_null()
    });
    assert!(Timestamp::now() < due, "the machine was too slow for this test");
    assert_eq!(snapshots(&url, "").len(), 3);

    let nas = b.until_within(limit, "resticrepository/nas", "the run for a", |o| {
        o["status"]["lastRetentionOnBehalf"]["result"] == "Applied"
    });
    let run = &nas["status"]["lastRetentionOnBehalf"];
    assert_eq!(run["policy"], "a/behalf/p", "{run:#}");
    assert_eq!(run["snapshotsRemoved"], 2, "{run:#}");
    assert_eq!(snapshots(&url, "").len(), 1);
    let operations = fleet_json(&["operations", "list", "--cluster", "b"]);
    let operations = operations["items"].as_array().unwrap();
    let asked = operations.iter().find(|o| o["who"] == "hub").unwrap();
    assert_eq!(asked["subject"], "behalf/nas", "{asked:#}");

    a.cluster.scale("fleet-spoke", 2).unwrap();
    fleet::rollout(&a.cluster, "fleet-spoke").unwrap();
    let ran = until_run(&a, "p", &json!({}));
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
    assert_eq!(ran["lastRunBy"], "b: retention behalf/nas", "{ran:#}");
    let entries = audit(&id);
    assert_eq!(entries.len(), 1, "one token: {entries:#?}");
    assert_eq!(entries[0]["cluster"], "b", "{entries:#?}");
    assert_eq!(entries[0]["covered"].as_array().unwrap().len(), 1, "{entries:#?}");
    drop(quick);
}
