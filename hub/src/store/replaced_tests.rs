use super::super::{Batch, HubStore as _, StoredCluster, StoredDecision, StoredObject};
use super::*;

async fn store() -> (tempfile::TempDir, Sqlite) {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
    store.begin().await.unwrap();
    (dir, store)
}

fn object(uid: &str, state: u8) -> StoredObject {
    StoredObject {
        cluster: "a".to_owned(),
        uid: uid.to_owned(),
        baseline: 0,
        state: vec![state].into(),
    }
}

fn of(uid: &str, at: Millis) -> Replaced {
    Replaced {
        cluster: "a".to_owned(),
        cluster_uid: uid.to_owned(),
        at,
        last_heard: Some(at - 1),
        complete: true,
    }
}

fn replacement(uid: &str, at: Millis) -> Replacement {
    Replacement {
        of: of(uid, at),
        unwritten: Vec::new(),
    }
}

async fn states(store: &Sqlite, of: &Replaced) -> Vec<(String, Vec<u8>)> {
    let (into, mut read) = mpsc::channel(99);
    store.replaced_states(of, into).await.unwrap();
    let mut states = Vec::new();
    while let Some(state) = read.recv().await {
        states.push(state);
    }
    states
}

#[tokio::test]
async fn what_is_stored_of_a_cluster_is_set_aside_with_what_was_not_written_before_the_new_ones_is() {
    let (_dir, store) = store().await;
    let before = Batch {
        objects: vec![object("u1", 1), object("u2", 1), object("u3", 1)],
        ..Batch::default()
    };
    store.save(before).await.unwrap();
    let unwritten = [("u1", Some(1)), ("u1", Some(2)), ("u2", None), ("u4", Some(2))];
    let unwritten = unwritten.map(|(uid, state)| (uid.to_owned(), state.map(|state| vec![state].into())));
    let batch = Batch {
        replaced: vec![Replacement {
            of: of("lost", 5),
            unwritten: unwritten.into(),
        }],
        gone: vec![
            ("a".to_owned(), "u1".to_owned()),
            ("a".to_owned(), "u3".to_owned()),
        ],
        objects: vec![object("n1", 3)],
        ..Batch::default()
    };
    store.save(batch).await.unwrap();
    assert_eq!(store.replaced("a").await.unwrap(), [of("lost", 5)]);
    let kept = |uid: &str, state: u8| (uid.to_owned(), vec![state]);
    let all = states(&store, &of("lost", 5)).await;
    assert_eq!(all, [kept("u1", 2), kept("u3", 1), kept("u4", 2)]);
    let one = store.replaced_state(&of("lost", 5), "u1").await.unwrap();
    assert_eq!(one, Some(vec![2]));
    assert!(store.replaced("b").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_last_ones_of_a_name_are_kept_for_a_while_and_go_with_the_cluster() {
    let (_dir, store) = store().await;
    let cluster = StoredCluster {
        name: "a".to_owned(),
        ..StoredCluster::default()
    };
    let batch = Batch {
        clusters: vec![cluster],
        objects: vec![object("u1", 1)],
        ..Batch::default()
    };
    store.save(batch).await.unwrap();
    let uids = async |store: &Sqlite| -> Vec<String> {
        let all = store.replaced("a").await.unwrap();
        all.into_iter().map(|one| one.cluster_uid).collect()
    };
    for n in 1..=7 {
        let batch = Batch {
            replaced: vec![replacement(&format!("uid-{n}"), n * 10)],
            ..Batch::default()
        };
        store.save(batch).await.unwrap();
    }
    assert_eq!(uids(&store).await, ["uid-7", "uid-6", "uid-5", "uid-4", "uid-3"]);
    assert!(states(&store, &of("uid-2", 20)).await.is_empty());
    assert_eq!(states(&store, &of("uid-3", 30)).await.len(), 1);
    store.forget_replaced(60).await.unwrap();
    assert_eq!(uids(&store).await, ["uid-7", "uid-6"]);
    assert!(states(&store, &of("uid-5", 50)).await.is_empty());
    store.forget("a", StoredDecision::default()).await.unwrap();
    assert!(uids(&store).await.is_empty());
    assert!(states(&store, &of("uid-7", 70)).await.is_empty());
}
