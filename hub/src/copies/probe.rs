//! A probe: whether clusters list a lock of restic that one of them holds. Pure.
//!
//! What looks like a missing lock and is none: one that was given up or removed; a listing that could not be read; a storage
//! that shows it later. So the cluster that holds it has to list it again after another one did not, the others are asked
//! some time after it is held, and a failed listing says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Milliseconds of the hub's monotonic clock.
pub type Instant = u64;

/// Clusters that have not answered for this long are left out.
const PATIENCE: Instant = 2 * 60_000;

/// What a cluster answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Listed,
    Missing,
    /// It could not be held or listed.
    Unknown,
}

/// What a probe shows for sure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The cluster that held the lock.
    pub witness: Arc<str>,
    /// Others that list it.
    pub present: BTreeSet<Arc<str>>,
    /// Others that do not, while the witness did before and after.
    pub absent: BTreeSet<Arc<str>>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Ask(Vec<Arc<str>>),
    Wait,
    /// The probe is over; `None` if it showed nothing.
    End(Option<Finding>),
}

#[derive(Clone, Debug)]
enum Phase {
    First,
    /// The witness holds it; the others are asked from then on.
    Pause(Instant),
    Others {
        open: BTreeSet<Arc<str>>,
    },
    Last,
}

/// A probe under way.
#[derive(Clone, Debug)]
pub struct Probe {
    pub witness: Arc<str>,
    /// Id of the lock; empty before it is held.
    pub lock: String,
    others: Vec<Arc<str>>,
    phase: Phase,
    since: Instant,
    margin: Instant,
    answers: BTreeMap<Arc<str>, Answer>,
}

impl Probe {
    /// A probe, and the first question: the witness is to hold a lock. The others are asked `margin` milliseconds after it does.
    #[must_use]
    pub fn begin(
        witness: Arc<str>,
        others: Vec<Arc<str>>,
        (now, margin): (Instant, Instant),
    ) -> (Probe, Step) {
        let first = Step::Ask(vec![witness.clone()]);
        let probe = Probe {
            witness,
            lock: String::new(),
            others,
            phase: Phase::First,
            since: now,
            margin,
            answers: BTreeMap::new(),
        };
        (probe, first)
    }

    /// Takes an answer in.
    pub fn answered(&mut self, cluster: &Arc<str>, answer: Answer, now: Instant) -> Step {
        let is_witness = *cluster == self.witness;
        match (&mut self.phase, answer) {
            (Phase::First, Answer::Listed) if is_witness => {
                self.phase = Phase::Pause(now + self.margin);
                self.since = now;
                self.advance(now)
            }
            (Phase::First | Phase::Last, Answer::Missing | Answer::Unknown) if is_witness => Step::End(None),
            (Phase::Last, Answer::Listed) if is_witness => Step::End(Some(self.finding())),
            (Phase::Others { open }, answer) if open.contains(cluster) => {
                open.remove(cluster);
                self.answers.insert(cluster.clone(), answer);
                self.advance(now)
            }
            _ => Step::Wait,
        }
    }

    /// Moves the time on.
    pub fn advance(&mut self, now: Instant) -> Step {
        let late = now.saturating_sub(self.since) >= PATIENCE;
        match &self.phase {
            Phase::First | Phase::Last if late => Step::End(None),
            Phase::Pause(until) if now >= *until => {
                let open = self.others.iter().cloned().collect();
                self.phase = Phase::Others { open };
                self.since = now;
                Step::Ask(self.others.clone())
            }
            Phase::Others { open } if open.is_empty() || late => {
                if !self.answers.values().any(|answer| *answer == Answer::Missing) {
                    let listed = self.answers.values().any(|answer| *answer == Answer::Listed);
                    return Step::End(listed.then(|| self.finding()));
                }
                self.phase = Phase::Last;
                self.since = now;
                Step::Ask(vec![self.witness.clone()])
            }
            _ => Step::Wait,
        }
    }

    fn finding(&self) -> Finding {
        let with = |wanted: Answer| {
            let of = self.answers.iter().filter(|(_, answer)| **answer == wanted);
            of.map(|(cluster, _)| cluster.clone()).collect()
        };
        Finding {
            witness: self.witness.clone(),
            present: with(Answer::Listed),
            absent: with(Answer::Missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<Arc<str>> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    fn probe() -> Probe {
        let (mut probe, first) = Probe::begin("a".into(), names(&["b", "c"]), (0, 100));
        assert_eq!(first, Step::Ask(names(&["a"])));
        assert_eq!(probe.answered(&"a".into(), Answer::Listed, 10), Step::Wait);
        assert_eq!(probe.advance(109), Step::Wait, "storage may show it later");
        assert_eq!(probe.advance(110), Step::Ask(names(&["b", "c"])));
        probe
    }

    #[test]
    fn a_lock_that_is_missing_while_its_holder_lists_it_shows_another_store() {
        let mut probe = probe();
        assert_eq!(probe.answered(&"b".into(), Answer::Missing, 120), Step::Wait);
        let last = probe.answered(&"c".into(), Answer::Listed, 130);
        assert_eq!(last, Step::Ask(names(&["a"])));
        let Step::End(Some(found)) = probe.answered(&"a".into(), Answer::Listed, 140) else {
            panic!("no finding")
        };
        assert_eq!(found.absent, names(&["b"]).into_iter().collect());
        assert_eq!(found.present, names(&["c"]).into_iter().collect());
    }

    #[test]
    fn one_that_was_given_up_meanwhile_or_could_not_be_listed_shows_nothing() {
        for end in [Answer::Missing, Answer::Unknown] {
            let mut given_up = probe();
            given_up.answered(&"b".into(), Answer::Missing, 120);
            given_up.answered(&"c".into(), Answer::Missing, 130);
            assert_eq!(
                given_up.answered(&"a".into(), end, 140),
                Step::End(None),
                "{end:?}"
            );
            let (mut before, _) = Probe::begin("a".into(), names(&["b"]), (0, 100));
            assert_eq!(before.answered(&"a".into(), end, 10), Step::End(None), "{end:?}");
        }
        let mut unknown = probe();
        unknown.answered(&"b".into(), Answer::Unknown, 120);
        assert_eq!(
            unknown.answered(&"c".into(), Answer::Unknown, 130),
            Step::End(None)
        );
    }

    #[test]
    fn who_does_not_answer_is_left_out() {
        let mut quiet = probe();
        assert_eq!(quiet.answered(&"b".into(), Answer::Listed, 120), Step::Wait);
        assert_eq!(
            quiet.answered(&"x".into(), Answer::Missing, 120),
            Step::Wait,
            "was not asked"
        );
        let Step::End(Some(found)) = quiet.advance(110 + PATIENCE) else {
            panic!("no finding")
        };
        assert_eq!((found.present.len(), found.absent.len()), (1, 0));
        let (mut silent, _) = Probe::begin("a".into(), names(&["b"]), (0, 100));
        assert_eq!(silent.advance(PATIENCE), Step::End(None));
    }
}
