//! Alerts of backups, of restores and of notifications.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::prometheus::Prometheus;
use crate::support::{Place, bed, noise, s3};

pub const ALERTS: &[&str] = &[
    "FleetBackupStale",
    "FleetBackupFailed",
    "FleetBackupPartiallyFailed",
    "FleetBackupSuspicious",
    "FleetBackupNotReady",
    "FleetBackupWaiting",
    "FleetRestoreFailed",
    "FleetRestorePending",
    "FleetNotificationsFailing",
];

const NAMESPACE: &str = "alerts";

/// A backup of a folder of the claim.
fn backup(place: &Place, name: &str, folder: &str, more: &Value) -> Value {
    let mut backup = place.backup(name, json!({ "name": "nas" }), more.clone());
    backup["spec"]["source"] = json!({ "pvc": { "claimName": "data", "paths": [folder] } });
    backup
}

fn restore(name: &str, backup: &str, snapshot: &str) -> Value {
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": name },
        "spec": { "backupRef": { "name": backup }, "snapshotID": snapshot,
                  "target": { "pvc": { "claimName": "data", "path": format!("/{name}") } } } })
}

/// As if hours had gone by since the backup was made, and no run had succeeded.
fn age(place: &Place, name: &str) {
    let object = place.until(&format!("resticbackup/{name}"), "its first judgement", |o| {
        crate::support::condition(o, "Stale")["status"] == "False"
    });
    let past = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(100);
    let mut conditions = object["status"]["conditions"].clone();
    for condition in conditions.as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!(past.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    let patch = json!({ "status": { "conditions": conditions } }).to_string();
    let object = format!("resticbackup/{name}");
    place
        .kubectl(&[
            "patch",
            &object,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .unwrap();
}

fn permit(place: &Place, path: &str, mode: u32) {
    let path = place.data().join(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What is wrong from here on; returns alerts and the resources that they are of.
fn cause(place: &Place) -> Vec<(&'static str, &'static str)> {
    for folder in ["partial", "much", "fine"] {
        place.write(&format!("{folder}/a.txt"), b"hello");
    }
    place.write("much/big.bin", &noise(1 << 20));
    place.write("partial/private/b.txt", b"private");
    let elsewhere = json!({ "jobConfig": { "nodeSelector": { "kubernetes.io/hostname": "nowhere" } } });
    // The storage refuses what is no request of S3.
    let refused = json!({ "notifications": { "webhook": { "url": bed().servers().s3_urls()[0] } } });
    let mut not_ready = backup(place, "not-ready", "/fine", &json!({}));
    not_ready["spec"]["source"]["pvc"]["claimName"] = json!("later");
    // Twice a day, and never while the test runs.
    let hour = jiff::Timestamp::now()
        .strftime("%H")
        .to_string()
        .parse::<u32>()
        .unwrap();
    let schedule = format!("30 {},{} * * *", (hour + 6) % 24, (hour + 18) % 24);
    place.apply(&[
        place.repository("nas", &s3(0, NAMESPACE)),
        backup(place, "failed", "/absent", &json!({})),
        backup(place, "partial", "/partial", &json!({})),
        backup(place, "suspicious", "/much", &json!({})),
        backup(place, "waiting", "/fine", &elsewhere),
        backup(place, "stale", "/fine", &json!({ "schedule": schedule })),
        backup(place, "notified", "/fine", &refused),
        not_ready,
        restore("without-snapshot", "failed", "ffffffff"),
        restore("without-backup", "later", "latest"),
    ]);
    for name in ["failed", "partial", "suspicious", "waiting", "stale", "notified"] {
        place.until_ready(&format!("resticbackup/{name}"));
    }
    age(place, "stale");
    for n in 1..=3 {
        assert_eq!(place.run("suspicious", &n.to_string())["result"], "Succeeded");
    }
    std::fs::remove_file(place.data().join("much/big.bin")).unwrap();
    permit(place, "partial/private", 0o700);
    ask(place, "waiting");
    for name in ["failed", "partial", "suspicious", "notified"] {
        place.run(name, "wrong");
    }
    vec![
        ("FleetBackupStale", "stale"),
        ("FleetBackupFailed", "failed"),
        ("FleetBackupPartiallyFailed", "partial"),
        ("FleetBackupSuspicious", "suspicious"),
        ("FleetBackupNotReady", "not-ready"),
        ("FleetBackupWaiting", "waiting"),
        ("FleetRestoreFailed", "without-snapshot"),
        ("FleetRestorePending", "without-backup"),
    ]
}

fn ask(place: &Place, name: &str) {
    let object = format!("resticbackup/{name}");
    place
        .kubectl(&["annotate", &object, "backup.resticbackup.io/run=1"])
        .unwrap();
}

fn mend(place: &Place) {
    place.write("absent/a.txt", b"here now");
    place.write("much/big.bin", &noise(1 << 20));
    permit(place, "partial/private", 0o755);
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "later" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    place.apply(&[claim, backup(place, "later", "/fine", &json!({}))]);
    place
        .kubectl(&["delete", "job", "-l", "backup.resticbackup.io/backup=waiting"])
        .unwrap();
    place
        .kubectl(&["delete", "resticrestore", "without-snapshot"])
        .unwrap();
    for name in ["failed", "partial", "suspicious", "stale", "later"] {
        let run = place.run(name, "mended");
        assert_eq!(run["result"], "Succeeded", "{name}: {run:#}");
    }
}

#[test]
#[ignore = "needs clusters: make long"]
fn alerts_of_backups_and_restores_come_with_their_cause_and_end_with_its_mend() {
    let place = Place::new("a", NAMESPACE);
    let prometheus = Prometheus::start(place.cluster.clone(), 19_191);
    let caused = cause(&place);
    for (alert, name) in &caused {
        prometheus.until_raised(alert, NAMESPACE, name);
    }
    prometheus.until_raised("FleetNotificationsFailing", "", "");
    for (alert, _) in &caused {
        prometheus.assert_quiet(alert, NAMESPACE, "notified");
    }
    mend(&place);
    for (alert, name) in &caused {
        prometheus.until_ended(alert, NAMESPACE, name);
    }
    prometheus.until_ended("FleetNotificationsFailing", "", "");
}
