//! Server-side apply: which manager owns which field. Lists are atomic unless their items have a key.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Lists whose items are identified by a field.
const KEYED: [(&str, &str); 9] = [
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Fields that nobody owns.
const UNOWNED: [&str; 9] = [
    "/apiVersion",
    "/kind",
    "/metadata/creationTimestamp",
    "/metadata/generation",
    "/metadata/managedFields",
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/resourceVersion",
    "/metadata/uid",
];

/// Steps from the object to a field: a name, or `key=value` of a list item.
pub type Path = Vec<String>;

/// Fields by manager. One that writes a sub-resource is another manager.
pub type Owners = BTreeMap<String, BTreeSet<Path>>;

/// Applies `body` for `manager`. Fields that it applied before and no longer names are removed unless others own them.
///
/// # Errors
/// Managers and fields in conflict, unless `force`.
pub fn apply(
    live: &Value,
    body: &Value,
    owners: &mut Owners,
    manager: &str,
    force: bool,
) -> Result<Value, Vec<String>> {
    let mut body = body.clone();
    strip_nulls(&mut body);
    let wanted = leaves(&body);
    let conflicts: Vec<(String, Path)> = owners
        .iter()
        .filter(|(other, _)| *other != manager)
        .flat_map(|(other, paths)| paths.iter().map(move |path| (other, path)))
        .filter(|(_, path)| wanted.contains(*path) && at(live, path) != at(&body, path))
        .map(|(other, path)| (other.clone(), path.clone()))
        .collect();
    if !force && !conflicts.is_empty() {
        let text = |(other, path): (String, Path)| format!("conflict with \"{other}\": .{}", path.join("."));
        return Err(conflicts.into_iter().map(text).collect());
    }
    for (other, path) in conflicts {
        if let Some(paths) = owners.get_mut(&other) {
            paths.remove(&path);
        }
    }
    let before = owners.insert(manager.to_owned(), wanted).unwrap_or_default();
    let mut next = live.clone();
    let kept: BTreeSet<&Path> = owners.values().flatten().collect();
    for path in before.iter().filter(|path| !kept.contains(path)) {
        remove(&mut next, path, 0, &kept);
    }
    merge(&mut next, &body, "");
    owners.retain(|_, paths| !paths.is_empty());
    Ok(next)
}

/// Records that `manager` has made `old` into `new` by another way than apply: what changed is its own.
pub fn updated(old: &Value, new: &Value, owners: &mut Owners, manager: &str) {
    let (before, after) = (leaves(old), leaves(new));
    let changed: BTreeSet<Path> = after
        .iter()
        .filter(|path| !before.contains(*path) || at(old, path) != at(new, path))
        .cloned()
        .collect();
    for paths in owners.values_mut() {
        paths.retain(|path| after.contains(path) && !changed.contains(path));
    }
    owners.entry(manager.to_owned()).or_default().extend(changed);
    owners.retain(|_, paths| !paths.is_empty());
}

/// Removes nulls, which mean the same as absent fields.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn key_of(list: &str) -> Option<&'static str> {
    KEYED.iter().find(|(name, _)| *name == list).map(|(_, key)| *key)
}

/// Step to an item of a keyed list.
fn step(key: &str, item: &Value) -> String {
    format!("{key}={}", item[key].as_str().unwrap_or_default())
}

/// Paths of everything that can be owned.
fn leaves(value: &Value) -> BTreeSet<Path> {
    fn walk(value: &Value, path: &mut Path, name: &str, found: &mut BTreeSet<Path>) {
        let text = format!("/{}", path.join("/"));
        if UNOWNED.contains(&text.as_str()) {
            return;
        }
        match (value, key_of(name)) {
            (Value::Object(map), _) if !map.is_empty() => {
                for (name, value) in map {
                    path.push(name.clone());
                    walk(value, path, name, found);
                    path.pop();
                }
            }
            (Value::Array(items), Some(key)) if !items.is_empty() => {
                for item in items {
                    path.push(step(key, item));
                    walk(item, path, "", found);
                    path.pop();
                }
            }
            _ => {
                found.insert(path.clone());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(value, &mut Vec::new(), "", &mut found);
    found
}

/// The child that a step leads to.
fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Array(items) => items.iter().find(|item| is_item(item, step)),
        other => other.get(step),
    }
}

fn is_item(item: &Value, step: &str) -> bool {
    step.split_once('=')
        .is_some_and(|(key, value)| item[key] == value)
}

fn at<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| child(value, step))
}

/// Removes a field, and every parent that is empty then and that nobody owns. The key of a list item goes with the item.
fn remove(value: &mut Value, path: &[String], depth: usize, kept: &BTreeSet<&Path>) {
    let Some(step) = path.get(depth) else {
        return;
    };
    let is_leaf = depth + 1 == path.len();
    let is_key = |parent: &String| parent.split_once('=').is_some_and(|(key, _)| key == step);
    if is_leaf && depth > 0 && is_key(&path[depth - 1]) {
        return;
    }
    let inner = match &mut *value {
        Value::Array(items) => items.iter_mut().find(|item| is_item(item, step)),
        Value::Object(map) => map.get_mut(step),
        _ => None,
    };
    let Some(inner) = inner else {
        return;
    };
    remove(inner, path, depth + 1, kept);
    let owned = kept
        .iter()
        .any(|path_kept| path_kept.starts_with(&path[..=depth]));
    if owned || !(is_leaf || is_bare(inner, step)) {
        return;
    }
    match value {
        Value::Object(map) => {
            map.remove(step);
        }
        Value::Array(items) => items.retain(|item| !is_item(item, step)),
        _ => {}
    }
}

/// Nothing is left, or of a list item nothing but its key.
fn is_bare(value: &Value, step: &str) -> bool {
    match value {
        Value::Object(map) => map
            .keys()
            .all(|name| step.split_once('=').is_some_and(|(key, _)| key == name)),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn merge(live: &mut Value, body: &Value, name: &str) {
    match (body, key_of(name)) {
        (Value::Object(fields), _) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            for (name, field) in fields {
                merge(&mut live[name.as_str()], field, name);
            }
        }
        (Value::Array(items), Some(key)) => {
            if !live.is_array() {
                *live = json!([]);
            }
            for item in items {
                let step = step(key, item);
                let present = live.as_array_mut().into_iter().flatten();
                match present.into_iter().find(|live| is_item(live, &step)) {
                    Some(live) => merge(live, item, ""),
                    None => {
                        live.as_array_mut()
                            .into_iter()
                            .for_each(|items| items.push(item.clone()));
                    }
                }
            }
        }
        _ => live.clone_from(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_no_longer_applied_is_removed_unless_another_manager_owns_it() {
        let mut owners = Owners::new();
        let first = json!({ "spec": { "a": 1, "b": 2, "env": [{ "name": "x", "value": "1" }, { "name": "y", "value": "2" }] } });
        let live = apply(&json!({}), &first, &mut owners, "one", false).unwrap();
        assert_eq!(live, first);
        let both = apply(&live, &json!({ "spec": { "b": 2 } }), &mut owners, "two", false).unwrap();
        let less = json!({ "spec": { "env": [{ "name": "y", "value": "3" }] } });
        let live = apply(&both, &less, &mut owners, "one", false).unwrap();
        assert_eq!(
            live,
            json!({ "spec": { "b": 2, "env": [{ "name": "y", "value": "3" }] } })
        );
    }

    #[test]
    fn a_value_of_another_manager_is_a_conflict_and_force_takes_it() {
        let mut owners = Owners::new();
        let live = apply(
            &json!({}),
            &json!({ "spec": { "a": 1 } }),
            &mut owners,
            "one",
            false,
        )
        .unwrap();
        let other = json!({ "spec": { "a": 2 } });
        assert_eq!(
            apply(&live, &other, &mut owners, "two", false),
            Err(vec!["conflict with \"one\": .spec.a".to_owned()])
        );
        let live = apply(&live, &other, &mut owners, "two", true).unwrap();
        assert_eq!(live, other);
        // No longer the first one's: leaving it out removes nothing.
        let live = apply(&live, &json!({ "spec": { "c": 1 } }), &mut owners, "one", false).unwrap();
        assert_eq!(live, json!({ "spec": { "a": 2, "c": 1 } }));
    }

    #[test]
    fn an_update_takes_what_it_changes() {
        let mut owners = Owners::new();
        let live = apply(
            &json!({}),
            &json!({ "spec": { "a": 1, "b": 1 } }),
            &mut owners,
            "one",
            false,
        )
        .unwrap();
        let edited = json!({ "spec": { "a": 2, "b": 1 } });
        updated(&live, &edited, &mut owners, "kubectl-edit");
        assert!(apply(&edited, &json!({ "spec": { "a": 1 } }), &mut owners, "one", false).is_err());
    }
}
