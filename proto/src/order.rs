//! The order of a maintenance pod: a message as JSON in an annotation of its Job. Hub and spoke measure it alike.

use serde::Serialize;
use serde_json::Value;

/// Longest order in bytes. Kubernetes bounds all annotations of an object together to 256 KiB.
pub const ORDER_MAX: usize = 200 << 10;

/// Longest order in bytes of a run that a hub grants. Below [`ORDER_MAX`]: a spoke of another version may write the same
/// run a little longer, and must still be able to pass it on.
pub const RUN_MAX: usize = 192 << 10;

/// A message as its pod reads it: JSON without what is zero or empty.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn order_text(message: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(compact(serde_json::to_value(message)?).to_string())
}

fn compact(value: Value) -> Value {
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, compact(value)));
            Value::Object(fields.filter(|(_, value)| is_set(value)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(compact).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Baseline, RetentionPolicySpec, RetentionRule, RetentionRun};

    #[test]
    fn an_order_has_no_empty_fields_and_reads_as_it_was_meant() {
        let run = RetentionRun {
            policies: vec![RetentionPolicySpec {
                source: "a/ns/p".to_owned(),
                rules: vec![RetentionRule::default()],
                ..RetentionPolicySpec::default()
            }],
            baseline: vec![Baseline {
                key: "cluster/".to_owned(),
                left: 0,
            }],
            ..RetentionRun::default()
        };
        let text = order_text(&run).unwrap();
        assert_eq!(
            text,
            r#"{"baseline":[{"key":"cluster/"}],"policies":[{"rules":[{}],"source":"a/ns/p"}]}"#
        );
        assert_eq!(serde_json::from_str::<RetentionRun>(&text).unwrap(), run);
    }

    #[test]
    fn what_a_hub_passes_on_leaves_room_for_what_a_spoke_accepts() {
        const { assert!(RUN_MAX < ORDER_MAX) }
    }
}
