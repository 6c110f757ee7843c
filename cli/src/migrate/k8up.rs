//! k8up: a Schedule backs up all claims of its namespace that are not left out, each as a snapshot of its own with the
//! namespace as host and `/data/CLAIM` as path. Its `forget` is over the whole repository, one group for each host and path.
//! A Backup that no Schedule has made is one such run. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::k8up_backend::{Backend, backend};
use super::k8up_keep::retention;
use super::k8up_single as single;
use super::plan::{Place, Plan, merged};
use super::secret;
use super::select::matches;
use super::when::when;
use super::words::commands;
use crate::arguments::Tool;
use crate::objects::{at, list, text};

/// What is read.
pub const RESOURCE: &str = "schedules.k8up.io";
/// Left out where it is `false`.
const WANTED: &str = "k8up.io/backup";
const COMMAND: &str = "k8up.io/backupcommand";
const CONTAINER: &str = "k8up.io/backupcommand-container";
const EXTENSION: &str = "k8up.io/file-extension";

/// What was read of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub schedules: Vec<Value>,
    /// `Backup` resources: single runs.
    pub backups: Vec<Value>,
    pub claims: Vec<Value>,
    pub pods: Vec<Value>,
    /// `Snapshot` resources, in which k8up lists what the repository holds.
    pub snapshots: Vec<Value>,
    pub pre_backup_pods: Vec<Value>,
}

/// What becomes of it.
#[must_use]
pub fn plan(found: &Found, running: bool) -> Plan {
    let mut plan = Plan::new(Tool::K8up, running);
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for schedule in &found.schedules {
        let (namespace, name) = at(schedule);
        let about = format!("Schedule {namespace}/{name}");
        let url = match backend(schedule) {
            Ok(backend) => {
                let url = backend.url.clone();
                one(&mut plan, found, schedule, &about, backend);
                url
            }
            Err(why) => {
                plan.note(&about, format!("{why}: nothing is made of it"));
                continue;
            }
        };
        if !seen.insert((namespace.to_owned(), url)) {
            plan.note(&about, "another Schedule of the namespace writes to the same repository: its claims are backed up twice");
        }
    }
    single::plan(&mut plan, found);
    pre_backup_pods(&mut plan, found);
    plan.settled()
}

/// PreBackupPods run with each backup of their namespace, and are not carried over: its Schedules have to go on.
fn pre_backup_pods(plan: &mut Plan, found: &Found) {
    for pod in &found.pre_backup_pods {
        let (namespace, name) = at(pod);
        let about = format!("PreBackupPod {namespace}/{name}");
        let text = "write a ResticBackup with source.stdin.pod or source.customSource in its place (docs/recipes.md)";
        plan.note(&about, text);
        for schedule in found
            .schedules
            .iter()
            .filter(|schedule| at(schedule).0 == namespace)
        {
            plan.leave(&source_of(schedule), &about, text);
        }
    }
}

fn source_of(schedule: &Value) -> String {
    let resource = match single::is_single(schedule) {
        true => single::RESOURCE,
        false => RESOURCE,
    };
    format!("{resource}/{}/{}", at(schedule).0, at(schedule).1)
}

pub(super) fn one(plan: &mut Plan, found: &Found, schedule: &Value, about: &str, backend: Backend) {
    let (namespace, name) = at(schedule);
    for note in &backend.notes {
        plan.note(about, note.clone());
    }
    let place = |name: &str| Place {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: source_of(schedule),
    };
    let known = single::is_single(schedule).then(|| single::repository(plan, namespace, &backend.url));
    let repository = known.flatten().unwrap_or_else(|| {
        let secret = secret::reference(plan, &place(name), backend.entries);
        let check = text(schedule, "/spec/check/schedule");
        let check = (!check.is_empty()).then(|| {
            let found = when(check);
            json!({ "integrityCheck": { "enabled": true, "schedule": found.schedule } })
        });
        plan.repository(&place(name), &backend.url, &secret, check.unwrap_or_default())
    });
    if schedule.pointer("/spec/backup").is_none() {
        plan.note(about, "it has no backup: only its repository is made");
    }
    let hosts = backups(plan, found, schedule, about, &repository, &place);
    retention(plan, schedule, about, &hosts, &place(&repository));
    for part in ["archive", "restore"] {
        if schedule.pointer(&format!("/spec/{part}")).is_some() {
            plan.leave(
                &source_of(schedule),
                about,
                format!("its {part} is not carried over"),
            );
        }
    }
}

/// The backups of a schedule; the host names of what they store.
fn backups(
    plan: &mut Plan,
    found: &Found,
    schedule: &Value,
    about: &str,
    repository: &str,
    place: &impl Fn(&str) -> Place,
) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    let Some(theirs) = schedule
        .pointer("/spec/backup")
        .filter(|backup| backup.is_object())
    else {
        return hosts;
    };
    let namespace = at(schedule).0;
    let common = common(plan, schedule, theirs, about);
    let claims = claims(found, namespace, theirs);
    if claims.is_empty() {
        plan.note(about, "no claim of the namespace is backed up by it");
    }
    // One series of snapshots under the host means that theirs and ours can be counted together.
    let single = match claims.as_slice() {
        [claim] => series_of(found, namespace) == BTreeSet::from([format!("/data/{claim}")]),
        _ => false,
    };
    for claim in &claims {
        let host = match single {
            true => namespace.to_owned(),
            false => format!("{namespace}-{claim}"),
        };
        let spec = json!({ "source": { "pvc": { "claimName": claim } }, "restic": restic(theirs, &host) });
        plan.backup(
            &place(claim),
            json!({ "name": repository }),
            merged(common.clone(), spec),
        );
        hosts.insert(host);
    }
    if !single && !claims.is_empty() {
        plan.note(
            about,
            format!(
                "theirs has all claims under the host {namespace}, ours has a host for each: retention keeps as many of \
                 their snapshots as of ours, and theirs do not run out"
            ),
        );
    }
    plan.note(
        about,
        format!("restore a snapshot of before by its id, or by snapshotSelector.hostname: {namespace}, with snapshotPath: /data/CLAIM"),
    );
    for pod in found.pods.iter().filter(|pod| at(pod).0 == namespace) {
        dump(plan, pod, repository, &common, place, &mut hosts);
    }
    hosts
}

/// What all backups of a schedule have.
fn common(plan: &mut Plan, schedule: &Value, theirs: &Value, about: &str) -> Value {
    let found = when(text(theirs, "/schedule"));
    // That a single one has none is said of it.
    if let Some(note) = found.note.as_ref().filter(|_| !single::is_single(schedule)) {
        plan.note(about, note.clone());
    }
    let user = [
        theirs.get("podSecurityContext"),
        schedule.pointer("/spec/podSecurityContext"),
    ];
    let user = user.into_iter().flatten().find(|user| user.is_object());
    if user.is_none() {
        plan.note(
            about,
            "it names no podSecurityContext: ours reads as uid 65532, and files that only their owner may read need \
             jobConfig.securityContext.runAsUser",
        );
    }
    let resources = [
        theirs.get("resources"),
        schedule.pointer("/spec/resourceRequirementsTemplate"),
    ];
    let resources = resources
        .into_iter()
        .flatten()
        .find(|resources| resources.is_object());
    let mut job = json!({});
    for (name, value) in [("securityContext", user), ("resources", resources)] {
        if let Some(value) = value {
            job[name] = value.clone();
        }
    }
    let job = (job != json!({})).then_some(job);
    json!({ "schedule": found.schedule, "timezone": found.timezone, "jobConfig": job })
}

fn restic(theirs: &Value, host: &str) -> Value {
    match list(theirs, "/tags") {
        [] => json!({ "hostname": host }),
        tags => json!({ "hostname": host, "tags": tags }),
    }
}

/// Claims that a schedule backs up.
pub(super) fn claims(found: &Found, namespace: &str, theirs: &Value) -> Vec<String> {
    let wanted = found.claims.iter().filter(|claim| at(claim).0 == namespace);
    let wanted = wanted.filter(|claim| {
        let annotations = claim.pointer("/metadata/annotations");
        let said = annotations
            .and_then(|all| all.get(WANTED))
            .and_then(Value::as_str);
        said != Some("false")
    });
    let selectors = list(theirs, "/labelSelectors");
    let selected = wanted.filter(|claim| {
        let labels = claim.pointer("/metadata/labels").cloned().unwrap_or_default();
        selectors.is_empty() || selectors.iter().any(|selector| matches(selector, &labels))
    });
    selected.map(|claim| at(claim).1.to_owned()).collect()
}

/// Paths of the snapshots that k8up lists in a namespace.
fn series_of(found: &Found, namespace: &str) -> BTreeSet<String> {
    let of = found
        .snapshots
        .iter()
        .filter(|snapshot| at(snapshot).0 == namespace);
    of.flat_map(|snapshot| list(snapshot, "/spec/paths"))
        .filter_map(|path| path.as_str().map(str::to_owned))
        .collect()
}

/// What a command in a pod writes.
fn dump(
    plan: &mut Plan,
    pod: &Value,
    repository: &str,
    common: &Value,
    place: &impl Fn(&str) -> Place,
    hosts: &mut BTreeSet<String>,
) {
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
    let words = match commands(command, &BTreeMap::new()).as_deref() {
        Ok([words]) => words.to_vec(),
        _ => vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()],
    };
    if labels.is_empty() {
        plan.leave(
            &place("").source,
            &about,
            format!("its {COMMAND} is not carried over: the pod has no label by which to find it"),
        );
        return;
    }
    let container = annotation(CONTAINER).unwrap_or_else(|| text(pod, "/spec/containers/0/name"));
    let wanted = format!("{container}-dump");
    // Several replicas have one command.
    let exec = json!({ "podSelector": { "matchLabels": labels }, "container": container, "command": words });
    if has_dump(plan, namespace, repository, &exec) {
        return;
    }
    let filename = format!("{container}{}", annotation(EXTENSION).unwrap_or_default());
    let host = format!("{namespace}-{wanted}");
    let spec = json!({
        "source": { "stdin": { "filename": filename, "exec": exec } },
        "restic": { "hostname": host },
    });
    // The user of the volumes is not that of a dump.
    let mut common = common.clone();
    common["jobConfig"] = Value::Null;
    plan.backup(
        &place(&wanted),
        json!({ "name": repository }),
        merged(common, spec),
    );
    plan.note(
        &about,
        format!("its dump is stored as {filename} now, before as {namespace}-{filename}"),
    );
    hosts.insert(host);
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

#[cfg(test)]
#[path = "k8up_tests.rs"]
mod tests;
