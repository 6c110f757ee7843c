//! The four samples of the original operator, with its owner's consent that they use a repository of another namespace.
//! They do what they say.

use serde_json::{Value, json};
use tests::fleet;

use crate::notify::Sink;
use crate::retention::{policy, start, until_run};
use crate::support::{Place, SOON, bed, condition, s3, tree};

/// The sample of a repository, and its Secret.
fn repository(system: &Place, url: &str) -> Value {
    let mut repository = system.repository("example-repository", url);
    repository["spec"]["integrityCheck"] = json!({ "enabled": true, "schedule": "0 3 * * 0" });
    repository["spec"]["cache"] = json!({ "enabled": true, "size": "5Gi", "storageClassName": "standard" });
    repository
}

/// The sample of a backup, with hooks.
fn backup(system: &Place, ntfy: &str) -> Value {
    let exec = |script: &str| json!({ "exec": { "podSelector": { "matchLabels": { "app": "my-app" } }, "command": ["sh", "-c", script], "timeout": "30s" } });
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": "example-backup" },
        "spec": {
            "repositoryRef": { "name": "example-repository", "namespace": system.namespace },
            "schedule": "0 2 * * *", "timezone": "Europe/Berlin",
            "source": { "pvc": { "claimName": "data", "paths": ["/data", "/config"], "excludes": ["*.log", "cache/**", "tmp/**"] } },
            "restic": { "hostname": "my-application", "tags": ["my-app", "production"], "extraArgs": ["--exclude-caches"],
                        "image": tests::images::restic_image() },
            "hooks": { "preBackup": exec("echo before >/d/config/before"), "postBackup": exec("echo after >/d/after") },
            "notifications": { "ntfy": { "enabled": true, "serverURL": ntfy, "topic": "backups", "onlyOnFailure": false, "priority": 4 } },
            "jobConfig": { "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3,
                           "activeDeadlineSeconds": 3600, "backoffLimit": 0,
                           "resources": { "requests": { "memory": "128Mi", "cpu": "100m" }, "limits": { "memory": "512Mi", "cpu": "1000m" } } },
            "suspend": false } })
}

/// The application that hooks run in.
fn application() -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "my-app", "labels": { "app": "my-app" } },
        "spec": { "terminationGracePeriodSeconds": 1,
                  "containers": [{ "name": "c", "image": tests::images::restic_image(), "command": ["sleep", "600"],
                                   "volumeMounts": [{ "name": "d", "mountPath": "/d" }] }],
                  "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "data" } }] } })
}

#[test]
#[ignore = "needs clusters: make long"]
fn the_samples_of_the_original_operator_do_what_they_say() {
    let (system, place) = (Place::new("a", "backup-system"), Place::new("a", "samples"));
    let host = bed().plan().wan(1);
    let (sink, port) = Sink::start(&host);
    for (file, text) in [
        ("data/a.txt", "a"),
        ("data/b.log", "b"),
        ("config/c", "c"),
        ("other/d", "d"),
    ] {
        place.write(file, text.as_bytes());
    }
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "my-restored-data" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
        application(),
    ]);
    fleet::open_volume(&place.cluster, &place.namespace, "my-restored-data").unwrap();
    let mut repository = repository(&system, &s3(0, "samples"));
    system.apply(std::slice::from_ref(&repository));
    place.apply(&[backup(&system, &format!("http://{host}:{port}"))]);
    place.until_reason("resticbackup/example-backup", "NamespaceNotAllowed");
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": place.namespace } });
    repository["spec"]["allowedNamespaces"] = json!({ "from": "Selector", "selector": selector });
    system.apply(&[repository]);
    place.until_ready("resticbackup/example-backup");

    // Backup: both folders, without what is excluded, its hooks around it, and word of it.
    place.until("pod/my-app", "Running", |o| o["status"]["phase"] == "Running");
    let run = place.run("example-backup", "1");
    assert_eq!(
        (&run["result"], &run["filesProcessed"]),
        (&json!("Succeeded"), &json!(3)),
        "a.txt, c, and what the hook before wrote: {run:#}"
    );
    assert!(place.data().join("after").exists());
    let told = sink.until("/", 1);
    assert_eq!(told[0]["topic"], "backups");

    // Restore: what its selector and its path say.
    let restore = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "example-restore" },
        "spec": { "backupRef": { "name": "example-backup" },
                  "snapshotSelector": { "latest": true, "tags": ["my-app"], "hostname": "my-application" },
                  "target": { "pvc": { "claimName": "my-restored-data", "path": "/" } }, "includePaths": ["/data"], "excludePaths": ["*.log"],
                  "options": { "overwrite": true, "verify": true }, "jobConfig": { "activeDeadlineSeconds": 7200, "backoffLimit": 0 } } });
    place.apply(&[restore]);
    place.until("resticrestore/example-restore", "Completed", |o| {
        o["status"]["phase"] == "Completed"
    });
    let folder = fleet::volume_path(&place.cluster, &place.namespace, "my-restored-data").unwrap();
    let restored: Vec<String> = tree(folder.as_ref()).into_keys().collect();
    assert_eq!(restored, ["data/a.txt"]);

    // Retention: its rules match the one snapshot, and keep it.
    let rule = |selector: Value| json!({ "selector": selector, "retention": { "keepLast": 4, "keepHourly": 48, "keepDaily": 7, "keepMonthly": 0 } });
    let rules = json!([
        rule(json!({ "tags": ["my-app"] })),
        rule(json!({ "tags": ["database"] })),
        rule(json!({ "hostname": "critical-service" }))
    ]);
    let mut cleanup = policy(
        "weekly-cleanup",
        rules,
        json!({ "schedule": "20 1 * * 0", "prune": true }),
    );
    cleanup["spec"]["repositoryRef"] = json!({ "name": "example-repository", "namespace": system.namespace });
    cleanup["spec"]["jobConfig"] = json!({ "activeDeadlineSeconds": 7200, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3 });
    system.apply(&[cleanup]);
    system.until_ready("globalretentionpolicy/weekly-cleanup");
    start(&system, "weekly-cleanup", "now");
    let ran = until_run(&system, "weekly-cleanup", &json!({}));
    assert_eq!(
        (&ran["lastRunResult"], &ran["snapshotsRemoved"]),
        (&json!("NothingToRemove"), &json!(0)),
        "{ran:#}"
    );

    // Integrity check.
    let check = [
        "create",
        "job",
        "check-now",
        "--from=cronjob/integritycheck-example-repository",
    ];
    system.kubectl(&check).unwrap();
    let checked = system.until_within(
        3 * SOON,
        "resticrepository/example-repository",
        "the end of a check",
        |o| !o["status"]["lastIntegrityCheckResult"].is_null(),
    );
    assert!(condition(&checked, "Degraded")["status"] != "True", "{checked:#}");
    let result = checked["status"]["lastIntegrityCheckResult"].as_str().unwrap();
    assert!(result == "Passed", "{result}");
}
