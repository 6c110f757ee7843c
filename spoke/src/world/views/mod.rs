//! Watched objects cut down to what the controllers read of them: ten thousand pods must not cost ten thousand specs.

mod containers;
mod exclusion;
mod job;
mod meta;
mod pod;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim};
use kube::core::PartialObjectMeta;

use super::key::Key;
use super::store::{Index, Stored};
use crate::units::quantity;

pub use containers::{RESTIC_CONTAINER, Termination};
pub use exclusion::Exclusion;
pub use job::{JobEnd, JobLease, JobPin, JobView};
pub use meta::{Meta, MetaView};
pub use pod::PodView;

/// A CronJob.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CronJobView {
    pub meta: Meta,
    pub suspend: bool,
    pub last_schedule: Option<Timestamp>,
    pub created: Option<Timestamp>,
}

impl CronJobView {
    #[must_use]
    pub fn of(object: &CronJob) -> CronJobView {
        CronJobView {
            meta: Meta::of(&object.metadata),
            suspend: object.spec.suspend.unwrap_or_default(),
            last_schedule: object
                .status
                .as_ref()
                .and_then(|s| s.last_schedule_time.as_ref())
                .map(|t| t.0),
            created: object.metadata.creation_timestamp.as_ref().map(|t| t.0),
        }
    }

    /// Whether it is as the spoke has written it. `recorded` is its generation after the last write. Without a record it
    /// is not: the original operator, when it is taken back for a while, keeps the mark and not the record.
    #[must_use]
    pub fn is_as_written(&self, recorded: Option<i64>) -> bool {
        self.meta.applied.is_some() && recorded == Some(self.meta.generation)
    }

    /// From when Kubernetes counts `@every`: from the last start, or from its creation before the first.
    #[must_use]
    pub fn counts_from(&self) -> Option<Timestamp> {
        self.last_schedule.or(self.created)
    }
}

/// Who may use a volume at the same time, by its claim's access modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Pods on any nodes.
    #[default]
    Many,
    /// Pods on one node.
    Node,
    /// One pod.
    Pod,
}

impl Access {
    fn of(modes: &[String]) -> Access {
        let has = |name: &str| modes.iter().any(|mode| mode == name);
        if has("ReadWriteMany") {
            Access::Many
        } else if has("ReadWriteOnce") {
            Access::Node
        } else if has("ReadWriteOncePod") {
            Access::Pod
        } else {
            // ReadOnlyMany: nobody writes.
            Access::Many
        }
    }
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimView {
    pub meta: Meta,
    /// Pending, Bound or Lost.
    pub phase: Box<str>,
    /// spec.volumeMode is Block.
    pub block: bool,
    pub access: Access,
    pub created: Option<Timestamp>,
    /// Size that it has, or asks for while it has none; 0 while that is not known.
    pub bytes: u64,
    /// Nobody is to back it up.
    pub exclusion: Option<Box<Exclusion>>,
}

impl ClaimView {
    #[must_use]
    pub fn of(object: &PersistentVolumeClaim) -> ClaimView {
        let phase = object.status.as_ref().and_then(|s| s.phase.as_deref());
        let mode = object.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
        let modes = object.spec.as_ref().and_then(|s| s.access_modes.as_deref());
        ClaimView {
            meta: Meta::of(&object.metadata),
            phase: phase.unwrap_or_default().into(),
            block: mode == Some("Block"),
            access: Access::of(modes.unwrap_or_default()),
            created: object.metadata.creation_timestamp.as_ref().map(|t| t.0),
            bytes: size(object).unwrap_or_default(),
            exclusion: Exclusion::of(&object.metadata).map(Box::new),
        }
    }

    /// Whether it counts as the same for who asks what is backed up.
    #[must_use]
    pub fn covers_as(&self, other: &ClaimView) -> bool {
        let of = |view: &ClaimView| {
            let meta = &view.meta;
            (
                meta.uid.clone(),
                meta.deleting,
                meta.owner_name.clone(),
                view.bytes,
            )
        };
        of(self) == of(other) && self.exclusion == other.exclusion
    }
}

/// Size of a claim in bytes.
fn size(object: &PersistentVolumeClaim) -> Option<u64> {
    const STORAGE: &str = "storage";
    let has = object
        .status
        .as_ref()
        .and_then(|s| s.capacity.as_ref()?.get(STORAGE));
    let asks = || {
        object
            .spec
            .as_ref()?
            .resources
            .as_ref()?
            .requests
            .as_ref()?
            .get(STORAGE)
    };
    quantity(&has.or_else(asks)?.0)
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceView {
    pub meta: Meta,
    pub labels: Arc<BTreeMap<String, String>>,
    /// Nobody is to back up what is in it.
    pub exclusion: Option<Box<Exclusion>>,
}

impl NamespaceView {
    #[must_use]
    pub fn of(object: &PartialObjectMeta<Namespace>) -> NamespaceView {
        let labels = object.metadata.labels.clone().unwrap_or_default();
        NamespaceView {
            meta: Meta::of(&object.metadata),
            labels: Arc::new(labels),
            exclusion: Exclusion::of(&object.metadata).map(Box::new),
        }
    }
}

macro_rules! stored {
    ($($view:ty => $group:expr, $indexed:expr $(, $residue:expr)?;)*) => {$(
        impl Stored for $view {
            fn uid(&self) -> &str {
                &self.meta.uid
            }
            fn version(&self) -> u64 {
                self.meta.version
            }
            fn group(&self) -> Option<Key> {
                let group: fn(&$view) -> Option<Key> = $group;
                group(self)
            }
            fn indexed(&self, _: &Key) -> Vec<(Index, Key)> {
                let indexed: fn(&$view) -> Vec<(Index, Key)> = $indexed;
                indexed(self)
            }
            $(fn residue(&self, observed: bool) -> Option<(Key, u64)> {
                let residue: fn(&$view, bool) -> Option<(Key, u64)> = $residue;
                residue(self, observed)
            })?
        }
    )*};
}

stored! {
    MetaView => |_| None, |_| Vec::new();
    ClaimView => |_| None, |_| Vec::new();
    CronJobView => |_| None, |_| Vec::new();
    NamespaceView => |_| None, |_| Vec::new();
    // By uid are looked up those that may hold a maintenance lock.
    JobView => |job| job.of.clone(), |job| {
        let maintenance = job.type_.is_some() || job.pin.is_some() || job.lease.is_some();
        maintenance.then(|| (Index::Uid, Key::new("", &job.meta.uid))).into_iter().collect()
    };
    // Pods are looked up by the Job that controls them.
    PodView => |pod| pod.meta.owner.as_deref().map(|uid| Key::new("", uid)), |_| Vec::new(), PodView::lost;
}
