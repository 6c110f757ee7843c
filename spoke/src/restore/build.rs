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
        cache: None,
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
        .chain(repository.spec.read_only.then(|| "--no-lock".to_owned()))
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
#[path = "build_tests.rs"]
mod tests;
