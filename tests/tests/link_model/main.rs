//! Both real ends of the link: the spoke's caches, outbox and session, the hub's session, inventory and store. Messages are
//! cut at every place, either side restarts, leaders change while the old session is still open, and the spoke is one
//! version ahead. After each step what the hub calls complete is exactly one past or present state of the cluster.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod fleet;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use cluster::Kind;
use fleet::{Fleet, Mutant};

/// Walks of the product, and of each mutant.
const WALKS: u32 = 400;

#[derive(Clone, Debug)]
enum Step {
    Put(Kind, u8),
    Break(u8),
    Delete(Kind, u8),
    /// A repository has another id, or none.
    Bind(u8, Option<u8>),
    /// A replica puts its next message on the line.
    Send(u8),
    /// The hub takes one message of a replica.
    Deliver(u8),
    /// A replica takes one answer.
    Answer(u8),
    /// All that is on the way of a replica arrives, in both directions.
    Exchange(u8),
    Beat(u8),
    /// The line breaks for the replica; the hub learns of it later.
    Cut(u8),
    /// The hub learns of it.
    Seen(u8),
    Restart(u8),
    /// A replica becomes the leader. The session of the old one stays open.
    Lead(u8),
    Flush,
    RestartHub,
    Wait,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Repository),
        Just(Kind::Backup),
        Just(Kind::Policy),
        Just(Kind::Restore)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let replica = || 0u8..2;
    prop_oneof![
        9 => (kind(), 0u8..3).prop_map(|(kind, n)| Step::Put(kind, n)),
        1 => (0u8..3).prop_map(Step::Break),
        3 => (kind(), 0u8..3).prop_map(|(kind, n)| Step::Delete(kind, n)),
        2 => (0u8..2, prop::option::of(0u8..3)).prop_map(|(n, id)| Step::Bind(n, id)),
        18 => replica().prop_map(Step::Send),
        12 => replica().prop_map(Step::Deliver),
        10 => replica().prop_map(Step::Answer),
        5 => replica().prop_map(Step::Exchange),
        2 => replica().prop_map(Step::Beat),
        1 => replica().prop_map(Step::Cut),
        1 => replica().prop_map(Step::Seen),
        1 => replica().prop_map(Step::Restart),
        2 => replica().prop_map(Step::Lead),
        2 => Just(Step::Flush),
        1 => Just(Step::RestartHub),
        1 => Just(Step::Wait),
    ]
}

fn walk(steps: &[Step], ahead: bool, mutant: Mutant) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut fleet = Fleet::new(ahead, mutant);
    for step in steps {
        fleet.time += 1_000;
        match step {
            Step::Put(kind, n) => fleet.change(|cluster| cluster.put(*kind, *n)),
            Step::Break(n) => fleet.change(|cluster| cluster.break_policy(*n)),
            Step::Delete(kind, n) => fleet.change(|cluster| cluster.delete(*kind, *n)),
            Step::Bind(n, id) => fleet.change(|cluster| cluster.bind(*n, *id)),
            Step::Send(r) => fleet.send(*r),
            Step::Deliver(r) => fleet.deliver(*r),
            Step::Answer(r) => fleet.answer(*r),
            Step::Exchange(r) => fleet.exchange(*r),
            Step::Beat(r) => fleet.beat(*r),
            Step::Cut(r) => fleet.cut(*r),
            Step::Seen(r) => fleet.seen(*r),
            Step::Restart(r) => fleet.restart(*r),
            Step::Lead(r) => fleet.lead(*r),
            Step::Flush => runtime.block_on(fleet.flush()),
            Step::RestartHub => runtime.block_on(fleet.restart_hub()),
            Step::Wait => fleet.time += 31_000,
        }
        fleet
            .check()
            .map_err(|text| TestCaseError::fail(format!("{step:?}: {text}")))?;
    }
    fleet.settle().map_err(TestCaseError::fail)
}

fn walks(mutant: Mutant) -> Result<(), String> {
    let config = Config {
        cases: WALKS,
        failure_persistence: None,
        max_shrink_iters: if mutant == Mutant::None { 2_000 } else { 0 },
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (prop::collection::vec(step(), 0..240), any::<bool>());
    let result = runner.run(&strategy, |(steps, ahead)| walk(&steps, ahead, mutant));
    result.map_err(|error| error.to_string())
}

#[test]
fn the_hubs_picture_is_a_state_of_the_cluster_or_is_marked() {
    walks(Mutant::None).unwrap();
}

/// What each mend is for: without it, the same number of walks finds a picture that never was, or one that never agrees.
#[test]
fn without_any_one_of_the_mends_it_is_not() {
    for mutant in Mutant::ALL {
        let found = walks(mutant);
        assert!(found.is_err(), "{mutant:?} was not found");
    }
}

#[test]
fn a_spoke_one_version_ahead_agrees_after_one_heartbeat_and_a_restart_of_the_hub() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut fleet = Fleet::new(true, Mutant::None);
    for n in 0..3 {
        fleet.change(|cluster| cluster.put(Kind::Backup, n));
    }
    fleet.lead(0);
    fleet.exchange(0);
    fleet.beat(0);
    fleet.exchange(0);
    assert_eq!((fleet.resyncs, fleet.is_complete()), (0, true));
    runtime.block_on(fleet.flush());
    runtime.block_on(fleet.restart_hub());
    assert!(fleet.is_complete(), "as it was stored");
    fleet.lead(0);
    fleet.exchange(0);
    assert_eq!(
        (fleet.up_to_date, fleet.resyncs),
        (1, 0),
        "no inventory is needed"
    );
}

#[test]
fn a_reconnect_without_a_change_costs_less_than_two_kib() {
    let mut fleet = Fleet::new(false, Mutant::None);
    fleet.change(|cluster| cluster.put(Kind::Repository, 0));
    for n in 0..999 {
        fleet.change(|cluster| cluster.put_backup(n));
    }
    fleet.lead(0);
    fleet.exchange(0);
    let first = std::mem::take(&mut fleet.bytes);
    fleet.cut(0);
    fleet.lead(0);
    fleet.exchange(0);
    fleet.beat(0);
    fleet.exchange(0);
    assert!(fleet.is_complete());
    assert!(
        fleet.bytes < 2_048,
        "{} bytes after {first} at first",
        fleet.bytes
    );
}
