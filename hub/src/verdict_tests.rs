//! A table of the states of a fleet, each with its truth.

use super::*;

fn counts(states: &[(Health, u64)]) -> Counts {
    let mut counts = Counts::default();
    for (health, count) in states {
        (0..*count).for_each(|_| counts.add(*health));
    }
    counts
}

/// Ten clusters that report, a hub that has run for an hour.
fn fleet(states: &[(Health, u64)]) -> Facts {
    Facts {
        clusters: 10,
        running: 3_600_000,
        patience: 45_000,
        backups: counts(states),
        ..Facts::default()
    }
}

#[test]
fn every_state_of_a_fleet_has_its_truth() {
    use Health::{Failed, Late, Never, NotReady, Ok, Partial, Running, Stale, Suspended};
    let well = fleet(&[(Ok, 17)]);
    let table: Vec<(&str, Facts, &str, &str, Silence)> = vec![
        ("all well", well, "safe", "all 17 backups are well", Silence::Each),
        (
            "one alone",
            fleet(&[(Ok, 1)]),
            "safe",
            "the one backup is well",
            Silence::Each,
        ),
        (
            "some run",
            fleet(&[(Ok, 5), (Running, 1)]),
            "safe",
            "all 6 backups are well",
            Silence::Each,
        ),
        (
            "some are suspended",
            fleet(&[(Ok, 5), (Suspended, 2)]),
            "safe",
            "5 of 7 backups are well, and 2 suspended",
            Silence::Each,
        ),
        (
            "all are suspended",
            fleet(&[(Suspended, 17)]),
            "not-safe",
            "all 17 backups are suspended: nothing is backed up any more",
            Silence::Each,
        ),
        (
            "each kind of trouble",
            fleet(&[(Ok, 5), (Failed, 1), (Late, 2), (Partial, 3), (NotReady, 4)]),
            "not-safe",
            "of 15 backups: 1 failed, 2 late, 3 incomplete, 4 not ready",
            Silence::Each,
        ),
        (
            "damage, though all runs are well",
            Facts {
                unsafe_matters: 1,
                ..well
            },
            "not-safe",
            "a repository is damaged, or lacks a snapshot that was reported",
            Silence::Each,
        ),
        (
            "never ran",
            fleet(&[(Ok, 5), (Never, 1)]),
            "unknown",
            "1 of 6 backups is without a first success",
            Silence::Each,
        ),
        (
            "no backup",
            fleet(&[]),
            "unknown",
            "10 clusters connected, and no backup",
            Silence::Each,
        ),
        (
            "nothing ever connected",
            Facts {
                clusters: 0,
                ..fleet(&[])
            },
            "unknown",
            "no cluster has connected yet",
            Silence::Each,
        ),
        (
            "one is silent",
            Facts {
                stale: 1,
                at_once: 1,
                ..fleet(&[(Ok, 5), (Stale, 1)])
            },
            "unknown",
            "1 of 10 clusters is silent",
            Silence::Each,
        ),
        (
            "only stale ones",
            Facts {
                clusters: 2,
                stale: 2,
                at_once: 2,
                ..fleet(&[(Stale, 17)])
            },
            "unknown",
            "none of 2 clusters reports",
            Silence::Each,
        ),
        (
            "half of them at once",
            Facts {
                stale: 5,
                at_once: 5,
                ..fleet(&[(Ok, 5), (Stale, 5)])
            },
            "unknown",
            "5 of 10 clusters fell silent at once: look at the hub's own network, name and certificate first",
            Silence::Fleet,
        ),
        (
            "half of them, one after the other",
            Facts {
                stale: 5,
                at_once: 2,
                ..fleet(&[(Ok, 5), (Stale, 5)])
            },
            "unknown",
            "5 of 10 clusters are silent",
            Silence::Each,
        ),
        (
            "half at once beside a failure",
            Facts {
                stale: 5,
                at_once: 5,
                ..fleet(&[(Failed, 1), (Stale, 5)])
            },
            "not-safe",
            "of 6 backups: 1 failed",
            Silence::Fleet,
        ),
        (
            "just started",
            Facts {
                stale: 9,
                unheard: 9,
                at_once: 9,
                running: 12_345,
                ..fleet(&[(Ok, 1), (Stale, 9)])
            },
            "unknown",
            "the hub started 12 s ago, and 9 of 10 clusters have not reported since",
            Silence::Starting,
        ),
        (
            "just started, and something had failed before",
            Facts {
                stale: 9,
                unheard: 9,
                running: 12_345,
                ..fleet(&[(Failed, 1), (Stale, 9)])
            },
            "not-safe",
            "of 10 backups: 1 failed",
            Silence::Starting,
        ),
        (
            "started a while ago, and they have not come back",
            Facts {
                stale: 9,
                unheard: 9,
                at_once: 9,
                running: 45_000,
                ..fleet(&[(Stale, 9)])
            },
            "unknown",
            "9 of 10 clusters have not come back since the hub started: look at the hub's own network, name and certificate first",
            Silence::Fleet,
        ),
    ];
    for (name, facts, word, reason, silence) in table {
        let reason = reason.to_owned();
        assert_eq!(
            verdict(&facts),
            Verdict {
                word,
                reason,
                silence
            },
            "{name}"
        );
    }
}
