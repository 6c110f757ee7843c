//! CronJobs that run restic: the commands of their containers are read as far as that can be done without running them.
//! Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::cron_env::{Environment, environment};
use super::cron_pod::{Stored, stored};
use super::keep;
use super::plan::{Place, Plan, at, list, merged, text};
use super::restic_args::{Call, call};
use super::secret::{self, Secrets};
use super::when::{DAILY, when};
use super::words::commands;
use crate::arguments::Tool;

/// What is read.
pub const RESOURCE: &str = "cronjobs.batch";

/// A restic that a CronJob runs.
struct Run<'a> {
    cron_job: &'a Value,
    container: &'a Value,
    url: String,
    environment: Environment,
    call: Call,
}

/// Whether a CronJob may run restic.
fn concerns(cron_job: &Value) -> bool {
    cron_job.pointer("/spec/jobTemplate/spec/template/spec").is_some_and(|pod| pod.to_string().contains("restic"))
        // Ours are made by the operator.
        && cron_job.pointer("/metadata/ownerReferences/0").is_none()
        && text(cron_job, "/metadata/labels/app.kubernetes.io~1managed-by") != "restic-backup-operator"
}

/// Secrets that CronJobs with restic refer to, as namespace and name.
#[must_use]
pub fn secrets(cron_jobs: &[Value]) -> Vec<(String, String)> {
    let concerned = cron_jobs.iter().filter(|cron_job| concerns(cron_job));
    concerned
        .flat_map(|cron_job| {
            let names = super::cron_env::secrets(pod(cron_job));
            names.into_iter().map(|name| (at(cron_job).0.to_owned(), name))
        })
        .collect()
}

fn pod(cron_job: &Value) -> &Value {
    const NONE: &Value = &Value::Null;
    cron_job
        .pointer("/spec/jobTemplate/spec/template/spec")
        .unwrap_or(NONE)
}

fn describe(cron_job: &Value) -> String {
    let (namespace, name) = at(cron_job);
    format!("CronJob {namespace}/{name}")
}

/// What becomes of them.
#[must_use]
pub fn plan(cron_jobs: &[Value], secrets: &Secrets, running: bool) -> Plan {
    let mut plan = Plan::new(Tool::Cron, running);
    let mut runs: BTreeMap<(String, String), Vec<Run<'_>>> = BTreeMap::new();
    for cron_job in cron_jobs.iter().filter(|cron_job| concerns(cron_job)) {
        for run in read(&mut plan, cron_job, secrets) {
            let key = (at(cron_job).0.to_owned(), run.url.clone());
            runs.entry(key).or_default().push(run);
        }
    }
    for ((namespace, url), runs) in runs {
        repository(&mut plan, &namespace, &url, &runs);
    }
    plan
}

/// Runs of restic in a CronJob.
fn read<'a>(plan: &mut Plan, cron_job: &'a Value, secrets: &Secrets) -> Vec<Run<'a>> {
    let (about, namespace) = (describe(cron_job), at(cron_job).0);
    let mut runs = Vec::new();
    let pod = pod(cron_job);
    let containers = list(pod, "/initContainers")
        .iter()
        .chain(list(pod, "/containers"));
    for container in containers.filter(|container| container.to_string().contains("restic")) {
        let environment = environment(pod, container, namespace, secrets);
        let calls = match calls(container, &environment) {
            Ok(calls) => calls,
            Err(why) => {
                let name = text(container, "/name");
                plan.note(
                    &about,
                    format!(
                        "the command of container {name:?} cannot be read ({why}): nothing is made of it"
                    ),
                );
                continue;
            }
        };
        for call in calls {
            let url = call.repository.clone().or_else(|| environment.repository());
            let Some(url) = url.filter(|url| url.contains(':') && !url.starts_with('/')) else {
                plan.note(
                    &about,
                    "its repository is not known before it runs, or is a folder: nothing is made of it",
                );
                continue;
            };
            let environment = environment.clone();
            runs.push(Run {
                cron_job,
                container,
                url,
                environment,
                call,
            });
        }
    }
    runs
}

/// Calls of restic in a container's command.
fn calls(container: &Value, environment: &Environment) -> Result<Vec<Call>, String> {
    let words = |pointer: &str| -> Vec<String> {
        let list = list(container, pointer).iter();
        list.filter_map(|word| word.as_str().map(|word| environment.expand(word)))
            .collect()
    };
    let (command, arguments) = (words("/command"), words("/args"));
    let all = [command.clone(), arguments.clone()].concat();
    let shell =
        |word: &String| ["sh", "bash", "ash", "dash"].contains(&word.rsplit('/').next().unwrap_or_default());
    let lines = if all.first().is_some_and(shell) {
        let mut rest = all.iter().skip(1);
        let script = rest.position(|word| word.starts_with('-') && word.ends_with('c'));
        let script = script.and_then(|_| rest.next()).ok_or("its shell reads a file")?;
        commands(script, &environment.values)?
    } else if command.is_empty() && text(container, "/image").contains("restic") {
        // The image's own entrypoint is restic.
        vec![[vec!["restic".to_owned()], arguments].concat()]
    } else {
        vec![all]
    };
    let restic = lines.iter().filter_map(|line| {
        let (program, rest) = line.split_first()?;
        (program.rsplit('/').next() == Some("restic")).then_some(rest)
    });
    let calls: Vec<Call> = restic.map(call).collect();
    if calls.is_empty() {
        return Err("it does not call restic".to_owned());
    }
    Ok(calls)
}

/// A repository, with what CronJobs of a namespace do with it.
fn repository(plan: &mut Plan, namespace: &str, url: &str, runs: &[Run<'_>]) {
    let Some(first) = runs.first() else {
        return;
    };
    let about = describe(first.cron_job);
    let mut entries = BTreeMap::new();
    for run in runs.iter().rev() {
        entries.extend(run.environment.entries());
    }
    if !entries.contains_key("RESTIC_PASSWORD") {
        plan.note(
            &about,
            "its password is not in a variable or a mounted Secret: nothing is made of its repository",
        );
        return;
    }
    let url = &secret::without_user(url, &mut entries);
    let mut unknown: Vec<&String> = runs.iter().flat_map(|run| &run.environment.unknown).collect();
    unknown.dedup();
    for name in unknown {
        plan.note(
            &about,
            format!("the value of {name} is not known before it runs, and is not carried over"),
        );
    }
    let place = |run: &Run<'_>, name: &str| Place {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: format!("{RESOURCE}/{namespace}/{}", at(run.cron_job).1),
    };
    let named = at(first.cron_job).1;
    let secret = secret::reference(plan, namespace, named, entries);
    let repository = plan.repository(&place(first, named), url, &secret, json!({}));
    let backups: Vec<&Run<'_>> = runs.iter().filter(|run| run.call.command == "backup").collect();
    let mut series = Vec::new();
    for run in &backups {
        for stored in stored(pod(run.cron_job), run.container, &run.call) {
            match stored {
                Ok(stored) => series.push(backup(plan, run, &stored, &repository, &place)),
                Err(why) => plan.note(&describe(run.cron_job), why),
            }
        }
    }
    series.dedup();
    retention(plan, runs, &series, &repository, &place);
}

/// How the snapshots of a backup are selected, and grouped with those of before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Series {
    hostname: Option<String>,
    tags: Vec<String>,
    /// Theirs and ours are one group.
    joined: bool,
    /// Host of ours.
    own: String,
}

fn backup(
    plan: &mut Plan,
    run: &Run<'_>,
    stored: &Stored,
    repository: &str,
    place: &impl Fn(&Run<'_>, &str) -> Place,
) -> Series {
    let about = describe(run.cron_job);
    let cron = when(text(run.cron_job, "/spec/schedule"));
    if let Some(note) = &cron.note {
        plan.note(&about, note.clone());
    }
    let zone = text(run.cron_job, "/spec/timeZone");
    let zone = (!zone.is_empty()).then(|| zone.to_owned()).or(cron.timezone);
    for (option, why) in &run.call.left_out {
        plan.note(&about, format!("{option} is not carried over: {why}"));
    }
    let host = run.call.host.clone();
    if host.is_none() {
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
    let own = host.clone().unwrap_or_else(|| wanted.to_owned());
    let pod_user = pod(run.cron_job)
        .pointer("/securityContext")
        .cloned()
        .unwrap_or_default();
    let own_user = run
        .container
        .pointer("/securityContext")
        .cloned()
        .unwrap_or_default();
    let user = user(&pod_user, &own_user);
    let spec = json!({
        "schedule": cron.schedule, "timezone": zone,
        "source": { "pvc": { "claimName": stored.claim, "paths": stored.paths, "excludes": stored.excludes } },
        "restic": { "hostname": own, "tags": run.call.tags, "extraArgs": run.call.extra },
        "jobConfig": (!user.is_empty()).then(|| json!({ "securityContext": user })),
    });
    plan.backup(&place(run, wanted), json!({ "name": repository }), spec);
    Series {
        joined: host.is_some() && stored.alone && stored.single,
        hostname: host,
        tags: run.call.tags.clone(),
        own,
    }
}

/// User and groups that restic runs as.
fn user(pod: &Value, container: &Value) -> Map<String, Value> {
    let of = |name: &str| container.get(name).or_else(|| pod.get(name)).cloned();
    let names = ["runAsUser", "runAsGroup", "runAsNonRoot"].map(|name| (name, of(name)));
    let groups = ["fsGroup", "supplementalGroups"].map(|name| (name, pod.get(name).cloned()));
    let all = names.into_iter().chain(groups);
    all.filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// The policy that takes the place of `restic forget`.
fn retention(
    plan: &mut Plan,
    runs: &[Run<'_>],
    series: &[Series],
    repository: &str,
    place: &impl Fn(&Run<'_>, &str) -> Place,
) {
    let forgets: Vec<&Run<'_>> = runs.iter().filter(|run| run.call.command == "forget").collect();
    let Some(first) = forgets.first() else {
        if let Some(run) = runs.first() {
            plan.note(
                &describe(run.cron_job),
                "nothing runs restic forget on its repository: no policy is made",
            );
        }
        return;
    };
    let about = describe(first.cron_job);
    let prune = runs
        .iter()
        .any(|run| run.call.prune || run.call.command == "prune");
    let mut rules = Vec::new();
    for forget in &forgets {
        let kept = &forget.call.keep;
        if kept.is_empty() {
            plan.note(
                &describe(forget.cron_job),
                "its forget has no rule that keeps something: it is left out",
            );
            continue;
        }
        let narrowed = forget.call.host.is_some() || !forget.call.tags.is_empty();
        let about_series = |series: &&Series| {
            let host = forget.call.host.as_ref();
            let tags = &forget.call.tags;
            host.is_none_or(|host| *host == series.own) && tags.iter().all(|tag| series.tags.contains(tag))
        };
        let mine: Vec<&Series> = series.iter().filter(about_series).collect();
        if narrowed && mine.is_empty() {
            rules.push(keep::rule(
                selector(forget.call.host.as_deref(), &forget.call.tags),
                &[],
                kept,
            ));
        }
        rules.extend(mine.iter().map(|series| {
            let host = Some(series.own.as_str());
            let groups: &[&str] = if series.joined {
                &["host"]
            } else {
                &["host", "paths"]
            };
            keep::rule(selector(host, &[]), groups, kept)
        }));
        for series in mine
            .iter()
            .filter(|series| series.hostname.is_none() && !series.tags.is_empty())
        {
            rules.push(keep::rule(selector(None, &series.tags), &["paths", "tags"], kept));
        }
        if !narrowed {
            plan.note(
                &describe(forget.cron_job),
                "its forget is over the whole repository; the policy reaches what its CronJobs store: add rules for other hosts",
            );
        }
    }
    let mut different: Vec<Value> = Vec::new();
    for rule in rules {
        if !different.contains(&rule) {
            different.push(rule);
        }
    }
    if different.is_empty() {
        return;
    }
    if series.iter().any(|series| series.joined) {
        plan.note(
            &about,
            "theirs and ours are one series by their host; where other folders were stored under this host as well, set \
             groupBy: [host, paths] in the rule",
        );
    }
    let schedule = match forgets
        .iter()
        .any(|forget| forget.cron_job == first.cron_job && has_backup(runs, forget))
    {
        true => DAILY.to_owned(),
        false => when(text(first.cron_job, "/spec/schedule")).schedule,
    };
    plan.policy(
        &place(first, repository),
        json!({ "name": repository }),
        &schedule,
        different,
        prune,
    );
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

/// A ResticRepository of a file of variables, as scripts outside of Kubernetes read it.
///
/// # Errors
/// What is missing in it.
pub fn of_file(content: &str, namespace: &str, name: &str) -> Result<Plan, String> {
    let mut plan = Plan::new(Tool::Cron, false);
    let values = super::cron_env::lines(content);
    let url = values
        .get("RESTIC_REPOSITORY")
        .ok_or("it has no RESTIC_REPOSITORY")?;
    if !url.contains(':') || url.starts_with('/') {
        return Err(
            "RESTIC_REPOSITORY is a folder: put a server in front of it, and write its URL".to_owned(),
        );
    }
    if !values.contains_key("RESTIC_PASSWORD") {
        return Err(
            "it has no RESTIC_PASSWORD; write the password itself in place of a file or a command".to_owned(),
        );
    }
    let known = secret::variables("", &values);
    let entries = known
        .keys()
        .map(|key| (key.clone(), secret::Source::literal(&values[key])));
    let mut entries: BTreeMap<_, _> = entries.collect();
    let url = &secret::without_user(url, &mut entries);
    let reference = secret::reference(&mut plan, namespace, name, entries);
    let place = Place {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: String::new(),
    };
    plan.repository(&place, url, &reference, json!({}));
    plan.note(
        &format!("ResticRepository {namespace}/{name}"),
        "write a ResticBackup for what is to be backed up from now on, with restic.hostname: the host of before, and a \
         GlobalRetentionPolicy whose rule selects that hostname",
    );
    Ok(plan)
}

#[cfg(test)]
#[path = "cron_tests.rs"]
mod tests;
