//! A probe: whether clusters list a snapshot that one of them made. Pure.
//!
//! What looks like a missing snapshot and is none: one that was forgotten, tagged anew or rewritten; one that could not be
//! read; a storage that shows it later. So the cluster that made it has to list it before the others are asked and again
//! after one did not, the others are asked some time after it was first named, and an empty or failed listing says nothing.

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
    /// It could not be listed, or the listing was empty.
    Unknown,
}

/// What a probe shows for sure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The cluster that made the snapshot.
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
    /// The witness lists it; the others are asked from then on.
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
    /// Full id.
    pub snapshot: String,
    others: Vec<Arc<str>>,
    phase: Phase,
    since: Instant,
    margin: Instant,
    answers: BTreeMap<Arc<str>, Answer>,
}

impl Probe {
    /// A probe, and the first question. The others are asked `margin` milliseconds after the witness has answered.
    #[must_use]
    pub fn begin(
        witness: Arc<str>,
        snapshot: String,
        others: Vec<Arc<str>>,
        (now, margin): (Instant, Instant),
    ) -> (Probe, Step) {
        let first = Step::Ask(vec![witness.clone()]);
        let probe = Probe {
            witness,
            snapshot,
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
        let (mut probe, first) = Probe::begin("a".into(), "s".to_owned(), names(&["b", "c"]), (0, 100));
        assert_eq!(first, Step::Ask(names(&["a"])));
        assert_eq!(probe.answered(&"a".into(), Answer::Listed, 10), Step::Wait);
        assert_eq!(probe.advance(109), Step::Wait, "storage may show it later");
        assert_eq!(probe.advance(110), Step::Ask(names(&["b", "c"])));
        probe
    }

    #[test]
    fn a_snapshot_that_is_missing_between_two_listings_of_its_maker_shows_another_store() {
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
    fn one_that_was_forgotten_meanwhile_or_could_not_be_listed_shows_nothing() {
        for end in [Answer::Missing, Answer::Unknown] {
            let mut forgotten = probe();
            forgotten.answered(&"b".into(), Answer::Missing, 120);
            forgotten.answered(&"c".into(), Answer::Missing, 130);
            assert_eq!(forgotten.answered(&"a".into(), end, 140), Step::End(None), "{end:?}");
            let (mut before, _) = Probe::begin("a".into(), "s".to_owned(), names(&["b"]), (0, 100));
            assert_eq!(before.answered(&"a".into(), end, 10), Step::End(None), "{end:?}");
        }
        let mut unknown = probe();
        unknown.answered(&"b".into(), Answer::Unknown, 120);
        assert_eq!(unknown.answered(&"c".into(), Answer::Unknown, 130), Step::End(None));
    }

    #[test]
    fn who_does_not_answer_is_left_out() {
        let mut quiet = probe();
        assert_eq!(quiet.answered(&"b".into(), Answer::Listed, 120), Step::Wait);
        assert_eq!(quiet.answered(&"x".into(), Answer::Missing, 120), Step::Wait, "was not asked");
        let Step::End(Some(found)) = quiet.advance(110 + PATIENCE) else {
            panic!("no finding")
        };
        assert_eq!((found.present.len(), found.absent.len()), (1, 0));
        let (mut silent, _) = Probe::begin("a".into(), "s".to_owned(), names(&["b"]), (0, 100));
        assert_eq!(silent.advance(PATIENCE), Step::End(None));
    }
}
