use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::keys::authority;
use super::put::TOKENS;
use super::*;
use crate::store::{HubStore as _, StoredGrant, StoredLock};

const NOW: Millis = 1_795_000_000_000;

/// A store with one lock, held under token 7.
async fn used(folder: &Path) -> Sqlite {
    let store = Sqlite::open(&folder.join("fleet.db")).await.unwrap();
    store.begin().await.unwrap();
    grant(&store, 7).await;
    store
}

async fn grant(store: &Sqlite, token: u64) {
    let lock = StoredLock {
        restic_id: "r".to_owned(),
        token,
        holder: Some(("a".to_owned(), "job".to_owned(), "retention ns/p".to_owned())),
        delayed: false,
        revoked: false,
    };
    let granted = StoredGrant {
        audit: entry(token),
        approved: String::new(),
        ask: Vec::new(),
    };
    store.save_lock(lock, Some(granted), None).await.unwrap();
}

fn entry(token: u64) -> StoredAudit {
    StoredAudit {
        restic_id: "r".to_owned(),
        token,
        cluster: "a".to_owned(),
        operation: "job".to_owned(),
        subject: "retention ns/p".to_owned(),
        granted: NOW,
        ..StoredAudit::default()
    }
}

async fn tokens(store: &Sqlite) -> Vec<u64> {
    let audit = store.audit(crate::store::AuditQuery::default()).await.unwrap();
    audit.iter().map(|entry| entry.token).collect()
}

#[tokio::test]
async fn a_backup_holds_what_was_written_before_it_and_only_its_owner_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let file = dir.path().join("backup");
    let copied = store.copy(file.clone(), None, NOW).await.unwrap();
    // The store goes on, and the backup does not.
    grant(&store, 8).await;
    let mode = std::fs::metadata(&file).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert_eq!((copied.made, copied.epoch, copied.bytes), (NOW, 1, mode.len()));
    let restored = dir.path().join("other/fleet.db");
    let again = restore(&file, &restored, None, false, NOW + 5).await.unwrap();
    assert_eq!(again, copied);
    assert_eq!(tokens(&Sqlite::open(&restored).await.unwrap()).await, [7]);
    assert_eq!(tokens(&store).await, [8, 7]);
    let left = std::fs::read_dir(dir.path()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("partial")));
}

#[tokio::test]
async fn a_store_that_was_put_back_is_ahead_of_all_that_the_lost_one_gave_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let incarnation = store.begin().await.unwrap().incarnation;
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, NOW).await.unwrap();
    let path = dir.path().join("other.db");
    for round in 1..=3 {
        restore(&file, &path, None, true, NOW + round).await.unwrap();
        let restored = Sqlite::open(&path).await.unwrap();
        let start = restored.begin().await.unwrap();
        // One for each millisecond since its backup, which was made at the same time in each round.
        let passed: i64 = (1..=round).sum();
        let floor = 7 + u64::try_from(round * TOKENS + passed).unwrap();
        assert!(start.epoch > 2 + 900);
        assert_eq!(
            (start.incarnation, start.token_floor),
            (incarnation.clone(), floor)
        );
        // Its age alone makes the hub wait.
        assert_eq!(restored.age().await.unwrap().alive, 0);
        let put_back = PutBack {
            at: NOW + round,
            made: NOW,
        };
        assert_eq!(restored.put_back().await.unwrap(), Some(put_back));
        let note = StoredDecision {
            at: NOW,
            who: "w".to_owned(),
            what: "restore-store".to_owned(),
            ..StoredDecision::default()
        };
        restored.note_put_back(note).await.unwrap();
        assert_eq!(restored.put_back().await.unwrap(), None);
        // A backup of the restored store is above it again.
        std::fs::remove_file(&file).unwrap();
        restored.copy(file.clone(), None, NOW).await.unwrap();
    }
}

#[tokio::test]
async fn a_backup_that_is_put_back_twice_gives_no_number_out_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, NOW).await.unwrap();
    let path = dir.path().join("other.db");
    restore(&file, &path, None, false, NOW).await.unwrap();
    let first = Sqlite::open(&path).await.unwrap();
    let start = first.begin().await.unwrap();
    let token = start.token_floor + 3;
    grant(&first, token).await;
    first.pool.close().await;

    restore(&file, &path, None, true, NOW).await.unwrap();
    let second = Sqlite::open(&path).await.unwrap().begin().await.unwrap();
    assert!(
        second.token_floor >= token && second.epoch > start.epoch,
        "{second:?} after {start:?}"
    );
    // A replaced store that cannot be read is in nobody's way, and tokens rise all the same.
    std::fs::write(&path, "no database").unwrap();
    restore(&file, &path, None, true, NOW + 2_000).await.unwrap();
    let store = Sqlite::open(&path).await.unwrap();
    assert_eq!(tokens(&store).await, [7]);
    let third = store.begin().await.unwrap();
    assert!(third.token_floor >= token, "{third:?} after {token}");
}

#[tokio::test]
async fn a_backup_that_is_put_in_place_by_hand_is_an_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let now = crate::now();
    store
        .keep_age(crate::store::Age {
            alive: now,
            waits_until: 0,
        })
        .await
        .unwrap();
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, now).await.unwrap();
    let by_hand = Sqlite::open(&file).await.unwrap();
    assert_eq!(by_hand.age().await.unwrap().alive, 0);
    assert_eq!(
        store.age().await.unwrap().alive,
        now,
        "the store itself keeps its age"
    );
}

#[tokio::test]
async fn what_cannot_be_put_back_leaves_the_store_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let path = dir.path().join("fleet.db");
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, NOW).await.unwrap();
    let refused = store.copy(file.clone(), None, NOW).await;
    assert!(matches!(refused, Err(CopyError::Exists(_))), "{refused:?}");

    let text = dir.path().join("text");
    std::fs::write(&text, "no database").unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let torn = dir.path().join("torn");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&torn, whole.get(..whole.len() / 2).unwrap()).unwrap();
    let missing = dir.path().join("missing");
    for wrong in [&text, &empty, &torn, &missing] {
        let refused = restore(wrong, &path, None, true, NOW).await;
        assert!(refused.is_err(), "{}: {refused:?}", wrong.display());
    }
    let refused = restore(&file, &path, None, false, NOW).await;
    assert!(matches!(refused, Err(CopyError::StoreExists(_))), "{refused:?}");
    let hold = crate::store::held::take(&path).unwrap().unwrap();
    let refused = restore(&file, &path, None, true, NOW).await;
    assert!(matches!(refused, Err(CopyError::InUse(_))), "{refused:?}");
    drop(hold);
    assert_eq!(tokens(&store).await, [7]);

    store.pool.close().await;
    restore(&file, &path, None, true, NOW).await.unwrap();
    let replaced = Sqlite::open(&dir.path().join("fleet.db.replaced")).await.unwrap();
    assert_eq!(tokens(&replaced).await, [7]);
    assert!(!dir.path().join("fleet.db.partial").exists());
}

#[tokio::test]
async fn a_replacement_that_was_killed_half_way_keeps_the_store_that_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let path = dir.path().join("fleet.db");
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, NOW).await.unwrap();
    grant(&store, 8).await;
    store.pool.close().await;
    // Killed between the two renames.
    let replaced = dir.path().join("fleet.db.replaced");
    std::fs::rename(&path, &replaced).unwrap();
    restore(&file, &path, None, true, NOW).await.unwrap();
    assert_eq!(tokens(&Sqlite::open(&replaced).await.unwrap()).await, [8, 7]);
    assert_eq!(tokens(&Sqlite::open(&path).await.unwrap()).await, [7]);
}

#[tokio::test]
async fn a_backup_arrives_on_standard_input_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, NOW).await.unwrap();
    let sent = std::fs::read(&file).unwrap();
    let digest = Sha256::digest(&sent);
    let new = dir.path().join("new/fleet.db");
    let half = sent.get(..sent.len() / 2).unwrap();
    let torn = receive(half, &new, Some(&digest)).map(drop);
    assert!(matches!(torn, Err(CopyError::Torn(_))), "{torn:?}");
    // Nobody has said what it should be: what is no whole store is found out all the same.
    let unsaid = receive(half, &new, None).unwrap();
    restore(unsaid.path(), &new, None, false, NOW).await.unwrap_err();
    drop(unsaid);
    let whole = receive(&sent[..], &new, Some(&digest)).unwrap();
    let mode = std::fs::metadata(whole.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    restore(whole.path(), &new, None, false, NOW).await.unwrap();
    drop(whole);
    assert_eq!(tokens(&Sqlite::open(&new).await.unwrap()).await, [7]);
    assert!(!dir.path().join("new/fleet.db.received").exists());
}

#[tokio::test]
async fn a_backup_of_a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, NOW).await.unwrap();
    let later = Sqlite::open(&file).await.unwrap();
    let query = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99999, 'later', 1, x'00', 0)";
    sqlx::query(query).execute(&later.pool).await.unwrap();
    later.pool.close().await;
    let refused = restore(&file, &dir.path().join("new.db"), None, false, NOW).await;
    assert!(matches!(refused, Err(CopyError::Version(..))), "{refused:?}");
    assert!(!dir.path().join("new.db").exists());
}

#[tokio::test]
async fn a_forgotten_grant_is_entered_once_and_only_for_its_own_operation() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    assert!(store.note_forgotten(entry(9)).await.unwrap());
    assert!(store.note_forgotten(entry(9)).await.unwrap(), "it has not ended");
    let other = StoredAudit {
        cluster: "b".to_owned(),
        ..entry(9)
    };
    assert!(!store.note_forgotten(other).await.unwrap());
    assert_eq!(tokens(&store).await, [9, 7]);
}

#[tokio::test]
async fn the_keys_of_the_hubs_authority_go_with_its_store_and_are_not_left_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    let folder = dir.path().join("keys");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("active.pem"), "the secret key").unwrap();
    std::fs::write(folder.join("old.crt"), "a certificate").unwrap();
    let file = dir.path().join("backup");
    store.copy(file.clone(), Some(folder.clone()), NOW).await.unwrap();

    let fresh = dir.path().join("fresh/fleet.db");
    let restored = dir.path().join("put/keys");
    restore(&file, &fresh, Some(&restored), false, NOW).await.unwrap();
    assert_eq!(authority(&restored).unwrap(), authority(&folder).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&restored), mode(&restored.join("active.pem"))),
        (0o700, 0o600)
    );
    let bytes = std::fs::read(&fresh).unwrap();
    assert!(!bytes.windows(14).any(|window| window == b"the secret key"));

    // In the place of another one.
    std::fs::write(restored.join("active.pem"), "a new key").unwrap();
    restore(&file, &fresh, Some(&restored), true, NOW).await.unwrap();
    assert_eq!(authority(&restored).unwrap(), authority(&folder).unwrap());
    let aside = std::fs::read(dir.path().join("put/keys.replaced").join("active.pem")).unwrap();
    assert_eq!(aside, b"a new key");
}

async fn count(store: &Sqlite, query: &'static str) -> i64 {
    let row = sqlx::query(query).fetch_one(&store.pool).await.unwrap();
    row.try_get(0).unwrap()
}

#[tokio::test]
async fn what_may_have_ended_since_a_backup_does_not_come_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = used(dir.path()).await;
    for query in [
        "INSERT INTO person_session (hash, name, groups, how, created, expires) VALUES (x'01', 'ann', '[]', 'token', 1, 9)",
        "INSERT INTO invite (hash, name, groups, expires, created_by) VALUES (x'02', 'bob', '[]', 9, 'ann')",
        "INSERT INTO join_token VALUES (x'03', 'a', 1, 9, 'ann', NULL, NULL)",
        "INSERT INTO join_token VALUES (x'04', 'a', 1, 9, 'ann', x'05', x'06')",
        "INSERT INTO command VALUES ('open', 'a', x'', 'w', 's', 'ann', NULL, 1, 9, 'waiting', '', '', 1, NULL, '', '', '')",
        "INSERT INTO command VALUES ('over', 'a', x'', 'w', 's', 'ann', NULL, 1, 9, 'done', 'ok', '', 1, 2, '', '', '')",
    ] {
        sqlx::query(query).execute(&store.pool).await.unwrap();
    }
    let file = dir.path().join("backup");
    store.copy(file.clone(), None, NOW).await.unwrap();
    let path = dir.path().join("other.db");
    restore(&file, &path, None, false, NOW + 5).await.unwrap();
    let restored = Sqlite::open(&path).await.unwrap();
    assert_eq!(count(&restored, "SELECT count(*) FROM person_session").await, 0);
    assert_eq!(count(&restored, "SELECT count(*) FROM invite").await, 0);
    let used = "SELECT count(*) FROM join_token WHERE hash = x'04'";
    assert_eq!(count(&restored, used).await, 1, "its answer is still needed");
    assert_eq!(count(&restored, "SELECT count(*) FROM join_token").await, 1);
    let ended = "SELECT count(*) FROM command WHERE id = 'open' AND state = 'failed' AND ended = changed \
         AND text LIKE '%may have been carried out'";
    assert_eq!(count(&restored, ended).await, 1);
    let kept = "SELECT count(*) FROM command WHERE id = 'over' AND state = 'done' AND text = 'ok'";
    assert_eq!(count(&restored, kept).await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM person_session").await, 1);
}
