use serde_json::json;

use super::*;
use crate::restore::user;
use crate::restore::validate::validate;

fn prod() -> Site {
    Site {
        cluster: "prod-eu".to_owned(),
        ..Site::of_tests()
    }
}

fn ready(at: Key, repository: ResticRepository) -> Ready {
    Ready {
        at,
        repository: std::sync::Arc::new(repository),
        backup: None,
        image: crds::RESTIC_IMAGE.to_owned(),
        identity: None,
        security: None,
    }
}

fn chosen(folder: &'static str) -> Chosen {
    Chosen {
        id: "ab".repeat(32),
        folder,
        paths: vec!["/backup".to_owned()],
        excludes: Vec::new(),
        of_backup: false,
        files: None,
        bytes: None,
    }
}

#[test]
fn the_job_restores_without_the_mount_point_of_the_source() {
    let repository: ResticRepository = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "storage" },
        "spec": { "repositoryURL": "s3:https://s3.example.org/b", "credentialsSecretRef": { "name": "nas" } },
    }))
    .unwrap();
    let restore: ResticRestore = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
        "metadata": { "name": "back", "namespace": "shop", "uid": "u" },
        "spec": { "backupRef": { "name": "orders" }, "includePaths": ["config"],
                  "target": { "newPVC": { "name": "fresh", "storageClassName": "fast",
                    "accessModes": ["ReadWriteMany"], "labels": { "app": "shop", "app.kubernetes.io/name": "mine" },
                    "annotations": { "note": "x", "backup.resticbackup.io/restore-uid": "forged" } } } },
    }))
    .unwrap();
    let key = Key::new("shop", "back");
    let valid = validate(&key, &restore).unwrap();
    let chosen = chosen("/backup");
    let ready = ready(Key::new("storage", "nas"), repository);
    let job = job(&key, &prod(), &restore, &valid, &ready, &chosen);
    insta::assert_yaml_snapshot!("restore_job", job);
    let Target::New(new) = &valid.target else { panic!() };
    let claim = claim(&key, &restore, new, "7Gi".to_owned());
    assert!(
        claim.metadata.owner_references.is_none(),
        "data outlives the restore"
    );
    insta::assert_yaml_snapshot!("restore_claim", claim);
}

fn pod(spec: serde_json::Value) -> k8s_openapi::api::core::v1::PodSpec {
    let repository: ResticRepository = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop" },
        "spec": { "repositoryURL": "s3:https://s3.example.org/b", "credentialsSecretRef": { "name": "nas" } },
    }))
    .unwrap();
    let mut full = json!({ "backupRef": { "name": "orders" } });
    full.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let restore: ResticRestore = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
        "metadata": { "name": "back", "namespace": "shop", "uid": "u" }, "spec": full,
    }))
    .unwrap();
    let key = Key::new("shop", "back");
    let valid = validate(&key, &restore).unwrap();
    let ready = Ready {
        security: user::security(&valid, None).unwrap(),
        ..ready(Key::new("shop", "nas"), repository)
    };
    let job = job(
        &key,
        &Site::of_tests(),
        &restore,
        &valid,
        &ready,
        &chosen("/backup"),
    );
    job.spec.unwrap().template.spec.unwrap()
}

/// The kubelet would change group and mode of every file of the application that uses the claim.
#[test]
fn an_existing_claim_is_not_given_to_a_group() {
    let existing = json!({ "target": { "pvc": { "claimName": "data", "path": "sub" } } });
    assert_eq!(pod(existing.clone()).security_context.unwrap().fs_group, None);
    let new = json!({ "target": { "newPVC": { "name": "fresh", "size": "1Gi" } } });
    assert_eq!(pod(new).security_context.unwrap().fs_group, Some(65532));
    let mut asked = existing;
    asked["jobConfig"] = json!({ "securityContext": { "fsGroup": 999 } });
    assert_eq!(pod(asked).security_context.unwrap().fs_group, Some(999));
}

#[test]
fn job_config_acts_on_restores_too() {
    let config = json!({ "podLabels": { "team": "shop" }, "priorityClassName": "high", "limitDownload": 900,
                         "imagePullSecrets": [{ "name": "mirror" }], "env": [{ "name": "GOGC", "value": "20" }] });
    let pod = pod(json!({ "target": { "pvc": { "claimName": "data" } }, "jobConfig": config }));
    assert_eq!(pod.priority_class_name.as_deref(), Some("high"));
    assert_eq!(pod.image_pull_secrets.as_ref().unwrap()[0].name, "mirror");
    let container = &pod.containers[0];
    let arguments = container.args.as_ref().unwrap();
    assert!(
        arguments.contains(&"--limit-download=900".to_owned()),
        "{arguments:?}"
    );
    let variables = container.env.as_ref().unwrap();
    assert!(
        variables
            .iter()
            .any(|v| v.name == "GOGC" && v.value.as_deref() == Some("20"))
    );
}

#[test]
fn patterns_arrive_as_they_were_written() {
    let spec = json!({ "target": { "pvc": { "claimName": "data", "path": "$(RESTIC_PASSWORD)" } },
                       "includePaths": ["$(AWS_SECRET_ACCESS_KEY)"] });
    let arguments = pod(spec).containers[0].args.clone().unwrap();
    assert!(
        arguments.contains(&"/restore/$$(RESTIC_PASSWORD)".to_owned()),
        "{arguments:?}"
    );
    assert!(
        arguments.contains(&"$$(AWS_SECRET_ACCESS_KEY)".to_owned()),
        "{arguments:?}"
    );
}

#[test]
fn a_folder_of_the_snapshot_is_relative_to_the_data() {
    let of = |path: &str| {
        let spec = json!({ "target": { "pvc": { "claimName": "data" } }, "snapshotPath": path });
        pod(spec).containers[0].args.clone().unwrap()[1].clone()
    };
    let id = "ab".repeat(32);
    assert_eq!(of("/a b/[c]:d/"), format!("{id}:/backup/a b/[c]:d"));
    assert_eq!(of("/"), format!("{id}:/backup"));
    let valid = |path: &str| {
        Valid {
        path: path.to_owned(),
        ..validate(&Key::new("shop", "r"), &serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "r" },
            "spec": { "backupRef": { "name": "b" }, "target": { "pvc": { "claimName": "data" } } } })).unwrap()).unwrap()
    }
    };
    let repository: ResticRepository = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository", "metadata": { "name": "nas" },
        "spec": { "repositoryURL": "s3:https://s3.example.org/b", "credentialsSecretRef": { "name": "nas" } } }))
    .unwrap();
    let foreign = |path: &str| arguments(&valid(path), &repository, &chosen(""), false)[1].clone();
    assert_eq!(foreign("data"), format!("{id}:/data"));
    assert_eq!(foreign(""), id);
}

#[test]
fn root_leaves_the_labels_of_selinux_to_the_node() {
    let of = |user: i64| {
        let config = json!({ "securityContext": { "runAsUser": user } });
        let pod = pod(json!({ "target": { "pvc": { "claimName": "data" } }, "jobConfig": config }));
        pod.containers[0].args.as_ref().unwrap().join(" ")
    };
    assert!(of(0).contains(" --exclude-xattr security.selinux "));
    assert!(!of(7).contains("xattr"), "it sets none");
}

#[test]
fn a_dry_run_cannot_write() {
    let of = |target: serde_json::Value| {
        let pod = pod(json!({ "target": target, "options": { "dryRun": true } }));
        assert!(
            pod.containers[0]
                .args
                .as_ref()
                .unwrap()
                .contains(&"--dry-run".to_owned())
        );
        let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
        assert_eq!(
            (&*mounts[0].mount_path, mounts[0].read_only),
            (TARGET_DIR, Some(true))
        );
        pod.volumes.unwrap()[0].clone()
    };
    let existing = of(json!({ "pvc": { "claimName": "data" } }));
    assert_eq!(existing.persistent_volume_claim.unwrap().claim_name, "data");
    let new = of(json!({ "newPVC": { "name": "fresh" } }));
    assert!(
        new.persistent_volume_claim.is_none() && new.empty_dir.is_some(),
        "no claim is made"
    );
}
