//! Operations that are interrupted, and how maintenance goes on afterwards without a person.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::{self, SYSTEM};

use super::faults::SilentNode;
use super::{Blocker, audit, lock, two, until_at_work, worker};
use crate::faults::{pods_of, until};
use crate::retention::{make_snapshots, repository_id, restic, start, until_run};
use crate::support::{Place, bed, condition, s3};

/// A run of b that waits in the middle of its work: place, repository, token.
struct Midway {
    a: Place,
    b: Place,
    id: String,
    url: String,
    token: u64,
    blocker: Blocker,
}

fn midway(name: &str) -> Midway {
    let (a, b) = two(name, [s3(0, name), s3(1, name)]);
    let (id, url) = (repository_id(&a), s3(0, name));
    make_snapshots(&url, "a", &format!("{name}/x"), "x", 1..4);
    let blocker = Blocker::new(&url);
    start(&b, "p", "first");
    let token = until_at_work(&b, &id);
    Midway {
        a,
        b,
        id,
        url,
        token,
        blocker,
    }
}

impl Midway {
    /// The next run of a has the lock, under a higher token, and ends well.
    fn goes_on(self) {
        let Midway {
            a,
            id,
            url,
            token,
            blocker,
            ..
        } = self;
        start(&a, "p", "next");
        until("a's grant", || {
            lock(&id)["token"].as_u64().is_some_and(|t| t > token)
        });
        drop(blocker);
        // What restic of the ended pod left is not under test here.
        restic(&url, &["unlock", "--remove-all"]);
        let ran = until_run(&a, "p", &json!({}));
        assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
        assert!(ran["lastRunToken"].as_u64().unwrap() > token, "{ran:#}");
        restic(&url, &["check", "--read-data", "-q"]);
    }
}

fn jobs(place: &Place) -> Vec<String> {
    let names = place
        .kubectl(&["get", "jobs", "-o", "jsonpath={.items[*].metadata.name}"])
        .unwrap();
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_lock_that_a_person_takes_back_ends_the_run_and_the_next_one_goes_on() {
    let run = midway("takenback");
    let token = run.token.to_string();
    let release = ["locks", "release", &run.id, "--token", &token];
    fleet::shell_ok(bed(), "fleet", &release).unwrap();
    let ended = until_run(&run.b, "p", &json!({}));
    assert_eq!(ended["lastRunResult"], "Interrupted", "{ended:#}");
    let degraded = condition(&run.b.get("globalretentionpolicy/p"), "Degraded");
    assert!(
        degraded["message"].as_str().unwrap().contains("TakenBack"),
        "{degraded:#}"
    );
    until("no Job is left of it", || jobs(&run.b).is_empty());
    until("the lock is free", || lock(&run.id)["state"] == "free");
    // A second run of the same policy opens a Job of its own.
    start(&run.b, "p", "second");
    until("b's second grant", || {
        lock(&run.id)["cluster"] == "b" && lock(&run.id)["token"].as_u64() > Some(run.token)
    });
    let release = lock(&run.id)["token"].to_string();
    fleet::shell_ok(
        bed(),
        "fleet",
        &["locks", "release", &run.id, "--token", &release],
    )
    .unwrap();
    until("the lock is free again", || lock(&run.id)["state"] == "free");
    run.goes_on();
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_job_that_is_shut_by_hand_is_followed_by_another() {
    let run = midway("shut");
    run.b
        .kubectl(&[
            "patch",
            "job/first",
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":true}}"#,
        ])
        .unwrap();
    let ended = until_run(&run.b, "p", &json!({}));
    assert_eq!(ended["lastRunResult"], "Interrupted", "{ended:#}");
    until("its successor has the lock", || {
        !jobs(&run.b).contains(&"first".to_owned())
            && lock(&run.id)["token"]
                .as_u64()
                .is_some_and(|token| token > run.token)
    });
    let before = run.b.get("globalretentionpolicy/p")["status"].clone();
    drop(run.blocker);
    restic(&run.url, &["unlock", "--remove-all"]);
    let ran = until_run(&run.b, "p", &before);
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_job_deleted_without_its_pod_frees_nothing_while_the_pod_works() {
    let run = midway("orphan");
    let pod = worker(&run.b).unwrap();
    let at_work = || {
        !run.b
            .cluster
            .container_pids("orphan", &pod, "restic")
            .unwrap_or_default()
            .is_empty()
    };
    run.b
        .kubectl(&["delete", "job", "first", "--cascade=orphan"])
        .unwrap();
    until("the pod has ended itself", || {
        let state = lock(&run.id)["state"].clone();
        assert!(!(at_work() && state == "free"), "freed beside a pod that works");
        !at_work()
    });
    assert_eq!(lock(&run.id)["state"], "delayed", "and the delay follows");
    run.goes_on();
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_node_that_is_deleted_proves_no_end_of_its_pods() {
    let run = midway("nodegone");
    let cluster = &run.b.cluster;
    let pod = worker(&run.b).unwrap();
    let at_work = || {
        !cluster
            .container_pids("nodegone", &pod, "restic")
            .unwrap_or_default()
            .is_empty()
    };
    let silent = SilentNode::new(cluster);
    let nodes: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "nodes", "-o", "json"]).unwrap()).unwrap();
    let name = nodes["items"][0]["metadata"]["name"].as_str().unwrap();
    cluster.kubectl(&["delete", "node", name]).unwrap();
    let deleted = Instant::now();
    until("the lease has run out", || lock(&run.id)["state"] == "delayed");
    assert!(
        deleted.elapsed() >= Duration::from_secs(20 - 4),
        "not before its life is over"
    );
    until("the end of its pod", || !at_work());
    assert_eq!(lock(&run.id)["state"], "delayed", "nobody is granted it before");
    let mut node = nodes["items"][0].clone();
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        node["metadata"].as_object_mut().unwrap().remove(field);
    }
    cluster.apply(&node.to_string()).unwrap();
    drop(silent);
    run.goes_on();
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_policy_that_is_repointed_during_its_run_gives_the_first_lock_back_and_takes_no_other_with_its_token() {
    let run = midway("repointed");
    run.b
        .apply(&[run.b.repository("other", &s3(1, "repointed-other"))]);
    run.b.until_ready("resticrepository/other");
    let other = run.b.get("resticrepository/other")["status"]["repositoryId"]
        .as_str()
        .unwrap()
        .to_owned();
    let patch = r#"{"spec":{"repositoryRef":{"name":"other"}}}"#;
    run.b
        .kubectl(&["patch", "globalretentionpolicy/p", "--type=merge", "-p", patch])
        .unwrap();
    let ended = until_run(&run.b, "p", &json!({}));
    assert_eq!(
        (&ended["lastRunResult"], &ended["lastRunToken"]),
        (&json!("Interrupted"), &json!(run.token)),
        "{ended:#}"
    );
    until("the first repository is free", || {
        lock(&run.id)["state"] == "free"
    });
    let entries = audit(&other);
    assert!(
        entries.iter().all(|e| e["token"] != run.token),
        "never held under its token: {entries:#?}"
    );
    // Its successor works on the other repository.
    let before = run.b.get("globalretentionpolicy/p")["status"].clone();
    until_run(&run.b, "p", &before);
    run.goes_on();
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_run_goes_on_while_leadership_changes_twice() {
    let run = midway("leaders");
    let cluster = &run.b.cluster;
    let leader = || {
        let lease = [
            "get",
            "lease",
            "-n",
            SYSTEM,
            "fleet-spoke",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ];
        cluster.kubectl(&lease).unwrap_or_default().trim().to_owned()
    };
    let signal = |pod: &str, name| {
        cluster
            .signal_container(SYSTEM, pod, "fleet-spoke", name)
            .unwrap()
    };
    let first = leader();
    assert!(pods_of(&run.b, "fleet-spoke").contains(&first));
    signal(&first, "STOP");
    until("another leader", || !leader().is_empty() && leader() != first);
    let second = leader();
    signal(&first, "CONT");
    // Longer than nine tenths of a lease's life: what the first remembers of its deadline is long past.
    let end = Instant::now() + Duration::from_secs(25);
    while Instant::now() < end {
        assert_eq!(lock(&run.id)["token"], run.token);
        std::thread::sleep(Duration::from_secs(1));
    }
    signal(&second, "STOP");
    until("the first leads again", || leader() == first);
    signal(&second, "CONT");
    let end = Instant::now() + Duration::from_secs(25);
    while Instant::now() < end {
        let lock = lock(&run.id);
        assert_eq!(
            (&lock["state"], &lock["token"]),
            (&json!("held"), &json!(run.token)),
            "{lock:#}"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(worker(&run.b).is_some(), "the run was never shut");
    drop(run.blocker);
    let ran = until_run(&run.b, "p", &json!({}));
    assert_eq!(
        (&ran["lastRunResult"], &ran["lastRunToken"]),
        (&json!("Applied"), &json!(run.token)),
        "{ran:#}"
    );
}
