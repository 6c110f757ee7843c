//! What clusters had whose name another one has now: for the day on which the new one is to get it.

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryStreamExt as _};
use prost::bytes::Bytes;
use sqlx::{Row as _, Sqlite as Database, Transaction};
use tokio::sync::mpsc;

use super::collect::DAY;
use super::{Sqlite, StoreError};
use crate::Millis;

/// For so long it is kept.
pub const KEPT: Millis = 30 * DAY;
/// Most of one name. A cluster that had nothing is not kept.
const MOST: u32 = 5;

/// A cluster that was replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    pub cluster: String,
    pub cluster_uid: String,
    /// When the first resources of the new one came.
    pub at: Millis,
    pub last_heard: Option<Millis>,
    /// Its resources are all that it had.
    pub complete: bool,
}

/// The same when it happens: what is stored of its resources is taken over, with what was not yet written of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replacement {
    pub of: Replaced,
    /// By the resource's uid, of which the last entry counts; `None` is deleted.
    pub unwritten: Vec<(String, Option<Bytes>)>,
}

/// A durable store of them.
pub trait ReplacedStore: Send + Sync {
    /// Those of a name, the last one first.
    fn replaced(&self, cluster: &str) -> BoxFuture<'_, Result<Vec<Replaced>, StoreError>>;
    /// The states of one, with the uids of its resources, in their order.
    fn replaced_states(
        &self,
        of: &Replaced,
        into: mpsc::Sender<(String, Vec<u8>)>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The state of one of its resources.
    fn replaced_state(&self, of: &Replaced, uid: &str) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;
    /// Forgets those that were replaced before.
    fn forget_replaced(&self, before: Millis) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl ReplacedStore for Sqlite {
    fn replaced(&self, cluster: &str) -> BoxFuture<'_, Result<Vec<Replaced>, StoreError>> {
        self.read_replaced(cluster.to_owned()).boxed()
    }

    fn replaced_states(
        &self,
        of: &Replaced,
        into: mpsc::Sender<(String, Vec<u8>)>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.read_replaced_states(of.clone(), into).boxed()
    }

    fn replaced_state(&self, of: &Replaced, uid: &str) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.read_replaced_state(of.clone(), uid.to_owned()).boxed()
    }

    fn forget_replaced(&self, before: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.remove_replaced(before)).boxed()
    }
}

impl Sqlite {
    async fn read_replaced(&self, cluster: String) -> Result<Vec<Replaced>, StoreError> {
        let query = "SELECT cluster_uid, replaced, last_heard, complete FROM replaced WHERE cluster = ? \
             ORDER BY replaced DESC, cluster_uid";
        let rows = sqlx::query(query).bind(&cluster).fetch_all(&self.pool).await?;
        let replaced = rows.into_iter().map(|row| {
            Ok(Replaced {
                cluster: cluster.clone(),
                cluster_uid: row.try_get(0)?,
                at: row.try_get(1)?,
                last_heard: row.try_get(2)?,
                complete: row.try_get::<i64, _>(3)? != 0,
            })
        });
        replaced.collect()
    }

    async fn read_replaced_states(
        &self,
        of: Replaced,
        into: mpsc::Sender<(String, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let query =
            "SELECT uid, state FROM replaced_object WHERE cluster = ? AND cluster_uid = ? ORDER BY uid";
        let query = sqlx::query(query).bind(of.cluster).bind(of.cluster_uid);
        let mut rows = query.fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            // An error means that nobody wants the rest.
            if into.send((row.try_get(0)?, row.try_get(1)?)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn read_replaced_state(&self, of: Replaced, uid: String) -> Result<Option<Vec<u8>>, StoreError> {
        let query = "SELECT state FROM replaced_object WHERE cluster = ? AND cluster_uid = ? AND uid = ?";
        let query = sqlx::query(query).bind(of.cluster).bind(of.cluster_uid).bind(uid);
        let row = query.fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn remove_replaced(&self, before: Millis) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for query in [
            "DELETE FROM replaced_object WHERE (cluster, cluster_uid) IN \
             (SELECT cluster, cluster_uid FROM replaced WHERE replaced < ?)",
            "DELETE FROM replaced WHERE replaced < ?",
        ] {
            sqlx::query(query).bind(before).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Takes over what is stored of a cluster, before anything of the new one is written.
pub(super) async fn set_aside(
    transaction: &mut Transaction<'static, Database>,
    replacement: Replacement,
) -> Result<(), StoreError> {
    let Replacement { of, unwritten } = replacement;
    let cluster = (&of.cluster, &of.cluster_uid);
    for query in [
        "DELETE FROM replaced_object WHERE cluster = ? AND cluster_uid = ?",
        "DELETE FROM replaced WHERE cluster = ? AND cluster_uid = ?",
    ] {
        let query = sqlx::query(query).bind(cluster.0).bind(cluster.1);
        query.execute(&mut **transaction).await?;
    }
    let query =
        "INSERT INTO replaced (cluster, cluster_uid, replaced, last_heard, complete) VALUES (?, ?, ?, ?, ?)";
    let query = sqlx::query(query).bind(cluster.0).bind(cluster.1).bind(of.at);
    let query = query.bind(of.last_heard).bind(i64::from(of.complete));
    query.execute(&mut **transaction).await?;
    take_over(transaction, cluster).await?;
    for (uid, state) in unwritten {
        let query = match &state {
            Some(_) => {
                "INSERT INTO replaced_object (cluster, cluster_uid, uid, state) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (cluster, cluster_uid, uid) DO UPDATE SET state = excluded.state"
            }
            None => {
                "DELETE FROM replaced_object WHERE cluster = ?1 AND cluster_uid = ?2 AND uid = ?3 AND ?4 IS NULL"
            }
        };
        let query = sqlx::query(query).bind(cluster.0).bind(cluster.1).bind(uid);
        query.bind(state.as_deref()).execute(&mut **transaction).await?;
    }
    for query in [
        "DELETE FROM replaced WHERE cluster = ?1 AND cluster_uid NOT IN \
         (SELECT cluster_uid FROM replaced WHERE cluster = ?1 ORDER BY replaced DESC, cluster_uid LIMIT ?2)",
        "DELETE FROM replaced_object WHERE cluster = ?1 AND ?2 > 0 AND cluster_uid NOT IN \
         (SELECT cluster_uid FROM replaced WHERE cluster = ?1)",
    ] {
        let query = sqlx::query(query).bind(cluster.0).bind(MOST);
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// One by one: a statement that writes many rows may need a temporary file, and there is no folder for one.
async fn take_over(
    transaction: &mut Transaction<'static, Database>,
    (cluster, cluster_uid): (&String, &String),
) -> Result<(), StoreError> {
    let query = sqlx::query("SELECT uid FROM object WHERE cluster = ?").bind(cluster);
    for row in query.fetch_all(&mut **transaction).await? {
        let query = "INSERT INTO replaced_object (cluster, cluster_uid, uid, state) \
             SELECT cluster, ?, uid, state FROM object WHERE cluster = ? AND uid = ?";
        let query = sqlx::query(query).bind(cluster_uid).bind(cluster);
        let query = query.bind(row.try_get::<String, _>(0)?);
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "replaced_tests.rs"]
mod tests;
