//! One cluster collects the figures of a repository, by the storage's own log, and another one when it is killed.

use std::time::Duration;

use serde_json::Value;
use tests::fleet;
use tests::proxy::Entry;

use crate::faults::until;
use crate::retention::{make_snapshots, repository_id};
use crate::support::{Place, bed, faulty, fleet_json, rest};

/// Between two readings, as the bed is set.
const INTERVAL: Duration = Duration::from_secs(20);

/// Row of the repository, as people see it.
fn row(id: &str) -> Value {
    fleet_json(&["repos", id])["items"][0].clone()
}

/// Requests of a cluster that list what the repository holds, out of those since a number.
fn listings(place: &Place, since: u64) -> Vec<Entry> {
    let mut log = bed().servers().rest_proxy().log("/collected/").unwrap();
    let prefix = place.cluster.pod_prefix();
    let lists = |path: &str| ["/snapshots/", "/index/"].iter().any(|part| path.contains(part));
    log.retain(|e| e.number > since && e.client.starts_with(&prefix) && lists(&e.path));
    log
}

/// Number of the last request.
fn last() -> u64 {
    let log = bed().servers().rest_proxy().log("/collected/").unwrap();
    log.iter().map(|entry| entry.number).max().unwrap_or_default()
}

/// Waits for figures that were read three times from now on.
fn three_readings(id: &str) {
    for _ in 0..3 {
        let before = row(id)["statistics"]["asOf"].clone();
        until("newer figures", || row(id)["statistics"]["asOf"] != before);
    }
}

#[test]
#[ignore = "needs clusters: make long"]
fn one_cluster_lists_a_repository_and_the_other_takes_over_when_it_is_killed() {
    let (a, b) = (Place::new("a", "collected"), Place::new("b", "collected"));
    for place in [&a, &b] {
        place.apply(&[place.repository("nas", &faulty("collected"))]);
        place.until_ready("resticrepository/nas");
    }
    let id = repository_id(&a);
    make_snapshots(&rest("collected"), "a", "collected/x", "x", 1..4);
    until("a collector that has seen the snapshots", || {
        let row = row(&id);
        !row["collector"].is_null() && row["statistics"]["snapshots"] == 3
    });
    let collector = row(&id)["collector"].as_str().unwrap().to_owned();
    let (collects, other) = if collector == "a" { (&a, &b) } else { (&b, &a) };
    other.until("resticrepository/nas", "figures of the collector", |o| {
        let statistics = &o["status"]["statistics"];
        statistics["collectedBy"] == collector.as_str() && statistics["snapshotCount"] == 3
    });
    let since = last();
    three_readings(&id);
    let (mine, others) = (listings(collects, since), listings(other, since));
    eprintln!(
        "{} requests that list by the collector, {} by the other",
        mine.len(),
        others.len()
    );
    assert!(!mine.is_empty());
    assert!(others.is_empty(), "{others:#?}");
    let history = fleet_json(&["repos", "history", &id]);
    assert_eq!(history["items"][0]["snapshots"], 3, "{history:#}");

    let since = last();
    let killed = std::time::Instant::now();
    collects.cluster.scale("fleet-spoke", 0).unwrap();
    until("another collector", || {
        row(&id)["collector"] == other.cluster.name.as_str()
    });
    until("its figures", || {
        row(&id)["statistics"]["from"] == other.cluster.name.as_str()
    });
    eprintln!("taken over after {:?}", killed.elapsed());
    // The rest is what the busy machine needs.
    assert!(killed.elapsed() < INTERVAL * 4, "{:?}", killed.elapsed());
    assert!(!listings(other, since).is_empty());

    collects.cluster.scale("fleet-spoke", 2).unwrap();
    fleet::rollout(&collects.cluster, "fleet-spoke").unwrap();
    collects.until("resticrepository/nas", "figures of the new collector", |o| {
        o["status"]["statistics"]["collectedBy"] == other.cluster.name.as_str()
    });
    let since = last();
    three_readings(&id);
    assert_eq!(listings(collects, since).len(), 0, "it stays with the new one");
}
