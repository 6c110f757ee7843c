//! A template as it was written, before it is read as a type: what that type does not know would be lost without a word.

use serde_json::Value;

/// Path of the first field that is given and is not in `known`.
pub(super) fn unknown(given: &Value, known: &Value) -> Option<String> {
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

/// Says nothing, so that it need not be known.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Quantities may be written as numbers.
pub(super) fn quantities_as_texts(mut value: Value) -> Value {
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
