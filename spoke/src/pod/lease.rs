//! How a maintenance pod reads its lease and what it is to do: annotations of its own, as files and variables. Pure.

use crds::names;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, Volume,
    VolumeMount,
};

/// Where a pod reads its lease.
const DIR: &str = "/fleet";
const NAME: &str = "lease";

/// The mount of the volume.
#[must_use]
pub fn mount() -> VolumeMount {
    super::mount(NAME, DIR, true)
}

/// Files that change while the pod runs.
#[must_use]
pub fn volume() -> Volume {
    let file = |name: &str, annotation: &str| DownwardAPIVolumeFile {
        path: name.to_owned(),
        field_ref: Some(field(annotation)),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: NAME.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![
                file("order", names::ANNOTATION_ORDER),
                file("renewals", names::ANNOTATION_RENEWALS),
            ]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// What never changes of a lease.
#[must_use]
pub fn variables() -> [EnvVar; 2] {
    let variable = |name: &str, annotation: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field(annotation)),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    [
        variable("FLEET_MAINTENANCE_TOKEN", names::ANNOTATION_TOKEN),
        variable("FLEET_MAINTENANCE_TTL", names::ANNOTATION_LEASE_TTL),
    ]
}

fn field(annotation: &str) -> ObjectFieldSelector {
    ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: format!("metadata.annotations['{annotation}']"),
    }
}
