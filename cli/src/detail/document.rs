//! An object as a document. Pure.

use proto::v1::{Condition, Relation, Resource, RunDay};
use serde_json::{Value, json};

use super::Found;
use crate::activity;
use crate::document::{API_VERSION, row, text};
use crate::text::rfc3339;

/// As JSON.
#[must_use]
pub fn document(found: &Found) -> Value {
    let answer = &found.answer;
    let of: Vec<Value> = answer.resources.iter().map(resource).collect();
    let relations: Vec<Value> = answer.relations.iter().map(relation).collect();
    let days: Vec<Value> = answer.days.iter().map(day).collect();
    let events: Vec<Value> = answer.events.iter().map(activity::document).collect();
    json!({
        "apiVersion": API_VERSION, "kind": "Object", "asOf": rfc3339(answer.as_of.as_ref()), "revision": answer.revision,
        "objectKind": found.kind(), "key": found.key, "object": answer.row.as_ref().map(row), "resources": of,
        "relations": relations, "relationsTotal": answer.related.max(answer.relations.len() as u64), "days": days, "events": events,
    })
}

fn resource(resource: &Resource) -> Value {
    let conditions: Vec<Value> = resource.conditions.iter().map(condition).collect();
    json!({
        "place": resource.place, "uid": text(&resource.uid), "generation": resource.generation,
        "created": rfc3339(resource.created.as_ref()), "conditions": conditions,
    })
}

/// As Kubernetes spells it.
pub fn condition(condition: &Condition) -> Value {
    json!({
        "type": condition.r#type, "status": condition.status, "reason": text(&condition.reason), "message": text(&condition.message),
        "lastTransitionTime": rfc3339(condition.last_transition.as_ref()),
    })
}

fn relation(relation: &Relation) -> Value {
    json!({ "what": relation.what, "key": relation.key, "name": text(&relation.name), "state": text(&relation.state) })
}

fn day(day: &RunDay) -> Value {
    json!({
        "day": rfc3339(day.day.as_ref()), "succeeded": day.succeeded, "partial": day.partial, "failed": day.failed,
        "bytesAdded": day.bytes_added,
    })
}
