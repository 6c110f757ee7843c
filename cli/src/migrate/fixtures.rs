//! What the tests of migrations share.
#![allow(clippy::unwrap_used)]

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository};
use serde_json::{Value, json};

use super::plan::Plan;
use super::secret::Secrets;

/// Objects of a kind.
pub fn of_kind<'a>(plan: &'a Plan, kind: &str) -> Vec<&'a Value> {
    plan.objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

/// A Secret as it is read.
pub fn secret(namespace: &str, name: &str, values: &[(&str, &str)]) -> Secrets {
    let values = values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Secrets::from([((namespace.to_owned(), name.to_owned()), values.collect())])
}

/// Each object has only fields that its kind has: what is read back is what was written.
pub fn valid(plan: &Plan) {
    for object in &plan.objects {
        let read = match object["kind"].as_str().unwrap() {
            "ResticRepository" => same::<ResticRepository>(object),
            "ResticBackup" => same::<ResticBackup>(object),
            "GlobalRetentionPolicy" => same::<GlobalRetentionPolicy>(object),
            other => panic!("{other}"),
        };
        covers(object, &read, "");
    }
}

fn same<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
    let read: K = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{e}: {object:#}"));
    serde_json::to_value(read).unwrap()
}

/// What was written is in what was read; defaults may be there beside it.
fn covers(written: &Value, read: &Value, at: &str) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (name, value) in written {
                let at = format!("{at}/{name}");
                match read.get(name) {
                    Some(other) => covers(value, other, &at),
                    // Left out where it is the default.
                    None => assert!(
                        [json!(false), json!(null), json!({}), json!([])].contains(value),
                        "{at} is no field"
                    ),
                }
            }
        }
        _ => assert_eq!(written, read, "{at}"),
    }
}
