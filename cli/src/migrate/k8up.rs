//! k8up: a Schedule backs up all claims of its namespace that are not left out, each as a snapshot of its own with the
//! namespace as host and `/data/CLAIM` as path. Its `forget` is over the whole repository, one group for each host and path.
//! A Backup that no Schedule has made is one such run. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::k8up_backend::{Backend, backend};
use super::k8up_dump::{Backups, dump};
use super::k8up_job::{note_unread, of_backup};
use super::k8up_keep::retention;
use super::k8up_parts::{before_finish, part};
use super::k8up_single as single;
use super::plan::{Place, Plan, merged};
use super::secret;
use super::select::matches;
use super::when::when;
use crate::arguments::Tool;
use crate::objects::{at, list, text};

/// What is read.
pub const RESOURCE: &str = "schedules.k8up.io";
/// Left out where it is `false`.
const WANTED: &str = "k8up.io/backup";
/// What to know before a claim or a dump is added: the plan says it, and so does `finish`.
pub const LATER: &str = "k8up backs up each claim of its namespaces, and each pod with k8up.io/backupcommand, by itself; of \
ours each needs a ResticBackup, so what is added after finish is in no backup: fleet coverage names such claims \
(docs/coverage.md), and fleet migrate k8up --apply makes what is missing as long as the Schedule is there";

/// What was read of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub schedules: Vec<Value>,
    /// `Backup` resources: single runs.
    pub backups: Vec<Value>,
    pub claims: Vec<Value>,
    pub pods: Vec<Value>,
    pub pre_backup_pods: Vec<Value>,
    /// `PodConfig` resources, to which a backup may refer.
    pub pod_configs: Vec<Value>,
}

/// What becomes of it.
#[must_use]
pub fn plan(found: &Found, running: bool) -> Plan {
    let mut plan = Plan::new(Tool::K8up, running);
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for schedule in &found.schedules {
        let (namespace, name) = at(schedule);
        let about = format!("Schedule {namespace}/{name}");
        let before = match before_finish(schedule) {
            Ok(before) => before,
            Err(why) => {
                plan.leave(
                    &source_of(schedule),
                    &about,
                    format!("{why}: nothing is made of it"),
                );
                continue;
            }
        };
        one(&mut plan, found, &before, &about);
        if let (Some(_), Ok(backend)) = (part(&before, "backup"), backend(&before, Some("backup")))
            && !seen.insert((namespace.to_owned(), backend.url))
        {
            plan.note(&about, "another Schedule of the namespace writes to the same repository: its claims are backed up twice");
        }
    }
    single::plan(&mut plan, found);
    pre_backup_pods(&mut plan, found);
    if plan.objects.iter().any(|object| object["kind"] == "ResticBackup") {
        plan.note("k8up", LATER);
    }
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

/// Host of the snapshots of a backup. No namespace has a dot in its name, so that no two have the same.
pub(super) fn host_of(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// What becomes of a Schedule, or of a single Backup that is written as one.
pub(super) fn one(plan: &mut Plan, found: &Found, schedule: &Value, about: &str) {
    let place = |name: &str| Place {
        namespace: at(schedule).0.to_owned(),
        name: name.to_owned(),
        source: source_of(schedule),
    };
    let repositories = repositories(plan, schedule, about, &place);
    if repositories.is_empty() {
        return;
    }
    note_unread(plan, schedule, about);
    let of = |part: &str| {
        let mut of = repositories.iter().filter(|one| one.parts.contains(&part));
        of.next().map(|one| one.name.as_str())
    };
    let written = of("backup");
    let ours = match (part(schedule, "backup"), written) {
        (Some(theirs), Some(repository)) => backups(plan, found, schedule, theirs, about, repository, &place),
        (Some(_), None) => BTreeSet::new(),
        (None, _) => {
            plan.note(about, "it has no backup: only its repository is made");
            BTreeSet::new()
        }
    };
    match of("prune") {
        Some(pruned) => {
            let none = BTreeSet::new();
            let ours = if written == Some(pruned) { &ours } else { &none };
            retention(plan, schedule, about, ours, &place(pruned));
        }
        None if part(schedule, "prune").is_none() => plan.note(
            about,
            "it has no prune: nothing is removed, and no policy is made",
        ),
        None => {}
    }
    for part in ["archive", "restore"] {
        if schedule
            .pointer(&format!("/spec/{part}"))
            .is_some_and(Value::is_object)
        {
            plan.leave(
                &source_of(schedule),
                about,
                format!("its {part} is not carried over"),
            );
        }
    }
}

/// A repository of the plan, and the parts of a Schedule that use it.
struct Repository {
    backend: Backend,
    parts: Vec<&'static str>,
    name: String,
}

/// Repositories that the parts of a Schedule use: each part may have a backend of its own.
fn repositories(
    plan: &mut Plan,
    schedule: &Value,
    about: &str,
    place: &impl Fn(&str) -> Place,
) -> Vec<Repository> {
    let mut all = used(plan, schedule, about);
    let several = all.len() > 1;
    let single = single::is_single(schedule);
    for one in &mut all {
        for note in &one.backend.notes {
            plan.note(about, note.clone());
        }
        let url = one.backend.url.clone();
        let known = single.then(|| single::repository(plan, at(schedule).0, &url));
        if let Some(known) = known.flatten() {
            one.name = known;
            continue;
        }
        let wanted = place(at(schedule).1);
        let secret = secret::reference(plan, &wanted, one.backend.entries.clone());
        let check = part(schedule, "check").map(|check| text(check, "/schedule"));
        let check = check.filter(|when| !when.is_empty() && one.parts.contains(&"check"));
        let check = check.map(when);
        if let Some(note) = check.as_ref().and_then(|found| found.note.clone()) {
            plan.note(about, format!("its check: {note}"));
        }
        let check =
            check.map(|found| json!({ "integrityCheck": { "enabled": true, "schedule": found.schedule } }));
        one.name = plan.repository(&wanted, &url, &secret, check.unwrap_or_default());
        if several {
            let parts = one.parts.join(", ");
            let text = format!(
                "its {parts} has the repository {url}: that is ResticRepository {}",
                one.name
            );
            plan.note(about, text);
        }
    }
    all
}

/// The backends of a Schedule's parts, each once.
fn used(plan: &mut Plan, schedule: &Value, about: &str) -> Vec<Repository> {
    let mut names: Vec<Option<&'static str>> = ["backup", "prune", "check"]
        .into_iter()
        .filter(|name| part(schedule, name).is_some())
        .map(Some)
        .collect();
    if names.is_empty() {
        names.push(None);
    }
    let mut all: Vec<Repository> = Vec::new();
    for name in names {
        let backend = match backend(schedule, name) {
            Ok(backend) => backend,
            Err(why) => {
                let what = name.unwrap_or("backend");
                let text = format!("{why}: nothing is made of its {what}");
                plan.leave(&source_of(schedule), about, text);
                continue;
            }
        };
        let location = secret::location(&backend.url);
        let mut known = all.iter_mut();
        match known.find(|one| secret::location(&one.backend.url) == location) {
            Some(one) => {
                if one.backend.entries != backend.entries {
                    let text = format!(
                        "its {} has other credentials than its {}, and a ResticRepository has one Secret: it gets those of \
                         its {}",
                        name.unwrap_or_default(),
                        one.parts.join(", "),
                        one.parts.first().unwrap_or(&"")
                    );
                    plan.note(about, text);
                }
                one.parts.extend(name);
            }
            None => all.push(Repository {
                backend,
                parts: name.into_iter().collect(),
                name: String::new(),
            }),
        }
    }
    all
}

/// The backups that take the place of that of a Schedule; their names.
fn backups(
    plan: &mut Plan,
    found: &Found,
    schedule: &Value,
    theirs: &Value,
    about: &str,
    repository: &str,
    place: &impl Fn(&str) -> Place,
) -> BTreeSet<String> {
    let namespace = at(schedule).0;
    let when = when(text(theirs, "/schedule"));
    // That a single one has none is said of it.
    if let Some(note) = when.note.as_ref().filter(|_| !single::is_single(schedule)) {
        plan.note(about, note.clone());
    }
    let job = of_backup(plan, &found.pod_configs, schedule, about);
    let mut backups = Backups {
        repository,
        common: json!({ "schedule": when.schedule, "timezone": when.timezone, "jobConfig": job }),
        tags: list(theirs, "/tags"),
        names: BTreeSet::new(),
    };
    let claims = claims(found, namespace, theirs);
    if claims.is_empty() {
        plan.note(about, "no claim of the namespace is backed up by it");
    }
    for claim in &claims {
        let name = plan.free("ResticBackup", namespace, claim);
        let spec = json!({ "source": { "pvc": { "claimName": claim } }, "restic": backups.restic(namespace, &name) });
        let spec = merged(backups.common.clone(), spec);
        backups
            .names
            .insert(plan.backup(&place(&name), json!({ "name": repository }), spec));
    }
    plan.note(
        about,
        format!(
            "theirs has all claims under the host {namespace}, ours has a host for each: retention keeps as many of their \
             snapshots as of ours, and theirs do not run out"
        ),
    );
    plan.note(
        about,
        format!("restore a snapshot of before by its id, or by snapshotSelector.hostname: {namespace}, with snapshotPath: /data/CLAIM"),
    );
    for pod in found.pods.iter().filter(|pod| at(pod).0 == namespace) {
        dump(plan, pod, &mut backups, place);
    }
    backups.names
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

#[cfg(test)]
#[path = "k8up_tests.rs"]
mod tests;
