//! When Velero stores a namespace into a location, and for how long it keeps that. Pure.

use serde_json::{Map, Value, json};

use super::keep;
use super::plan::Plan;
use super::unread::unread;
use super::velero::{Found, Stored};
use super::when::{DAILY, when};
use crate::objects::{at, is_true, list, text};

/// Fields of a Schedule's template that are carried over, or that are not about what its pods' volumes hold.
const READ: [&str; 17] = [
    "includedNamespaces",
    "excludedNamespaces",
    "storageLocation",
    "ttl",
    "metadata",
    "defaultVolumesToFsBackup",
    "defaultVolumesToRestic",
    "snapshotVolumes",
    "snapshotMoveData",
    "datamover",
    "volumeSnapshotLocations",
    "csiSnapshotTimeout",
    "itemOperationTimeout",
    "includeClusterResources",
    "includedClusterScopedResources",
    "excludedClusterScopedResources",
    "orderedResources",
];

/// When backups run, and what is kept of them; `None` where that is not certain.
pub(super) struct Times {
    pub schedule: String,
    pub timezone: Option<String>,
    pub kept: Option<Map<String, Value>>,
}

/// Whether a Schedule backs up a namespace.
fn covers(schedule: &Value, workload: &str) -> bool {
    let names =
        |pointer: &str| -> Vec<&str> { list(schedule, pointer).iter().filter_map(Value::as_str).collect() };
    let (included, excluded) = (
        names("/spec/template/includedNamespaces"),
        names("/spec/template/excludedNamespaces"),
    );
    let all = included.is_empty() || included.contains(&"*");
    (all || included.contains(&workload)) && !excluded.contains(&workload)
}

/// The location of a Schedule that names none.
fn default_location<'a>(found: &'a Found, own: &str) -> &'a str {
    let mut locations = found.locations.iter();
    let default = locations.find(|one| at(one).0 == own && is_true(one, "/spec/default"));
    // That of its server, unless it was told another one.
    default.map_or("default", |one| at(one).1)
}

/// When Velero stores a namespace into a location; `None` where it does no more, and stores it into another one.
pub(super) fn times(plan: &mut Plan, found: &Found, stored: &Stored<'_>) -> Option<Times> {
    let (workload, about) = (stored.workload, stored.about);
    let default = default_location(found, stored.own);
    let is_here = |schedule: &&Value| match text(schedule, "/spec/template/storageLocation") {
        "" => default == stored.location,
        location => location == stored.location,
    };
    let covering = found
        .schedules
        .iter()
        .filter(|one| at(one).0 == stored.own && covers(one, workload));
    let (here, elsewhere): (Vec<&Value>, Vec<&Value>) = covering.partition(is_here);
    let is_paused = |schedule: &&Value| is_true(schedule, "/spec/paused");
    let (paused, here): (Vec<&Value>, Vec<&Value>) = here.into_iter().partition(is_paused);
    for schedule in paused {
        let name = at(schedule).1;
        plan.note(about, format!("Schedule {name} is paused, and does not count"));
    }
    let Some(first) = here.first() else {
        if elsewhere.iter().any(|one| !is_paused(one)) {
            plan.note(
                about,
                format!(
                    "no Schedule stores {workload} in {} any more: only its repository is made, to restore from; delete it \
                     where nothing of it is needed",
                    stored.location
                ),
            );
            return None;
        }
        plan.note(
            about,
            format!("no Schedule covers {workload}: ours runs once a day, and no policy is made"),
        );
        return Some(Times {
            schedule: DAILY.to_owned(),
            timezone: None,
            kept: None,
        });
    };
    Some(of_schedule(plan, first, here.len() - 1, stored))
}

/// The times of a Schedule, beside which so many more store the same.
fn of_schedule(plan: &mut Plan, schedule: &Value, more: usize, stored: &Stored<'_>) -> Times {
    let (about, name) = (stored.about, at(schedule).1);
    if more > 0 {
        plan.note(
            about,
            format!(
                "{more} more Schedules cover {}; ours has the schedule of {name}, and no policy is made",
                stored.workload
            ),
        );
    }
    let template = schedule.pointer("/spec/template").unwrap_or(&Value::Null);
    let left: Vec<String> = unread(template, &READ).into_iter().collect();
    if !left.is_empty() {
        let text = format!(
            "{} of Schedule {name}: nothing of ours does that",
            left.join(", ")
        );
        plan.note(about, text);
    }
    let when = when(text(schedule, "/spec/schedule"));
    if let Some(note) = when.note {
        plan.note(about, note);
    }
    // Its own default.
    let ttl = Some(text(template, "/ttl"))
        .filter(|ttl| !ttl.is_empty())
        .unwrap_or("720h0m0s");
    let span = keep::from_duration(ttl);
    if span.is_none() {
        plan.note(about, format!("ttl {ttl:?} cannot be read: no policy is made"));
    }
    let kept = span.filter(|_| more == 0);
    Times {
        schedule: when.schedule,
        timezone: when.timezone,
        kept: kept.map(|span| Map::from_iter([("keepWithin".to_owned(), json!(span))])),
    }
}
