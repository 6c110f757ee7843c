//! Locks, audit and plans in SQLite.

use futures::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Sqlite, StoreError, StoredAudit, StoredLock, StoredPlan};
use crate::Millis;

/// Longest list of plans.
const PLANS: i64 = 200;

fn number(row: &SqliteRow, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_default()
}

impl Sqlite {
    pub(super) async fn read_locks(&self) -> Result<Vec<StoredLock>, StoreError> {
        let query = "SELECT restic_id, token, cluster, operation, subject, delayed FROM lock";
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
            });
        }
        Ok(locks)
    }

    pub(super) async fn write_lock(
        &self,
        lock: StoredLock,
        granted: Option<StoredAudit>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let (mut cluster, mut operation, mut subject) = (None, None, None);
        if let Some(holder) = lock.holder {
            (cluster, operation, subject) = (Some(holder.0), Some(holder.1), Some(holder.2));
        }
        // A token never falls, whatever is asked for.
        let query = "INSERT INTO lock (restic_id, token, cluster, operation, subject, delayed) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (restic_id) DO UPDATE SET token = max(token, excluded.token), cluster = excluded.cluster, \
             operation = excluded.operation, subject = excluded.subject, delayed = excluded.delayed";
        let query = sqlx::query(query)
            .bind(lock.restic_id)
            .bind(signed(lock.token))
            .bind(cluster)
            .bind(operation);
        query
            .bind(subject)
            .bind(i64::from(lock.delayed))
            .execute(&mut *transaction)
            .await?;
        if let Some(entry) = granted {
            let query = "INSERT INTO audit (restic_id, token, cluster, operation, subject, granted, policies, covered) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, '[]')";
            let query = sqlx::query(query)
                .bind(entry.restic_id)
                .bind(signed(entry.token))
                .bind(entry.cluster);
            let query = query
                .bind(entry.operation)
                .bind(entry.subject)
                .bind(entry.granted);
            query
                .bind(json(&entry.policies))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn write_end(
        &self,
        restic_id: String,
        token: u64,
        ended: Millis,
        outcome: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let query =
            "UPDATE audit SET ended = ?, outcome = coalesce(?, outcome) WHERE restic_id = ? AND token = ?";
        let query = sqlx::query(query)
            .bind(ended)
            .bind(outcome)
            .bind(restic_id)
            .bind(signed(token));
        query.execute(&self.pool).await?;
        Ok(())
    }

    pub(super) async fn write_cover(
        &self,
        restic_id: String,
        token: u64,
        operation: String,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
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

    pub(super) async fn read_audit(
        &self,
        limit: u32,
        of: Option<Vec<String>>,
    ) -> Result<Vec<StoredAudit>, StoreError> {
        let query = "SELECT restic_id, token, cluster, operation, subject, granted, ended, policies, covered, outcome FROM audit \
             WHERE ? IS NULL OR restic_id IN (SELECT value FROM json_each(?)) ORDER BY granted DESC, token DESC LIMIT ?";
        let of = of.map(|of| json(&of));
        let mut rows = sqlx::query(query)
            .bind(of.clone())
            .bind(of)
            .bind(i64::from(limit))
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
            });
        }
        Ok(entries)
    }

    pub(super) async fn write_plan(&self, plan: StoredPlan) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let query = "UPDATE plan SET state = 'superseded' WHERE restic_id = ? AND id <> ? AND state IN ('waiting', 'approved')";
        sqlx::query(query)
            .bind(&plan.restic_id)
            .bind(&plan.id)
            .execute(&mut *transaction)
            .await?;
        // The same plan again keeps what was decided about it, an approval that has been used up excepted.
        let query = "INSERT INTO plan (id, restic_id, hash, state, made, cluster, policy, subject, token, outcome, document, decided_by) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET made = excluded.made, token = excluded.token, \
             cluster = excluded.cluster, policy = excluded.policy, subject = excluded.subject, outcome = excluded.outcome, \
             document = excluded.document, state = CASE WHEN state = 'rejected' THEN state ELSE 'waiting' END";
        let query = sqlx::query(query)
            .bind(plan.id)
            .bind(plan.restic_id)
            .bind(plan.hash)
            .bind(plan.state)
            .bind(plan.made);
        let query = query
            .bind(plan.cluster)
            .bind(plan.policy)
            .bind(plan.subject)
            .bind(signed(plan.token));
        let query = query.bind(plan.outcome).bind(plan.document).bind(plan.decided_by);
        query.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn read_plans(&self) -> Result<Vec<StoredPlan>, StoreError> {
        let query = "SELECT id, restic_id, hash, state, made, cluster, policy, subject, token, outcome, document, decided_by \
             FROM plan ORDER BY made DESC LIMIT ?";
        let mut rows = sqlx::query(query).bind(PLANS).fetch(&self.pool);
        let mut plans = Vec::new();
        while let Some(row) = rows.try_next().await? {
            plans.push(StoredPlan {
                id: row.try_get(0)?,
                restic_id: row.try_get(1)?,
                hash: row.try_get(2)?,
                state: row.try_get(3)?,
                made: row.try_get(4)?,
                cluster: row.try_get(5)?,
                policy: row.try_get(6)?,
                subject: row.try_get(7)?,
                token: number(&row, 8)?,
                outcome: row.try_get(9)?,
                document: row.try_get(10)?,
                decided_by: row.try_get(11)?,
            });
        }
        Ok(plans)
    }

    pub(super) async fn write_decision(
        &self,
        id: String,
        state: String,
        by: String,
    ) -> Result<(), StoreError> {
        let query = "UPDATE plan SET state = ?, decided_by = ? WHERE id = ?";
        sqlx::query(query)
            .bind(state)
            .bind(by)
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn write_settled(&self, restic_id: String, applied: String) -> Result<(), StoreError> {
        let query = "UPDATE plan SET state = CASE WHEN hash = ? THEN 'applied' ELSE 'superseded' END \
             WHERE restic_id = ? AND state IN ('waiting', 'approved')";
        sqlx::query(query)
            .bind(applied)
            .bind(restic_id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::HubStore as _;
    use super::*;

    fn granted(token: u64) -> (StoredLock, StoredAudit) {
        let lock = StoredLock {
            restic_id: "r".to_owned(),
            token,
            holder: Some(("a".to_owned(), "job".to_owned(), "retention ns/p".to_owned())),
            delayed: false,
        };
        let audit = StoredAudit {
            restic_id: "r".to_owned(),
            token,
            cluster: "a".to_owned(),
            operation: "job".to_owned(),
            subject: "retention ns/p".to_owned(),
            granted: 5,
            ended: None,
            policies: vec!["a/ns/p@1".to_owned()],
            covered: Vec::new(),
            outcome: None,
        };
        (lock, audit)
    }

    #[tokio::test]
    async fn grants_ends_and_decisions_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.db");
        let store = Sqlite::open(&path).await.unwrap();
        let (lock, audit) = granted(7);
        store.save_lock(lock.clone(), Some(audit.clone())).await.unwrap();
        assert!(
            store.save_lock(lock.clone(), Some(audit)).await.is_err(),
            "a token is granted once"
        );
        store.cover("r", 7, "b: retention ns/q".to_owned()).await.unwrap();
        store.cover("r", 7, "b: retention ns/q".to_owned()).await.unwrap();
        let outcome = proto::v1::OperationOutcome {
            result: "Applied".to_owned(),
            ..proto::v1::OperationOutcome::default()
        };
        store.finish("r", 7, 9, Some(&outcome)).await.unwrap();
        store.finish("r", 7, 9, None).await.unwrap();
        drop(store);
        let store = Sqlite::open(&path).await.unwrap();
        assert_eq!(store.locks().await.unwrap(), [lock]);
        let entries = store.audit(10, Some(vec!["r".to_owned()])).await.unwrap();
        assert_eq!((entries[0].ended, entries[0].covered.len()), (Some(9), 1));
        assert!(
            entries[0].outcome.as_ref().is_some_and(|o| !o.is_empty()),
            "kept by a second end"
        );
        assert!(store.audit(10, Some(Vec::new())).await.unwrap().is_empty());
        let lower = StoredLock {
            token: 3,
            ..granted(3).0
        };
        store.save_lock(lower, None).await.unwrap();
        assert_eq!(store.locks().await.unwrap()[0].token, 7);
    }

    #[tokio::test]
    async fn a_new_plan_supersedes_what_waited() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        let plan = |id: &str, made| StoredPlan {
            id: id.to_owned(),
            restic_id: "r".to_owned(),
            hash: format!("hash-{id}"),
            state: "waiting".to_owned(),
            made,
            cluster: "a".to_owned(),
            policy: "uid".to_owned(),
            subject: "retention ns/p".to_owned(),
            token: 1,
            outcome: Vec::new(),
            document: b"{}".to_vec(),
            decided_by: String::new(),
        };
        let states = async || {
            let plans = store.plans().await.unwrap();
            plans
                .into_iter()
                .map(|p| format!("{}={}", p.id, p.state))
                .collect::<Vec<_>>()
        };
        store.save_plan(plan("p-1", 1)).await.unwrap();
        store.save_plan(plan("p-2", 2)).await.unwrap();
        assert_eq!(states().await, ["p-2=waiting", "p-1=superseded"]);
        store.decide_plan("p-2", "approved", "ann").await.unwrap();
        store.settle_plans("r", "hash-p-2").await.unwrap();
        assert_eq!(states().await, ["p-2=applied", "p-1=superseded"]);
    }
}
