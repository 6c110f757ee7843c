//! What a CronJob runs: the calls of restic in the commands of its containers. Pure.

use serde_json::Value;

use super::cron_env::{Environment, Known, Within, environment};
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
    /// A host is set, by a variable whose value is not known.
    pub(super) host_is_hidden: bool,
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
pub(super) fn read<'a>(plan: &mut Plan, cron_job: &'a Value, known: Known<'_>) -> Vec<Run<'a>> {
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
        let within = Within {
            namespace,
            pod,
            container,
        };
        let environment = environment(within, known);
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
        for call in calls {
            match run(cron_job, within, known, environment.clone(), call) {
                Some(run) => runs.push(run),
                None => plan.leave(
                    &source,
                    &about,
                    "its repository is not known before it runs, or is a folder: nothing is made of it",
                ),
            }
        }
    }
    runs
}

/// A call with what it reads; none where its repository is not known.
fn run<'a>(
    cron_job: &'a Value,
    within: Within<'a>,
    known: Known<'_>,
    mut environment: Environment,
    mut call: Call,
) -> Option<Run<'a>> {
    // An option counts more than a variable.
    for (variable, path) in &call.files {
        environment.set_of_file(within, known, variable, path);
    }
    let mut host_is_hidden = false;
    if call.host.is_none() {
        // restic's own default, of a backup and of what a forget selects.
        call.host = environment.values.get("RESTIC_HOST").cloned();
        host_is_hidden = environment.may_hide("RESTIC_HOST");
    }
    if host_is_hidden && call.command == "forget" {
        call.unclear
            .push("the value of RESTIC_HOST is not known before it runs".to_owned());
    }
    let url = call.repository.clone().or_else(|| environment.repository())?;
    (url.contains(':') && !url.starts_with('/')).then_some(Run {
        cron_job,
        container: within.container,
        url,
        environment,
        call,
        host_is_hidden,
    })
}

/// Calls of restic in a container's command.
fn calls(container: &Value, environment: &Environment) -> Result<Vec<Call>, String> {
    let raw = |pointer: &str| {
        let list = list(container, pointer).iter();
        list.filter_map(Value::as_str)
    };
    let is_shell =
        |word: &str| ["sh", "bash", "ash", "dash"].contains(&word.rsplit('/').next().unwrap_or_default());
    let has_shell = raw("/command").chain(raw("/args")).next().is_some_and(is_shell);
    let words = |pointer: &str| -> Result<Vec<String>, String> {
        raw(pointer)
            .map(|word| environment.expand(word, has_shell))
            .collect()
    };
    let (command, arguments) = (words("/command")?, words("/args")?);
    let all = [command.clone(), arguments.clone()].concat();
    let lines = if has_shell {
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
    let none = Secrets::new();
    let known = Known {
        secrets: &none,
        config_maps: &none,
    };
    containers.any(|container| {
        let within = Within {
            namespace: at(cron_job).0,
            pod,
            container,
        };
        match calls(container, &environment(within, known)) {
            Ok(calls) => calls.iter().any(|call| call.command == "backup"),
            // Of a value that is in a Secret.
            Err(_) => {
                let words = ["command", "args"]
                    .map(|name| container[name].to_string())
                    .concat();
                words.contains("backup") || !(words.contains("forget") || words.contains("prune"))
            }
        }
    })
}
