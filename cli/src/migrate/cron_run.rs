//! What a CronJob runs: the calls of restic in the commands of its containers. Pure.

use serde_json::Value;

use super::cron_env::{Environment, environment};
use super::plan::Plan;
use super::restic_args::{Call, call};
use super::secret::Secrets;
use super::words::commands;
use crate::objects::{at, list, text};

/// What is read.
pub const RESOURCE: &str = "cronjobs.batch";
/// Commands of a shell that do nothing beside the calls of restic.
const SILENT: [&str; 4] = ["set", "echo", "true", ":"];

/// A restic that a CronJob runs.
pub(super) struct Run<'a> {
    pub(super) cron_job: &'a Value,
    pub(super) container: &'a Value,
    pub(super) url: String,
    pub(super) environment: Environment,
    pub(super) call: Call,
}

/// Whether a CronJob may run restic.
pub(super) fn concerns(cron_job: &Value) -> bool {
    cron_job.pointer("/spec/jobTemplate/spec/template/spec").is_some_and(|pod| pod.to_string().contains("restic"))
        // Ours are made by the operator.
        && cron_job.pointer("/metadata/ownerReferences/0").is_none()
        && text(cron_job, "/metadata/labels/app.kubernetes.io~1managed-by") != "restic-backup-operator"
}

/// The pod of a CronJob.
pub(super) fn pod(cron_job: &Value) -> &Value {
    const NONE: &Value = &Value::Null;
    cron_job
        .pointer("/spec/jobTemplate/spec/template/spec")
        .unwrap_or(NONE)
}

pub(super) fn describe(cron_job: &Value) -> String {
    let (namespace, name) = at(cron_job);
    format!("CronJob {namespace}/{name}")
}

pub(super) fn source(cron_job: &Value) -> String {
    let (namespace, name) = at(cron_job);
    format!("{RESOURCE}/{namespace}/{name}")
}

/// Time zone of its schedule, where it names one.
pub(super) fn zone(cron_job: &Value) -> Option<String> {
    let zone = text(cron_job, "/spec/timeZone");
    (!zone.is_empty()).then(|| zone.to_owned())
}

/// Runs of restic in a CronJob.
pub(super) fn read<'a>(plan: &mut Plan, cron_job: &'a Value, secrets: &Secrets) -> Vec<Run<'a>> {
    let (about, namespace, source) = (describe(cron_job), at(cron_job).0, source(cron_job));
    let mut runs = Vec::new();
    let pod = pod(cron_job);
    let containers = list(pod, "/initContainers")
        .iter()
        .chain(list(pod, "/containers"));
    for container in containers {
        let name = text(container, "/name");
        if !container.to_string().contains("restic") {
            plan.leave(
                &source,
                &about,
                format!("container {name:?} does not run restic, and is not carried over"),
            );
            continue;
        }
        let environment = environment(pod, container, namespace, secrets);
        let calls = match calls(container, &environment) {
            Ok(calls) => calls,
            Err(why) => {
                plan.leave(
                    &source,
                    &about,
                    format!(
                        "the command of container {name:?} cannot be read ({why}): nothing is made of it"
                    ),
                );
                continue;
            }
        };
        for mut call in calls {
            // restic's own default, of a backup and of what a forget selects.
            call.host = call
                .host
                .or_else(|| environment.values.get("RESTIC_HOST").cloned());
            let url = call.repository.clone().or_else(|| environment.repository());
            let Some(url) = url.filter(|url| url.contains(':') && !url.starts_with('/')) else {
                plan.leave(
                    &source,
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
    let mut calls = Vec::new();
    for line in &lines {
        match line.split_first() {
            Some((program, rest)) if program.rsplit('/').next() == Some("restic") => calls.push(call(rest)),
            Some((program, _)) if !SILENT.contains(&program.as_str()) => {
                return Err(format!("it runs {program} beside restic"));
            }
            _ => {}
        }
    }
    if calls.is_empty() {
        return Err("it does not call restic".to_owned());
    }
    Ok(calls)
}

/// Whether a CronJob may make backups, as far as that can be read without its Secrets.
#[must_use]
pub fn stores(cron_job: &Value) -> bool {
    let pod = pod(cron_job);
    let mut containers = list(pod, "/initContainers")
        .iter()
        .chain(list(pod, "/containers"));
    containers.any(|container| {
        let environment = environment(pod, container, at(cron_job).0, &Secrets::new());
        calls(container, &environment).map_or(true, |calls| calls.iter().any(|call| call.command == "backup"))
    })
}
