//! What the tests of CronJobs share.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::cron;
use super::cron_env::Known;
use super::fixtures::{of_kind, secret};
use super::plan::Plan;
use super::secret::Secrets;
use crate::objects::list;

/// A CronJob with restic's image, whose container has these fields as well.
pub fn cron_job(name: &str, container: Value) -> Value {
    let mut one = json!({ "name": "restic", "image": "restic/restic:0.17.3",
        "envFrom": [{ "secretRef": { "name": "restic" } }],
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }, { "name": "work", "mountPath": "/work" }] });
    one.as_object_mut()
        .unwrap()
        .extend(container.as_object().unwrap().clone());
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "schedule": "30 2 * * *", "timeZone": "Europe/Berlin", "jobTemplate": { "spec": { "template": { "spec": {
            "securityContext": { "runAsUser": 33, "fsGroup": 33 },
            "containers": [one],
            "volumes": [
                { "name": "data", "persistentVolumeClaim": { "claimName": "files" } },
                { "name": "work", "emptyDir": {} },
                { "name": "keys", "secret": { "secretName": "keys" } },
            ],
        } } } } },
    })
}

/// Its Secret.
pub fn keys() -> Secrets {
    secret(
        "shop",
        "restic",
        &[
            ("RESTIC_REPOSITORY", "s3:http://minio:9000/cron"),
            ("RESTIC_PASSWORD", "p"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ],
    )
}

/// All notes, a line each.
pub fn notes(plan: &Plan) -> String {
    plan.notes
        .iter()
        .map(|note| format!("{}: {}\n", note.about, note.text))
        .collect()
}

/// A CronJob that runs a script.
pub fn script(name: &str, script: &str) -> Value {
    cron_job(name, json!({ "command": ["sh", "-ec", script] }))
}

/// Rules of all policies.
pub fn rules(plan: &Plan) -> Vec<Value> {
    let policies = of_kind(plan, "GlobalRetentionPolicy");
    let rules = policies
        .iter()
        .flat_map(|policy| list(policy, "/spec/policies").to_vec());
    rules.collect()
}

/// Selectors of rules that reach what our backups have not made.
pub fn of_theirs(plan: &Plan) -> Vec<Value> {
    let all = rules(plan).into_iter();
    all.filter(|rule| !rule.to_string().contains("fleet.backup="))
        .collect()
}

/// What becomes of CronJobs.
pub fn planned(jobs: &[Value], secrets: &Secrets) -> Plan {
    planned_with(jobs, secrets, &Secrets::new())
}

/// The same with ConfigMaps.
pub fn planned_with(jobs: &[Value], secrets: &Secrets, config_maps: &Secrets) -> Plan {
    let known = Known { secrets, config_maps };
    cron::plan(jobs, known, false)
}

/// Sets a field of the pod of a CronJob.
pub fn with_pod(mut job: Value, pointer: &str, value: Value) -> Value {
    let pod = &mut job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[name] = value;
    job
}

/// The same CronJob in another namespace.
pub fn moved(mut job: Value, namespace: &str) -> Value {
    job["metadata"]["namespace"] = json!(namespace);
    job
}

/// Whether `finish` stops a CronJob: all that is made of it takes its place whole.
pub fn is_replaced(plan: &Plan, namespace: &str, name: &str) -> bool {
    let source = format!("cronjobs.batch/{namespace}/{name}");
    let names = |annotation: &str| {
        let sources = plan.objects.iter().filter_map(|object| {
            object["metadata"]["annotations"]
                .get(annotation)
                .and_then(Value::as_str)
        });
        sources
            .flat_map(|sources| sources.split(','))
            .any(|one| one == source)
    };
    names(super::plan::SOURCE) && !names(super::plan::IN_PART)
}
