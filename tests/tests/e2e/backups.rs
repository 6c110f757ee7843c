//! Backups that run, and what is told of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet;

use crate::support::{Place, bed, condition, fleet_json, noise, s3, tree};

#[test]
#[ignore = "needs clusters: make test"]
fn a_backup_reaches_the_repository_the_status_and_the_fleet_and_comes_back_byte_for_byte() {
    let place = Place::new("a", "whole");
    let url = s3(0, "whole");
    place.apply(&[
        place.repository("nas", &url),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "resticrepository/nas",
            "resticbackup/orders",
            "--timeout=90s",
        ])
        .unwrap();

    let first = place.run("orders", "1");
    assert_eq!(first["result"], "Succeeded", "{first:#}");
    assert!(first["bytesAdded"].as_i64().unwrap() > 2 << 20);
    assert_eq!(first["filesProcessed"], 3);
    let second = place.run("orders", "2");
    assert!(
        second["bytesAdded"].as_i64().unwrap() < 50_000,
        "the second run is incremental: {second:#}"
    );
    // By hand, as people do.
    let cron_job = place.get("resticbackup/orders")["status"]["cronJobRef"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    place
        .kubectl(&["create", "job", "by-hand", &format!("--from=cronjob/{cron_job}")])
        .unwrap();
    let status = place.until("resticbackup/orders", "the third run", |o| {
        o["status"]["statistics"]["successfulBackups"] == 3
    });
    assert_eq!(status["status"]["lastBackup"]["job"], "by-hand");
    // The same request again is no request.
    place
        .kubectl(&[
            "annotate",
            "resticbackup/orders",
            "backup.resticbackup.io/run=2",
            "--overwrite",
        ])
        .unwrap();

    let id = second["snapshotID"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 64);
    let target = tempfile::tempdir().unwrap();
    let out = target.path().to_string_lossy().into_owned();
    let run = |arguments: &[&str]| {
        let mut all = vec!["RESTIC_PASSWORD=right horse", "restic", "-r", &url];
        all.extend_from_slice(arguments);
        let output = fleet::shell(bed(), "env", &all, &[]).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(&["restore", &id, "--target", &out]);
    assert_eq!(
        tree(&target.path().join("backup")),
        tree(&place.data()),
        "the restored files are those of the application"
    );

    let events = place
        .kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"])
        .unwrap();
    for reason in ["RepositoryInitialized", "BackupConfigured", "BackupSucceeded"] {
        assert!(events.contains(reason), "no Event {reason}: {events}");
    }
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let rows = fleet_json(&["backups", "a/whole/orders"]);
        let row = &rows["items"][0];
        if row["lastRun"]["job"].is_null() && row["state"] == "ok" && row["runs"]["succeeded"] == 3 {
            break;
        }
        assert!(Instant::now() < end, "{row:#}");
        std::thread::sleep(Duration::from_millis(300));
    }

    place
        .kubectl(&["delete", "resticbackup/orders", "--wait=false"])
        .unwrap();
    place.until("cronjob/resticbackup-orders", "no CronJob", Value::is_null);
    place.until(
        "serviceaccount/resticbackup-orders",
        "no ServiceAccount",
        Value::is_null,
    );
    place.until(
        "configmap/restic-operator-scripts",
        "no ConfigMap",
        Value::is_null,
    );
    run(&["cat", "snapshot", &id, "--no-lock"]);
}

#[test]
#[ignore = "needs clusters: make test"]
fn one_repository_of_two_clusters_is_one_row_with_its_true_size_and_shows_its_age() {
    let places = [Place::new("a", "shared"), Place::new("b", "shared")];
    for (n, place) in places.iter().enumerate() {
        place.write("mine", &noise(300_000 + n));
        place.apply(&[
            place.repository("nas", &s3(n, "shared-by-two")),
            place.backup("orders", json!({ "name": "nas" }), json!({})),
        ]);
    }
    for place in &places {
        place.until_ready("resticbackup/orders");
        assert_eq!(place.run("orders", "1")["result"], "Succeeded");
    }
    let id = places[0].get("resticrepository/nas")["status"]["repositoryID"]
        .as_str()
        .unwrap()
        .to_owned();
    let url = s3(0, "shared-by-two");
    let raw = fleet::shell(
        bed(),
        "env",
        &[
            "RESTIC_PASSWORD=right horse",
            "restic",
            "-r",
            &url,
            "stats",
            "--mode",
            "raw-data",
            "--json",
            "--no-lock",
        ],
        &[],
    )
    .unwrap();
    let raw: Value = serde_json::from_slice(&raw.stdout).unwrap();
    let row = || {
        let rows = fleet_json(&["repos", &id]);
        assert!(
            rows["items"].as_array().unwrap().len() <= 1,
            "one repository is one row"
        );
        rows["items"][0].clone()
    };
    until("one row with the true size", || {
        let row = row();
        row["clusters"] == json!(["a", "b"])
            && row["bindings"].as_array().unwrap().len() == 2
            && row["statistics"]["storedBytes"] == raw["total_size"]
    });

    // No spoke in b: what it told is old, and says so.
    let b = &places[1].cluster;
    let start = Instant::now();
    b.kubectl(&[
        "scale",
        "-n",
        fleet::SYSTEM,
        "deployment/fleet-spoke",
        "--replicas=0",
    ])
    .unwrap();
    until("the rows of b are stale", || {
        fleet_json(&["backups", "b/shared/orders"])["items"][0]["freshness"]["stale"] == true
    });
    assert!(
        start.elapsed() < Duration::from_secs(45),
        "it took {:?} to show",
        start.elapsed()
    );
    assert_eq!(
        fleet_json(&["backups", "a/shared/orders"])["items"][0]["freshness"]["stale"],
        false
    );
    b.kubectl(&[
        "scale",
        "-n",
        fleet::SYSTEM,
        "deployment/fleet-spoke",
        "--replicas=2",
    ])
    .unwrap();
    until("the rows of b are fresh", || {
        fleet_json(&["backups", "b/shared/orders"])["items"][0]["freshness"]["stale"] == false
    });
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + crate::support::SOON;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_repository_in_another_namespace_needs_consent_and_loses_it_again() {
    let owner = Place::new("a", "owner");
    let guest = Place::new("a", "guest");
    owner.apply(&[owner.repository("nas", &s3(0, "consent"))]);
    owner.until_ready("resticrepository/nas");
    guest.apply(&[guest.backup(
        "orders",
        json!({ "name": "nas", "namespace": "owner" }),
        json!({}),
    )]);
    let message = guest.until_reason("resticbackup/orders", "NamespaceNotAllowed");
    assert!(
        message.contains("kubernetes.io/metadata.name: guest"),
        "{message}"
    );
    assert!(guest.get("cronjob/resticbackup-orders").is_null());

    let allow = |value: Value| {
        let patch = json!({ "spec": { "allowedNamespaces": value } }).to_string();
        owner
            .kubectl(&["patch", "resticrepository/nas", "--type=merge", "-p", &patch])
            .unwrap();
    };
    allow(
        json!({ "from": "Selector", "selector": { "matchLabels": { "kubernetes.io/metadata.name": "guest" } } }),
    );
    guest.until_ready("resticbackup/orders");
    assert_eq!(guest.run("orders", "1")["result"], "Succeeded");
    let keys = guest.get("secret/resticbackup-orders-credentials")["data"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    assert!(
        keys.contains(&"RESTIC_PASSWORD".to_owned()) && !keys.contains(&"RESTIC_REST_PASSWORD".to_owned()),
        "{keys:?}"
    );

    // A restore's copy of the credentials is deleted with the end of its Job.
    guest.apply(&[
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "cross" },
                "spec": { "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "data", "path": "back" } } } }),
    ]);
    guest.until("resticrestore/cross", "Completed", |o| {
        o["status"]["phase"] == "Completed"
    });
    guest.until(
        "secret/resticrestore-cross-credentials",
        "no credentials of an ended restore",
        Value::is_null,
    );

    allow(json!({ "from": "Same", "selector": null }));
    guest.until_reason("resticbackup/orders", "NamespaceNotAllowed");
    guest.until(
        "secret/resticbackup-orders-credentials",
        "no credentials",
        Value::is_null,
    );
    guest.until("cronjob/resticbackup-orders", "a suspended CronJob", |c| {
        c["spec"]["suspend"] == true
    });
    allow(json!({ "from": "All", "selector": null }));
    guest.until_ready("resticbackup/orders");
    guest.until("cronjob/resticbackup-orders", "a running CronJob", |c| {
        c["spec"]["suspend"] == false
    });
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_changed_cron_job_is_put_right_and_a_partial_backup_is_not_called_good() {
    let place = Place::new("b", "partial");
    place.apply(&[
        place.repository("nas", &s3(1, "partial")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    place
        .kubectl(&[
            "patch",
            "cronjob/resticbackup-orders",
            "--type=merge",
            "-p",
            r#"{"spec":{"schedule":"1 1 1 1 *"}}"#,
        ])
        .unwrap();
    place.until(
        "cronjob/resticbackup-orders",
        "the schedule of the resource",
        |c| c["spec"]["schedule"] == "@yearly",
    );

    place.write("secret.txt", b"only root may read this");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(
        place.data().join("secret.txt"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let run = place.run("orders", "1");
    assert_eq!(
        (&run["result"], &run["reason"]),
        (&json!("PartiallyFailed"), &json!("FilesUnreadable")),
        "{run:#}"
    );
    let words = run["message"].as_str().unwrap();
    assert!(words.contains(" /secret.txt: "), "as in the volume: {words}");
    assert_eq!(run["snapshotID"].as_str().unwrap().len(), 64);
    let object = place.until("resticbackup/orders", "Degraded", |o| {
        condition(o, "Degraded")["status"] == "True"
    });
    assert!(object["status"]["lastSuccessfulBackup"].is_null());

    // Root is an explicit choice, and then everything is read.
    let root = json!({ "jobConfig": { "securityContext": { "runAsUser": 0, "runAsNonRoot": false } } });
    place.apply(&[place.backup("orders", json!({ "name": "nas" }), root)]);
    place.until("cronjob/resticbackup-orders", "root", |c| {
        c["spec"]["jobTemplate"]["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 0
    });
    assert_eq!(place.run("orders", "2")["result"], "Succeeded");
}

/// Owner, mode and content of every file and folder.
fn live(folder: &std::path::Path) -> Vec<(String, u32, u32, u32, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut all, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mut content = Vec::new();
        if meta.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        } else {
            content = std::fs::read(&path).unwrap();
        }
        all.push((
            path.display().to_string(),
            meta.uid(),
            meta.gid(),
            meta.mode(),
            content,
        ));
    }
    all.sort();
    all
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_backup_leaves_owner_mode_and_content_of_live_files_as_they_are() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let place = Place::new("b", "live");
    let folder = fleet::local_volume(&place.cluster, "live", "pgdata").unwrap();
    std::fs::create_dir(folder.join("base")).unwrap();
    for (name, content) in [("PG_VERSION", "17"), ("base/1", "pages")] {
        std::fs::write(folder.join(name), content).unwrap();
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(folder.join(name), Some(999), Some(999)).unwrap();
    }
    for name in ["base", ""] {
        std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o700)).unwrap();
        chown(folder.join(name), Some(999), Some(999)).unwrap();
    }
    let before = live(&folder);
    let source = json!({ "pvc": { "claimName": "pgdata" } });
    place.apply(&[
        // Its authority is in the Secret: any user of the pod has to read it.
        place.repository("nas", &crate::support::rest("live")),
        place.backup("db", json!({ "name": "nas" }), json!({ "source": source })),
    ]);
    place.until_ready("resticbackup/db");
    let run = place.run("db", "1");
    assert_eq!(live(&folder), before, "by a backup with the defaults");
    assert_eq!(run["reason"], "FilesUnreadable", "{run:#}");
    let words = run["message"].as_str().unwrap();
    assert!(
        words.contains("set spec.jobConfig.securityContext.runAsUser to the owner"),
        "{words}"
    );

    for (request, security) in [
        ("2", json!({ "runAsUser": 999, "runAsGroup": 999 })),
        ("3", json!({ "runAsUser": 0 })),
    ] {
        let more = json!({ "source": source, "jobConfig": { "securityContext": security } });
        place.apply(&[place.backup("db", json!({ "name": "nas" }), more)]);
        place.until("cronjob/resticbackup-db", "the user", |c| {
            let pod = &c["spec"]["jobTemplate"]["spec"]["template"]["spec"];
            pod["securityContext"]["runAsUser"] == security["runAsUser"]
        });
        let run = place.run("db", request);
        assert_eq!(run["result"], "Succeeded", "{security}: {run:#}");
        assert_eq!(live(&folder), before, "{security}");
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn who_writes_a_backup_does_not_get_the_repositorys_keys() {
    let place = Place::new("a", "keys");
    std::os::unix::fs::symlink("/proc", place.data().join("out")).unwrap();
    let source = |paths: Value| json!({ "pvc": { "claimName": "data", "paths": paths } });
    let expanded = json!({ "source": source(json!(["small"])),
                           "restic": { "hostname": "$(RESTIC_PASSWORD)", "tags": ["$$(AWS_SECRET_ACCESS_KEY)"] } });
    let linked = json!({ "source": source(json!(["out/self/environ"])) });
    let image = json!({ "restic": { "image": "evil.example.org/x:1" } });
    let file = json!({ "restic": { "extraArgs": ["--exclude-caches", "/proc/self/environ"] } });
    let nas = json!({ "name": "nas" });
    place.apply(&[
        place.repository("nas", &s3(0, "keys")),
        place.backup("expanded", nas.clone(), expanded),
        place.backup("linked", nas.clone(), linked),
        place.backup("image", nas.clone(), image),
        place.backup("file", nas, file),
    ]);
    let message = place.until_reason("resticbackup/image", "ImageNotAllowed");
    assert!(message.contains("--allowed-images"), "{message}");
    let message = place.until_reason("resticbackup/file", "InvalidSpec");
    assert!(
        message.contains("spec.restic.extraArgs") && message.contains("--exclude-caches"),
        "{message}"
    );
    for name in ["image", "file"] {
        assert!(place.get(&format!("cronjob/resticbackup-{name}")).is_null());
    }
    place.until_ready("resticbackup/linked");
    let run = place.run("linked", "1");
    assert_eq!(run["result"], "Failed", "{run:#}");
    assert!(
        run["message"].as_str().unwrap().contains("symbolic link"),
        "{run:#}"
    );
    place.until_ready("resticbackup/expanded");
    let run = place.run("expanded", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    let listed = crate::retention::restic(&s3(0, "keys"), &["snapshots", "--json"]);
    assert!(
        listed.contains("$(RESTIC_PASSWORD)") && listed.contains("$$(AWS_SECRET_ACCESS_KEY)"),
        "{listed}"
    );
    assert!(
        !listed.contains("right horse") && !listed.contains("environ"),
        "{listed}"
    );
}
