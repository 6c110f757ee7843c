//! The maintenance lock on real pods, many times and under faults. One after the other: each of these tests is felt by
//! the whole bed.

mod alone;
mod away;
mod check;
mod collector;
mod copied;
pub mod deleting;
mod failover;
mod faults;
mod left;
mod long;
mod many;
mod operations;
mod restored;

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tests::fleet::{self, SYSTEM};

use crate::faults::until;
use crate::retention::{policy, restic, restic_command, until_fleet_knows};
use crate::support::{Place, bed, condition, fleet_json};

/// Each policy has a run of its own, however close they are.
fn without_coalescing() {
    let cluster = bed().cluster("a").unwrap();
    let window = ["-o", "jsonpath={.data.FLEET_HUB_COALESCE_WINDOW}"];
    let set = ["get", "-n", SYSTEM, "configmap", "fleet-hub-settings"];
    if cluster.kubectl(&[&set[..], &window].concat()).unwrap() == "off" {
        return;
    }
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
pub fn two(name: &str, urls: [String; 2]) -> (Place, Place) {
    without_coalescing();
    let places = (Place::new("a", name), Place::new("b", name));
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 },
                       "jobConfig": { "successfulJobsHistoryLimit": 50 } });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    for (place, url) in [(&places.0, &urls[0]), (&places.1, &urls[1])] {
        place.apply(&[place.repository("nas", url)]);
        // A busy machine may need more than one attempt to open it.
        place.until_within(deleting::MENDED, "resticrepository/nas", "Ready", |o| {
            condition(o, "Ready")["status"] == "True"
        });
        place.apply(&[policy("p", keep.clone(), more.clone())]);
        place.until_ready("globalretentionpolicy/p");
    }
    until_fleet_knows(&places.0, 2);
    places
}

/// Holds restic's shared lock, so that a run under the maintenance lock waits in the middle of its work.
pub struct Blocker(Child);

impl Blocker {
    pub fn new(url: &str) -> Blocker {
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

/// The lock of a repository, as `fleet why-locked` tells it.
pub fn lock(id: &str) -> Value {
    try_lock(id).unwrap()
}

/// The same of a hub that may be away.
pub fn try_lock(id: &str) -> anyhow::Result<Value> {
    let told = fleet::shell_ok(bed(), "fleet", &["why-locked", id, "-o", "json"])?;
    Ok(serde_json::from_str::<Value>(&told)?["items"][0].clone())
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

pub fn worker(place: &Place) -> Option<String> {
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
