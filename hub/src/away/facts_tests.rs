//! Each guard by what a fleet has to look like for it.

use prost::Message as _;
use proto::v1::object_state::Body;
use proto::v1::{Condition, ObjectState, PolicyState, RepositoryState, RetentionPolicySpec};

use super::*;
use crate::Moment;
use crate::bindings::State;
use crate::inventory::{Facts, Introduction, testing};
use crate::store::StoredCluster;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const AFTER: Millis = 1_000;
const NOW: Millis = 2_000;

fn object(name: &str, ready: bool, body: Body) -> ObjectState {
    let condition = Condition {
        r#type: "Ready".to_owned(),
        status: if ready { "True" } else { "False" }.to_owned(),
        ..Condition::default()
    };
    ObjectState {
        uid: name.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        conditions: vec![condition],
        created: Some(proto::time::from_unix_millis(1)),
        body: Some(body),
        ..ObjectState::default()
    }
}

fn repository(ready: bool, change: impl FnOnce(&mut RepositoryState)) -> ObjectState {
    let mut body = RepositoryState {
        restic_id: ID.to_owned(),
        ..RepositoryState::default()
    };
    change(&mut body);
    object("nas", ready, Body::Repository(body))
}

fn nas() -> ObjectState {
    repository(true, |_| ())
}

fn policy(ready: bool, change: impl FnOnce(&mut PolicyState)) -> ObjectState {
    let mut body = PolicyState {
        repository_name: "nas".to_owned(),
        restic_id: ID.to_owned(),
        schedule: "0 4 * * *".to_owned(),
        timezone: Some(String::new()),
        spec: Some(RetentionPolicySpec::default()),
        ..PolicyState::default()
    };
    change(&mut body);
    object("nightly", ready, Body::Policy(body))
}

fn attach(inventory: &mut Inventory, cluster: &str, session: u64, retains: bool, at: Millis) {
    let introduction = Introduction {
        incarnation: format!("{cluster}-{session}"),
        retains,
        ..testing::introduction(cluster)
    };
    testing::attach(inventory, cluster, session, introduction, Moment::from(at));
}

/// A whole inventory of a cluster in its session.
fn tell(inventory: &mut Inventory, cluster: &str, session: u64, objects: Vec<ObjectState>) {
    testing::report(inventory, cluster, session, objects, Moment::from(2));
}

fn bind(inventory: &mut Inventory, cluster: &str, state: State, proven: bool) {
    testing::bind(inventory, ID, cluster, state, proven);
}

/// Session 1 of a is its, with the policy, and session 2 that of b. Both are connected.
fn both() -> Inventory {
    let mut inventory = testing::empty();
    for (cluster, session, objects) in [("a", 1, vec![nas(), policy(true, |_| ())]), ("b", 2, vec![nas()])] {
        attach(&mut inventory, cluster, session, true, 1);
        tell(&mut inventory, cluster, session, objects);
        bind(&mut inventory, cluster, State::Bound, true);
    }
    inventory
}

/// What is found once a has been away for long enough: policies, and clusters that could run them.
fn found(inventory: &mut Inventory) -> Vec<(Vec<String>, Vec<String>)> {
    inventory.detach(&"a".into(), 1, Moment::from(2));
    inventory.advance(Moment::from(NOW));
    let found = repositories(inventory, AFTER).into_iter();
    let names = found.map(|repository| {
        let policies = repository.policies.into_iter().map(|policy| policy.source);
        let candidates = repository.candidates.into_iter();
        let candidates = candidates.map(|by| format!("{}/{}/{}", by.cluster, by.namespace, by.name));
        (policies.collect(), candidates.collect())
    });
    names.collect()
}

fn after(change: impl FnOnce(&mut Inventory)) -> Vec<(Vec<String>, Vec<String>)> {
    let mut inventory = both();
    change(&mut inventory);
    found(&mut inventory)
}

fn with_policy(policy: ObjectState) -> Vec<(Vec<String>, Vec<String>)> {
    after(|inventory| tell(inventory, "a", 1, vec![nas(), policy]))
}

type Guard = (&'static str, fn(&mut Inventory));

#[test]
fn a_policy_of_a_cluster_that_is_away_is_found_with_who_could_run_it() {
    let whole = after(|_| ());
    let expected = (vec!["a/shop/nightly".to_owned()], vec!["b/shop/nas".to_owned()]);
    assert_eq!(whole, [expected]);
    let mut connected = both();
    connected.advance(Moment::from(NOW));
    assert_eq!(repositories(&connected, AFTER), [], "it is there");
}

#[test]
fn unknown_is_not_away() {
    let guards: [Guard; 4] = [
        ("not known as a whole", |i| {
            i.doubt(&"a".into(), 1, Moment::from(2)).unwrap();
        }),
        ("banned", |i| {
            i.ban("a", Some("stolen".to_owned()));
        }),
        ("its last report was not taken", |i| {
            i.refuse(&"a".into(), 1, "too much", Moment::from(2));
        }),
        ("not bound", |i| bind(i, "a", State::Pending, true)),
    ];
    for (guard, change) in guards {
        assert_eq!(after(change), [], "{guard}");
    }
}

#[test]
fn how_long_a_cluster_was_away_before_a_start_of_the_hub_is_not_known() {
    let before = both();
    let (objects, digest) = before.holdings("a");
    let kept = StoredCluster {
        name: "a".to_owned(),
        facts: Facts::default(),
        last_heard: Some(1),
        complete: true,
        digest: digest.to_bytes().to_vec(),
        objects,
        conflict: None,
        accepted: None,
        ..StoredCluster::default()
    };
    let states = [nas(), policy(true, |_| ())];
    let held = states.iter().map(|object| {
        let state = object.encode_to_vec();
        Held::restored(&"a".into(), &object.uid, &state, 0)
    });
    // By the wall clock it was heard of long ago.
    let start = Moment {
        wall: 1_000_000,
        steady: 5,
    };
    let mut inventory = Inventory::new(*before.limits(), 0, start);
    inventory.restore(&kept, held.collect());
    bind(&mut inventory, "a", State::Bound, true);
    let found = |inventory: &mut Inventory, steady: Millis| {
        let wall = start.wall + steady;
        inventory.advance(Moment { wall, steady });
        repositories(inventory, AFTER).len()
    };
    assert_eq!(found(&mut inventory, 5 + AFTER - 1), 0);
    assert_eq!(found(&mut inventory, 5 + AFTER), 1);
}

#[test]
fn a_fleet_of_which_half_is_away_is_cut_off() {
    let fleet = |away: u64, there: u64| {
        after(|inventory| {
            for n in 0..away + there {
                let (name, session) = (format!("x{n}"), 10 + n);
                attach(inventory, &name, session, true, 1);
                if n < away {
                    inventory.detach(&name.as_str().into(), session, Moment::from(2));
                }
            }
        })
    };
    assert_eq!(fleet(2, 2), [], "three of six");
    assert_eq!(fleet(2, 3).len(), 1, "three of seven");
}

#[test]
fn a_policy_that_would_not_run_in_its_own_cluster_is_not_run_by_another() {
    let spec =
        |change: fn(&mut RetentionPolicySpec)| policy(true, |policy| change(policy.spec.as_mut().unwrap()));
    for (guard, policy) in [
        ("not ready", policy(false, |_| ())),
        ("suspended by its owner", policy(true, |p| p.suspended = true)),
        ("suspended", spec(|spec| spec.suspended = true)),
        ("in preview", spec(|spec| spec.preview = true)),
        ("unclear", spec(|spec| spec.unclear = "x".to_owned())),
        ("cannot be decoded", policy(true, |p| p.spec = None)),
        ("of an earlier spoke", policy(true, |p| p.timezone = None)),
        ("of no known repository", policy(true, |p| p.restic_id.clear())),
        ("of another one", policy(true, |p| p.restic_id = OTHER.to_owned())),
    ] {
        assert_eq!(with_policy(policy), [], "{guard}");
    }
}

#[test]
fn the_last_run_counts_and_else_when_it_was_made() {
    let since = |policy: ObjectState| {
        let mut inventory = both();
        tell(&mut inventory, "a", 1, vec![nas(), policy]);
        inventory.detach(&"a".into(), 1, Moment::from(2));
        inventory.advance(Moment::from(NOW));
        repositories(&inventory, AFTER)[0].policies[0].since
    };
    assert_eq!(since(policy(true, |_| ())), 1);
    let ran = policy(true, |p| p.last_run = Some(proto::time::from_unix_millis(77)));
    assert_eq!(since(ran), 77);
}

#[test]
fn nobody_runs_retention_of_a_repository_that_nothing_may_be_removed_from() {
    type Change = fn(&mut RepositoryState);
    let of = |change: Change| {
        // What either of the clusters reports counts.
        ["a", "b"].map(|cluster| {
            after(|inventory| {
                let mut objects = vec![repository(true, change)];
                if cluster == "a" {
                    objects.push(policy(true, |_| ()));
                }
                tell(inventory, cluster, if cluster == "a" { 1 } else { 2 }, objects);
            })
        })
    };
    let bars: [(&str, Change); 3] = [
        ("read-only", |r| r.read_only = true),
        ("another one lies there", |r| r.changed_id = OTHER.to_owned()),
        ("damaged", |r| r.damage = "pack 1 is missing".to_owned()),
    ];
    for (guard, change) in bars {
        for found in of(change) {
            assert_eq!(found.len(), 1, "{guard}");
            assert_eq!(found[0].1, [""; 0], "{guard}");
        }
    }
}

#[test]
fn who_could_not_or_is_not_known_is_no_candidate() {
    let guards: [Guard; 9] = [
        ("its binding is not proven", |i| bind(i, "b", State::Bound, false)),
        ("its binding is pending", |i| bind(i, "b", State::Pending, true)),
        ("its repository does not open", |i| {
            tell(i, "b", 2, vec![repository(false, |_| ())]);
        }),
        ("not connected", |i| i.detach(&"b".into(), 2, Moment::from(2))),
        ("of a version that cannot", |i| {
            attach(i, "b", 3, false, 2);
            tell(i, "b", 3, vec![nas()]);
        }),
        ("not known as a whole", |i| {
            i.doubt(&"b".into(), 2, Moment::from(2)).unwrap();
        }),
        ("banned", |i| {
            i.ban("b", Some("stolen".to_owned()));
        }),
        ("its report was not taken", |i| {
            i.refuse(&"b".into(), 2, "too much", Moment::from(2));
        }),
        ("silent", |i| i.advance(Moment::from(40_000))),
    ];
    for (guard, change) in guards {
        let found = after(change);
        assert_eq!(found.len(), 1, "{guard}");
        assert_eq!(found[0].1, [""; 0], "{guard}");
    }
}

#[test]
fn a_cluster_is_a_candidate_once_however_many_resources_it_has() {
    let mut second = nas();
    (second.uid, second.name) = ("second".to_owned(), "second".to_owned());
    let found = after(|inventory| tell(inventory, "b", 2, vec![nas(), second]));
    assert_eq!(found[0].1, ["b/shop/nas"]);
}

#[test]
fn who_needs_a_policy_of_its_own_is_a_candidate_with_one_that_is_not_suspended() {
    let with = |own: Option<ObjectState>| {
        after(|inventory| {
            let introduction = Introduction {
                retains: true,
                retains_with_policy: true,
                ..testing::introduction("b")
            };
            testing::attach(inventory, "b", 3, introduction, Moment::from(2));
            tell(inventory, "b", 3, [nas()].into_iter().chain(own).collect());
        })
    };
    assert_eq!(with(None)[0].1, [""; 0], "it would refuse");
    assert_eq!(with(Some(policy(true, |_| ())))[0].1, ["b/shop/nas"]);
    let suspended = policy(true, |policy| policy.suspended = true);
    assert_eq!(with(Some(suspended))[0].1, [""; 0], "suspended");
}
