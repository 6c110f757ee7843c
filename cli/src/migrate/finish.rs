//! The end of a migration: our backups begin, the other tool stops. Nothing stops before ours has worked, and retention is
//! started by a person only. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::k8up_parts::{PARTS, SUSPENDED, part, suspended};
use super::plan::{FROM, IN_PART, Patch, SOURCE};
use super::{cron, k8up, original, pause, volsync};
use crate::arguments::Tool;
use crate::check::kube::GROUP;
use crate::objects::{at, condition, is_true, place, said, text};

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
    /// Backups that a migration would make of theirs now, and that are not there: a claim was added since, or one of ours was
    /// deleted.
    pub missing: Vec<Value>,
    /// Sources of which a migration would leave something out now.
    pub left: BTreeSet<String>,
}

/// What is done, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Steps {
    /// Why it cannot be done yet.
    pub blocked: Vec<String>,
    /// What of the other tool stands still already.
    pub stopped: Vec<String>,
    pub patches: Vec<Patch>,
    pub notes: Vec<String>,
}

impl Steps {
    /// Why nothing is changed, and what of the tool goes on meanwhile.
    #[must_use]
    pub fn refusal(&self, tool: &str) -> String {
        let goes_on = match self.stopped.as_slice() {
            [] => format!("{tool} goes on"),
            stopped => format!("of {tool} these stand still already: {}", stopped.join(", ")),
        };
        format!(
            "nothing was changed, and {goes_on}:\n  {}",
            self.blocked.join("\n  ")
        )
    }
}

/// Works it out. With `untried`, backups of ours that have not succeeded yet take the place of theirs.
#[must_use]
pub fn steps(tool: Tool, seen: &Seen, untried: bool) -> Steps {
    let mut steps = Steps::default();
    let (unused, used): (Vec<&Value>, Vec<&Value>) = seen
        .repositories
        .iter()
        .partition(|repository| tool == Tool::Velero && !stores_ours(repository, seen));
    for object in used.into_iter().chain(&seen.backups) {
        steps.blocked.extend(not_ready(object));
    }
    let (still, begin): (Vec<&Value>, Vec<&Value>) =
        seen.backups.iter().partition(|backup| stays(tool, backup, seen));
    let new = begin.iter().filter(|_| !untried);
    steps.blocked.extend(new.filter_map(|backup| unproven(backup)));
    // Ours first: where one of these changes fails, both go on, and not neither.
    let resumed = begin.into_iter().filter(|backup| is_suspended(backup));
    steps
        .patches
        .extend(resumed.map(|backup| resume(backup, "resticbackups")));
    steps.notes.extend(still.into_iter().map(pause::stays_suspended));
    for theirs in replaced(tool, seen, &mut steps.notes) {
        match stop(tool, theirs) {
            Some(patch) => steps.patches.push(patch),
            None => steps.stopped.push(format!(
                "{} {}",
                resource(tool).unwrap_or_default(),
                place(theirs)
            )),
        }
    }
    if tool == Tool::Velero {
        let unused = unused.into_iter().filter_map(not_ready);
        steps.notes.extend(
            unused.map(|why| format!("{why}; no backup of ours stores there, so nothing waits for it")),
        );
        steps.notes.extend(of_velero(seen));
    }
    if tool == Tool::K8up && !seen.backups.is_empty() {
        steps.notes.push(k8up::LATER.to_owned());
    }
    for policy in seen.policies.iter().filter(|policy| is_suspended(policy)) {
        if tool == Tool::Original {
            steps.patches.extend(regrouped(policy));
        }
        steps.notes.push(look_and_resume(policy));
    }
    steps
}

/// Whether a backup of ours stores into a repository.
fn stores_ours(repository: &Value, seen: &Seen) -> bool {
    let mut backups = seen.backups.iter();
    backups.any(|backup| {
        let namespace = match text(backup, "/spec/repositoryRef/namespace") {
            "" => at(backup).0,
            namespace => namespace,
        };
        at(repository) == (namespace, text(backup, "/spec/repositoryRef/name"))
    })
}

/// Whether a backup is not to begin, since a person had paused what it takes the place of.
fn stays(tool: Tool, backup: &Value, seen: &Seen) -> bool {
    let named = [sources(backup), in_part(backup)].concat();
    tool == Tool::Volsync && is_suspended(backup) && pause::are_paused(&named, &seen.theirs)
}

/// What is to be known of Velero, which goes on.
fn of_velero(seen: &Seen) -> Vec<String> {
    let missing = seen.missing.iter().map(|backup| {
        format!(
            "ResticBackup {} is not there, and Velero stores its claim: fleet migrate velero --apply makes it",
            place(backup)
        )
    });
    let always = [
        "Velero's schedules go on, since they back up Kubernetes objects too: set defaultVolumesToFsBackup: false in them, or \
         its pods read each volume as well; do that when each claim has a backup of ours",
        "claims that are added from now on are in no backup of ours until you write one: fleet coverage lists them",
    ];
    missing.chain(always.map(str::to_owned)).collect()
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

/// What of a tool is stopped.
#[must_use]
pub fn resource(tool: Tool) -> Option<&'static str> {
    match tool {
        Tool::K8up => Some(k8up::RESOURCE),
        Tool::Volsync => Some(volsync::RESOURCE),
        Tool::Cron => Some(cron::RESOURCE),
        Tool::Original | Tool::Velero => None,
    }
}

/// The other tool's objects that can be stopped: all of them is carried over, and a backup of ours takes the place of
/// theirs. The others are named, and go on.
fn replaced<'a>(tool: Tool, seen: &'a Seen, notes: &mut Vec<String>) -> Vec<&'a Value> {
    let Some(resource) = resource(tool) else {
        return Vec::new();
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
        let is_left = seen.left.contains(&format!("{resource}/{namespace}/{name}"));
        let is_still = stop(tool, theirs).is_none();
        if is_left || parts.contains(&key) {
            let state = match is_still {
                true => "stands still: see what of it is needed",
                false => "goes on: stop it when nothing of it is needed",
            };
            notes.push(format!(
                "{resource} {namespace}/{name} is carried over in part only, and {state}"
            ));
        } else if let Some(backup) = missing(seen, key) {
            let (backup, tool) = (place(backup), tool.as_str());
            let text = match is_still {
                true => format!(
                    "stands still, and ResticBackup {backup} is not there: nothing backs up what was added since; fleet \
                     migrate {tool} --apply makes it, and finish starts it"
                ),
                false => format!(
                    "goes on: ResticBackup {backup} is not there, which would take its place; fleet migrate {tool} --apply \
                     makes it"
                ),
            };
            notes.push(format!("{resource} {namespace}/{name} {text}"));
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

/// A backup that would have to take the place of something of theirs as well, and is not there.
fn missing<'a>(seen: &'a Seen, theirs: Named<'_>) -> Option<&'a Value> {
    let mut missing = seen.missing.iter();
    missing.find(|backup| sources(backup).contains(&theirs))
}

/// Whether an object of the other tool makes backups.
fn stores(tool: Tool, theirs: &Value) -> bool {
    match tool {
        Tool::K8up => part(theirs, "backup").is_some(),
        Tool::Cron => cron::stores(theirs),
        _ => true,
    }
}

fn is_suspended(object: &Value) -> bool {
    is_true(object, "/spec/suspend")
}

/// Why an object of ours is not ready, in a sentence.
fn not_ready(object: &Value) -> Option<String> {
    let about = format!("{} {}", text(object, "/kind"), place(object));
    let Some(ready) = condition(object, "Ready") else {
        return Some(format!(
            "{about} has no condition Ready yet: does our operator run here?"
        ));
    };
    if text(ready, "/status") != "True" {
        return Some(format!("{about} is not ready: {}", said(ready)));
    }
    let [generation, observed] = ["/metadata/generation", "/status/observedGeneration"];
    if object.pointer(generation) != object.pointer(observed) {
        return Some(format!(
            "{about} was changed since our operator looked at it: wait a moment, or see whether our operator runs"
        ));
    }
    // The original operator called ready what it had not opened.
    let unopened =
        text(object, "/kind") == "ResticRepository" && text(object, "/status/repositoryID").is_empty();
    unopened.then(|| format!("{about} was not opened by our operator yet"))
}

/// Why it is not certain that a backup of ours works.
fn unproven(backup: &Value) -> Option<String> {
    let (namespace, name) = at(backup);
    text(backup, "/status/lastSuccessfulBackup").is_empty().then(|| {
        format!(
            "ResticBackup {namespace}/{name} has not made a backup yet: kubectl annotate rb {name} -n {namespace} \
             backup.resticbackup.io/run=1, and wait for it; --untried goes on without"
        )
    })
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
    match tool {
        Tool::Volsync if !is_true(theirs, "/spec/paused") => Some(patch(
            volsync::RESOURCE,
            json!({ "metadata": { "annotations": { pause::BY_FINISH: "true" } }, "spec": { "paused": true } }),
            format!("pause ReplicationSource {namespace}/{name}"),
        )),
        Tool::Cron if !is_true(theirs, "/spec/suspend") => Some(patch(
            cron::RESOURCE,
            json!({ "spec": { "suspend": true } }),
            format!("suspend CronJob {namespace}/{name}"),
        )),
        Tool::K8up => {
            let there: Vec<&str> = PARTS
                .into_iter()
                .filter(|name| part(theirs, name).is_some())
                .collect();
            // What an earlier finish has taken out stays in it.
            let mut kept = suspended(theirs).unwrap_or_default();
            let mut spec = json!({});
            for part in &there {
                kept.insert((*part).to_owned(), theirs["spec"][*part].clone());
                spec[*part] = Value::Null;
            }
            let kept = Value::Object(kept).to_string();
            let change = json!({ "metadata": { "annotations": { SUSPENDED: kept } }, "spec": spec });
            let what = format!(
                "take {} out of Schedule {namespace}/{name}; annotation {SUSPENDED} keeps what they were",
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
        resource: format!("{plural}.{GROUP}"),
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
#[path = "finish_tests.rs"]
mod tests;
