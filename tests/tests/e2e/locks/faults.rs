//! Faults in the middle of deleting that need no more than two clusters and their processes. `long` has the others.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::fleet::SYSTEM;

use super::deleting::{Fault, Scene, Then, strike, within};
use super::lock;
use crate::faults::{kill_spokes, pods_of, until};
use crate::support::{bed, condition, suite};

/// Its cluster is cut off from everything.
struct CutOff;

impl Fault for CutOff {
    const NAME: &'static str = "cutoff";
    const THEN: Then = Then::RunsOut;

    fn inflict(&mut self, scene: &Scene) {
        let waits = lock(&scene.id)["waiters"][0].clone();
        let token = format!("token {}", scene.token);
        assert!(waits["reason"].as_str().unwrap().contains(&token), "{waits:#}");
        bed().set_partition("b", true).unwrap();
    }

    fn mend(&mut self, scene: &Scene) {
        bed().set_partition("b", false).unwrap();
        let interrupted = |o: &serde_json::Value| o["status"]["lastRunResult"] == "Interrupted";
        let object = scene
            .b
            .until("globalretentionpolicy/p", "what became of the run", interrupted);
        let degraded = condition(&object, "Degraded");
        assert!(
            degraded["message"].as_str().unwrap().contains("LeaseLost"),
            "{degraded:#}"
        );
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_cluster_that_is_cut_off_stops_deleting_before_anybody_else_begins() {
    strike(CutOff);
}

/// Its Job is deleted, and nobody knows its pod any more.
struct Orphaned;

impl Fault for Orphaned {
    const NAME: &'static str = "orphaned";
    const THEN: Then = Then::RunsOut;

    fn inflict(&mut self, scene: &Scene) {
        scene.b.cluster.orphan_job(scene.name, "struck").unwrap();
        assert!(scene.at_work(), "its Job is gone, and the pod goes on");
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_job_that_is_deleted_without_its_pods_is_no_proof_of_their_end() {
    strike(Orphaned);
}

/// `kill -9` of the hub, and of both replicas of the spoke.
struct Killed;

impl Fault for Killed {
    const NAME: &'static str = "kills";
    const THEN: Then = Then::GoesOn;

    fn inflict(&mut self, scene: &Scene) {
        let hub = pods_of(&scene.a, "fleet-hub").remove(0);
        let cluster = &scene.a.cluster;
        cluster
            .signal_container(SYSTEM, &hub, "fleet-hub", "KILL")
            .unwrap();
        until("the hub again, with the same holder", || {
            let lock = super::try_lock(&scene.id).unwrap_or_default();
            lock["state"] == "held"
                && lock["token"] == scene.token
                && lock["renewedMillisecondsAgo"]
                    .as_u64()
                    .is_some_and(|ms| ms > 0 && ms < 4000)
        });
        kill_spokes(&scene.b);
        // Longer than the life of a lease: only renewals by its new owner keep it.
        let end = Instant::now() + suite().ttl + Duration::from_secs(5);
        while Instant::now() < end {
            let lock = lock(&scene.id);
            let now = (&lock["state"], &lock["token"]);
            assert_eq!(now, (&json!("held"), &json!(scene.token)), "{lock:#}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn kills_of_hub_and_spokes_change_neither_token_nor_job() {
    strike(Killed);
}

/// Its processes stand still for longer than a lease lives, and go on.
struct Paused;

impl Fault for Paused {
    const NAME: &'static str = "paused";
    const THEN: Then = Then::Ends;

    fn inflict(&mut self, scene: &Scene) {
        scene.signal("STOP");
        let end = Instant::now() + suite().ttl + Duration::from_secs(5);
        while Instant::now() < end {
            assert_eq!(lock(&scene.id)["token"], scene.token, "nobody else is granted it");
            std::thread::sleep(Duration::from_secs(1));
        }
        scene.signal("CONT");
        within(Duration::from_secs(15), "its end at once", || !scene.at_work());
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_pod_that_was_paused_for_longer_than_a_lease_ends_itself() {
    strike(Paused);
}
