//! Which cluster collects the figures of a repository. Pure: no clock, no store, no network.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::{Millis, Moment};

/// A collector that missed so many readings is replaced.
const MISSED: Millis = 3;

/// A cluster that is bound to the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub cluster: Arc<str>,
    /// It is connected, collects when it is appointed, and can open the repository.
    pub healthy: bool,
}

/// The cluster that collects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub cluster: Arc<str>,
    pub epoch: u64,
    /// When it last reported, was appointed, or this hub began to wait for it: milliseconds of the steady clock.
    pub heard: Millis,
}

/// The cluster to appoint; `None` where it stays as it is. One that collects goes on for as long as it reports, also when
/// another one would come first by its rank. It is replaced when it is not bound any more, or has missed three readings.
#[must_use]
pub fn appoint(
    restic_id: &str,
    standing: Option<&Standing>,
    candidates: &[Candidate],
    interval: Millis,
    now: Millis,
) -> Option<Arc<str>> {
    let best = |other_than: Option<&str>| {
        let healthy = candidates.iter().filter(|candidate| candidate.healthy);
        let others = healthy.filter(|candidate| Some(&*candidate.cluster) != other_than);
        others
            .max_by_key(|candidate| rank(restic_id, &candidate.cluster))
            .map(|candidate| candidate.cluster.clone())
    };
    let Some(standing) = standing else {
        return best(None);
    };
    let bound = candidates.iter().any(|c| c.cluster == standing.cluster);
    if bound && !has_missed(standing, interval, now) {
        return None;
    }
    best(Some(&standing.cluster))
}

/// Whether a collector has missed so many readings that it is replaced.
#[must_use]
pub fn has_missed(standing: &Standing, interval: Millis, now: Millis) -> bool {
    now.saturating_sub(standing.heard) >= interval.saturating_mul(MISSED)
}

/// When a collector was heard whose figures are from `at` of the wall clock, for a hub that has just begun. One more reading
/// is waited for in any case.
#[must_use]
pub fn heard(now: Moment, interval: Millis, at: Millis) -> Millis {
    let age = now.wall.saturating_sub(at).max(0);
    now.steady - age.min(interval.saturating_mul(MISSED - 1))
}

/// Rendezvous hash: of the same clusters every hub chooses the same one, and repositories are spread over them. The highest
/// one is chosen.
pub(crate) fn rank(restic_id: &str, cluster: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(restic_id.as_bytes());
    hash.update([0]);
    hash.update(cluster.as_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const HOUR: Millis = 3_600_000;

    fn candidates(list: &[(&str, bool)]) -> Vec<Candidate> {
        let candidate = |(cluster, healthy): &(&str, bool)| Candidate {
            cluster: (*cluster).into(),
            healthy: *healthy,
        };
        list.iter().map(candidate).collect()
    }

    fn of(cluster: &str, heard: Millis) -> Standing {
        Standing {
            cluster: cluster.into(),
            epoch: 4,
            heard,
        }
    }

    #[test]
    fn a_collector_stays_while_it_reports_and_is_replaced_after_three_missed_readings() {
        let both = candidates(&[("a", true), ("b", true)]);
        let silent = candidates(&[("a", false), ("b", true)]);
        let alone = candidates(&[("a", false)]);
        let gone = candidates(&[("b", true)]);
        for (standing, candidates, now, expected) in [
            // Never moved for a better rank, a rolling update, or one reading that is late.
            (of("a", 0), &both, 1, None),
            (of("b", 0), &both, 1, None),
            (of("a", 0), &silent, HOUR, None),
            (of("a", 0), &silent, 3 * HOUR - 1, None),
            (of("a", 0), &silent, 3 * HOUR, Some("b")),
            // Connected, but it does not report: its storage, or the spoke itself.
            (of("a", 0), &both, 3 * HOUR, Some("b")),
            (of("a", HOUR), &both, 3 * HOUR, None),
            // Nobody else could do it.
            (of("a", 0), &alone, 30 * HOUR, None),
            // Not bound any more: at once.
            (of("a", 0), &gone, 1, Some("b")),
        ] {
            let chosen = appoint("r", Some(&standing), candidates, HOUR, now);
            assert_eq!(chosen.as_deref(), expected, "{standing:?} {candidates:?} {now}");
        }
    }

    #[test]
    fn only_a_healthy_cluster_is_appointed() {
        assert_eq!(appoint("r", None, &[], HOUR, 0), None);
        assert_eq!(appoint("r", None, &candidates(&[("a", false)]), HOUR, 0), None);
        let one = candidates(&[("a", false), ("b", true)]);
        assert_eq!(appoint("r", None, &one, HOUR, 0).as_deref(), Some("b"));
    }

    #[test]
    fn repositories_are_spread_and_the_choice_does_not_depend_on_the_order() {
        let three = candidates(&[("a", true), ("b", true), ("c", true)]);
        let reversed: Vec<Candidate> = three.iter().rev().cloned().collect();
        let mut counts: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for n in 0..300 {
            let id = format!("repository-{n}");
            let chosen = appoint(&id, None, &three, HOUR, 0).unwrap();
            assert_eq!(appoint(&id, None, &reversed, HOUR, 0).unwrap(), chosen);
            // Without the others the choice among the rest is the same: only what it had moves.
            let rest: Vec<Candidate> = three.iter().filter(|c| *c.cluster != *"c").cloned().collect();
            if *chosen != *"c" {
                assert_eq!(appoint(&id, None, &rest, HOUR, 0).unwrap(), chosen);
            }
            *counts.entry(chosen).or_default() += 1;
        }
        assert!(
            counts.len() == 3 && counts.values().all(|count| *count > 60),
            "{counts:?}"
        );
    }

    #[test]
    fn a_start_of_the_hub_forgives_no_more_than_one_reading() {
        let now = Moment {
            wall: 1_000_000,
            steady: 5,
        };
        assert_eq!(heard(now, 100, 1_000_000 - 150), 5 - 150);
        assert_eq!(heard(now, 100, 0), 5 - 200, "it has one interval left");
        assert_eq!(heard(now, 100, 2_000_000), 5, "a clock that was set back");
    }
}
