//! Bindings of clusters to repositories, and the repositories' keys, in SQLite.

use std::sync::Arc;

use futures::TryStreamExt as _;
use sqlx::Row as _;

use super::decisions::put_decision;
use super::{Sqlite, StoreError, StoredDecision};
use crate::bindings::{Binding, Key, State};

impl Sqlite {
    pub(super) async fn read_bindings(&self) -> Result<(Vec<Binding>, Vec<Key>), StoreError> {
        let query = "SELECT restic_id, cluster, state, how, since, proven FROM binding";
        let mut rows = sqlx::query(query).fetch(&self.pool);
        let mut bindings = Vec::new();
        while let Some(row) = rows.try_next().await? {
            bindings.push(Binding {
                restic_id: Arc::from(row.try_get::<&str, _>(0)?),
                cluster: Arc::from(row.try_get::<&str, _>(1)?),
                state: State::parse(row.try_get(2)?),
                how: row.try_get(3)?,
                since: row.try_get(4)?,
                proven: row.try_get::<i64, _>(5)? != 0,
            });
        }
        drop(rows);
        let query = "SELECT restic_id, public_key, cluster, since, rival FROM possession";
        let mut rows = sqlx::query(query).fetch(&self.pool);
        let mut keys = Vec::new();
        while let Some(row) = rows.try_next().await? {
            keys.push(Key {
                restic_id: Arc::from(row.try_get::<&str, _>(0)?),
                public_key: row.try_get(1)?,
                cluster: Arc::from(row.try_get::<&str, _>(2)?),
                since: row.try_get(3)?,
                rival: row.try_get(4)?,
            });
        }
        Ok((bindings, keys))
    }

    pub(super) async fn write_binding(
        &self,
        binding: Option<Binding>,
        key: Option<Key>,
        decision: Option<StoredDecision>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        if let Some(binding) = binding {
            let query = "INSERT INTO binding (restic_id, cluster, state, how, since, proven) VALUES (?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (restic_id, cluster) DO UPDATE SET state = excluded.state, how = excluded.how, \
                 since = excluded.since, proven = excluded.proven";
            let query = sqlx::query(query)
                .bind(&*binding.restic_id)
                .bind(&*binding.cluster)
                .bind(binding.state.as_str());
            let query = query
                .bind(&binding.how)
                .bind(binding.since)
                .bind(i64::from(binding.proven));
            query.execute(&mut *transaction).await?;
        }
        if let Some(key) = key {
            // A key is never replaced; the note about a second one is.
            let query = "INSERT INTO possession (restic_id, public_key, cluster, since, rival) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (restic_id) DO UPDATE SET rival = excluded.rival";
            let query = sqlx::query(query)
                .bind(&*key.restic_id)
                .bind(&key.public_key)
                .bind(&*key.cluster);
            let query = query.bind(key.since).bind(&key.rival);
            query.execute(&mut *transaction).await?;
        }
        if let Some(decision) = decision {
            put_decision(&mut transaction, decision).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
