//! Runs of backups that have ended, and how those of each day have, in SQLite.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::v1::BackupResult;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite as Database, Transaction};

use super::locks::{number, signed};
use super::many::{Many, ROWS};
use super::{Sqlite, StoreError};
use crate::Millis;
use crate::store::collect::DAY;

/// Runs that are kept, of all clusters.
const RUNS: i64 = 20_000;
/// Days that are kept of each backup.
pub const DAYS: usize = 31;
/// Bytes of the record of a day.
const RECORD: usize = 16;

/// `asked` is the outer loop: each backup is found by the key of the table.
const DAYS_OF: Many = Many {
    before: "WITH asked (c, ns, n) AS (VALUES",
    columns: 3,
    after: ") SELECT DISTINCT cluster, namespace, name, last, days FROM asked CROSS JOIN run_day \
         ON cluster = c AND namespace = ns AND name = n",
};
const PUT_DAYS: Many = Many {
    before: "INSERT INTO run_day (cluster, namespace, name, last, days) VALUES",
    columns: 5,
    after: "ON CONFLICT (cluster, namespace, name) DO UPDATE SET last = excluded.last, days = excluded.days",
};
const PUT_RUNS: Many = Many {
    before: "INSERT INTO run (ended, began, cluster, namespace, name, result, text, snapshot, added, restic_id, repository) VALUES",
    columns: 11,
    after: "",
};

/// A run of a backup that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRun {
    pub cluster: String,
    pub namespace: String,
    pub name: String,
    /// Milliseconds since 1970.
    pub ended: Millis,
    pub began: Option<Millis>,
    pub result: BackupResult,
    /// Reason and message of one that did not succeed.
    pub text: String,
    /// Full snapshot id; empty for none.
    pub snapshot: String,
    /// Bytes.
    pub added: u64,
    pub restic_id: String,
    /// Name of the ResticRepository.
    pub repository: String,
}

/// Where a page of runs begins: the end of the last one before it, and its number.
pub type RunCursor = (Millis, i64);

/// Which runs, newest first. Empty lists take all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    pub before: Option<RunCursor>,
    pub since: Millis,
    pub clusters: Vec<String>,
    /// Of this backup: cluster, namespace and name.
    pub of: Option<(String, String, String)>,
    pub limit: u32,
}

/// How the runs of one day have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredDay {
    /// Days since 1970, UTC.
    pub day: u32,
    pub succeeded: u16,
    pub partial: u16,
    pub failed: u16,
    /// KiB.
    pub added: u32,
}

/// What backups have done.
pub trait RunStore: Send + Sync {
    /// Runs with their numbers.
    fn runs(&self, query: RunQuery) -> BoxFuture<'_, Result<Vec<(i64, StoredRun)>, StoreError>>;
    /// The state of a resource as its spoke encoded it.
    fn state(&self, cluster: &str, uid: &str) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;
    /// The days of a backup on which a run has ended, oldest first, at most [`DAYS`].
    fn run_days(
        &self,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'_, Result<Vec<StoredDay>, StoreError>>;
}

impl RunStore for Sqlite {
    fn runs(&self, query: RunQuery) -> BoxFuture<'_, Result<Vec<(i64, StoredRun)>, StoreError>> {
        self.read_runs(query).boxed()
    }

    fn state(&self, cluster: &str, uid: &str) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.read_state(cluster.to_owned(), uid.to_owned()).boxed()
    }

    fn run_days(
        &self,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'_, Result<Vec<StoredDay>, StoreError>> {
        self.read_days(cluster.to_owned(), namespace.to_owned(), name.to_owned())
            .boxed()
    }
}

impl Sqlite {
    async fn read_runs(&self, query: RunQuery) -> Result<Vec<(i64, StoredRun)>, StoreError> {
        let (ended, id) = query.before.unwrap_or((Millis::MAX, i64::MAX));
        let (cluster, namespace, name) = query.of.unwrap_or_default();
        let text = "SELECT id, ended, began, cluster, namespace, name, result, text, snapshot, added, restic_id, repository \
             FROM run WHERE (ended, id) < (?1, ?2) AND ended >= ?3 \
             AND (?4 = '[]' OR cluster IN (SELECT value FROM json_each(?4))) \
             AND (?5 = '' OR (cluster = ?5 AND namespace = ?6 AND name = ?7)) ORDER BY ended DESC, id DESC LIMIT ?8";
        let clusters = serde_json::to_string(&query.clusters).unwrap_or_default();
        let rows = sqlx::query(text)
            .bind(ended)
            .bind(id)
            .bind(query.since)
            .bind(clusters)
            .bind(cluster)
            .bind(namespace)
            .bind(name)
            .bind(i64::from(query.limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(run).collect()
    }

    async fn read_state(&self, cluster: String, uid: String) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query("SELECT state FROM object WHERE cluster = ? AND uid = ?");
        let row = query.bind(cluster).bind(uid).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn read_days(
        &self,
        cluster: String,
        namespace: String,
        name: String,
    ) -> Result<Vec<StoredDay>, StoreError> {
        let query = "SELECT days FROM run_day WHERE cluster = ? AND namespace = ? AND name = ?";
        let query = sqlx::query(query).bind(cluster).bind(namespace).bind(name);
        let row = query.fetch_optional(&self.pool).await?;
        let days = row.map(|row| row.try_get::<Vec<u8>, _>(0)).transpose()?;
        Ok(decode(&days.unwrap_or_default()))
    }
}

/// Writes runs in the transaction of the states that report them.
pub(super) async fn put_runs(
    transaction: &mut Transaction<'static, Database>,
    runs: Vec<StoredRun>,
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    for runs in runs.chunks(ROWS) {
        let new = count_days(transaction, runs).await?;
        put_new(transaction, &new).await?;
    }
    let query = "DELETE FROM run WHERE id <= (SELECT max(id) FROM run) - ?";
    sqlx::query(query).bind(RUNS).execute(&mut **transaction).await?;
    Ok(())
}

/// Counts at most [`ROWS`] runs on their days. Which of them are new.
async fn count_days<'a>(
    transaction: &mut Transaction<'static, Database>,
    runs: &'a [StoredRun],
) -> Result<Vec<&'a StoredRun>, StoreError> {
    let mut known = known_days(transaction, runs).await?;
    let (mut new, mut changed) = (Vec::new(), BTreeSet::new());
    for run in runs {
        let (last, days) = known.entry(of(run)).or_insert((Millis::MIN, Vec::new()));
        if run.ended <= *last {
            continue;
        }
        *last = run.ended;
        *days = counted(std::mem::take(days), run);
        changed.insert(of(run));
        new.push(run);
    }
    known.retain(|backup, _| changed.contains(backup));
    if known.is_empty() {
        return Ok(new);
    }
    let mut query = PUT_DAYS.of(known.len());
    for ((cluster, namespace, name), (last, days)) in known {
        query = query.bind(cluster).bind(namespace).bind(name);
        query = query.bind(last).bind(encode(&days));
    }
    query.execute(&mut **transaction).await?;
    Ok(new)
}

/// Cluster, namespace and name of the backup.
type Backup = (String, String, String);

fn of(run: &StoredRun) -> Backup {
    (run.cluster.clone(), run.namespace.clone(), run.name.clone())
}

/// What is known of the days of their backups, and when the newest run ended.
async fn known_days(
    transaction: &mut Transaction<'static, Database>,
    runs: &[StoredRun],
) -> Result<BTreeMap<Backup, (Millis, Vec<StoredDay>)>, StoreError> {
    let mut query = DAYS_OF.of(runs.len());
    for run in runs {
        query = query.bind(&run.cluster).bind(&run.namespace).bind(&run.name);
    }
    let mut known = BTreeMap::new();
    for row in query.fetch_all(&mut **transaction).await? {
        let backup = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        known.insert(backup, (row.try_get(3)?, decode(row.try_get(4)?)));
    }
    Ok(known)
}

async fn put_new(
    transaction: &mut Transaction<'static, Database>,
    runs: &[&StoredRun],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let mut query = PUT_RUNS.of(runs.len());
    for run in runs {
        query = query.bind(run.ended).bind(run.began);
        query = query.bind(&run.cluster).bind(&run.namespace).bind(&run.name);
        query = query.bind(i64::from(i32::from(run.result)));
        query = query.bind(&run.text).bind(&run.snapshot).bind(signed(run.added));
        query = query.bind(&run.restic_id).bind(&run.repository);
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}

fn run(row: &SqliteRow) -> Result<(i64, StoredRun), StoreError> {
    let result = i32::try_from(row.try_get::<i64, _>(6)?).unwrap_or_default();
    let run = StoredRun {
        ended: row.try_get(1)?,
        began: row.try_get(2)?,
        cluster: row.try_get(3)?,
        namespace: row.try_get(4)?,
        name: row.try_get(5)?,
        result: BackupResult::try_from(result).unwrap_or_default(),
        text: row.try_get(7)?,
        snapshot: row.try_get(8)?,
        added: number(row, 9)?,
        restic_id: row.try_get(10)?,
        repository: row.try_get(11)?,
    };
    Ok((row.try_get(0)?, run))
}

/// The days with one more run. Pure.
fn counted(mut days: Vec<StoredDay>, run: &StoredRun) -> Vec<StoredDay> {
    let day = u32::try_from(run.ended.div_euclid(DAY)).unwrap_or_default();
    let at = match days.binary_search_by_key(&day, |of| of.day) {
        Ok(at) => at,
        Err(at) => {
            let new = StoredDay {
                day,
                ..StoredDay::default()
            };
            days.insert(at, new);
            at
        }
    };
    if let Some(of) = days.get_mut(at) {
        let count = match run.result {
            BackupResult::Succeeded => &mut of.succeeded,
            BackupResult::PartiallyFailed => &mut of.partial,
            BackupResult::Failed | BackupResult::Unspecified => &mut of.failed,
        };
        *count = count.saturating_add(1);
        let added = u32::try_from(run.added.div_ceil(1024)).unwrap_or(u32::MAX);
        of.added = of.added.saturating_add(added);
    }
    let newest = days.last().map_or(0, |of| of.day);
    let oldest = newest.saturating_sub(u32::try_from(DAYS).unwrap_or_default() - 1);
    days.retain(|of| of.day >= oldest);
    days
}

fn encode(days: &[StoredDay]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(days.len() * RECORD);
    for of in days {
        bytes.extend(of.day.to_be_bytes());
        for count in [of.succeeded, of.partial, of.failed, 0] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(of.added.to_be_bytes());
    }
    bytes
}

/// A record that is cut off is left out.
fn decode(bytes: &[u8]) -> Vec<StoredDay> {
    let (records, _) = bytes.as_chunks::<RECORD>();
    let day = |record: &[u8; RECORD]| {
        let [d0, d1, d2, d3, s0, s1, p0, p1, f0, f1, _, _, a0, a1, a2, a3] = *record;
        StoredDay {
            day: u32::from_be_bytes([d0, d1, d2, d3]),
            succeeded: u16::from_be_bytes([s0, s1]),
            partial: u16::from_be_bytes([p0, p1]),
            failed: u16::from_be_bytes([f0, f1]),
            added: u32::from_be_bytes([a0, a1, a2, a3]),
        }
    };
    records.iter().map(day).collect()
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
