//! The store in SQLite: the file, its epoch, and the way to what the other files of this folder read and write.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, Sqlite as Database, Transaction};
use tokio::sync::mpsc;

use super::decisions::begin_chain;
use super::locks::number;
use super::schema::MIGRATIONS;
use super::{
    Age, AuditQuery, Batch, History, HubStore, KeptBindings, PlanCursor, Start, StoreError, StoredAudit,
    StoredCluster, StoredDecision, StoredEnd, StoredGrant, StoredLock, StoredObject, StoredPlan,
    StoredVanished,
};
use crate::Millis;
use crate::bindings::{Binding, Key};

/// How any connection to a store is made.
pub(super) fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .synchronous(SqliteSynchronous::Full)
        // What SQLite keeps until the end of a statement or a sort would be a file otherwise, and in the hub's container no
        // folder for such files can be written.
        .pragma("temp_store", "MEMORY")
        .busy_timeout(Duration::from_secs(10))
}

/// The connections to a store. One writer: SQLite has no more, and waiting here is cheaper than in the file.
///
/// When SQLite itself has ended a transaction, as it does when the disk is full or fails, the connection still counts it as
/// open and begins no other one ever: such a connection is replaced.
pub(super) fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(1)
        .before_acquire(|connection, _| ready(Ok(!connection.is_in_transaction())).boxed())
}

/// SQLite in a file, in WAL mode; a commit is on disk when it returns.
pub struct Sqlite {
    pub(super) pool: SqlitePool,
    pub(super) path: PathBuf,
    epoch: AtomicU64,
    failed: AtomicBool,
}

impl Sqlite {
    /// Opens or creates the file.
    pub async fn open(path: &Path) -> anyhow::Result<Sqlite> {
        let options = options(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // After a burst the log gives its room back.
            .pragma("journal_size_limit", "16777216");
        let pool = pool().connect_with(options).await?;
        MIGRATIONS.run(&pool).await?;
        // No upgrade is under way any more: see `copy::before_upgrade`.
        sqlx::query("PRAGMA user_version = 0").execute(&pool).await?;
        begin_chain(&pool).await?;
        Ok(Sqlite {
            pool,
            path: path.to_owned(),
            epoch: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        })
    }

    /// A write that counts only in this process's epoch.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Database>, StoreError> {
        // Immediate: nobody else can begin an epoch between the look and the commit.
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query("SELECT epoch FROM hub WHERE id = 1")
            .fetch_one(&mut *transaction)
            .await?;
        self.is_ours(row.try_get(0)?)?;
        Ok(transaction)
    }

    fn is_ours(&self, epoch: i64) -> Result<(), StoreError> {
        let ours = self.epoch.load(Ordering::Acquire);
        if u64::try_from(epoch) == Ok(ours) {
            Ok(())
        } else {
            Err(StoreError::Fenced(ours))
        }
    }

    /// Notes whether a write was kept.
    pub(super) async fn noted<T>(
        &self,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let result = write.await;
        self.failed.store(result.is_err(), Ordering::Release);
        result
    }

    async fn begin_epoch(&self) -> Result<Start, StoreError> {
        let query = "UPDATE hub SET epoch = epoch + 1, \
             incarnation = CASE incarnation WHEN '' THEN lower(hex(randomblob(16))) ELSE incarnation END \
             WHERE id = 1 RETURNING epoch, incarnation, token_floor";
        let row = sqlx::query(query).fetch_one(&self.pool).await?;
        let epoch = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default();
        self.epoch.store(epoch, Ordering::Release);
        Ok(Start {
            epoch,
            incarnation: row.try_get(1)?,
            token_floor: number(&row, 2)?,
        })
    }

    async fn verify_epoch(&self) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT epoch FROM hub WHERE id = 1")
            .fetch_one(&self.pool)
            .await?;
        self.is_ours(row.try_get(0)?)
    }

    async fn read_age(&self) -> Result<Age, StoreError> {
        let row = sqlx::query("SELECT alive, waits_until FROM hub WHERE id = 1")
            .fetch_one(&self.pool)
            .await?;
        Ok(Age {
            alive: row.try_get(0)?,
            waits_until: row.try_get(1)?,
        })
    }

    async fn write_age(&self, age: Age) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE hub SET alive = ?, waits_until = ? WHERE id = 1")
            .bind(age.alive)
            .bind(age.waits_until)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn begin_epoch_above(&self, above: u64) -> Result<(), StoreError> {
        let epoch = above.saturating_add(1);
        if epoch <= self.epoch.load(Ordering::Acquire) {
            return self.verify_epoch().await;
        }
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE hub SET epoch = ? WHERE id = 1")
            .bind(i64::try_from(epoch).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.epoch.store(epoch, Ordering::Release);
        Ok(())
    }
}

impl HubStore for Sqlite {
    fn begin(&self) -> BoxFuture<'_, Result<Start, StoreError>> {
        self.noted(self.begin_epoch()).boxed()
    }

    fn verify(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.verify_epoch().boxed()
    }

    fn age(&self) -> BoxFuture<'_, Result<Age, StoreError>> {
        self.read_age().boxed()
    }

    fn keep_age(&self, age: Age) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_age(age)).boxed()
    }

    fn raise_epoch(&self, above: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.begin_epoch_above(above)).boxed()
    }

    fn is_well(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    fn clusters(&self) -> BoxFuture<'_, Result<Vec<StoredCluster>, StoreError>> {
        self.read_clusters().boxed()
    }

    fn objects(&self, into: mpsc::Sender<Vec<StoredObject>>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.read_objects(into).boxed()
    }

    fn vanished(&self) -> BoxFuture<'_, Result<Vec<StoredVanished>, StoreError>> {
        self.read_vanished().boxed()
    }

    fn save(&self, batch: Batch) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_inventory(batch)).boxed()
    }

    fn forget(&self, cluster: &str, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.remove_cluster(cluster.to_owned(), decision))
            .boxed()
    }

    fn locks(&self) -> BoxFuture<'_, Result<Vec<StoredLock>, StoreError>> {
        self.read_locks().boxed()
    }

    fn save_lock(
        &self,
        lock: StoredLock,
        granted: Option<StoredGrant>,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_lock(lock, granted, decision)).boxed()
    }

    fn asked(&self, restic_id: &str, token: u64) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.read_ask(restic_id.to_owned(), token).boxed()
    }

    fn finish(&self, end: StoredEnd) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_end(end)).boxed()
    }

    fn cover(&self, restic_id: &str, token: u64, operation: String) -> BoxFuture<'_, Result<(), StoreError>> {
        let restic_id = restic_id.to_owned();
        self.noted(self.write_cover(restic_id, token, operation)).boxed()
    }

    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Vec<StoredAudit>, StoreError>> {
        self.read_audit(query).boxed()
    }

    fn history(&self, restic_id: &str) -> BoxFuture<'_, Result<History, StoreError>> {
        self.read_history(restic_id.to_owned()).boxed()
    }

    fn plans(
        &self,
        limit: u32,
        before: Option<PlanCursor>,
    ) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>> {
        self.read_plans(limit, before).boxed()
    }

    fn plans_named(&self, id: &str) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>> {
        self.read_plans_named(id.to_owned()).boxed()
    }

    fn approved(&self, cluster: &str) -> BoxFuture<'_, Result<Vec<StoredPlan>, StoreError>> {
        self.read_approved(cluster.to_owned()).boxed()
    }

    fn document(&self, restic_id: &str, token: u64) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.read_document(restic_id.to_owned(), token).boxed()
    }

    fn decide_plan(
        &self,
        id: &str,
        state: &str,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let (id, state) = (id.to_owned(), state.to_owned());
        self.noted(self.write_plan_decision(id, state, decision)).boxed()
    }

    fn bindings(&self) -> BoxFuture<'_, Result<KeptBindings, StoreError>> {
        self.read_bindings().boxed()
    }

    fn save_binding(
        &self,
        binding: Option<Binding>,
        key: Option<Key>,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_binding(binding, key, decision)).boxed()
    }

    fn prune(&self, before: Millis, documents: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.remove_old(before, documents)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::everything;
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
                let mut epoch = store.begin().await.unwrap().epoch;
                for step in steps {
                    match step {
                        Step::Put(uid, state) => {
                            model.insert(uid.to_string(), state.clone());
                            let object = StoredObject { cluster: "a".into(), uid: uid.to_string(), baseline: 1, state: state.into() };
                            store.save(Batch { objects: vec![object], ..Batch::default() }).await.unwrap();
                        }
                        Step::Gone(uid) => {
                            model.remove(&uid.to_string());
                            store.save(Batch { gone: vec![("a".into(), uid.to_string())], ..Batch::default() }).await.unwrap();
                        }
                        Step::Reopen => {
                            store = Sqlite::open(&path).await.unwrap();
                            let next = store.begin().await.unwrap().epoch;
                            assert!(next > epoch, "epochs rise for ever");
                            epoch = next;
                        }
                    }
                }
                let (_, objects) = everything(&store).await.unwrap();
                let held: BTreeMap<_, _> = objects.into_iter().map(|o| (o.uid, o.state.to_vec())).collect();
                assert_eq!(held, model);
            });
        }
    }
}
