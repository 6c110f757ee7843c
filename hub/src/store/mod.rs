//! What survives a restart of the hub. Behind a trait, so that another database can take the place of SQLite.

pub mod beside;
mod bindings;
mod clusters;
pub mod collect;
mod commands;
pub mod copies;
pub mod copy;
mod decisions;
mod enrolment;
pub mod held;
mod locks;
mod many;
pub mod pause;
mod people;
mod plans;
mod records;
pub mod replaced;
pub mod runs;
mod schema;
mod sqlite;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::Millis;
use crate::bindings::{Binding, Key};

pub use commands::{CommandCursor, CommandStore};
pub use decisions::{DecisionQuery, DecisionStore, Entry, StoredDecision, Verified};
pub use enrolment::{EnrolmentStore, StoredCertificate, StoredToken, TokenUse};
pub use people::PeopleStore;
pub use plans::{CheckedDamage, StoredEnd, StoredPlan};
pub use records::{
    Age, AuditCursor, AuditQuery, Batch, History, Kept, KeptBindings, PlanCursor, Start, StoredAudit,
    StoredCluster, StoredGrant, StoredLock, StoredObject, StoredVanished,
};
pub use sqlite::Sqlite;

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store failed: {0}")]
    Failed(#[from] sqlx::Error),
    /// Another process has begun a later epoch: this one must not decide anything any more.
    #[error("another hub has taken this store over (its epoch is not {0} any more); this process ends")]
    Fenced(u64),
}

impl StoreError {
    /// Whether the process has to end.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, StoreError::Fenced(_))
    }
}

/// All clusters and objects at once.
///
/// # Errors
/// When the store cannot be read.
pub async fn everything(store: &dyn HubStore) -> Result<Kept, StoreError> {
    let (into, mut objects) = mpsc::channel(1);
    let all = async {
        let mut all = Vec::new();
        while let Some(of_cluster) = objects.recv().await {
            all.extend(of_cluster);
        }
        all
    };
    let (clusters, read, all) = (store.clusters().await?, store.objects(into), all);
    let (read, all) = tokio::join!(read, all);
    read?;
    Ok((clusters, all))
}

/// A durable store. `Ok` means on disk. Every write fails with [`StoreError::Fenced`] when a later epoch has begun.
pub trait HubStore:
    collect::CollectStore
    + copy::CopyStore
    + copies::PlaceStore
    + pause::PauseStore
    + CommandStore
    + DecisionStore
    + EnrolmentStore
    + PeopleStore
    + replaced::ReplacedStore
    + runs::RunStore
{
    /// Begins the epoch of this start.
    fn begin(&self) -> BoxFuture<'_, Result<Start, StoreError>>;
    /// Whether the epoch is still this process's. Cheap: asked between writes, so that nobody renews out of a memory
    /// that is not the only one any more.
    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// What is kept of the store's age.
    fn age(&self) -> BoxFuture<'_, Result<Age, StoreError>>;
    /// Keeps the store's age.
    fn keep_age(&self, age: Age) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Goes on under an epoch above this one: clusters have seen it before the store was restored.
    fn raise_epoch(&self, above: u64) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Whether the last write was kept.
    fn is_well(&self) -> bool;
    /// All clusters, by name.
    fn clusters(&self) -> BoxFuture<'_, Result<Vec<StoredCluster>, StoreError>>;
    /// All objects, cluster by cluster in the order of their names: those of one cluster together.
    fn objects(&self, into: mpsc::Sender<Vec<StoredObject>>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Policies that vanished without a tombstone.
    fn vanished(&self) -> BoxFuture<'_, Result<Vec<StoredVanished>, StoreError>>;
    /// Keeps a batch, all of it or nothing.
    fn save(&self, batch: Batch) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Removes a cluster and its objects with a person's decision, all or nothing.
    fn forget(&self, cluster: &str, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All locks that were ever used.
    fn locks(&self) -> BoxFuture<'_, Result<Vec<StoredLock>, StoreError>>;
    /// Keeps a lock, with a grant its entry in the audit, with a person's decision: all or nothing.
    fn save_lock(
        &self,
        lock: StoredLock,
        granted: Option<StoredGrant>,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The question that a grant answered (fleet.v1.LeaseAsk); `None` for a grant that is not known.
    fn asked(&self, restic_id: &str, token: u64) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;
    /// Records the end of a grant with all that it left.
    fn finish(&self, end: StoredEnd) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Records that an operation needed no run because of a grant.
    fn cover(&self, restic_id: &str, token: u64, operation: String) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Runs, newest first.
    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Vec<StoredAudit>, StoreError>>;
    /// Clusters that took part in an applied run of a repository, what the last one left, and rejected plans.
    fn history(&self, restic_id: &str) -> BoxFuture<'_, Result<History, StoreError>>;
    /// Plans without their documents, newest first.
    fn plans(
        &self,
        limit: u32,
        before: Option<PlanCursor>,
    ) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>>;
    /// Plans whose id begins so, or whose hash does (at least 8 digits of it); at most two.
    fn plans_named(&self, id: &str) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>>;
    /// Plans of a cluster that were approved and not granted yet.
    fn approved(&self, cluster: &str) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>>;
    /// The plan of one run, JSON.
    fn document(&self, restic_id: &str, token: u64) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;
    /// What a person decided about a plan: its state, and who.
    fn decide_plan(
        &self,
        id: &str,
        state: &str,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All bindings, and the keys of repositories.
    fn bindings(&self) -> BoxFuture<'_, Result<KeptBindings, StoreError>>;
    /// Keeps a binding, with its key and a person's decision.
    fn save_binding(
        &self,
        binding: Option<Binding>,
        key: Option<Key>,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Forgets what ended before, and the oldest documents of plans beyond so many bytes.
    fn prune(&self, before: Millis, documents: u64) -> BoxFuture<'_, Result<(), StoreError>>;
}
