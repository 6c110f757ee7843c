use serde_json::{Value, json};

use super::*;

fn given_of(hook: Value) -> Result<Option<Plan>, BadHook> {
    let hook: Given = serde_json::from_value(hook).unwrap();
    let owner = Owner {
        kind: "ResticBackup".to_owned(),
        name: "orders".to_owned(),
        uid: "u".to_owned(),
    };
    given(
        Subject::Backup,
        (owner, "resticbackup-orders".to_owned()),
        [Some(&hook), None, None],
    )
}

fn exec(more: Value) -> Value {
    let mut exec = json!({ "podSelector": { "matchLabels": { "app": "db" } }, "command": ["sync"] });
    exec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({ "exec": exec })
}

fn job(spec: Value) -> Value {
    let mut whole = json!({ "containers": [{ "name": "c", "image": "i" }] });
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    json!({ "job": { "podTemplate": { "spec": whole } } })
}

#[test]
fn what_a_pod_is_given_comes_back_as_it_was() {
    for hook in [
        exec(json!({ "timeout": "1m30s", "container": "" })),
        job(json!({})),
    ] {
        let plan = given_of(hook).unwrap().unwrap();
        assert_eq!(Plan::parse(&plan.json()), Some(plan.clone()));
        assert_eq!(plan.names().before, Some("preBackup"));
        assert!(plan.hook("preBackup").is_some() && plan.hook("postBackup").is_none());
    }
    let plan = given_of(exec(json!({ "timeout": "1m30s" }))).unwrap().unwrap();
    assert_eq!(plan.before.unwrap().limit(), Duration::from_secs(90));
    let Some(Hook::Job { template, seconds }) = given_of(job(json!({}))).unwrap().unwrap().before else {
        panic!()
    };
    assert_eq!(template.spec.unwrap().restart_policy.as_deref(), Some("Never"));
    assert_eq!(seconds, 600);
}

#[test]
fn a_hook_that_cannot_be_run_is_refused_with_its_field() {
    let secret = |name: &str| {
        json!({ "containers": [{ "name": "c", "env": [{ "name": "A",
        "valueFrom": { "secretKeyRef": { "name": name, "key": "k" } } }] }] })
    };
    for (hook, part) in [
        (json!({}), "exactly one of exec and job"),
        (exec(json!({ "podSelector": {} })), "every pod of the namespace"),
        (exec(json!({ "command": [] })), "needs a program"),
        (exec(json!({ "timeout": "soon" })), "is not a duration"),
        (exec(json!({ "timeout": "25h" })), "between 1s and 24h"),
        (job(json!({ "containers": [] })), "no containers"),
        (job(json!({ "containers": 7 })), "not a core/v1 PodTemplateSpec"),
        (job(json!({ "restartPolicy": "Always" })), "never ends"),
        (
            job(json!({ "serviceAccountName": "resticbackup-other" })),
            "for pods of its own",
        ),
        (
            job(json!({ "serviceAccountName": "", "serviceAccount": "resticbackup-other" })),
            "for pods of its own",
        ),
        (job(json!({ "hostPID": true })), "job.podTemplate.spec.hostPID"),
        (
            job(json!({ "securitycontext": { "runAsUser": 1 } })),
            "job.podTemplate.spec.securitycontext is not known",
        ),
        (
            job(json!({ "containers": [{ "name": "c", "securityContext": { "privileged": true } }] })),
            "job.podTemplate.spec.containers[0].securityContext.privileged",
        ),
        (
            job(json!({ "volumes": [{ "name": "h", "hostPath": { "path": "/" } }] })),
            "hostPath",
        ),
        (job(secret("resticrepository-nas")), "holds a repository's keys"),
        (
            job(secret("resticbackup-orders-credentials")),
            "holds a repository's keys",
        ),
        (
            job(
                json!({ "volumes": [{ "name": "s", "projected": { "sources": [{ "secret": { "name": "resticrepository-nas" } }] } }] }),
            ),
            "holds a repository's keys",
        ),
        (exec(json!({ "command": ["x".repeat(70_000)] })), "at most 65536"),
    ] {
        let refused = given_of(hook.clone()).unwrap_err().to_string();
        assert!(
            refused.starts_with("spec.hooks") && refused.contains(part),
            "{hook}: {refused}"
        );
    }
    assert!(given_of(job(secret("mine"))).is_ok());
}

#[test]
fn a_pod_has_time_for_all_hooks_that_may_follow_each_other() {
    let plan = |before: &str| {
        let mut plan = given_of(exec(json!({ "timeout": before }))).unwrap().unwrap();
        plan.after.clone_from(
            &given_of(exec(json!({ "timeout": "40s" })))
                .unwrap()
                .unwrap()
                .before,
        );
        plan.grace(120)
    };
    assert_eq!(
        plan("60s"),
        120 + 40 + 15,
        "restic takes longer than the hook before"
    );
    assert_eq!(plan("5m"), 300 + 40 + 15);
}
