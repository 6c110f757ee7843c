//! What viewers see of a cluster while its leaders change.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Cluster;

use crate::support::{Place, SOON, bed, fleet_json, s3};

const BACKUPS: usize = 300;
const CHANGES: usize = 20;
const SYSTEM: [&str; 2] = ["-n", "restic-fleet-system"];

/// `fleet backups --watch -o json`, line by line, until it is dropped.
struct Watch {
    child: std::process::Child,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    fn start() -> Watch {
        let environment = bed().environment();
        let exports: String = environment
            .iter()
            .map(|(k, v)| format!("export {k}=\"{v}\"; "))
            .collect();
        let mut child = Command::new("bash")
            .args(["-c", &format!("{exports} exec \"$0\" \"$@\""), "fleet"])
            .args(["backups", "--cluster", "a", "--watch", "-o", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (lines, seen) = (
            BufReader::new(child.stdout.take().unwrap()).lines(),
            events.clone(),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    seen.lock().unwrap().push(event);
                }
            }
        });
        Watch { child, events }
    }

    fn count(&self, type_: &str) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| event["type"] == type_).count()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        tests::process::signal(self.child.id(), "TERM");
        self.child.wait().ok();
    }
}

fn system(cluster: &Cluster, arguments: &[&str]) -> String {
    cluster.kubectl(&[&SYSTEM, arguments].concat()).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Session of the cluster at the hub, by when it began.
fn connected_since() -> Value {
    let list = fleet_json(&["clusters", "a"]);
    let rows = list["items"].as_array().cloned().unwrap_or_default();
    rows.into_iter()
        .find(|row| row["name"] == "a" && row["complete"] == true)
        .map(|row| row["connectedSince"].clone())
        .unwrap_or_default()
}

#[test]
#[ignore = "needs clusters: make test"]
fn leaders_change_twenty_times_and_no_row_is_removed() {
    let place = Place::new("a", "leaders");
    let cluster = &place.cluster;
    place.apply(&[place.repository("nas", &s3(0, "leaders"))]);
    let backups: Vec<Value> = (0..BACKUPS)
        .map(|n| {
            place.backup(
                &format!("b{n}"),
                json!({ "name": "nas" }),
                json!({ "suspend": true }),
            )
        })
        .collect();
    place.apply(&backups);
    place.until_ready("resticrepository/nas");
    let rows = || {
        let list = fleet_json(&["backups", "--cluster", "a", "--namespace", "leaders"]);
        list["items"].as_array().map_or(0, Vec::len)
    };
    until("all rows", || rows() == BACKUPS);
    let watch = Watch::start();
    until("the present state", || watch.count("BOOKMARK") == 1);
    assert!(watch.count("UPSERT") >= BACKUPS);
    for change in 0..CHANGES {
        let before = connected_since();
        let leader = system(
            cluster,
            &[
                "get",
                "lease",
                "fleet-spoke",
                "-o",
                "jsonpath={.spec.holderIdentity}",
            ],
        );
        system(cluster, &["delete", "pod", leader.trim(), "--wait=false"]);
        until("another leader", || {
            let since = connected_since();
            since.is_string() && since != before
        });
        assert_eq!(
            watch.count("REMOVED"),
            0,
            "after {} changes of leaders",
            change + 1
        );
        assert_eq!(rows(), BACKUPS);
    }
    assert_eq!(watch.count("REMOVED"), 0);
}
