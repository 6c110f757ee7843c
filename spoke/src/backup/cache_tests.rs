use std::sync::Arc;

use crds::{ResticBackup, ResticRepository};
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::*;
use crate::backup::build::{Objects, build};
use crate::backup::locate::{Located, locate};
use crate::backup::validate::{Valid, validate};
use crate::hooks::Needs;
use crate::site::Site;
use crate::world::{Access, AppPodView, AppVolume, Backing, ClaimView, World};

fn key() -> Key {
    Key::new("shop", "orders")
}

fn backup(job: &Value, source: &Value) -> ResticBackup {
    serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "b" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "30 2 * * *", "source": source, "jobConfig": job },
    }))
    .unwrap()
}

fn valid(job: &Value, source: &Value) -> Result<Valid, String> {
    validate(&key(), &Site::of_tests(), &backup(job, source)).map_err(|invalid| invalid.to_string())
}

fn pvc() -> Value {
    json!({ "pvc": { "claimName": "data" } })
}

fn made() -> Value {
    json!({ "cache": { "size": "10Gi", "storageClassName": "fast" } })
}

fn named() -> Value {
    json!({ "cache": { "claimName": "shared" } })
}

fn objects(job: &Value, repository: Value) -> Objects {
    let mut spec =
        json!({ "repositoryURL": "rest:http://nas:8000", "credentialsSecretRef": { "name": "nas" } });
    spec.as_object_mut()
        .unwrap()
        .extend(repository.as_object().unwrap().clone());
    let repository: ResticRepository = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "r" }, "spec": spec,
    }))
    .unwrap();
    let backup = backup(job, &pvc());
    let valid = validate(&key(), &Site::of_tests(), &backup).unwrap();
    let located = Located {
        claim: Some(("data".to_owned(), None)),
        ..Located::default()
    };
    build(
        &key(),
        &Site::of_tests(),
        &backup,
        &valid,
        &located,
        (&repository, Needs::default()),
    )
}

fn pod(objects: &Objects) -> PodSpec {
    let job = objects.cron_job.spec.job_template.spec.clone().unwrap();
    job.template.spec.unwrap()
}

/// The volume of the cache, where it is mounted, and restic's arguments.
fn cached(pod: &PodSpec) -> (Value, String, Vec<String>) {
    let volumes = pod.volumes.iter().flatten();
    let volume = volumes.into_iter().find(|v| v.name == "cache").unwrap();
    let restic = &pod.containers[0];
    let mounts = restic.volume_mounts.iter().flatten();
    let mount = mounts.into_iter().find(|m| m.name == "cache").unwrap();
    assert!(mount.read_only.is_none());
    let variable = restic
        .env
        .iter()
        .flatten()
        .find(|v| v.name == "RESTIC_CACHE_DIR")
        .unwrap();
    assert_eq!(variable.value.as_ref(), Some(&mount.mount_path));
    (
        serde_json::to_value(volume).unwrap(),
        mount.mount_path.clone(),
        restic.args.clone().unwrap(),
    )
}

#[test]
fn a_cache_stays_on_a_claim_that_belongs_to_the_backup() {
    let objects = objects(&made(), json!({}));
    let claim = objects.cache.clone().unwrap();
    assert_eq!(claim.metadata.name.as_deref(), Some("resticbackup-orders-cache"));
    let owner = &claim.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
        ("ResticBackup", "b", Some(true))
    );
    assert_eq!(
        serde_json::to_value(&claim.spec).unwrap(),
        json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                "resources": { "requests": { "storage": "10Gi" } } })
    );
    let pod = pod(&objects);
    let (volume, path, arguments) = cached(&pod);
    assert_eq!(
        volume["persistentVolumeClaim"],
        json!({ "claimName": "resticbackup-orders-cache" })
    );
    assert_eq!(path, "/cache");
    assert!(arguments.contains(&"--cleanup-cache".to_owned()), "{arguments:?}");
    // What makes it writable for the pod's user.
    assert_eq!(pod.security_context.unwrap().fs_group, Some(crate::pod::USER));
}

#[test]
fn a_claim_that_is_there_is_used_and_none_is_made() {
    let objects = objects(&named(), json!({ "cache": { "enabled": false } }));
    assert!(objects.cache.is_none());
    let (volume, _, arguments) = cached(&pod(&objects));
    assert_eq!(volume["persistentVolumeClaim"], json!({ "claimName": "shared" }));
    assert!(
        !arguments.contains(&"--no-cache".to_owned()),
        "the backup's own word wins: {arguments:?}"
    );
}

#[test]
fn without_it_the_cache_lasts_as_long_as_the_pod() {
    let objects = objects(&json!({}), json!({}));
    assert!(objects.cache.is_none());
    let (volume, _, arguments) = cached(&pod(&objects));
    assert_eq!(volume["emptyDir"], json!({ "sizeLimit": "5Gi" }));
    assert!(!arguments.iter().any(|a| a.contains("cache")), "{arguments:?}");
}

#[test]
fn a_cache_that_cannot_work_is_refused_with_the_field_to_change() {
    let writes = json!({ "customSource": { "backupPath": "/data", "podTemplate": { "spec": {
        "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
        "containers": [{ "name": "app", "image": "i", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }] } } } });
    for (job, source, part) in [
        (
            json!({ "cache": { "claimName": "data" } }),
            pvc(),
            "is what is backed up",
        ),
        (
            json!({ "cache": { "claimName": "data" } }),
            writes.clone(),
            "is what is backed up",
        ),
        (json!({ "cache": {} }), pvc(), "exactly one of claimName and size"),
        (
            json!({ "cache": { "claimName": "c", "size": "1Gi" } }),
            pvc(),
            "exactly one of claimName and size",
        ),
        (
            json!({ "cache": { "claimName": "c", "storageClassName": "s" } }),
            pvc(),
            "give its size too",
        ),
        (named(), writes.clone(), "securityContext.fsGroup"),
    ] {
        let text = valid(&job, &source).unwrap_err();
        assert!(
            text.starts_with("spec.jobConfig.cache") && text.contains(part),
            "{job}: {text}"
        );
    }
    for user in [json!({ "fsGroup": 5 }), json!({ "runAsUser": 0 })] {
        let job = json!({ "cache": { "claimName": "shared" }, "securityContext": user });
        assert!(valid(&job, &writes).unwrap().cache.is_some(), "{user}");
    }
}

fn located(world: &World, job: &Value, source: &Value) -> Result<Located, (&'static str, String)> {
    let valid = valid(job, source).unwrap();
    let found = Surroundings::of(world, &key(), &valid);
    locate(&valid, &found).map_err(|unusable| (unusable.reason, unusable.message))
}

fn claim(world: &World, name: &str, phase: &str) {
    let view = ClaimView {
        phase: phase.into(),
        access: Access::Node,
        ..ClaimView::default()
    };
    world.claims.put(Key::new("shop", name), Arc::new(view));
}

fn user(world: &World, name: &str, of: &str, node: &str) {
    let mut pod = AppPodView {
        labels: [("app".to_owned(), "db".to_owned())].into(),
        node: node.into(),
        running: true,
        volumes: vec![AppVolume {
            name: "data".into(),
            backing: Backing::Claim(of.into()),
            mounts: Vec::new(),
        }],
        ..AppPodView::default()
    };
    pod.meta.version = 1;
    world.app_pods.put(Key::new("shop", name), Arc::new(pod));
}

#[test]
fn a_run_goes_to_the_node_of_its_data_and_of_its_cache() {
    let world = World::default();
    claim(&world, "data", "Bound");
    let (reason, text) = located(&world, &named(), &pvc()).unwrap_err();
    assert_eq!(reason, reasons::PVC_NOT_FOUND);
    assert!(text.contains("\"shared\"") && text.contains(FIELD), "{text}");
    // It gets its volume with the first run, where that is.
    claim(&world, "shared", "Pending");
    assert!(
        located(&world, &named(), &pvc())
            .unwrap()
            .placement
            .nodes
            .is_empty()
    );
    user(&world, "other", "shared", "node-2");
    assert_eq!(
        located(&world, &named(), &pvc()).unwrap().placement.nodes,
        ["node-2"]
    );
    // The data cannot be anywhere else than where it is.
    user(&world, "db", "data", "node-1");
    assert_eq!(
        located(&world, &named(), &pvc()).unwrap().placement.nodes,
        ["node-1"]
    );
    assert!(located(&world, &made(), &pvc()).is_ok(), "it is made");
}

#[test]
fn a_pod_that_only_mounts_the_cache_is_no_source() {
    let world = World::default();
    claim(&world, "shared", "Bound");
    user(&world, "other", "shared", "node-2");
    let exec = json!({ "stdin": { "filename": "dump", "exec": {
        "podSelector": { "matchLabels": { "app": "none" } }, "command": ["dump"] } } });
    let (reason, _) = located(&world, &named(), &exec).unwrap_err();
    assert_eq!(reason, reasons::POD_NOT_FOUND);
    let volume = json!({ "podVolumeBackup": { "selector": { "matchLabels": { "app": "db" } }, "volumeName": "data" } });
    let (reason, text) = located(&world, &named(), &volume).unwrap_err();
    assert_eq!(reason, reasons::PVC_NOT_USABLE);
    assert!(text.contains("is what is backed up"), "{text}");
}
