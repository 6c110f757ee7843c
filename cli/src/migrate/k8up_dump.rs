//! Commands in pods whose output k8up stores (annotation `k8up.io/backupcommand`). Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::k8up::host_of;
use super::plan::{Place, Plan, merged};
use super::words::commands;
use crate::objects::{at, text};

pub const COMMAND: &str = "k8up.io/backupcommand";
pub const EXTENSION: &str = "k8up.io/file-extension";
const CONTAINER: &str = "k8up.io/backupcommand-container";

/// Backups of a Schedule, in the repository of this name.
pub struct Backups<'a> {
    pub repository: &'a str,
    /// What each of them has: when, and how its pods are run.
    pub common: Value,
    /// Tags of their snapshots.
    pub tags: &'a [Value],
    /// Names of those that the plan has.
    pub names: BTreeSet<String>,
}

impl Backups<'_> {
    /// `restic` of a backup that gets this name.
    pub fn restic(&self, namespace: &str, name: &str) -> Value {
        let mut restic = json!({ "hostname": host_of(namespace, name) });
        if !self.tags.is_empty() {
            restic["tags"] = json!(self.tags);
        }
        restic
    }
}

/// Adds a backup of what a command in a pod writes.
pub fn dump(plan: &mut Plan, pod: &Value, backups: &mut Backups<'_>, place: &impl Fn(&str) -> Place) {
    let annotation = |name: &str| {
        let all = pod.pointer("/metadata/annotations");
        all.and_then(|all| all.get(name)).and_then(Value::as_str)
    };
    let Some(command) = annotation(COMMAND) else {
        return;
    };
    let (namespace, name) = at(pod);
    let about = format!("Pod {namespace}/{name}");
    let labels = stable(pod);
    if labels.is_empty() {
        let text = format!("its {COMMAND} is not carried over: the pod has no label by which to find it");
        plan.leave(&place("").source, &about, text);
        return;
    }
    let words = match commands(command, &BTreeMap::new()).as_deref() {
        Ok([words]) => words.to_vec(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()],
    };
    let container = annotation(CONTAINER).unwrap_or_else(|| text(pod, "/spec/containers/0/name"));
    // Several replicas have one command.
    let exec = json!({ "podSelector": { "matchLabels": labels }, "container": container, "command": words });
    if has_dump(plan, namespace, backups.repository, &exec) {
        return;
    }
    let filename = format!("{container}{}", annotation(EXTENSION).unwrap_or_default());
    let wanted = plan.free("ResticBackup", namespace, &format!("{container}-dump"));
    let spec = json!({
        "source": { "stdin": { "filename": filename, "exec": exec } },
        "restic": backups.restic(namespace, &wanted),
    });
    let mut common = backups.common.clone();
    // The user of the volumes is not that of a dump.
    if let Some(job) = common["jobConfig"].as_object_mut() {
        job.remove("securityContext");
    }
    if common["jobConfig"] == json!({}) {
        common["jobConfig"] = Value::Null;
    }
    let repository = json!({ "name": backups.repository });
    backups
        .names
        .insert(plan.backup(&place(&wanted), repository, merged(common, spec)));
    plan.note(
        &about,
        format!("its dump is stored as {filename} now, before as {namespace}-{filename}"),
    );
}

/// Whether a backup of the plan stores what this command writes, in this repository.
fn has_dump(plan: &Plan, namespace: &str, repository: &str, exec: &Value) -> bool {
    plan.objects.iter().any(|object| {
        at(object).0 == namespace
            && text(object, "/spec/repositoryRef/name") == repository
            && object.pointer("/spec/source/stdin/exec") == Some(exec)
    })
}

/// Labels of a pod that its successors have as well.
fn stable(pod: &Value) -> Map<String, Value> {
    const PASSING: [&str; 4] = [
        "pod-template-hash",
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
    ];
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let labels = labels.cloned().unwrap_or_default();
    labels
        .into_iter()
        .filter(|(name, _)| !PASSING.contains(&name.as_str()))
        .collect()
}
