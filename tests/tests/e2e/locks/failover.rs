//! An operator whose leader is deleted again and again, while people watch its backups and another cluster removes
//! snapshots by a picture of the fleet that must never lack its policies.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::fleet::{self, SYSTEM};

use super::deleting::{MENDED, until_end, within};
use super::without_coalescing;
use crate::retention::{make_snapshots, policy, restic, snapshots, start, until_fleet_knows};
use crate::support::{Place, bed, s3};

const BACKUPS: usize = 300;
const ROUNDS: usize = 20;

/// `fleet backups --watch -o json`, read as it comes.
struct Watch {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    fn new() -> Watch {
        let arguments = ["backups", "--watch", "-o", "json"];
        let mut command = fleet::command(bed(), "fleet", &arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let events = Arc::<Mutex<Vec<Value>>>::default();
        let (lines, into) = (
            BufReader::new(child.stdout.take().unwrap()).lines(),
            events.clone(),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Watch { child, events }
    }

    /// Keys of rows of a kind of event, of this namespace.
    fn keys(&self, type_: &str) -> BTreeSet<String> {
        let events = self.events.lock().unwrap();
        let keys = events.iter().filter(|e| e["type"] == type_).filter_map(|e| {
            let object = &e["object"];
            let key = object["key"].as_str().map(str::to_owned);
            let named = || {
                let part = |name: &str| object[name].as_str();
                Some(format!(
                    "{}/{}/{}",
                    part("cluster")?,
                    part("namespace")?,
                    part("name")?
                ))
            };
            key.or_else(named)
        });
        keys.filter(|key| key.starts_with("a/failover/")).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
#[ignore = "needs clusters: make faults"]
fn three_hundred_backups_stay_in_sight_and_lose_nothing_while_the_leader_is_deleted_twenty_times() {
    without_coalescing();
    let (a, b) = (Place::new("a", "failover"), Place::new("b", "failover"));
    let url = s3(0, "failover");
    for (place, address) in [(&a, 0), (&b, 1)] {
        place.apply(&[place.repository("nas", &s3(address, "failover"))]);
        place.until_ready("resticrepository/nas");
    }
    // Without a's policy, b's would remove all but the newest of a's snapshots.
    let all = json!([{ "selector": { "tags": ["fleet.cluster=a"] }, "retention": { "keepLast": 50 } }]);
    let one = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 },
                       "jobConfig": { "successfulJobsHistoryLimit": 50 } });
    a.apply(&[policy("keeper", all, more.clone())]);
    b.apply(&[policy("p", one, more)]);
    a.until_ready("globalretentionpolicy/keeper");
    b.until_ready("globalretentionpolicy/p");
    let backups = |n| a.backup(&format!("b{n}"), json!({ "name": "nas" }), json!({}));
    a.apply(&(0..BACKUPS).map(backups).collect::<Vec<_>>());
    until_fleet_knows(&a, 2);
    make_snapshots(&url, "a", "failover/b1", "x", 1..7);
    let kept = snapshots(&url, "fleet.cluster=a");

    let mut watch = Watch::new();
    within(Duration::from_secs(180), "all backups at the hub", || {
        watch.keys("UPSERT").len() == BACKUPS
    });
    let mut last = json!({});
    for round in 0..ROUNDS {
        make_snapshots(&url, "b", "failover/y", "y", 1..4);
        let leader = a.cluster.leader().unwrap();
        start(&b, "p", &format!("r{round}"));
        let delete = ["delete", "pod", "-n", SYSTEM, &leader, "--wait=false"];
        a.cluster.kubectl(&delete).unwrap();
        within(Duration::from_secs(90), "another leader", || {
            a.cluster.leader().is_ok_and(|now| now != leader)
        });
        last = until_end(&b, &last, MENDED);
        assert_eq!(last["lastRunResult"], "Applied", "round {round}: {last:#}");
        assert_eq!(snapshots(&url, "fleet.cluster=a"), kept, "round {round}");
        assert_eq!(watch.keys("REMOVED"), BTreeSet::new(), "round {round}");
        fleet::rollout(&a.cluster, "fleet-spoke").unwrap();
    }
    assert!(watch.child.try_wait().unwrap().is_none(), "watched to the end");
    restic(&url, &["check", "-q"]);
}
