use proto::v1::object_state::Body;
use proto::v1::{BackupState, ObjectState, RepositoryState, RepositoryStatistics, row};

use super::*;
use crate::rows;

const LIMITS: Limits = Limits {
    stale_after: 30,
    grace: 15,
    objects: 10,
};

fn name(text: &str) -> Arc<str> {
    text.into()
}

fn repository(uid: &str, id: &str, url: &str, as_of: i64, stored_bytes: u64) -> ObjectState {
    let statistics = RepositoryStatistics {
        as_of: Some(proto::time::from_unix(as_of)),
        stored_bytes,
        ..Default::default()
    };
    let body = RepositoryState {
        url: url.to_owned(),
        restic_id: id.to_owned(),
        statistics: Some(statistics),
        ..Default::default()
    };
    let ready = proto::v1::Condition {
        r#type: "Ready".into(),
        status: "True".into(),
        ..Default::default()
    };
    ObjectState {
        uid: uid.to_owned(),
        namespace: "ns".into(),
        name: "nas".into(),
        conditions: vec![ready],
        body: Some(Body::Repository(body)),
        ..ObjectState::default()
    }
}

fn backup(uid: &str, created: i64) -> ObjectState {
    ObjectState {
        uid: uid.to_owned(),
        namespace: "ns".into(),
        name: "orders".into(),
        created: Some(proto::time::from_unix(created)),
        body: Some(Body::Backup(BackupState {
            repository_name: "nas".into(),
            schedule: "@daily".into(),
            ..Default::default()
        })),
        ..ObjectState::default()
    }
}

/// A cluster that has told everything.
fn told(inventory: &mut Inventory, cluster: &str, session: u64, objects: Vec<ObjectState>, now: Millis) {
    let cluster = name(cluster);
    inventory
        .attach(&cluster, session, Facts::default(), now)
        .unwrap();
    let only = objects.iter().map(|object| object.uid.clone()).collect();
    let upserts = objects
        .into_iter()
        .map(|object| Held::new(&cluster, object, None, now))
        .collect();
    inventory
        .apply(
            &cluster,
            session,
            Change {
                upserts,
                only: Some(only),
                ..Change::default()
            },
        )
        .unwrap();
    inventory.confirm(&cluster, session, now).unwrap();
}

#[test]
fn one_repository_under_two_urls_is_one_row_with_the_newest_figures() {
    let mut inventory = Inventory::new(LIMITS, 0, 0);
    let id = "f".repeat(64);
    told(
        &mut inventory,
        "a",
        1,
        vec![repository("u1", &id, "s3:one", 10, 100), backup("b1", 1)],
        0,
    );
    let unknown = ObjectState {
        name: "new".into(),
        ..repository("u3", "", "s3:new", 1, 1)
    };
    told(
        &mut inventory,
        "b",
        2,
        vec![repository("u2", &id, "s3:two", 20, 200), unknown],
        0,
    );
    assert_eq!(inventory.index().repository_count(), 2);
    let Some(row::Body::Repository(row)) = rows::repository(&inventory, &id).unwrap().body else {
        panic!()
    };
    assert_eq!(row.clusters, ["a", "b"]);
    assert_eq!(
        (row.statistics.unwrap().stored_bytes, row.statistics_from.as_str()),
        (200, "b")
    );
    assert_eq!((row.backups, row.state.as_str()), (1, "ready"));
    assert!(
        rows::repository(&inventory, "unknown/b/ns/new").is_some(),
        "a row of its own until its id is known"
    );
}

#[test]
fn silence_turns_rows_stale_and_a_new_session_turns_them_fresh() {
    let mut inventory = Inventory::new(LIMITS, 0, 0);
    let id = "f".repeat(64);
    told(&mut inventory, "a", 1, vec![repository("u1", &id, "x", 1, 1)], 0);
    inventory.detach(&name("a"), 1, 5);
    inventory.advance(19);
    assert!(!inventory.fresh("a").stale, "within the grace");
    let before = inventory.revision();
    inventory.advance(20);
    assert!(inventory.fresh("a").stale);
    let touched = inventory
        .changes()
        .since(before, Collection::Repositories)
        .unwrap();
    assert!(touched.contains(id.as_str()));
    told(&mut inventory, "a", 2, vec![repository("u1", &id, "x", 1, 1)], 25);
    assert!(!inventory.fresh("a").stale);
}

#[test]
fn the_newest_session_wins_and_the_older_one_is_not_heard() {
    let mut inventory = Inventory::new(LIMITS, 0, 0);
    told(&mut inventory, "a", 1, vec![], 0);
    told(&mut inventory, "a", 2, vec![backup("b1", 1)], 1);
    let late = Change {
        gone: vec!["b1".into()],
        ..Change::default()
    };
    assert!(matches!(
        inventory.apply(&name("a"), 1, late),
        Err(Refused::Superseded { .. })
    ));
    inventory.detach(&name("a"), 1, 2);
    assert!(inventory.member("a").unwrap().live.is_some());
    assert_eq!(inventory.index().backup_count(), 1);
}

#[test]
fn a_recreated_resource_takes_the_place_of_its_namesake() {
    let mut inventory = Inventory::new(LIMITS, 0, 0);
    told(&mut inventory, "a", 1, vec![backup("old", 1)], 0);
    let new = Held::new(&name("a"), backup("new", 2), None, 0);
    inventory
        .apply(
            &name("a"),
            1,
            Change {
                upserts: vec![new],
                ..Change::default()
            },
        )
        .unwrap();
    let stale_echo = Held::new(&name("a"), backup("old", 1), None, 0);
    inventory
        .apply(
            &name("a"),
            1,
            Change {
                upserts: vec![stale_echo],
                ..Change::default()
            },
        )
        .unwrap();
    assert_eq!(inventory.index().backup_count(), 1);
    assert_eq!(inventory.index().backup("a/ns/orders").unwrap().object.uid, "new");
}

#[test]
fn a_cluster_that_reports_too_much_is_refused_whole() {
    let mut inventory = Inventory::new(LIMITS, 0, 0);
    told(&mut inventory, "a", 1, vec![], 0);
    let many = (0..11)
        .map(|n| Held::new(&name("a"), repository(&format!("u{n}"), "", "x", 1, 1), None, 0))
        .collect();
    let change = Change {
        upserts: many,
        ..Change::default()
    };
    assert!(matches!(
        inventory.apply(&name("a"), 1, change),
        Err(Refused::TooMany { limit: 10, .. })
    ));
    assert!(inventory.member("a").unwrap().objects.is_empty());
}
