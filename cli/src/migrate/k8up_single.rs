//! Backups of k8up that no Schedule has made: each was one run, which a person or a pipeline has asked for. What they store and
//! no Schedule does becomes a backup of ours. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::k8up::{Found, claims, one};
use super::k8up_backend::backend;
use super::plan::Plan;
use crate::objects::{at, list, text};

/// What is read.
pub const RESOURCE: &str = "backups.k8up.io";
const KIND: &str = "Backup";

/// Adds what becomes of them, after that of Schedules.
pub(super) fn plan(plan: &mut Plan, found: &Found) {
    let mut theirs: Vec<&Value> = found.backups.iter().filter(|one| !of_schedule(one)).collect();
    // The newest says how it is done now.
    theirs.sort_by_key(|one| std::cmp::Reverse(text(one, "/metadata/creationTimestamp")));
    let mut covered: BTreeMap<&str, usize> = BTreeMap::new();
    for backup in theirs {
        let namespace = at(backup).0;
        let about = format!("Backup {namespace}/{}", at(backup).1);
        let schedule = as_schedule(backup);
        let backend = match backend(&schedule, Some("backup")) {
            Ok(backend) => backend,
            Err(why) => {
                // One note for all that were made alike.
                let about = format!("Backups of {namespace}");
                plan.note(&about, format!("{why}: nothing is made of them"));
                continue;
            }
        };
        let known = repository(plan, namespace, &backend.url);
        let stored = known.as_deref().map(|name| stored(plan, namespace, name));
        let wanted = claims(found, namespace, &schedule["spec"]["backup"]);
        let is_new = |claim: &String| stored.as_ref().is_none_or(|stored| !stored.contains(claim));
        let new: BTreeSet<String> = wanted.into_iter().filter(is_new).collect();
        if new.is_empty() && known.is_some() {
            *covered.entry(namespace).or_default() += 1;
            continue;
        }
        let mut part = found.clone();
        part.claims
            .retain(|claim| at(claim).0 != namespace || new.contains(at(claim).1));
        plan.note(
            &about,
            "no Schedule does what it did once: ours runs once a day, or set a schedule",
        );
        one(plan, &part, &schedule, &about);
    }
    for (namespace, count) in covered {
        plan.note(
            &format!("Backups of {namespace}"),
            format!(
                "{count} of them stored what the backups above store: for a run at once, kubectl annotate rb NAME -n \
                 {namespace} backup.resticbackup.io/run=1"
            ),
        );
    }
}

/// Whether it is read as a Schedule, and none.
pub(super) fn is_single(schedule: &Value) -> bool {
    text(schedule, "/kind") == KIND
}

/// The repository of a plan with this URL, in a namespace.
pub(super) fn repository(plan: &Plan, namespace: &str, url: &str) -> Option<String> {
    let mut objects = plan.objects.iter();
    let found = objects.find(|object| {
        text(object, "/kind") == "ResticRepository"
            && at(object).0 == namespace
            && text(object, "/spec/repositoryURL") == url
    });
    found.map(|object| at(object).1.to_owned())
}

/// Claims that backups of the plan store in a repository.
fn stored(plan: &Plan, namespace: &str, repository: &str) -> BTreeSet<String> {
    let of = plan
        .objects
        .iter()
        .filter(|object| at(object).0 == namespace && text(object, "/spec/repositoryRef/name") == repository);
    of.map(|object| text(object, "/spec/source/pvc/claimName").to_owned())
        .collect()
}

fn of_schedule(backup: &Value) -> bool {
    let mut owners = list(backup, "/metadata/ownerReferences").iter();
    owners.any(|owner| text(owner, "/kind") == "Schedule")
}

/// A Schedule that does the same, with a name that is the same for all that were made alike.
fn as_schedule(backup: &Value) -> Value {
    let (namespace, name) = at(backup);
    let name = match text(backup, "/metadata/generateName").trim_end_matches('-') {
        "" => name,
        prefix => prefix,
    };
    let theirs = backup.get("spec").cloned().unwrap_or_default();
    json!({
        "kind": KIND,
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "backend": theirs["backend"], "backup": theirs },
    })
}

#[cfg(test)]
#[path = "k8up_single_tests.rs"]
mod tests;
