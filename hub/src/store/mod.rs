//! What survives a restart of the hub. Behind a trait, so that another database can take the place of SQLite.

mod clusters;
mod locks;

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::Row as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use prost::Message;
use proto::v1::OperationOutcome;

use crate::Millis;
use crate::inventory::Facts;

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreError(#[from] sqlx::Error);

/// A cluster as it is kept, always in one transaction with what changed of its objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredCluster {
    pub name: String,
    pub facts: Facts,
    pub last_heard: Option<Millis>,
    /// Its objects are the whole of one of its states.
    pub complete: bool,
    /// Digest and number of its objects.
    pub digest: Vec<u8>,
    pub objects: u64,
    /// Why two clusters are in conflict about the name.
    pub conflict: Option<String>,
    /// uid of the cluster that an operator has accepted.
    pub accepted: Option<String>,
}

/// A resource as it is kept: the bytes of its state as its spoke sent them.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredObject {
    pub cluster: String,
    pub uid: String,
    pub baseline: Millis,
    pub state: Vec<u8>,
}

/// Everything that is kept.
pub type Kept = (Vec<StoredCluster>, Vec<StoredObject>);

/// A lock as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLock {
    pub restic_id: String,
    /// Highest token that was ever granted.
    pub token: u64,
    /// Cluster, operation and subject.
    pub holder: Option<(String, String, String)>,
    pub delayed: bool,
}

/// A grant, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAudit {
    pub restic_id: String,
    pub token: u64,
    pub cluster: String,
    pub operation: String,
    pub subject: String,
    pub granted: Millis,
    pub ended: Option<Millis>,
    pub policies: Vec<String>,
    pub covered: Vec<String>,
    /// fleet.v1.OperationOutcome
    pub outcome: Option<Vec<u8>>,
}

/// A plan that waits for a person, or was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlan {
    pub id: String,
    pub restic_id: String,
    pub hash: String,
    pub state: String,
    pub made: Millis,
    pub cluster: String,
    /// uid of the policy whose run made it.
    pub policy: String,
    pub subject: String,
    pub token: u64,
    /// fleet.v1.OperationOutcome
    pub outcome: Vec<u8>,
    /// JSON.
    pub document: Vec<u8>,
    pub decided_by: String,
}

/// What is written together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub clusters: Vec<StoredCluster>,
    pub objects: Vec<StoredObject>,
    /// Cluster and uid.
    pub gone: Vec<(String, String)>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.objects.is_empty() && self.gone.is_empty()
    }
}

/// A durable store. `Ok` means on disk.
pub trait HubStore: Send + Sync {
    /// The epoch of this start: one more than ever before.
    fn begin_epoch(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Everything that is kept.
    fn load(&self) -> BoxFuture<'_, Result<Kept, StoreError>>;
    /// Keeps a batch, all of it or nothing.
    fn save(&self, batch: Batch) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Removes a cluster and its objects, all or nothing.
    fn forget(&self, cluster: &str) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All locks that were ever used.
    fn locks(&self) -> BoxFuture<'_, Result<Vec<StoredLock>, StoreError>>;
    /// Keeps a lock; with a grant its entry in the audit, both or neither.
    fn save_lock(
        &self,
        lock: StoredLock,
        granted: Option<StoredAudit>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Records the end of a grant.
    fn finish(
        &self,
        restic_id: &str,
        token: u64,
        ended: Millis,
        outcome: Option<&OperationOutcome>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Records that an operation needed no run because of a grant.
    fn cover(&self, restic_id: &str, token: u64, operation: String) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Newest first; of these repositories, or of all.
    fn audit(
        &self,
        limit: u32,
        of: Option<Vec<String>>,
    ) -> BoxFuture<'_, Result<Vec<StoredAudit>, StoreError>>;
    /// Keeps a plan; what waited for the same policy is superseded.
    fn save_plan(&self, plan: StoredPlan) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All plans, newest first; at most 200.
    fn plans(&self) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>>;
    /// What a person decided.
    fn decide_plan(&self, id: &str, state: &str, by: &str) -> BoxFuture<'_, Result<(), StoreError>>;
    /// A run of the repository went through: its plan is applied, and others are of the past.
    fn settle_plans(&self, restic_id: &str, applied: &str) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// SQLite in a file, in WAL mode; a commit is on disk when it returns.
pub struct Sqlite {
    pub(super) pool: SqlitePool,
}

impl Sqlite {
    /// Opens or creates the file.
    pub async fn open(path: &Path) -> anyhow::Result<Sqlite> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        // One writer: SQLite has no more, and waiting in the pool is cheaper than in the file.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Sqlite { pool })
    }
}

impl HubStore for Sqlite {
    fn begin_epoch(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            let row = sqlx::query("UPDATE hub SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch")
                .fetch_one(&self.pool)
                .await?;
            Ok(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default())
        }
        .boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Kept, StoreError>> {
        self.read_inventory().boxed()
    }

    fn save(&self, batch: Batch) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_inventory(batch).boxed()
    }

    fn forget(&self, cluster: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        self.remove_cluster(cluster.to_owned()).boxed()
    }

    fn locks(&self) -> BoxFuture<'_, Result<Vec<StoredLock>, StoreError>> {
        self.read_locks().boxed()
    }

    fn save_lock(
        &self,
        lock: StoredLock,
        granted: Option<StoredAudit>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_lock(lock, granted).boxed()
    }

    fn finish(
        &self,
        restic_id: &str,
        token: u64,
        ended: Millis,
        outcome: Option<&OperationOutcome>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let outcome = outcome.map(Message::encode_to_vec);
        self.write_end(restic_id.to_owned(), token, ended, outcome)
            .boxed()
    }

    fn cover(&self, restic_id: &str, token: u64, operation: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_cover(restic_id.to_owned(), token, operation).boxed()
    }

    fn audit(
        &self,
        limit: u32,
        of: Option<Vec<String>>,
    ) -> BoxFuture<'_, Result<Vec<StoredAudit>, StoreError>> {
        self.read_audit(limit, of).boxed()
    }

    fn save_plan(&self, plan: StoredPlan) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_plan(plan).boxed()
    }

    fn plans(&self) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>> {
        self.read_plans().boxed()
    }

    fn decide_plan(&self, id: &str, state: &str, by: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_decision(id.to_owned(), state.to_owned(), by.to_owned())
            .boxed()
    }

    fn settle_plans(&self, restic_id: &str, applied: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_settled(restic_id.to_owned(), applied.to_owned())
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, Vec<u8>),
        Gone(u8),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..5, prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(uid, state)| Step::Put(uid, state)),
            (0u8..5).prop_map(Step::Gone),
            Just(Step::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_was_kept_is_there_after_a_restart(steps in prop::collection::vec(step(), 0..20)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("fleet.db");
                let mut store = Sqlite::open(&path).await.unwrap();
                let mut model = BTreeMap::new();
                let mut epoch = store.begin_epoch().await.unwrap();
                for step in steps {
                    match step {
                        Step::Put(uid, state) => {
                            model.insert(uid.to_string(), state.clone());
                            let object = StoredObject { cluster: "a".into(), uid: uid.to_string(), baseline: 1, state };
                            store.save(Batch { objects: vec![object], ..Batch::default() }).await.unwrap();
                        }
                        Step::Gone(uid) => {
                            model.remove(&uid.to_string());
                            store.save(Batch { gone: vec![("a".into(), uid.to_string())], ..Batch::default() }).await.unwrap();
                        }
                        Step::Reopen => {
                            store = Sqlite::open(&path).await.unwrap();
                            let next = store.begin_epoch().await.unwrap();
                            assert!(next > epoch, "epochs rise for ever");
                            epoch = next;
                        }
                    }
                }
                let (_, objects) = store.load().await.unwrap();
                let held: BTreeMap<_, _> = objects.into_iter().map(|o| (o.uid, o.state)).collect();
                assert_eq!(held, model);
            });
        }
    }
}
