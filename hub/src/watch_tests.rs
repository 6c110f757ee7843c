//! What a viewer has after a watch is what a list answers, whatever happens in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::object_state::Body as State;
use proto::v1::{
    BackupRun, BackupState, Condition, Filter, ListRequest, ObjectState, PolicyState, RepositoryState,
    RestoreState,
};

use super::*;
use crate::Moment;
use crate::inventory::{Arrived, Change, Held, Introduction, Limits};
use crate::query;

const LIMITS: Limits = Limits {
    stale_after: 30_000,
    grace: 15_000,
    objects: 1_000,
    bytes: 1 << 20,
};
const DAY: Millis = 86_400_000;

#[derive(Clone, Debug)]
enum Step {
    /// A cluster reports one of its resources.
    Put(u8, u8, u8),
    Gone(u8, u8),
    /// So many minutes pass; clusters below this number send something meanwhile.
    Wait(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3, 0u8..6, 0u8..6).prop_map(|(cluster, uid, how)| Step::Put(cluster, uid, how)),
        1 => (0u8..3, 0u8..6).prop_map(|(cluster, uid)| Step::Gone(cluster, uid)),
        1 => (1u8..200, 0u8..4).prop_map(|(minutes, heard)| Step::Wait(minutes, heard)),
    ]
}

fn object(uid: u8, how: u8) -> ObjectState {
    let body = match uid {
        0 => State::Repository(RepositoryState {
            restic_id: "a".repeat(64),
            damage: if how == 1 {
                "pack".to_owned()
            } else {
                String::new()
            },
            ..RepositoryState::default()
        }),
        1 => State::Policy(PolicyState {
            restic_id: "a".repeat(64),
            last_result: ["Applied", "Failed"][usize::from(how == 1)].to_owned(),
            ..PolicyState::default()
        }),
        2 => State::Restore(RestoreState {
            phase: ["Completed", "Failed", "InProgress"][usize::from(how % 3)].to_owned(),
            ..RestoreState::default()
        }),
        _ => State::Backup(BackupState {
            repository_name: "u0".to_owned(),
            restic_id: "a".repeat(64),
            schedule: "0 * * * *".to_owned(),
            suspended: how == 4,
            running: how == 5,
            last_run: (how > 0).then(|| BackupRun {
                finished: Some(from_unix_millis(10 * DAY)),
                result: i32::from(1 + how % 3),
                ..BackupRun::default()
            }),
            last_success: (how > 1).then(|| from_unix_millis(10 * DAY)),
            ..BackupState::default()
        }),
    };
    let ready = Condition {
        r#type: "Ready".to_owned(),
        status: if how == 3 { "False" } else { "True" }.to_owned(),
        ..Condition::default()
    };
    ObjectState {
        uid: format!("u{uid}"),
        namespace: ["x", "y"][usize::from(uid % 2)].to_owned(),
        name: format!("u{uid}"),
        created: Some(from_unix_millis(9 * DAY)),
        conditions: vec![ready],
        body: Some(body),
        ..ObjectState::default()
    }
}

fn name(cluster: u8) -> Arc<str> {
    format!("c{cluster}").into()
}

fn apply(inventory: &mut Inventory, step: &Step, now: &mut Millis) {
    let (cluster, change) = match step {
        Step::Put(cluster, uid, how) => {
            let object = object(*uid, *how);
            let state = object.encode_to_vec();
            let held = Held::new(&name(*cluster), &object.uid, &state, None, *now);
            let upserts = vec![Arrived {
                held,
                state: state.into(),
            }];
            (
                *cluster,
                Change {
                    upserts,
                    ..Change::default()
                },
            )
        }
        Step::Gone(cluster, uid) => {
            let gone = vec![format!("u{uid}")];
            (
                *cluster,
                Change {
                    gone,
                    ..Change::default()
                },
            )
        }
        Step::Wait(minutes, heard) => {
            *now += Millis::from(*minutes) * 60_000;
            for cluster in 0..*heard {
                // One that never connected has no session.
                let _ = inventory.hear(&name(cluster), 1, (*now).into());
            }
            inventory.advance((*now).into());
            return;
        }
    };
    let cluster = name(cluster);
    if inventory.member(&cluster).is_none() {
        inventory
            .attach(&cluster, 1, Introduction::default(), (*now).into())
            .unwrap();
        let whole = Change {
            whole: true,
            ..Change::default()
        };
        inventory.apply(&cluster, 1, whole, (*now).into()).unwrap();
    }
    inventory.apply(&cluster, 1, change, (*now).into()).unwrap();
}

/// What a list answers, and whether the counts of the verdict are those of the rows.
fn listed(inventory: &Inventory, collection: Collection, filter: &Filter) -> BTreeMap<String, Row> {
    let request = ListRequest {
        collection: collection.into(),
        filter: Some(filter.clone()),
        ..ListRequest::default()
    };
    let answer = query::list(Seen::whole(inventory), &request).unwrap();
    assert_eq!(answer.total, answer.rows.len() as u64);
    answer
        .rows
        .into_iter()
        .map(|row| (row.key.clone(), row))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_watch_and_a_list_have_the_same_rows(
        steps in prop::collection::vec(step(), 1..40),
        every in 1usize..6,
        filtered in 0u8..3,
    ) {
        let collections = [
            (Collection::Clusters, "stale"),
            (Collection::Repositories, "unready"),
            (Collection::Backups, "failed"),
            (Collection::Policies, "failed"),
            (Collection::Restores, "done"),
        ];
        for (collection, state) in collections {
            let mut now = 10 * DAY;
            let mut inventory = Inventory::new(LIMITS, 0, Moment::from(now));
            let filter = match filtered {
                0 => Filter::default(),
                1 => Filter { states: vec![state.to_owned()], ..Filter::default() },
                _ => Filter { text: "U4".to_owned(), ..Filter::default() },
            };
            let wanted = Wanted::new(filter.clone());
            let (mut rows, mut shown): (BTreeMap<String, Row>, Option<Shown>) = (BTreeMap::new(), None);
            for (n, step) in steps.iter().enumerate() {
                apply(&mut inventory, step, &mut now);
                if n % every != 0 && n + 1 != steps.len() {
                    continue;
                }
                let next = Shown { inventory: inventory.frozen(), sight: Sight::EVERYTHING };
                for key in touched(collection, &next, shown.as_ref()) {
                    match change(collection, &wanted, &key, &next, shown.as_ref()) {
                        Some(Body::Upsert(row)) => { rows.insert(row.key.clone(), row); }
                        Some(Body::Removed(key)) => {
                            prop_assert!(rows.remove(&key).is_some(), "{key} was never shown");
                        }
                        _ => {}
                    }
                }
                let wanted = listed(&inventory, collection, &filter);
                prop_assert_eq!(rows.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
                // The age of what is known moves on without a change.
                let states = |rows: &BTreeMap<String, Row>| rows.values().map(state_of).collect::<Vec<_>>();
                prop_assert_eq!(states(&rows), states(&wanted));
                shown = Some(next);
            }
            let counts = inventory.index().judged().total();
            prop_assert_eq!(counts.all(), inventory.index().backup_count() as u64);
        }
    }
}

fn state_of(row: &Row) -> (String, String) {
    use proto::v1::row::Body;
    match row.body.clone() {
        Some(Body::Cluster(row)) => (row.state, format!("{} {}", row.backups, row.backups_unwell)),
        Some(Body::Repository(row)) => (row.state, format!("{} {}", row.backups, row.policies)),
        Some(Body::Backup(row)) => (row.state, row.reason),
        Some(Body::Policy(row)) => (row.state, row.reason),
        Some(Body::Restore(row)) => (row.state, row.reason),
        None => (String::new(), String::new()),
    }
}
