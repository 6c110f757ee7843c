//! What becomes of `restic forget` in CronJobs. A rule selects and groups as restic does, or there is none: a snapshot that
//! theirs would have kept is never removed by a guess. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::cron::sources;
use super::cron_run::{Run, describe, source, zone};
use super::keep;
use super::plan::{Place, Plan, merged};
use super::when::{DAILY, when};
use crate::objects::text;

/// restic's own groups of a forget.
const GROUPS: [&str; 2] = ["host", "paths"];
/// Rules that a policy takes.
const MOST: usize = 64;

/// What is made of the CronJobs that use a repository in one namespace.
pub(super) struct Made<'a> {
    pub namespace: String,
    /// Name of ours; none where nothing could be made.
    pub repository: Option<String>,
    pub series: Vec<Series>,
    pub runs: Vec<Run<'a>>,
}

/// How the snapshots of a backup are selected.
pub(super) struct Series {
    /// Host and tags of theirs.
    pub hostname: Option<String>,
    pub tags: Vec<String>,
    /// Host of ours.
    pub own: String,
    /// Namespace and name of ours.
    pub backup: String,
}

/// What is stored in a repository, from whichever namespace.
struct All<'a> {
    /// Hosts of theirs, also of what has no backup of ours in its place.
    hosts: BTreeSet<&'a str>,
    series: Vec<&'a Series>,
}

/// The policies that take the place of `restic forget` and `restic prune` on one repository.
pub(super) fn retention(plan: &mut Plan, made: &[Made<'_>]) {
    let runs = || made.iter().flat_map(|made| &made.runs);
    let is = |run: &Run<'_>, command: &str| run.call.command == command;
    if !runs().any(|run| is(run, "forget")) {
        for run in made.iter().filter_map(|made| made.runs.first()) {
            let text = "no CronJob that was read runs restic forget on its repository: no policy is made";
            plan.note(&describe(run.cron_job), text);
        }
    }
    let backups = runs().filter(|run| is(run, "backup"));
    let all = All {
        hosts: backups.filter_map(|run| run.call.host.as_deref()).collect(),
        series: made.iter().flat_map(|made| &made.series).collect(),
    };
    let of_each: Vec<Vec<Value>> = made.iter().map(|made| rules(plan, made, &all)).collect();
    let without = made.iter().zip(&of_each).filter(|(_, rules)| rules.is_empty());
    // Each run of a policy frees what all of them have removed.
    let others: Vec<&Run<'_>> = without
        .flat_map(|(made, _)| &made.runs)
        .filter(|run| is(run, "prune"))
        .collect();
    let mut has_policy = false;
    for (made, rules) in made.iter().zip(of_each) {
        let prunes = |run: &Run<'_>| run.call.prune || is(run, "prune");
        if let (Some(repository), false) = (&made.repository, rules.is_empty()) {
            let prune = !others.is_empty() || made.runs.iter().any(prunes);
            policy(plan, made, repository, rules, prune);
            has_policy = true;
        }
    }
    for run in others.iter().filter(|_| !has_policy) {
        plan.leave(
            &source(run.cron_job),
            &describe(run.cron_job),
            "it frees its space, and no policy takes its place: it goes on",
        );
    }
}

/// The rules of all that a namespace forgets; none where they are too many.
fn rules(plan: &mut Plan, made: &Made<'_>, all: &All<'_>) -> Vec<Value> {
    let forgets = || made.runs.iter().filter(|run| run.call.command == "forget");
    let mut rules: Vec<Value> = Vec::new();
    if made.repository.is_none() {
        return rules;
    }
    for forget in forgets() {
        for rule in of_forget(plan, forget, all) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if rules.len() > MOST {
        let text = format!("a policy has {MOST} rules at most: none is made, write one by hand");
        for forget in forgets() {
            plan.leave(&source(forget.cron_job), &describe(forget.cron_job), text.clone());
        }
        rules.clear();
    }
    rules
}

fn policy(plan: &mut Plan, made: &Made<'_>, repository: &str, rules: Vec<Value>, prune: bool) {
    let mut forgets = made.runs.iter().filter(|run| run.call.command == "forget");
    let Some(first) = forgets.clone().next() else {
        return;
    };
    let about = describe(first.cron_job);
    plan.note(
        &about,
        "the policy counts theirs as restic forget does, by host and paths, and ours beside them: theirs do not run out",
    );
    let (schedule, timezone) = match forgets.any(|forget| has_backup(&made.runs, forget)) {
        true => (DAILY.to_owned(), None),
        false => {
            let found = when(text(first.cron_job, "/spec/schedule"));
            found.note.iter().for_each(|note| plan.note(&about, note.clone()));
            (found.schedule, zone(first.cron_job).or(found.timezone))
        }
    };
    let place = Place {
        namespace: made.namespace.clone(),
        name: repository.to_owned(),
        source: sources(&made.runs, &["forget", "prune"]),
    };
    plan.policy(&place, json!({ "name": repository }), &schedule, rules, prune);
    if let (Some(object), Some(timezone)) = (plan.objects.last_mut(), timezone) {
        object["spec"]["timezone"] = json!(timezone);
    }
}

/// The rules of one forget; none where it is not certain what it keeps.
fn of_forget(plan: &mut Plan, forget: &Run<'_>, all: &All<'_>) -> Vec<Value> {
    let (about, source, call) = (describe(forget.cron_job), source(forget.cron_job), &forget.call);
    if !call.unclear.is_empty() {
        let why = call.unclear.join(", ");
        plan.leave(
            &source,
            &about,
            format!("no rule is made of its forget, write one by hand: {why}"),
        );
        return Vec::new();
    }
    if call.keep.is_empty() {
        plan.note(
            &about,
            "its forget has no rule that keeps something: it is left out",
        );
        return Vec::new();
    }
    let of_it = |one: &&&Series| {
        let hosts = call.host.is_none() || call.host == one.hostname;
        hosts && call.tags.iter().all(|tag| one.tags.contains(tag))
    };
    let mut rules = Vec::new();
    if call.host.is_some() || !call.tags.is_empty() {
        rules.push(keep::rule(
            selector(call.host.as_deref(), &call.tags),
            &GROUPS,
            &call.keep,
        ));
    } else if all.hosts.is_empty() {
        plan.leave(
            &source,
            &about,
            "its forget is over the whole repository, and no CronJob that was read stores there under a --host: no rule is \
             made of it. Read all namespaces that store there (without -n), or write a policy by hand",
        );
        return rules;
    } else {
        let hosts = all.hosts.iter();
        rules.extend(hosts.map(|host| keep::rule(selector(Some(host), &[]), &GROUPS, &call.keep)));
        plan.note(
            &about,
            "its forget is over the whole repository; the policy reaches what the CronJobs that were read store: add rules \
             for other hosts",
        );
    }
    // Each of ours by itself: with restic's own groups, since all of them have one path.
    let ours = all.series.iter().filter(of_it).map(|one| {
        let tag = format!("fleet.backup={}", one.backup);
        keep::rule(selector(Some(&one.own), &[tag]), &[], &call.keep)
    });
    rules.extend(ours);
    rules
}

/// Whether the CronJob of a forget makes backups as well: then it is run at each of them.
fn has_backup(runs: &[Run<'_>], forget: &Run<'_>) -> bool {
    let mut runs = runs.iter();
    runs.any(|run| run.call.command == "backup" && run.cron_job == forget.cron_job)
}

fn selector(host: Option<&str>, tags: &[String]) -> Value {
    let host = host.map(|host| json!({ "hostname": host })).unwrap_or(json!({}));
    match tags {
        [] => host,
        tags => merged(host, json!({ "tags": tags })),
    }
}

#[cfg(test)]
#[path = "cron_keep_tests.rs"]
mod tests;
