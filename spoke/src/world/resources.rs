//! Our own kinds as entries of a store.

use crds::backup::BackupSource;
use crds::common::CrossNamespaceObjectReference;
use crds::restore::RestorePhase;
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::key::Key;
use super::store::{Index, Stored};

/// Copy of the manifest that `kubectl apply` leaves on an object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what nobody reads: it is as large as the rest of a resource.
pub fn slim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

macro_rules! stored {
    ($($kind:ty => $group:expr, $indexed:expr;)*) => {$(
        impl Stored for $kind {
            fn uid(&self) -> &str {
                self.metadata.uid.as_deref().unwrap_or_default()
            }
            fn version(&self) -> u64 {
                self.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
            }
            fn group(&self) -> Option<Key> {
                let group: fn(&$kind) -> Option<Key> = $group;
                group(self)
            }
            fn indexed(&self, key: &Key) -> Vec<(Index, Key)> {
                let indexed: fn(&$kind, &Key) -> Vec<(Index, Key)> = $indexed;
                indexed(self, key)
            }
        }
    )*};
}

stored! {
    ResticRepository => |_| None, |repository, key| {
        let secret = &repository.spec.credentials_secret_ref.name;
        let id = repository.status.as_ref().and_then(|s| s.repository_id.as_deref());
        let mut indexed = vec![(Index::Credentials, key.sibling(secret))];
        indexed.extend(id.map(|id| (Index::ResticId, Key::new("", id))));
        indexed
    };
    ResticRestore => |_| None, |restore, key| {
        let phase = restore.status.as_ref().and_then(|s| s.phase);
        let target = &restore.spec.target;
        let existing = target.pvc.as_ref().map(|pvc| &pvc.claim_name);
        let new = target.new_pvc.as_ref().map(|pvc| &pvc.name);
        let claims = existing.into_iter().chain(new);
        let claims = claims.map(|name| (Index::Claim, key.sibling(name)));
        match phase {
            // One that has ended reads nothing any more.
            Some(RestorePhase::Completed) => return Vec::new(),
            // But for its pod, which is kept for its log until somebody waits for the claim.
            Some(RestorePhase::Failed) => return claims.collect(),
            _ => {}
        }
        let spec = &restore.spec;
        let mut indexed = vec![(Index::Namespace, key.namespace_key())];
        indexed.extend(spec.backup_ref.as_ref().map(|r| (Index::Backup, place(key, r))));
        indexed.extend(spec.repository_ref.as_ref().map(|r| (Index::Repository, place(key, r))));
        indexed.extend(claims);
        indexed
    };
    GlobalRetentionPolicy => |policy| {
        let own = policy.namespace().unwrap_or_default();
        let reference = &policy.spec.repository_ref;
        Some(Key::new(reference.namespace_or(&own), &reference.name))
    }, |policy, key| user(key, &policy.spec.repository_ref);
    ResticBackup => |backup| {
        let own = backup.namespace().unwrap_or_default();
        let reference = &backup.spec.repository_ref;
        Some(Key::new(reference.namespace_or(&own), &reference.name))
    }, |backup, key| {
        let mut indexed = user(key, &backup.spec.repository_ref);
        let claim = backup.spec.source.pvc.as_ref();
        indexed.extend(claim.map(|pvc| (Index::Claim, key.sibling(&pvc.claim_name))));
        let source = &backup.spec.source;
        indexed.extend(claims(source).map(|name| (Index::Claim, key.sibling(name))));
        let cache = backup.spec.job_config.as_ref().and_then(|job| job.cache.as_ref());
        let cache = cache.map(|cache| cache.claim_name.clone().unwrap_or_else(|| names::backup_cache(&key.name)));
        indexed.extend(cache.map(|name| (Index::Claim, key.sibling(&name))));
        let selects = source.pod_volume_backup.is_some() || source.stdin.as_ref().is_some_and(|s| s.exec.is_some());
        indexed.push((Index::Policy, key.sibling(names::backup_retention(&key.name))));
        indexed.extend(selects.then(|| (Index::Pods, key.namespace_key())));
        indexed
    };
}

/// Names of the claims in the templates of a source.
pub fn claims(source: &BackupSource) -> impl Iterator<Item = &str> {
    let custom = source.custom_source.iter().map(|custom| &custom.pod_template);
    let pods = source
        .stdin
        .iter()
        .filter_map(|stdin| Some(&stdin.pod.as_ref()?.pod_template));
    let volumes = custom
        .chain(pods)
        .filter_map(|template| template.pointer("/spec/volumes")?.as_array());
    volumes
        .flatten()
        .filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")?.as_str())
}

/// Indexes of what uses a repository with Jobs of its own.
fn user(key: &Key, reference: &CrossNamespaceObjectReference) -> Vec<(Index, Key)> {
    let mut indexed = Vec::new();
    let repository = place(key, reference);
    if repository.namespace != key.namespace {
        indexed.push((Index::Foreign, repository));
        indexed.push((Index::Namespace, key.namespace_key()));
    }
    // A short name is its own label.
    if key.name.len() > names::LABEL_MAX {
        indexed.push((Index::Label, key.sibling(names::label_value(&key.name))));
    }
    indexed
}

/// What a reference in a resource at `key` points to.
fn place(key: &Key, reference: &CrossNamespaceObjectReference) -> Key {
    Key::new(reference.namespace_or(&key.namespace), &reference.name)
}
