use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn check(spec: Value) -> Result<Valid, Invalid> {
    let mut full = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } });
    full.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let backup: ResticBackup = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "shop" }, "spec": full,
    }))
    .unwrap();
    validate(&Key::new("shop", "orders"), &Site::of_tests(), &backup)
}

#[test]
fn a_minimal_backup_takes_the_whole_volume() {
    let valid = check(json!({})).unwrap();
    let expected = [
        "--host",
        "orders",
        "--tag",
        "fleet.cluster=a",
        "--tag",
        "fleet.cluster-uid=uid-of-a",
        "--tag",
        "fleet.backup=shop/orders",
        "--exclude",
        "/backup/lost+found",
        "--group-by",
        "host,paths,tags",
        "--",
        "/backup",
    ];
    assert_eq!(valid.arguments, expected);
    assert_eq!(
        (valid.timezone.as_str(), valid.repository),
        ("UTC", Key::new("shop", "nas"))
    );
}

#[test]
fn lost_and_found_of_the_file_system_is_left_out_unless_it_is_asked_for() {
    let excluded = |value: Value| {
        let pvc = json!({ "source": { "pvc": { "claimName": "d", "includeLostAndFound": value } } });
        let arguments = check(pvc).unwrap().arguments;
        arguments.contains(&"/backup/lost+found".to_owned())
    };
    assert!(excluded(Value::Null) && excluded(json!(false)) && !excluded(json!(true)));
}

#[test]
fn the_cron_job_gets_what_h_stands_for() {
    let valid = check(json!({ "schedule": "H H * * *" })).unwrap();
    assert_eq!(valid.cron, "5 5 * * *");
    let next = valid.schedule.next_after("2026-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(next.unwrap().to_string(), "2026-01-01T05:05:00Z");
    let wrong = check(json!({ "schedule": "H(0-99) * * * *" })).unwrap_err();
    assert!(
        wrong.reason() == "InvalidSchedule" && wrong.to_string().contains("H(0-59)"),
        "{wrong}"
    );
}

#[test]
fn a_limit_is_written_once() {
    let with = |extra: Value| {
        check(json!({ "jobConfig": { "limitUpload": 500 }, "restic": { "extraArgs": extra } }))
            .map_err(|invalid| (invalid.reason(), invalid.to_string()))
    };
    assert!(with(json!(["--limit-download=3", "--exclude=--limit-upload=2"])).is_ok());
    let (reason, text) = with(json!(["--limit-upload", "3"])).unwrap_err();
    assert!(
        reason == "InvalidSpec" && text.contains("limitUpload") && text.contains("--limit-upload"),
        "{text}"
    );
}

#[test]
fn a_variable_that_cannot_be_set_is_named() {
    let refused =
        check(json!({ "jobConfig": { "env": [{ "name": "RESTIC_PASSWORD_FILE", "value": "/x" }] } }));
    let refused = refused.unwrap_err();
    assert!(refused.reason() == "InvalidSpec" && refused.to_string().contains("RESTIC_PASSWORD_FILE"));
}

#[test]
fn paths_mean_the_same_with_and_without_a_slash() {
    let pvc = json!({ "source": { "pvc": { "claimName": "d", "paths": ["data", "/data/", "/"], "excludes": ["*.tmp", "/cache"] } } });
    let arguments = check(pvc).unwrap().arguments;
    assert!(arguments.ends_with(&[
        "--".into(),
        "/backup/data".into(),
        "/backup/data".into(),
        "/backup".into()
    ]));
    assert!(arguments.windows(2).any(|w| w == ["--exclude", "/backup/cache"]));
    let out = json!({ "source": { "pvc": { "claimName": "d", "paths": ["a/../../etc"] } } });
    assert_eq!(check(out).unwrap_err().reason(), "InvalidSpec");
}

/// restic matches a pattern with the folder that it is told to store as well, stores nothing then, and ends well.
#[test]
fn no_pattern_excludes_the_whole_volume_by_the_name_of_its_folder() {
    let spec = json!({
        "restic": { "extraArgs": ["--exclude", "backup", "--iexclude=!BACK*", "--exclude=/backup/x"] },
        "source": { "pvc": { "claimName": "d", "excludes": ["backup", "!/keep", "!keep", "**/cache"] } },
    });
    let arguments = check(spec).unwrap().arguments;
    let of_fields = arguments
        .windows(2)
        .filter(|w| w[0] == "--exclude")
        .map(|w| w[1].as_str());
    assert_eq!(
        of_fields.collect::<Vec<_>>(),
        [
            "/backup/**/backup",
            "!/backup/keep",
            "!/backup/**/keep",
            "/backup/**/cache",
            "/backup/lost+found"
        ]
    );
    for option in [
        "--exclude=/backup/**/backup",
        "--iexclude=!/backup/**/BACK*",
        "--exclude=/backup/x",
    ] {
        assert!(arguments.contains(&option.to_owned()), "{arguments:?}");
    }
}

#[test]
fn what_could_give_the_keys_away_is_refused_and_stops_what_runs() {
    for (restic, reason, part) in [
        (
            json!({ "extraArgs": ["/proc/self/environ"] }),
            "InvalidSpec",
            "spec.restic.extraArgs",
        ),
        (
            json!({ "extraArgs": ["-o", "sftp.command=id"] }),
            "InvalidSpec",
            "spec.restic.extraArgs",
        ),
        (
            json!({ "tags": ["fleet.backup=shop/other"] }),
            "InvalidSpec",
            "spec.restic.tags",
        ),
        (
            json!({ "tags": ["a, fleet.cluster=b"] }),
            "InvalidSpec",
            "spec.restic.tags",
        ),
        (
            json!({ "image": "evil/x:1" }),
            "ImageNotAllowed",
            "--allowed-images",
        ),
    ] {
        let error = check(json!({ "restic": restic.clone() })).unwrap_err();
        assert_eq!(error.reason(), reason, "{restic}");
        assert!(error.to_string().contains(part) && error.is_unsafe(), "{error}");
    }
    assert!(!check(json!({ "source": {} })).unwrap_err().is_unsafe());
    let good = json!({ "restic": { "tags": ["fleet"], "extraArgs": ["--exclude", "a b"], "image": "restic/restic:1" } });
    let valid = check(good).unwrap();
    assert!(valid.arguments.contains(&"--exclude=/backup/**/a b".to_owned()));
    assert_eq!(valid.image, "restic/restic:1");
}

#[test]
fn who_groups_otherwise_does_so() {
    let own = json!({ "restic": { "extraArgs": ["-g", "paths"] } });
    let arguments = check(own).unwrap().arguments;
    assert!(arguments.contains(&"--group-by=paths".to_owned()));
    assert!(!arguments.contains(&"--group-by".to_owned()), "{arguments:?}");
}

#[test]
fn every_example_is_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let repository = std::fs::read_to_string(format!("{folder}/repository.yaml")).unwrap();
    let repository: Vec<Value> = serde_saphyr::from_multiple(&repository).unwrap();
    let repository = repository.into_iter().find(|it| it["kind"] == "ResticRepository");
    let repository: crds::ResticRepository = serde_json::from_value(repository.unwrap()).unwrap();
    let at = Key::new("backup", "nas");
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        // The way back.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let backup = documents
            .into_iter()
            .find(|it| it["kind"] == "ResticBackup")
            .unwrap();
        let backup: ResticBackup = serde_json::from_value(backup).unwrap();
        let valid = validate(&Key::new("shop", "orders"), &Site::of_tests(), &backup);
        assert!(valid.is_ok(), "{}: {:?}", path.display(), valid.err());
        // Its owner lets it be used from there.
        let (reference, namespace) = (
            &backup.spec.repository_ref,
            backup.metadata.namespace.as_deref().unwrap(),
        );
        assert_eq!(Key::new(reference.namespace_or(namespace), &reference.name), at);
        let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())]);
        let refused = crate::consent::usable(&at, namespace, Some(&repository), Some(&labels)).err();
        let waits = matches!(refused, Some(crate::consent::Blocked::Wait { .. }));
        assert!(
            waits,
            "{}: {refused:?}, not only because it was not opened yet",
            path.display()
        );
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    for database in ["postgresql", "mariadb", "mongodb", "redis", "etcd", "sqlite"] {
        assert!(names.iter().any(|name| name == database), "{names:?}");
    }
}

#[test]
fn a_source_that_cannot_be_worked_with_says_which_field() {
    let container = |more: Value| {
        let mut container = json!({ "name": "dump", "command": ["x"], "volumeMounts": [{ "name": "v", "mountPath": "/out", "subPath": "a/" }] });
        container
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "spec": { "containers": [container], "volumes": [{ "name": "v", "emptyDir": {} }] } })
    };
    let custom = |path: &str, template: Value| json!({ "customSource": { "podTemplate": template, "backupPath": path } });
    let pod = |name: Value, template: Value| json!({ "stdin": { "filename": "a", "pod": { "podTemplate": template, "container": name } } });
    let exec = |selector: Value, command: Value| json!({ "stdin": { "filename": "a", "exec": { "podSelector": selector, "command": command } } });
    let app = || json!({ "matchLabels": { "app": "db" } });
    let plain = || container(json!({}));
    for (source, reason, words) in [
        (
            custom("/elsewhere", plain()),
            "InvalidSource",
            "customSource.backupPath",
        ),
        (
            custom("/outside", plain()),
            "InvalidSource",
            "customSource.backupPath",
        ),
        (custom("out", plain()), "InvalidSource", "must begin with"),
        (custom("/out/../etc", plain()), "InvalidSource", "no \"..\""),
        (
            custom("/out", container(json!({ "lifecycle": {} }))),
            "InvalidSource",
            "restartPolicy Always",
        ),
        (
            custom(
                "/out",
                container(
                    json!({ "volumeMounts": [{ "name": "v", "mountPath": "/out", "subPathExpr": "$(A)" }] }),
                ),
            ),
            "InvalidSource",
            "subPathExpr",
        ),
        (
            custom(
                "/out",
                json!({ "spec": { "hostPID": true, "containers": [{ "name": "a" }] } }),
            ),
            "TemplateNotAllowed",
            "customSource.podTemplate.spec.hostPID",
        ),
        (pod(json!("web"), plain()), "InvalidSource", "stdin.pod.container"),
        (
            pod(Value::Null, container(json!({ "command": [] }))),
            "InvalidSource",
            "needs command",
        ),
        (exec(json!({}), json!(["dump"])), "InvalidSource", "podSelector"),
        (exec(app(), json!([])), "InvalidSource", "command"),
        (exec(app(), json!([""])), "InvalidSource", "command"),
        (
            json!({ "stdin": { "filename": "a" } }),
            "InvalidSource",
            "exactly one of exec and pod",
        ),
        (
            json!({ "stdin": { "filename": "a/b", "exec": { "podSelector": app(), "command": ["x"] } } }),
            "InvalidSource",
            "filename",
        ),
    ] {
        let error = check(json!({ "source": source.clone() })).unwrap_err();
        assert!(
            error.reason() == reason && error.to_string().contains(words),
            "{source}: {error}"
        );
    }
    let mut template = plain();
    template["spec"]["serviceAccountName"] = json!("resticbackup-other");
    let job = json!({ "serviceAccountName": "resticbackup-other" });
    for spec in [
        json!({ "source": custom("/out", template) }),
        json!({ "source": custom("/out", plain()), "jobConfig": job }),
    ] {
        assert_eq!(
            check(spec).unwrap_err().reason(),
            "TemplateNotAllowed",
            "its right to run commands"
        );
    }
    let place = |path: &str| match check(json!({ "source": custom(path, plain()) })).unwrap().source {
        Wanted::Custom(custom) => custom.sub_path,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (place("/out/"), place("/out/b/c")),
        (Some("a".to_owned()), Some("a/b/c".to_owned()))
    );
}

#[test]
fn each_fault_has_its_reason() {
    assert_eq!(
        check(json!({ "schedule": "61 * * * *" })).unwrap_err().reason(),
        "InvalidSchedule"
    );
    assert_eq!(
        check(json!({ "timezone": "Mars" })).unwrap_err().reason(),
        "InvalidSchedule"
    );
    assert_eq!(
        check(json!({ "source": {} })).unwrap_err().reason(),
        "InvalidSource"
    );
    let custom = json!({ "source": { "customSource": { "podTemplate": {}, "backupPath": "/x" } } });
    assert_eq!(check(custom).unwrap_err().reason(), "TemplateNotAllowed");
    assert_eq!(
        check(json!({ "jobConfig": { "affinity": { "nodeAffinity": 1 } } }))
            .unwrap_err()
            .reason(),
        "InvalidSpec"
    );
}

#[test]
fn the_rights_of_hooks_and_commands_go_to_no_other_pod() {
    let exec = json!({ "podSelector": { "matchLabels": { "app": "db" } }, "command": ["x"] });
    let hooks = json!({ "preBackup": { "exec": exec } });
    let named = json!({ "serviceAccountName": "app" });
    for spec in [
        json!({ "hooks": hooks, "jobConfig": named }),
        json!({ "source": { "stdin": { "filename": "a", "exec": exec } }, "jobConfig": named }),
    ] {
        let refused = check(spec).unwrap_err();
        assert!(
            refused.is_unsafe() && refused.to_string().contains("serviceAccountName: \"app\""),
            "{refused}"
        );
    }
    assert!(check(json!({ "jobConfig": named })).is_ok() && check(json!({ "hooks": hooks })).is_ok());
    let template = |sources: Value| {
        let container = json!({ "name": "dump", "volumeMounts": [{ "name": "data", "mountPath": "/out" }] });
        json!({ "spec": { "containers": [container], "volumes": [
            { "name": "data", "emptyDir": {} }, { "name": "t", "projected": { "sources": sources } } ] } })
    };
    let source = |sources: Value| json!({ "customSource": { "backupPath": "/out", "podTemplate": template(sources) } });
    let token = || source(json!([{ "serviceAccountToken": { "path": "token" } }]));
    let refused = check(json!({ "source": token(), "hooks": hooks })).unwrap_err();
    assert!(refused.to_string().contains("serviceAccountToken"), "{refused}");
    assert!(
        check(json!({ "source": token() })).is_ok(),
        "its account has no rights"
    );
    assert!(check(json!({ "source": source(json!([])), "hooks": hooks })).is_ok());
}
