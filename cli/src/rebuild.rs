//! `fleet clusters rebuild`: the resources of a cluster that was lost, from what the hub holds of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proto::v1::manifest_part::Body;
use proto::v1::{Manifest, ManifestsHead, ManifestsRequest};
use serde_json::{Value, json};

use crate::arguments::Rebuild;
use crate::check::kube::API;
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::output::{note, print};
use crate::run::yaml;
use crate::text::rfc3339;

/// What spokes write in the place of what could be a secret.
const TAKEN_OUT: &str = "(not sent to the hub)";

/// Prints them.
pub async fn rebuild(client: &mut Client, rebuild: &Rebuild) -> Result<u8, Failure> {
    let request = ManifestsRequest {
        cluster: rebuild.cluster.clone(),
    };
    let mut parts = client.manifests(request).await?;
    let (mut head, mut manifests) = (ManifestsHead::default(), Vec::new());
    while let Some(part) = client.next(&mut parts).await? {
        match part.body {
            Some(Body::Head(found)) => head = found,
            Some(Body::Manifest(manifest)) => manifests.push(manifest),
            None => {}
        }
    }
    if let Some(namespace) = &rebuild.namespace {
        manifests.retain(|manifest| manifest.namespace == *namespace);
    }
    let made = made(rebuild, &manifests);
    print(&text(&made.objects));
    note(&heading(rebuild, &head, manifests.len()));
    made.notes.iter().for_each(|text| note(&shown(text)));
    Ok(if made.missing == 0 && head.complete {
        0
    } else {
        code::FINDING
    })
}

fn heading(rebuild: &Rebuild, head: &ManifestsHead, count: usize) -> String {
    let as_of =
        rfc3339(head.as_of.as_ref()).unwrap_or_else(|| format!("unknown, now is {}", Timestamp::now()));
    let mut text = format!("{} had {count} resources as of {as_of}", shown(&rebuild.cluster));
    if !head.complete {
        text += "; the hub does not hold or show all of it";
    }
    text
}

/// Without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// What is printed.
#[derive(Debug, Default)]
struct Made {
    objects: Vec<Value>,
    notes: Vec<String>,
    /// Resources that could not be made.
    missing: usize,
}

fn made(rebuild: &Rebuild, manifests: &[Manifest]) -> Made {
    let mut made = Made::default();
    let mut secrets: BTreeSet<String> = BTreeSet::new();
    let mut objects = Vec::new();
    for manifest in manifests {
        let Some(object) = taken(rebuild, manifest, &mut made) else {
            continue;
        };
        for name in secrets_of(&object["spec"]) {
            secrets.insert(format!("{}/{name}", manifest.namespace));
        }
        objects.push(object);
    }
    let namespaces: BTreeSet<String> = manifests
        .iter()
        .map(|manifest| manifest.namespace.clone())
        .collect();
    let namespace =
        |name: String| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    made.objects.extend(namespaces.into_iter().map(namespace));
    if rebuild.restores {
        let restores = restores(&rebuild.cluster, &objects, &mut made.notes);
        objects.extend(restores);
    }
    made.objects.extend(objects);
    if !secrets.is_empty() {
        let secrets: Vec<String> = secrets.into_iter().collect();
        made.notes.insert(
            0,
            format!(
                "the hub has no Secret; make these first (fleet kit, or where you keep them): {}",
                secrets.join(", ")
            ),
        );
    }
    if rebuild.restores {
        made.notes.push(
            "backups are suspended until the restores are over: then kubectl patch or fleet backups resume"
                .to_owned(),
        );
    }
    made
}

/// A resource as it is to be made again; `None`, and noted, where it cannot be.
fn taken(rebuild: &Rebuild, manifest: &Manifest, made: &mut Made) -> Option<Value> {
    let about = format!("{} {}/{}", manifest.kind, manifest.namespace, manifest.name);
    let Some(mut object) = object(manifest) else {
        made.missing += 1;
        made.notes.push(format!(
            "{about} cannot be made: its spoke was of a version that did not send it, or it is larger than 32 KiB"
        ));
        return None;
    };
    if object.to_string().contains(TAKEN_OUT) {
        made.notes.push(format!(
            "{about}: write the values of the variables, and the users and passwords of the addresses, that are {TAKEN_OUT:?}"
        ));
    }
    if object.pointer("/spec/allowedNamespaces/selector").is_some() {
        made.notes.push(format!(
            "{about} is open to namespaces with labels, which have to be set on them again"
        ));
    }
    let spec = &mut object["spec"];
    match manifest.kind.as_str() {
        // What was there is to be found, and not made anew.
        "ResticRepository" => spec["initialize"] = json!("Never"),
        _ if rebuild.suspended || rebuild.restores => spec["suspend"] = json!(true),
        _ => {}
    }
    Some(object)
}

fn object(manifest: &Manifest) -> Option<Value> {
    let object: Value = serde_json::from_str(&manifest.manifest).ok()?;
    let kind = object.get("kind").and_then(Value::as_str);
    // Only what it says that it is: a spoke wrote it.
    let is = kind == Some(manifest.kind.as_str())
        && object["apiVersion"] == API
        && object["metadata"]["name"] == manifest.name.as_str()
        && object["metadata"]["namespace"] == manifest.namespace.as_str()
        && object["spec"].is_object();
    is.then_some(object)
}

/// Names of Secrets that a spec refers to.
fn secrets_of(value: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let field = field.to_ascii_lowercase();
                if field.ends_with("secretref") || field == "secretkeyref" {
                    names.extend(value["name"].as_str().map(str::to_owned));
                }
                if field == "secretname" {
                    names.extend(value.as_str().map(str::to_owned));
                }
                names.extend(secrets_of(value));
            }
        }
        Value::Array(items) => names.extend(items.iter().flat_map(secrets_of)),
        _ => {}
    }
    names
}

/// A restore for each claim that a backup names.
fn restores(cluster: &str, objects: &[Value], notes: &mut Vec<String>) -> Vec<Value> {
    let mut claims: BTreeMap<(String, String), Value> = BTreeMap::new();
    for backup in objects.iter().filter(|object| object["kind"] == "ResticBackup") {
        let text = |pointer: &str| {
            backup
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let claim = text("/spec/source/pvc/claimName");
        if claim.is_empty() {
            notes.push(format!(
                "ResticBackup {namespace}/{name} names no claim: restore it by hand (docs/disaster.md)"
            ));
            continue;
        }
        let mut spec = json!({
            "repositoryRef": backup["spec"]["repositoryRef"],
            // Not by backupRef: a cluster that is made again has another uid, and the snapshots are not its own.
            "snapshotSelector": { "tags": [format!("fleet.cluster={cluster}"), format!("fleet.backup={namespace}/{name}")] },
            "target": { "newPVC": { "name": claim } },
        });
        if let Some(user) = backup.pointer("/spec/jobConfig/securityContext") {
            spec["jobConfig"] = json!({ "securityContext": user });
        }
        let restore = json!({
            "apiVersion": API, "kind": "ResticRestore",
            "metadata": { "name": format!("rebuild-{claim}"), "namespace": namespace }, "spec": spec,
        });
        if claims
            .insert((namespace.clone(), claim.clone()), restore)
            .is_some()
        {
            notes.push(format!(
                "several backups read claim {namespace}/{claim}: the restore is from {name}"
            ));
        }
    }
    claims.into_values().collect()
}

fn text(objects: &[Value]) -> String {
    let documents: Vec<String> = objects
        .iter()
        .map(|object| yaml(object).trim_end().to_owned())
        .collect();
    let text = documents.join("\n---\n") + "\n";
    text.chars()
        .filter(|c| ['\n', '\t'].contains(c) || !c.is_control())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn manifest(kind: &str, name: &str, spec: Value) -> Manifest {
        let object = json!({ "apiVersion": API, "kind": kind,
                             "metadata": { "name": name, "namespace": "shop" }, "spec": spec });
        Manifest {
            kind: kind.to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            manifest: object.to_string(),
            restic_id: String::new(),
        }
    }

    fn all() -> Vec<Manifest> {
        vec![
            manifest(
                "ResticRepository",
                "nas",
                json!({ "repositoryURL": "s3:x/y", "credentialsSecretRef": { "name": "storage" } }),
            ),
            manifest(
                "ResticBackup",
                "orders",
                json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } },
                        "jobConfig": { "securityContext": { "runAsUser": 70 } },
                        "notifications": { "slack": { "credentialsSecretRef": { "name": "slack" } } } }),
            ),
            manifest(
                "GlobalRetentionPolicy",
                "weekly",
                json!({ "repositoryRef": { "name": "nas" }, "policies": [] }),
            ),
            Manifest {
                kind: "ResticBackup".to_owned(),
                namespace: "shop".to_owned(),
                name: "old".to_owned(),
                ..Manifest::default()
            },
        ]
    }

    fn asked(suspended: bool, restores: bool) -> Rebuild {
        Rebuild {
            cluster: "berlin".to_owned(),
            namespace: None,
            suspended,
            restores,
        }
    }

    #[test]
    fn everything_comes_back_as_it_was_and_what_is_missing_is_named() {
        let made = made(&asked(false, false), &all());
        let kinds: Vec<&str> = made
            .objects
            .iter()
            .map(|object| object["kind"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds,
            [
                "Namespace",
                "ResticRepository",
                "ResticBackup",
                "GlobalRetentionPolicy"
            ]
        );
        assert_eq!(made.objects[1]["spec"]["initialize"], "Never");
        assert!(made.objects[2]["spec"].get("suspend").is_none());
        assert_eq!(made.missing, 1);
        assert!(
            made.notes[0].contains("shop/slack, shop/storage"),
            "{:?}",
            made.notes
        );
        assert!(
            made.notes[1].contains("ResticBackup shop/old cannot be made"),
            "{:?}",
            made.notes
        );
    }

    #[test]
    fn restores_name_the_lost_clusters_snapshots_and_backups_wait_for_them() {
        let made = made(&asked(false, true), &all());
        let restore = made.objects.last().unwrap();
        assert_eq!(restore["kind"], "ResticRestore");
        assert_eq!(
            restore["spec"],
            json!({
                "repositoryRef": { "name": "nas" },
                "snapshotSelector": { "tags": ["fleet.cluster=berlin", "fleet.backup=shop/orders"] },
                "target": { "newPVC": { "name": "data" } },
                "jobConfig": { "securityContext": { "runAsUser": 70 } },
            })
        );
        assert_eq!(made.objects[2]["spec"]["suspend"], true);
        assert_eq!(made.objects[3]["spec"]["suspend"], true);
    }

    #[test]
    fn a_spoke_writes_nothing_but_its_own_resources() {
        let mut evil = manifest("ResticBackup", "orders", json!({ "x": "\u{9b}2J\u{1b}[2J" }));
        evil.manifest = evil
            .manifest
            .replace("\"kind\":\"ResticBackup\"", "\"kind\":\"ClusterRoleBinding\"");
        assert_eq!(object(&evil), None);
        let strange = manifest("ResticBackup", "orders", json!({ "x": "\u{9b}2J\u{1b}[2J" }));
        let printed = text(&made(&asked(false, false), &[strange]).objects);
        assert!(
            printed.chars().all(|c| c == '\n' || !c.is_control()),
            "{printed:?}"
        );
        let script =
            json!({ "hooks": { "preBackup": { "command": ["sh", "-c", "if true\n\tthen\techo a\nfi\n"] } } });
        let indented = manifest("ResticBackup", "orders", script.clone());
        let printed = text(&made(&asked(false, false), &[indented]).objects);
        let last = printed.split("---\n").last().unwrap();
        let read: Value = serde_saphyr::from_str(last).unwrap();
        assert_eq!(read["spec"], script, "tabs stay: {printed}");
    }

    #[test]
    fn what_was_taken_out_is_named() {
        let env = json!([{ "name": "PASSWORD", "value": TAKEN_OUT }]);
        let custom = json!({ "source": { "customSource": { "podTemplate": { "spec": { "containers": [{ "env": env }] } } } } });
        let made = made(
            &asked(false, false),
            &[manifest("ResticBackup", "orders", custom)],
        );
        assert!(
            made.notes.iter().any(|note| note.contains("write the values")),
            "{:?}",
            made.notes
        );
    }
}
