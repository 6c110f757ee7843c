//! What a write may change of an object. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::id::{Id, Part, Refusal};

/// A time as metadata has it.
pub fn seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}

pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    let meta = &mut object["metadata"];
    if !meta.is_object() {
        *meta = json!({});
    }
    match meta {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object"),
    }
}

pub fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty())
}

pub fn without_status(object: &Value) -> Value {
    let mut rest = object.clone();
    if let Some(map) = rest.as_object_mut() {
        map.remove("status");
        map.remove("metadata");
    }
    rest
}

/// uid and resourceVersion, where they are given, have to be the present ones.
pub fn preconditions(id: &Id, old: &Value, given: &Value) -> Result<(), Refusal> {
    for field in ["uid", "resourceVersion"] {
        let (given, present) = (&given[field], &old["metadata"][field]);
        if given.is_string() && given != "" && given != present {
            let message = format!(
                "Operation cannot be fulfilled on {} {:?}: {field} is {present}, not {given}",
                id.resource, id.name
            );
            return Err(Refusal::new(409, message));
        }
    }
    Ok(())
}

/// Puts back what this write may not change.
pub fn keep(old: &Value, next: &mut Value, part: Part) {
    if part == Part::Status {
        let status = next.get("status").cloned();
        next.clone_from(old);
        replace(next, "status", status);
        return;
    }
    if part == Part::Main {
        replace(next, "status", old.get("status").cloned());
    }
    let meta = metadata(next);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "generation",
        "resourceVersion",
    ] {
        match old["metadata"].get(field) {
            Some(value) => meta.insert(field.to_owned(), value.clone()),
            None => meta.remove(field),
        };
    }
}

fn replace(object: &mut Value, field: &str, value: Option<Value>) {
    if let Value::Object(map) = object {
        match value {
            Some(value) => map.insert(field.to_owned(), value),
            None => map.remove(field),
        };
    }
}

/// A Job that was started keeps its template.
pub fn immutable(id: &Id, old: &Value, next: &Value) -> Result<(), Refusal> {
    let template = |object: &Value| object["spec"]["template"].clone();
    if id.resource == "jobs" && old["status"]["startTime"].is_string() && template(old) != template(next) {
        return Err(Refusal::new(
            422,
            "spec.template: Invalid value: field is immutable",
        ));
    }
    Ok(())
}
