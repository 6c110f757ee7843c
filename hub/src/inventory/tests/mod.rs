mod bounds;
mod rivals;

use prost::Message as _;
use proto::v1::object_state::Body;
use proto::v1::{BackupState, ObjectState, PolicyState, RepositoryState, RepositoryStatistics, row};

use super::*;
use crate::rows;
use crate::seen::Seen;
use crate::store::StoredDecision;
use crate::store::replaced::Replaced;

const LIMITS: Limits = Limits {
    stale_after: 30,
    grace: 15,
    objects: 10,
    bytes: 100_000,
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

fn bound(cluster: &str, id: &str) -> crate::bindings::Binding {
    crate::bindings::Binding {
        restic_id: id.into(),
        cluster: cluster.into(),
        state: crate::bindings::State::Bound,
        how: String::new(),
        since: 0,
        proven: true,
    }
}

fn arrived(cluster: &str, object: &ObjectState) -> Arrived {
    let state = object.encode_to_vec();
    Arrived {
        held: Held::new(&name(cluster), &object.uid, &state, None, 0),
        state: state.into(),
    }
}

fn change(objects: &[ObjectState], whole: bool) -> Change {
    Change {
        upserts: objects.iter().map(|object| arrived("a", object)).collect(),
        whole,
        ..Change::default()
    }
}

fn introduction(uid: &str, incarnation: &str) -> Introduction {
    Introduction {
        facts: Facts {
            cluster_uid: uid.to_owned(),
            ..Facts::default()
        },
        incarnation: incarnation.to_owned(),
        ..Introduction::default()
    }
}

/// A cluster that has reported everything.
fn told(inventory: &mut Inventory, cluster: &str, session: u64, objects: Vec<ObjectState>, now: Millis) {
    let at = name(cluster);
    inventory
        .attach(&at, session, Introduction::default(), now.into())
        .unwrap();
    let change = Change {
        upserts: objects.iter().map(|object| arrived(cluster, object)).collect(),
        whole: true,
        ..Change::default()
    };
    inventory.apply(&at, session, change, now.into()).unwrap();
}

#[test]
fn a_repository_is_meant_by_what_is_shown_of_it_by_its_id_or_by_one_of_its_resources() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let ids = ["a", "b"].map(|digit| digit.repeat(64));
    let named = |uid: &str, id: &str, namespace: &str, name: &str| ObjectState {
        namespace: namespace.into(),
        name: name.into(),
        ..repository(uid, id, "s3:x", 1, 1)
    };
    // Both have the name that many give; the first is shown as "left", the other as "nas".
    told(
        &mut inventory,
        "a",
        1,
        vec![
            named("u1", &ids[0], "shop", "left"),
            named("u2", &ids[0], "web", "left"),
            named("u3", &ids[0], "ops", "nas"),
            named("u4", &ids[1], "crm", "nas"),
            named("u5", &ids[1], "crm", "other"),
            named("u6", &ids[0], "web", "other"),
        ],
        0,
    );
    inventory.bind(ids.iter().map(|id| bound("a", id)).collect(), Vec::new());
    let seen = Seen::whole(&inventory);
    let further: Arc<str> = "aaaa1".into();
    let meant = |text: &str| {
        let found = crate::named::repositories(seen, std::iter::once(&further), text);
        let keys = found.iter().map(|(key, _)| &key[..1]);
        keys.collect::<Vec<_>>().join("")
    };
    for (text, keys) in [
        (ids[0].as_str(), "a"),
        ("aaaaa", "a"),
        // Its beginning is that of two.
        ("aaaa", "aa"),
        ("aaaa1", "a"),
        ("aaa", ""),
        ("left", "a"),
        ("nas", "b"),
        ("other", "ab"),
        ("crm/nas", "b"),
        ("ops/nas", "a"),
        ("a/ops/nas", "a"),
        ("b/ops/nas", ""),
        ("ps/nas", ""),
        ("as", ""),
        ("", ""),
    ] {
        assert_eq!(meant(text), keys, "{text}");
    }
}

#[test]
fn one_repository_under_two_urls_is_one_row_with_the_newest_figures() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
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
    let both = ["a", "b"].map(|cluster| bound(cluster, &id));
    inventory.bind(both.to_vec(), Vec::new());
    let Some(row::Body::Repository(row)) = rows::repository(Seen::whole(&inventory), &id).unwrap().body
    else {
        panic!()
    };
    assert_eq!(row.clusters, ["a", "b"]);
    assert_eq!(
        (row.statistics.unwrap().stored_bytes, row.statistics_from.as_str()),
        (200, "b")
    );
    assert_eq!((row.backups, row.state.as_str()), (1, "ready"));
    assert!(
        rows::repository(Seen::whole(&inventory), "unknown/b/ns/new").is_some(),
        "a row of its own until its id is known"
    );
}

#[test]
fn maintenance_waits_for_a_backup_whose_pod_does_not_run_yet() {
    let (id, mut inventory) = ("a".repeat(64), Inventory::new(LIMITS, 0, 0.into()));
    inventory.bind(vec![bound("a", &id)], Vec::new());
    let under_way = |under_way| {
        let mut object = backup("b", 1);
        if let Some(Body::Backup(body)) = &mut object.body {
            body.restic_id.clone_from(&id);
            body.under_way = under_way;
        }
        object
    };
    told(&mut inventory, "a", 1, vec![under_way(true)], 0);
    assert!(inventory.is_backing_up(&id));
    told(&mut inventory, "a", 1, vec![under_way(false)], 1);
    assert!(!inventory.is_backing_up(&id));
}

#[test]
fn silence_turns_rows_stale_and_a_new_session_turns_them_fresh() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let id = "f".repeat(64);
    told(&mut inventory, "a", 1, vec![repository("u1", &id, "x", 1, 1)], 0);
    inventory.detach(&name("a"), 1, 5.into());
    inventory.advance(19.into());
    assert!(!inventory.fresh("a").stale, "within the grace");
    let before = inventory.revision();
    inventory.advance(20.into());
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
fn a_session_that_paused_is_fresh_again_when_it_is_heard_and_not_when_its_report_is_due() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let id = "f".repeat(64);
    told(&mut inventory, "a", 1, vec![repository("u1", &id, "x", 1, 1)], 0);
    let late = LIMITS.stale_after + 1;
    inventory.advance(late.into());
    assert!(inventory.fresh("a").stale);
    let before = inventory.revision();
    inventory.hear(&name("a"), 1, (late + 1).into()).unwrap();
    assert!(!inventory.fresh("a").stale, "a heartbeat is enough");
    let touched = inventory
        .changes()
        .since(before, Collection::Repositories)
        .unwrap();
    assert!(touched.contains(id.as_str()), "and watchers are told");
    inventory.advance((late + 1 + LIMITS.stale_after).into());
    assert!(inventory.fresh("a").stale, "and it can fall silent again");
    // One whose report is missing is heard, and known no better.
    inventory
        .doubt(&name("a"), 1, (late + 2 + LIMITS.stale_after).into())
        .unwrap();
    let later = late + 3 + LIMITS.stale_after + LIMITS.grace;
    inventory.hear(&name("a"), 1, later.into()).unwrap();
    inventory.advance(later.into());
    assert!(inventory.fresh("a").stale);
}

#[test]
fn a_recreated_resource_takes_the_place_of_its_namesake() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    told(&mut inventory, "a", 1, vec![backup("old", 2)], 0);
    inventory
        .apply(&name("a"), 1, change(&[backup("new", 1)], false), 0.into())
        .unwrap();
    assert_eq!(inventory.index().backup_count(), 1);
    assert_eq!(&*inventory.index().backup("a/ns/orders").unwrap().uid, "new");
    assert_eq!(inventory.holdings("a").0, 1);
}

#[test]
fn the_row_of_a_policy_changes_when_its_next_run_has_come_and_not_before() {
    const HOUR: Millis = 3_600_000;
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let policy = PolicyState {
        schedule: "0 * * * *".to_owned(),
        ..PolicyState::default()
    };
    let object = ObjectState {
        body: Some(Body::Policy(policy)),
        ..backup("p", 1)
    };
    told(&mut inventory, "a", 1, vec![object], 0);
    let mut before = inventory.revision();
    let mut moved = |wall: Millis| {
        inventory.advance(Moment { wall, steady: 1 });
        let touched = inventory.changes().since(before, Collection::Policies).unwrap();
        before = inventory.revision();
        let next = crate::policies::next_run(inventory.index().policy("a/ns/orders").unwrap(), wall);
        (touched.len(), next.unwrap() / HOUR)
    };
    assert_eq!(moved(HOUR - 1), (0, 1));
    assert_eq!(moved(HOUR), (1, 2));
    assert_eq!(moved(HOUR + 1), (0, 2));
    assert_eq!(moved(5 * HOUR), (1, 6), "also after a pause");
    assert_eq!(moved(6 * HOUR), (1, 7));
}

#[test]
fn a_clock_that_is_set_forward_makes_nothing_stale() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    told(&mut inventory, "a", 1, vec![], 0);
    inventory.advance(Moment {
        wall: 1_000_000,
        steady: 5,
    });
    assert!(!inventory.fresh("a").stale);
}

#[test]
fn a_forgotten_cluster_leaves_nothing_behind() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let a = name("a");
    told(&mut inventory, "a", 1, vec![backup("b", 1)], 0);
    assert!(!inventory.begin_forget(&a), "it is connected");
    inventory.detach(&a, 1, 1.into());
    assert!(inventory.begin_forget(&a));
    let refused = inventory.attach(&a, 2, Introduction::default(), 2.into());
    assert!(matches!(refused, Err(Refused::Forgotten { .. })));
    inventory.end_forget(&a, true);
    assert!(inventory.member("a").is_none() && inventory.index().backup_count() == 0);
    let (unsaved, _) = inventory.take_unsaved(usize::MAX);
    assert!(unsaved.members.is_empty() && unsaved.objects.is_empty());
}

/// The first whole inventory of a new cluster under the name of a lost one.
#[test]
fn what_a_cluster_had_is_set_aside_before_another_one_under_its_name_takes_its_place() {
    let says = |uid: &str, incarnation: &str| Introduction {
        facts: Facts {
            cluster_uid: uid.to_owned(),
            ..Facts::default()
        },
        incarnation: incarnation.to_owned(),
        ..Introduction::default()
    };
    let whole = |objects: &[ObjectState]| change(objects, true);
    let (a, mut inventory) = (name("a"), Inventory::new(LIMITS, 0, 0.into()));
    inventory.attach(&a, 1, says("lost", "1"), 0.into()).unwrap();
    inventory
        .apply(&a, 1, whole(&[backup("b1", 1)]), 0.into())
        .unwrap();
    inventory.attach(&a, 2, says("lost", "2"), 1.into()).unwrap();
    inventory
        .apply(&a, 2, whole(&[backup("b2", 1)]), 1.into())
        .unwrap();
    inventory.detach(&a, 2, 2.into());
    let written = inventory.take_unsaved(usize::MAX).0;
    assert!(written.replaced.is_empty(), "it is the same cluster");

    // Silent for long, and then another one.
    let late = 1 + LIMITS.stale_after + 50;
    let decision = StoredDecision::default();
    inventory.accept(&a, "new", decision).unwrap();
    let origin = |inventory: &Inventory| inventory.member("a").unwrap().origin();
    let lost = Origin {
        uid: "lost".to_owned(),
        whole: true,
        heard: Some(1),
    };
    assert_eq!(origin(&inventory), lost, "accepted, and nothing reported yet");
    inventory.attach(&a, 3, says("new", "1"), late.into()).unwrap();
    assert_eq!(origin(&inventory), lost, "connected, and nothing reported yet");
    inventory.apply(&a, 3, whole(&[]), late.into()).unwrap();
    assert_eq!(origin(&inventory).uid, "new");
    let written = inventory.take_unsaved(usize::MAX).0;
    let replaced: Vec<_> = written.replaced.iter().map(|one| one.of.clone()).collect();
    let wanted = Replaced {
        cluster: "a".to_owned(),
        cluster_uid: "lost".to_owned(),
        at: late,
        last_heard: Some(1),
        complete: true,
    };
    assert_eq!(replaced, [wanted]);

    // It had nothing, so nothing takes the place of what is kept.
    inventory.detach(&a, 3, late.into());
    let later = late + LIMITS.stale_after + 1;
    inventory.accept(&a, "third", StoredDecision::default()).unwrap();
    inventory.attach(&a, 4, says("third", "1"), later.into()).unwrap();
    inventory
        .apply(&a, 4, whole(&[backup("b3", 1)]), later.into())
        .unwrap();
    assert!(inventory.take_unsaved(usize::MAX).0.replaced.is_empty());
}
