//! When a policy whose cluster is away is run by another cluster, and by which. Pure: no clock, no store, no network.

use std::sync::Arc;

use proto::v1::MaintenanceWindow;

use crate::Millis;
use crate::collect::decide::rank;
use crate::inventory::Held;
use crate::schedule;

/// How long a run that was asked for may wait to begin.
pub const BEGIN_WITHIN: Millis = 3_600_000;
/// So few clusters that are away are each away for reasons of their own.
const FEW: usize = 3;

/// A policy in force whose cluster is away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// `<cluster>/<namespace>/<name>`.
    pub source: String,
    pub schedule: String,
    pub timezone: String,
    pub window: Option<MaintenanceWindow>,
    /// When it last ran as far as its cluster has said, or was created.
    pub since: Millis,
}

/// A cluster that is bound to the repository and could carry out a run, with the ResticRepository by which it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    pub cluster: Arc<str>,
    pub namespace: String,
    pub name: String,
}

impl Candidate {
    /// A cluster by its ResticRepository.
    #[must_use]
    pub fn of(held: &Held) -> Candidate {
        Candidate {
            cluster: held.cluster.clone(),
            namespace: held.namespace().to_owned(),
            name: held.name().to_owned(),
        }
    }
}

/// A repository with policies whose clusters are away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Repository {
    /// Key of its store.
    pub id: Arc<str>,
    pub policies: Vec<Policy>,
    pub candidates: Vec<Candidate>,
}

/// A run by another cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub repository: Arc<str>,
    /// When the policy was due: there is one such run for each of these times.
    pub due: Millis,
    /// The policy.
    pub source: String,
    pub by: Candidate,
    /// When it may begin at the latest: the end of the policy's window; `None` where it has none.
    pub until: Option<Millis>,
}

/// Whether it is not known who is away: more than a few are at the same moment, and half of the fleet. Then it is rather the
/// hub that cannot be reached.
#[must_use]
pub fn is_cut_off(away: usize, clusters: usize) -> bool {
    away >= FEW && away * 2 >= clusters
}

/// The run that is due; `None` while none is, or nobody could carry it out. `ran`: when the repository last had a run of all
/// its policies, or one was last asked for. `after`: how long a policy must have been due.
#[must_use]
pub fn decide(repository: &Repository, ran: Millis, after: Millis, now: Millis) -> Option<Run> {
    let due = |policy: &Policy| {
        let since = policy.since.max(ran);
        let due = schedule::deadline(&policy.schedule, &policy.timezone, since)?.due;
        let until = match &policy.window {
            Some(window) => Some(closes(window, now)?),
            None => None,
        };
        (due.saturating_add(after) <= now).then_some((due, until))
    };
    let policies = repository.policies.iter();
    let overdue = policies.filter_map(|policy| {
        let (due, until) = due(policy)?;
        Some((due, &policy.source, until))
    });
    let (due, source, until) = overdue.min()?;
    // Another cluster each time, so that one that refuses does not keep the repository from being maintained.
    let seed = format!("{} {due}", repository.id);
    let by = repository
        .candidates
        .iter()
        .max_by_key(|candidate| rank(&seed, &candidate.cluster))?;
    Some(Run {
        repository: repository.id.clone(),
        due,
        source: source.clone(),
        by: by.clone(),
        until,
    })
}

/// When a window closes that is open.
fn closes(window: &MaintenanceWindow, now: Millis) -> Option<Millis> {
    let length = Millis::try_from(window.length_ms).unwrap_or(0);
    let horizon = now.saturating_add(BEGIN_WITHIN);
    schedule::closes((&window.schedule, &window.timezone), length, now, horizon)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTE: Millis = 60_000;
    const AFTER: Millis = 15 * MINUTE;

    fn at(text: &str) -> Millis {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    fn policy(source: &str, schedule: &str) -> Policy {
        Policy {
            source: source.to_owned(),
            schedule: schedule.to_owned(),
            since: at("2026-11-20T04:02:00Z"),
            ..Policy::default()
        }
    }

    fn repository(policies: Vec<Policy>, clusters: &[&str]) -> Repository {
        let candidate = |cluster: &&str| Candidate {
            cluster: (*cluster).into(),
            namespace: "shop".to_owned(),
            name: "nas".to_owned(),
        };
        Repository {
            id: "r".into(),
            policies,
            candidates: clusters.iter().map(candidate).collect(),
        }
    }

    #[test]
    fn a_policy_is_run_when_it_has_been_due_for_a_while_and_nothing_ran_since() {
        let one = repository(vec![policy("a/shop/nightly", "0 4 * * *")], &["b"]);
        let due = at("2026-11-21T04:00:00Z");
        let decided = |ran: Millis, now: Millis| decide(&one, ran, AFTER, now).map(|run| run.due);
        assert_eq!(decided(0, due + AFTER - 1), None);
        assert_eq!(decided(0, due + AFTER), Some(due));
        // Also when it was missed for days: one run, for the first time that was missed.
        assert_eq!(decided(0, due + 5 * 24 * 60 * MINUTE), Some(due));
        // A run of the repository since, of any cluster, has done what this one would do.
        assert_eq!(decided(due, due + AFTER), None);
        assert_eq!(decided(due + 1, due + 20 * 60 * MINUTE), None);
        let next = due + 24 * 60 * MINUTE;
        assert_eq!(decided(due + 1, next + AFTER), Some(next));
        // One before it was due has not.
        assert_eq!(decided(due - 1, due + AFTER), Some(due));
    }

    #[test]
    fn nobody_is_asked_where_nobody_could_do_it_or_the_schedule_is_not_known() {
        let now = at("2026-11-25T04:00:00Z");
        let alone = repository(vec![policy("a/shop/nightly", "0 4 * * *")], &[]);
        assert_eq!(decide(&alone, 0, AFTER, now), None);
        let unread = repository(vec![policy("a/shop/nightly", "not a schedule")], &["b"]);
        assert_eq!(decide(&unread, 0, AFTER, now), None);
        assert_eq!(decide(&repository(Vec::new(), &["b"]), 0, AFTER, now), None);
    }

    #[test]
    fn zone_and_window_of_the_policy_count() {
        let due = at("2026-11-21T03:00:00Z");
        let berlin = Policy {
            timezone: "Europe/Berlin".to_owned(),
            ..policy("a/shop/nightly", "0 4 * * *")
        };
        let found = decide(&repository(vec![berlin.clone()], &["b"]), 0, AFTER, due + AFTER);
        assert_eq!(found.map(|run| run.due), Some(due));
        let night = Policy {
            window: Some(MaintenanceWindow {
                schedule: "0 22 * * *".to_owned(),
                timezone: "Europe/Berlin".to_owned(),
                length_ms: 3_600_000,
            }),
            ..berlin.clone()
        };
        let night = repository(vec![night], &["b"]);
        assert_eq!(
            decide(&night, 0, AFTER, due + AFTER),
            None,
            "its window is closed"
        );
        let opens = at("2026-11-21T21:00:00Z");
        assert_eq!(
            decide(&night, 0, AFTER, opens).map(|run| run.due),
            Some(due),
            "when it opens"
        );
        let until = |now: Millis| decide(&night, 0, AFTER, now).and_then(|run| run.until);
        let closes = opens + 60 * MINUTE;
        assert_eq!(until(opens), Some(closes));
        assert_eq!(
            until(closes - 1),
            Some(closes),
            "it begins within its window or not at all"
        );
        let unread = Policy {
            window: Some(MaintenanceWindow::default()),
            ..berlin
        };
        assert_eq!(decide(&repository(vec![unread], &["b"]), 0, AFTER, opens), None);
    }

    #[test]
    fn of_several_policies_the_one_that_was_due_first_is_run() {
        let policies = vec![
            policy("a/shop/late", "0 6 * * *"),
            policy("c/shop/early", "0 5 * * *"),
        ];
        let run = decide(
            &repository(policies, &["b"]),
            0,
            AFTER,
            at("2026-11-21T12:00:00Z"),
        )
        .unwrap();
        assert_eq!(
            (run.source.as_str(), run.due),
            ("c/shop/early", at("2026-11-20T05:00:00Z"))
        );
        assert_eq!((&*run.by.cluster, run.by.name.as_str()), ("b", "nas"));
    }

    #[test]
    fn all_clusters_come_up_in_turn_and_the_choice_of_one_time_stays() {
        let three = repository(vec![policy("a/shop/hourly", "0 * * * *")], &["b", "c", "d"]);
        let mut chosen = BTreeSet::new();
        let mut ran = 0;
        for _ in 0..48 {
            let now = at("2026-11-25T00:00:00Z");
            let run = decide(&three, ran, AFTER, now).unwrap();
            let reversed = Repository {
                candidates: three.candidates.iter().rev().cloned().collect(),
                ..three.clone()
            };
            assert_eq!(decide(&reversed, ran, AFTER, now), Some(run.clone()));
            chosen.insert(run.by.cluster);
            ran = run.due;
        }
        assert_eq!(chosen.len(), 3);
    }

    #[test]
    fn half_of_a_fleet_that_is_away_is_not_known_to_be_away() {
        assert!(!is_cut_off(1, 2), "one of two");
        assert!(!is_cut_off(2, 2), "nobody is left to ask in any case");
        assert!(is_cut_off(3, 6) && is_cut_off(3, 3) && !is_cut_off(3, 7));
    }
}
