//! Partitions, kills, pauses, and deletions by force.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Cluster;
use tests::fleet::SYSTEM;

use super::{Blocker, audit, lock, try_lock, two, until_at_work, worker};
use crate::faults::{kill_spokes, pods_of, until};
use crate::retention::{make_snapshots, repository_id, restic, snapshots, start, until_run};
use crate::support::{bed, condition, s3};

#[test]
#[ignore = "needs clusters: make test"]
fn a_cluster_that_is_cut_off_ends_its_run_and_the_other_gets_a_higher_token_after_the_delay() {
    let (a, b) = two("cutoff", [s3(0, "cutoff"), s3(1, "cutoff")]);
    let (id, url) = (repository_id(&a), s3(0, "cutoff"));
    make_snapshots(&url, "a", "cutoff/x", "x", 1..4);
    let blocker = Blocker::new(&url);
    start(&b, "p", "cut");
    let token = until_at_work(&b, &id);
    start(&a, "p", "after");
    until("a waits", || {
        lock(&id)["waiters"].as_array().is_some_and(|w| w.len() == 1)
    });
    let waits = lock(&id)["waiters"][0].clone();
    assert!(
        waits["reason"]
            .as_str()
            .unwrap()
            .contains(&format!("token {token}")),
        "{waits:#}"
    );
    bed().set_partition("b", true).unwrap();
    let cut = Instant::now();
    until("the delay", || lock(&id)["state"] == "delayed");
    until("a's grant", || {
        lock(&id)["cluster"] == "a" && lock(&id)["state"] == "held"
    });
    let waited = cut.elapsed();
    // The last renewal may have been a fifth of the life before the cut.
    assert!(
        waited >= Duration::from_secs(20 - 4 + 20),
        "granted {waited:?} after the cut"
    );
    let higher = lock(&id)["token"].as_u64().unwrap();
    assert!(higher > token);
    bed().set_partition("b", false).unwrap();
    // b's pod has long ended itself.
    let ended = until_run(&b, "p", &json!({}));
    assert_eq!(ended["lastRunResult"], "Interrupted", "{ended:#}");
    let object = b.get("globalretentionpolicy/p");
    assert!(
        condition(&object, "Degraded")["message"]
            .as_str()
            .unwrap()
            .contains("LeaseLost"),
        "{:#}",
        object["status"]
    );
    let pod = b
        .kubectl(&["get", "pods", "-l", "job-name=cut", "-o", "json"])
        .unwrap();
    let pod: Value = serde_json::from_str(&pod).unwrap();
    let finished = &pod["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"];
    let granted = audit(&id).iter().find(|e| e["token"] == higher).unwrap()["granted"].clone();
    assert!(
        finished.as_str().unwrap() < granted.as_str().unwrap(),
        "pod of b ended {finished}, a was granted {granted}"
    );
    drop(blocker);
    // What restic of the cut-off pod left behind keeps a's run waiting for 30 minutes at most; its owner is proven dead.
    restic(&url, &["unlock", "--remove-all"]);
    let ran = until_run(&a, "p", &json!({}));
    assert_eq!(ran["lastRunToken"], higher, "{ran:#}");
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
    restic(&url, &["check", "--read-data", "-q"]);
    assert_eq!(snapshots(&url, "x").len(), 1);
}

#[test]
#[ignore = "needs clusters: make test"]
fn kills_of_hub_and_spokes_change_neither_token_nor_job() {
    let (a, b) = two("kills", [s3(0, "kills"), s3(1, "kills")]);
    let (id, url) = (repository_id(&a), s3(0, "kills"));
    make_snapshots(&url, "a", "kills/x", "x", 1..4);
    let blocker = Blocker::new(&url);
    start(&b, "p", "killed");
    let token = until_at_work(&b, &id);
    start(&a, "p", "waiting");
    until("a waits", || {
        lock(&id)["waiters"].as_array().is_some_and(|w| w.len() == 1)
    });

    let hub = pods_of(&a, "fleet-hub").remove(0);
    a.cluster
        .signal_container(SYSTEM, &hub, "fleet-hub", "KILL")
        .unwrap();
    until("the hub again, with the same holder", || {
        let lock = try_lock(&id).unwrap_or_default();
        lock["state"] == "held"
            && lock["token"] == token
            && lock["renewedMillisecondsAgo"]
                .as_u64()
                .is_some_and(|ms| ms > 0 && ms < 4000)
    });
    kill_spokes(&b);
    // Longer than the life of a lease: only renewals by its new owner keep it.
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let lock = lock(&id);
        assert_eq!(
            (&lock["state"], &lock["token"]),
            (&json!("held"), &json!(token)),
            "{lock:#}"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(worker(&b).is_some(), "the run goes on");
    drop(blocker);
    let ran = until_run(&b, "p", &json!({}));
    assert_eq!(
        (&ran["lastRunResult"], &ran["lastRunToken"]),
        (&json!("Applied"), &json!(token)),
        "{ran:#}"
    );
    let jobs = b.kubectl(&["get", "jobs", "-o", "name"]).unwrap();
    assert_eq!(jobs.lines().count(), 1, "adopted, no second Job: {jobs}");
    let next = until_run(&a, "p", &json!({}));
    assert!(next["lastRunToken"].as_u64().unwrap() > token, "{next:#}");
    restic(&url, &["check", "--read-data", "-q"]);
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_pod_that_was_paused_for_longer_than_a_lease_ends_itself() {
    let (a, b) = two("paused", [s3(0, "paused"), s3(1, "paused")]);
    let (id, url) = (repository_id(&a), s3(0, "paused"));
    make_snapshots(&url, "a", "paused/x", "x", 1..4);
    let blocker = Blocker::new(&url);
    start(&b, "p", "paused");
    let token = until_at_work(&b, &id);
    start(&a, "p", "next");
    let pod = worker(&b).unwrap();
    let signal = |name| {
        b.cluster
            .signal_container("paused", &pod, "restic", name)
            .unwrap()
    };
    signal("STOP");
    // Its operator renews the lease all the time, but the pod cannot know that.
    let end = Instant::now() + Duration::from_secs(25);
    while Instant::now() < end {
        assert_eq!(lock(&id)["token"], token, "nobody else is granted it");
        std::thread::sleep(Duration::from_secs(1));
    }
    signal("CONT");
    let ended = until_run(&b, "p", &json!({}));
    assert_eq!(
        (&ended["lastRunResult"], &ended["lastRunToken"]),
        (&json!("Interrupted"), &json!(token)),
        "{ended:#}"
    );
    drop(blocker);
    let ran = until_run(&a, "p", &json!({}));
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
    assert!(ran["lastRunToken"].as_u64().unwrap() > token, "{ran:#}");
    restic(&url, &["check", "--read-data", "-q"]);
}

/// A node of which its cluster hears nothing, while its pods go on.
pub struct SilentNode<'a>(&'a Cluster);

impl SilentNode<'_> {
    pub fn new(cluster: &Cluster) -> SilentNode<'_> {
        cluster.signal_kubelet("STOP").unwrap();
        SilentNode(cluster)
    }
}

impl Drop for SilentNode<'_> {
    fn drop(&mut self) {
        self.0.signal_kubelet("CONT").unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_pod_that_is_deleted_by_force_is_no_proof_of_its_end() {
    let (a, b) = two("forced", [s3(0, "forced"), s3(1, "forced")]);
    let (id, url) = (repository_id(&a), s3(0, "forced"));
    make_snapshots(&url, "a", "forced/x", "x", 1..4);
    let blocker = Blocker::new(&url);
    start(&b, "p", "forced");
    let token = until_at_work(&b, &id);
    start(&a, "p", "next");
    let pod = worker(&b).unwrap();
    let at_work = || {
        !b.cluster
            .container_pids("forced", &pod, "restic")
            .unwrap()
            .is_empty()
    };
    // Why people use force. A kubelet that hears of it would end the pod, and might still say so.
    let silent = SilentNode::new(&b.cluster);
    b.kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"])
        .unwrap();
    let forced = Instant::now();
    let failed = ["wait", "job/forced", "--for=condition=Failed", "--timeout=60s"];
    b.kubectl(&failed).unwrap();
    assert!(at_work(), "its Job has failed, and the pod goes on");
    let ended = until_run(&b, "p", &json!({}));
    assert_eq!(ended["lastRunResult"], "Failed", "{ended:#}");
    until("the delay", || lock(&id)["state"] == "delayed");
    until("the end of its pod", || !at_work());
    assert_eq!(lock(&id)["state"], "delayed", "nobody is granted it before");
    drop(silent);
    until("a's grant", || {
        lock(&id)["cluster"] == "a" && lock(&id)["state"] == "held"
    });
    let waited = forced.elapsed();
    // As if it had fallen silent: its lease runs out, and then the delay.
    assert!(
        waited >= Duration::from_secs(20 - 4 + 20),
        "granted {waited:?} after the deletion"
    );
    drop(blocker);
    let ran = until_run(&a, "p", &json!({}));
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
    assert!(ran["lastRunToken"].as_u64().unwrap() > token, "{ran:#}");
    restic(&url, &["check", "--read-data", "-q"]);
}
