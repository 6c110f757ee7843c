use super::super::{Batch, HubStore as _, StoredDecision};
use super::*;

fn ended(at: Millis, result: BackupResult) -> StoredRun {
    StoredRun {
        cluster: "a".to_owned(),
        namespace: "shop".to_owned(),
        name: "orders".to_owned(),
        ended: at,
        result,
        added: 2000,
        ..StoredRun::default()
    }
}

#[test]
fn a_strip_has_the_last_days_and_survives_its_encoding() {
    let mut days = Vec::new();
    for day in 0..40 {
        days = counted(days, &ended(day * DAY + 5, BackupResult::Succeeded));
    }
    days = counted(days, &ended(39 * DAY + 9, BackupResult::Failed));
    days = counted(days, &ended(38 * DAY + 9, BackupResult::PartiallyFailed));
    assert_eq!((days.len(), days[0].day), (DAYS, 9));
    assert_eq!(
        days[DAYS - 1],
        StoredDay {
            day: 39,
            succeeded: 1,
            partial: 0,
            failed: 1,
            added: 4
        }
    );
    assert_eq!(days[DAYS - 2].partial, 1);
    assert_eq!(decode(&encode(&days)), days);
}

#[tokio::test]
async fn a_run_counts_once_however_often_it_is_reported_and_goes_with_its_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
    store.begin().await.unwrap();
    let save = async |runs| {
        let batch = Batch {
            runs,
            ..Batch::default()
        };
        store.save(batch).await.unwrap();
    };
    let first = ended(5 * DAY, BackupResult::Failed);
    let second = ended(5 * DAY + 7, BackupResult::Succeeded);
    // Twice in one batch, and again in one of its own.
    save(vec![first.clone(), first.clone(), second]).await;
    save(vec![first.clone()]).await;
    let all = RunQuery {
        limit: 10,
        ..RunQuery::default()
    };
    let found = store.runs(all.clone()).await.unwrap();
    let times: Vec<Millis> = found.iter().map(|(_, run)| run.ended).collect();
    assert_eq!(times, [5 * DAY + 7, 5 * DAY]);
    assert_eq!(found[1].1, first);
    let older = RunQuery {
        before: Some((found[0].1.ended, found[0].0)),
        ..all.clone()
    };
    assert_eq!(store.runs(older).await.unwrap().len(), 1);
    let elsewhere = RunQuery {
        clusters: vec!["b".to_owned()],
        ..all.clone()
    };
    assert_eq!(store.runs(elsewhere).await.unwrap(), []);
    let days = store.run_days("a", "shop", "orders").await.unwrap();
    assert_eq!((days.len(), days[0].succeeded, days[0].failed), (1, 1, 1));
    store.forget("a", StoredDecision::default()).await.unwrap();
    assert_eq!(store.runs(all).await.unwrap(), []);
    assert_eq!(store.run_days("a", "shop", "orders").await.unwrap(), []);
}

/// Runs of `backups` backups, two of each: in one batch, and one after the other.
#[tokio::test]
async fn a_batch_of_any_size_keeps_what_its_runs_one_by_one_would() {
    let dir = tempfile::tempdir().unwrap();
    for backups in [1, ROWS / 2, ROWS, 3 * ROWS / 2] {
        let runs: Vec<StoredRun> = (0..2 * backups)
            .map(|n| StoredRun {
                name: format!("b{}", n % backups),
                ..ended(3 * DAY + n as Millis, BackupResult::Succeeded)
            })
            .collect();
        let mut kept = Vec::new();
        for (file, size) in [("together", runs.len()), ("apart", 1)] {
            let store = Sqlite::open(&dir.path().join(format!("{file}-{backups}.db")))
                .await
                .unwrap();
            store.begin().await.unwrap();
            for runs in runs.chunks(size) {
                let batch = Batch {
                    runs: runs.to_vec(),
                    ..Batch::default()
                };
                store.save(batch).await.unwrap();
            }
            let all = RunQuery {
                limit: 1_000,
                ..RunQuery::default()
            };
            let mut days = Vec::new();
            for n in 0..backups {
                let days_of = store.run_days("a", "shop", &format!("b{n}")).await.unwrap();
                assert_eq!(days_of[0].succeeded, 2, "b{n}");
                days.push(days_of);
            }
            kept.push((store.runs(all).await.unwrap(), days));
        }
        assert_eq!(kept[0].0.len(), 2 * backups);
        assert_eq!(kept[0], kept[1]);
    }
}
