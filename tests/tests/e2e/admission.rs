//! What the API server takes and refuses, and with which words. Every CEL rule has a manifest on both sides of it.

use serde_json::{Value, json};

use crate::support::Place;

fn object(kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind, "metadata": { "name": "x" }, "spec": spec })
}

fn merged(base: &Value, more: Value) -> Value {
    let mut base = base.clone();
    for (key, value) in more.as_object().unwrap() {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(key);
        } else {
            base[key] = value.clone();
        }
    }
    base
}

#[test]
#[ignore = "needs clusters: make test"]
fn each_rule_accepts_and_refuses_with_a_sentence() {
    let place = Place::new("a", "admission");
    let file = tempfile::NamedTempFile::new().unwrap();
    let dry_run = |object: &Value| {
        std::fs::write(file.path(), object.to_string()).unwrap();
        place.kubectl(&["create", "--dry-run=server", "-f", &file.path().to_string_lossy()])
    };
    let repository = json!({ "repositoryURL": "s3:https://h/b", "credentialsSecretRef": { "name": "s" } });
    let backup = json!({ "repositoryRef": { "name": "r" }, "schedule": "0 2 * * *", "source": { "pvc": { "claimName": "c" } } });
    let restore = json!({ "backupRef": { "name": "b" }, "target": { "pvc": { "claimName": "c" } } });
    let retention = json!({ "repositoryRef": { "name": "r" }, "schedule": "@weekly",
        "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] });
    let pvc = |more: Value| json!({ "source": { "pvc": merged(&json!({ "claimName": "c" }), more) } });
    let keep = |rule: Value| json!({ "policies": [{ "selector": { "tags": ["a"] }, "retention": rule }] });
    // kind, base, change, words of the refusal ("" for accepted)
    let cases: Vec<(&str, &Value, Value, &str)> = vec![
        ("ResticRepository", &repository, json!({}), ""),
        (
            "ResticRepository",
            &repository,
            json!({ "repositoryURL": "/srv/restic" }),
            "must begin with a back end",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "repositoryURL": "s3:h/b c" }),
            "no spaces",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "schedule": "@weekly" } }),
            "",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "schedule": "12345" } }),
            "five cron fields",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "readDataSubset": "1/20" } }),
            "",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "readDataSubset": "256/256" } }),
            "",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "readDataSubset": "2/1" } }),
            "n/t",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "readDataSubset": "1/257" } }),
            "n/t",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "readDataSubset": "0/4" } }),
            "n/t",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "integrityCheck": { "readDataSubset": "50%" } }),
            "n/t",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "cache": { "size": "5Gi" } }),
            "",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "cache": { "size": "much" } }),
            "a quantity such as 5Gi",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "allowedNamespaces": { "from": "Selector", "selector": {} } }),
            "",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "allowedNamespaces": { "from": "Selector" } }),
            "selector belongs to from: Selector",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "refreshInterval": "1h30m" }),
            "",
        ),
        (
            "ResticRepository",
            &repository,
            json!({ "refreshInterval": "soon" }),
            "refreshInterval",
        ),
        ("ResticBackup", &backup, json!({}), ""),
        (
            "ResticBackup",
            &backup,
            json!({ "schedule": "*/15 */2 * * 1-5" }),
            "",
        ),
        ("ResticBackup", &backup, json!({ "schedule": "0 0 1 JAN *" }), ""),
        ("ResticBackup", &backup, json!({ "schedule": "@every 1h" }), ""),
        (
            "ResticBackup",
            &backup,
            json!({ "schedule": "tomorrow" }),
            "five cron fields",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "source": {} }),
            "exactly one of pvc",
        ),
        (
            "ResticBackup",
            &backup,
            pvc(json!({ "paths": ["a/b", "/c"], "excludes": ["*.tmp"] })),
            "",
        ),
        (
            "ResticBackup",
            &backup,
            pvc(json!({ "paths": ["../etc"] })),
            "stay inside the volume",
        ),
        (
            "ResticBackup",
            &backup,
            pvc(json!({ "excludes": [""] })),
            "must not be empty",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "hostname": "h", "tags": ["a,b"] } }),
            "",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "hostname": "a b" } }),
            "must not hold spaces",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "tags": ["a\nb"] } }),
            "line breaks",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "tags": ["a, fleet.cluster=b"] } }),
            "fleet. are reserved",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "extraArgs": ["--exclude", "a b", "-x"] } }),
            "",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "extraArgs": ["/proc/self/environ"] } }),
            "must begin with -",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "extraArgs": ["-x", "--option=sftp.command=id"] } }),
            "extended options",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "restic": { "extraArgs": ["--tag=fleet.backup=shop/orders"] } }),
            "fleet. are reserved",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "retention": { "enabled": true, "policy": { "keepLast": 1 }, "groupBy": ["host", "tags"] } }),
            "",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "retention": { "enabled": true, "policy": { "keepLast": 0 } } }),
            "at least one keep rule",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "retention": { "enabled": false, "policy": {} } }),
            "",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "retention": { "groupBy": ["colour"] } }),
            "groupBy takes host, tags and paths",
        ),
        (
            "ResticBackup",
            &backup,
            json!({ "jobConfig": { "resources": { "limits": { "cpu": 1, "memory": "1Gi" } } } }),
            "",
        ),
        ("ResticRestore", &restore, json!({}), ""),
        (
            "ResticRestore",
            &restore,
            json!({ "repositoryRef": { "name": "r" } }),
            "exactly one of backupRef and repositoryRef",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "backupRef": null, "repositoryRef": { "name": "r" } }),
            "",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "target": {} }),
            "exactly one of pvc and newPVC",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "target": { "newPVC": { "name": "n", "size": "1Gi" } } }),
            "",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "target": { "newPVC": { "name": "n", "size": "x" } } }),
            "a quantity such as 10Gi",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "target": { "pvc": { "claimName": "c", "path": "../x" } } }),
            "stay inside the volume",
        ),
        ("ResticRestore", &restore, json!({ "snapshotID": "latest" }), ""),
        (
            "ResticRestore",
            &restore,
            json!({ "snapshotPath": "a/../../b" }),
            "stay inside the snapshot",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "snapshotPath": "/data", "options": { "delete": true }, "excludePaths": ["/cache"], "ttlSecondsAfterFinished": 0,
                    "target": { "pvc": { "claimName": "c", "path": "/data" } } }),
            "",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "snapshotPath": "/data", "options": { "delete": true }, "target": { "pvc": { "claimName": "c", "path": "/./" } } }),
            "needs target.pvc.path",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "options": { "delete": true }, "excludePaths": ["/cache", "/a/b"] }),
            "only names at the top",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "options": { "delete": true }, "includePaths": ["/a"] }),
            "use excludePaths, or snapshotPath",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "options": { "delete": true, "overwrite": false } }),
            "options.delete needs options.overwrite",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "options": { "delete": true }, "target": { "newPVC": { "name": "n" } } }),
            "options.delete needs target.pvc",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "target": { "newPVC": { "name": "n", "labels": { "a": "b" }, "annotations": { "backup.resticbackup.io/restore-uid": "u" } } } }),
            "the operator's own",
        ),
        (
            "ResticRestore",
            &restore,
            json!({ "snapshotID": "$(id)" }),
            "latest or 4 to 64 hex digits",
        ),
        ("GlobalRetentionPolicy", &retention, json!({}), ""),
        (
            "GlobalRetentionPolicy",
            &retention,
            json!({ "schedule": "now" }),
            "five cron fields",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepWithin": "1y6m" })),
            "",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepDaily": 0, "keepLast": 0 })),
            "at least one keep rule",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({})),
            "at least one keep rule",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepWithin": "0d" })),
            "at least one keep rule",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepWithin": "2w" })),
            "for weeks write days",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepLast": 1, "keepWithinDaily": "1d1d" })),
            "each unit once",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepTags": ["gold"] })),
            "add keepLast: 1",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepTags": ["gold"], "keepLast": 1 })),
            "",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            keep(json!({ "keepTags": ["a,b"], "keepLast": 1 })),
            "hold commas",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            json!({ "policies": [{ "selector": { "tags": [" "] }, "retention": { "keepLast": 1 } }] }),
            "white space",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            json!({ "policies": [{ "selector": { "hostname": "a\nb" }, "retention": { "keepLast": 1 } }] }),
            "hostname must not hold line breaks",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            json!({ "scope": "Cluster" }),
            "",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            json!({ "scope": "Namespace" }),
            "scope",
        ),
        (
            "GlobalRetentionPolicy",
            &retention,
            json!({ "policies": [] }),
            "policies",
        ),
    ];
    for (kind, base, change, words) in cases {
        let answer = dry_run(&object(kind, merged(base, change.clone())));
        match (words, answer) {
            ("", answer) => drop(answer.unwrap_or_else(|e| panic!("{kind} {change} was refused: {e:#}"))),
            (words, Ok(_)) => panic!("{kind} {change} was taken; {words:?} expected"),
            (words, Err(error)) => assert!(error.to_string().contains(words), "{kind} {change}: {error:#}"),
        }
    }
    place.apply(&[place.repository("moving", "s3:http://127.0.0.1:9/b")]);
    let patch = |url: &str| json!({ "spec": { "repositoryURL": url } }).to_string();
    let other = place.kubectl(&[
        "patch",
        "resticrepository/moving",
        "--type=merge",
        "-p",
        &patch("rest:https://h/"),
    ]);
    assert!(
        other
            .unwrap_err()
            .to_string()
            .contains("back end of repositoryURL cannot be changed")
    );
    place
        .kubectl(&[
            "patch",
            "resticrepository/moving",
            "--type=merge",
            "-p",
            &patch("s3:http://127.0.0.1:10/b"),
        ])
        .unwrap();
}

#[test]
#[ignore = "needs clusters: make test"]
fn manifests_of_the_original_operator_apply_unchanged() {
    let place = Place::new("a", "original");
    let hook = json!({ "exec": { "podSelector": { "matchLabels": { "app": "x" } }, "container": "c", "command": ["sync"], "timeout": "30s" } });
    let image = tests::images::restic_image();
    let job_hook = json!({ "job": { "podTemplate": { "spec": { "containers": [
        { "name": "h", "image": image, "command": ["true"] }] } } } });
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x", "labels": { "app": "x" } },
        "spec": { "terminationGracePeriodSeconds": 1,
                  "containers": [{ "name": "c", "image": image, "command": ["sleep", "600"] }] } }),
    ]);
    place.until("pod/x", "Running", |o| o["status"]["phase"] == "Running");
    let ntfy = json!({ "enabled": true, "serverURL": "https://ntfy.sh", "topic": "t", "credentialsSecretRef": { "name": "n", "namespace": "original" },
                       "onlyOnFailure": true, "priority": 5, "tags": ["x"] });
    let job = json!({ "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3, "activeDeadlineSeconds": 3600,
        "backoffLimit": 0, "securityContext": { "runAsUser": 65532, "fsGroup": 65532 }, "resources": { "limits": { "cpu": "500m", "memory": "512Mi" }, "requests": { "cpu": "100m" } },
        "nodeSelector": {}, "tolerations": [{ "key": "k", "operator": "Exists", "effect": "NoSchedule" }], "affinity": {} });
    // Beside hooks it is refused: see docs/compatibility.md.
    let mut named = job.clone();
    named["serviceAccountName"] = json!("default");
    let policy = json!({ "keepLast": 1, "keepHourly": 2, "keepDaily": 3, "keepWeekly": 4, "keepMonthly": 5, "keepYearly": 6 });
    let full = [
        object(
            "ResticRepository",
            json!({ "repositoryURL": crate::support::s3(0, "original"), "credentialsSecretRef": { "name": "storage", "key": "password" },
            "integrityCheck": { "enabled": true, "schedule": "0 3 * * 0" }, "cache": { "enabled": true, "size": "5Gi", "storageClassName": "standard" } }),
        ),
        object(
            "ResticBackup",
            json!({ "repositoryRef": { "name": "x", "namespace": "original" }, "schedule": "0 2 * * *", "timezone": "UTC",
            "source": { "pvc": { "claimName": "data", "paths": ["/small"], "excludes": ["*.tmp"] } },
            "restic": { "hostname": "h", "tags": ["daily", "app"], "extraArgs": ["--exclude-caches"], "image": "ghcr.io/restic/restic:0.18.1" },
            "hooks": { "preBackup": hook, "postBackup": job_hook, "onFailure": hook },
            "retention": { "enabled": true, "policy": policy, "prune": true, "groupBy": ["host", "tags"] },
            "notifications": { "pushgateway": { "enabled": true, "url": "http://p:9091", "jobName": "backup" }, "ntfy": ntfy },
            "jobConfig": job, "suspend": false }),
        ),
        object(
            "ResticRestore",
            json!({ "backupRef": { "name": "x", "namespace": "original" }, "snapshotID": "latest",
            "snapshotSelector": { "latest": true, "tags": ["a"], "hostname": "h", "before": "2026-01-01T00:00:00Z" },
            "target": { "newPVC": { "name": "n", "storageClassName": "standard", "accessModes": ["ReadWriteOnce"], "size": "1Gi" } },
            "includePaths": ["/a"], "excludePaths": ["/b"], "options": { "overwrite": true, "verify": true },
            "hooks": { "preRestore": hook, "postRestore": job_hook }, "jobConfig": job }),
        ),
        object(
            "GlobalRetentionPolicy",
            json!({ "repositoryRef": { "name": "x" }, "schedule": "0 4 * * 0",
            "policies": [{ "selector": { "tags": ["a"], "hostname": "h" }, "retention": policy }], "prune": true,
            "notifications": { "email": { "enabled": true, "smtpServer": "s:25", "from": "a@b", "to": "c@d", "subject": "s" }, "ntfy": ntfy },
            "jobConfig": named, "suspend": true }),
        ),
    ];
    place.apply(&full);
    let backup = place.until_ready("resticbackup/x");
    assert!(crate::support::condition(&backup, "NotInEffect").is_null());
    let run = place.run("x", "1");
    assert_eq!(
        (&run["result"], &run["filesProcessed"]),
        (&json!("Succeeded"), &json!(2)),
        "{run:#}"
    );

    // The other spelling: blocks that are there and empty, and null where there is a default.
    let mut sparse = object(
        "ResticBackup",
        json!({ "repositoryRef": { "name": "x" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } },
        "restic": {}, "hooks": {}, "retention": {}, "notifications": {}, "jobConfig": { "backoffLimit": null, "serviceAccountName": "default" }, "suspend": null, "timezone": null }),
    );
    sparse["metadata"]["name"] = json!("sparse");
    place.apply(&[sparse]);
    let object = place.until_ready("resticbackup/sparse");
    assert_eq!(
        (
            &object["spec"]["suspend"],
            &object["spec"]["jobConfig"]["backoffLimit"],
            &object["spec"]["timezone"]
        ),
        (&json!(false), &json!(0), &json!("UTC"))
    );
}
