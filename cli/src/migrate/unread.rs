//! Fields of another tool's object that a migration does not read: what is set there must be named, and not lost. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// Paths of the fields that are set in `object` and that `known` does not cover, sorted. A known path covers all that lies
/// below it: `retention` covers `retention.keepLast`. `items[].name` is field `name` in each item of a list. Null, an empty
/// text, an empty list and an empty object are not set; `false` and 0 are.
#[must_use]
pub fn unread(object: &Value, known: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(object, String::new(), known, &mut found);
    found
}

fn collect(value: &Value, path: String, known: &[&str], found: &mut BTreeSet<String>) {
    let is_known = known.iter().any(|one| *one == path);
    if !is_set(value) || is_known {
        return;
    }
    let below = |mark: &str| {
        let start = format!("{path}{mark}");
        path.is_empty() || known.iter().any(|one| one.starts_with(&start))
    };
    match value {
        Value::Object(fields) if below(".") => {
            for (name, value) in fields {
                let path = match path.as_str() {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                collect(value, path, known, found);
            }
        }
        Value::Array(items) if below("[]") => {
            for item in items {
                collect(item, format!("{path}[]"), known, found);
            }
        }
        _ => {
            found.insert(path);
        }
    }
}

/// Whether a value says something.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => fields.values().any(is_set),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(object: Value, known: &[&str]) -> Vec<String> {
        unread(&object, known).into_iter().collect()
    }

    #[test]
    fn what_is_set_and_not_known_is_named_where_it_begins() {
        let object = json!({
            "schedule": "@daily", "resources": {}, "statsURL": "", "hosts": [], "old": null, "limits": { "cpu": null },
            "retention": { "keepLast": 1, "tags": ["a"] }, "promURL": "http://x", "keepJobs": 0, "wait": false,
            "podConfig": { "spec": { "nodeName": "a" } },
        });
        assert_eq!(
            of(object, &["schedule", "retention.keepLast"]),
            ["keepJobs", "podConfig", "promURL", "retention.tags", "wait"]
        );
    }

    #[test]
    fn a_known_path_covers_what_is_below_it_and_not_what_begins_alike() {
        let object = json!({ "backup": { "tags": ["a"], "more": 1 }, "backupAll": true });
        assert_eq!(of(object.clone(), &["backup"]), ["backupAll"]);
        assert_eq!(of(object, &["backup.tags"]), ["backup.more", "backupAll"]);
    }

    #[test]
    fn items_of_a_list_are_read_one_by_one() {
        let object =
            json!({ "containers": [{ "image": "a" }, { "image": "b", "tty": true }, { "tty": true }] });
        assert_eq!(of(object.clone(), &["containers[].image"]), ["containers[].tty"]);
        assert_eq!(of(object.clone(), &["containers"]), [""; 0]);
        assert_eq!(of(object, &[]), ["containers"]);
    }
}
