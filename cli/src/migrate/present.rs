//! What is there already under the name of an object that a migration makes. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::plan::{FROM, IN_PART, SOURCE};
use super::render::name;
use crate::objects::{list, text};

/// Rules that a policy takes.
const MOST: usize = 64;

/// Why an object must not be changed to that of a migration; `None` where the same migration has made it, of the same.
#[must_use]
pub fn refusal(present: &Value, object: &Value) -> Option<String> {
    let delete = "rename or delete it first".to_owned();
    let (why, advice) = match (from(present), from(object)) {
        (None, _) => ("no migration has made it".to_owned(), delete),
        (Some(theirs), Some(ours)) if theirs == ours => match other_sources(present, object) {
            Some(found) => found,
            None => (other_place(present, object)?, delete),
        },
        (Some(theirs), _) => (format!("a migration from {theirs} has made it"), delete),
    };
    Some(format!("{} is there already, and {why}; {advice}", name(object)))
}

/// What the same tool's migration has made it of, where that is something else, and what to do.
fn other_sources(present: &Value, object: &Value) -> Option<(String, String)> {
    let (theirs, ours) = (sources(present), sources(object));
    if theirs == ours {
        return None;
    }
    let list = |sources: &BTreeSet<&str>| match sources.is_empty() {
        true => "nothing that it names".to_owned(),
        false => sources.iter().copied().collect::<Vec<_>>().join(", "),
    };
    if is_shared(present, object) {
        let many = rules(object).len() + lost(present, object).len() > MOST;
        return many.then(|| {
            let why = format!(
                "with those of {} it would have more than {MOST} rules",
                list(&ours)
            );
            (why, "write a policy for them by hand".to_owned())
        });
    }
    let why = format!("it was made of {}, and not of {}", list(&theirs), list(&ours));
    let advice = match text(object, "/kind") {
        "ResticBackup" => format!(
            "keep it if it backs up the same, and leave {} out (-n narrows)",
            list(&ours)
        ),
        _ => "rename or delete it first".to_owned(),
    };
    Some((why, advice))
}

/// Whether it is of several sources, of which some were added or are not migrated any more.
fn is_shared(present: &Value, object: &Value) -> bool {
    let repository = "/spec/repositoryRef";
    let common = !sources(present).is_disjoint(&sources(object));
    common
        && match text(object, "/kind") {
            "ResticRepository" | "Secret" => true,
            "GlobalRetentionPolicy" => present.pointer(repository) == object.pointer(repository),
            _ => false,
        }
}

fn other_place(present: &Value, object: &Value) -> Option<String> {
    let [theirs, ours] = [present, object].map(|one| text(one, "/spec/repositoryURL"));
    (theirs != ours).then(|| format!("its repositoryURL is not {ours}"))
}

/// Keeps what was changed since, and what belongs to sources that are not migrated now. A sentence for each thing that is
/// not as the migration would write it.
pub fn keep(present: &Value, object: &mut Value) -> Vec<String> {
    let mut said: Vec<String> = keep_suspend(present, object).into_iter().collect();
    if sources(present) != sources(object) {
        keep_sources(present, object);
        let lost = lost(present, object);
        if let Some(rules) = object.pointer_mut("/spec/policies").and_then(Value::as_array_mut)
            && !lost.is_empty()
        {
            rules.extend(lost);
            said.push(format!(
                "{} keeps rules of what is not migrated now",
                name(object)
            ));
        }
    }
    // A check that nobody carries out is missed by nobody.
    if let Some(check) = present.pointer("/spec/integrityCheck")
        && object.pointer("/spec/integrityCheck").is_none()
    {
        object["spec"]["integrityCheck"] = check.clone();
        said.push(format!("{} keeps its integrityCheck", name(object)));
    }
    said
}

/// Keeps `suspend` as it is: what was resumed since goes on. A sentence where that is not what the migration would write.
fn keep_suspend(present: &Value, object: &mut Value) -> Option<String> {
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

/// Names the sources of before as well: `finish` asks for all of them.
fn keep_sources(present: &Value, object: &mut Value) {
    for annotation in [SOURCE, IN_PART] {
        let known = sources(object);
        let before = listed(present, annotation).filter(|source| !known.contains(source));
        let all: BTreeSet<&str> = before.chain(listed(object, annotation)).collect();
        if !all.is_empty() {
            let all = all.into_iter().collect::<Vec<_>>().join(",");
            object["metadata"]["annotations"][annotation] = Value::String(all);
        }
    }
}

/// Rules of what is there that a migration would not write.
fn lost(present: &Value, object: &Value) -> Vec<Value> {
    let rules_of = rules(object);
    let there = rules(present).iter();
    there.filter(|rule| !rules_of.contains(rule)).cloned().collect()
}

fn rules(policy: &Value) -> &[Value] {
    list(policy, "/spec/policies")
}

fn from(object: &Value) -> Option<&str> {
    let labels = object.pointer("/metadata/labels")?;
    labels.get(FROM)?.as_str()
}

/// What it takes the place of, whole or in part.
fn sources(object: &Value) -> BTreeSet<&str> {
    let all = [SOURCE, IN_PART].map(|annotation| listed(object, annotation));
    all.into_iter().flatten().collect()
}

fn listed<'a>(object: &'a Value, annotation: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let annotations = object.pointer("/metadata/annotations");
    let value = annotations.and_then(|all| all.get(annotation));
    let value = value.and_then(Value::as_str).unwrap_or_default();
    value.split(',').filter(|source| !source.is_empty())
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
                made("cron", "cronjobs.batch/shop/c"),
                "it was made of cronjobs.batch/shop/c, and not of cronjobs.batch/shop/a, cronjobs.batch/shop/b",
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
    fn a_repository_whose_sources_grow_or_shrink_keeps_what_it_has() {
        let mut present = made("cron", "cronjobs.batch/shop/a,cronjobs.batch/shop/b");
        present["spec"]["integrityCheck"] = json!({ "enabled": true, "schedule": "@weekly" });
        let mut object = made("cron", "cronjobs.batch/shop/b,cronjobs.batch/shop/c");
        assert_eq!(refusal(&present, &object), None);
        let said = keep(&present, &mut object);
        assert_eq!(
            object["metadata"]["annotations"][SOURCE],
            "cronjobs.batch/shop/a,cronjobs.batch/shop/b,cronjobs.batch/shop/c"
        );
        assert_eq!(
            object["spec"]["integrityCheck"],
            present["spec"]["integrityCheck"]
        );
        assert_eq!(said, ["ResticRepository shop/nas keeps its integrityCheck"]);
        // A check that the migration makes is that of the other tool now.
        object["spec"]["integrityCheck"]["schedule"] = json!("@daily");
        assert!(keep(&present, &mut object).is_empty());
        assert_eq!(object["spec"]["integrityCheck"]["schedule"], "@daily");
    }

    #[test]
    fn a_source_that_is_in_part_now_is_not_whole_as_well() {
        let present = made("cron", "cronjobs.batch/shop/a,cronjobs.batch/shop/b");
        let mut object = made("cron", "cronjobs.batch/shop/c");
        object["metadata"]["annotations"][IN_PART] = json!("cronjobs.batch/shop/a");
        keep(&present, &mut object);
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations[SOURCE], "cronjobs.batch/shop/b,cronjobs.batch/shop/c");
        assert_eq!(annotations[IN_PART], "cronjobs.batch/shop/a");
    }

    #[test]
    fn a_policy_loses_no_rule_of_a_source_that_is_not_migrated_now() {
        let policy = |sources: &str, hosts: &[&str]| {
            let rules: Vec<Value> = hosts
                .iter()
                .map(|host| json!({ "selector": { "hostname": host } }))
                .collect();
            let mut policy = made("cron", sources);
            policy["kind"] = json!("GlobalRetentionPolicy");
            policy["spec"] =
                json!({ "repositoryRef": { "name": "nas" }, "policies": rules, "suspend": true });
            policy
        };
        let present = policy("cronjobs.batch/shop/a,cronjobs.batch/shop/b", &["a", "b"]);
        let mut object = policy("cronjobs.batch/shop/b,cronjobs.batch/shop/c", &["b", "c"]);
        assert_eq!(refusal(&present, &object), None);
        let said = keep(&present, &mut object);
        assert_eq!(
            object["spec"]["policies"],
            policy("", &["b", "c", "a"])["spec"]["policies"]
        );
        assert_eq!(
            said,
            ["GlobalRetentionPolicy shop/nas keeps rules of what is not migrated now"]
        );
        // Of the same sources it is as it is planned.
        let mut object = policy("cronjobs.batch/shop/a,cronjobs.batch/shop/b", &["b"]);
        assert!(keep(&present, &mut object).is_empty());
        assert_eq!(object["spec"]["policies"], policy("", &["b"])["spec"]["policies"]);
        let mut elsewhere = policy("cronjobs.batch/shop/b", &["b"]);
        elsewhere["spec"]["repositoryRef"]["name"] = json!("other");
        assert!(refusal(&present, &elsewhere).is_some_and(|why| why.contains("it was made of")));
        let hosts: Vec<String> = (0..64).map(|number| format!("h{number}")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let many = policy("cronjobs.batch/shop/b", &hosts);
        assert!(refusal(&present, &many).is_some_and(|why| why.contains("64 rules")));
    }

    #[test]
    fn nobody_is_told_to_delete_a_backup_that_works() {
        let backup = |source: &str| {
            let mut backup = made("k8up", source);
            backup["kind"] = json!("ResticBackup");
            backup["spec"] = json!({});
            backup
        };
        let present = backup("schedules.k8up.io/shop/nightly");
        let said = refusal(&present, &backup("backups.k8up.io/shop/by-hand")).unwrap_or_default();
        assert!(
            said.ends_with(
                "keep it if it backs up the same, and leave backups.k8up.io/shop/by-hand out (-n narrows)"
            ),
            "{said}"
        );
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
            assert_eq!(
                keep(&object(is), &mut object_of),
                said.into_iter().collect::<Vec<_>>()
            );
            assert_eq!(object_of["spec"]["suspend"], is);
        }
        let mut repository = made("cron", "");
        assert!(keep(&made("cron", ""), &mut repository).is_empty());
        assert!(repository["spec"].get("suspend").is_none());
    }
}
