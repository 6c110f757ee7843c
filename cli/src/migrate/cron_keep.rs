//! What becomes of `restic forget` in CronJobs. A rule selects and groups as restic does, or there is none: a snapshot that
//! theirs would have kept is never removed by a guess. Pure.

use serde_json::{Value, json};

use super::cron::sources;
use super::cron_run::{Run, describe, source};
use super::keep;
use super::plan::{Place, Plan, merged};
use super::when::{DAILY, when};
use crate::objects::text;

/// restic's own groups of a forget.
const GROUPS: [&str; 2] = ["host", "paths"];
/// Rules that a policy takes.
const MOST: usize = 64;

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

/// The policy that takes the place of `restic forget`.
pub(super) fn retention(
    plan: &mut Plan,
    runs: &[Run<'_>],
    series: &[Series],
    namespace: &str,
    repository: &str,
) {
    let forgets: Vec<&Run<'_>> = runs.iter().filter(|run| run.call.command == "forget").collect();
    let Some(first) = forgets.first() else {
        if let Some(run) = runs.first() {
            let text = "nothing runs restic forget on its repository: no policy is made";
            plan.note(&describe(run.cron_job), text);
        }
        return;
    };
    let mut rules: Vec<Value> = Vec::new();
    for forget in &forgets {
        for rule in of_forget(plan, forget, series) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if rules.len() > MOST {
        let text = format!("a policy has {MOST} rules at most: none is made, write one by hand");
        forgets.iter().for_each(|forget| {
            plan.leave(&source(forget.cron_job), &describe(forget.cron_job), text.clone())
        });
        return;
    }
    if rules.is_empty() {
        return;
    }
    plan.note(
        &describe(first.cron_job),
        "the policy counts theirs as restic forget does, by host and paths, and ours beside them: theirs do not run out",
    );
    let schedule = match forgets.iter().any(|forget| has_backup(runs, forget)) {
        true => DAILY.to_owned(),
        false => when(text(first.cron_job, "/spec/schedule")).schedule,
    };
    let prunes = |run: &Run<'_>| run.call.prune || run.call.command == "prune";
    let place = Place {
        namespace: namespace.to_owned(),
        name: repository.to_owned(),
        source: sources(runs, &["forget", "prune"]),
    };
    plan.policy(
        &place,
        json!({ "name": repository }),
        &schedule,
        rules,
        runs.iter().any(prunes),
    );
}

/// The rules of one forget; none where it is not certain what it keeps.
fn of_forget(plan: &mut Plan, forget: &Run<'_>, series: &[Series]) -> Vec<Value> {
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
    let of_it = |one: &&Series| {
        let hosts = call.host.is_none() || call.host == one.hostname;
        hosts && call.tags.iter().all(|tag| one.tags.contains(tag))
    };
    let mine = || series.iter().filter(of_it);
    let mut rules = Vec::new();
    if call.host.is_some() || !call.tags.is_empty() {
        rules.push(keep::rule(
            selector(call.host.as_deref(), &call.tags),
            &GROUPS,
            &call.keep,
        ));
    } else {
        let hosts = mine().filter_map(|one| one.hostname.as_deref());
        rules.extend(hosts.map(|host| keep::rule(selector(Some(host), &[]), &GROUPS, &call.keep)));
        plan.note(
            &about,
            "its forget is over the whole repository; the policy reaches what its CronJobs store: add rules for other hosts",
        );
    }
    // Each of ours by itself: with restic's own groups, since all of them have one path.
    let ours = mine().map(|one| {
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
