//! How the pods of a CronJob run, as `jobConfig` of ours has it. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::cron_run::{describe, pod, source};
use super::plan::Plan;
use super::unread::unread;
use crate::objects::text;

/// Fields of a pod that ours takes under the same name.
const SAME: [&str; 6] = [
    "nodeSelector",
    "tolerations",
    "affinity",
    "serviceAccountName",
    "priorityClassName",
    "imagePullSecrets",
];
/// Fields of a container's securityContext that a pod's has too.
const OF_USER: [&str; 6] = [
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "seLinuxOptions",
    "seccompProfile",
    "appArmorProfile",
];
/// Fields of a pod that are read, or that change nothing about what is stored.
const READ: &[&str] = &[
    "volumes",
    "securityContext",
    "nodeSelector",
    "tolerations",
    "affinity",
    "serviceAccountName",
    "serviceAccount",
    "priorityClassName",
    "priority",
    "imagePullSecrets",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "containers[].name",
    "containers[].image",
    "containers[].imagePullPolicy",
    "containers[].command",
    "containers[].args",
    "containers[].workingDir",
    "containers[].env",
    "containers[].envFrom",
    "containers[].volumeMounts",
    "containers[].resources",
    "containers[].terminationMessagePath",
    "containers[].terminationMessagePolicy",
    "containers[].securityContext.runAsUser",
    "containers[].securityContext.runAsGroup",
    "containers[].securityContext.runAsNonRoot",
    "containers[].securityContext.seLinuxOptions",
    "containers[].securityContext.seccompProfile",
    "containers[].securityContext.appArmorProfile",
    "containers[].securityContext.allowPrivilegeEscalation",
    "containers[].securityContext.readOnlyRootFilesystem",
    "containers[].securityContext.capabilities.drop",
    // Those that do not run restic are named elsewhere.
    "initContainers",
];
/// The same of what is around the pod.
const READ_AROUND: &[&str] = &[
    "schedule",
    "timeZone",
    "suspend",
    "concurrencyPolicy",
    "successfulJobsHistoryLimit",
    "failedJobsHistoryLimit",
    "jobTemplate",
    "template",
    "backoffLimit",
    "backoffLimitPerIndex",
    "ttlSecondsAfterFinished",
    "parallelism",
    "completions",
    "completionMode",
    "podReplacementPolicy",
    "manualSelector",
];
/// What an API server fills in.
const DEFAULTS: [(&str, &str); 2] = [
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
];
/// Labels and annotations that are the operator's: beginnings, and whole names.
const RESERVED: [&str; 3] = [
    "backup.resticbackup.io/",
    "batch.kubernetes.io/",
    "kubectl.kubernetes.io/",
];
const RESERVED_NAMES: [&str; 5] = [
    "controller-uid",
    "job-name",
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
];
/// Labels, or annotations, that ours takes.
const MOST: usize = 32;

/// `jobConfig` for a backup that a container makes; null where there is nothing to say. What has no equal is named.
pub(super) fn settings(plan: &mut Plan, cron_job: &Value, container: &Value) -> Value {
    let (about, pod) = (describe(cron_job), pod(cron_job));
    let mut found = Map::new();
    let user = user(pod, container);
    if !user.contains_key("runAsUser") {
        plan.note(
            &about,
            "its user is that of its image, which is root for restic's own: ours reads as uid 65532, and files that only \
             their owner may read need jobConfig.securityContext.runAsUser",
        );
    }
    found.insert("securityContext".to_owned(), Value::Object(user));
    for (name, value) in [("resources", container.get("resources"))]
        .into_iter()
        .chain(SAME.map(|name| (name, pod.get(name))))
    {
        found.insert(name.to_owned(), value.cloned().unwrap_or_default());
    }
    let template = "/spec/jobTemplate/spec/template/metadata";
    for (name, theirs) in [("podLabels", "labels"), ("podAnnotations", "annotations")] {
        let all = cron_job.pointer(&format!("{template}/{theirs}"));
        found.insert(name.to_owned(), unreserved(all));
    }
    if text(cron_job, "/spec/concurrencyPolicy") == "Replace" {
        found.insert("concurrencyPolicy".to_owned(), json!("Replace"));
    }
    found.retain(|_, value| !is_empty(value));
    named(plan, cron_job);
    match found.is_empty() {
        true => Value::Null,
        false => Value::Object(found),
    }
}

/// Names what ours has no equal for.
fn named(plan: &mut Plan, cron_job: &Value) {
    let mut pod = pod(cron_job).clone();
    if let Some(fields) = pod.as_object_mut() {
        fields.retain(|name, value| {
            *value != json!(false)
                && !DEFAULTS
                    .iter()
                    .any(|(of, default)| of == name && value == default)
        });
    }
    let of = |pointer: &str| cron_job.pointer(pointer).unwrap_or(&Value::Null);
    let mut all: BTreeSet<String> = unread(&pod, READ);
    all.extend(unread(of("/spec"), READ_AROUND));
    all.extend(unread(of("/spec/jobTemplate/spec"), READ_AROUND));
    let about = describe(cron_job);
    if all.remove("containers[].lifecycle") {
        let text =
            "what the hooks of its container (lifecycle) do is not carried over: see hooks of a ResticBackup";
        plan.leave(&source(cron_job), &about, text);
    }
    if !all.is_empty() {
        let all = all.into_iter().collect::<Vec<_>>().join(", ");
        plan.note(&about, format!("not carried over: {all}"));
    }
}

/// User and groups that restic runs as. What the container says counts.
fn user(pod: &Value, container: &Value) -> Map<String, Value> {
    let of_pod = pod.get("securityContext").and_then(Value::as_object);
    let mut user = of_pod.cloned().unwrap_or_default();
    let own = container.get("securityContext");
    for name in OF_USER {
        if let Some(value) = own.and_then(|own| own.get(name)) {
            user.insert(name.to_owned(), value.clone());
        }
    }
    user
}

fn unreserved(all: Option<&Value>) -> Value {
    let is_free =
        |name: &str| !RESERVED.iter().any(|begin| name.starts_with(begin)) && !RESERVED_NAMES.contains(&name);
    let all = all.and_then(Value::as_object).into_iter().flatten();
    let free = all.filter(|(name, _)| is_free(name)).take(MOST);
    free.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
#[path = "cron_job_tests.rs"]
mod tests;
