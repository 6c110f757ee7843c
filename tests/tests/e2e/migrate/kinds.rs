//! The kinds of other tools, as far as a migration reads them, written from their documentation.

use serde_json::{Map, Value, json};
use tests::Cluster;

/// Defines a kind with these fields in its spec; others are kept as they are.
fn define(cluster: &Cluster, group: &str, version: &str, kind: &str, plural: &str, fields: &Value) {
    let spec =
        json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": fields });
    let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let schema = json!({ "type": "object", "properties": { "spec": spec, "status": any } });
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
            "versions": [{ "name": version, "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    });
    cluster.apply(&crd.to_string()).unwrap();
    let name = format!("crd/{plural}.{group}");
    cluster
        .kubectl(&["wait", "--for=condition=Established", &name, "--timeout=30s"])
        .unwrap();
}

fn object(names: &[&str]) -> Value {
    let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true, "nullable": true });
    let fields: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), any.clone()))
        .collect();
    Value::Object(fields)
}

pub fn k8up(cluster: &Cluster) {
    let parts = object(&["backend", "backup", "check", "prune", "archive", "restore"]);
    define(cluster, "k8up.io", "v1", "Schedule", "schedules", &parts);
    let mut parts = object(&["backend", "podSecurityContext"]);
    parts["tags"] = json!({ "type": "array", "items": { "type": "string" } });
    define(cluster, "k8up.io", "v1", "Backup", "backups", &parts);
}

pub fn volsync(cluster: &Cluster) {
    let mut fields = object(&["restic", "trigger"]);
    fields["sourcePVC"] = json!({ "type": "string" });
    fields["paused"] = json!({ "type": "boolean" });
    define(
        cluster,
        "volsync.backube",
        "v1alpha1",
        "ReplicationSource",
        "replicationsources",
        &fields,
    );
}

pub fn velero(cluster: &Cluster) {
    let text = json!({ "type": "string" });
    let repository = json!({ "volumeNamespace": text, "backupStorageLocation": text, "repositoryType": text,
                             "resticIdentifier": text, "maintenanceFrequency": text });
    let all = [
        ("BackupRepository", "backuprepositories", repository),
        (
            "BackupStorageLocation",
            "backupstoragelocations",
            object(&["config", "objectStorage", "credential"]),
        ),
        ("PodVolumeBackup", "podvolumebackups", object(&["pod", "tags"])),
        ("Schedule", "schedules", object(&["template"])),
    ];
    for (kind, plural, fields) in all {
        define(cluster, "velero.io", "v1", kind, plural, &fields);
    }
}
