//! What the original operator makes, by its own rules: labels, owners, finalizers, argument lists, and the field manager
//! of a program that writes whole objects and does not apply them.

use serde_json::{Value, json};

use crate::support::{Place, s3};

/// Field manager of its writes: the name of its binary.
const MANAGER: &str = "manager";
/// The host that its backup stores.
pub const HOST: &str = "orders";

/// Labels of what belongs to one of its resources. `top` for what no other object of it controls.
pub fn labels(component: &str, kind: &str, name: &str, top: bool) -> Value {
    let mut labels = json!({
        "app.kubernetes.io/name": "restic-backup-operator", "app.kubernetes.io/component": component,
        format!("backup.resticbackup.io/{kind}"): name,
    });
    if top {
        labels["app.kubernetes.io/managed-by"] = json!("restic-backup-operator");
    }
    labels
}

/// A resource with the finalizer that it sets.
pub fn resource(kind: &str, name: &str, spec: Value) -> Value {
    let finalizer = format!("backup.resticbackup.io/{}-finalizer", kind.to_lowercase());
    let finalizers = match kind {
        "ResticRepository" => vec![],
        _ => vec![finalizer],
    };
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind,
            "metadata": { "name": name, "finalizers": finalizers }, "spec": spec })
}

/// The pod of a backup, a restore, or a policy.
fn pod(place: &Place, command: Value, volume: Option<(&str, &str, &str)>) -> Value {
    let secret = |name: &str, optional: bool| json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": "storage", "key": name, "optional": optional } } });
    let mut environment = vec![
        json!({ "name": "RESTIC_REPOSITORY", "value": s3(0, &place.namespace) }),
        secret("RESTIC_PASSWORD", false),
        secret("AWS_ACCESS_KEY_ID", true),
        secret("AWS_SECRET_ACCESS_KEY", true),
    ];
    // The bed's image of restic does not know the user.
    environment.push(json!({ "name": "USER", "value": "restic" }));
    let (mut mounts, mut volumes) = (vec![], vec![]);
    if let Some((name, path, claim)) = volume {
        let read_only = path == "/backup";
        mounts.push(json!({ "name": name, "mountPath": path, "readOnly": read_only }));
        volumes.push(
            json!({ "name": name, "persistentVolumeClaim": { "claimName": claim, "readOnly": read_only } }),
        );
    }
    json!({
        "restartPolicy": "Never",
        "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "restic", "image": tests::images::restic_image(), "imagePullPolicy": "IfNotPresent",
            "command": command, "env": environment, "volumeMounts": mounts,
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        }],
        "volumes": volumes,
    })
}

fn owner(place: &Place, kind: &str, name: &str) -> Value {
    let owner = place.get(&format!("{kind}/{name}"));
    json!([{ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": owner["kind"], "name": name,
             "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true }])
}

fn job_spec(labels: Value, pod: Value, deadline: i64) -> Value {
    json!({ "backoffLimit": 0, "activeDeadlineSeconds": deadline,
            "template": { "metadata": { "labels": labels }, "spec": pod } })
}

fn cron_job(
    place: &Place,
    name: &str,
    (kind, resource): (&str, &str),
    labels: [Value; 2],
    job: Value,
) -> Value {
    let [top, below] = labels;
    json!({ "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": name, "labels": top, "ownerReferences": owner(place, kind, resource) },
        "spec": { "schedule": "0 3 1 1 *", "concurrencyPolicy": "Forbid", "suspend": false,
                  "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 3,
                  "jobTemplate": { "metadata": { "labels": below }, "spec": job } } })
}

/// The CronJob of ResticBackup `orders`.
pub fn backup_cron_job(place: &Place) -> Value {
    let command = json!(["restic", "backup", "--host", HOST, "--tag", "daily", "/backup"]);
    let labels = |top| labels("backup", "backup", "orders", top);
    let pod = pod(place, command, Some(("backup-source", "/backup", "data")));
    cron_job(
        place,
        "resticbackup-orders",
        ("resticbackup", "orders"),
        [labels(true), labels(false)],
        job_spec(labels(false), pod, 3600),
    )
}

/// A Job that the CronJob of `orders` has started. `held`: its pod begins when there is a file `go` in the volume.
pub fn backup_job(place: &Place, name: &str, held: bool) -> Value {
    let cron_job = place.get("cronjob/resticbackup-orders");
    let mut spec = cron_job["spec"]["jobTemplate"]["spec"].clone();
    if held {
        let script = format!(
            "until [ -e /backup/go ]; do sleep 0.2; done; exec restic backup --host {HOST} --tag daily --exclude go /backup"
        );
        spec["template"]["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", script]);
    }
    let owner = json!([{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "resticbackup-orders",
                         "uid": cron_job["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true }]);
    json!({ "apiVersion": "batch/v1", "kind": "Job", "spec": spec,
            "metadata": { "name": name, "ownerReferences": owner, "labels": labels("backup", "backup", "orders", false) } })
}

/// The Job of a restore. `held` as of a backup.
pub fn restore_job(place: &Place, name: &str, held: bool) -> Value {
    let wait = if held {
        "until [ -e /restore/go ]; do sleep 0.2; done; "
    } else {
        ""
    };
    let script = format!("{wait}exec restic restore latest --target /restore");
    let labels = |top| labels("restore", "restore", name, top);
    let pod = pod(
        place,
        json!(["/bin/sh", "-c", script]),
        Some(("restore-target", "/restore", "back")),
    );
    json!({ "apiVersion": "batch/v1", "kind": "Job", "spec": job_spec(labels(false), pod, 3600),
            "metadata": { "name": format!("resticrestore-{name}"), "labels": labels(true),
                          "ownerReferences": owner(place, "resticrestore", name) } })
}

/// The CronJob of GlobalRetentionPolicy `weekly`: a script that removes at once.
pub fn retention_cron_job(place: &Place) -> Value {
    let script =
        format!("set -e\necho policy 1\nrestic forget --host {HOST} --keep-last 1\nrestic prune\necho done");
    let labels = |top| labels("retention", "retentionpolicy", "weekly", top);
    let pod = pod(place, json!(["/bin/sh", "-c", script]), None);
    cron_job(
        place,
        "globalretention-weekly",
        ("globalretentionpolicy", "weekly"),
        [labels(true), labels(false)],
        job_spec(labels(false), pod, 7200),
    )
}

/// Creates an object as the original operator does. Returns its uid.
pub fn create(place: &Place, object: &Value) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), object.to_string()).unwrap();
    let manager = format!("--field-manager={MANAGER}");
    let file = file.path().to_string_lossy();
    place
        .kubectl(&["create", &manager, "-f", &file, "-o", "jsonpath={.metadata.uid}"])
        .unwrap()
}

/// Writes a status as the original operator does.
pub fn status(place: &Place, object: &str, status: Value) {
    let manager = format!("--field-manager={MANAGER}");
    let patch = json!({ "status": status }).to_string();
    let arguments = [
        "patch",
        object,
        "--subresource=status",
        "--type=merge",
        &manager,
        "-p",
        &patch,
    ];
    place.kubectl(&arguments).unwrap();
}

/// Condition Ready with one of its reasons.
pub fn ready(status: &str, reason: &str) -> Value {
    json!([{ "type": "Ready", "status": status, "reason": reason, "message": "as the original operator has put it",
             "lastTransitionTime": "2026-11-01T00:00:00Z", "observedGeneration": 1 }])
}
