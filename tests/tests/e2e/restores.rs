//! Restores on real pods: what is meant comes back, and nothing else.

use std::process::Stdio;

use serde_json::{Value, json};
use tests::fleet;

use crate::retention::{restic, restic_command};
use crate::support::{Place, bed, condition, noise, rest, s3, tree};

/// A second claim to restore into, open to everybody.
pub fn claim(place: &Place, name: &str) {
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
                    "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
    ]);
    fleet::open_volume(&place.cluster, &place.namespace, name).unwrap();
}

pub fn folder(place: &Place, claim: &str) -> std::path::PathBuf {
    fleet::volume_path(&place.cluster, &place.namespace, claim)
        .unwrap()
        .into()
}

pub fn restore(place: &Place, name: &str, spec: Value) {
    place.apply(&[
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
                          "metadata": { "name": name }, "spec": spec }),
    ]);
}

/// Waits for the end of a restore.
fn ended(place: &Place, name: &str) -> Value {
    place.until(&format!("resticrestore/{name}"), "an end", |o| {
        ["Completed", "Failed"].contains(&o["status"]["phase"].as_str().unwrap_or_default())
    })
}

pub fn completed(place: &Place, name: &str) -> Value {
    let object = ended(place, name);
    assert_eq!(object["status"]["phase"], "Completed", "{:#}", object["status"]);
    object["status"].clone()
}

pub fn failed(place: &Place, name: &str, reason: &str) -> String {
    let object = ended(place, name);
    assert_eq!(object["status"]["phase"], "Failed", "{:#}", object["status"]);
    let ready = condition(&object, "Ready");
    assert_eq!(ready["reason"], reason, "{ready:#}");
    ready["message"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_brings_back_what_is_meant_and_nothing_else() {
    // Two clusters, one repository, one host name: the newest snapshot of all is the other cluster's.
    let (place, other) = (Place::new("a", "restores"), Place::new("b", "restores"));
    other.write("small/a.txt", b"of another cluster");
    // Asked for before there is anything: it waits.
    claim(&place, "early");
    restore(
        &place,
        "early",
        json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "early" } } }),
    );
    let message = place.until_reason("resticrestore/early", "BackupNotFound");
    assert!(message.contains("ResticBackup restores/orders"), "{message}");
    place.apply(&[place.repository("nas", &s3(0, "restores"))]);
    place.until_ready("resticrepository/nas");
    let backup = |place: &Place| {
        place.backup(
            "orders",
            json!({ "name": "nas" }),
            json!({ "restic": { "hostname": "orders", "tags": ["daily"] } }),
        )
    };
    other.apply(&[other.repository("nas", &s3(1, "restores")), backup(&other)]);
    other.until_ready("resticbackup/orders");
    // The early one sees the backup, but no snapshot of it yet, and says so for good.
    place.apply(&[backup(&place)]);
    failed(&place, "early", "SnapshotNotFound");
    let first = place.run("orders", "1");
    place.write("small/a.txt", b"changed");
    place.write("only-new.txt", b"new");
    let second = place.run("orders", "2");
    other.run("orders", "1");

    claim(&place, "back");
    let into = |path: &str| json!({ "pvc": { "claimName": "back", "path": path } });
    let by_backup = |target: Value, more: Value| {
        let mut spec = json!({ "backupRef": { "name": "orders" }, "target": target });
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        spec
    };
    restore(
        &place,
        "latest",
        by_backup(into("latest"), json!({ "options": { "verify": true } })),
    );
    let status = completed(&place, "latest");
    assert_eq!(status["restoredSnapshot"], second["snapshotID"]);
    assert!(status["restoredFiles"].as_i64().unwrap() >= 4, "{status:#}");
    assert!(status["restoredSizeBytes"].as_i64().unwrap() > 2 << 20 && status["duration"].is_string());
    assert_eq!(
        tree(&folder(&place, "back").join("latest")),
        tree(&place.data()),
        "without /backup, byte for byte"
    );

    let short = &first["snapshotID"].as_str().unwrap()[..8];
    let wanted = json!({ "snapshotID": short, "includePaths": ["/small/a*"] });
    restore(&place, "by-id", by_backup(into("by-id"), wanted));
    assert_eq!(
        completed(&place, "by-id")["restoredSnapshot"],
        first["snapshotID"]
    );
    let files = tree(&folder(&place, "back").join("by-id"));
    assert_eq!(
        files.into_iter().collect::<Vec<_>>(),
        [("small/a.txt".to_owned(), b"hello".to_vec())]
    );

    // Times of snapshots are those of their start.
    let before = second["startTime"].clone();
    let selector =
        json!({ "snapshotSelector": { "tags": ["daily"], "hostname": "orders", "before": before } });
    restore(&place, "before", by_backup(into("before"), selector));
    assert_eq!(
        completed(&place, "before")["restoredSnapshot"],
        first["snapshotID"]
    );

    std::fs::write(folder(&place, "back").join("latest/small/a.txt"), b"mine").unwrap();
    restore(
        &place,
        "keep",
        by_backup(into("latest"), json!({ "options": { "overwrite": false } })),
    );
    let status = completed(&place, "keep");
    assert_eq!(
        std::fs::read(folder(&place, "back").join("latest/small/a.txt")).unwrap(),
        b"mine"
    );
    assert!(
        status["conditions"].to_string().contains("stayed as they are"),
        "{status:#}"
    );
    restore(&place, "over", by_backup(into("latest"), json!({})));
    completed(&place, "over");
    assert_eq!(
        std::fs::read(folder(&place, "back").join("latest/small/a.txt")).unwrap(),
        b"changed"
    );

    restore(
        &place,
        "nothing",
        by_backup(into("x"), json!({ "includePaths": ["/backup/small"] })),
    );
    assert!(failed(&place, "nothing", "NothingMatched").contains("relative to the data"));
    restore(
        &place,
        "no-such",
        by_backup(into("x"), json!({ "snapshotID": "ffffffff" })),
    );
    failed(&place, "no-such", "SnapshotNotFound");

    // A fresh cluster: no backup, only the repository. Both clusters' snapshots carry the tag.
    let fresh = |selector: Value| json!({ "repositoryRef": { "name": "nas" }, "snapshotSelector": selector, "target": into("fresh") });
    restore(&place, "unclear", fresh(json!({ "tags": ["daily"] })));
    assert!(failed(&place, "unclear", "SnapshotAmbiguous").contains("fleet.cluster=b"));
    restore(
        &place,
        "fresh",
        fresh(json!({ "tags": ["daily", "fleet.cluster=b"] })),
    );
    completed(&place, "fresh");
    assert_eq!(tree(&folder(&place, "back").join("fresh")), tree(&other.data()));
}

/// A prune that stands still while it holds restic's exclusive lock.
struct Prune(std::process::Child);

impl Prune {
    fn paused(name: &str) -> Prune {
        let url = rest(name);
        let locks = bed().servers().rest_data().join(name).join("locks");
        let is_locked = || std::fs::read_dir(&locks).is_ok_and(|mut files| files.next().is_some());
        // One that was too quick is made again.
        for _ in 0..20 {
            let mut command = restic_command(&url, &["prune", "-q", "--limit-download", "1"]);
            let prune = Prune(command.stdin(Stdio::null()).spawn().unwrap());
            crate::faults::until("restic's lock", is_locked);
            tests::process::signal(prune.0.id(), "STOP");
            if is_locked() {
                return prune;
            }
        }
        panic!("no prune was slow enough to be paused");
    }
}

impl Drop for Prune {
    fn drop(&mut self) {
        tests::process::signal(self.0.id(), "CONT");
        let ended = self.0.wait().unwrap();
        assert!(ended.success() || std::thread::panicking(), "prune: {ended}");
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_during_a_prune_waits_and_completes() {
    let place = Place::new("a", "pruned");
    place.apply(&[
        place.repository("nas", &rest("pruned")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    place.run("orders", "1");
    claim(&place, "back");
    let prune = Prune::paused("pruned");
    restore(
        &place,
        "during",
        json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "back" } } }),
    );
    let address = [
        "get",
        "pods",
        "-l",
        "backup.resticbackup.io/restore=during",
        "-o",
        "jsonpath={.items[*].status.podIP}",
    ];
    crate::faults::until("the pod looks at restic's locks", || {
        let address = place.kubectl(&address).unwrap_or_default();
        let log = std::fs::read_to_string(bed().servers().rest_log()).unwrap();
        let mut of_it = log
            .lines()
            .filter(|line| line.split(' ').next() == Some(address.trim()));
        of_it.any(|line| line.contains("GET /pruned/locks/"))
    });
    assert_eq!(place.get("resticrestore/during")["status"]["phase"], "InProgress");
    drop(prune);
    completed(&place, "during");
    assert_eq!(tree(&folder(&place, "back")), tree(&place.data()));
    restic(&rest("pruned"), &["check", "--read-data", "-q"]);
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_makes_its_claim_survives_kills_and_gives_up_with_the_schedulers_words() {
    let place = Place::new("b", "restored");
    place.write("slow.bin", &noise(6 << 20));
    place.apply(&[
        // By TLS whose authority is in the Secret.
        place.repository("nas", &rest("restored")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    place.run("orders", "1");

    // Volumes of this provisioner belong to root.
    let root = json!({ "securityContext": { "runAsUser": 0, "runAsNonRoot": false } });
    let spec = json!({ "backupRef": { "name": "orders" }, "jobConfig": root,
                       "target": { "newPVC": { "name": "fresh", "size": "1Gi" } } });
    restore(&place, "fresh", spec.clone());
    // Both replicas are killed while it is under way; the restore goes on, and there is one Job.
    place.until("resticrestore/fresh", "a Job", |o| {
        o["status"]["phase"] == "InProgress"
    });
    crate::faults::kill_spokes(&place);
    completed(&place, "fresh");
    assert_eq!(tree(&folder(&place, "fresh")), tree(&place.data()));
    let jobs = place
        .kubectl(&[
            "get",
            "jobs",
            "-l",
            "backup.resticbackup.io/restore=fresh",
            "-o",
            "name",
        ])
        .unwrap();
    assert_eq!(jobs.lines().count(), 1, "{jobs}");
    // Its name is taken now, by data.
    let mut again = spec;
    again["target"]["newPVC"]["name"] = json!("data");
    restore(&place, "taken", again);
    place.until_reason("resticrestore/taken", "TargetExists");
    place
        .kubectl(&["delete", "resticrestore", "fresh", "--wait"])
        .unwrap();
    assert!(
        !place.get("pvc/fresh")["metadata"]["uid"].is_null(),
        "the data outlives the restore"
    );

    // The pod is killed in the middle.
    claim(&place, "half");
    restore(
        &place,
        "half",
        json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "half" } } }),
    );
    place.until("resticrestore/half", "a Job", |o| {
        o["status"]["phase"] == "InProgress"
    });
    let pod = [
        "get",
        "pods",
        "-l",
        "backup.resticbackup.io/restore=half",
        "-o",
        "name",
    ];
    crate::faults::until("the pod", || {
        place.kubectl(&pod).is_ok_and(|name| !name.is_empty())
    });
    let pod = place.kubectl(&pod).unwrap();
    place
        .kubectl(&["delete", pod.trim(), "--grace-period=0", "--force"])
        .unwrap();
    let object = ended(&place, "half");
    // Killed before its end it fails and says so; it may also have ended just before.
    if object["status"]["phase"] == "Failed" {
        assert!(
            condition(&object, "Ready")["message"]
                .as_str()
                .is_some_and(|m| !m.is_empty())
        );
    }

    let nowhere = json!({ "nodeSelector": { "no-such": "node" }, "activeDeadlineSeconds": 25 });
    restore(
        &place,
        "nowhere",
        json!({ "backupRef": { "name": "orders" }, "jobConfig": nowhere,
                                       "target": { "pvc": { "claimName": "half" } } }),
    );
    let message = failed(&place, "nowhere", "PodNeverStarted");
    assert!(
        message.contains("node affinity/selector") && message.contains("deadline"),
        "{message}"
    );
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_never_gets_into_a_claim_that_it_did_not_make() {
    let place = Place::new("b", "foreign");
    place.apply(&[
        place.repository("nas", &s3(1, "foreign")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    place.run("orders", "1");
    claim(&place, "fresh");
    // As a pod that uses the claim would, this keeps it in deletion.
    let hold = |list: Value| {
        let patch = json!({ "metadata": { "finalizers": list } }).to_string();
        place
            .kubectl(&["patch", "pvc/fresh", "--type=merge", "-p", &patch])
            .unwrap();
    };
    hold(json!(["example.org/hold"]));
    let root = json!({ "securityContext": { "runAsUser": 0 } });
    let spec = json!({ "backupRef": { "name": "orders" }, "jobConfig": root,
                       "target": { "newPVC": { "name": "fresh", "size": "1Gi" } } });
    restore(&place, "own", spec);
    let message = place.until_reason("resticrestore/own", "TargetExists");
    assert!(message.contains("was not made by this restore"), "{message}");
    let old = place.get("pvc/fresh")["metadata"]["uid"].clone();
    place
        .kubectl(&["delete", "pvc", "fresh", "--wait=false"])
        .unwrap();
    let object = place.until("resticrestore/own", "the deletion in words", |o| {
        condition(o, "Ready")["message"]
            .as_str()
            .is_some_and(|m| m.contains("is being deleted"))
    });
    assert_eq!(condition(&object, "Ready")["reason"], "TargetExists");
    assert!(
        place.get("job/resticrestore-own").is_null(),
        "no Job on a claim of somebody else"
    );
    hold(json!([]));
    completed(&place, "own");
    let made = place.get("pvc/fresh");
    assert_ne!(made["metadata"]["uid"], old);
    assert_eq!(
        made["metadata"]["annotations"]["backup.resticbackup.io/restore-uid"],
        place.get("resticrestore/own")["metadata"]["uid"]
    );
    assert_eq!(tree(&folder(&place, "fresh")), tree(&place.data()));
}
