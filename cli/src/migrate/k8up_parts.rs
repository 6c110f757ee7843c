//! Parts of a k8up Schedule (`backup`, `prune`, `check`, `archive`): with the defaults of the Schedule, and as they were
//! before `finish` took them out. Pure.

use serde_json::{Map, Value, json};

/// Annotation of a Schedule: the parts that `finish` took out of it, as JSON, so that they can be put back.
pub const SUSPENDED: &str = "fleet.resticbackup.io/suspended-parts";
/// Parts that run by a schedule and are taken out. k8up has nothing by which a Schedule could be suspended.
pub const PARTS: [&str; 4] = ["backup", "prune", "check", "archive"];

/// A part of a Schedule that is there.
#[must_use]
pub fn part<'a>(schedule: &'a Value, name: &str) -> Option<&'a Value> {
    let part = schedule.pointer("/spec")?.get(name)?;
    part.is_object().then_some(part)
}

/// What `finish` took out of a Schedule.
///
/// # Errors
/// The annotation is there and cannot be read: nobody knows then what the Schedule was.
pub fn suspended(schedule: &Value) -> Result<Map<String, Value>, String> {
    let annotations = schedule.pointer("/metadata/annotations");
    let Some(kept) = annotations.and_then(|all| all.get(SUSPENDED)) else {
        return Ok(Map::new());
    };
    let kept = kept.as_str().and_then(|kept| serde_json::from_str(kept).ok());
    kept.ok_or_else(|| format!("its annotation {SUSPENDED} cannot be read: correct or remove it"))
}

/// A Schedule as it was before `finish`: ours takes the place of the same parts, however often it is planned.
///
/// # Errors
/// As [`suspended`].
pub fn before_finish(schedule: &Value) -> Result<Value, String> {
    let kept = suspended(schedule)?;
    let mut schedule = schedule.clone();
    for (name, kept) in kept.iter().filter(|(name, _)| PARTS.contains(&name.as_str())) {
        // What a person has written since counts.
        if part(&schedule, name).is_none() {
            schedule["spec"][name] = kept.clone();
        }
    }
    Ok(schedule)
}

/// A field of a part over the default of its Schedule, field by field, as k8up merges them for each run.
#[must_use]
pub fn over(part: Option<&Value>, default: Option<&Value>) -> Value {
    match (part, default) {
        (Some(Value::Object(part)), Some(Value::Object(default))) => {
            let names = part.keys().chain(default.keys());
            let all = names.map(|name| (name.clone(), over(part.get(name), default.get(name))));
            Value::Object(all.collect())
        }
        (Some(part), Some(default)) if is_empty(part) => default.clone(),
        (Some(part), _) => part.clone(),
        (None, default) => default.cloned().unwrap_or_default(),
    }
}

fn is_empty(value: &Value) -> bool {
    [json!(null), json!(""), json!(false), json!([]), json!({})].contains(value)
}

#[cfg(test)]
#[path = "k8up_parts_tests.rs"]
mod tests;
