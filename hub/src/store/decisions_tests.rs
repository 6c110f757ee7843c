use super::super::HubStore as _;
use super::*;

async fn store() -> (tempfile::TempDir, Sqlite) {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
    store.begin().await.unwrap();
    (dir, store)
}

fn decision(at: Millis, who: &str) -> StoredDecision {
    StoredDecision {
        at,
        who: who.to_owned(),
        what: "approve-plan".to_owned(),
        ..StoredDecision::default()
    }
}

async fn change(store: &Sqlite, query: &'static str) {
    sqlx::query(query).execute(&store.pool).await.unwrap();
}

async fn five() -> (tempfile::TempDir, Sqlite) {
    let (dir, store) = store().await;
    for at in 1..=5 {
        store.decide(decision(at, "ann")).await.unwrap();
    }
    (dir, store)
}

#[tokio::test]
async fn an_entry_that_was_changed_or_removed_shows() {
    for (query, id) in [
        ("UPDATE decision SET who = 'eve' WHERE id = 3", 3),
        (
            "UPDATE decision SET before = 'approve-plan', what = '' WHERE id = 2",
            2,
        ),
        ("DELETE FROM decision WHERE id = 2", 3),
        ("DELETE FROM decision WHERE id = 5", 5),
        ("DELETE FROM decision WHERE id = 1", 2),
        ("UPDATE decision SET id = 9 WHERE id = 5", 5),
    ] {
        let (_dir, store) = five().await;
        assert_eq!(store.verify_decisions(None).await.unwrap().fault, None);
        change(&store, query).await;
        let fault = store.verify_decisions(None).await.unwrap().fault;
        assert_eq!(fault.map(|(id, _)| id), Some(id), "{query}");
    }
}

#[tokio::test]
async fn a_chain_that_was_made_anew_has_another_hash_under_a_known_id() {
    let (_dir, store) = five().await;
    let known = store.verify_decisions(Some(5)).await.unwrap();
    assert_eq!(
        (known.entries, known.head, known.known.as_ref()),
        (5, 5, Some(&known.hash))
    );
    change(&store, "UPDATE decision SET who = 'eve' WHERE id = 3").await;
    change(&store, "DELETE FROM audit_chain").await;
    begin_chain(&store.pool).await.unwrap();
    let anew = store.verify_decisions(Some(5)).await.unwrap();
    assert_eq!(anew.fault, None);
    assert_ne!(anew.known, known.known);
}

#[tokio::test]
async fn old_entries_go_from_the_beginning_and_the_rest_stays_verifiable() {
    let (_dir, store) = store().await;
    // A clock that was set back: the entry of time 9 is older than that of time 3, and stays with it.
    for at in [1, 2, 9, 3, 10] {
        store.decide(decision(at, "ann")).await.unwrap();
    }
    store.prune(5, u64::MAX).await.unwrap();
    let found = store.verify_decisions(None).await.unwrap();
    assert_eq!((found.fault, found.anchor, found.entries), (None, 2, 3));
    store.prune(100, u64::MAX).await.unwrap();
    let found = store.verify_decisions(None).await.unwrap();
    assert_eq!(
        (found.fault, found.anchor, found.entries, found.head),
        (None, 5, 0, 5)
    );
    store.decide(decision(11, "ann")).await.unwrap();
    let found = store.verify_decisions(None).await.unwrap();
    assert_eq!((found.fault, found.entries, found.head), (None, 1, 6));
    change(&store, "DELETE FROM decision").await;
    assert!(store.verify_decisions(None).await.unwrap().fault.is_some());
}

#[tokio::test]
async fn entries_of_an_earlier_version_are_linked_when_the_store_is_opened() {
    let (dir, store) = store().await;
    change(&store, "DELETE FROM audit_chain").await;
    for _ in 0..3 {
        change(
            &store,
            "INSERT INTO decision (at, who, what, subject, restic_id, before, after) VALUES (1, 'ann', 'x', '', '', '', '')",
        )
        .await;
    }
    drop(store);
    let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
    store.begin().await.unwrap();
    store.decide(decision(2, "bob")).await.unwrap();
    let found = store.verify_decisions(None).await.unwrap();
    assert_eq!((found.fault, found.entries), (None, 4));
    change(&store, "UPDATE decision SET who = 'eve' WHERE id = 2").await;
    let fault = store.verify_decisions(None).await.unwrap().fault;
    assert_eq!(fault.map(|(id, _)| id), Some(2));
}

#[tokio::test]
async fn filters_pages_and_what_follows() {
    let (_dir, store) = five().await;
    store
        .decide(StoredDecision {
            cluster: "a".to_owned(),
            ..decision(6, "bob")
        })
        .await
        .unwrap();
    let ids = async |query: DecisionQuery| {
        let found = store.decisions(query).await.unwrap();
        found.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    let all = DecisionQuery {
        limit: 3,
        ..DecisionQuery::default()
    };
    assert_eq!(ids(all.clone()).await, [6, 5, 4]);
    let before = Some(4);
    assert_eq!(
        ids(DecisionQuery {
            before,
            ..all.clone()
        })
        .await,
        [3, 2, 1]
    );
    let after = Some(2);
    assert_eq!(ids(DecisionQuery { after, ..all.clone() }).await, [3, 4, 5]);
    let who = "bob".to_owned();
    assert_eq!(ids(DecisionQuery { who, ..all.clone() }).await, [6]);
    let cluster = "a".to_owned();
    assert_eq!(
        ids(DecisionQuery {
            cluster,
            ..all.clone()
        })
        .await,
        [6]
    );
    assert_eq!(
        ids(DecisionQuery {
            since: 5,
            ..all.clone()
        })
        .await,
        [6, 5]
    );
    let of = Some(vec!["x".to_owned()]);
    assert!(ids(DecisionQuery { of, ..all }).await.is_empty());
    assert_eq!(store.newest_decision().await.unwrap(), 6);
}
