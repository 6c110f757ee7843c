//! The token of a pod's account, for those of its containers alone that call the API server. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

/// Where every client of the API server looks for its token.
const DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The kubelet writes a new token when four fifths of this have passed. Seconds.
const LIFE: i64 = 3600;

/// The mount of the volume of this name.
#[must_use]
pub fn mount(name: &str) -> VolumeMount {
    super::mount(name, DIR, true)
}

/// What a client in a pod needs: token, certificates and namespace, as Kubernetes would mount them into every container.
#[must_use]
pub fn volume(name: &str) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            expiration_seconds: Some(LIFE),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let certificates = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                ..KeyToPath::default()
            }]),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o444),
            sources: Some(vec![token, certificates, namespace]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}
