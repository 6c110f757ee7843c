use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::*;
use crate::backup::validate::validate;

fn repository(spec: Value) -> ResticRepository {
    let mut full = json!({ "repositoryURL": "s3:https://s3.example.org/backups", "credentialsSecretRef": { "name": "nas" } });
    full.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "r" }, "spec": full,
    }))
    .unwrap()
}

/// The claim is there, and nobody uses it.
fn located(valid: &Valid) -> Located {
    let claim = match &valid.source {
        Wanted::Claim(name) => Some((name.clone(), None)),
        Wanted::PodVolume(_) => Some(("data-db-0".to_owned(), Some("pg".to_owned()))),
        Wanted::Custom(_) | Wanted::Exec { .. } | Wanted::Command { .. } => None,
    };
    Located {
        claim,
        ..Located::default()
    }
}

fn built(name: &str, spec: Value, repository: &ResticRepository) -> Objects {
    let mut full = json!({ "repositoryRef": { "name": "nas" }, "schedule": "30 2 * * *", "source": { "pvc": { "claimName": "data" } } });
    full.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let backup: ResticBackup = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": name, "namespace": "shop", "uid": "b" }, "spec": full,
    }))
    .unwrap();
    let key = Key::new("shop", name);
    let valid = validate(&key, &crate::site::Site::of_tests(), &backup).unwrap();
    let site = crate::site::Site {
        cluster: "prod-eu".to_owned(),
        ..crate::site::Site::of_tests()
    };
    build(
        &key,
        &site,
        &backup,
        &valid,
        &located(&valid),
        (repository, Needs::default()),
    )
}

fn pod_of(objects: &Objects) -> &PodSpec {
    objects
        .cron_job
        .spec
        .job_template
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref()
        .unwrap()
}

#[test]
fn a_minimal_backup_makes_what_the_controller_document_shows() {
    let objects = built("orders", json!({}), &repository(json!({})));
    insta::assert_yaml_snapshot!("cron_job", objects.cron_job);
    insta::assert_yaml_snapshot!("service_account", objects.service_account);
}

#[test]
fn job_config_is_honoured_field_by_field() {
    let config = json!({ "jobConfig": {
        "concurrencyPolicy": "Replace", "successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 7, "activeDeadlineSeconds": 60,
        "backoffLimit": 2, "securityContext": { "runAsUser": 0, "runAsNonRoot": false },
        "resources": { "limits": { "cpu": 1, "memory": "512Mi" }, "requests": { "memory": "64Mi" } },
        "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "k", "operator": "Exists" }],
        "affinity": { "nodeAffinity": {} }, "serviceAccountName": "mine",
    } });
    let objects = built("orders", config, &repository(json!({})));
    let (spec, pod) = (&objects.cron_job.spec, pod_of(&objects));
    let job = spec.job_template.spec.as_ref().unwrap();
    assert_eq!(spec.concurrency_policy.as_deref(), Some("Replace"));
    assert_eq!(
        (spec.successful_jobs_history_limit, spec.failed_jobs_history_limit),
        (Some(1), Some(7))
    );
    assert_eq!(
        (job.active_deadline_seconds, job.backoff_limit),
        (Some(60), Some(2))
    );
    assert_eq!(pod.service_account_name.as_deref(), Some("mine"));
    assert!(objects.service_account.is_none());
    assert_eq!(pod.node_selector.as_ref().unwrap()["disk"], "ssd");
    assert_eq!(pod.tolerations.as_ref().unwrap().len(), 1);
    assert!(pod.affinity.is_some());
    let container = &pod.containers[0];
    assert_eq!(
        container.resources.as_ref().unwrap().limits.as_ref().unwrap()["cpu"].0,
        "1"
    );
    let security = container.security_context.as_ref().unwrap();
    assert_eq!(security.run_as_non_root, None, "root was asked for");
    assert_eq!(
        security.capabilities.as_ref().unwrap().add.as_deref(),
        Some(&["DAC_READ_SEARCH".to_owned()][..])
    );
    let limit = container
        .env
        .as_ref()
        .unwrap()
        .iter()
        .find(|e| e.name == "GOMEMLIMIT")
        .unwrap();
    assert_eq!(limit.value.as_deref(), Some("483183819"));
}

#[test]
fn pods_are_labelled_ranked_and_slowed_as_job_config_says() {
    let config = json!({
        "jobConfig": {
            "podLabels": { "team": "shop" }, "podAnnotations": { "example.org/a": "b" }, "priorityClassName": "low",
            "imagePullSecrets": [{ "name": "mirror" }], "limitUpload": 500, "limitDownload": 900,
            "resources": { "limits": { "cpu": "1500m", "memory": "1Gi" } },
            "env": [{ "name": "GOMEMLIMIT", "value": "off" }, { "name": "RESTIC_COMPRESSION", "value": "$(RESTIC_PASSWORD)" }],
        },
        "source": { "customSource": { "backupPath": "/data", "podTemplate": { "spec": {
            "priorityClassName": "high", "imagePullSecrets": [{ "name": "own" }, { "name": "mirror" }],
            "containers": [{ "name": "dump", "image": "db", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        } } } },
    });
    let objects = built("orders", config, &repository(json!({})));
    let job = objects.cron_job.spec.job_template.spec.as_ref().unwrap();
    let metadata = job.template.metadata.as_ref().unwrap();
    let labels = metadata.labels.as_ref().unwrap();
    assert_eq!(
        (labels["team"].as_str(), labels[names::LABEL_BACKUP].as_str()),
        ("shop", "orders")
    );
    let annotations = metadata.annotations.as_ref().unwrap();
    assert!(annotations["example.org/a"] == "b" && annotations.contains_key(pod::user::ANNOTATION));
    let pod = pod_of(&objects);
    assert_eq!(pod.priority_class_name.as_deref(), Some("low"));
    let secrets = pod.image_pull_secrets.as_ref().unwrap();
    assert_eq!(
        secrets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["mirror", "own"]
    );
    let restic = pod.containers.iter().find(|c| c.name == "restic").unwrap();
    let arguments = restic.args.as_ref().unwrap();
    for limit in ["--limit-upload=500", "--limit-download=900"] {
        assert_eq!(
            arguments.iter().filter(|a| *a == limit).count(),
            1,
            "{arguments:?}"
        );
    }
    let value = |name: &str| {
        let all = restic.env.as_ref().unwrap().iter();
        let found: Vec<_> = all.filter(|v| v.name == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].value.clone().unwrap()
    };
    assert_eq!(value("GOMAXPROCS"), "2");
    assert_eq!(value("GOMEMLIMIT"), "off");
    assert_eq!(
        value("RESTIC_COMPRESSION"),
        "$$(RESTIC_PASSWORD)",
        "instead of the Secret's"
    );
}

#[test]
fn jobs_are_born_suspended_where_there_is_a_limit() {
    let job = |repository: Value| {
        let objects = built("orders", json!({}), &self::repository(repository));
        let template = objects.cron_job.spec.job_template;
        let marks = template.metadata.unwrap().annotations.unwrap_or_default();
        (
            template.spec.unwrap().suspend,
            marks.contains_key(names::ANNOTATION_PARKED),
        )
    };
    assert_eq!(job(json!({})), (None, false));
    assert_eq!(job(json!({ "maxConcurrentBackups": 2 })), (Some(true), true));
}

#[test]
fn a_run_that_only_waits_replaces_none() {
    let policy = |given: &str, repository: Value| {
        let config = json!({ "jobConfig": { "concurrencyPolicy": given } });
        let objects = built("orders", config, &self::repository(repository));
        objects.cron_job.spec.concurrency_policy.unwrap()
    };
    let limited = || json!({ "maxConcurrentBackups": 2 });
    assert_eq!(policy("Replace", limited()), "Forbid");
    assert_eq!(policy("Allow", limited()), "Allow");
    assert_eq!(policy("Replace", json!({})), "Replace");
}

#[test]
fn the_cache_lies_where_the_repository_says() {
    let cache_of = |spec: Value| {
        let objects = built("orders", json!({}), &repository(json!({ "cache": spec })));
        let pod = pod_of(&objects);
        let volume = pod
            .volumes
            .as_ref()
            .unwrap()
            .iter()
            .find(|v| v.name == "cache")
            .cloned();
        (volume, pod.containers[0].args.clone().unwrap())
    };
    let (volume, _) = cache_of(json!({ "size": "2Gi" }));
    assert_eq!(
        volume.unwrap().empty_dir.unwrap().size_limit,
        Some(Quantity("2Gi".to_owned()))
    );
    let (volume, _) = cache_of(json!({ "storageClassName": "fast" }));
    assert!(volume.unwrap().ephemeral.is_some());
    let (volume, arguments) = cache_of(json!({ "enabled": false }));
    assert!(volume.is_none() && arguments.contains(&"--no-cache".to_owned()));
}

#[test]
fn nothing_of_a_resource_reaches_a_shell() {
    let evil = "$(reboot); `id` \" ' \\ && rm -rf /";
    let spec = json!({ "restic": { "hostname": "x$(id)", "tags": [evil] }, "source": { "pvc": { "claimName": "data", "paths": [evil], "excludes": [evil] } } });
    let objects = built("orders", spec, &repository(json!({})));
    let container = &pod_of(&objects).containers[0];
    assert_eq!(
        container.command.as_deref(),
        Some(&["/backup-entrypoint.sh".to_owned()][..])
    );
    let arguments = container.args.as_ref().unwrap();
    assert_eq!(
        arguments.iter().filter(|a| a.contains("reboot")).count(),
        3,
        "each value is one argument"
    );
    assert!(
        container.env.as_ref().unwrap().iter().all(|e| !e
            .value
            .as_deref()
            .unwrap_or_default()
            .contains("reboot"))
    );
}

#[test]
fn live_files_keep_their_owner_and_mode() {
    for security in [json!({}), json!({ "runAsUser": 999 }), json!({ "fsGroup": 5 })] {
        let spec = json!({ "jobConfig": { "securityContext": security.clone() } });
        let objects = built("orders", spec, &repository(json!({})));
        let volumes = pod_of(&objects).volumes.clone().unwrap();
        let source = volumes.iter().find(|v| v.name == "source-data").unwrap();
        let claim = source.persistent_volume_claim.as_ref().unwrap();
        assert_eq!(
            claim.read_only,
            Some(true),
            "kubelet looks here and not at the mount: {security}"
        );
    }
}

#[test]
fn no_text_of_a_resource_reads_a_variable_of_the_pod() {
    let secret = "$(RESTIC_PASSWORD)";
    let spec = json!({
        "restic": { "hostname": secret, "tags": [secret], "extraArgs": ["--exclude", secret] },
        "source": { "pvc": { "claimName": "data", "paths": [secret], "excludes": [secret] } },
        "jobConfig": { "resources": { "limits": { "memory": secret } } },
    });
    let objects = built("orders", spec, &repository(json!({})));
    let container = &pod_of(&objects).containers[0];
    let values = container.env.iter().flatten().filter_map(|v| v.value.as_ref());
    let texts = container
        .args
        .iter()
        .flatten()
        .chain(container.command.iter().flatten())
        .chain(values);
    let named: Vec<&String> = texts.filter(|text| text.contains("RESTIC_PASSWORD")).collect();
    assert_eq!(named.len(), 5, "{named:?}");
    assert!(
        named.iter().all(|text| text.contains("$$(RESTIC_PASSWORD)")),
        "{named:?}"
    );
}

#[test]
fn any_user_can_read_the_credential_files_and_no_pod_gets_a_token() {
    let files = |security: Value| {
        let spec = json!({ "jobConfig": { "securityContext": security, "serviceAccountName": "admin" } });
        let objects = built("orders", spec, &repository(json!({})));
        let pod = pod_of(&objects);
        assert_eq!(pod.automount_service_account_token, Some(false));
        let volumes = pod.volumes.clone().unwrap();
        let credentials = volumes.into_iter().find(|v| v.name == "credentials").unwrap();
        credentials.secret.unwrap().items.unwrap()[0].mode
    };
    assert_eq!(files(json!({})), Some(0o444));
    assert_eq!(files(json!({ "runAsUser": 568, "runAsGroup": 568 })), Some(0o444));
    assert_eq!(files(json!({ "runAsUser": 0, "fsGroup": 5 })), Some(0o444));
}

#[test]
fn ssh_finds_its_user_and_a_key_of_its_own() {
    let sftp = repository(json!({ "repositoryURL": "sftp:u@h:/r" }));
    for (security, line) in [
        (json!({}), "restic:x:065532:065532::/tmp:/bin/sh\n"),
        (
            json!({ "runAsUser": 568, "runAsGroup": 7 }),
            "restic:x:0568:07::/tmp:/bin/sh\n",
        ),
        (json!({ "runAsUser": 0 }), "restic:x:00:00::/tmp:/bin/sh\n"),
    ] {
        let objects = built(
            "orders",
            json!({ "jobConfig": { "securityContext": security } }),
            &sftp,
        );
        let template = &objects.cron_job.spec.job_template.spec.as_ref().unwrap().template;
        let annotations = template.metadata.as_ref().unwrap().annotations.as_ref().unwrap();
        assert_eq!(annotations[pod::user::ANNOTATION], line);
        let container = &pod_of(&objects).containers[0];
        let mounts = container.volume_mounts.as_ref().unwrap();
        assert!(mounts.iter().any(|m| m.mount_path == "/etc/passwd"));
        assert!(
            mounts
                .iter()
                .any(|m| m.mount_path == "/ssh" && m.read_only.is_none())
        );
        let variables = container.env.as_ref().unwrap();
        let private = variables
            .iter()
            .find(|v| v.name == "FLEET_PRIVATE_FILES")
            .unwrap();
        assert_eq!(private.value.as_deref(), Some("/credentials/id=/ssh/id"));
        let arguments = container.args.as_ref().unwrap();
        assert!(
            arguments.iter().any(|a| a.starts_with("sftp.args=-i /ssh/id ")),
            "{arguments:?}"
        );
    }
    // Which user an image brings along is known to the image alone.
    let image = json!({ "jobConfig": { "securityContext": { "runAsNonRoot": false } } });
    let objects = built("orders", image, &sftp);
    let mounts = pod_of(&objects).containers[0].volume_mounts.as_ref().unwrap();
    assert!(mounts.iter().all(|m| m.mount_path != "/etc/passwd"));
}

#[test]
fn no_pod_reads_the_secret_that_people_write() {
    let ours = repository(json!({ "credentialsSecretRef": { "name": "written", "key": "password" } }));
    let objects = built("orders", json!({}), &ours);
    assert!(
        !serde_json::to_string(&objects.cron_job)
            .unwrap()
            .contains("\"written\"")
    );
}

#[test]
fn credentials_are_references_only() {
    let objects = built(
        "orders",
        json!({}),
        &repository(json!({ "repositoryURL": "rest:https://u:hidden@h/" })),
    );
    assert!(
        !serde_json::to_string(&objects.cron_job)
            .unwrap()
            .contains("hidden")
    );
}

#[test]
fn the_cron_job_has_the_slots_of_the_spec() {
    let slots = json!({ "schedule": "0 3 * * 1", "timezone": "Europe/Berlin", "suspend": true });
    let spec = built("orders", slots, &repository(json!({}))).cron_job.spec;
    assert_eq!(
        (spec.schedule.as_str(), spec.time_zone.as_deref(), spec.suspend),
        ("0 3 * * 1", Some("Europe/Berlin"), Some(true))
    );
}

#[test]
fn long_names_stay_within_the_limits() {
    let objects = built(&"x".repeat(200), json!({}), &repository(json!({})));
    assert!(objects.cron_job.metadata.name.as_ref().unwrap().len() <= names::CRON_JOB_MAX);
    assert!(objects.service_account.unwrap().metadata.name.unwrap().len() <= names::LABEL_MAX);
    assert!(
        objects
            .cron_job
            .metadata
            .labels
            .unwrap()
            .values()
            .all(|v| v.len() <= names::LABEL_MAX)
    );
}

#[path = "build_source_tests.rs"]
mod sources;
