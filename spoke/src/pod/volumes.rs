//! Volumes of pods, and how they are mounted. Pure.

use std::collections::BTreeMap;

use crds::names;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, EphemeralVolumeSource, KeyToPath, PersistentVolumeClaimSpec,
    PersistentVolumeClaimTemplate, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
    VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{ENTRYPOINT, ENTRYPOINT_KEY, Source};
use crate::secrets::FileKey;

/// A mount.
#[must_use]
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// A volume that lives as long as the pod.
#[must_use]
pub fn empty_dir(name: &str, limit: Option<String>) -> Volume {
    let empty_dir = EmptyDirVolumeSource {
        size_limit: limit.map(Quantity),
        ..EmptyDirVolumeSource::default()
    };
    Volume {
        name: name.to_owned(),
        empty_dir: Some(empty_dir),
        ..Volume::default()
    }
}

/// A volume of a storage class for the life of the pod: no two pods ever fight for it.
pub(super) fn ephemeral(name: &str, class: &str, size: String) -> Volume {
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: Some(class.to_owned()),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size))])),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    let template = PersistentVolumeClaimTemplate {
        spec,
        ..PersistentVolumeClaimTemplate::default()
    };
    let ephemeral = EphemeralVolumeSource {
        volume_claim_template: Some(template),
    };
    Volume {
        name: name.to_owned(),
        ephemeral: Some(ephemeral),
        ..Volume::default()
    }
}

/// A claim's volume. `read_only` reaches the kubelet, which otherwise changes group and mode of what is in it (fsGroup)
/// and its SELinux labels, whatever the mount says.
#[must_use]
pub fn claim(name: &str, claim: &str, read_only: bool) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    }
}

/// Mount and volume of the entrypoint.
#[must_use]
pub fn entrypoint() -> (VolumeMount, Volume) {
    let mount = VolumeMount {
        sub_path: Some(ENTRYPOINT_KEY.to_owned()),
        ..mount("backup-script", ENTRYPOINT, true)
    };
    let volume = Volume {
        name: "backup-script".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::SCRIPTS.to_owned(),
            default_mode: Some(0o755),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    (mount, volume)
}

/// The files of a back end, readable for any user of the pod.
pub(super) fn credentials_volume(source: &Source, files: &[FileKey]) -> Volume {
    let items = files.iter().map(|f| KeyToPath {
        key: f.key.to_owned(),
        path: f.file.to_owned(),
        mode: Some(0o444),
        ..KeyToPath::default()
    });
    Volume {
        name: "credentials".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(source.name().to_owned()),
            items: Some(items.collect()),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A volume that never reaches the node's disk.
pub(super) fn in_memory(name: &str) -> Volume {
    let empty_dir = EmptyDirVolumeSource {
        medium: Some("Memory".to_owned()),
        size_limit: Some(Quantity("1Mi".to_owned())),
        ..EmptyDirVolumeSource::default()
    };
    Volume {
        name: name.to_owned(),
        empty_dir: Some(empty_dir),
        ..Volume::default()
    }
}
