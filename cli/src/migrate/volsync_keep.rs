//! What VolSync keeps of a source, as ours writes it. Pure.

use serde_json::{Map, Value, json};

use super::keep;
use super::plan::Plan;
use super::volsync::describe;

const KEEPS: [(&str, &str); 5] = [
    ("hourly", "keepHourly"),
    ("daily", "keepDaily"),
    ("weekly", "keepWeekly"),
    ("monthly", "keepMonthly"),
    ("yearly", "keepYearly"),
];

/// What VolSync keeps of a source; `None` where that is not certain.
pub(super) fn retained(plan: &mut Plan, source: &Value) -> Option<Map<String, Value>> {
    let about = describe(source);
    let theirs = source.pointer("/spec/restic/retain").cloned().unwrap_or_default();
    let mut ours = keep::counts(&theirs, &KEEPS);
    let mut unclear: Vec<String> = KEEPS
        .iter()
        .filter_map(|(name, _)| Some((name, theirs.get(*name).filter(|count| !count.is_null())?)))
        // A count below 0 keeps everything.
        .filter(|(_, count)| count.as_u64().is_none())
        .map(|(name, count)| format!("retain.{name} {count}"))
        .collect();
    if let Some(last) = theirs.get("last").filter(|last| !last.is_null()) {
        // Newer versions write it as a text.
        match last.as_u64().or_else(|| last.as_str()?.parse().ok()) {
            Some(last) => ours.extend((last > 0).then(|| ("keepLast".to_owned(), json!(last)))),
            None => unclear.push(format!("retain.last {last}")),
        }
    }
    if let Some(within) = theirs.get("within").and_then(Value::as_str) {
        match keep::span(within) {
            Some(span) => drop(ours.insert("keepWithin".to_owned(), json!(span))),
            None => unclear.push(format!("retain.within {within:?}")),
        }
    }
    if !unclear.is_empty() {
        let text = format!(
            "{} cannot be written as a rule of ours: no rule is made, write one by hand",
            unclear.join(", ")
        );
        plan.note(&about, text);
        return None;
    }
    if ours.is_empty() {
        plan.note(
            &about,
            "it has no retain, by which VolSync keeps the last snapshot only: so does the policy",
        );
        ours.insert("keepLast".to_owned(), json!(1));
    }
    Some(ours)
}
