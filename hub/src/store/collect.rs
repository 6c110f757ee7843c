//! Collectors, what they have collected, and its series in SQLite.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use prost::Message as _;
use proto::v1::{CollectorReport, RepositoryStatistics};
use sqlx::{Row as _, Sqlite as Database, Transaction};

use super::locks::{number, signed};
use super::{Sqlite, StoreError};
use crate::Millis;

/// Milliseconds of an hour.
pub const HOUR: Millis = 3_600_000;
/// Milliseconds of a day.
pub const DAY: Millis = 24 * HOUR;
/// Steps of the series, each with the time that it is kept.
const STEPS: [(Millis, Millis); 2] = [(HOUR, 8 * DAY), (DAY, 732 * DAY)];
/// Most sources of one point.
const SOURCES: usize = 200;

/// Who collects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCollector {
    pub restic_id: String,
    pub cluster: String,
    pub epoch: u64,
}

/// What was collected last.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFigures {
    pub restic_id: String,
    pub cluster: String,
    /// When it was read, by the hub's clock.
    pub at: Millis,
    pub report: CollectorReport,
}

/// The last figures of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPoint {
    pub at: Millis,
    pub stored: u64,
    pub uncompressed: u64,
    pub snapshots: u64,
    pub files: Option<u64>,
    /// Cluster, host, snapshots.
    pub sources: Vec<(String, String, u64)>,
}

/// Stored bytes of a repository at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSize {
    pub restic_id: String,
    pub at: Millis,
    pub stored: u64,
}

/// Collectors and what they have collected.
pub trait CollectStore: Send + Sync {
    /// All collectors.
    fn collectors(&self) -> BoxFuture<'_, Result<Vec<StoredCollector>, StoreError>>;
    /// Appoints a cluster, under an epoch above all before. Returns it.
    fn appoint(&self, restic_id: &str, cluster: &str) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// What was collected last of all repositories.
    fn collected(&self) -> BoxFuture<'_, Result<Vec<StoredFigures>, StoreError>>;
    /// Keeps what was collected, with its points of the series.
    fn collect(&self, figures: StoredFigures) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The series of a repository since a time, oldest first. `step`: [`HOUR`] or [`DAY`].
    fn points(
        &self,
        restic_id: &str,
        step: Millis,
        since: Millis,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, StoreError>>;
    /// Stored bytes of all repositories by the day, since a time: by restic id, and then oldest first.
    fn sizes(&self, since: Millis) -> BoxFuture<'_, Result<Vec<StoredSize>, StoreError>>;
    /// Forgets points that are kept no longer.
    fn prune_points(&self, now: Millis) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl CollectStore for Sqlite {
    fn collectors(&self) -> BoxFuture<'_, Result<Vec<StoredCollector>, StoreError>> {
        self.read_collectors().boxed()
    }

    fn appoint(&self, restic_id: &str, cluster: &str) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.noted(self.write_collector(restic_id.to_owned(), cluster.to_owned()))
            .boxed()
    }

    fn collected(&self) -> BoxFuture<'_, Result<Vec<StoredFigures>, StoreError>> {
        self.read_collected().boxed()
    }

    fn collect(&self, figures: StoredFigures) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.write_collected(figures)).boxed()
    }

    fn points(
        &self,
        restic_id: &str,
        step: Millis,
        since: Millis,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, StoreError>> {
        self.read_points(restic_id.to_owned(), step, since).boxed()
    }

    fn sizes(&self, since: Millis) -> BoxFuture<'_, Result<Vec<StoredSize>, StoreError>> {
        self.read_sizes(since).boxed()
    }

    fn prune_points(&self, now: Millis) -> BoxFuture<'_, Result<(), StoreError>> {
        self.noted(self.remove_points(now)).boxed()
    }
}

impl Sqlite {
    async fn read_collectors(&self) -> Result<Vec<StoredCollector>, StoreError> {
        let query = "SELECT restic_id, cluster, epoch FROM collector ORDER BY restic_id";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        let collector = |row| {
            Ok(StoredCollector {
                restic_id: sqlx::Row::try_get(row, 0)?,
                cluster: sqlx::Row::try_get(row, 1)?,
                epoch: number(row, 2)?,
            })
        };
        rows.iter().map(collector).collect()
    }

    async fn write_collector(&self, restic_id: String, cluster: String) -> Result<u64, StoreError> {
        let mut transaction = self.write().await?;
        let query = "INSERT INTO collector (restic_id, cluster, epoch) VALUES (?, ?, 1) \
             ON CONFLICT (restic_id) DO UPDATE SET cluster = excluded.cluster, epoch = epoch + 1 RETURNING epoch";
        let row = sqlx::query(query)
            .bind(restic_id)
            .bind(cluster)
            .fetch_one(&mut *transaction)
            .await?;
        let epoch = number(&row, 0)?;
        transaction.commit().await?;
        Ok(epoch)
    }

    async fn read_collected(&self) -> Result<Vec<StoredFigures>, StoreError> {
        let query = "SELECT restic_id, cluster, at, report FROM collected ORDER BY restic_id";
        let rows = sqlx::query(query).fetch_all(&self.pool).await?;
        let mut all = Vec::new();
        for row in &rows {
            // What a later version has written and this one cannot read is collected anew.
            if let Ok(report) = CollectorReport::decode(row.try_get::<&[u8], _>(3)?) {
                all.push(StoredFigures {
                    restic_id: row.try_get(0)?,
                    cluster: row.try_get(1)?,
                    at: row.try_get(2)?,
                    report,
                });
            }
        }
        Ok(all)
    }

    async fn write_collected(&self, figures: StoredFigures) -> Result<(), StoreError> {
        let StoredFigures {
            restic_id,
            cluster,
            at,
            report,
        } = figures;
        let mut transaction = self.write().await?;
        let query = "INSERT INTO collected (restic_id, cluster, at, report) VALUES (?, ?, ?, ?) ON CONFLICT (restic_id) \
             DO UPDATE SET cluster = excluded.cluster, at = excluded.at, report = excluded.report";
        let query = sqlx::query(query).bind(&restic_id).bind(cluster).bind(at);
        query
            .bind(report.encode_to_vec())
            .execute(&mut *transaction)
            .await?;
        for (step, _) in STEPS {
            put_point(&mut transaction, &restic_id, (step, at), &report).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn read_points(
        &self,
        restic_id: String,
        step: Millis,
        since: Millis,
    ) -> Result<Vec<StoredPoint>, StoreError> {
        let query = "SELECT at, stored, uncompressed, snapshots, files, sources FROM point \
             WHERE restic_id = ? AND step = ? AND bucket >= ? ORDER BY bucket";
        let query = sqlx::query(query).bind(restic_id).bind(step / 1000);
        let rows = query
            .bind(since - since.rem_euclid(step))
            .fetch_all(&self.pool)
            .await?;
        let mut points = Vec::new();
        for row in &rows {
            let files: Option<i64> = row.try_get(4)?;
            points.push(StoredPoint {
                at: row.try_get(0)?,
                stored: number(row, 1)?,
                uncompressed: number(row, 2)?,
                snapshots: number(row, 3)?,
                files: files.and_then(|files| u64::try_from(files).ok()),
                sources: serde_json::from_str(row.try_get(5)?).unwrap_or_default(),
            });
        }
        Ok(points)
    }

    async fn read_sizes(&self, since: Millis) -> Result<Vec<StoredSize>, StoreError> {
        let query = "SELECT restic_id, at, stored FROM point WHERE step = ? AND bucket >= ? ORDER BY restic_id, bucket";
        let query = sqlx::query(query).bind(DAY / 1000);
        let rows = query
            .bind(since - since.rem_euclid(DAY))
            .fetch_all(&self.pool)
            .await?;
        let size = |row| {
            Ok(StoredSize {
                restic_id: sqlx::Row::try_get(row, 0)?,
                at: sqlx::Row::try_get(row, 1)?,
                stored: number(row, 2)?,
            })
        };
        rows.iter().map(size).collect()
    }

    async fn remove_points(&self, now: Millis) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for (step, kept) in STEPS {
            sqlx::query("DELETE FROM point WHERE step = ? AND bucket < ?")
                .bind(step / 1000)
                .bind(now.saturating_sub(kept))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// Keeps the figures as the last ones of a step.
async fn put_point(
    transaction: &mut Transaction<'static, Database>,
    restic_id: &str,
    (step, at): (Millis, Millis),
    report: &CollectorReport,
) -> Result<(), StoreError> {
    let RepositoryStatistics {
        stored_bytes,
        uncompressed_bytes,
        snapshots,
        files,
        ..
    } = report.statistics.clone().unwrap_or_default();
    let query = "INSERT INTO point (restic_id, step, bucket, at, stored, uncompressed, snapshots, files, sources) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (restic_id, step, bucket) DO UPDATE SET at = excluded.at, \
         stored = excluded.stored, uncompressed = excluded.uncompressed, snapshots = excluded.snapshots, \
         files = excluded.files, sources = excluded.sources WHERE excluded.at >= point.at";
    let query = sqlx::query(query).bind(restic_id).bind(step / 1000);
    let query = query.bind(at - at.rem_euclid(step)).bind(at);
    let query = query.bind(signed(stored_bytes)).bind(signed(uncompressed_bytes));
    let query = query.bind(signed(snapshots)).bind(files.map(signed));
    let sources = serde_json::to_string(&by_host(report)).unwrap_or_default();
    query.bind(sources).execute(&mut **transaction).await?;
    Ok(())
}

/// Snapshots by cluster and host, most first.
fn by_host(report: &CollectorReport) -> Vec<(&str, &str, u64)> {
    let mut counts = std::collections::BTreeMap::<(&str, &str), u64>::new();
    for source in &report.sources {
        *counts.entry((&source.cluster, &source.host)).or_default() += source.snapshots;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|((c, h), count)| (c, h, count)).collect();
    counts.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    counts.truncate(SOURCES);
    counts
}

#[cfg(test)]
mod tests {
    use proto::v1::SnapshotSource;

    use super::*;
    use crate::store::HubStore as _;

    fn figures(at: Millis, stored: u64) -> StoredFigures {
        let source = |backup: &str, snapshots| SnapshotSource {
            cluster: "a".to_owned(),
            backup: backup.to_owned(),
            host: "h".to_owned(),
            snapshots,
            newest: None,
        };
        StoredFigures {
            restic_id: "r".to_owned(),
            cluster: "a".to_owned(),
            at,
            report: CollectorReport {
                statistics: Some(RepositoryStatistics {
                    stored_bytes: stored,
                    snapshots: 5,
                    ..RepositoryStatistics::default()
                }),
                sources: vec![source("ns/x", 2), source("ns/y", 3)],
                ..CollectorReport::default()
            },
        }
    }

    async fn store(dir: &tempfile::TempDir) -> Sqlite {
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        store.begin().await.unwrap();
        store
    }

    #[tokio::test]
    async fn each_appointment_has_a_higher_epoch_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(&dir).await;
        for (cluster, epoch) in [("a", 1), ("b", 2), ("a", 3)] {
            assert_eq!(first.appoint("r", cluster).await.unwrap(), epoch);
        }
        drop(first);
        let kept = StoredCollector {
            restic_id: "r".to_owned(),
            cluster: "a".to_owned(),
            epoch: 3,
        };
        assert_eq!(store(&dir).await.collectors().await.unwrap(), [kept]);
    }

    #[tokio::test]
    async fn a_series_has_the_last_figures_of_each_hour_for_a_week_and_of_each_day_for_two_years() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let start = 20_000 * DAY;
        // Each half hour for ten days, and then once in a month for four years.
        for n in 0..480 {
            let at = start + n * HOUR / 2;
            store.collect(figures(at, n.unsigned_abs())).await.unwrap();
        }
        // Out of order: an older one of the same hour changes nothing.
        store.collect(figures(start + HOUR / 4, 9999)).await.unwrap();
        let hours = store.points("r", HOUR, start).await.unwrap();
        assert_eq!(hours.len(), 240);
        assert_eq!((hours[0].at, hours[0].stored), (start + HOUR / 2, 1));
        assert_eq!(hours[0].sources, [("a".to_owned(), "h".to_owned(), 5)]);
        assert_eq!(store.points("r", DAY, start).await.unwrap().len(), 10);
        assert_eq!(store.points("other", DAY, start).await.unwrap(), []);
        let mut now = start;
        for month in 0..48 {
            now = start + month * 30 * DAY;
            store.collect(figures(now, 1)).await.unwrap();
        }
        store.prune_points(now).await.unwrap();
        assert_eq!(store.points("r", HOUR, 0).await.unwrap().len(), 1);
        assert_eq!(store.points("r", DAY, 0).await.unwrap().len(), 25);
        assert_eq!(store.collected().await.unwrap(), [figures(now, 1)]);
    }
}
