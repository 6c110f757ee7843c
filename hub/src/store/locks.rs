//! Locks and the audit in SQLite.

use futures::TryStreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite as Database, Transaction};

use super::decisions::put_decision;
use super::{AuditQuery, Sqlite, StoreError, StoredAudit, StoredDecision, StoredGrant, StoredLock};

pub(super) fn number(row: &SqliteRow, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Writes a grant's entry in the audit, and what it means for plans.
async fn put_grant(
    transaction: &mut Transaction<'static, Database>,
    StoredGrant { audit, approved, ask }: StoredGrant,
) -> Result<(), StoreError> {
    // A run under an earlier approval that was never concluded is over: its plan waits again.
    let query = "UPDATE plan SET granted = 0, state = 'waiting' WHERE restic_id = ? AND state = 'granted'";
    sqlx::query(query)
        .bind(&audit.restic_id)
        .execute(&mut **transaction)
        .await?;
    if !approved.is_empty() {
        let query = "UPDATE plan SET granted = ?, state = 'granted' \
             WHERE restic_id = ? AND hash = ? AND state = 'approved'";
        let query = sqlx::query(query).bind(signed(audit.token));
        let query = query.bind(&audit.restic_id).bind(approved);
        query.execute(&mut **transaction).await?;
    }
    let query = "INSERT INTO audit (restic_id, token, cluster, operation, subject, granted, policies, covered, clusters, ask) \
         VALUES (?, ?, ?, ?, ?, ?, ?, '[]', ?, ?)";
    let query = sqlx::query(query)
        .bind(audit.restic_id)
        .bind(signed(audit.token))
        .bind(audit.cluster);
    let query = query
        .bind(audit.operation)
        .bind(audit.subject)
        .bind(audit.granted);
    query
        .bind(json(&audit.policies))
        .bind(json(&audit.clusters))
        .bind(ask)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

impl Sqlite {
    pub(super) async fn read_locks(&self) -> Result<Vec<StoredLock>, StoreError> {
        let query = "SELECT restic_id, token, cluster, operation, subject, delayed, revoked FROM lock";
        let mut rows = sqlx::query(query).fetch(&self.pool);
        let mut locks = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let (cluster, operation, subject): (Option<String>, Option<String>, Option<String>) =
                (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            locks.push(StoredLock {
                restic_id: row.try_get(0)?,
                token: number(&row, 1)?,
                holder: cluster
                    .zip(operation)
                    .map(|(cluster, operation)| (cluster, operation, subject.unwrap_or_default())),
                delayed: row.try_get::<i64, _>(5)? != 0,
                revoked: row.try_get::<i64, _>(6)? != 0,
            });
        }
        Ok(locks)
    }

    pub(super) async fn write_lock(
        &self,
        lock: StoredLock,
        granted: Option<StoredGrant>,
        decision: Option<StoredDecision>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let (mut cluster, mut operation, mut subject) = (None, None, None);
        if let Some(holder) = lock.holder {
            (cluster, operation, subject) = (Some(holder.0), Some(holder.1), Some(holder.2));
        }
        // A token never falls, whatever is asked for.
        let query = "INSERT INTO lock (restic_id, token, cluster, operation, subject, delayed, revoked) VALUES (?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (restic_id) DO UPDATE SET token = max(token, excluded.token), cluster = excluded.cluster, \
             operation = excluded.operation, subject = excluded.subject, delayed = excluded.delayed, \
             revoked = excluded.revoked";
        let query = sqlx::query(query)
            .bind(lock.restic_id)
            .bind(signed(lock.token))
            .bind(cluster)
            .bind(operation);
        query
            .bind(subject)
            .bind(i64::from(lock.delayed))
            .bind(i64::from(lock.revoked))
            .execute(&mut *transaction)
            .await?;
        if let Some(grant) = granted {
            put_grant(&mut transaction, grant).await?;
        }
        if let Some(decision) = decision {
            put_decision(&mut transaction, decision).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn read_ask(
        &self,
        restic_id: String,
        token: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let query = "SELECT ask FROM audit WHERE restic_id = ? AND token = ?";
        let query = sqlx::query(query).bind(restic_id).bind(signed(token));
        let row = query.fetch_optional(&self.pool).await?;
        // A grant of an earlier version has none.
        Ok(row.map(|row| row.try_get(0)).transpose()?.flatten())
    }

    pub(super) async fn write_cover(
        &self,
        restic_id: String,
        token: u64,
        operation: String,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let query = "SELECT covered FROM audit WHERE restic_id = ? AND token = ?";
        let found = sqlx::query(query)
            .bind(&restic_id)
            .bind(signed(token))
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(row) = found {
            let mut covered = list(row.try_get::<&str, _>(0)?);
            if !covered.contains(&operation) {
                covered.push(operation);
                let query = "UPDATE audit SET covered = ? WHERE restic_id = ? AND token = ?";
                let query = sqlx::query(query)
                    .bind(json(&covered))
                    .bind(restic_id)
                    .bind(signed(token));
                query.execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn read_audit(&self, asked: AuditQuery) -> Result<Vec<StoredAudit>, StoreError> {
        let query = "SELECT restic_id, token, cluster, operation, subject, granted, ended, policies, covered, outcome, clusters, plan \
             FROM audit WHERE (granted, restic_id, token) < (?, ?, ?) \
             AND (? IS NULL OR restic_id IN (SELECT value FROM json_each(?))) \
             AND (? = '' OR cluster = ?) AND granted >= ? ORDER BY granted DESC, restic_id DESC, token DESC LIMIT ?";
        let of = asked.of.map(|of| json(&of));
        let (granted, restic_id, token) = asked.before.unwrap_or((i64::MAX, String::new(), 0));
        let query = sqlx::query(query)
            .bind(granted)
            .bind(restic_id)
            .bind(signed(token));
        let mut rows = query
            .bind(of.clone())
            .bind(of)
            .bind(asked.cluster.clone())
            .bind(asked.cluster)
            .bind(asked.since)
            .bind(i64::from(asked.limit))
            .fetch(&self.pool);
        let mut entries = Vec::new();
        while let Some(row) = rows.try_next().await? {
            entries.push(StoredAudit {
                restic_id: row.try_get(0)?,
                token: number(&row, 1)?,
                cluster: row.try_get(2)?,
                operation: row.try_get(3)?,
                subject: row.try_get(4)?,
                granted: row.try_get(5)?,
                ended: row.try_get(6)?,
                policies: list(row.try_get(7)?),
                covered: list(row.try_get(8)?),
                outcome: row.try_get(9)?,
                clusters: list(row.try_get(10)?),
                plan: row.try_get(11)?,
            });
        }
        Ok(entries)
    }
}

#[cfg(test)]
#[path = "locks_tests.rs"]
mod tests;
