//! Each tool once, from its resources to a finished migration.

use serde_json::{Value, json};

use super::{Before, kinds, leave_lock};
use crate::support::{Place, condition, s3};

/// Keys of the storage under another tool's names.
fn keys(place: &Place, name: &str, data: Value) -> Value {
    let theirs = place.secret("x", "x")["stringData"].clone();
    let mut all = data;
    for (key, of) in [
        ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    ] {
        all[key] = theirs[of].clone();
    }
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": all })
}

fn suspended(place: &Place, object: &str) -> bool {
    place.get(object)["spec"]["suspend"] == true
}

#[test]
#[ignore = "needs clusters: make test"]
fn volsync_is_moved_in_and_ours_count_beside_its_snapshots() {
    let place = Place::new("b", "from-volsync");
    kinds::volsync(&place.cluster);
    let before = Before {
        url: s3(0, "from-volsync/data"),
        password: "volsync-pass-42",
        place,
    };
    let place = &before.place;
    before.history("/data", "--host volsync --exclude=lost+found .", 4);
    place.apply(&[
        keys(
            place,
            "restic-config",
            json!({ "RESTIC_REPOSITORY": before.url, "RESTIC_PASSWORD": before.password }),
        ),
        json!({ "apiVersion": "volsync.backube/v1alpha1", "kind": "ReplicationSource", "metadata": { "name": "db" },
                "spec": { "sourcePVC": "data", "trigger": { "schedule": "0 3 1 1 *" },
                          "restic": { "repository": "restic-config", "pruneIntervalDays": 7, "copyMethod": "Clone",
                                      "retain": { "daily": 2 }, "moverSecurityContext": { "runAsUser": 65532 } } } }),
    ]);
    before.move_in("volsync");
    let repository = place.until("resticrepository/restic-config", "its history", |o| {
        o["status"]["statistics"]["snapshotCount"] == 4
    });
    assert_eq!(condition(&repository, "Ready")["status"], "True");
    place.until_ready("resticbackup/db");
    assert!(
        suspended(place, "resticbackup/db"),
        "both run side by side only if that is asked for"
    );
    before.comes_back(
        json!({ "name": "restic-config" }),
        json!({ "hostname": "volsync" }),
        None,
    );
    assert_eq!(place.run("db", "1")["result"], "Succeeded");
    let newest = before.snapshots().pop().unwrap();
    assert_eq!(newest["hostname"], "volsync");

    let (code, _, text) = before.migrate(&["finish", "volsync"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("would pause ReplicationSource") && text.contains("would resume ResticBackup"),
        "{text}"
    );
    assert!(
        place.get("replicationsource/db")["spec"]["paused"].is_null(),
        "nothing was changed"
    );
    let (code, _, text) = before.migrate(&["finish", "volsync", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(place.get("replicationsource/db")["spec"]["paused"], true);
    assert!(!suspended(place, "resticbackup/db"));
    // Four days of theirs, of which two stay, and ours beside them.
    before.resume(place, "restic-config", &text);
    before.counts(place, "restic-config", "2 of 5");
    // Again it changes nothing: what runs goes on.
    let (code, _, text) = before.migrate(&["volsync", "--apply"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        !suspended(place, "resticbackup/db"),
        "what was resumed is not suspended again"
    );
}

#[test]
#[ignore = "needs clusters: make test"]
fn k8up_is_moved_in_a_lock_of_its_is_understood_and_its_schedule_can_be_put_back() {
    let place = Place::new("b", "from-k8up");
    kinds::k8up(&place.cluster);
    let before = Before {
        url: s3(0, "from-k8up"),
        password: "k8up-pass-41",
        place,
    };
    let place = &before.place;
    // The Job that makes the history writes below the folder that it backs up.
    before.history("/data/data", "--host from-k8up /data/data", 3);
    leave_lock(&before);
    place.apply(&of_k8up(&before));
    place.apply(&[
        json!({ "apiVersion": "k8up.io/v1", "kind": "Schedule", "metadata": { "name": "nightly" },
                "spec": { "backend": backend_of_k8up("from-k8up"),
                          "backup": { "schedule": "0 3 1 1 *" },
                          "check": { "schedule": "0 5 1 1 *" },
                          "prune": { "schedule": "0 4 1 1 *", "retention": { "keepLast": 2, "keepDaily": 1 } } } }),
        // Which stored once what the Schedule stores as well.
        json!({ "apiVersion": "k8up.io/v1", "kind": "Backup", "metadata": { "name": "by-hand" },
                "spec": { "backend": backend_of_k8up("from-k8up") } }),
    ]);
    before.move_in("k8up");
    assert!(
        place
            .kubectl(&["get", "resticrepository/by-hand", "--ignore-not-found"])
            .unwrap()
            .is_empty(),
        "nothing is stored twice"
    );
    place.until_ready("resticrepository/nightly");
    // A lock of a process that this operator did not start: shown, and left alone until nothing can hold it any more.
    let seen = place.until("resticrepository/nightly", "the lock of the other tool", |o| {
        o["status"]["locks"]
            .as_array()
            .is_some_and(|locks| locks.len() == 1)
    });
    let lock = &seen["status"]["locks"][0];
    assert!(
        lock["keptBecause"]
            .as_str()
            .unwrap()
            .contains("has not changed for"),
        "{lock:#}"
    );
    before.comes_back(
        json!({ "name": "nightly" }),
        json!({ "hostname": "from-k8up" }),
        Some("/data/data"),
    );
    assert_eq!(
        place.run("data", "1")["result"],
        "Succeeded",
        "a shared lock holds no backup up"
    );
    before.restic_ok(&["unlock"]);

    // k8up backs up all claims of the namespace, and none of ours has the one that was made since: theirs goes on.
    let (_, _, text) = before.migrate(&["finish", "k8up", "--yes"]);
    let theirs = place.get("schedules.k8up.io/nightly");
    assert_eq!(theirs["spec"]["backup"]["schedule"], "0 3 1 1 *", "{text}");
    place
        .kubectl(&["delete", "resticrestore/before", "pvc/back", "--timeout=60s"])
        .unwrap();

    let (code, _, text) = before.migrate(&["finish", "k8up", "--yes"]);
    assert_eq!(code, 0, "{text}");
    let theirs = place.get("schedules.k8up.io/nightly");
    assert!(
        theirs["spec"]["backup"].is_null() && theirs["spec"]["prune"].is_null(),
        "{theirs:#}"
    );
    let kept = theirs["metadata"]["annotations"]["fleet.resticbackup.io/suspended-parts"]
        .as_str()
        .unwrap();
    let kept: Value = serde_json::from_str(kept).unwrap();
    assert_eq!(kept["backup"]["schedule"], "0 3 1 1 *");
    // Again it changes nothing, although the Schedule has no parts now and the single Backup is still there.
    let (code, _, said) = before.migrate(&["k8up", "--apply"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        place.get("resticrepository/nightly")["spec"]["integrityCheck"]["schedule"],
        "0 5 1 1 *"
    );
    before.resume(place, "nightly", &text);
    // Of theirs two stay, and ours is counted by itself.
    before.counts(place, "nightly", "1 of 4");
}

#[test]
#[ignore = "needs clusters: make test"]
fn k8ups_single_backups_become_a_backup_that_goes_on() {
    let place = Place::new("b", "k8up-once");
    kinds::k8up(&place.cluster);
    let before = Before {
        url: s3(0, "k8up-once"),
        password: "k8up-pass-43",
        place,
    };
    let place = &before.place;
    before.history("/data/data", "--host k8up-once /data/data", 2);
    place.apply(&of_k8up(&before));
    for name in ["before-release-1", "before-release-2"] {
        place.apply(&[json!({ "apiVersion": "k8up.io/v1", "kind": "Backup",
            "metadata": { "name": name, "generateName": "before-release-" },
            "spec": { "backend": backend_of_k8up("k8up-once"), "tags": ["release"] } })]);
    }
    before.move_in("k8up");
    place.until_ready("resticrepository/before-release");
    before.comes_back(
        json!({ "name": "before-release" }),
        json!({ "hostname": "k8up-once" }),
        Some("/data/data"),
    );
    assert_eq!(place.run("data", "1")["result"], "Succeeded");
    let newest = before.snapshots().pop().unwrap();
    assert_eq!(newest["hostname"], "k8up-once.data", "a series of its own");
    // Nothing of theirs goes on by itself, so nothing is stopped.
    let (code, _, text) = before.migrate(&["finish", "k8up", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert!(!suspended(place, "resticbackup/data"), "{text}");
    assert!(!text.contains("backups.k8up.io"), "{text}");
}

/// The Secrets beside k8up's own resources.
fn of_k8up(before: &Before) -> [Value; 2] {
    [
        keys(&before.place, "minio", json!({})),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "backup-repo" }, "stringData": { "password": before.password } }),
    ]
}

fn backend_of_k8up(bucket: &str) -> Value {
    let endpoint = s3(0, "")
        .trim_start_matches("s3:")
        .trim_end_matches('/')
        .to_owned();
    let of = |name: &str, key: &str| json!({ "name": name, "key": key });
    json!({ "repoPasswordSecretRef": of("backup-repo", "password"),
            "s3": { "endpoint": endpoint, "bucket": bucket,
                    "accessKeyIDSecretRef": of("minio", "AWS_ACCESS_KEY_ID"),
                    "secretAccessKeySecretRef": of("minio", "AWS_SECRET_ACCESS_KEY") } })
}

#[test]
#[ignore = "needs clusters: make test"]
fn velero_keeps_its_repository_and_its_volumes_are_backed_up_from_their_own_namespace() {
    let place = Place::new("b", "from-velero");
    kinds::velero(&place.cluster);
    let own = Place::new("b", "velero");
    let uid = place.get("pvc/data")["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = Before {
        url: s3(0, "velero/prefix/restic/from-velero"),
        password: "static-passw0rd",
        place,
    };
    let tags = format!(
        "--tag ns=from-velero --tag volume=data --tag pvc-uid={uid} --tag backup=all-$day --tag pod=db-0"
    );
    let mount = "/host_pods/0b6bf5d7/volumes/kubernetes.io~csi/pvc-1/mount";
    before.history(mount, &format!("{tags} --host=velero ."), 3);
    let theirs = own.secret("x", "x")["stringData"].clone();
    let text = |name: &str| theirs[name].as_str().unwrap().to_owned();
    let cloud = format!(
        "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
        text("AWS_ACCESS_KEY_ID"),
        text("AWS_SECRET_ACCESS_KEY")
    );
    let velero = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "velero.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let mut volume = velero(
        "PodVolumeBackup",
        "all-12",
        json!({ "pod": { "namespace": "from-velero", "name": "db-0" }, "volume": "data", "uploaderType": "restic",
                "backupStorageLocation": "default", "tags": { "pvc-uid": uid, "ns": "from-velero" } }),
    );
    volume["metadata"]["annotations"] = json!({ "velero.io/pvc-name": "data" });
    volume["status"] = json!({ "phase": "Completed" });
    own.apply(&[
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "cloud-credentials" }, "stringData": { "cloud": cloud } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "velero-repo-credentials" },
                "stringData": { "repository-password": before.password } }),
        velero("BackupStorageLocation", "default", json!({ "provider": "aws", "objectStorage": { "bucket": "velero", "prefix": "prefix" } })),
        velero(
            "BackupRepository",
            "from-velero-default-restic",
            json!({ "volumeNamespace": "from-velero", "backupStorageLocation": "default", "repositoryType": "restic",
                    "resticIdentifier": before.url, "maintenanceFrequency": "168h0m0s" }),
        ),
        velero("Schedule", "all", json!({ "schedule": "0 3 1 1 *", "template": { "ttl": "24h0m0s" } })),
        volume,
    ]);
    before.move_in("velero");
    own.until("resticrepository/restic-from-velero", "its history", |o| {
        o["status"]["statistics"]["snapshotCount"] == 3
    });
    let repository = json!({ "name": "restic-from-velero", "namespace": "velero" });
    let tag = format!("pvc-uid={uid}");
    before.comes_back(repository, json!({ "hostname": "velero", "tags": [tag] }), None);
    let place = &before.place;
    place.until_ready("resticbackup/data");
    assert_eq!(place.run("data", "1")["result"], "Succeeded");
    let (code, _, text) = before.migrate(&["finish", "velero", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("defaultVolumesToFsBackup"), "{text}");
    assert!(!suspended(place, "resticbackup/data"));
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_cron_job_with_restic_is_moved_in_and_waits_until_ours_is_ready() {
    let place = Place::new("b", "from-cron");
    let before = Before {
        url: s3(0, "from-cron"),
        password: "cron-pass-43",
        place,
    };
    let place = &before.place;
    before.history("/srv", "--host web --tag nightly /srv", 3);
    let script = "set -e\nrestic backup /srv --host web --tag nightly\nrestic forget --host web --keep-last 1 --prune\n";
    let pod = json!({
        "restartPolicy": "Never",
        "containers": [{ "name": "restic", "image": tests::images::restic_image(), "command": ["/bin/sh", "-c", script],
            "envFrom": [{ "secretRef": { "name": "restic" } }], "volumeMounts": [{ "name": "data", "mountPath": "/srv" }] }],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
    });
    let wrong = |password: &str| {
        keys(
            place,
            "restic",
            json!({ "RESTIC_REPOSITORY": before.url, "RESTIC_PASSWORD": password }),
        )
    };
    place.apply(&[
        wrong("not the password"),
        json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "nightly" },
                "spec": { "schedule": "0 3 1 1 *", "jobTemplate": { "spec": { "template": { "spec": pod } } } } }),
    ]);
    before.move_in("cron");
    // What does not work does not take the place of what does.
    place.until("resticrepository/nightly", "not ready", |o| {
        condition(o, "Ready")["status"] == "False"
    });
    let (code, _, text) = before.migrate(&["finish", "cron", "--yes"]);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("ResticRepository from-cron/nightly is not ready"),
        "{text}"
    );
    assert!(!suspended(place, "cronjob/nightly"));
    place.apply(&[wrong(before.password)]);
    place.until_ready("resticrepository/nightly");
    place.until_ready("resticbackup/nightly");
    before.comes_back(
        json!({ "name": "nightly" }),
        json!({ "hostname": "web" }),
        Some("/srv"),
    );
    assert_eq!(place.run("nightly", "1")["result"], "Succeeded");
    let (code, _, text) = before.migrate(&["finish", "cron", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert!(suspended(place, "cronjob/nightly"));
    before.resume(place, "nightly", &text);
    // Theirs by host and paths, of which one stays, and ours beside them.
    before.counts(place, "nightly", "2 of 4");
}

#[test]
#[ignore = "needs clusters: make test"]
fn policies_of_the_original_wait_while_the_operators_change_places_and_count_both_as_one() {
    let place = Place::new("b", "from-original");
    let before = Before {
        url: s3(0, "from-original"),
        password: "right horse",
        place,
    };
    let place = &before.place;
    before.history("/backup", "--host orders --tag daily /backup", 3);
    let policy = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "weekly" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "0 3 1 1 *",
                  "policies": [{ "selector": { "hostname": "orders" }, "retention": { "keepLast": 1 } }] } });
    place.apply(&[policy]);
    let (code, _, text) = before.migrate(&["original"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("would suspend GlobalRetentionPolicy from-original/weekly"),
        "{text}"
    );
    let (code, _, text) = before.migrate(&["original", "--apply"]);
    assert_eq!(code, 0, "{text}");
    assert!(suspended(place, "globalretentionpolicy/weekly"));
    place.apply(&[
        place.repository("nas", &before.url),
        place.backup(
            "orders",
            json!({ "name": "nas" }),
            json!({ "schedule": "0 3 1 1 *", "restic": { "hostname": "orders", "tags": ["daily"] } }),
        ),
    ]);
    place.until_ready("resticbackup/orders");
    assert_eq!(place.run("orders", "1")["result"], "Succeeded");
    let (code, _, text) = before.migrate(&["finish", "original", "--yes"]);
    assert_eq!(code, 0, "{text}");
    let policy = place.get("globalretentionpolicy/weekly");
    assert_eq!(policy["spec"]["policies"][0]["groupBy"], json!(["host", "paths"]));
    before.resume(place, "weekly", &text);
    before.counts(place, "weekly", "3 of 4");
}
