//! Pods of backups whose data does not come from a claim alone.

use super::*;

fn template() -> Value {
    json!({
        "metadata": { "labels": { "team": "shop", "backup.resticbackup.io/backup": "other" } },
        "spec": {
            "initContainers": [{ "name": "first", "image": "db:1" }],
            "containers": [{ "name": "dump", "image": "db:1", "command": ["/bin/sh", "-c"], "args": ["pg_dump \"$(PGDATABASE)\""],
                             "volumeMounts": [{ "name": "scratch", "mountPath": "/out", "subPath": "a" }] }],
            "volumes": [{ "name": "scratch", "emptyDir": {} }],
            "securityContext": { "runAsUser": 999 }, "serviceAccountName": "dumper", "priorityClassName": "low",
        },
    })
}

/// The containers that see a volume.
fn with_volume<'a>(pod: &'a PodSpec, volume: &str) -> Vec<&'a str> {
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    let mounts = |c: &&k8s_openapi::api::core::v1::Container| {
        c.volume_mounts.iter().flatten().any(|m| m.name == volume)
    };
    containers.filter(mounts).map(|c| c.name.as_str()).collect()
}

fn variables(pod: &PodSpec, container: &str) -> Vec<String> {
    let all = pod.init_containers.iter().flatten().chain(&pod.containers);
    let container = all.filter(|c| c.name == container);
    container
        .flat_map(|c| c.env.iter().flatten().map(|v| v.name.clone()))
        .collect()
}

#[test]
fn a_command_in_a_running_pod_has_the_token_and_restic_has_the_credentials() {
    let exec = json!({ "podSelector": { "matchLabels": { "app": "db" } }, "container": "db", "command": ["pg_dumpall", "-U", "$(X)"] });
    let source = json!({ "source": { "stdin": { "filename": "all.sql", "exec": exec } } });
    let objects = built(
        "orders",
        source,
        &repository(json!({ "repositoryURL": "rest:https://nas/" })),
    );
    insta::assert_yaml_snapshot!("exec_pod", pod_of(&objects));
    insta::assert_yaml_snapshot!("exec_rights", objects.grant);
    let pod = pod_of(&objects);
    assert_eq!(with_volume(pod, "fleet-token"), ["source"]);
    assert_eq!(with_volume(pod, "credentials"), ["restic"]);
    assert!(variables(pod, "source").is_empty() && variables(pod, "tools").is_empty());
    assert_eq!(pod.automount_service_account_token, Some(false));
}

#[test]
fn a_command_in_a_pod_of_its_own_is_wrapped_and_sees_nothing_of_restic() {
    let stdin = json!({ "filename": "a.sql", "pod": { "podTemplate": template() } });
    let objects = built(
        "orders",
        json!({ "source": { "stdin": stdin } }),
        &repository(json!({})),
    );
    assert!(objects.grant.is_none() && objects.service_account.is_none());
    let pod = pod_of(&objects);
    insta::assert_yaml_snapshot!("command_pod", pod);
    assert_eq!(with_volume(pod, "fleet-token"), Vec::<&str>::new());
    assert_eq!(with_volume(pod, "fleet-stream"), ["restic", "dump"]);
    let dump = pod.containers.iter().find(|c| c.name == "dump").unwrap();
    let tools = dump
        .volume_mounts
        .iter()
        .flatten()
        .find(|m| m.name == "fleet-tools")
        .unwrap();
    assert_eq!(tools.read_only, Some(true), "restic runs what is there");
}

#[test]
fn what_a_template_brings_is_ready_before_restic_starts() {
    let custom = json!({ "podTemplate": template(), "backupPath": "/out/dumps/" });
    let objects = built(
        "orders",
        json!({ "source": { "customSource": custom } }),
        &repository(json!({})),
    );
    let pod = pod_of(&objects);
    insta::assert_yaml_snapshot!("custom_pod", pod);
    let labels = objects
        .cron_job
        .spec
        .job_template
        .spec
        .as_ref()
        .unwrap()
        .template
        .metadata
        .as_ref()
        .unwrap()
        .labels
        .clone()
        .unwrap();
    assert_eq!(
        (
            labels["team"].as_str(),
            labels["backup.resticbackup.io/backup"].as_str()
        ),
        ("shop", "orders")
    );
    let names: Vec<&str> = pod
        .init_containers
        .iter()
        .flatten()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!((names, pod.containers.len()), (vec!["first", "dump"], 1));
    assert!(variables(pod, "dump").is_empty());
}

#[test]
fn a_claim_that_a_template_writes_to_keeps_its_group() {
    let group = |read_only: bool| {
        let mut template = template();
        template["spec"]["volumes"] = json!([{ "name": "scratch", "persistentVolumeClaim": { "claimName": "data", "readOnly": read_only } }]);
        let custom = json!({ "podTemplate": template, "backupPath": "/out" });
        let objects = built(
            "orders",
            json!({ "source": { "customSource": custom } }),
            &repository(json!({})),
        );
        pod_of(&objects).security_context.clone().unwrap().fs_group
    };
    assert_eq!((group(true), group(false)), (Some(65532), None));
}

#[test]
fn the_volume_of_a_pod_is_mounted_as_its_container_sees_it() {
    let volume =
        json!({ "selector": { "matchLabels": { "app": "db" } }, "volumeName": "data", "container": "db" });
    let objects = built(
        "orders",
        json!({ "source": { "podVolumeBackup": volume } }),
        &repository(json!({})),
    );
    let pod = pod_of(&objects);
    let mount = pod.containers[0]
        .volume_mounts
        .iter()
        .flatten()
        .find(|m| m.mount_path == "/backup")
        .unwrap();
    assert_eq!(
        (mount.sub_path.as_deref(), mount.read_only),
        (Some("pg"), Some(true))
    );
    let claim = pod
        .volumes
        .iter()
        .flatten()
        .find_map(|v| v.persistent_volume_claim.as_ref())
        .unwrap();
    assert_eq!(
        (claim.claim_name.as_str(), claim.read_only),
        ("data-db-0", Some(true))
    );
}
