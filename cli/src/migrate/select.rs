//! Label selectors. Pure.

use serde_json::Value;

use crate::objects::{list, text};

/// Whether labels match a metav1.LabelSelector.
#[must_use]
pub fn matches(selector: &Value, labels: &Value) -> bool {
    let equal = selector.get("matchLabels").and_then(Value::as_object);
    let equal = equal.is_none_or(|wanted| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)));
    let holds = |expression: &Value| {
        let label = labels.get(text(expression, "/key"));
        let values = list(expression, "/values");
        match text(expression, "/operator") {
            "In" => label.is_some_and(|label| values.contains(label)),
            "NotIn" => label.is_none_or(|label| !values.contains(label)),
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            _ => false,
        }
    };
    equal && list(selector, "/matchExpressions").iter().all(holds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_matched_as_kubernetes_does() {
        let labels = json!({ "app": "shop", "tier": "db" });
        let expression = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        assert!(matches(&json!({}), &labels));
        assert!(matches(&json!({ "matchLabels": { "app": "shop" } }), &labels));
        assert!(!matches(&json!({ "matchLabels": { "app": "other" } }), &labels));
        assert!(matches(&expression("tier", "In", &["db", "web"]), &labels));
        assert!(!matches(&expression("tier", "NotIn", &["db"]), &labels));
        assert!(matches(&expression("none", "NotIn", &["db"]), &labels));
        assert!(!matches(&expression("app", "DoesNotExist", &[]), &labels));
        assert!(!matches(&expression("app", "Near", &[]), &labels));
    }
}
