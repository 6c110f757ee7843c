//! How k8up runs the pods of a Schedule's parts, as `jobConfig`, and the fields that are not carried over. Pure.

use serde_json::{Map, Value, json};

use super::k8up_parts::{over, part};
use super::k8up_single::is_single;
use super::plan::Plan;
use super::unread::unread;
use crate::objects::{at, list, text};

/// Fields of a Schedule's spec that are carried over, or named by a note of their own, or without effect in k8up.
const KNOWN: &[&str] = &[
    "archive",
    "backend",
    "failedJobsHistoryLimit",
    "keepJobs",
    "podSecurityContext",
    "resourceRequirementsTemplate",
    "restore",
    "successfulJobsHistoryLimit",
    "backup.activeDeadlineSeconds",
    "backup.backend",
    "backup.concurrentRunsAllowed",
    "backup.failedJobsHistoryLimit",
    "backup.keepJobs",
    "backup.labelSelectors",
    "backup.podConfigRef",
    "backup.podSecurityContext",
    "backup.resources",
    "backup.schedule",
    "backup.successfulJobsHistoryLimit",
    "backup.tags",
    "check.backend",
    "check.concurrentRunsAllowed",
    "check.failedJobsHistoryLimit",
    "check.keepJobs",
    // A check and a prune read no files of a volume.
    "check.podSecurityContext",
    "check.schedule",
    "check.successfulJobsHistoryLimit",
    "prune.activeDeadlineSeconds",
    "prune.backend",
    "prune.concurrentRunsAllowed",
    "prune.failedJobsHistoryLimit",
    "prune.keepJobs",
    "prune.podSecurityContext",
    "prune.resources",
    "prune.retention.hostnames",
    "prune.retention.keepDaily",
    "prune.retention.keepHourly",
    "prune.retention.keepLast",
    "prune.retention.keepMonthly",
    "prune.retention.keepTags",
    "prune.retention.keepWeekly",
    "prune.retention.keepYearly",
    "prune.retention.tags",
    "prune.schedule",
    "prune.successfulJobsHistoryLimit",
];
/// Fields of a PodConfig's pod that become `jobConfig` under their own names.
const OF_POD: [&str; 5] = [
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "imagePullSecrets",
];
/// Where k8up sends figures of its runs.
const SENT: [&str; 4] = [
    "backup.promURL",
    "backup.statsURL",
    "backup.clusterName",
    "check.promURL",
];

/// `jobConfig` of what takes the place of a Schedule's backup.
pub fn of_backup(plan: &mut Plan, pod_configs: &[Value], schedule: &Value, about: &str) -> Option<Value> {
    let theirs = part(schedule, "backup")?;
    let mut job = of_part(schedule, theirs);
    let user = over(
        theirs.get("podSecurityContext"),
        schedule.pointer("/spec/podSecurityContext"),
    );
    if user.is_object() {
        job.insert("securityContext".to_owned(), user);
    }
    let name = text(theirs, "/podConfigRef/name");
    if !name.is_empty() {
        let found = pod_configs.iter().find(|one| at(one) == (at(schedule).0, name));
        match found {
            Some(found) => pod_config(plan, found, &mut job),
            None => plan.note(
                about,
                format!("its podConfigRef names PodConfig {name}, which is not there: nothing of it is carried over"),
            ),
        }
    }
    let user = job.get("securityContext").and_then(|user| user.get("runAsUser"));
    if user.is_none() {
        plan.note(
            about,
            "it names no runAsUser: ours reads as uid 65532, and files that only their owner may read need \
             jobConfig.securityContext.runAsUser",
        );
    }
    (!job.is_empty()).then_some(Value::Object(job))
}

/// `jobConfig` of what takes the place of a Schedule's prune, which reads no volume.
pub fn of_prune(schedule: &Value) -> Option<Value> {
    let job = of_part(schedule, part(schedule, "prune")?);
    (!job.is_empty()).then_some(Value::Object(job))
}

/// What all parts have.
fn of_part(schedule: &Value, part: &Value) -> Map<String, Value> {
    let mut job = Map::new();
    let resources = over(
        part.get("resources"),
        schedule.pointer("/spec/resourceRequirementsTemplate"),
    );
    if resources.as_object().is_some_and(|fields| !fields.is_empty()) {
        job.insert("resources".to_owned(), resources);
    }
    let number = |of: &Value, name: &str| of.get(name).filter(|value| value.is_i64()).cloned();
    let limits = ["failedJobsHistoryLimit", "successfulJobsHistoryLimit"].map(|name| {
        let of = |of: &Value| number(of, name).or_else(|| number(of, "keepJobs"));
        (name, of(part).or_else(|| of(&schedule["spec"])))
    });
    let deadline = ("activeDeadlineSeconds", number(part, "activeDeadlineSeconds"));
    for (name, value) in limits.into_iter().chain([deadline]) {
        if let Some(value) = value {
            job.insert(name.to_owned(), value);
        }
    }
    job
}

/// Lays a PodConfig over what the part says, as k8up does.
fn pod_config(plan: &mut Plan, found: &Value, job: &mut Map<String, Value>) {
    let template = found.pointer("/spec/template").cloned().unwrap_or_default();
    let container = list(&template, "/spec/containers").first();
    let named = OF_POD.map(|name| (name, template["spec"].get(name)));
    let more = [
        ("securityContext", template.pointer("/spec/securityContext")),
        ("resources", container.and_then(|one| one.get("resources"))),
    ];
    for (name, value) in named.into_iter().chain(more) {
        let empty = [json!({}), json!([]), json!(""), json!(null)];
        if let Some(value) = value.filter(|value| !empty.contains(value)) {
            job.insert(name.to_owned(), value.clone());
        }
    }
    let known = OF_POD.map(|name| format!("spec.{name}"));
    let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
    known.extend([
        "spec.securityContext",
        "spec.containers[].resources",
        "spec.containers[].name",
    ]);
    let left = unread(&template, &known);
    if !left.is_empty() {
        let (namespace, name) = at(found);
        plan.note(&format!("PodConfig {namespace}/{name}"), not_carried(left));
    }
}

/// Names what is set in a Schedule and not carried over.
pub fn note_unread(plan: &mut Plan, schedule: &Value, about: &str) {
    let left = unread(&schedule["spec"], KNOWN);
    let (sent, left): (Vec<String>, Vec<String>) =
        left.into_iter().partition(|field| SENT.contains(&field.as_str()));
    let shown = |fields: Vec<String>| -> Vec<String> {
        let single = is_single(schedule);
        let shown = fields
            .into_iter()
            .map(|field| match field.strip_prefix("backup.") {
                Some(field) if single => field.to_owned(),
                _ => field,
            });
        shown.collect()
    };
    if !sent.is_empty() {
        plan.note(
            about,
            format!(
                "{} not carried over: no figures are sent there, and alerts made of them stay quiet; load ours (docs/metrics.md), \
                 or set notifications.pushgateway of the ResticBackup",
                is_or_are(&shown(sent))
            ),
        );
    }
    if !left.is_empty() {
        plan.note(about, not_carried(shown(left)));
    }
}

fn not_carried(fields: impl IntoIterator<Item = String>) -> String {
    let fields: Vec<String> = fields.into_iter().collect();
    format!(
        "{} not carried over: see what ours needs in place of it",
        is_or_are(&fields)
    )
}

fn is_or_are(fields: &[String]) -> String {
    let verb = if fields.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", fields.join(", "))
}

#[cfg(test)]
#[path = "k8up_job_tests.rs"]
mod tests;
