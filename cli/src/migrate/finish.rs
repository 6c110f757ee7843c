//! The end of a migration: the other tool stops, our backups begin. Nothing stops before ours is ready, and retention is
//! started by a person only. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::plan::{FROM, IN_PART, Patch, SOURCE, at, list, text};
use super::{cron, k8up, original, volsync};
use crate::arguments::Tool;

/// Annotation of a k8up Schedule: the parts that were taken out of it, so that they can be put back.
const PARTS: &str = "fleet.resticbackup.io/suspended-parts";

/// As a person writes it for kubectl.
const RETENTION: &str = "globalretentionpolicy";

/// What there is.
#[derive(Debug, Default)]
pub struct Seen {
    /// Repositories, backups and policies of ours that the migration has made or suspended.
    pub repositories: Vec<Value>,
    pub backups: Vec<Value>,
    pub policies: Vec<Value>,
    /// The other tool's objects that are named as their sources, with namespace and name.
    pub theirs: Vec<Value>,
}

/// What is done, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Steps {
    /// Why it cannot be done yet.
    pub blocked: Vec<String>,
    pub patches: Vec<Patch>,
    pub notes: Vec<String>,
}

/// Works it out.
#[must_use]
pub fn steps(tool: Tool, seen: &Seen) -> Steps {
    let mut steps = Steps::default();
    for object in seen.repositories.iter().chain(&seen.backups) {
        steps.blocked.extend(not_ready(object));
    }
    for theirs in replaced(tool, seen, &mut steps.notes) {
        steps.patches.extend(stop(tool, theirs));
    }
    if tool == Tool::Velero {
        steps.notes.push(
            "Velero's schedules go on, since they back up Kubernetes objects too: set defaultVolumesToFsBackup: false in \
             them, or its pods read each volume as well"
                .to_owned(),
        );
    }
    let resumed = seen.backups.iter().filter(|backup| is_suspended(backup));
    steps
        .patches
        .extend(resumed.map(|backup| resume(backup, "resticbackups")));
    for policy in seen.policies.iter().filter(|policy| is_suspended(policy)) {
        if tool == Tool::Original {
            steps.patches.extend(regrouped(policy));
        }
        steps.notes.push(look_and_resume(policy));
    }
    steps
}

/// Resource, namespace and name of something of the other tool.
pub type Named<'a> = (&'a str, &'a str, &'a str);

/// What an object of ours takes the place of.
#[must_use]
pub fn sources(object: &Value) -> Vec<Named<'_>> {
    named(object, SOURCE)
}

/// What an object of ours takes the place of in part only.
#[must_use]
pub fn in_part(object: &Value) -> Vec<Named<'_>> {
    named(object, IN_PART)
}

fn named<'a>(object: &'a Value, annotation: &str) -> Vec<Named<'a>> {
    let annotations = object.pointer("/metadata/annotations");
    let listed = annotations
        .and_then(|all| all.get(annotation))
        .and_then(Value::as_str);
    let one = |source: &'a str| {
        let mut parts = source.split('/');
        let found = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(found)
    };
    listed.unwrap_or_default().split(',').filter_map(one).collect()
}

/// The other tool's objects that can be stopped: all of them is carried over, and a backup of ours takes the place of
/// theirs. The others are named, and go on.
fn replaced<'a>(tool: Tool, seen: &'a Seen, notes: &mut Vec<String>) -> Vec<&'a Value> {
    let resource = match tool {
        Tool::K8up => k8up::RESOURCE,
        Tool::Volsync => volsync::RESOURCE,
        Tool::Cron => cron::RESOURCE,
        Tool::Original | Tool::Velero => return Vec::new(),
    };
    let ours = || {
        seen.repositories
            .iter()
            .chain(&seen.backups)
            .chain(&seen.policies)
    };
    let whole: BTreeSet<Named<'_>> = ours().flat_map(sources).collect();
    let parts: BTreeSet<Named<'_>> = ours().flat_map(in_part).collect();
    let stored: BTreeSet<Named<'_>> = seen.backups.iter().flat_map(sources).collect();
    let mut found = Vec::new();
    for theirs in &seen.theirs {
        let (namespace, name) = at(theirs);
        let key = (resource, namespace, name);
        if parts.contains(&key) {
            notes.push(format!(
                "{resource} {namespace}/{name} is carried over in part only, and goes on: stop it when nothing of it is needed"
            ));
        } else if whole.contains(&key) && !stored.contains(&key) && stores(tool, theirs) {
            notes.push(format!(
                "{resource} {namespace}/{name} goes on: no ResticBackup takes the place of what it backs up"
            ));
        } else if whole.contains(&key) {
            found.push(theirs);
        }
    }
    found
}

/// Whether an object of the other tool makes backups.
fn stores(tool: Tool, theirs: &Value) -> bool {
    match tool {
        Tool::K8up => theirs.pointer("/spec/backup").is_some_and(Value::is_object),
        Tool::Cron => cron::stores(theirs),
        _ => true,
    }
}

fn is_suspended(object: &Value) -> bool {
    object.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true)
}

/// Why an object of ours is not ready, in a sentence.
fn not_ready(object: &Value) -> Option<String> {
    let (namespace, name) = at(object);
    let kind = text(object, "/kind");
    let conditions = list(object, "/status/conditions");
    let ready = conditions
        .iter()
        .find(|condition| text(condition, "/type") == "Ready");
    let Some(ready) = ready else {
        return Some(format!(
            "{kind} {namespace}/{name} has no condition Ready yet: does our operator run here?"
        ));
    };
    if text(ready, "/status") == "True" {
        // The original operator called ready what it had not opened.
        let unopened = kind == "ResticRepository" && text(object, "/status/repositoryID").is_empty();
        return unopened.then(|| format!("{kind} {namespace}/{name} was not opened by our operator yet"));
    }
    let (reason, message) = (text(ready, "/reason"), text(ready, "/message"));
    Some(format!(
        "{kind} {namespace}/{name} is not ready: {reason}: {message}"
    ))
}

/// What stops an object of the other tool; `None` where it stands still already.
fn stop(tool: Tool, theirs: &Value) -> Option<Patch> {
    let (namespace, name) = at(theirs);
    let patch = |resource: &str, change: Value, what: String| Patch {
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        change,
        what,
    };
    let is_set = |pointer: &str| theirs.pointer(pointer).and_then(Value::as_bool) == Some(true);
    match tool {
        Tool::Volsync if !is_set("/spec/paused") => Some(patch(
            volsync::RESOURCE,
            json!({ "spec": { "paused": true } }),
            format!("pause ReplicationSource {namespace}/{name}"),
        )),
        Tool::Cron if !is_set("/spec/suspend") => Some(patch(
            cron::RESOURCE,
            json!({ "spec": { "suspend": true } }),
            format!("suspend CronJob {namespace}/{name}"),
        )),
        Tool::K8up => {
            // k8up has nothing by which a Schedule could be suspended.
            let parts = ["backup", "prune", "check", "archive"];
            let there: Vec<&str> = parts
                .into_iter()
                .filter(|part| {
                    theirs
                        .pointer(&format!("/spec/{part}"))
                        .is_some_and(Value::is_object)
                })
                .collect();
            let mut kept = json!({});
            let mut spec = json!({});
            for part in &there {
                kept[*part] = theirs["spec"][*part].clone();
                spec[*part] = Value::Null;
            }
            let change = json!({ "metadata": { "annotations": { PARTS: kept.to_string() } }, "spec": spec });
            let what = format!(
                "take {} out of Schedule {namespace}/{name}; annotation {PARTS} keeps what they were",
                there.join(", ")
            );
            (!there.is_empty()).then(|| patch(k8up::RESOURCE, change, what))
        }
        _ => None,
    }
}

fn resume(object: &Value, plural: &str) -> Patch {
    let (namespace, name) = at(object);
    Patch {
        resource: format!("{plural}.backup.resticbackup.io"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        change: json!({ "spec": { "suspend": false } }),
        what: format!("resume {} {namespace}/{name}", text(object, "/kind")),
    }
}

/// Gives the rules of a policy of the original the groups by which it removed. The policy stays suspended.
fn regrouped(policy: &Value) -> Option<Patch> {
    let rules = original::grouped(policy)?;
    let (namespace, name) = at(policy);
    Some(Patch {
        resource: original::RESOURCES[3].to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        change: json!({ "spec": { "policies": rules } }),
        what: format!(
            "count what the original has stored and ours as one series in GlobalRetentionPolicy {namespace}/{name}"
        ),
    })
}

/// How a person sees what a policy would remove, and starts it: `finish` never does.
fn look_and_resume(policy: &Value) -> String {
    let (namespace, name) = at(policy);
    format!(
        "GlobalRetentionPolicy {namespace}/{name} stays suspended, and removes nothing. Check its rules, and what they would \
         remove, before you resume it:\n  kubectl get {RETENTION} -n {namespace} {name} -o yaml\n  \
         fleet retention preview CLUSTER/{namespace}/{name}\n  \
         kubectl patch {RETENTION} -n {namespace} {name} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
    )
}

/// Whether an object is of this migration.
#[must_use]
pub fn is_of(tool: Tool, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels").and_then(|all| all.get(FROM));
    let annotations = object
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(FROM));
    [labels, annotations]
        .into_iter()
        .flatten()
        .any(|of| of == tool.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(kind: &str, name: &str, source: &str, ready: &str) -> Value {
        json!({
            "kind": kind,
            "metadata": { "name": name, "namespace": "shop", "labels": { FROM: "k8up" }, "annotations": { SOURCE: source } },
            "spec": { "suspend": true },
            "status": { "repositoryID": "ab", "conditions": [{ "type": "Ready", "status": ready, "reason": "WrongPassword", "message": "m" }] },
        })
    }

    fn seen(source: &str, theirs: Value, ready: &str) -> Seen {
        Seen {
            repositories: vec![ours("ResticRepository", "r", source, ready)],
            backups: vec![ours("ResticBackup", "b", source, "True")],
            policies: vec![ours("GlobalRetentionPolicy", "p", source, "True")],
            theirs: vec![theirs],
        }
    }

    #[test]
    fn theirs_stops_before_ours_begins_and_can_be_put_back() {
        let theirs = json!({ "metadata": { "name": "nightly", "namespace": "shop" },
                             "spec": { "backend": {}, "backup": { "schedule": "x" }, "prune": { "schedule": "y" } } });
        let found = steps(
            Tool::K8up,
            &seen("schedules.k8up.io/shop/nightly", theirs, "True"),
        );
        assert!(found.blocked.is_empty(), "{:?}", found.blocked);
        let order: Vec<&str> = found
            .patches
            .iter()
            .map(|patch| patch.resource.as_str())
            .collect();
        assert_eq!(
            order,
            ["schedules.k8up.io", "resticbackups.backup.resticbackup.io"]
        );
        let note = found.notes.last().cloned().unwrap_or_default();
        assert!(note.contains("fleet retention preview CLUSTER/shop/p"), "{note}");
        assert!(
            note.contains("kubectl patch globalretentionpolicy -n shop p"),
            "{note}"
        );
        let change = &found.patches[0].change;
        assert_eq!(change["spec"], json!({ "backup": null, "prune": null }));
        let kept: Value = serde_json::from_str(text(
            change,
            &format!("/metadata/annotations/{}", PARTS.replace('/', "~1")),
        ))
        .unwrap_or_default();
        assert_eq!(kept["backup"]["schedule"], "x");
        assert_eq!(found.patches[1].change["spec"]["suspend"], false);
    }

    #[test]
    fn nothing_is_stopped_twice_and_nothing_that_is_not_ours_to_stop() {
        let still = json!({ "metadata": { "name": "db", "namespace": "shop" }, "spec": { "paused": true } });
        let found = steps(
            Tool::Volsync,
            &seen("replicationsources.volsync.backube/shop/db", still, "True"),
        );
        assert_eq!(found.patches.len(), 1);
        let other = json!({ "metadata": { "name": "other", "namespace": "shop" }, "spec": {} });
        let found = steps(
            Tool::Volsync,
            &seen("replicationsources.volsync.backube/shop/db", other, "True"),
        );
        assert!(found.patches.iter().all(|patch| patch.name != "other"));
        let found = steps(
            Tool::Velero,
            &seen("backuprepositories.velero.io/velero/x", json!({}), "True"),
        );
        assert!(found.patches.len() == 1 && found.notes[0].contains("defaultVolumesToFsBackup"));
    }

    #[test]
    fn ours_has_to_be_ready_first() {
        let theirs = json!({ "metadata": { "name": "n", "namespace": "shop" }, "spec": {} });
        let mut seen = seen("cronjobs.batch/shop/n", theirs, "False");
        let found = steps(Tool::Cron, &seen);
        assert_eq!(
            found.blocked,
            ["ResticRepository shop/r is not ready: WrongPassword: m"]
        );
        seen.repositories[0]["status"] = json!({});
        assert!(steps(Tool::Cron, &seen).blocked[0].contains("no condition Ready"));
        seen.repositories[0]["status"] = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        assert!(steps(Tool::Cron, &seen).blocked[0].contains("not opened by our operator"));
    }

    #[test]
    fn what_was_carried_over_in_part_or_has_no_backup_of_ours_goes_on() {
        let theirs = json!({ "metadata": { "name": "n", "namespace": "shop" }, "spec": { "jobTemplate": { "spec": { "template": {
            "spec": { "containers": [{ "image": "restic", "args": ["backup", "/data"] }] } } } } } });
        let source = "cronjobs.batch/shop/n";
        let whole = seen(source, theirs.clone(), "True");
        assert!(
            steps(Tool::Cron, &whole)
                .patches
                .iter()
                .any(|patch| patch.resource == cron::RESOURCE)
        );
        let mut none = seen(source, theirs.clone(), "True");
        none.backups[0]["metadata"]["annotations"] = json!({});
        let mut part = seen(source, theirs, "True");
        part.backups[0]["metadata"]["annotations"] = json!({ IN_PART: source });
        for (seen, said) in [
            (none, "no ResticBackup takes the place"),
            (part, "in part only, and goes on"),
        ] {
            let found = steps(Tool::Cron, &seen);
            assert!(
                found.patches.iter().all(|patch| patch.resource != cron::RESOURCE),
                "{:?}",
                found.patches
            );
            let named = |note: &String| note.contains("cronjobs.batch shop/n") && note.contains(said);
            assert!(found.notes.iter().any(named), "{:?}", found.notes);
        }
    }

    #[test]
    fn retention_is_never_started() {
        for tool in [
            Tool::Original,
            Tool::K8up,
            Tool::Volsync,
            Tool::Velero,
            Tool::Cron,
        ] {
            let mut seen = seen("cronjobs.batch/shop/n", json!({}), "True");
            seen.policies[0]["spec"]["policies"] = json!([{ "selector": { "hostname": "a" } }]);
            let found = steps(tool, &seen);
            let of_policies = found
                .patches
                .iter()
                .filter(|patch| patch.resource.contains("retention"));
            let changes: Vec<&Value> = of_policies.map(|patch| &patch.change["spec"]).collect();
            assert!(
                changes.iter().all(|spec| spec.get("suspend").is_none()),
                "{changes:?}"
            );
            assert_eq!(
                changes.len(),
                usize::from(tool == Tool::Original),
                "only the groups of the original's rules"
            );
            assert!(
                found
                    .notes
                    .iter()
                    .any(|note| note.contains("GlobalRetentionPolicy shop/p stays suspended"))
            );
        }
    }

    #[test]
    fn only_what_a_migration_made_is_of_it() {
        assert!(is_of(Tool::K8up, &ours("ResticBackup", "b", "", "True")));
        assert!(!is_of(Tool::Cron, &ours("ResticBackup", "b", "", "True")));
        let suspended = json!({ "metadata": { "annotations": { FROM: "original" } } });
        assert!(is_of(Tool::Original, &suspended) && !is_of(Tool::Original, &json!({})));
        assert!(sources(&ours("x", "y", "a/b", "True")).is_empty());
    }
}
