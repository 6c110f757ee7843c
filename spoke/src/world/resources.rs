//! Our own kinds as entries of a store.

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
use kube::ResourceExt as _;

use super::store::{Key, Stored};

macro_rules! stored {
    ($($kind:ty => $group:expr;)*) => {$(
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
        }
    )*};
}

stored! {
    ResticRepository => |_| None;
    ResticRestore => |_| None;
    GlobalRetentionPolicy => |policy| {
        let own = policy.namespace().unwrap_or_default();
        let reference = &policy.spec.repository_ref;
        Some(Key::new(reference.namespace_or(&own), &reference.name))
    };
    ResticBackup => |backup| {
        let own = backup.namespace().unwrap_or_default();
        let reference = &backup.spec.repository_ref;
        Some(Key::new(reference.namespace_or(&own), &reference.name))
    };
}
