//! A template as it was written. Reading it as a type drops the fields that the type does not know without an error.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::BadTemplate;

/// Reads a template. `field` is its place in the resource. Quantities may be numbers.
///
/// # Errors
/// It is none, or it has a field that Kubernetes does not know.
pub fn template(field: &str, value: &Value) -> Result<PodTemplateSpec, BadTemplate> {
    let value = quantities_as_texts(value.clone());
    let template: PodTemplateSpec = serde_json::from_value(value.clone())
        .map_err(|error| BadTemplate::Type(field.to_owned(), error.to_string()))?;
    let known = serde_json::to_value(&template).unwrap_or_default();
    match unknown(&value, &known) {
        Some(path) => Err(BadTemplate::Unknown(format!("{field}{path}"))),
        None => Ok(template),
    }
}

/// Path of the first field that is given and is not in `known`.
fn unknown(given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), known) => {
            given
                .iter()
                .filter(|(_, value)| !is_empty(value))
                .find_map(|(name, value)| match known.get(name) {
                    None => Some(format!(".{name}")),
                    Some(known) => unknown(value, known).map(|rest| format!(".{name}{rest}")),
                })
        }
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(n, (given, known))| unknown(given, known).map(|rest| format!("[{n}]{rest}"))),
        _ => None,
    }
}

/// An empty value of an unknown field means nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Quantities may be written as numbers.
fn quantities_as_texts(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                let quantities = matches!(name.as_str(), "limits" | "requests");
                if let (true, Value::Object(list)) = (quantities, &mut *value) {
                    for quantity in list.values_mut().filter(|q| q.is_number()) {
                        *quantity = Value::String(quantity.to_string());
                    }
                } else {
                    *value = quantities_as_texts(value.take());
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                *value = quantities_as_texts(value.take());
            }
        }
        _ => {}
    }
    value
}
