//! A model checker on the maintenance lock: the very state machines of hub (`Grantor`), spoke (`Holder`) and pod
//! (`Switch`), with two clusters, one repository with restic's own exclusive lock, a network that loses, doubles and
//! reorders, crashes and restarts of each party, and pods that are paused, killed, and deleted by force. Each guard is
//! taken away once, to show that the check would see it.
//!
//! restic's lock is not counted on: no two pods may even try to delete at a time. It is there for what it holds up when
//! it is left behind. Not modelled: the hub's drain and queue order (property tests in the hub).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod model;
mod walk;
mod world;

use stateright::{Checker as _, Model as _};

use model::Lock;
use walk::walk;
use world::{MUTATIONS, Mutation};

#[test]
fn no_two_delete_phases_overlap_and_tokens_rise() {
    // All that can happen in the first steps, in whatever order.
    let all = Lock {
        mutation: Mutation::None,
        ticks: 7,
    };
    let all = all
        .checker()
        .threads(2)
        .target_state_count(150_000)
        .spawn_bfs()
        .join();
    eprintln!("all: {} states, depth {}", all.state_count(), all.max_depth());
    all.assert_no_discovery("no two delete phases overlap");
    all.assert_no_discovery("tokens rise for ever");
    // And far beyond, along random ways, on which runs also come to their ends.
    let met = walk(Mutation::None, 6_000);
    // Wherever a way has led: when faults are over, both runs come to their ends.
    assert_eq!(met.stuck, None);
    eprintln!("{met:?}");
    assert!(!met.overlap && !met.fallen, "{met:?}");
    assert!(met.both_end && met.end_after_crash && met.second_grant, "{met:?}");
}

#[test]
fn each_guard_taken_away_is_seen() {
    let mut missed = Vec::new();
    for mutation in MUTATIONS {
        let met = walk(mutation, 300_000);
        eprintln!("{mutation:?}: after {} steps", met.steps);
        let fallen = mutation == Mutation::TellBeforeCommit && met.fallen;
        missed.extend((!met.overlap && !fallen).then_some(mutation));
    }
    assert_eq!(missed, [], "taken away, and nothing was seen");
}
