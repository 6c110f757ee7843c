//! Faults in the middle of deleting that take longer, or that are rarer: `make faults`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet;

use super::deleting::{Fault, Scene, Then, strike, within};
use super::lock;
use crate::support::{bed, faulty, suite};

/// Its processes stand still and its cluster is cut off; both end when the lock has long been another's.
struct FrozenAndCutOff;

impl Fault for FrozenAndCutOff {
    const NAME: &'static str = "frozen";
    const THEN: Then = Then::StandsStill;

    fn inflict(&mut self, scene: &Scene) {
        scene.signal("STOP");
        bed().set_partition("b", true).unwrap();
    }

    fn mend(&mut self, scene: &Scene) {
        scene.signal("CONT");
        within(Duration::from_secs(15), "its end at once", || !scene.at_work());
        bed().set_partition("b", false).unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_pod_that_wakes_up_when_another_holds_the_lock_deletes_nothing() {
    strike(FrozenAndCutOff);
}

/// The kubelet ends, and the node's object is deleted: the control plane then calls its pods failed.
struct NodeDeleted;

impl Fault for NodeDeleted {
    const NAME: &'static str = "nodeless";
    const THEN: Then = Then::RunsOut;

    fn inflict(&mut self, scene: &Scene) {
        let cluster = &scene.b.cluster;
        cluster.stop_kubelet();
        cluster.delete_node().unwrap();
    }

    fn mend(&mut self, scene: &Scene) {
        scene.b.cluster.start_kubelet().unwrap();
        fleet::rollout(&scene.b.cluster, "fleet-spoke").unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_node_that_is_deleted_is_no_proof_of_the_end_of_its_pods() {
    strike(NodeDeleted);
}

/// Its pod's object is deleted by force while the kubelet stands still: why people use force.
struct Forced;

impl Fault for Forced {
    const NAME: &'static str = "forced";
    const THEN: Then = Then::RunsOut;

    fn inflict(&mut self, scene: &Scene) {
        let cluster = &scene.b.cluster;
        cluster.signal_kubelet("STOP").unwrap();
        cluster.force_delete_pod(scene.name, &scene.pod).unwrap();
        let failed = ["wait", "job/struck", "--for=condition=Failed", "--timeout=60s"];
        scene.b.kubectl(&failed).unwrap();
        assert!(scene.at_work(), "its Job has failed, and the pod goes on");
    }

    fn mend(&mut self, scene: &Scene) {
        scene.b.cluster.signal_kubelet("CONT").unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_pod_that_is_deleted_by_force_is_no_proof_of_its_end() {
    strike(Forced);
}

/// The hub's store is put back to a copy that knows nothing of the run.
#[derive(Default)]
struct StorePutBack {
    copy: Option<tempfile::TempDir>,
}

impl Fault for StorePutBack {
    const NAME: &'static str = "rolledback";
    const THEN: Then = Then::Either;

    fn prepare(&mut self) {
        let copy = tempfile::tempdir().unwrap();
        bed().stop_hub().unwrap();
        bed().save_store(&copy.path().join("store")).unwrap();
        bed().start_hub().unwrap();
        self.copy = Some(copy);
    }

    fn inflict(&mut self, scene: &Scene) {
        // What the store will have forgotten.
        assert!(scene.grants().iter().any(|grant| grant.token == scene.token));
        bed().stop_hub().unwrap();
        let copy = self.copy.as_ref().unwrap().path().join("store");
        bed().put_store_back(&copy).unwrap();
        bed().start_hub().unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_hub_with_an_older_store_grants_nothing_beside_a_run_that_it_has_forgotten() {
    strike(StorePutBack::default());
}

/// The policy points to another repository while its run is under way.
struct PointedElsewhere;

impl PointedElsewhere {
    fn point(scene: &Scene, repository: &str) {
        let patch = json!({ "spec": { "repositoryRef": { "name": repository } } }).to_string();
        let policy = ["patch", "globalretentionpolicy/p", "--type=merge", "-p", &patch];
        scene.b.kubectl(&policy).unwrap();
    }
}

impl Fault for PointedElsewhere {
    const NAME: &'static str = "pointed";
    const THEN: Then = Then::Either;
    // A policy that comes to a repository anew may show its plan first.
    const AGAIN: &'static [&'static str] = &["Applied", "Preview"];

    fn inflict(&mut self, scene: &Scene) {
        scene
            .b
            .apply(&[scene.b.repository("other", &faulty("elsewhere"))]);
        scene.b.until_ready("resticrepository/other");
        Self::point(scene, "other");
        scene.b.until("globalretentionpolicy/p", "the change", |o| {
            o["status"]["observedGeneration"] == o["metadata"]["generation"]
        });
    }

    fn mend(&mut self, scene: &Scene) {
        Self::point(scene, "nas");
        scene.b.until_ready("globalretentionpolicy/p");
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_policy_that_is_pointed_elsewhere_keeps_the_lock_until_its_run_has_ended() {
    strike(PointedElsewhere);
}

/// A person takes the lock back.
struct TakenBack;

impl Fault for TakenBack {
    const NAME: &'static str = "takenback";
    const THEN: Then = Then::Ends;

    fn inflict(&mut self, scene: &Scene) {
        let token = scene.token.to_string();
        let release = ["locks", "release", &scene.id, "--token", &token];
        fleet::shell_ok(bed(), "fleet", &release).unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_lock_that_a_person_takes_back_is_free_only_when_its_pod_has_ended() {
    strike(TakenBack);
}

/// Leadership of the operator moves to the other replica and back while both live.
struct LeadershipMoved;

impl LeadershipMoved {
    fn held_for(scene: &Scene, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let lock = lock(&scene.id);
            let now = (&lock["state"], &lock["token"]);
            assert_eq!(now, (&json!("held"), &json!(scene.token)), "{lock:#}");
            assert!(scene.at_work(), "its pod deletes all the time");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Fault for LeadershipMoved {
    const NAME: &'static str = "flapped";
    const THEN: Then = Then::GoesOn;

    fn inflict(&mut self, scene: &Scene) {
        let cluster = &scene.b.cluster;
        let (first, second) = (cluster.leader().unwrap(), cluster.followers().unwrap().remove(0));
        cluster.set_leader(&second).unwrap();
        // Longer than what the first one remembers of the lease is good for.
        Self::held_for(scene, suite().ttl + Duration::from_secs(5));
        cluster.set_leader(&first).unwrap();
        Self::held_for(scene, suite().ttl / 2);
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn leadership_that_moves_and_comes_back_leaves_a_healthy_run_alone() {
    strike(LeadershipMoved);
}

/// The operator's leader is deleted as a rolling update would.
struct LeaderDeleted;

impl Fault for LeaderDeleted {
    const NAME: &'static str = "leaderless";
    const THEN: Then = Then::GoesOn;

    fn inflict(&mut self, scene: &Scene) {
        let cluster = &scene.b.cluster;
        let leader = cluster.leader().unwrap();
        let delete = ["delete", "pod", "-n", fleet::SYSTEM, &leader, "--wait=false"];
        cluster.kubectl(&delete).unwrap();
        within(Duration::from_secs(90), "another leader", || {
            cluster.leader().is_ok_and(|now| now != leader)
        });
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn a_leader_that_is_deleted_leaves_a_healthy_run_alone() {
    strike(LeaderDeleted);
}

/// Two hubs on one store.
struct TwoHubs;

impl TwoHubs {
    /// Names of the hub's pods, ready ones first and apart.
    fn hubs() -> (Vec<String>, Vec<String>) {
        let ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let pods = bed().cluster("a").unwrap().pods_of("fleet-hub").unwrap();
        let (yes, no): (Vec<Value>, Vec<Value>) = pods.into_iter().partition(ready);
        let names = |pods: Vec<Value>| -> Vec<String> {
            pods.iter()
                .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        (names(yes), names(no))
    }
}

impl Fault for TwoHubs {
    const NAME: &'static str = "twohubs";
    const THEN: Then = Then::GoesOn;

    fn inflict(&mut self, _scene: &Scene) {
        let cluster = bed().cluster("a").unwrap();
        cluster.scale("fleet-hub", 2).unwrap();
        // Containers that started: a pod that is not ready because it is new shows nothing.
        let started = || {
            let pods = cluster.pods_of("fleet-hub").unwrap();
            let running = |pod: &Value| {
                let state = &pod["status"]["containerStatuses"][0];
                state["started"] == true || state["restartCount"].as_u64().is_some_and(|n| n > 0)
            };
            pods.len() == 2 && pods.iter().all(running)
        };
        within(Duration::from_secs(60), "two hubs", started);
        let end = Instant::now() + Duration::from_secs(20);
        let mut said = String::new();
        while Instant::now() < end {
            let (ready, others) = Self::hubs();
            assert!(ready.len() <= 1, "two hubs serve: {ready:?}");
            for pod in &others {
                said += &cluster
                    .kubectl(&["logs", "-n", fleet::SYSTEM, pod])
                    .unwrap_or_default();
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        assert_eq!(Self::hubs().0.len(), 1, "one hub serves");
        assert!(
            said.contains("store"),
            "the other one says why it does not: {said:.2000}"
        );
    }

    fn mend(&mut self, _scene: &Scene) {
        bed().start_hub().unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn of_two_hubs_on_one_store_one_grants() {
    strike(TwoHubs);
}
