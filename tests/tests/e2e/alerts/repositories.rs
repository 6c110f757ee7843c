//! Alerts of repositories and of retention.

use std::path::Path;

use serde_json::{Value, json};
use tests::proxy::{Action, Rule};

use super::prometheus::Prometheus;
use crate::locks::Blocker;
use crate::retention::{make_snapshots, policy, start, until_run};
use crate::support::{Place, bed, faulty, rest, s3};

pub const ALERTS: &[&str] = &[
    "FleetRepositoryNotReady",
    "FleetRepositoryDamaged",
    "FleetRepositoryLocked",
    "FleetRetentionFailed",
    "FleetRetentionApprovalRequired",
    "FleetRetentionNotReady",
    "FleetRetentionWaiting",
];

const NAMESPACE: &str = "alertsof";

/// A policy of a repository that keeps one snapshot of each group.
fn keep_one(name: &str, repository: &str, more: Value) -> Value {
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    let mut policy = policy(name, keep, more);
    policy["spec"]["repositoryRef"] = json!({ "name": repository });
    policy
}

fn at_once() -> Value {
    json!({ "initialRun": "Apply", "guard": { "maxRemovedPercent": 100 } })
}

/// The secret's password is put into the place of that before.
fn set_password(place: &Place, password: &str) {
    place.apply(&[place.secret("changing", password)]);
}

fn write(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Repositories with snapshots, each for one cause.
fn prepare(place: &Place) {
    set_password(place, "right horse");
    let mut closed = place.repository("closed", &s3(0, "alertsof-closed"));
    closed["spec"]["credentialsSecretRef"]["name"] = json!("changing");
    let urls = [
        ("damaged", rest("alertsof-damaged")),
        ("locked", s3(0, "alertsof-locked")),
        ("refusing", faulty("alertsof-refusing")),
        ("guarded", s3(0, "alertsof-guarded")),
    ];
    place.apply(&[closed]);
    for (name, url) in &urls {
        place.apply(&[place.repository(name, url)]);
    }
    for name in ["closed", "damaged", "locked", "refusing", "guarded"] {
        place.until_ready(&format!("resticrepository/{name}"));
    }
    for (name, url) in &urls[1..] {
        make_snapshots(url, "a", &format!("{NAMESPACE}/{name}"), "x", 1..5);
    }
    place.apply(&[
        keep_one("failing", "refusing", at_once()),
        keep_one("guarded", "guarded", json!({})),
        keep_one("holding", "locked", at_once()),
        keep_one("waiting", "locked", at_once()),
        keep_one("not-ready", "closed", json!({})),
    ]);
    for name in ["failing", "guarded", "holding", "waiting"] {
        place.until_ready(&format!("globalretentionpolicy/{name}"));
    }
}

#[test]
#[ignore = "needs clusters: make long"]
fn alerts_of_repositories_and_retention_come_with_their_cause_and_end_with_its_mend() {
    let place = Place::new("a", NAMESPACE);
    let prometheus = Prometheus::start(place.cluster.clone(), 19_192);
    prepare(&place);
    let config = bed().servers().rest_data().join("alertsof-damaged/config");
    let sound = std::fs::read(&config).unwrap();

    let blocker = Blocker::new(&s3(0, "alertsof-locked"));
    start(&place, "holding", "holding");
    set_password(&place, "wrong");
    let mut broken = sound.clone();
    broken[30] ^= 0xff;
    write(&config, &broken);
    let refuse = Rule::each("DELETE", Action::status(403)).containing("/alertsof-refusing/snapshots/");
    bed().servers().rest_proxy().set(&[refuse]).unwrap();
    start(&place, "failing", "failing");
    start(&place, "guarded", "shown");
    let shown = until_run(&place, "guarded", &json!({}));
    start(&place, "guarded", "over");
    start(&place, "waiting", "waiting");
    let over = until_run(&place, "guarded", &shown);
    let failed = until_run(&place, "failing", &json!({}));
    let caused = [
        ("FleetRepositoryNotReady", "closed"),
        ("FleetRepositoryDamaged", "damaged"),
        ("FleetRepositoryLocked", "locked"),
        ("FleetRetentionFailed", "failing"),
        ("FleetRetentionApprovalRequired", "guarded"),
        ("FleetRetentionNotReady", "not-ready"),
        ("FleetRetentionWaiting", "waiting"),
    ];
    for (alert, name) in caused {
        prometheus.until_raised(alert, NAMESPACE, name);
    }
    // One cause is one alert.
    prometheus.assert_quiet("FleetRepositoryNotReady", NAMESPACE, "damaged");
    prometheus.assert_quiet("FleetRetentionFailed", NAMESPACE, "guarded");

    drop(blocker);
    bed().servers().rest_proxy().set(&[]).unwrap();
    set_password(&place, "right horse");
    write(&config, &sound);
    let approve = format!(
        "backup.resticbackup.io/approve-plan={}",
        over["plan"].as_str().unwrap()
    );
    place
        .kubectl(&["annotate", "globalretentionpolicy/guarded", &approve])
        .unwrap();
    start(&place, "failing", "mended");
    let mended = until_run(&place, "failing", &failed);
    assert_eq!(mended["lastRunResult"], "Applied", "{mended:#}");
    for (alert, name) in caused {
        prometheus.until_ended(alert, NAMESPACE, name);
    }
}
