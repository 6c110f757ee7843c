//! The store, as a command writes to it beside a hub that works on it.
//!
//! SQLite lets one write at a time, and an entry reads the end of the chain in the transaction that goes on from it: which
//! process wrote the one before does not matter. No epoch is begun, so the hub keeps its own.

use std::path::Path;

use anyhow::Context as _;
use sqlx::Row as _;
use sqlx::sqlite::SqlitePool;

use super::StoredDecision;
use super::decisions::put_decision;
use super::sqlite::{options, pool};
use crate::Millis;

/// A store that another process may have open.
pub struct Beside(SqlitePool);

impl Beside {
    /// Opens the file. It is not made, and not brought to another version.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub async fn open(path: &Path) -> anyhow::Result<Beside> {
        let pool = pool().connect_with(options(path)).await;
        let pool = pool.with_context(|| {
            format!(
                "cannot open the store {}: the hub makes it at its first start; set --store as the hub has it",
                path.display()
            )
        })?;
        Ok(Beside(pool))
    }

    /// Before when the certificates of a person are refused.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn revoked(&self, name: &str) -> anyhow::Result<Option<Millis>> {
        let query = sqlx::query("SELECT at FROM revoked_certificate WHERE name = ? AND serial = ''");
        let row = query.bind(name).fetch_optional(&self.0).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Adds an entry to the audit. It is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn decide(&self, decision: StoredDecision) -> anyhow::Result<()> {
        let mut transaction = self.0.begin_with("BEGIN IMMEDIATE").await?;
        put_decision(&mut transaction, decision).await?;
        Ok(transaction.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DecisionStore as _, HubStore as _, Sqlite};
    use super::*;

    #[tokio::test]
    async fn two_writers_make_one_chain_and_the_hub_keeps_its_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.db");
        assert!(Beside::open(&path).await.is_err() && !path.exists());
        let hub = Sqlite::open(&path).await.unwrap();
        hub.begin().await.unwrap();
        let command = Beside::open(&path).await.unwrap();
        let entry = |who: &str| StoredDecision {
            who: who.to_owned(),
            ..StoredDecision::default()
        };
        let (of_hub, of_command) = tokio::join!(
            async {
                for _ in 0..20 {
                    hub.decide(entry("hub")).await.unwrap();
                }
            },
            async {
                for _ in 0..20 {
                    command.decide(entry("command")).await.unwrap();
                }
            }
        );
        let ((), ()) = (of_hub, of_command);
        let found = hub.verify_decisions(None).await.unwrap();
        assert_eq!((found.entries, found.fault), (40, None));
        hub.verify().await.expect("its epoch");
    }
}
