//! CronJobs that run restic: what they do becomes resources of ours, as far as it can be read without running it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use proto::backend::Backend;
use serde_json::{Value, json};

use super::cron_env::Known;
use super::cron_job::settings;
use super::cron_keep::{Made, Series, retention};
use super::cron_pod::{Stored, stored};
use super::cron_run::{Run, concerns, describe, pod, read, source, zone};
use super::plan::{Place, Plan};
use super::secret::{self, Source};
use super::when::when;
use crate::arguments::Tool;
use crate::objects::{at, text};

pub use super::cron_run::{RESOURCE, stores};

/// Commands that change nothing which a backup or a policy would have to do.
const HARMLESS: [&str; 11] = [
    "",
    "cache",
    "cat",
    "diff",
    "find",
    "init",
    "list",
    "ls",
    "snapshots",
    "stats",
    "unlock",
];
/// How many backups store under a host in a repository, whatever their namespace.
type Hosts = BTreeMap<(String, String), usize>;

/// Secrets that CronJobs with restic refer to, as namespace and name.
#[must_use]
pub fn secrets(cron_jobs: &[Value]) -> Vec<(String, String)> {
    referred(cron_jobs, super::cron_env::secrets)
}

/// ConfigMaps, alike.
#[must_use]
pub fn config_maps(cron_jobs: &[Value]) -> Vec<(String, String)> {
    referred(cron_jobs, super::cron_env::config_maps)
}

fn referred(cron_jobs: &[Value], of: impl Fn(&Value) -> BTreeSet<String>) -> Vec<(String, String)> {
    let concerned = cron_jobs.iter().filter(|cron_job| concerns(cron_job));
    concerned
        .flat_map(|cron_job| {
            let names = of(pod(cron_job));
            names.into_iter().map(|name| (at(cron_job).0.to_owned(), name))
        })
        .collect()
}

/// What becomes of them.
#[must_use]
pub fn plan(cron_jobs: &[Value], known: Known<'_>, running: bool) -> Plan {
    let mut plan = Plan::new(Tool::Cron, running);
    let mut runs: BTreeMap<(String, String), Vec<Run<'_>>> = BTreeMap::new();
    let mut hosts = Hosts::new();
    for cron_job in cron_jobs.iter().filter(|cron_job| concerns(cron_job)) {
        if cron_job.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) {
            plan.note(&describe(cron_job), "it is suspended: nothing is made of it");
            continue;
        }
        for run in read(&mut plan, cron_job, known) {
            if let ("backup", Some(host)) = (run.call.command.as_str(), &run.call.host) {
                *hosts
                    .entry((secret::location(&run.url), host.clone()))
                    .or_default() += 1;
            }
            let key = (at(cron_job).0.to_owned(), secret::location(&run.url));
            runs.entry(key).or_default().push(run);
        }
    }
    let mut made: BTreeMap<String, Vec<Made<'_>>> = BTreeMap::new();
    for ((namespace, location), runs) in runs {
        let found = repository(&mut plan, &namespace, runs, &hosts);
        made.entry(location).or_default().push(found);
    }
    // After all of them: a forget may be over what other namespaces store.
    for made in made.values() {
        retention(&mut plan, made);
    }
    plan.settled()
}

/// A repository, with what CronJobs of a namespace store in it.
fn repository<'a>(plan: &mut Plan, namespace: &str, runs: Vec<Run<'a>>, hosts: &Hosts) -> Made<'a> {
    let mut made = Made {
        namespace: namespace.to_owned(),
        repository: None,
        series: Vec::new(),
        runs,
    };
    let (mut entries, mut url, mut named) = (BTreeMap::new(), String::new(), "");
    for run in made.runs.iter().rev() {
        entries.extend(run.environment.entries());
        url = secret::without_user(&run.url, &mut entries);
        named = at(run.cron_job).1;
    }
    partly(plan, &made.runs);
    if let Some(first) = made.runs.first() {
        taken(plan, first, &url, &mut entries);
    }
    if !entries.contains_key("RESTIC_PASSWORD") {
        for run in &made.runs {
            plan.leave(
                &source(run.cron_job),
                &describe(run.cron_job),
                "its password is not in a variable or a mounted Secret: nothing is made of its repository",
            );
        }
        return made;
    }
    let place = Place {
        namespace: namespace.to_owned(),
        name: named.to_owned(),
        source: sources(&made.runs, &["backup", "forget", "prune"]),
    };
    let secret = secret::reference(plan, &place, entries);
    let check = made
        .runs
        .iter()
        .find(|run| run.call.command == "check")
        .map(|run| {
            let found = when(text(run.cron_job, "/spec/schedule"));
            json!({ "integrityCheck": { "enabled": true, "schedule": found.schedule } })
        });
    let repository = plan.repository(&place, &url, &secret, check.unwrap_or_default());
    let backups = made.runs.iter().filter(|run| run.call.command == "backup");
    for run in backups {
        for stored in stored(pod(run.cron_job), run.container, &run.call) {
            match stored {
                Ok(stored) => {
                    let host = run.call.host.clone().map(|host| (secret::location(&url), host));
                    let alone = stored.alone && host.is_some_and(|key| hosts.get(&key) == Some(&1));
                    made.series.push(backup(plan, run, &stored, &repository, alone));
                }
                Err(why) => plan.leave(&source(run.cron_job), &describe(run.cron_job), why),
            }
        }
    }
    made.repository = Some(repository);
    made
}

/// Names what of CronJobs is not carried over.
fn partly(plan: &mut Plan, runs: &[Run<'_>]) {
    for run in runs {
        let (about, source, command) = (
            describe(run.cron_job),
            source(run.cron_job),
            run.call.command.as_str(),
        );
        for what in &run.environment.unknown {
            let text = format!("{what} is not known before it runs, and is not carried over");
            plan.leave(&source, &about, text);
        }
        match command {
            "backup" | "check" => {
                for (option, why) in &run.call.left_out {
                    plan.leave(&source, &about, format!("{option} is not carried over: {why}"));
                }
            }
            "forget" | "prune" => {}
            other if HARMLESS.contains(&other) => {}
            other => plan.leave(&source, &about, format!("restic {other} is not carried over")),
        }
    }
}

/// Leaves those variables that ours takes.
fn taken(plan: &mut Plan, first: &Run<'_>, url: &str, entries: &mut BTreeMap<String, Source>) {
    let Some(backend) = Backend::of(url) else {
        return;
    };
    let files = backend.files().iter().map(|file| file.key);
    let ours: BTreeSet<&str> = backend
        .variables()
        .chain(files)
        .chain(["RESTIC_PASSWORD"])
        .collect();
    entries.retain(|name, _| {
        let is_ours = ours.contains(name.as_str());
        if !is_ours {
            let text = format!("ours has no use for {name}, and it is not carried over");
            plan.note(&describe(first.cron_job), text);
        }
        is_ours
    });
}

/// CronJobs that run one of these commands, as sources.
pub(super) fn sources(runs: &[Run<'_>], commands: &[&str]) -> String {
    let all: BTreeSet<String> = runs
        .iter()
        .filter(|run| commands.contains(&run.call.command.as_str()))
        .map(|run| source(run.cron_job))
        .collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn backup(plan: &mut Plan, run: &Run<'_>, stored: &Stored, repository: &str, alone: bool) -> Series {
    let about = describe(run.cron_job);
    let cron = when(text(run.cron_job, "/spec/schedule"));
    if let Some(note) = &cron.note {
        plan.note(&about, note.clone());
    }
    let zone = zone(run.cron_job).or(cron.timezone);
    let host = run.call.host.clone();
    if host.is_none() && !run.host_is_hidden {
        plan.note(
            &about,
            "it names no --host, so each of its snapshots has the name of its pod as host: theirs are no series that could \
             be selected, unless by a tag",
        );
    }
    let wanted = if stored.alone {
        at(run.cron_job).1
    } else {
        &stored.claim
    };
    let own = match &host {
        Some(host) if alone => host.clone(),
        Some(host) => format!("{host}-{}", stored.claim),
        None => wanted.to_owned(),
    };
    let extra = [run.call.extra.as_slice(), &stored.extra].concat();
    let spec = json!({
        "schedule": cron.schedule, "timezone": zone,
        "source": { "pvc": { "claimName": stored.claim, "paths": stored.paths, "excludes": stored.excludes } },
        "restic": { "hostname": own, "tags": run.call.tags, "extraArgs": extra },
        "jobConfig": settings(plan, run.cron_job, run.container),
    });
    let namespace = at(run.cron_job).0;
    let place = Place {
        namespace: namespace.to_owned(),
        name: wanted.to_owned(),
        source: source(run.cron_job),
    };
    let name = plan.backup(&place, json!({ "name": repository }), spec);
    Series {
        hostname: host,
        tags: run.call.tags.clone(),
        own,
        backup: format!("{namespace}/{name}"),
    }
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
