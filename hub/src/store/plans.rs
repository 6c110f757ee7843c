//! Ends of runs, and plans, in SQLite. Documents stand apart from the rows: a list never reads them.

use futures::TryStreamExt as _;
use prost::Message as _;
use proto::v1::{Baseline, OperationOutcome};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite as Database, Transaction};

use super::decisions::{prune_decisions, put_decision};
use super::locks::{number, signed};
use super::{History, PlanCursor, Sqlite, StoreError, StoredDecision};
use crate::Millis;
use crate::copies;

/// A plan that a run made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredPlan {
    pub id: String,
    pub restic_id: String,
    pub hash: String,
    /// "waiting", "preview", "approved", "granted", "rejected", "superseded" or "applied".
    pub state: String,
    pub made: Millis,
    pub cluster: String,
    /// uid of the policy whose run made it.
    pub policy: String,
    pub subject: String,
    /// Token of the run that made it last: its document is kept under it.
    pub token: u64,
    /// fleet.v1.OperationOutcome
    pub outcome: Vec<u8>,
    pub decided_by: String,
    pub decided: Option<Millis>,
    /// Clusters and namespaces whose snapshots it removes, both empty for a snapshot without tags; `None` when that is not
    /// known.
    pub goes: Option<Vec<(String, String)>>,
}

/// The end of a grant, with all that it left.
#[derive(Clone, Debug, Default)]
pub struct StoredEnd {
    pub restic_id: String,
    pub token: u64,
    pub ended: Millis,
    /// Absent when nobody knows.
    pub outcome: Option<OperationOutcome>,
    /// The plan as people see it, if the run made one that can be shown.
    pub plan: Option<StoredPlan>,
    /// JSON; empty for none.
    pub document: Vec<u8>,
    /// The run was carried out: its clusters have taken part, and this is left.
    pub baseline: Option<Vec<Baseline>>,
    /// What a check has found.
    pub damage: Option<CheckedDamage>,
}

/// What a check of one ResticRepository says about damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedDamage {
    pub cluster: String,
    /// uid of the ResticRepository.
    pub owner: String,
    /// `None`: the check has passed, and what an earlier one of the same owner found is over.
    pub text: Option<String>,
}

const COLUMNS: &str =
    "id, restic_id, hash, state, made, cluster, policy, subject, token, outcome, decided_by, decided, goes";

fn plan(row: &SqliteRow) -> Result<StoredPlan, StoreError> {
    Ok(StoredPlan {
        id: row.try_get(0)?,
        restic_id: row.try_get(1)?,
        hash: row.try_get(2)?,
        state: row.try_get(3)?,
        made: row.try_get(4)?,
        cluster: row.try_get(5)?,
        policy: row.try_get(6)?,
        subject: row.try_get(7)?,
        token: number(row, 8)?,
        outcome: row.try_get(9)?,
        decided_by: row.try_get(10)?,
        decided: row.try_get(11)?,
        goes: row
            .try_get::<Option<&str>, _>(12)?
            .and_then(|goes| serde_json::from_str(goes).ok()),
    })
}

impl Sqlite {
    pub(super) async fn write_end(&self, end: StoredEnd) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let plan_id = end.plan.as_ref().map(|plan| plan.id.clone()).unwrap_or_default();
        let outcome = end.outcome.as_ref().map(OperationOutcome::encode_to_vec);
        let query = "UPDATE audit SET ended = ?, outcome = coalesce(?, outcome), plan = CASE ? WHEN '' THEN plan ELSE ? END \
             WHERE restic_id = ? AND token = ?";
        let query = sqlx::query(query)
            .bind(end.ended)
            .bind(outcome)
            .bind(&plan_id)
            .bind(&plan_id);
        let query = query.bind(&end.restic_id).bind(signed(end.token));
        query.execute(&mut *transaction).await?;
        let result = end.outcome.as_ref().map_or("", |o| o.result.as_str());
        let done = ["Applied", "NothingToRemove"].contains(&result);
        // What was approved for this run is used up when it was carried out, and waits again otherwise.
        let query = "UPDATE plan SET granted = 0, state = CASE WHEN ? THEN 'applied' ELSE 'waiting' END \
             WHERE restic_id = ? AND state = 'granted' AND granted = ?";
        let query = sqlx::query(query)
            .bind(done)
            .bind(&end.restic_id)
            .bind(signed(end.token));
        query.execute(&mut *transaction).await?;
        if !end.document.is_empty() {
            let query = "INSERT INTO plan_document (restic_id, token, made, document) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (restic_id, token) DO UPDATE SET document = excluded.document";
            let query = sqlx::query(query).bind(&end.restic_id).bind(signed(end.token));
            let query = query.bind(end.ended).bind(end.document);
            query.execute(&mut *transaction).await?;
        }
        if done || end.plan.is_some() {
            // After a run that was carried out every other plan is of the past. A new plan leaves one alone that is
            // approved already: only the run under it decides.
            let query = "UPDATE plan SET state = 'superseded' WHERE restic_id = ? AND id <> ? \
                 AND (state IN ('waiting', 'preview') OR (? AND state = 'approved'))";
            let query = sqlx::query(query).bind(&end.restic_id).bind(&plan_id).bind(done);
            query.execute(&mut *transaction).await?;
        }
        if let Some(plan) = end.plan {
            put_plan(&mut transaction, plan).await?;
        }
        if let Some(baseline) = end.baseline {
            put_history(&mut transaction, &end.restic_id, end.token, baseline).await?;
        }
        if let Some(damage) = end.damage {
            put_damage(&mut transaction, &end.restic_id, damage).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn read_history(&self, restic_id: String) -> Result<History, StoreError> {
        let mut history = History::default();
        let mut rows = sqlx::query("SELECT cluster FROM participant WHERE restic_id = ?")
            .bind(&restic_id)
            .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            history.participants.insert(row.try_get(0)?);
        }
        drop(rows);
        let mut rows = sqlx::query("SELECT key, remaining FROM baseline WHERE restic_id = ? ORDER BY key")
            .bind(&restic_id)
            .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            let remaining = u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or(u32::MAX);
            history.baseline.push((row.try_get(0)?, remaining));
        }
        drop(rows);
        // A cluster takes its plans along when it turns out to use another store.
        let query = "SELECT hash FROM plan WHERE (restic_id = ?1 OR restic_id LIKE ?1 || '@%') AND state = 'rejected'";
        let mut rows = sqlx::query(query)
            .bind(copies::restic_id(&restic_id))
            .fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            history.rejected.insert(row.try_get(0)?);
        }
        drop(rows);
        let query = "SELECT cluster, owner, text FROM damage WHERE restic_id = ? ORDER BY cluster, owner";
        let mut rows = sqlx::query(query).bind(&restic_id).fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            history
                .damage
                .push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        }
        Ok(history)
    }

    pub(super) async fn read_plans(
        &self,
        limit: u32,
        before: Option<PlanCursor>,
    ) -> Result<Vec<StoredPlan>, StoreError> {
        let (made, id) = before.unwrap_or((i64::MAX, String::new()));
        let query = format!(
            "SELECT {COLUMNS} FROM plan WHERE (made, id) < (?, ?) ORDER BY made DESC, id DESC LIMIT ?"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(made)
            .bind(id)
            .bind(i64::from(limit));
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(plan).collect()
    }

    pub(super) async fn read_plans_named(&self, id: String) -> Result<Vec<StoredPlan>, StoreError> {
        // Ids are letters, digits and "-": what follows the beginning sorts before "~". The status of a policy has the hash.
        let query = format!(
            "SELECT {COLUMNS} FROM plan WHERE (id >= ?1 AND id < ?2) OR (length(?1) >= 8 AND hash >= ?1 AND hash < ?2) \
             ORDER BY id LIMIT 2"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(&id);
        let rows = query.bind(format!("{id}~")).fetch_all(&self.pool).await?;
        rows.iter().map(plan).collect()
    }

    pub(super) async fn read_approved(&self, cluster: String) -> Result<Vec<StoredPlan>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM plan WHERE cluster = ? AND state = 'approved' LIMIT 1000");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(cluster);
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(plan).collect()
    }

    pub(super) async fn read_document(
        &self,
        restic_id: String,
        token: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let query = "SELECT document FROM plan_document WHERE restic_id = ? AND token = ?";
        let query = sqlx::query(query).bind(restic_id).bind(signed(token));
        let row = query.fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    pub(super) async fn write_plan_decision(
        &self,
        id: String,
        state: String,
        decision: StoredDecision,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let query = "UPDATE plan SET state = ?, decided_by = ?, decided = ? WHERE id = ?";
        let query = sqlx::query(query).bind(state).bind(&decision.who);
        let query = query.bind(decision.at).bind(id);
        query.execute(&mut *transaction).await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn remove_old(&self, before: Millis, documents: u64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for query in [
            "DELETE FROM plan_document WHERE (restic_id, token) IN \
             (SELECT restic_id, token FROM audit WHERE granted < ? AND ended IS NOT NULL)",
            "DELETE FROM audit WHERE granted < ? AND ended IS NOT NULL",
            "DELETE FROM plan WHERE made < ? AND state NOT IN ('waiting', 'approved', 'granted')",
            "DELETE FROM command WHERE created < ? AND ended IS NOT NULL",
        ] {
            sqlx::query(query).bind(before).execute(&mut *transaction).await?;
        }
        prune_decisions(&mut transaction, before).await?;
        // The newest documents that fit stay; those of plans that wait for a person stay in any case.
        let query = "DELETE FROM plan_document WHERE rowid IN (SELECT id FROM (SELECT rowid AS id, restic_id, token, \
             sum(length(document)) OVER (ORDER BY made DESC, rowid DESC) AS total FROM plan_document) AS d WHERE total > ? \
             AND NOT EXISTS (SELECT 1 FROM plan WHERE plan.restic_id = d.restic_id AND plan.token = d.token \
             AND plan.state IN ('waiting', 'approved', 'granted')))";
        sqlx::query(query)
            .bind(signed(documents))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn put_plan(
    transaction: &mut Transaction<'static, Database>,
    plan: StoredPlan,
) -> Result<(), StoreError> {
    // The same plan again keeps what was decided about it, and the receiver of an approval.
    let query = "INSERT INTO plan (id, restic_id, hash, state, made, cluster, policy, subject, token, outcome, decided_by, goes) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (id) DO UPDATE SET made = excluded.made, token = excluded.token, \
         cluster = CASE plan.state WHEN 'approved' THEN plan.cluster ELSE excluded.cluster END, \
         policy = CASE plan.state WHEN 'approved' THEN plan.policy ELSE excluded.policy END, \
         subject = CASE plan.state WHEN 'approved' THEN plan.subject ELSE excluded.subject END, \
         outcome = excluded.outcome, goes = coalesce(excluded.goes, plan.goes), \
         state = CASE WHEN excluded.state <> 'applied' AND plan.state IN ('approved', 'rejected') THEN plan.state \
         ELSE excluded.state END";
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
        .bind(signed(plan.token))
        .bind(plan.outcome)
        .bind(plan.goes.and_then(|goes| serde_json::to_string(&goes).ok()));
    query.execute(&mut **transaction).await?;
    Ok(())
}

async fn put_damage(
    transaction: &mut Transaction<'static, Database>,
    restic_id: &str,
    CheckedDamage { cluster, owner, text }: CheckedDamage,
) -> Result<(), StoreError> {
    let query = match text {
        Some(_) => {
            "INSERT INTO damage (restic_id, cluster, owner, text) VALUES (?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET text = excluded.text"
        }
        None => "DELETE FROM damage WHERE restic_id = ? AND cluster = ? AND owner = ?",
    };
    let mut query = sqlx::query(query).bind(restic_id).bind(cluster).bind(owner);
    if let Some(text) = text {
        query = query.bind(text);
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}

async fn put_history(
    transaction: &mut Transaction<'static, Database>,
    restic_id: &str,
    token: u64,
    baseline: Vec<Baseline>,
) -> Result<(), StoreError> {
    let query = "INSERT INTO participant (restic_id, cluster) SELECT audit.restic_id, value FROM audit, json_each(audit.clusters) \
         WHERE audit.restic_id = ? AND audit.token = ? ON CONFLICT DO NOTHING";
    let query = sqlx::query(query).bind(restic_id).bind(signed(token));
    query.execute(&mut **transaction).await?;
    if baseline.is_empty() {
        return Ok(());
    }
    // For a list that lacks some as well: the same keys are cut off each time, and a figure that stayed would be too low
    // one day, and hide a loss.
    let query = sqlx::query("DELETE FROM baseline WHERE restic_id = ?").bind(restic_id);
    query.execute(&mut **transaction).await?;
    for Baseline { key, left } in baseline {
        let query = "INSERT INTO baseline (restic_id, key, remaining) VALUES (?, ?, ?) \
             ON CONFLICT DO UPDATE SET remaining = excluded.remaining";
        let query = sqlx::query(query).bind(restic_id).bind(key);
        query.bind(i64::from(left)).execute(&mut **transaction).await?;
    }
    Ok(())
}
