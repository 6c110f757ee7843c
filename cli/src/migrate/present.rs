//! What is there already under the name of an object that a migration makes. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::plan::{FROM, IN_PART, SOURCE};
use super::render::name;
use crate::objects::text;

/// Why an object must not be changed to that of a migration; `None` where the same migration has made it, of the same.
#[must_use]
pub fn refusal(present: &Value, object: &Value) -> Option<String> {
    let why = match (from(present), from(object)) {
        (None, _) => "no migration has made it".to_owned(),
        (Some(theirs), Some(ours)) if theirs == ours => different(present, object)?,
        (Some(theirs), _) => format!("a migration from {theirs} has made it"),
    };
    Some(format!(
        "{} is there already, and {why}; rename or delete it first",
        name(object)
    ))
}

/// What the same tool's migration has made it of, where that is something else.
fn different(present: &Value, object: &Value) -> Option<String> {
    let (theirs, ours) = (sources(present), sources(object));
    if theirs != ours {
        let list = |sources: &BTreeSet<&str>| match sources.is_empty() {
            true => "nothing that it names".to_owned(),
            false => sources.iter().copied().collect::<Vec<_>>().join(", "),
        };
        return Some(format!(
            "it was made of {}, and not of {}",
            list(&theirs),
            list(&ours)
        ));
    }
    let [theirs, ours] = [present, object].map(|one| text(one, "/spec/repositoryURL"));
    (theirs != ours).then(|| format!("its repositoryURL is not {ours}"))
}

/// Keeps `suspend` as it is: what was resumed since goes on. A sentence where that is not what the migration would write.
#[must_use]
pub fn keep_suspend(present: &Value, object: &mut Value) -> Option<String> {
    let is = present.pointer("/spec/suspend")?;
    let is_other = object.pointer("/spec/suspend") != Some(is);
    object["spec"]["suspend"] = is.clone();
    let state = if is == true {
        "stays suspended"
    } else {
        "goes on: it was resumed"
    };
    is_other.then(|| format!("{} {state}", name(object)))
}

fn from(object: &Value) -> Option<&str> {
    let labels = object.pointer("/metadata/labels")?;
    labels.get(FROM)?.as_str()
}

/// What it takes the place of, whole or in part.
fn sources(object: &Value) -> BTreeSet<&str> {
    let annotations = object.pointer("/metadata/annotations");
    let listed = [SOURCE, IN_PART].map(|name| {
        let value = annotations.and_then(|all| all.get(name));
        value.and_then(Value::as_str).unwrap_or_default()
    });
    let all = listed.into_iter().flat_map(|list| list.split(','));
    all.filter(|source| !source.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(from: &str, source: &str) -> Value {
        json!({
            "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "labels": { FROM: from }, "annotations": { SOURCE: source } },
            "spec": { "repositoryURL": "s3:x/y" },
        })
    }

    #[test]
    fn only_the_migration_that_made_an_object_changes_it() {
        let object = made("cron", "cronjobs.batch/shop/a,cronjobs.batch/shop/b");
        assert_eq!(refusal(&object, &object), None);
        let mut in_part = made("cron", "cronjobs.batch/shop/b");
        in_part["metadata"]["annotations"][IN_PART] = json!("cronjobs.batch/shop/a");
        assert_eq!(refusal(&in_part, &object), None, "of the same");
        let mut elsewhere = object.clone();
        elsewhere["spec"]["repositoryURL"] = json!("s3:x/z");
        for (present, why) in [
            (
                json!({ "kind": "ResticRepository", "metadata": {} }),
                "no migration has made it",
            ),
            (
                made("k8up", "cronjobs.batch/shop/a,cronjobs.batch/shop/b"),
                "a migration from k8up has made it",
            ),
            (
                made("cron", "cronjobs.batch/shop/a"),
                "it was made of cronjobs.batch/shop/a, and not of cronjobs.batch/shop/a, cronjobs.batch/shop/b",
            ),
            (elsewhere, "its repositoryURL is not s3:x/y"),
        ] {
            let said = refusal(&present, &object).unwrap_or_default();
            assert!(
                said.contains("ResticRepository shop/nas is there already") && said.contains(why),
                "{said:?}"
            );
        }
    }

    #[test]
    fn what_was_resumed_since_goes_on_and_that_is_said() {
        let object = |suspend: bool| json!({ "kind": "ResticBackup", "metadata": { "name": "db", "namespace": "shop" }, "spec": { "suspend": suspend } });
        for (is, planned, said) in [
            (false, true, Some("ResticBackup shop/db goes on: it was resumed")),
            (true, false, Some("ResticBackup shop/db stays suspended")),
            (true, true, None),
        ] {
            let mut object_of = object(planned);
            assert_eq!(keep_suspend(&object(is), &mut object_of).as_deref(), said);
            assert_eq!(object_of["spec"]["suspend"], is);
        }
        let mut repository = made("cron", "");
        assert_eq!(keep_suspend(&made("cron", ""), &mut repository), None);
        assert!(repository["spec"].get("suspend").is_none());
    }
}
