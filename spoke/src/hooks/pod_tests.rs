use k8s_openapi::api::core::v1::PodSecurityContext;
use serde_json::json;

use super::*;
use crate::hooks::{Hook, Owner};

fn plan() -> Plan {
    let hook = |command: &str| Hook::Exec {
        selector: serde_json::from_value(json!({ "matchLabels": { "app": "db" } })).unwrap(),
        container: None,
        command: vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()],
        seconds: 60,
    };
    Plan {
        subject: Subject::Backup,
        owner: Owner::default(),
        account: "resticbackup-orders".to_owned(),
        before: Some(hook("echo $(RESTIC_PASSWORD)")),
        after: Some(hook("true")),
        failure: None,
    }
}

fn pod(user: Option<i64>) -> PodSpec {
    let mut template: PodTemplateSpec = serde_json::from_value(json!({ "spec": {
        "terminationGracePeriodSeconds": 120, "containers": [{ "name": "restic" }] } }))
    .unwrap();
    template.spec.as_mut().unwrap().security_context = Some(PodSecurityContext {
        run_as_user: user,
        ..PodSecurityContext::default()
    });
    install(&mut template, &plan(), "spoke:1");
    template.spec.unwrap()
}

#[test]
fn the_token_is_mounted_where_hooks_run_and_nowhere_else() {
    let pod = pod(Some(USER));
    let mounts = |container: &Container, name: &str| {
        container
            .volume_mounts
            .iter()
            .flatten()
            .any(|mount| mount.name == name)
    };
    let hooks = pod.init_containers.unwrap();
    assert!(
        hooks
            .iter()
            .all(|container| mounts(container, TOKEN) && mounts(container, SHARED))
    );
    assert!(!mounts(&pod.containers[0], TOKEN) && mounts(&pod.containers[0], SHARED));
    // The one that ends last begins first.
    let names: Vec<&str> = hooks.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["post-backup-hook", "pre-backup-hook"]);
    assert_eq!(hooks[0].restart_policy.as_deref(), Some("Always"));
    assert_eq!(pod.termination_grace_period_seconds, Some(120 + 60 + 15));
}

#[test]
fn no_command_reads_a_variable_and_none_runs_as_root() {
    let root = pod(Some(0));
    for container in root.init_containers.unwrap() {
        let text = serde_json::to_string(&container).unwrap();
        assert!(text.contains("$$(RESTIC_PASSWORD)"), "{text}");
        let security = container.security_context.unwrap();
        assert_eq!(
            (security.run_as_user, security.run_as_non_root),
            (Some(USER), Some(true))
        );
    }
    let other = pod(Some(1000)).init_containers.unwrap();
    assert!(
        other
            .iter()
            .all(|c| c.security_context.as_ref().unwrap().run_as_user.is_none())
    );
}
