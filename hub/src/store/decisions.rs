//! What people did, in SQLite: a chain in which each entry has the hash of the one before, so that one that was removed or
//! changed shows. An entry is written in the transaction of the act.

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row as _, Sqlite as Database, Transaction};

use super::locks::{number, signed};
use super::{Sqlite, StoreError};
use crate::Millis;

/// Entries that are read at once.
const PAGE: i64 = 1000;

/// What a person did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredDecision {
    pub at: Millis,
    pub who: String,
    pub what: String,
    pub subject: String,
    /// Repository, cluster and namespace that it is about; empty for none.
    pub restic_id: String,
    pub cluster: String,
    pub namespace: String,
    pub before: String,
    pub after: String,
}

/// An entry of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Rises with each entry.
    pub id: u64,
    pub decision: StoredDecision,
    /// SHA-256 over the hash of the entry before and this one's content.
    pub hash: Vec<u8>,
}

/// Which entries. Empty texts take all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionQuery {
    /// Newest first, with smaller ids than this; `None` begins with the newest.
    pub before: Option<u64>,
    /// In place of that: oldest first, with greater ids than this.
    pub after: Option<u64>,
    pub since: Millis,
    pub who: String,
    pub what: String,
    pub cluster: String,
    /// Of these repositories.
    pub of: Option<Vec<String>>,
    pub limit: u32,
}

/// What a look through the whole chain has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub entries: u64,
    /// Last entry that was removed because of its age; 0 for none.
    pub anchor: u64,
    /// The newest entry, and its hash.
    pub head: u64,
    pub hash: Vec<u8>,
    /// First entry that is not as it was written, and why; `None` when all are.
    pub fault: Option<(u64, String)>,
    /// Hash of the entry that was asked for, if it is there.
    pub known: Option<Vec<u8>>,
}

/// The audit of what people do.
pub trait DecisionStore: Send + Sync {
    /// Records what a person did.
    fn decide(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Entries that a question takes.
    fn decisions(&self, query: DecisionQuery) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;
    /// Id of the newest entry; 0 for none.
    fn newest_decision(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Looks through the whole chain; the answer has the hash of the entry `known`.
    fn verify_decisions(&self, known: Option<u64>) -> BoxFuture<'_, Result<Verified, StoreError>>;
}

/// Both ends of the chain.
struct Chain {
    head: u64,
    hash: Vec<u8>,
    anchor: u64,
    anchor_hash: Vec<u8>,
}

/// Hash of an entry. Texts are prefixed with their lengths, so that no two contents are alike.
fn link(before: &[u8], id: u64, decision: &StoredDecision) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(id.to_be_bytes());
    hash.update(decision.at.to_be_bytes());
    let StoredDecision {
        at: _,
        who,
        what,
        subject,
        restic_id,
        cluster,
        namespace,
        before,
        after,
    } = decision;
    for text in [who, what, subject, restic_id, cluster, namespace, before, after] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().to_vec()
}

const COLUMNS: &str = "id, at, who, what, subject, restic_id, cluster, namespace, before, after, hash";

fn entry(row: &SqliteRow) -> Result<Entry, StoreError> {
    Ok(Entry {
        id: number(row, 0)?,
        decision: StoredDecision {
            at: row.try_get(1)?,
            who: row.try_get(2)?,
            what: row.try_get(3)?,
            subject: row.try_get(4)?,
            restic_id: row.try_get(5)?,
            cluster: row.try_get(6)?,
            namespace: row.try_get(7)?,
            before: row.try_get(8)?,
            after: row.try_get(9)?,
        },
        hash: row.try_get::<Option<Vec<u8>>, _>(10)?.unwrap_or_default(),
    })
}

fn chain(row: &SqliteRow) -> Result<Chain, StoreError> {
    Ok(Chain {
        head: number(row, 0)?,
        hash: row.try_get(1)?,
        anchor: number(row, 2)?,
        anchor_hash: row.try_get(3)?,
    })
}

const ENDS: &str = "SELECT head, hash, anchor, anchor_hash FROM audit_chain WHERE id = 1";

/// Writes a decision with what it changes, and links it to the one before.
pub(super) async fn put_decision(
    transaction: &mut Transaction<'static, Database>,
    decision: StoredDecision,
) -> Result<(), StoreError> {
    let row = sqlx::query(ENDS).fetch_one(&mut **transaction).await?;
    let ends = chain(&row)?;
    let id = ends.head + 1;
    let hash = link(&ends.hash, id, &decision);
    let query = "INSERT INTO decision (id, at, who, what, subject, restic_id, cluster, namespace, before, after, hash) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let query = sqlx::query(query)
        .bind(signed(id))
        .bind(decision.at)
        .bind(decision.who)
        .bind(decision.what)
        .bind(decision.subject);
    let query = query
        .bind(decision.restic_id)
        .bind(decision.cluster)
        .bind(decision.namespace)
        .bind(decision.before)
        .bind(decision.after);
    query.bind(&hash).execute(&mut **transaction).await?;
    let query = sqlx::query("UPDATE audit_chain SET head = ?, hash = ? WHERE id = 1");
    let query = query.bind(signed(id)).bind(hash);
    query.execute(&mut **transaction).await?;
    Ok(())
}

/// Removes entries from the beginning of the chain up to the first that is not old, and keeps the hash of the last of them.
pub(super) async fn prune_decisions(
    transaction: &mut Transaction<'static, Database>,
    before: Millis,
) -> Result<(), StoreError> {
    let query = "SELECT id, hash FROM decision WHERE id < \
         coalesce((SELECT min(id) FROM decision WHERE at >= ?), 1 << 62) ORDER BY id DESC LIMIT 1";
    let last = sqlx::query(query)
        .bind(before)
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(last) = last else { return Ok(()) };
    let (id, hash): (i64, Vec<u8>) = (last.try_get(0)?, last.try_get(1)?);
    let query = sqlx::query("UPDATE audit_chain SET anchor = ?, anchor_hash = ? WHERE id = 1");
    query.bind(id).bind(hash).execute(&mut **transaction).await?;
    let query = sqlx::query("DELETE FROM decision WHERE id <= ?").bind(id);
    query.execute(&mut **transaction).await?;
    Ok(())
}

/// Links the entries of earlier versions, once.
pub(super) async fn begin_chain(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    if sqlx::query(ENDS)
        .fetch_optional(&mut *transaction)
        .await?
        .is_some()
    {
        return Ok(());
    }
    let query = format!("SELECT {COLUMNS} FROM decision ORDER BY id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(query));
    let rows = rows.fetch_all(&mut *transaction).await?;
    let (mut head, mut hash) = (0, Vec::new());
    for row in &rows {
        let Entry { id, decision, .. } = entry(row)?;
        hash = link(&hash, id, &decision);
        head = id;
        let query = sqlx::query("UPDATE decision SET hash = ? WHERE id = ?");
        let query = query.bind(&hash).bind(signed(id));
        query.execute(&mut *transaction).await?;
    }
    let query = "INSERT INTO audit_chain (id, head, hash, anchor, anchor_hash) VALUES (1, ?, ?, 0, x'')";
    let query = sqlx::query(query).bind(signed(head)).bind(hash);
    query.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

impl Sqlite {
    async fn write_decision(&self, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn read_decisions(&self, query: DecisionQuery) -> Result<Vec<Entry>, StoreError> {
        let (place, id, order) = match (query.after, query.before) {
            (Some(after), _) => (">", signed(after), "ASC"),
            (None, before) => ("<", before.map_or(i64::MAX, signed), "DESC"),
        };
        let text = format!(
            "SELECT {COLUMNS} FROM decision WHERE id {place} ?1 AND at >= ?2 AND (?3 = '' OR who = ?3) \
             AND (?4 = '' OR what = ?4) AND (?5 = '' OR cluster = ?5) \
             AND (?6 IS NULL OR restic_id IN (SELECT value FROM json_each(?6))) ORDER BY id {order} LIMIT ?7"
        );
        let of = query.of.map(|of| serde_json::to_string(&of).unwrap_or_default());
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id)
            .bind(query.since)
            .bind(query.who)
            .bind(query.what)
            .bind(query.cluster)
            .bind(of)
            .bind(i64::from(query.limit))
            .fetch(&self.pool);
        let mut entries = Vec::new();
        while let Some(row) = rows.try_next().await? {
            entries.push(entry(&row)?);
        }
        Ok(entries)
    }

    async fn ends(&self) -> Result<Chain, StoreError> {
        chain(&sqlx::query(ENDS).fetch_one(&self.pool).await?)
    }

    async fn look_through(&self, known: Option<u64>) -> Result<Verified, StoreError> {
        loop {
            let ends = self.ends().await?;
            let found = self.look_from(&ends, known).await?;
            // Old entries may have been removed meanwhile: pages are read one by one, so that no grant waits for all.
            if found.fault.is_none() || self.ends().await?.anchor == ends.anchor {
                return Ok(found);
            }
        }
    }

    async fn look_from(&self, ends: &Chain, known: Option<u64>) -> Result<Verified, StoreError> {
        let (mut id, mut hash) = (ends.anchor, ends.anchor_hash.clone());
        let mut found = Verified {
            anchor: ends.anchor,
            head: ends.head,
            hash: ends.hash.clone(),
            ..Verified::default()
        };
        while id < ends.head {
            let query =
                format!("SELECT {COLUMNS} FROM decision WHERE id > ? AND id <= ? ORDER BY id LIMIT ?");
            let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(signed(id));
            let query = query.bind(signed(ends.head)).bind(PAGE);
            let rows = query.fetch_all(&self.pool).await?;
            if rows.is_empty() {
                found.fault = Some((ends.head, "entries at the end are missing".to_owned()));
                return Ok(found);
            }
            for row in &rows {
                let entry = entry(row)?;
                if link(&hash, entry.id, &entry.decision) != entry.hash {
                    let text = "this entry was changed, or one before it was removed";
                    found.fault = Some((entry.id, text.to_owned()));
                    return Ok(found);
                }
                found.entries += 1;
                if known == Some(entry.id) {
                    found.known = Some(entry.hash.clone());
                }
                (id, hash) = (entry.id, entry.hash);
            }
        }
        if hash != ends.hash {
            found.fault = Some((
                id,
                "the newest entry is not the one that was written last".to_owned(),
            ));
        }
        Ok(found)
    }
}

impl DecisionStore for Sqlite {
    fn decide(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.noted(self.write_decision(decision)))
    }

    fn decisions(&self, query: DecisionQuery) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(self.read_decisions(query))
    }

    fn newest_decision(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async { Ok(self.ends().await?.head) })
    }

    fn verify_decisions(&self, known: Option<u64>) -> BoxFuture<'_, Result<Verified, StoreError>> {
        Box::pin(self.look_through(known))
    }
}

#[cfg(test)]
#[path = "decisions_tests.rs"]
mod tests;
