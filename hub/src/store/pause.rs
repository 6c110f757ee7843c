//! The pause of all maintenance in SQLite.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::Row as _;

use super::decisions::put_decision;
use super::{Sqlite, StoreError, StoredDecision};
use crate::Millis;

/// Maintenance of the whole fleet is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Milliseconds since 1970.
    pub since: Millis,
    pub who: String,
    pub reason: String,
}

/// Whether maintenance is paused.
pub trait PauseStore: Send + Sync {
    /// As it was kept.
    fn pause(&self) -> BoxFuture<'_, Result<Option<Pause>, StoreError>>;
    /// Keeps it, with the person's decision.
    fn save_pause(
        &self,
        pause: Option<Pause>,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl PauseStore for Sqlite {
    fn pause(&self) -> BoxFuture<'_, Result<Option<Pause>, StoreError>> {
        self.read_pause().boxed()
    }

    fn save_pause(
        &self,
        pause: Option<Pause>,
        decision: StoredDecision,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_pause(pause, decision)).boxed()
    }
}

impl Sqlite {
    async fn read_pause(&self) -> Result<Option<Pause>, StoreError> {
        let query = "SELECT paused, paused_by, paused_because FROM hub WHERE id = 1";
        let row = sqlx::query(query).fetch_one(&self.pool).await?;
        let pause = Pause {
            since: row.try_get(0)?,
            who: row.try_get(1)?,
            reason: row.try_get(2)?,
        };
        Ok((pause.since > 0).then_some(pause))
    }

    async fn write_pause(&self, pause: Option<Pause>, decision: StoredDecision) -> Result<(), StoreError> {
        let pause = pause.unwrap_or(Pause {
            since: 0,
            who: String::new(),
            reason: String::new(),
        });
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE hub SET paused = ?, paused_by = ?, paused_because = ? WHERE id = 1")
            .bind(pause.since)
            .bind(pause.who)
            .bind(pause.reason)
            .execute(&mut *transaction)
            .await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }
}
