//! The objects of a restore. Pure.

use std::collections::BTreeMap;

use crds::restore::NewPvc;
use crds::{ResticRepository, ResticRestore, names};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, ServiceAccount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;

use super::select::Chosen;
use super::validate::{TARGET_DIR, Target, Valid};
use crate::hooks::{self, Grant, Needs};
use crate::pod::{self, Frame, Source};
use crate::site::Site;
use crate::world::Key;

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

/// The claim to create. Nothing owns it: what was brought back stays when the restore is deleted.
#[must_use]
pub fn claim(key: &Key, restore: &ResticRestore, new: &NewPvc) -> PersistentVolumeClaim {
    let uid = restore.meta().uid.clone().unwrap_or_default();
    let modes = if new.access_modes.is_empty() {
        vec!["ReadWriteOnce".to_owned()]
    } else {
        new.access_modes.clone()
    };
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(new.name.clone()),
            namespace: Some(key.namespace.to_string()),
            labels: Some(labels(key, true)),
            annotations: Some([(names::ANNOTATION_RESTORE_UID.to_owned(), uid)].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes),
            storage_class_name: new.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(new.size.clone()))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// The Job.
#[must_use]
pub fn job(
    key: &Key,
    site: &Site,
    restore: &ResticRestore,
    valid: &Valid,
    (at, repository): (&Key, &ResticRepository),
    image: String,
    chosen: &Chosen,
) -> Job {
    let source = Source::of(key, at, names::restore_credentials(&key.name));
    let (script, script_volume) = pod::entrypoint();
    let mut template = Frame {
        job: &valid.job,
        service_account: names::restore_service_account(&key.name),
        image,
        repository,
        source: &source,
        command: vec![pod::ENTRYPOINT.to_owned()],
        arguments: arguments(valid, repository, chosen),
        mounts: vec![pod::mount("restore-target", TARGET_DIR, false), script],
        volumes: vec![
            pod::claim("restore-target", valid.target.name(), false),
            script_volume,
        ],
        environment: pod::identity(&site.cluster, pod::POD_UID).into(),
        // Root gives files back to their owners.
        root_capabilities: &["CHOWN", "DAC_OVERRIDE", "FOWNER", "MKNOD", "SETFCAP"],
        own_volumes: matches!(valid.target, Target::New(_)),
    }
    .template(labels(key, false));
    let mut metadata = job_metadata(key, restore, chosen);
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

/// The annotations hold what was chosen: it outlives a restart.
fn job_metadata(key: &Key, restore: &ResticRestore, chosen: &Chosen) -> ObjectMeta {
    let files = chosen
        .files
        .map(|files| (names::ANNOTATION_SNAPSHOT_FILES.to_owned(), files.to_string()));
    let snapshot = (names::ANNOTATION_SNAPSHOT.to_owned(), chosen.id.clone());
    ObjectMeta {
        annotations: Some(std::iter::once(snapshot).chain(files).collect()),
        ..pod::controlled(restore, key, names::restore_job(&key.name), labels(key, true))
    }
}

/// Arguments of restic.
fn arguments(valid: &Valid, repository: &ResticRepository, chosen: &Chosen) -> Vec<String> {
    let snapshot = if chosen.folder.is_empty() {
        chosen.id.clone()
    } else {
        format!("{}:{}", chosen.id, chosen.folder)
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
    fixed
        .chain(pod::repository_flags(repository))
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
    use crate::restore::validate::validate;

    fn prod() -> Site {
        Site {
            cluster: "prod-eu".to_owned(),
            ..Site::of_tests()
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
                      "target": { "newPVC": { "name": "fresh", "size": "1Gi" } } },
        }))
        .unwrap();
        let key = Key::new("shop", "back");
        let valid = validate(&key, &restore).unwrap();
        let chosen = Chosen {
            files: None,
            id: "ab".repeat(32),
            folder: "/backup",
        };
        let job = job(
            &key,
            &prod(),
            &restore,
            &valid,
            (&Key::new("storage", "nas"), &repository),
            crds::RESTIC_IMAGE.to_owned(),
            &chosen,
        );
        insta::assert_yaml_snapshot!("restore_job", job);
        let Target::New(new) = &valid.target else { panic!() };
        let claim = claim(&key, &restore, new);
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
        let chosen = Chosen {
            files: None,
            id: "ab".repeat(32),
            folder: "",
        };
        let image = crds::RESTIC_IMAGE.to_owned();
        let at = Key::new("shop", "nas");
        let job = job(
            &key,
            &Site::of_tests(),
            &restore,
            &valid,
            (&at, &repository),
            image,
            &chosen,
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
}
