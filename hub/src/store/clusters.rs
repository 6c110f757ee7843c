//! Clusters and their objects in SQLite.

use futures::TryStreamExt as _;
use sqlx::{Row as _, Sqlite as Database, Transaction};
use tokio::sync::mpsc;

use super::decisions::put_decision;
use super::many::{Many, ROWS};
use super::replaced::set_aside;
use super::runs::put_runs;
use super::{Batch, Sqlite, StoreError, StoredCluster, StoredDecision, StoredObject, StoredVanished};
use crate::inventory::{Facts, Origin};

const CLUSTERS: &str = "SELECT name, cluster_uid, version, kubernetes_version, last_heard, complete, digest, objects, conflict, \
     accepted, reported_uid, reported_whole, reported_heard FROM cluster ORDER BY name";
const PUT_CLUSTER: &str = "INSERT INTO cluster (name, cluster_uid, version, kubernetes_version, last_heard, complete, digest, \
     objects, conflict, accepted, reported_uid, reported_whole, reported_heard) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
     ON CONFLICT (name) DO UPDATE SET cluster_uid = excluded.cluster_uid, version = excluded.version, \
     kubernetes_version = excluded.kubernetes_version, last_heard = excluded.last_heard, complete = excluded.complete, \
     digest = excluded.digest, objects = excluded.objects, conflict = excluded.conflict, accepted = excluded.accepted, \
     reported_uid = excluded.reported_uid, reported_whole = excluded.reported_whole, reported_heard = excluded.reported_heard";
const PUT_OBJECTS: Many = Many {
    before: "INSERT INTO object (cluster, uid, baseline, state) VALUES",
    columns: 4,
    after: "ON CONFLICT (cluster, uid) DO UPDATE SET baseline = excluded.baseline, state = excluded.state",
};

async fn put_objects(
    transaction: &mut Transaction<'static, Database>,
    objects: &[StoredObject],
) -> Result<(), StoreError> {
    for objects in objects.chunks(ROWS) {
        let mut query = PUT_OBJECTS.of(objects.len());
        for object in objects {
            query = query.bind(&object.cluster).bind(&object.uid);
            query = query.bind(object.baseline).bind(&*object.state);
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

impl Sqlite {
    pub(super) async fn read_clusters(&self) -> Result<Vec<StoredCluster>, StoreError> {
        let mut clusters = Vec::new();
        let mut rows = sqlx::query(CLUSTERS).fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            clusters.push(StoredCluster {
                name: row.try_get(0)?,
                facts: Facts {
                    cluster_uid: row.try_get(1)?,
                    version: row.try_get(2)?,
                    kubernetes_version: row.try_get(3)?,
                },
                last_heard: row.try_get(4)?,
                complete: row.try_get::<i64, _>(5)? != 0,
                digest: row.try_get(6)?,
                objects: u64::try_from(row.try_get::<i64, _>(7)?).unwrap_or_default(),
                conflict: row.try_get(8)?,
                accepted: row.try_get(9)?,
                origin: Origin {
                    uid: row.try_get(10)?,
                    whole: row.try_get::<i64, _>(11)? != 0,
                    heard: row.try_get(12)?,
                },
            });
        }
        Ok(clusters)
    }

    pub(super) async fn read_objects(&self, into: mpsc::Sender<Vec<StoredObject>>) -> Result<(), StoreError> {
        let mut of_cluster: Vec<StoredObject> = Vec::new();
        // The order of the table: nothing is sorted.
        let query = "SELECT cluster, uid, baseline, state FROM object ORDER BY cluster, uid";
        let mut rows = sqlx::query(query).fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            let object = StoredObject {
                cluster: row.try_get(0)?,
                uid: row.try_get(1)?,
                baseline: row.try_get(2)?,
                state: row.try_get::<Vec<u8>, _>(3)?.into(),
            };
            if of_cluster
                .first()
                .is_some_and(|first| first.cluster != object.cluster)
            {
                // An error means that nobody wants the rest.
                let _ = into.send(std::mem::take(&mut of_cluster)).await;
            }
            of_cluster.push(object);
        }
        if !of_cluster.is_empty() {
            let _ = into.send(of_cluster).await;
        }
        Ok(())
    }

    pub(super) async fn write_inventory(&self, batch: Batch) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for replacement in batch.replaced {
            set_aside(&mut transaction, replacement).await?;
        }
        for cluster in batch.clusters {
            let query = sqlx::query(PUT_CLUSTER)
                .bind(cluster.name)
                .bind(cluster.facts.cluster_uid);
            let query = query
                .bind(cluster.facts.version)
                .bind(cluster.facts.kubernetes_version);
            let query = query.bind(cluster.last_heard).bind(i64::from(cluster.complete));
            let query = query
                .bind(cluster.digest)
                .bind(i64::try_from(cluster.objects).unwrap_or(i64::MAX));
            let query = query.bind(cluster.conflict).bind(cluster.accepted);
            let Origin { uid, whole, heard } = cluster.origin;
            let query = query.bind(uid).bind(i64::from(whole)).bind(heard);
            query.execute(&mut *transaction).await?;
        }
        for (cluster, uid) in batch.gone {
            let query = sqlx::query("DELETE FROM object WHERE cluster = ? AND uid = ?");
            query.bind(cluster).bind(uid).execute(&mut *transaction).await?;
        }
        put_objects(&mut transaction, &batch.objects).await?;
        if let Some(vanished) = batch.vanished {
            sqlx::query("DELETE FROM vanished")
                .execute(&mut *transaction)
                .await?;
            for policy in vanished {
                let query = "INSERT INTO vanished (cluster, uid, since, state) VALUES (?, ?, ?, ?)";
                let query = sqlx::query(query).bind(policy.cluster).bind(policy.uid);
                let query = query.bind(policy.since).bind(policy.state);
                query.execute(&mut *transaction).await?;
            }
        }
        for decision in batch.decisions {
            put_decision(&mut transaction, decision).await?;
        }
        put_runs(&mut transaction, batch.runs).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(super) async fn read_vanished(&self) -> Result<Vec<StoredVanished>, StoreError> {
        let mut vanished = Vec::new();
        let query = "SELECT cluster, uid, since, state FROM vanished";
        let mut rows = sqlx::query(query).fetch(&self.pool);
        while let Some(row) = rows.try_next().await? {
            vanished.push(StoredVanished {
                cluster: row.try_get(0)?,
                uid: row.try_get(1)?,
                since: row.try_get(2)?,
                state: row.try_get(3)?,
            });
        }
        Ok(vanished)
    }

    pub(super) async fn remove_cluster(
        &self,
        cluster: String,
        decision: StoredDecision,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for query in [
            "DELETE FROM object WHERE cluster = ?",
            "DELETE FROM vanished WHERE cluster = ?",
            "DELETE FROM replaced_object WHERE cluster = ?",
            "DELETE FROM replaced WHERE cluster = ?",
            "DELETE FROM damage WHERE cluster = ?",
            "DELETE FROM run WHERE cluster = ?",
            "DELETE FROM run_day WHERE cluster = ?",
            "DELETE FROM cluster WHERE name = ?",
            "UPDATE certificate SET forgotten = 1 WHERE cluster = ?",
        ] {
            sqlx::query(query)
                .bind(&cluster)
                .execute(&mut *transaction)
                .await?;
        }
        put_decision(&mut transaction, decision).await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EnrolmentStore as _, HubStore as _, StoredCertificate, everything};
    use super::*;

    #[tokio::test]
    async fn all_of_many_resources_are_kept_and_the_later_state_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        store.begin().await.unwrap();
        let object = |n: usize, state: u8| StoredObject {
            cluster: "a".to_owned(),
            uid: format!("u{n:04}"),
            baseline: 3,
            state: vec![state].into(),
        };
        let many = 2 * ROWS + 3;
        for (from, state) in [(0, 1), (ROWS, 2)] {
            let batch = Batch {
                objects: (from..many).map(|n| object(n, state)).collect(),
                ..Batch::default()
            };
            store.save(batch).await.unwrap();
        }
        let (into, mut read) = mpsc::channel(1);
        store.objects(into).await.unwrap();
        let found = read.recv().await.unwrap();
        let expected: Vec<_> = (0..many)
            .map(|n| object(n, if n < ROWS { 1 } else { 2 }))
            .collect();
        assert_eq!(found, expected);
    }

    /// In the hub's container no folder for temporary files can be written.
    #[tokio::test]
    async fn a_write_of_any_size_needs_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
        store.begin().await.unwrap();
        let batch = |state: u8| Batch {
            objects: (0..ROWS).map(|n| large(n, state)).collect(),
            ..Batch::default()
        };
        store.save(batch(1)).await.unwrap();
        // Each row is written over, and what it was before is kept until the statement's end.
        let mut transaction = store.write().await.unwrap();
        put_objects(&mut transaction, &batch(2).objects).await.unwrap();
        assert_eq!(temporary_files(), Vec::<String>::new());
    }

    fn large(n: usize, state: u8) -> StoredObject {
        StoredObject {
            cluster: "a".to_owned(),
            uid: format!("u{n:04}"),
            baseline: 3,
            state: vec![state; 8192].into(),
        }
    }

    /// Files that SQLite has made for itself and that this process has open.
    fn temporary_files() -> Vec<String> {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let names = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.contains("etilqs_")).collect()
    }

    #[tokio::test]
    async fn a_cluster_is_kept_with_its_objects_and_forgotten_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.db");
        let store = Sqlite::open(&path).await.unwrap();
        let cluster = |name: &str| StoredCluster {
            name: name.to_owned(),
            complete: true,
            digest: vec![7; 32],
            objects: 1,
            conflict: Some("two".to_owned()),
            accepted: Some("uid".to_owned()),
            last_heard: Some(5),
            ..StoredCluster::default()
        };
        let object = |cluster: &str| StoredObject {
            cluster: cluster.to_owned(),
            uid: "u".to_owned(),
            baseline: 3,
            state: vec![1, 2, 3].into(),
        };
        let batch = Batch {
            clusters: vec![cluster("a"), cluster("b")],
            objects: vec![object("a"), object("b")],
            ..Batch::default()
        };
        store.save(batch).await.unwrap();
        for name in ["a", "b"] {
            let certificate = StoredCertificate {
                serial: name.to_owned(),
                cluster: name.to_owned(),
                expires: 10,
                ..StoredCertificate::default()
            };
            store.add_certificate(certificate).await.unwrap();
        }
        store.forget("a", StoredDecision::default()).await.unwrap();
        drop(store);
        let store = Sqlite::open(&path).await.unwrap();
        let certificates = store.certificates(5).await.unwrap();
        let forgotten: Vec<bool> = certificates.iter().map(|one| one.forgotten).collect();
        assert_eq!(forgotten, [true, false]);
        assert_eq!(
            everything(&store).await.unwrap(),
            (vec![cluster("b")], vec![object("b")])
        );
    }

    /// With its first kilobyte in one place and the rest on a page of its own each took more than four.
    #[tokio::test]
    async fn states_share_their_pages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.db");
        let store = Sqlite::open(&path).await.unwrap();
        let object = |number: usize| StoredObject {
            cluster: "a".to_owned(),
            uid: format!("{number:036}"),
            baseline: 0,
            state: vec![7; 1_200].into(),
        };
        let empty = std::fs::metadata(&path).unwrap().len();
        let batch = Batch {
            objects: (0..1_000).map(object).collect(),
            ..Batch::default()
        };
        store.save(batch).await.unwrap();
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&store.pool)
            .await
            .unwrap();
        let each = (std::fs::metadata(&path).unwrap().len() - empty) / 1_000;
        assert!(each < 2_000, "{each} bytes of the store for each state");
    }
}
