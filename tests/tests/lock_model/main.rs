//! A model checker on the maintenance lock: the very state machines of hub (`Grantor`), operator (`Holder`) and pod
//! (`Switch`), with two clusters, two repositories, and all that can go wrong around them: hubs that crash, that are
//! two on one store, whose store is put back or fails; operators that crash, stand still and hand the leadership over;
//! streams that end, with questions that arrive late; pods that are paused, deleted by force, orphaned, and whose node
//! is lost; Jobs that are refused; policies that are pointed elsewhere; clocks that go a tenth too fast or too slow.
//! Each guard is taken away once, to show that the check would see it.
//!
//! restic's lock is not counted on: no two pods may even try to delete in one repository at a time. Not modelled: the
//! hub's drain and queue order (property tests in the hub), delays of an operator's own caches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod action;
mod guards;
mod keeper;
mod model;
mod operator;
mod pod;
mod walk;
mod world;

use stateright::{Checker as _, Model as _};

use guards::GUARDS;
use model::Lock;
use walk::walk;
use world::{Missing, Rates};

/// The budget: states that are searched one by one, and ways that are walked far beyond them. The product must pass it
/// whole, and it must be enough to find that a guard is missing.
const STATES: usize = 200_000;
const WALKS: u64 = 20_000;

fn all_first_steps(missing: Missing) -> Lock {
    Lock {
        missing,
        tick: 100,
        until: 400,
        faults: 1,
        jobs: 1,
        rates: Rates {
            hub: 11,
            operator: [10, 10],
            node: [10, 10],
        },
        coarse: true,
    }
}

fn search(missing: Missing) -> (bool, usize) {
    let checker = all_first_steps(missing)
        .checker()
        .threads(1)
        .target_state_count(STATES)
        .spawn_bfs()
        .join();
    eprintln!(
        "{} states, depth {}, {:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        checker.discoveries().keys().collect::<Vec<_>>()
    );
    let found = checker.discovery("no two delete phases").is_some();
    (found, checker.discoveries().len())
}

#[test]
fn the_product_keeps_every_promise() {
    assert_eq!(search(Missing::NONE), (false, 0));
    let met = walk(Missing::NONE, WALKS);
    eprintln!("{met:?}");
    assert!(!met.harm(), "{met:#?}");
    // The ways are worth something.
    let worth = [met.both_worked, met.second_grant, met.put_back, met.interrupted];
    assert!(worth.iter().all(|n| *n > WALKS / 50), "{worth:?}");
}

#[test]
fn two_delete_phases_are_within_reach_when_all_guards_are_gone() {
    assert!(search(Missing::ALL).0, "then the search proves nothing");
}

#[test]
fn each_guard_that_is_gone_is_found_with_the_budget_that_the_product_passes() {
    let mut missed = Vec::new();
    for guard in GUARDS {
        let met = walk(Missing::only(guard), WALKS);
        let harm = (met.overlap, met.fallen, met.misled, met.stuck.is_some());
        eprintln!("{guard:?}: {} walks, {} steps, {harm:?}", met.walks, met.steps);
        missed.extend((!met.harm()).then_some(guard));
    }
    assert_eq!(missed, [], "missing, and nothing was seen");
}
