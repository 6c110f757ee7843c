//! A resource as the hub keeps it for the day on which its cluster is lost: what a person has written, and no secret. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use proto::text::with_credentials_as;
use proto::v1::ObjectState;
use serde::Serialize;
use serde_json::{Value, json};

/// Group of our resources.
const GROUP: &str = "backup.resticbackup.io";
/// Most bytes of one. A larger one is not sent.
const LONGEST: usize = 32 << 10;
/// In the place of what could be a secret; the CLI looks for it.
const TAKEN_OUT: &str = "(not sent to the hub)";

/// A state with the manifest of its resource.
#[must_use]
pub fn with(mut state: ObjectState, kind: &str, meta: &ObjectMeta, spec: &impl Serialize) -> ObjectState {
    let mut owners = meta.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true));
    state.generated = controller.is_some_and(|owner| group(owner) == GROUP);
    if !state.generated {
        state.owner = controller.map(named).unwrap_or_default();
        state.manifest = manifest(kind, meta, spec).unwrap_or_default();
    }
    state
}

/// Group of the API of an owner; empty for the core's.
fn group(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

fn named(owner: &OwnerReference) -> String {
    let OwnerReference { kind, name, .. } = owner;
    match group(owner) {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    }
}

fn manifest(kind: &str, meta: &ObjectMeta, spec: &impl Serialize) -> Option<String> {
    let mut spec = serde_json::to_value(spec).ok()?;
    take_out(&mut spec);
    let mut metadata = json!({ "name": meta.name, "namespace": meta.namespace });
    // Annotations are left out: they ask for runs and approvals, and hold what other programs have written.
    if let Some(labels) = meta.labels.as_ref().filter(|labels| !labels.is_empty()) {
        metadata["labels"] = json!(labels);
    }
    let object = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec,
    });
    let text = object.to_string();
    (text.len() <= LONGEST).then_some(text)
}

/// Takes user and password out of addresses, and values out of the variables of pod templates.
fn take_out(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let (true, Value::String(text)) = (name.to_ascii_lowercase().ends_with("url"), &*value) {
                    *value = Value::String(with_credentials_as(text, TAKEN_OUT));
                }
                if name == "env" {
                    variables(value);
                }
                take_out(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(take_out),
        _ => {}
    }
}

fn variables(env: &mut Value) {
    for variable in env.as_array_mut().into_iter().flatten() {
        if let Some(value) = variable.get_mut("value").filter(|value| *value != "") {
            *value = Value::String(TAKEN_OUT.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository};
    use serde::de::DeserializeOwned;

    use super::*;

    fn of<K: DeserializeOwned>(kind: &str, metadata: Value, spec: Value) -> K {
        let object = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_resource_can_be_made_again_of_what_the_hub_has() {
        let metadata = json!({ "name": "orders", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                               "labels": { "team": "shop" }, "annotations": { "backup.resticbackup.io/run": "1" } });
        let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "H 3 * * *", "source": { "pvc": { "claimName": "data" } },
                           "restic": { "hostname": "db", "tags": ["daily"] } });
        let backup: ResticBackup = of("ResticBackup", metadata, spec);
        let state = with(
            ObjectState::default(),
            "ResticBackup",
            &backup.metadata,
            &backup.spec,
        );
        let again: ResticBackup = serde_json::from_str(&state.manifest).unwrap();
        assert_eq!(again.spec, backup.spec);
        assert_eq!(again.metadata.labels, backup.metadata.labels);
        assert_eq!((again.metadata.uid, again.metadata.annotations), (None, None));
        assert!(!state.generated);
    }

    #[test]
    fn no_secret_is_in_it() {
        let metadata = json!({ "name": "nas", "namespace": "shop" });
        let spec = json!({ "repositoryURL": "rest:https://fleet:hidden@nas:8000/", "credentialsSecretRef": { "name": "nas" } });
        let repository: ResticRepository = of("ResticRepository", metadata.clone(), spec);
        let state = with(
            ObjectState::default(),
            "ResticRepository",
            &repository.metadata,
            &repository.spec,
        );
        assert!(!state.manifest.contains("hidden") && state.manifest.contains("\"name\":\"nas\""));
        let url = format!("rest:https://{TAKEN_OUT}@nas:8000/");
        assert!(state.manifest.contains(&url), "{}", state.manifest);
        let template = json!({ "spec": { "containers": [{ "name": "c", "env": [
            { "name": "PGPASSWORD", "value": "hidden" },
            { "name": "FROM", "valueFrom": { "secretKeyRef": { "name": "pg", "key": "k" } } },
        ] }] } });
        let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily",
                           "source": { "customSource": { "podTemplate": template, "backupPath": "/x" } } });
        let backup: ResticBackup = of("ResticBackup", metadata, spec);
        let state = with(
            ObjectState::default(),
            "ResticBackup",
            &backup.metadata,
            &backup.spec,
        );
        assert!(
            !state.manifest.contains("hidden") && state.manifest.contains(TAKEN_OUT),
            "{}",
            state.manifest
        );
        assert!(state.manifest.contains("\"key\":\"k\""));
    }

    /// Its owner may be of a program that is not installed in the new cluster.
    #[test]
    fn what_another_program_makes_and_keeps_is_sent_with_its_name() {
        let owner = json!([
            { "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u" },
            { "apiVersion": "platform.example.org/v1", "kind": "XBackupStore", "name": "shop", "uid": "u", "controller": true },
        ]);
        let metadata = json!({ "name": "nas", "namespace": "shop", "ownerReferences": owner });
        let spec = json!({ "repositoryURL": "s3:x/y", "credentialsSecretRef": { "name": "nas" } });
        let repository: ResticRepository = of("ResticRepository", metadata, spec);
        let state = with(
            ObjectState::default(),
            "ResticRepository",
            &repository.metadata,
            &repository.spec,
        );
        assert!(!state.generated);
        assert!(state.manifest.contains("s3:x/y"), "{}", state.manifest);
        assert!(!state.manifest.contains("ownerReferences"), "{}", state.manifest);
        assert_eq!(state.owner, "XBackupStore.platform.example.org/shop");
    }

    #[test]
    fn what_comes_back_with_another_resource_and_what_is_too_large_is_not_sent() {
        let owner = json!([{ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "name": "orders", "uid": "u", "controller": true }]);
        let rule = json!({ "selector": {}, "retention": { "keepLast": 1 } });
        let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "policies": [rule] });
        let owned: GlobalRetentionPolicy = of(
            "GlobalRetentionPolicy",
            json!({ "name": "p", "ownerReferences": owner }),
            spec.clone(),
        );
        let state = with(
            ObjectState::default(),
            "GlobalRetentionPolicy",
            &owned.metadata,
            &owned.spec,
        );
        assert!(state.generated && state.manifest.is_empty());
        let mut large: GlobalRetentionPolicy = of("GlobalRetentionPolicy", json!({ "name": "p" }), spec);
        large.metadata.labels = Some([("x".to_owned(), "y".repeat(LONGEST))].into());
        let state = with(
            ObjectState::default(),
            "GlobalRetentionPolicy",
            &large.metadata,
            &large.spec,
        );
        assert!(!state.generated && state.manifest.is_empty());
    }
}
