//! Backups of a store: made while a hub works on it, and put back where none does.
//!
//! A backup is one SQLite file, as of one moment. A store that was put back has forgotten every grant since then, so it
//! begins with an epoch and with tokens above all that the lost store can have given out, and with an age that makes the
//! hub wait for holders that it does not know.

mod files;
mod keys;
mod make;
mod put;
mod receive;
mod upgrade;

use std::io;
use std::path::PathBuf;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::Row as _;

use super::decisions::put_decision;
use super::locks::signed;
use super::{Sqlite, StoreError, StoredAudit, StoredDecision};
use crate::Millis;

pub use make::{backup, note};
pub use put::restore;
pub use receive::receive;
pub use upgrade::{before_upgrade, kept_as};

/// Why a store was not copied or put back. The text is what a person reads.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("there is no store {0}")]
    NoStore(PathBuf),
    #[error("{0} exists; choose another name")]
    Exists(PathBuf),
    #[error(
        "{0} exists; --replace puts the backup in its place and keeps it beside, with the suffix .replaced"
    )]
    StoreExists(PathBuf),
    #[error("a hub works on {0}: stop it first (kubectl scale deployment/fleet-hub --replicas=0)")]
    InUse(PathBuf),
    #[error("{0} is not the store of a hub, or a backup of one")]
    Foreign(PathBuf),
    #[error("what arrived is not what was sent ({0} bytes): send it again")]
    Torn(u64),
    #[error("{0} is damaged: {1}")]
    Damaged(PathBuf, String),
    #[error("{0} cannot be used by this version of fleet-hub: {1}")]
    Version(PathBuf, String),
    #[error("cannot use {0}: {1}")]
    File(PathBuf, io::Error),
    #[error("cannot copy {0}: {1}")]
    Sql(PathBuf, sqlx::Error),
    #[error("{0:#}")]
    Other(anyhow::Error),
}

/// A backup as it was made or put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// When the backup was made, milliseconds since 1970.
    pub made: Millis,
    /// Epoch of the hub at that time.
    pub epoch: u64,
    pub bytes: u64,
}

/// The store was put back from a backup, and that is not noted in the audit yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// Milliseconds since 1970.
    pub at: Millis,
    /// When the backup was made.
    pub made: Millis,
}

/// Backups of a store that a hub works on.
pub trait CopyStore: Send + Sync {
    /// Writes a backup to a file that must not exist yet, mode 0600, with the hub's authority in a folder. Writers go on
    /// meanwhile.
    fn copy(
        &self,
        file: PathBuf,
        authority: Option<PathBuf>,
        now: Millis,
    ) -> BoxFuture<'_, Result<Copied, CopyError>>;
    /// Notes that somebody has a backup of this time, milliseconds since 1970.
    fn note_copy(&self, made: Millis) -> BoxFuture<'_, Result<(), StoreError>>;
    /// When the newest backup was made that somebody has, milliseconds since 1970.
    fn last_copy(&self) -> BoxFuture<'_, Result<Option<Millis>, StoreError>>;
    /// Whether this store was put back from a backup and has not been noted as such.
    fn put_back(&self) -> BoxFuture<'_, Result<Option<PutBack>, StoreError>>;
    /// Notes it, with the entry in the audit.
    fn note_put_back(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Enters a grant into the audit that was made by a store that is lost, unless the token has an entry. Returns whether
    /// there is an entry of this very operation now that has not ended.
    fn note_forgotten(&self, audit: StoredAudit) -> BoxFuture<'_, Result<bool, StoreError>>;
}

impl CopyStore for Sqlite {
    fn copy(
        &self,
        file: PathBuf,
        authority: Option<PathBuf>,
        now: Millis,
    ) -> BoxFuture<'_, Result<Copied, CopyError>> {
        async move { backup(&self.path, authority.as_deref(), &file, now).await }.boxed()
    }

    fn note_copy(&self, made: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            sqlx::query(make::NOTE).bind(made).execute(&self.pool).await?;
            Ok(())
        }
        .boxed()
    }

    fn last_copy(&self) -> BoxFuture<'_, Result<Option<Millis>, StoreError>> {
        self.read_last_copy().boxed()
    }

    fn put_back(&self) -> BoxFuture<'_, Result<Option<PutBack>, StoreError>> {
        self.read_put_back().boxed()
    }

    fn note_put_back(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_put_back(decision).boxed()
    }

    fn note_forgotten(&self, audit: StoredAudit) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.write_forgotten(audit).boxed()
    }
}

impl Sqlite {
    async fn read_last_copy(&self) -> Result<Option<Millis>, StoreError> {
        let row = sqlx::query("SELECT backed_up FROM hub WHERE id = 1")
            .fetch_one(&self.pool)
            .await?;
        let at: Millis = row.try_get(0)?;
        Ok((at > 0).then_some(at))
    }

    async fn read_put_back(&self) -> Result<Option<PutBack>, StoreError> {
        let row = sqlx::query("SELECT put_back, copied FROM hub WHERE id = 1")
            .fetch_one(&self.pool)
            .await?;
        let (at, made): (Millis, Millis) = (row.try_get(0)?, row.try_get(1)?);
        Ok((at > 0).then_some(PutBack { at, made }))
    }

    async fn write_put_back(&self, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        put_decision(&mut transaction, decision).await?;
        sqlx::query("UPDATE hub SET put_back = 0 WHERE id = 1")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn write_forgotten(&self, audit: StoredAudit) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let query = "INSERT INTO audit (restic_id, token, cluster, operation, subject, granted, policies, covered) \
             VALUES (?, ?, ?, ?, ?, ?, '[]', '[]') ON CONFLICT DO NOTHING";
        let token = signed(audit.token);
        let query = sqlx::query(query).bind(&audit.restic_id).bind(token);
        let query = query.bind(&audit.cluster).bind(&audit.operation);
        let query = query.bind(audit.subject).bind(audit.granted);
        query.execute(&mut *transaction).await?;
        let query = "SELECT 1 FROM audit WHERE restic_id = ? AND token = ? AND cluster = ? AND operation = ? AND ended IS NULL";
        let query = sqlx::query(query).bind(audit.restic_id).bind(token);
        let query = query.bind(audit.cluster).bind(audit.operation);
        let open = query.fetch_optional(&mut *transaction).await?.is_some();
        transaction.commit().await?;
        Ok(open)
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod upgrade_tests;
