//! Pods of applications: what backups read of them to find a claim, a container, and the node to run on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration, Volume};
use kube::ResourceExt as _;

use super::key::Key;
use super::store::{Index, Stored};
use super::views::Meta;

/// A pod that has a node and has not ended. The pods of backups are not among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppPodView {
    pub meta: Meta,
    pub labels: BTreeMap<String, String>,
    pub node: Box<str>,
    /// phase Running.
    pub running: bool,
    pub containers: Vec<Box<str>>,
    pub volumes: Vec<AppVolume>,
    /// Only those that were written for it: not the ones that admission gives to every pod.
    pub tolerations: Vec<Toleration>,
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct AppVolume {
    pub name: Box<str>,
    pub backing: Backing,
    /// Containers that mount it.
    pub mounts: Vec<AppMount>,
}

/// What is behind a volume.
#[derive(Clone, Debug, PartialEq)]
pub enum Backing {
    /// A PersistentVolumeClaim, by its name.
    Claim(Box<str>),
    /// Another kind of volume, as its field in the API.
    Other(&'static str),
}

/// A container's mount of a volume.
#[derive(Clone, Debug, PartialEq)]
pub struct AppMount {
    pub container: Box<str>,
    pub sub_path: Box<str>,
    /// subPathExpr, which only the kubelet can expand.
    pub expression: bool,
}

/// Prefix of the volumes with the token of a pod's account, which every pod has.
const TOKEN_VOLUME: &str = "kube-api-access-";

impl AppPodView {
    /// The part of a pod that is kept.
    #[must_use]
    pub fn of(object: &Pod) -> AppPodView {
        let none = PodSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&none);
        let status = object.status.as_ref();
        let all = || {
            spec.containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
        };
        let volumes = spec.volumes.iter().flatten();
        AppPodView {
            meta: Meta::of(&object.metadata),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            node: spec.node_name.as_deref().unwrap_or_default().into(),
            running: status.and_then(|s| s.phase.as_deref()) == Some("Running"),
            containers: spec.containers.iter().map(|c| c.name.as_str().into()).collect(),
            volumes: volumes
                .filter(|volume| !volume.name.starts_with(TOKEN_VOLUME))
                .map(|volume| AppVolume {
                    name: volume.name.as_str().into(),
                    backing: backing(&object.name_any(), volume),
                    mounts: all().flat_map(|c| mounts(c, &volume.name)).collect(),
                })
                .collect(),
            tolerations: spec
                .tolerations
                .iter()
                .flatten()
                .filter(|t| !is_default(t))
                .cloned()
                .collect(),
        }
    }

    /// Whether a backup reads the same of both: all but the version.
    #[must_use]
    pub fn is_alike(&self, other: &AppPodView) -> bool {
        // Without `..`: a field that is added has to be thought of here too.
        let AppPodView {
            meta,
            labels,
            node,
            running,
            containers,
            volumes,
            tolerations,
        } = self;
        (&meta.uid, meta.deleting) == (&other.meta.uid, other.meta.deleting)
            && (labels, node, *running) == (&other.labels, &other.node, other.running)
            && *containers == other.containers
            && *volumes == other.volumes
            && *tolerations == other.tolerations
    }

    /// Claims that it mounts.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().filter_map(|volume| match &volume.backing {
            Backing::Claim(name) => Some(&**name),
            Backing::Other(_) => None,
        })
    }
}

/// What admission adds to every pod, with a time limit.
fn is_default(toleration: &Toleration) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    toleration.toleration_seconds.is_some()
        && matches!(
            key,
            "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
        )
}

fn mounts(container: &Container, volume: &str) -> Vec<AppMount> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .filter(|mount| mount.name == volume)
        .map(|mount| AppMount {
            container: container.name.as_str().into(),
            sub_path: mount.sub_path.as_deref().unwrap_or_default().into(),
            expression: mount.sub_path_expr.as_deref().is_some_and(|e| !e.is_empty()),
        })
        .collect()
}

fn backing(pod: &str, volume: &Volume) -> Backing {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Backing::Claim(claim.claim_name.as_str().into());
    }
    // The controller of ephemeral volumes names the claim so.
    if volume.ephemeral.is_some() {
        return Backing::Claim(format!("{pod}-{}", volume.name).into());
    }
    let kinds = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("secret", volume.secret.is_some()),
        ("projected", volume.projected.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("csi", volume.csi.is_some()),
        ("nfs", volume.nfs.is_some()),
    ];
    let kind = kinds.iter().find(|(_, given)| *given);
    Backing::Other(kind.map_or("volume of another kind", |(name, _)| name))
}

impl Stored for AppPodView {
    fn uid(&self) -> &str {
        &self.meta.uid
    }

    fn version(&self) -> u64 {
        self.meta.version
    }

    fn indexed(&self, key: &Key) -> Vec<(Index, Key)> {
        let claims = self.claims().map(|claim| (Index::Claim, key.sibling(claim)));
        claims.chain([(Index::Namespace, key.namespace_key())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_known_by_its_claims_its_node_and_what_it_tolerates() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "db-0", "namespace": "shop", "uid": "u", "resourceVersion": "3", "labels": { "app": "db" } },
            "spec": {
                "nodeName": "n1",
                "containers": [{ "name": "db", "volumeMounts": [{ "name": "data", "mountPath": "/d", "subPath": "pg" },
                                                                { "name": "kube-api-access-x", "mountPath": "/t" }] }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data-db-0" } },
                            { "name": "scratch", "ephemeral": {} }, { "name": "tmp", "emptyDir": {} },
                            { "name": "kube-api-access-x", "projected": {} }],
                "tolerations": [{ "key": "dedicated", "operator": "Exists" },
                                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300 }],
            },
            "status": { "phase": "Running" },
        }))
        .unwrap();
        let view = AppPodView::of(&pod);
        assert_eq!(view.claims().collect::<Vec<_>>(), ["data-db-0", "db-0-scratch"]);
        assert_eq!(view.volumes[2].backing, Backing::Other("emptyDir"));
        assert_eq!(
            (view.volumes.len(), view.tolerations.len(), view.running),
            (3, 1, true)
        );
        assert_eq!(&*view.volumes[0].mounts[0].sub_path, "pg");
        let keys = view.indexed(&Key::new("shop", "db-0"));
        assert!(keys.contains(&(Index::Claim, Key::new("shop", "data-db-0"))));
        assert!(keys.contains(&(Index::Namespace, Key::new("", "shop"))));
    }
}
