//! The objects of a restore. Pure.

use std::collections::BTreeMap;

use crds::restore::NewPvc;
use crds::{ResticRepository, ResticRestore, names};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, ServiceAccount, Volume, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;

use super::outcome::Asked;
use super::select::Chosen;
use super::surroundings::Ready;
use super::validate::{TARGET_DIR, Target, Valid};
use crate::hooks::{self, Grant, Needs};
use crate::pod::{self, Frame, JobSettings, Source};
use crate::site::Site;
use crate::world::Key;

/// The volume that is written to.
const TARGET: &str = "restore-target";

/// The pod's own account.
#[must_use]
pub fn service_account(key: &Key, restore: &ResticRestore) -> ServiceAccount {
    let name = names::restore_service_account(&key.name);
    pod::account(pod::controlled(restore, key, name, labels(key, true)))
}

/// Metadata of the copy of the credentials of a repository in another namespace.
#[must_use]
pub fn credentials(key: &Key, restore: &ResticRestore) -> ObjectMeta {
    let name = names::restore_credentials(&key.name);
    pod::controlled(restore, key, name, labels(key, true))
}

/// The claim to create, of this size. Nothing owns it: what was brought back stays when the restore is deleted.
#[must_use]
pub fn claim(key: &Key, restore: &ResticRestore, new: &NewPvc, size: String) -> PersistentVolumeClaim {
    let uid = restore.meta().uid.clone().unwrap_or_default();
    let modes = if new.access_modes.is_empty() {
        vec!["ReadWriteOnce".to_owned()]
    } else {
        new.access_modes.clone()
    };
    // The operator's own go over the given ones: by the uid a claim is known for the restore's own.
    let (mut labelled, mut annotations) = (new.labels.clone(), new.annotations.clone());
    labelled.extend(labels(key, true));
    annotations.insert(names::ANNOTATION_RESTORE_UID.to_owned(), uid);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(new.name.clone()),
            namespace: Some(key.namespace.to_string()),
            labels: Some(labelled),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes),
            storage_class_name: new.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// The Job.
#[must_use]
pub(super) fn job(
    key: &Key,
    site: &Site,
    restore: &ResticRestore,
    valid: &Valid,
    ready: &Ready,
    chosen: &Chosen,
) -> Job {
    let source = Source::of(key, &ready.at, names::restore_credentials(&key.name));
    let repository = ready.repository.as_ref();
    let (script, script_volume) = pod::entrypoint();
    let settings = JobSettings {
        security: ready.security.clone(),
        ..valid.job.clone()
    };
    let as_root = settings.security.as_ref().is_some_and(pod::runs_as_root);
    let mut template = Frame {
        job: &settings,
        service_account: names::restore_service_account(&key.name),
        image: ready.image.clone(),
        repository,
        source: &source,
        command: vec![pod::ENTRYPOINT.to_owned()],
        arguments: arguments(valid, repository, chosen, as_root),
        mounts: vec![pod::mount(TARGET, TARGET_DIR, valid.dry_run), script],
        volumes: vec![target(valid), script_volume],
        environment: pod::identity(&site.cluster, pod::POD_UID).into(),
        // Root gives files back to their owners.
        root_capabilities: &["CHOWN", "DAC_OVERRIDE", "FOWNER", "MKNOD", "SETFCAP"],
        own_volumes: matches!(valid.target, Target::New(_)),
    }
    .template(labels(key, false));
    let mut metadata = job_metadata(key, restore, chosen, Asked::by(valid));
    if let Some(plan) = &valid.hooks {
        hooks::install(&mut template, plan, &site.image);
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_HOOKS.to_owned(), plan.json());
    }
    Job {
        metadata,
        spec: Some(JobSpec {
            backoff_limit: Some(valid.job.backoff_limit),
            active_deadline_seconds: Some(valid.job.deadline),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

/// The claim; for a preview of one that is to be made, an empty folder in its place.
fn target(valid: &Valid) -> Volume {
    match &valid.target {
        Target::New(_) if valid.dry_run => pod::empty_dir(TARGET, None),
        target => pod::claim(TARGET, target.name(), valid.dry_run),
    }
}

/// The annotations hold what was chosen and asked for: it outlives a restart, and a change of the spec.
fn job_metadata(key: &Key, restore: &ResticRestore, chosen: &Chosen, asked: Asked) -> ObjectMeta {
    let files = chosen
        .files
        .map(|files| (names::ANNOTATION_SNAPSHOT_FILES.to_owned(), files.to_string()));
    let snapshot = (names::ANNOTATION_SNAPSHOT.to_owned(), chosen.id.clone());
    let asked = (names::ANNOTATION_ASKED.to_owned(), asked.json());
    ObjectMeta {
        annotations: Some([snapshot, asked].into_iter().chain(files).collect()),
        ..pod::controlled(restore, key, names::restore_job(&key.name), labels(key, true))
    }
}

/// Arguments of restic.
fn arguments(valid: &Valid, repository: &ResticRepository, chosen: &Chosen, as_root: bool) -> Vec<String> {
    let folder = match (chosen.folder, valid.path.as_str()) {
        (folder, "") => folder.to_owned(),
        (folder, path) => format!("{folder}/{path}"),
    };
    let snapshot = if folder.is_empty() {
        chosen.id.clone()
    } else {
        format!("{}:{folder}", chosen.id)
    };
    let target = if valid.folder.is_empty() {
        TARGET_DIR.to_owned()
    } else {
        format!("{TARGET_DIR}/{}", valid.folder)
    };
    let fixed = [
        "restore",
        &snapshot,
        "--json",
        "--target",
        &target,
        "--retry-lock",
        crate::config::RETRY_LOCK,
    ];
    let fixed = fixed.map(str::to_owned).into_iter();
    // The node labels its files itself, and only CAP_SYS_ADMIN may do it for others.
    let labels = as_root.then_some(["--exclude-xattr", "security.selinux"]);
    fixed
        .chain(labels.into_iter().flatten().map(str::to_owned))
        .chain(pod::repository_flags(repository, &valid.job))
        .chain(valid.arguments.iter().cloned())
        .collect()
}

/// What its hooks may do.
#[must_use]
pub fn grant(key: &Key, restore: &ResticRestore, valid: &Valid) -> Option<Grant> {
    let own = names::restore_service_account(&key.name);
    let metadata = pod::controlled(restore, key, own.clone(), labels(key, true));
    let account = valid.job.service_account.as_deref().unwrap_or(&own);
    hooks::grant(&metadata, account, Needs::of(valid.hooks.as_ref()))
}

/// Metadata of a Job that runs hooks which the restore owes.
#[must_use]
pub fn hook_job(key: &Key, restore: &ResticRestore) -> ObjectMeta {
    let labels = pod::labels(names::LABEL_RESTORE, "hook", &key.name, true);
    pod::controlled(restore, key, String::new(), labels)
}

fn labels(key: &Key, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_RESTORE, "restore", &key.name, top)
}

#[cfg(test)]
mod tests {
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
}
