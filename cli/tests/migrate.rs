//! What `fleet migrate --apply` finds in a cluster whose kubectl is a script.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

/// A ResticRepository as a migration has made it.
fn made(labels: Value) -> Value {
    json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "labels": labels },
        "spec": { "repositoryURL": "s3:http://minio:9000/nas" },
    })
}

/// Exit code and output of an `--apply` where this is there already, and how often something was written.
fn apply(present: &Value) -> (i32, String, usize) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("present.json"), present.to_string()).unwrap();
    let variables = "RESTIC_REPOSITORY=s3:http://minio:9000/nas\nRESTIC_PASSWORD=p\n";
    std::fs::write(at("variables"), variables).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in get*resticrepository*) cat {0}/present.json ;; apply*) echo x >> {0}/applied ;; esac\n",
        folder.path().display()
    );
    std::fs::write(at("kubectl"), script).unwrap();
    std::fs::set_permissions(at("kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args([
            "migrate",
            "cron",
            "-n",
            "shop",
            "--name",
            "nas",
            "--apply",
            "--env-file",
        ])
        .arg(at("variables"))
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let applied = std::fs::read_to_string(at("applied")).unwrap_or_default();
    (output.status.code().unwrap(), text, applied.lines().count())
}

#[test]
fn what_another_migration_or_a_person_made_is_left_alone_and_nothing_is_written() {
    let label = "fleet.resticbackup.io/migrated-from";
    for (labels, why) in [
        (json!({}), "no migration has made it"),
        (json!({ label: "k8up" }), "a migration from k8up has made it"),
    ] {
        let (code, text, applied) = apply(&made(labels));
        assert_eq!((code, applied), (2, 0), "{text}");
        assert!(
            text.contains("nothing was written: ResticRepository shop/nas") && text.contains(why),
            "{text}"
        );
    }
    let (code, text, applied) = apply(&made(json!({ label: "cron" })));
    assert_eq!((code, applied), (0, 2), "the repository and its Secret: {text}");
}

/// An object of ours that is ready and has worked, as a migration of a CronJob has made it.
fn ready(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "shop", "generation": 2,
            "labels": { "fleet.resticbackup.io/migrated-from": "cron" },
            "annotations": { "fleet.resticbackup.io/migrated-source": "cronjobs.batch/shop/nightly" },
        },
        "spec": { "suspend": true },
        "status": {
            "observedGeneration": 2, "repositoryID": "ab", "lastSuccessfulBackup": "2026-11-20T03:00:00Z",
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// Exit code and output of `finish`, and what it patched, where the CronJob runs this script.
fn finish(script: &str, backups: &[Value]) -> (i32, String, Vec<String>) {
    let pod = json!({
        "containers": [{ "name": "restic", "image": "restic/restic", "command": ["sh", "-c", script],
            "env": [{ "name": "RESTIC_REPOSITORY", "value": "s3:http://minio:9000/x" }, { "name": "RESTIC_PASSWORD", "value": "p" }],
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }, { "name": "more", "mountPath": "/more" }] }],
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
                    { "name": "more", "persistentVolumeClaim": { "claimName": "more" } }],
    });
    let theirs = json!({
        "kind": "CronJob", "metadata": { "name": "nightly", "namespace": "shop" },
        "spec": { "schedule": "0 3 * * *", "jobTemplate": { "spec": { "template": { "spec": pod } } } },
    });
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let list = |items: &[Value]| json!({ "items": items }).to_string();
    for (name, text) in [
        ("repositories", list(&[ready("ResticRepository", "nightly")])),
        ("backups", list(backups)),
        ("policies", list(&[ready("GlobalRetentionPolicy", "nightly")])),
        ("cronjobs", list(std::slice::from_ref(&theirs))),
        ("cronjob", theirs.to_string()),
    ] {
        std::fs::write(at(name), text).unwrap();
    }
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\ncase \"$*\" in\n\
        get*resticrepositories*) cat repositories ;;\nget*resticbackups*) cat backups ;;\nget*globalretention*) cat policies ;;\n\
        get*cronjobs.batch*nightly*) cat cronjob ;;\nget*cronjobs.batch*) cat cronjobs ;;\n\
        patch*) echo \"$2 $5\" >> patched ;;\nesac\n";
    std::fs::write(at("kubectl"), script).unwrap();
    std::fs::set_permissions(at("kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["migrate", "finish", "cron", "--yes"])
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let patched = std::fs::read_to_string(at("patched")).unwrap_or_default();
    let patched = patched.lines().map(str::to_owned).collect();
    (output.status.code().unwrap(), text, patched)
}

#[test]
fn finish_starts_ours_first_and_leaves_running_what_ours_does_not_cover() {
    let ours = [ready("ResticBackup", "nightly")];
    let resumed = "resticbackups.backup.resticbackup.io nightly";
    let (code, text, patched) = finish("restic backup /data --host web", &ours);
    assert_eq!(code, 0, "{text}");
    assert_eq!(patched, [resumed, "cronjobs.batch nightly"], "{text}");
    assert!(
        text.contains("GlobalRetentionPolicy shop/nightly stays suspended"),
        "{text}"
    );
    // What was added to it since ours was made is in no backup of ours.
    let (code, text, patched) = finish("restic backup /data --host web\npg_dump shop", &ours);
    assert_eq!(code, 0, "{text}");
    assert_eq!(patched, [resumed], "{text}");
    assert!(text.contains("in part only, and goes on"), "{text}");
    let (_, text, patched) = finish("restic backup /data /more --host web", &ours);
    assert_eq!(patched, [resumed], "{text}");
    assert!(
        text.contains("goes on: ResticBackup shop/data is not there"),
        "{text}"
    );
    // A backup that never worked takes the place of nothing.
    let mut never = ours;
    never[0]["status"]["lastSuccessfulBackup"] = Value::Null;
    let (code, text, patched) = finish("restic backup /data --host web", &never);
    assert_eq!(code, 2, "{text}");
    assert!(
        patched.is_empty() && text.contains("has not made a backup yet"),
        "{text}"
    );
}

#[test]
fn finish_of_velero_names_a_claim_that_has_no_backup_of_ours() {
    let ours = |kind: &str, namespace: &str, name: &str| {
        let mut object = ready(kind, name);
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["labels"] = json!({ "fleet.resticbackup.io/migrated-from": "velero" });
        object["metadata"]["annotations"] =
            json!({ "fleet.resticbackup.io/migrated-source": "namespaces/shop/shop" });
        object["spec"]["repositoryRef"] = json!({ "name": "restic-shop", "namespace": "velero" });
        object
    };
    let velero = |name: &str, spec: Value| json!({ "metadata": { "name": name, "namespace": "velero" }, "spec": spec });
    let volume = |claim: &str| {
        let mut volume = velero(
            claim,
            json!({ "pod": { "namespace": "shop" }, "backupStorageLocation": "default", "uploaderType": "restic" }),
        );
        volume["metadata"]["annotations"] = json!({ "velero.io/pvc-name": claim });
        volume
    };
    let claim = |name: &str| json!({ "metadata": { "name": name, "namespace": "shop" } });
    let repository = json!({ "backupStorageLocation": "default", "repositoryType": "restic", "volumeNamespace": "shop",
        "resticIdentifier": "s3:http://minio:9000/velero/restic/shop" });
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, items) in [
        (
            "resticrepositories",
            vec![ours("ResticRepository", "velero", "restic-shop")],
        ),
        ("resticbackups", vec![ours("ResticBackup", "shop", "db")]),
        ("globalretentionpolicies", vec![]),
        ("backuprepositories", vec![velero("shop-default", repository)]),
        (
            "backupstoragelocations",
            vec![velero("default", json!({ "provider": "aws" }))],
        ),
        ("podvolumebackups", vec![volume("db"), volume("added")]),
        ("schedules", vec![]),
        ("persistentvolumeclaims", vec![claim("db"), claim("added")]),
    ] {
        std::fs::write(at(name), json!({ "items": items }).to_string()).unwrap();
    }
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\ncase \"$1\" in\nget) cat \"${2%%.*}\" 2>/dev/null || true ;;\nesac\n";
    std::fs::write(at("kubectl"), script).unwrap();
    std::fs::set_permissions(at("kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["migrate", "finish", "velero"])
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains("would resume ResticBackup shop/db"), "{text}");
    assert!(
        text.contains("ResticBackup shop/added is not there")
            && !text.contains("ResticBackup shop/db is not there"),
        "{text}"
    );
}
