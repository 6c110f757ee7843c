//! A hub that is away, no hub at all, and backups that are asked to hold.

use serde_json::{Value, json};
use tests::cluster::Cluster;
use tests::fleet::{self, SYSTEM};

use super::{Blocker, lock, until_at_work, without_coalescing};
use crate::faults::until;
use crate::retention::{
    make_snapshots, policy, repository_id, restic, snapshots, start, until_fleet_knows, until_run,
};
use crate::support::{Place, bed, condition, noise, s3};

/// Retention that keeps the newest of everything, applied from its first run on.
fn keep_one(place: &Place, name: &str) {
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    place.apply(&[policy(name, keep, more)]);
    place.until_ready(&format!("globalretentionpolicy/{name}"));
}

fn waiting(place: &Place, name: &str, reason: &str) -> Value {
    let object = place.until(&format!("globalretentionpolicy/{name}"), reason, |o| {
        condition(o, "Waiting")["reason"] == reason
    });
    condition(&object, "Waiting")
}

#[test]
#[ignore = "needs clusters: make long"]
fn while_the_hub_is_away_maintenance_waits_and_backups_go_on() {
    let place = Place::new("b", "away");
    place.apply(&[
        place.repository("nas", &s3(1, "away")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    keep_one(&place, "p");
    until_fleet_knows(&place, 1);
    let hub = bed().cluster("a").unwrap();
    let scale = |replicas: &str| {
        hub.kubectl(&["scale", "-n", SYSTEM, "deployment/fleet-hub", replicas])
            .unwrap()
    };
    scale("--replicas=0");
    start(&place, "p", "waits");
    let waits = waiting(&place, "p", "HubAway");
    assert!(
        waits["message"].as_str().unwrap().contains("Backups go on"),
        "{waits:#}"
    );
    for request in ["1", "2"] {
        assert_eq!(place.run("orders", request)["result"], "Succeeded");
    }
    assert_eq!(snapshots(&s3(1, "away"), "").len(), 2, "nothing was removed");
    scale("--replicas=1");
    fleet::rollout(&hub, "fleet-hub").unwrap();
    let ran = until_run(&place, "p", &json!({}));
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
    assert_eq!(snapshots(&s3(1, "away"), "").len(), 1);
}

/// A spoke that has no hub, until it goes out of scope.
struct Alone(Place);

impl Alone {
    fn new(place: Place) -> Alone {
        fleet::leave(&place.cluster).unwrap();
        // Its name came with its join; its snapshots have it.
        let named = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "cluster": place.cluster.name },
                            "metadata": { "name": "fleet-spoke", "namespace": SYSTEM } });
        place.cluster.apply(&named.to_string()).unwrap();
        Alone::restart(&place.cluster);
        Alone(place)
    }

    fn restart(cluster: &Cluster) {
        cluster
            .kubectl(&["rollout", "restart", "-n", SYSTEM, "deployment/fleet-spoke"])
            .unwrap();
        fleet::rollout(cluster, "fleet-spoke").unwrap();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let Place { cluster, .. } = &self.0;
        let named = ["delete", "-n", SYSTEM, "configmap/fleet-spoke"];
        cluster.kubectl(&named).ok();
        fleet::join(bed(), cluster).unwrap();
        Alone::restart(cluster);
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn without_a_hub_a_lease_of_the_cluster_is_the_lock_and_status_says_so() {
    // Known to the hub: shared for all that this spoke can know.
    let shared = Place::new("b", "known");
    shared.apply(&[shared.repository("nas", &s3(1, "known"))]);
    shared.until_ready("resticrepository/nas");
    keep_one(&shared, "p");
    until("it is noted as shared", || {
        let id = repository_id(&shared);
        let lease = ["get", "-n", SYSTEM, "lease/fleet-shared", "-o", "yaml"];
        shared
            .cluster
            .kubectl(&lease)
            .is_ok_and(|text| text.contains(&id[..32]))
    });
    let alone = Alone::new(Place::new("b", "alone"));
    let message = shared.until_reason("globalretentionpolicy/p", "HubRequired");
    assert!(message.contains("FLEET_STANDALONE"), "{message}");
    let cron_job = shared.get("cronjob/globalretention-p");
    assert_eq!(cron_job["spec"]["suspend"], true);
    // The shipped manifests, applied again, change neither name nor hub.
    let config = || {
        alone.0.cluster.kubectl(&[
            "get",
            "-n",
            SYSTEM,
            "configmap/fleet-spoke",
            "secret/fleet-spoke-join",
            "secret/fleet-spoke-identity",
            "--ignore-not-found",
            "-o",
            "name",
        ])
    };
    let before = config().unwrap();
    let shipped = bed().workspace.root.join("deploy/spoke");
    alone
        .0
        .cluster
        .kubectl(&["apply", "-f", &shipped.to_string_lossy()])
        .unwrap();
    assert_eq!(config().unwrap(), before);
    let (place, url) = (&alone.0, s3(1, "alone"));
    place.apply(&[place.repository("nas", &url)]);
    place.until_ready("resticrepository/nas");
    make_snapshots(&url, "b", "alone/x", "x", 1..4);
    for name in ["p", "q"] {
        keep_one(place, name);
        let ready = condition(&place.get(&format!("globalretentionpolicy/{name}")), "Ready");
        assert!(
            ready["message"]
                .as_str()
                .unwrap()
                .contains("the lock covers this cluster only"),
            "{ready:#}"
        );
    }
    let blocker = Blocker::new(&url);
    start(place, "p", "first");
    until("the first run", || {
        place
            .kubectl(&["logs", "-l", "job-name=first"])
            .is_ok_and(|log| log.contains("\"plan\""))
    });
    start(place, "q", "second");
    let waits = waiting(place, "q", "WaitingForLock");
    assert!(
        waits["message"].as_str().unwrap().contains("of this cluster"),
        "{waits:#}"
    );
    drop(blocker);
    let (first, second) = (
        until_run(place, "p", &json!({})),
        until_run(place, "q", &json!({})),
    );
    assert_eq!(first["lastRunResult"], "Applied", "{first:#}");
    assert_eq!(second["lastRunResult"], "NothingToRemove", "{second:#}");
    assert!(
        first["lastRunToken"].as_u64() < second["lastRunToken"].as_u64(),
        "{first:#} {second:#}"
    );
    assert_eq!(snapshots(&url, "").len(), 1);
}

#[test]
#[ignore = "needs clusters: make long"]
fn new_backups_hold_while_running_ones_end_before_maintenance() {
    without_coalescing();
    let (place, url) = (Place::new("a", "drained"), s3(0, "drained"));
    place.write("slow.bin", &noise(6 << 20));
    let slow = json!({ "restic": { "extraArgs": ["--limit-upload=400"] } });
    place.apply(&[
        place.repository("nas", &url),
        place.backup("slow", json!({ "name": "nas" }), slow),
        place.backup("other", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/slow");
    place.until_ready("resticbackup/other");
    keep_one(&place, "p");
    until_fleet_knows(&place, 1);
    let id = repository_id(&place);
    // A hub that was started just now grants nothing for a while.
    start(&place, "p", "before");
    let before = until_run(&place, "p", &json!({}));
    place
        .kubectl(&["annotate", "resticbackup/slow", "backup.resticbackup.io/run=1"])
        .unwrap();
    place.until("resticbackup/slow", "a running backup", |o| {
        o["status"]["active"].as_array().is_some_and(|a| a.len() == 1)
    });
    start(&place, "p", "drains");
    until("the drain", || lock(&id)["state"] == "draining");
    place.until("resticbackup/other", "held", |o| {
        condition(o, "Ready")["message"]
            .as_str()
            .is_some_and(|m| m.contains("held for a moment"))
    });
    let suspended = |object: &Value| object["spec"]["suspend"] == true;
    assert!(suspended(&place.get("cronjob/resticbackup-other")));
    place
        .kubectl(&["annotate", "resticbackup/other", "backup.resticbackup.io/run=1"])
        .unwrap();
    // Shorter than the longest drain of the suites' beds.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(8);
    let mut looked = 0;
    while std::time::Instant::now() < end {
        let active = place.get("resticbackup/other")["status"]["active"].clone();
        if lock(&id)["state"] != "draining" {
            break;
        }
        assert!(active.is_null(), "a run by request began in the drain: {active}");
        looked += 1;
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    assert!(
        looked > 0,
        "the drain was over before anything could be seen of it"
    );
    let done = place.until("resticbackup/slow", "its end", |o| {
        o["status"]["statistics"]["totalBackups"] == 1
    });
    assert_eq!(done["status"]["lastBackup"]["result"], "Succeeded", "{done:#}");
    let ran = until_run(&place, "p", &before);
    assert_eq!(ran["lastRunResult"], "NothingToRemove", "{ran:#}");
    place.until("cronjob/resticbackup-other", "free again", |o| !suspended(o));
    let other = place.until("resticbackup/other", "the run that was asked for", |o| {
        o["status"]["statistics"]["totalBackups"] == 1
    });
    assert_eq!(other["status"]["lastBackup"]["result"], "Succeeded", "{other:#}");
    // A backup that no cluster of the fleet knows is waited for under the lock, by restic itself.
    let blocker = Blocker::new(&url);
    start(&place, "p", "at-once");
    until_at_work(&place, &id);
    drop(blocker);
    assert_eq!(until_run(&place, "p", &ran)["lastRunResult"], "NothingToRemove");
    restic(&url, &["check", "--read-data", "-q"]);
}
