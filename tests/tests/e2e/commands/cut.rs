//! Fifty commands to two clusters whose ways to the hub are cut at random moments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Cluster;
use tests::bed::HUB_LINK_PORT;
use tests::fleet::{self, SYSTEM};
use tests::link::Link;

use super::{jobs, run};
use crate::retention::restic;
use crate::support::{Place, bed, fleet_json, keep_logs, s3};

const LIMIT: Duration = Duration::from_secs(80);

/// A cluster whose spoke reaches the hub through a link that can be cut.
struct Side {
    place: Place,
    link: Link,
    url: String,
    generation: i64,
}

/// Numbers that are the same in each run of the test.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Makes the spoke dial this address, which counts before that of its join; `None` undoes it.
fn hub_of(cluster: &Cluster, address: Option<&str>) -> anyhow::Result<()> {
    match address {
        Some(address) => cluster.apply(
            &json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "hub": address },
                     "metadata": { "name": "fleet-spoke", "namespace": SYSTEM } })
            .to_string(),
        )?,
        None => cluster.kubectl(&[
            "delete",
            "-n",
            SYSTEM,
            "--ignore-not-found",
            "configmap/fleet-spoke",
        ])?,
    };
    let restart = ["rollout", "restart", "-n", SYSTEM, "deployment/fleet-spoke"];
    cluster.kubectl(&restart).map(drop)
}

impl Side {
    fn new(name: &str) -> Side {
        let place = Place::new(name, "fifty");
        let url = s3(0, &format!("fifty-{name}"));
        let nas = json!({ "name": "nas" });
        let kept = json!({ "jobConfig": { "successfulJobsHistoryLimit": 20 } });
        place.apply(&[
            place.repository("nas", &url),
            place.backup("runs", nas.clone(), kept),
            place.backup("stops", nas, json!({})),
        ]);
        place.until_ready("resticbackup/runs");
        place.until_ready("resticbackup/stops");
        let hub = format!("{}:{HUB_LINK_PORT}", bed().plan().node(0))
            .parse()
            .unwrap();
        let listen = format!("{}:0", bed().plan().wan(1)).parse().unwrap();
        let link = Link::start(listen, hub).unwrap();
        hub_of(&place.cluster, Some(&format!("https://{}", link.address))).unwrap();
        let generation = place.get("resticbackup/stops")["metadata"]["generation"]
            .as_i64()
            .unwrap();
        Side {
            place,
            link,
            url,
            generation,
        }
    }

    fn target(&self, backup: &str) -> String {
        format!("{}/fifty/{backup}", self.place.cluster.name)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        hub_of(&self.place.cluster, None).ok();
        fleet::rollout(&self.place.cluster, "fleet-spoke").ok();
    }
}

fn connected() {
    let end = Instant::now() + LIMIT;
    loop {
        let list = fleet_json(&["clusters"]);
        let items = list["items"].as_array().unwrap();
        let is = |name: &str| {
            items
                .iter()
                .any(|c| c["name"] == name && c["state"] == "connected")
        };
        if is("a") && is("b") {
            return;
        }
        assert!(Instant::now() < end, "{list:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Sends command `n` of fifty, and its id.
fn send(sides: &[Side; 2], n: usize) -> String {
    let side = &sides[n % 2];
    let (what, backup) = match n / 2 {
        turn if turn % 5 == 0 => ("run", "runs"),
        turn if (turn - turn / 5) % 2 == 1 => ("suspend", "stops"),
        _ => ("resume", "stops"),
    };
    let (code, text) = run(&["backups", what, &side.target(backup), "--no-wait"]);
    assert_eq!(code, 0, "{text}");
    text.lines().next().unwrap().to_owned()
}

/// Beginnings of the ids of the snapshots that runs say they have made.
fn made<'a>(operations: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let text = |operation: &Value| operation["text"].as_str().unwrap().to_owned();
    let id = |text: String| text.strip_prefix("snapshot ").map(str::to_owned);
    operations.filter_map(|operation| id(text(operation))).collect()
}

/// The operations, once all have ended.
fn ended(ids: &[String]) -> BTreeMap<String, Value> {
    let end = Instant::now() + LIMIT;
    loop {
        let list = fleet_json(&["operations", "list", "--limit", "200"]);
        let all = list["items"].as_array().unwrap().iter();
        let ours: BTreeMap<String, Value> = all
            .map(|o| (o["id"].as_str().unwrap().to_owned(), o.clone()))
            .filter(|(id, _)| ids.contains(id))
            .collect();
        let open = ours.values().filter(|o| o["ended"].is_null()).count();
        if ours.len() == ids.len() && open == 0 {
            return ours;
        }
        if Instant::now() > end {
            keep_logs(bed());
            panic!("{open} of {} have not ended: {list:#}", ours.len());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn fifty_commands_over_links_that_are_cut_are_each_done_once_or_expired() {
    let sides = [Side::new("a"), Side::new("b")];
    for side in &sides {
        fleet::rollout(&side.place.cluster, "fleet-spoke").unwrap();
    }
    connected();
    let over = AtomicBool::new(false);
    let mut ids = Vec::new();
    let mut late = String::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = Chance(0x2545_f491_4f6c_dd1d);
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50 + chance.below(900)));
                let side = if chance.below(2) == 0 {
                    &sides[0]
                } else {
                    &sides[1]
                };
                side.link.cut();
            }
        });
        for n in 0..49 {
            ids.push(send(&sides, n));
        }
        over.store(true, Ordering::Relaxed);
    });
    // The fiftieth cannot begin in time.
    sides[1].link.set_down(true);
    let target = sides[1].target("runs");
    let (code, text) = run(&["backups", "run", &target, "--within", "1s", "--no-wait"]);
    assert_eq!(code, 0, "{text}");
    text.lines().next().unwrap().clone_into(&mut late);
    std::thread::sleep(Duration::from_secs(2));
    sides[1].link.set_down(false);
    ids.push(late.clone());
    let operations = ended(&ids);
    assert_eq!(operations.len(), 50);
    assert_eq!(operations[&late]["state"], "expired", "{:#}", operations[&late]);
    for operation in operations.values().filter(|o| o["id"] != late.as_str()) {
        assert_eq!(operation["state"], "done", "{operation:#}");
    }
    for side in &sides {
        let name = &side.place.cluster.name;
        let its = |what: &'static str| {
            let all = operations.values().filter(|o| o["state"] == "done");
            all.filter(move |o| o["cluster"] == name.as_str() && o["what"].as_str().unwrap().contains(what))
        };
        // Each run has made one Job and one snapshot, and names it.
        let list: Value = serde_json::from_str(&restic(&side.url, &["snapshots", "--json"])).unwrap();
        let present: BTreeSet<String> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| snapshot["id"].as_str().unwrap()[..8].to_owned())
            .collect();
        assert_eq!(made(its("run")), present, "{name}");
        assert_eq!(present.len(), its("run").count(), "{name}");
        assert_eq!(jobs(&side.place).len(), present.len(), "{name}");
        // Suspend and resume took turns: each has changed the resource once, and in this order.
        let stops = side.place.get("resticbackup/stops");
        let changes = stops["metadata"]["generation"].as_i64().unwrap() - side.generation;
        let asked = its("suspend").count() + its("resume").count();
        assert_eq!(usize::try_from(changes).unwrap(), asked, "{name}: {stops:#}");
    }
}
