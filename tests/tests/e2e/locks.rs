//! The maintenance lock under faults, on real pods: partitions, kills, pauses. One after the other: each of these is
//! felt by the whole bed.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::{self, SYSTEM};

use crate::faults::{kill_spokes, pods_of, until};
use crate::retention::{
    make_snapshots, policy, repository_id, restic, restic_command, snapshots, start, until_fleet_knows,
    until_run,
};
use crate::support::{Place, bed, condition, fleet_json, rest, s3};

/// Each policy has a run of its own, however close they are.
fn without_coalescing() {
    let cluster = bed().cluster("a").unwrap();
    let patch = r#"{"data":{"FLEET_HUB_COALESCE_WINDOW":"off"}}"#;
    let names = ["-n", SYSTEM, "configmap", "fleet-hub-settings", "-p", patch];
    let mut arguments = vec!["patch"];
    arguments.extend(names);
    cluster.kubectl(&arguments).unwrap();
    cluster
        .kubectl(&["rollout", "restart", "-n", SYSTEM, "deployment/fleet-hub"])
        .unwrap();
    fleet::rollout(&cluster, "fleet-hub").unwrap();
}

/// Two clusters with one repository and a policy each that keeps the newest snapshot of everything.
fn two(name: &str, urls: [String; 2]) -> (Place, Place) {
    without_coalescing();
    let places = (Place::new("a", name), Place::new("b", name));
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 },
                       "jobConfig": { "successfulJobsHistoryLimit": 50 } });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    for (place, url) in [(&places.0, &urls[0]), (&places.1, &urls[1])] {
        place.apply(&[place.repository("nas", url)]);
        place.until_ready("resticrepository/nas");
        place.apply(&[policy("p", keep.clone(), more.clone())]);
        place.until_ready("globalretentionpolicy/p");
    }
    until_fleet_knows(&places.0, 2);
    places
}

/// Holds restic's shared lock, so that a run under the maintenance lock waits in the middle of its work.
struct Blocker(Child);

impl Blocker {
    fn new(url: &str) -> Blocker {
        let mut command = restic_command(url, &["backup", "--stdin", "--host", "blocker", "-q"]);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("restic's shared lock", || {
            !restic(url, &["list", "locks", "--no-lock"]).trim().is_empty()
        });
        Blocker(child)
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap();
        self.0.wait().unwrap();
    }
}

/// The lock of the place's repository, as `fleet locks` tells it.
fn lock(id: &str) -> Value {
    fleet_json(&["why-locked", id])["items"][0].clone()
}

/// Waits until a cluster's pod is at work under the lock; returns the token.
fn until_at_work(place: &Place, id: &str) -> u64 {
    until("the lock", || {
        let lock = lock(id);
        lock["state"] == "held" && lock["cluster"] == place.cluster.name.as_str()
    });
    until("the pod", || {
        worker(place).is_some_and(|pod| {
            place
                .kubectl(&["logs", &pod])
                .is_ok_and(|log| log.contains("\"plan\""))
        })
    });
    lock(id)["token"].as_u64().unwrap()
}

fn worker(place: &Place) -> Option<String> {
    let running = place.kubectl(&[
        "get",
        "pods",
        "-l",
        "backup.resticbackup.io/type=retention",
        "--field-selector",
        "status.phase=Running",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ]);
    running.ok()?.split_whitespace().next().map(str::to_owned)
}

fn audit(id: &str) -> Vec<Value> {
    let mut entries = fleet_json(&["audit", id])["items"].as_array().unwrap().clone();
    entries.reverse();
    entries
}

#[test]
#[ignore = "needs clusters: make test"]
fn twenty_times_two_clusters_ask_at_once_and_their_delete_phases_never_overlap() {
    const ROUNDS: usize = 20;
    let url = rest("twenty");
    let (a, b) = two("twenty", [url.clone(), url.clone()]);
    let id = repository_id(&a);
    make_snapshots(&url, "a", "twenty/x", "x", 1..3);
    let (mut last_a, mut last_b) = (json!({}), json!({}));
    for round in 0..ROUNDS {
        start(&a, "p", &format!("r{round}"));
        start(&b, "p", &format!("r{round}"));
        // Something to remove for the second one too.
        let writer = {
            let url = url.clone();
            std::thread::spawn(move || {
                for n in 0..2 {
                    let dir = tempfile::tempdir().unwrap();
                    std::fs::write(dir.path().join("f"), format!("{round} {n}")).unwrap();
                    let path = dir.path().join("f").to_string_lossy().into_owned();
                    let tags = ["--tag", "fleet.cluster=b", "--tag", "fleet.backup=twenty/y"];
                    let mut arguments = vec![
                        "backup",
                        "-q",
                        "--retry-lock",
                        "2m",
                        "--host",
                        "w",
                        "--stdin-filename",
                        "/w",
                        "--stdin-from-command",
                    ];
                    arguments.extend(tags);
                    arguments.extend(["--", "cat", &path]);
                    restic(&url, &arguments);
                }
            })
        };
        last_a = until_run(&a, "p", &last_a);
        last_b = until_run(&b, "p", &last_b);
        writer.join().unwrap();
        for last in [&last_a, &last_b] {
            let result = last["lastRunResult"].as_str().unwrap();
            assert!(
                ["Applied", "NothingToRemove"].contains(&result),
                "round {round}: {last:#}"
            );
        }
        eprintln!(
            "round {}: tokens {} and {}",
            round + 1,
            last_a["lastRunToken"],
            last_b["lastRunToken"]
        );
    }
    let entries = audit(&id);
    assert_eq!(entries.len(), 2 * ROUNDS);
    let tokens: Vec<u64> = entries.iter().map(|e| e["token"].as_u64().unwrap()).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    // Who deleted, in the order in which the server answered. Pods have addresses of their own cluster.
    let log = std::fs::read_to_string(bed().servers().rest_log()).unwrap();
    let deletes = log
        .lines()
        .filter(|line| line.contains("\"DELETE /twenty/") && !line.contains("/locks/"));
    let who: Vec<&str> = deletes.filter_map(|line| line.split(' ').next()).collect();
    let blocks = 1 + who.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let addresses: std::collections::BTreeSet<&&str> = who.iter().collect();
    eprintln!(
        "{} deletes by {addresses:?} in {blocks} blocks of {} runs",
        who.len(),
        entries.len()
    );
    assert!(
        addresses.len() > 1 && who.len() > 2 * ROUNDS,
        "both clusters deleted: {who:?}"
    );
    assert!(blocks <= entries.len(), "delete phases overlap: {who:?}");
    restic(&url, &["check", "--read-data", "-q"]);
}

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
        waited >= Duration::from_secs(20 - 4 + 8),
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
fn kills_of_hub_and_spokes_and_a_paused_pod_change_neither_token_nor_job() {
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
        let lock = std::panic::catch_unwind(|| lock(&id)).unwrap_or_default();
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
    let pod = worker(&b).expect("the run goes on");
    b.cluster
        .signal_container("kills", &pod, "restic", "STOP")
        .unwrap();
    let end = Instant::now() + Duration::from_secs(25);
    while Instant::now() < end {
        assert_eq!(lock(&id)["token"], token, "nobody else is granted it");
        std::thread::sleep(Duration::from_secs(1));
    }
    b.cluster
        .signal_container("kills", &pod, "restic", "CONT")
        .unwrap();
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
