//! Schema helpers, and the CRDs as they are shipped.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};

/// An object of a core Kubernetes type whose schema is left out: inlined pod templates would make the CRDs
/// several megabytes large. The reconciler parses it and reports what does not fit.
pub fn schemaless(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// `core/v1` ResourceRequirements, with quantities as numbers or strings as the API server takes them.
pub fn resources(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "limits": { "type": "object", "additionalProperties": { "x-kubernetes-int-or-string": true } },
            "requests": { "type": "object", "additionalProperties": { "x-kubernetes-int-or-string": true } },
            "claims": { "type": "array", "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
        },
    })
}

/// A type's schema without the rules about it as a whole: those that contain it have their own.
pub fn without_validations<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    schema.remove("x-kubernetes-validations");
    schema
}

/// `metav1.Duration`, such as `90s` or `1h30m`.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$" })
}

/// A file name below `deploy/crds` and the definition in it, for each kind.
#[must_use]
pub fn definitions() -> Vec<(&'static str, Value)> {
    [
        ("resticrepositories.yaml", ResticRepository::crd()),
        ("resticbackups.yaml", ResticBackup::crd()),
        ("resticrestores.yaml", ResticRestore::crd()),
        ("globalretentionpolicies.yaml", GlobalRetentionPolicy::crd()),
    ]
    .into_iter()
    .map(|(file, crd)| (file, shipped(&crd)))
    .collect()
}

/// `nullable` is dropped so that the API server puts the default in the place of a `null`, and refuses one where there is
/// no default: what manifests written for a Go operator expect of an optional field.
fn shipped(crd: &CustomResourceDefinition) -> Value {
    let mut value = serde_json::to_value(crd).unwrap_or_default();
    drop_nullable(&mut value);
    drop_selectors_texts(&mut value);
    value
}

/// What Kubernetes says of each field of a LabelSelector is in its own documentation, and would be here a dozen times.
fn drop_selectors_texts(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.contains_key("matchExpressions") && map.contains_key("matchLabels") {
                map.values_mut().for_each(drop_texts);
            }
            map.values_mut().for_each(drop_selectors_texts);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_selectors_texts),
        _ => {}
    }
}

fn drop_texts(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("description");
    for part in ["items", "additionalProperties"] {
        map.get_mut(part).map(drop_texts);
    }
    let fields = map.get_mut("properties").and_then(Value::as_object_mut);
    fields
        .into_iter()
        .flat_map(|fields| fields.values_mut())
        .for_each(drop_texts);
}

fn drop_nullable(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
                if let Some(Value::Array(values)) = map.get_mut("enum") {
                    values.retain(|value| !value.is_null());
                }
            }
            map.values_mut().for_each(drop_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nullable),
        _ => {}
    }
}
