//! The API of restic-fleet: group `backup.resticbackup.io`, version `v1alpha1`.
//!
//! Every field of the operator that first defined these kinds is here under the same name and with the same meaning;
//! `docs/compatibility.md` lists the few defaults that differ. Knows Kubernetes types, and neither gRPC nor actors.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod backup;
pub mod cache;
pub mod common;
pub mod conditions;
pub mod effect;
pub mod hooks;
pub mod integrity;
pub mod job;
pub mod names;
pub mod notifications;
pub mod progress;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod rights;
pub mod rotation;
pub mod rules;
pub mod schedule;
pub mod schema;
pub mod source;
mod variable;
pub mod window;

pub use backup::{ResticBackup, ResticBackupSpec, ResticBackupStatus};
pub use repository::{ResticRepository, ResticRepositorySpec, ResticRepositoryStatus};
pub use restore::{ResticRestore, ResticRestoreSpec, ResticRestoreStatus};
pub use retention::{GlobalRetentionPolicy, GlobalRetentionPolicySpec, GlobalRetentionPolicyStatus};

/// API group of all kinds.
pub const GROUP: &str = "backup.resticbackup.io";
/// The one served version.
pub const VERSION: &str = "v1alpha1";
/// Image that backup pods run unless `spec.restic.image` says otherwise.
pub const RESTIC_IMAGE: &str = "ghcr.io/restic/restic:0.18.1";
