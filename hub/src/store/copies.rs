//! In which store each cluster's repository of a restic id lies, in SQLite.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::Row as _;

use super::decisions::put_decision;
use super::{Sqlite, StoreError, StoredDecision};
use crate::copies::Place;

/// A cluster's repository is another store than it was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub cluster: Arc<str>,
    /// Keys of the stores.
    pub from: Arc<str>,
    pub to: Arc<str>,
}

/// Places of repositories.
pub trait PlaceStore: Send + Sync {
    /// All places that are known.
    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>, StoreError>>;
    /// Keeps places, and what follows for clusters that use another store than before: their bindings are moved, the store has
    /// the key of restic of the other one, and a lock whose tokens are above those of the other one.
    fn save_places(
        &self,
        places: Vec<Place>,
        moved: Vec<Moved>,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl PlaceStore for Sqlite {
    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>, StoreError>> {
        self.read_places().boxed()
    }

    fn save_places(
        &self,
        places: Vec<Place>,
        moved: Vec<Moved>,
        decision: Option<StoredDecision>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_places(places, moved, decision)).boxed()
    }
}

/// What follows from a move, with the keys of both stores and the cluster as parameters 1 to 3.
const MOVES: [&str; 3] = [
    "INSERT INTO possession (restic_id, public_key, cluster, since, rival) \
     SELECT ?2, public_key, cluster, since, rival FROM possession WHERE restic_id = ?1 AND ?3 != '' ON CONFLICT DO NOTHING",
    "UPDATE OR REPLACE binding SET restic_id = ?2 WHERE restic_id = ?1 AND cluster = ?3",
    "INSERT INTO lock (restic_id, token, delayed, revoked) \
     SELECT ?2, token, 0, 0 FROM lock WHERE restic_id = ?1 AND ?3 != '' \
     ON CONFLICT (restic_id) DO UPDATE SET token = max(token, excluded.token)",
];

impl Sqlite {
    async fn read_places(&self) -> Result<Vec<Place>, StoreError> {
        let rows = sqlx::query("SELECT restic_id, cluster, store, urls FROM place")
            .fetch_all(&self.pool)
            .await?;
        let mut places = Vec::new();
        for row in &rows {
            places.push(Place {
                restic_id: Arc::from(row.try_get::<&str, _>(0)?),
                cluster: Arc::from(row.try_get::<&str, _>(1)?),
                store: Arc::from(row.try_get::<&str, _>(2)?),
                urls: row.try_get(3)?,
            });
        }
        Ok(places)
    }

    async fn write_places(
        &self,
        places: Vec<Place>,
        moved: Vec<Moved>,
        decision: Option<StoredDecision>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for place in places {
            let query = "INSERT INTO place (restic_id, cluster, store, urls) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (restic_id, cluster) DO UPDATE SET store = excluded.store, urls = excluded.urls";
            let query = sqlx::query(query).bind(&*place.restic_id).bind(&*place.cluster);
            let query = query.bind(&*place.store).bind(place.urls);
            query.execute(&mut *transaction).await?;
        }
        for Moved { cluster, from, to } in moved {
            for query in MOVES {
                let query = sqlx::query(query).bind(&*from).bind(&*to).bind(&*cluster);
                query.execute(&mut *transaction).await?;
            }
        }
        if let Some(decision) = decision {
            put_decision(&mut transaction, decision).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
