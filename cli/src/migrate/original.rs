//! The operator that first defined these kinds: its resources are ours already. What behaves differently is said, and its
//! policies are suspended until the operators have changed places. Pure.

use serde_json::{Value, json};

use super::plan::{FROM, Patch, Plan};
use crate::arguments::Tool;
use crate::objects::{at, list, text};

/// What is read, in this order.
pub const RESOURCES: [&str; 4] = [
    "resticrepositories.backup.resticbackup.io",
    "resticbackups.backup.resticbackup.io",
    "resticrestores.backup.resticbackup.io",
    "globalretentionpolicies.backup.resticbackup.io",
];
/// Its default image, and ours.
const IMAGES: [&str; 2] = ["ghcr.io/restic/restic:", "restic/restic:"];

/// What was read of a cluster.
#[derive(Debug, Default)]
pub struct Found {
    pub repositories: Vec<Value>,
    pub backups: Vec<Value>,
    pub restores: Vec<Value>,
    pub policies: Vec<Value>,
}

/// What becomes of it.
#[must_use]
pub fn plan(found: &Found) -> Plan {
    let mut plan = Plan::new(Tool::Original, true);
    for repository in &found.repositories {
        of_repository(&mut plan, repository);
    }
    for backup in &found.backups {
        of_backup(&mut plan, backup);
    }
    for restore in &found.restores {
        elsewhere(&mut plan, restore, "/spec/backupRef", "backup");
    }
    // Policies of our own are made of backups.
    let of_person = |policy: &&Value| policy.pointer("/metadata/ownerReferences/0").is_none();
    for policy in found.policies.iter().filter(of_person) {
        of_policy(&mut plan, policy);
    }
    plan
}

fn describe(object: &Value) -> String {
    let (namespace, name) = at(object);
    format!("{} {namespace}/{name}", text(object, "/kind"))
}

fn of_repository(plan: &mut Plan, repository: &Value) {
    let about = describe(repository);
    if repository.pointer("/spec/integrityCheck").is_some() {
        plan.note(&about, "integrityCheck had no effect; it is carried out now");
    }
    let class = text(repository, "/spec/cache/storageClassName");
    if !class.is_empty() {
        plan.note(&about, format!("cache.storageClassName {class:?} had no effect; pods stay pending where the cluster has no such class"));
    }
    if text(repository, "/spec/repositoryURL").starts_with("local:") {
        plan.note(
            &about,
            "a folder of the container cannot be a repository: put a server in front of it",
        );
    }
    let ready = list(repository, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True");
    if ready && text(repository, "/status/repositoryID").is_empty() {
        plan.note(&about, "it was called ready without being opened for certain: our operator opens it, and says what is wrong");
    }
}

/// Notes a reference into another namespace.
fn elsewhere(plan: &mut Plan, object: &Value, pointer: &str, what: &str) {
    let namespace = object
        .pointer(pointer)
        .map(|reference| text(reference, "/namespace"));
    let namespace = namespace.unwrap_or_default();
    if !namespace.is_empty() && namespace != at(object).0 {
        let text = format!(
            "its {what} is in namespace {namespace}: its pods never started; now the owner of the repository has to allow it \
             (spec.allowedNamespaces)"
        );
        plan.note(&describe(object), text);
    }
}

fn of_backup(plan: &mut Plan, backup: &Value) {
    let about = describe(backup);
    elsewhere(plan, backup, "/spec/repositoryRef", "repository");
    for (pointer, what) in [("/spec/hooks", "hooks"), ("/spec/notifications", "notifications")] {
        if backup.pointer(pointer).is_some_and(Value::is_object) {
            plan.note(&about, format!("{what} had no effect; they are carried out now"));
        }
    }
    if backup.pointer("/spec/retention/enabled").and_then(Value::as_bool) == Some(true) {
        plan.note(
            &about,
            "retention had no effect; now it removes what our operator makes of this backup, after a preview; what the \
             original has made is not reached",
        );
    }
    let image = text(backup, "/spec/restic/image");
    if !image.is_empty() && !IMAGES.iter().any(|known| image.starts_with(known)) {
        plan.note(
            &about,
            format!("image {image:?} has to be on the operator's list (--allowed-images)"),
        );
    }
    let extra = list(backup, "/spec/restic/extraArgs");
    if !extra.is_empty() {
        plan.note(&about, "restic.extraArgs: what is not on the list is refused, and condition Ready names it (docs/security.md)");
    }
    for (pointer, what) in [
        ("/spec/source/podVolumeBackup", "podVolumeBackup"),
        ("/spec/source/customSource", "customSource"),
    ] {
        if backup.pointer(pointer).is_some_and(Value::is_object) {
            plan.note(
                &about,
                format!("source.{what} stored nothing; now it does what it says"),
            );
        }
    }
}

fn of_policy(plan: &mut Plan, policy: &Value) {
    let about = describe(policy);
    elsewhere(plan, policy, "/spec/repositoryRef", "repository");
    for rule in list(policy, "/spec/policies") {
        let tags = list(rule, "/selector/tags");
        if tags.len() > 1 {
            plan.note(
                &about,
                format!(
                    "a rule selects by {} tags: before, any of them was enough, now all have to be there",
                    tags.len()
                ),
            );
        }
        let empty = tags.is_empty() && text(rule, "/selector/hostname").is_empty();
        if empty {
            plan.note(
                &about,
                "a rule selects everything: it no longer reaches snapshots without a cluster, as all of the original's are; \
                 give it their hostname or a tag",
            );
        }
    }
    if policy.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let (namespace, name) = at(policy);
    plan.patches.push(Patch {
        resource: RESOURCES[3].to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        change: json!({ "metadata": { "annotations": { FROM: "original" } }, "spec": { "suspend": true } }),
        what: format!(
            "suspend {about}: until the operators have changed places its CronJob removes without a preview"
        ),
    });
}

/// The rules of a policy, with what counts the original's snapshots and ours as one series; `None` where all have groups.
#[must_use]
pub fn grouped(policy: &Value) -> Option<Value> {
    let mut rules = list(policy, "/spec/policies").to_vec();
    let mut changed = false;
    for rule in &mut rules {
        if list(rule, "/groupBy").is_empty() {
            // restic's own default, by which the original removed. Ours carry tags that theirs do not have.
            rule["groupBy"] = json!(["host", "paths"]);
            changed = true;
        }
    }
    changed.then_some(Value::Array(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, spec: Value) -> Value {
        json!({ "kind": kind, "metadata": { "name": "x", "namespace": "shop" }, "spec": spec })
    }

    #[test]
    fn what_behaves_differently_is_said_and_policies_are_suspended() {
        let mut own = object("GlobalRetentionPolicy", json!({ "policies": [] }));
        own["metadata"]["ownerReferences"] = json!([{ "kind": "ResticBackup" }]);
        let mut opened = object(
            "ResticRepository",
            json!({ "repositoryURL": "s3:x/y", "cache": { "storageClassName": "fast" } }),
        );
        opened["status"] = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        let found = Found {
            repositories: vec![opened],
            backups: vec![object(
                "ResticBackup",
                json!({ "repositoryRef": { "name": "r", "namespace": "other" }, "retention": { "enabled": true },
                        "restic": { "image": "my/restic:1" }, "hooks": { "preBackup": {} } }),
            )],
            restores: vec![object(
                "ResticRestore",
                json!({ "backupRef": { "name": "b", "namespace": "shop" } }),
            )],
            policies: vec![
                object(
                    "GlobalRetentionPolicy",
                    json!({ "policies": [{ "selector": { "tags": ["a", "b"] } }, { "selector": {} }] }),
                ),
                object(
                    "GlobalRetentionPolicy",
                    json!({ "policies": [], "suspend": true }),
                ),
                own,
            ],
        };
        let plan = plan(&found);
        assert!(plan.objects.is_empty());
        assert_eq!(plan.patches.len(), 1, "{:?}", plan.patches);
        assert_eq!(plan.patches[0].change["spec"]["suspend"], true);
        let notes: String = plan
            .notes
            .iter()
            .map(|note| format!("{}: {}\n", note.about, note.text))
            .collect();
        for said in [
            "\"fast\" had no effect",
            "without being opened",
            "is in namespace other",
            "after a preview",
            "--allowed-images",
            "hooks had no effect",
            "by 2 tags",
            "selects everything",
        ] {
            assert!(notes.contains(said), "{said} in {notes}");
        }
        assert!(
            !notes.contains("ResticRestore"),
            "its backup is in its own namespace: {notes}"
        );
    }

    #[test]
    fn both_operators_snapshots_are_one_series_unless_a_person_has_grouped_them() {
        let policy = object(
            "GlobalRetentionPolicy",
            json!({ "policies": [{ "selector": { "hostname": "a" } }, { "groupBy": ["tags"] }] }),
        );
        let rules = grouped(&policy).unwrap_or_default();
        assert_eq!(rules[0]["groupBy"], json!(["host", "paths"]));
        assert_eq!(rules[1]["groupBy"], json!(["tags"]));
        let done = object("GlobalRetentionPolicy", json!({ "policies": rules }));
        assert_eq!(grouped(&done), None);
    }
}
