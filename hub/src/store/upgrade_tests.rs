use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::*;
use crate::store::schema::MIGRATIONS;

const NOW: Millis = 1_795_000_000_000;

/// Steps of the schema, from the first.
fn steps() -> Vec<i64> {
    MIGRATIONS.iter().map(|migration| migration.version).collect()
}

/// Brings a store to one of the steps, as a version would that knows no others.
async fn at_step(path: &Path, step: i64) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    MIGRATIONS.run_to(step, &mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The last step that a file has.
async fn step_of(path: &Path) -> i64 {
    number(path, "SELECT max(version) FROM _sqlx_migrations").await
}

async fn number(path: &Path, query: &'static str) -> i64 {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap();
    let row = sqlx::query(query).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    row.try_get(0).unwrap()
}

async fn open(path: &Path) {
    Sqlite::open(path).await.unwrap().pool.close().await;
}

#[tokio::test]
async fn a_store_is_kept_as_it_was_before_a_version_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, folder) = (dir.path().join("fleet.db"), dir.path().join("authority"));
    let [.., before, now] = steps()[..] else {
        panic!("a schema of one step")
    };
    assert_eq!(
        before_upgrade(&path, Some(&folder), NOW).await.unwrap(),
        None,
        "no store"
    );
    at_step(&path, before).await;
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("active.pem"), "the secret key").unwrap();

    let kept = before_upgrade(&path, Some(&folder), NOW).await.unwrap().unwrap();
    assert_eq!(kept, dir.path().join("fleet.db.before-upgrade"));
    assert_eq!(
        std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    open(&path).await;
    assert_eq!(
        before_upgrade(&path, Some(&folder), NOW).await.unwrap(),
        None,
        "nothing changes"
    );
    assert_eq!((step_of(&kept).await, step_of(&path).await), (before, now));
    // It is on the same volume, so it is no backup of the hub.
    assert_eq!(number(&path, "SELECT backed_up FROM hub").await, 0);

    let other = dir.path().join("other.db");
    let keys = dir.path().join("keys");
    restore(&kept, &other, Some(&keys), false, NOW + 5).await.unwrap();
    assert_eq!(std::fs::read(keys.join("active.pem")).unwrap(), b"the secret key");
}

#[tokio::test]
async fn an_upgrade_that_was_cut_off_does_not_take_its_own_work_for_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.db");
    let [.., before, half, _] = steps()[..] else {
        panic!("a schema of two steps")
    };
    at_step(&path, before).await;
    let kept = before_upgrade(&path, None, NOW).await.unwrap().unwrap();
    // Before its first step: the version before may have worked on the store since.
    assert!(before_upgrade(&path, None, NOW + 1).await.unwrap().is_some());
    assert_eq!(number(&kept, "SELECT copied FROM hub").await, NOW + 1);
    at_step(&path, half).await;
    assert_eq!(before_upgrade(&path, None, NOW + 2).await.unwrap(), None);
    assert_eq!(step_of(&kept).await, before);
    open(&path).await;

    // The next way there and back begins anew.
    restore(&kept, &path, None, true, NOW + 3).await.unwrap();
    assert_eq!(number(&path, "PRAGMA user_version").await, 0);
    let again = dir.path().join("again.db");
    at_step(&again, half).await;
    std::fs::rename(&again, &path).unwrap();
    assert!(before_upgrade(&path, None, NOW + 4).await.unwrap().is_some());
    assert_eq!(step_of(&kept).await, half);
}

#[tokio::test]
async fn a_store_of_which_no_copy_can_be_kept_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.db");
    let before = steps().into_iter().rev().nth(1).unwrap();
    at_step(&path, before).await;
    std::fs::create_dir_all(kept_as(&path).join("in the way")).unwrap();
    let refused = before_upgrade(&path, None, NOW).await;
    assert!(matches!(refused, Err(CopyError::File(..))), "{refused:?}");
    assert_eq!(step_of(&path).await, before);
    assert_eq!(number(&path, "PRAGMA user_version").await, 0);
    let left = std::fs::read_dir(dir.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("partial")));
}

#[tokio::test]
async fn stores_of_versions_without_a_way_back_are_opened_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (early, later) = (dir.path().join("early.db"), dir.path().join("later.db"));
    at_step(&early, 8).await;
    assert_eq!(before_upgrade(&early, None, NOW).await.unwrap(), None);
    open(&early).await;

    open(&later).await;
    let mut connection = SqliteConnectOptions::new()
        .filename(&later)
        .connect()
        .await
        .unwrap();
    let query = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99999, 'later', 1, x'00', 0)";
    sqlx::query(query).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert_eq!(before_upgrade(&later, None, NOW).await.unwrap(), None);
}
