//! Manifests that were written for the version before.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::Place;

/// What the slow backup sends each time, in four minutes.
pub const SLOW_BYTES: usize = 12 << 20;

/// A backup of every minute and a slow one, with a repository of their own.
pub fn backups(place: &Place, url: &str) -> [Value; 3] {
    let repository = json!({ "name": "runs" });
    let history = json!({ "successfulJobsHistoryLimit": 100, "failedJobsHistoryLimit": 100 });
    let minutes = json!({ "schedule": "* * * * *", "suspend": true, "jobConfig": history,
                          "source": { "pvc": { "claimName": "data", "paths": ["small"] } } });
    // Slow enough to be in the middle of it.
    let slow = json!({ "jobConfig": history, "restic": { "extraArgs": ["--limit-upload=50"] } });
    [
        place.repository("runs", url),
        place.backup("minutes", repository.clone(), minutes),
        place.backup("slow", repository, slow),
    ]
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            all.push(path);
        }
    }
    all
}

fn documents(file: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Paths of all fields of a schema, with their types.
fn fields(schema: &Value, path: &str, into: &mut Vec<(String, Value)>) {
    into.push((path.to_owned(), schema["type"].clone()));
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        fields(field, &format!("{path}.{name}"), into);
    }
    for (part, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[part].is_object() {
            fields(&schema[part], &format!("{path}{mark}"), into);
        }
    }
}

fn schema(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Every field of the version before is one of this version, with the same type, and what was applied can be applied again.
pub fn of_before_are_accepted(folder: &Path, places: &[&Place]) {
    let mut seen = 0;
    for file in yaml_files(&folder.join("deploy/crds")) {
        for before in documents(&file) {
            let name = before["metadata"]["name"].as_str().unwrap();
            let now = places[0].get(&format!("crd/{name}"));
            let (mut old, mut new) = (Vec::new(), Vec::new());
            fields(schema(&before), name, &mut old);
            fields(schema(&now), name, &mut new);
            for field in &old {
                assert!(new.contains(field), "{field:?} is not accepted any more");
            }
            seen += old.len();
        }
    }
    assert!(seen > 300, "only {seen} fields were found");

    // What is in the cluster is a manifest of before too: it was written then, with all that was set by default.
    for place in places {
        let names = place.kubectl(&["get", "rr,rb,grp", "-o", "name"]).unwrap();
        for name in names.lines() {
            let object = place.get(name);
            let manifest = json!({ "apiVersion": object["apiVersion"], "kind": object["kind"], "spec": object["spec"],
                                   "metadata": { "name": object["metadata"]["name"] } });
            server_side(place, &manifest, &[]);
            assert_eq!(place.get(name)["spec"], object["spec"], "{name}");
        }
    }
    examples(folder, places[0]);
}

/// What the version before has shown to people is taken as well.
fn examples(folder: &Path, place: &Place) {
    let ours = |document: &Value| document["apiVersion"] == "backup.resticbackup.io/v1alpha1";
    let files = yaml_files(&folder.join("deploy/examples"));
    let all: Vec<Value> = files
        .iter()
        .flat_map(|file| documents(file))
        .filter(ours)
        .collect();
    assert!(all.len() > 5, "only {} examples were found", all.len());
    for mut document in all {
        // The namespaces that they name are not there.
        document["metadata"]["namespace"] = json!(place.namespace);
        server_side(place, &document, &["--dry-run=server"]);
    }
}

/// Applies a manifest, in which nothing may be unknown.
fn server_side(place: &Place, manifest: &Value, more: &[&str]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest.to_string()).unwrap();
    let path = file.path().to_string_lossy();
    let apply = ["apply", "--server-side", "--force-conflicts", "--validate=strict"];
    let arguments = [&apply[..], &["--field-manager=person", "-f", &path], more].concat();
    place.kubectl(&arguments).unwrap();
}
