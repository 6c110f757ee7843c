//! Objects of Kubernetes as JSON: what is not there is empty, and never a panic.

use jiff::Timestamp;
use serde_json::Value;

/// Items of a list.
#[must_use]
pub fn items(list: &Value) -> &[Value] {
    list.get("items")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
}

/// A list at a JSON pointer; empty when there is none.
#[must_use]
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Text at a JSON pointer; empty when there is none.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number at a JSON pointer; 0 when there is none.
#[must_use]
pub fn count(object: &Value, pointer: &str) -> u64 {
    object
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

/// A switch at a JSON pointer; off when there is none.
#[must_use]
pub fn is_true(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// A time at a JSON pointer.
#[must_use]
pub fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// Namespace and name.
#[must_use]
pub fn at(object: &Value) -> (&str, &str) {
    (namespace(object), name(object))
}

/// `namespace/name`.
#[must_use]
pub fn place(object: &Value) -> String {
    format!("{}/{}", namespace(object), name(object))
}

/// A condition of a status.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|of| text(of, "/type") == kind)
}

/// A condition, when it is True.
#[must_use]
pub fn holds<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    condition(object, kind).filter(|of| text(of, "/status") == "True")
}

/// Why an object is not Ready; `None` when it is. What its operator has not looked at yet is not ready.
#[must_use]
pub fn unready(object: &Value) -> Option<String> {
    match condition(object, "Ready") {
        None => Some("its operator has not reported a Ready condition yet".to_owned()),
        Some(ready) if text(ready, "/status") != "True" => Some(said(ready)),
        Some(_) => None,
    }
}

/// `Reason: message`.
#[must_use]
pub fn said(condition: &Value) -> String {
    match (text(condition, "/reason"), text(condition, "/message")) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}
