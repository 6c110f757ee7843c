//! What becomes of the prune of a k8up Schedule. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::k8up_job::of_prune;
use super::k8up_parts::part;
use super::keep;
use super::plan::{Place, Plan, merged};
use super::when::{DAILY, when};
use crate::objects::{at, list, text};

const KEEPS: [(&str, &str); 6] = [
    ("keepLast", "keepLast"),
    ("keepHourly", "keepHourly"),
    ("keepDaily", "keepDaily"),
    ("keepWeekly", "keepWeekly"),
    ("keepMonthly", "keepMonthly"),
    ("keepYearly", "keepYearly"),
];
/// Rules that a policy takes.
const MOST: usize = 64;

/// The policy that takes the place of a Schedule's prune. `place` has the name of the repository that it prunes, and `ours`
/// are the names of our backups in that.
pub(super) fn retention(
    plan: &mut Plan,
    schedule: &Value,
    about: &str,
    ours: &BTreeSet<String>,
    place: &Place,
) {
    let Some(prune) = part(schedule, "prune") else {
        plan.note(
            about,
            "it has no prune: nothing is removed, and no policy is made",
        );
        return;
    };
    let theirs = prune.get("retention").cloned().unwrap_or_default();
    let Some(selectors) = selectors(plan, &theirs, at(schedule).0, about) else {
        return;
    };
    let kept = kept(plan, &theirs, about);
    let mut rules = rules(&selectors, at(schedule).0, ours, &kept);
    if rules.len() > MOST {
        let text = format!(
            "a policy has {MOST} rules at most: rules for the other backups have to be written by hand"
        );
        plan.note(about, text);
        rules.truncate(MOST);
    }
    let found = match text(prune, "/schedule") {
        "" => when(DAILY),
        theirs => when(theirs),
    };
    if let Some(note) = &found.note {
        plan.note(about, note.clone());
    }
    plan.note(
        about,
        "k8up's own prune goes over the whole repository, ours included, until `fleet migrate finish k8up`",
    );
    plan.policy(place, json!({ "name": place.name }), &found.schedule, rules, true);
    if let (Some(policy), Some(job)) = (plan.objects.last_mut(), of_prune(schedule)) {
        policy["spec"]["jobConfig"] = job;
    }
}

/// What a rule selects beside the host: nothing, or one tag each. `None` where k8up removes nothing of this Schedule.
fn selectors(plan: &mut Plan, theirs: &Value, namespace: &str, about: &str) -> Option<Vec<Value>> {
    let texts = |name: &str| -> Vec<&str> {
        list(theirs, &format!("/{name}"))
            .iter()
            .filter_map(Value::as_str)
            .collect()
    };
    let hosts = texts("hostnames");
    if !hosts.is_empty() && !hosts.contains(&namespace) {
        plan.note(
            about,
            format!("retention.hostnames does not name {namespace}: no policy is made"),
        );
        return None;
    }
    let tags = texts("tags");
    if tags.is_empty() {
        return Some(vec![json!({})]);
    }
    plan.note(
        about,
        "retention.tags narrows what k8up removes: the policy has a rule for each of these tags, and what has none is kept",
    );
    // An entry with commas means all of its tags.
    let one = |tags: &&str| {
        let tags: Vec<&str> = tags
            .split(',')
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
            .collect();
        (!tags.is_empty()).then(|| json!({ "tags": tags }))
    };
    let all: Option<Vec<Value>> = tags.iter().map(one).collect();
    if all.is_none() {
        plan.note(
            about,
            "retention.tags has an entry without a tag: no policy is made",
        );
    }
    all
}

/// What k8up keeps, as ours writes it.
fn kept(plan: &mut Plan, theirs: &Value, about: &str) -> Map<String, Value> {
    let mut kept = keep::counts(theirs, &KEEPS);
    if !kept.contains_key("keepDaily") {
        // The default of its operator, which it does not show.
        kept.insert("keepDaily".to_owned(), json!(14));
        plan.note(about, "it sets no keepDaily, for which k8up takes 14 unless its operator says otherwise: so does the policy");
    }
    if !list(theirs, "/keepTags").is_empty() {
        kept.insert("keepTags".to_owned(), theirs["keepTags"].clone());
    }
    kept
}

/// Rules for theirs and for ours, one for each selector. Theirs are grouped as k8up does. Each of ours is selected by its own
/// tag and grouped by restic's host, paths and tags, of which one is the cluster: nothing counts with what another source or
/// another cluster has stored.
fn rules(
    selectors: &[Value],
    namespace: &str,
    ours: &BTreeSet<String>,
    kept: &Map<String, Value>,
) -> Vec<Value> {
    let of_theirs = |selector: &Value| {
        let selector = merged(json!({ "hostname": namespace }), selector.clone());
        keep::rule(selector, &["host", "paths"], kept)
    };
    let of_one = |name: &String, selector: &Value| {
        let mut tags = vec![json!(format!("fleet.backup={namespace}/{name}"))];
        tags.extend(list(selector, "/tags").iter().cloned());
        keep::rule(json!({ "tags": tags }), &[], kept)
    };
    let own = ours
        .iter()
        .flat_map(|name| selectors.iter().map(move |selector| of_one(name, selector)));
    selectors.iter().map(of_theirs).chain(own).collect()
}
