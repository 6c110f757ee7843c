//! What the spoke knows of its cluster: one store per watched type, kept true by the intake and by the answers to our
//! own writes. Actors read desired and observed state here when they take a turn.

mod app_pods;
mod delivery;
mod hooks;
mod key;
mod last_seen;
mod notices;
mod reports;
mod resources;
mod store;
mod undecodable;
mod views;

pub use app_pods::{AppMount, AppPodView, AppVolume, Backing};
pub use delivery::Delivery;
pub use hooks::{AFTER, BEFORE, HOOK_CONTAINER, HookContainer, HookContainers};
pub use key::Key;
pub use last_seen::LastSeen;
pub use notices::{Notice, Notices};
pub use reports::Reports;
pub use resources::{claims as claims_of_templates, slim};
pub use store::{Index, Put, Store, Stored};
pub use undecodable::Undecodable;
pub use views::{
    Access, ClaimView, CronJobView, Exclusion, JobEnd, JobLease, JobPin, JobView, Meta, MetaView,
    NamespaceView, PodView, RESTIC_CONTAINER, Termination,
};

use std::sync::Arc;

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};

/// All stores.
#[derive(Default)]
pub struct World {
    pub repositories: Store<ResticRepository>,
    /// Grouped by the repository that they refer to.
    pub backups: Store<ResticBackup>,
    pub restores: Store<ResticRestore>,
    /// Grouped by the repository that they refer to.
    pub policies: Store<GlobalRetentionPolicy>,
    pub cron_jobs: Store<CronJobView>,
    /// Grouped by the resource that they were made for: its namespace and label value (`names::label_value`).
    pub jobs: Store<JobView>,
    /// Grouped by the uid of the Job that controls them (with an empty namespace). Remembers the token of a pod that
    /// went without its end having been seen.
    pub pods: Store<PodView>,
    /// Pods of the cluster that have a node and have not ended, those of backups excepted.
    pub app_pods: Store<AppPodView>,
    pub service_accounts: Store<MetaView>,
    pub roles: Store<MetaView>,
    pub role_bindings: Store<MetaView>,
    pub config_maps: Store<MetaView>,
    /// Every Secret of the cluster, by its metadata only.
    pub secrets: Store<MetaView>,
    /// Every PersistentVolumeClaim.
    pub claims: Store<ClaimView>,
    pub namespaces: Store<NamespaceView>,
    /// Warnings of Kubernetes about our CronJobs, Jobs and pods, by the uid of what they are about.
    pub notices: Arc<Notices>,
    /// Pods that were deleted before the result of their Job was recorded, by its uid.
    pub last_seen: Arc<LastSeen>,
    /// How far the runs of our pods have come.
    pub reports: Reports,
}

impl World {
    /// Whether a Secret holds the credentials of a repository.
    #[must_use]
    pub fn holds_credentials(&self, secret: &Key) -> bool {
        !self.repositories.find(Index::Credentials, secret).is_empty()
    }
}
