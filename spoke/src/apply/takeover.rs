//! Whose the fields of an object are that another program made. Pure.
//!
//! Server-side apply only removes what the applying manager owns and does not name any more. Of a manifest that another
//! program wrote, everything that ours does not name would stay beside it: a variable that refers to a Secret of another
//! namespace, a volume, an fsGroup.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Map, Value};

const SPEC: &str = "f:spec";

/// The entries with `manager` as the only owner of the spec: the next apply by it removes what it does not name. Labels,
/// annotations and statuses stay with their owners. `None` if no other program owns any of the spec. What `manager` itself
/// has patched, the next apply sets.
pub(super) fn taken_over(manager: &str, entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    other_writer(manager, entries)?;
    let is_ours = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(manager)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
    };
    let (ours, others): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(is_ours);
    let mut spec = Value::Object(Map::new());
    let mut rest = Vec::new();
    let mut of = None;
    for mut entry in others {
        let fields = entry
            .fields_v1
            .as_mut()
            .and_then(|fields| fields.0.as_object_mut());
        let taken = fields.and_then(|fields| Some((fields.remove(SPEC)?, fields.is_empty())));
        let emptied = taken.as_ref().is_some_and(|(_, emptied)| *emptied);
        if let Some((taken, _)) = taken.filter(|_| entry.subresource.is_none()) {
            unite(&mut spec, taken);
            of = of.or(entry.api_version.clone());
        }
        if !emptied {
            rest.push(entry);
        }
    }
    let mut entry = ours.into_iter().next().unwrap_or_else(|| ManagedFieldsEntry {
        manager: Some(manager.to_owned()),
        operation: Some("Apply".to_owned()),
        fields_type: Some("FieldsV1".to_owned()),
        ..ManagedFieldsEntry::default()
    });
    entry.api_version = entry.api_version.or(Some(of?));
    let fields = &mut entry
        .fields_v1
        .get_or_insert_with(|| FieldsV1(Value::Object(Map::new())))
        .0;
    unite(
        fields,
        Value::Object([(SPEC.to_owned(), spec)].into_iter().collect()),
    );
    rest.push(entry);
    Some(rest)
}

/// The program beside `manager` that owns parts of the spec, and wrote them last.
pub(super) fn other_writer<'a>(manager: &str, entries: &'a [ManagedFieldsEntry]) -> Option<&'a str> {
    let owns = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        let of_spec = fields.is_some_and(|fields| fields.0.get(SPEC).is_some());
        of_spec && entry.subresource.is_none() && entry.manager.as_deref() != Some(manager)
    };
    let others = entries.iter().filter(owns);
    let last = others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    Some(last.manager.as_deref().unwrap_or("an unnamed program"))
}

/// Adds the fields of another set: a set is a tree of the names of its fields.
fn unite(set: &mut Value, other: Value) {
    let (Value::Object(set), Value::Object(other)) = (set, other) else {
        return;
    };
    for (name, below) in other {
        unite(
            set.entry(name).or_insert_with(|| Value::Object(Map::new())),
            below,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, subresource: Option<&str>, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            subresource: subresource.map(str::to_owned),
            api_version: Some("batch/v1".to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            time: None,
        }
    }

    #[test]
    fn what_others_own_of_the_spec_becomes_ours_and_the_rest_stays_with_them() {
        let original = entry(
            "manager",
            "Update",
            None,
            json!({ "f:metadata": { "f:labels": { "f:a": {} } }, "f:spec": { "f:schedule": {}, "f:t": { ".": {}, "f:fsGroup": {} } } }),
        );
        let person = entry(
            "kubectl-patch",
            "Update",
            None,
            json!({ "f:spec": { "f:suspend": {}, "f:t": { "f:x": {} } } }),
        );
        let status = entry(
            "kube-controller-manager",
            "Update",
            Some("status"),
            json!({ "f:status": { "f:active": {} } }),
        );
        let taken = taken_over("us", &[original, person, status.clone()]).unwrap();
        let left = entry(
            "manager",
            "Update",
            None,
            json!({ "f:metadata": { "f:labels": { "f:a": {} } } }),
        );
        let ours = entry(
            "us",
            "Apply",
            None,
            json!({ "f:spec": { "f:schedule": {}, "f:suspend": {}, "f:t": { ".": {}, "f:fsGroup": {}, "f:x": {} } } }),
        );
        assert_eq!(taken, [left, status, ours]);
        assert_eq!(taken_over("us", &taken), None, "nothing is left to take");
    }

    #[test]
    fn what_is_ours_already_stays_ours_beside_it() {
        let ours = entry(
            "us",
            "Apply",
            None,
            json!({ "f:metadata": { "f:labels": {} }, "f:spec": { "f:a": {} } }),
        );
        let suspended = entry("us", "Update", None, json!({ "f:spec": { "f:suspend": {} } }));
        let own = [ours, suspended];
        assert_eq!(
            taken_over("us", &own),
            None,
            "the next apply sets what was patched"
        );
        assert_eq!(other_writer("us", &own), None);
        let person = entry("kubectl-edit", "Update", None, json!({ "f:spec": { "f:b": {} } }));
        let [ours, suspended] = own;
        let all = [ours, suspended, person];
        assert_eq!(other_writer("us", &all), Some("kubectl-edit"));
        let fields =
            json!({ "f:metadata": { "f:labels": {} }, "f:spec": { "f:a": {}, "f:suspend": {}, "f:b": {} } });
        assert_eq!(
            taken_over("us", &all).unwrap(),
            [entry("us", "Apply", None, fields)]
        );
        assert_eq!(taken_over("us", &[]), None);
    }

    #[test]
    fn of_several_writers_the_last_one_is_named() {
        let at = |second| {
            let time = jiff::Timestamp::from_second(second).unwrap();
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time))
        };
        let of = |manager: &str, second| ManagedFieldsEntry {
            time: at(second),
            ..entry(manager, "Update", None, json!({ "f:spec": {} }))
        };
        let status = ManagedFieldsEntry {
            time: at(9),
            ..entry("kcm", "Update", Some("status"), json!({ "f:spec": {} }))
        };
        let entries = [of("a", 1), of("b", 3), of("c", 2), of("us", 9), status];
        assert_eq!(other_writer("us", &entries), Some("b"));
    }
}
