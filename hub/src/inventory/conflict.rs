//! Two clusters under one name: a certificate that is used twice, or a copy of a cluster. Pure.
//!
//! Two signs count. The uid of kube-system changes while the cluster that had the name is still fresh: two clusters. Or an
//! incarnation (a process) that was superseded supersedes the one that did so, again and again and at once: two processes
//! that do not know of each other's lease. A change of leaders does the same at most once per life of the leader's lease.

use std::collections::{BTreeMap, VecDeque};

use crate::Millis;

/// This many returns of a superseded incarnation within the window are a conflict. Leaders cannot change that often: each
/// change takes a life of the leader's lease, 15 s.
const RETURNS: usize = 3;
const WINDOW: Millis = 30_000;
/// A claimant that was silent for this long does not exist any more.
pub const QUIET: Millis = 60 * 60_000;
/// Claimants that are remembered.
const CLAIMANTS: usize = 16;

/// Who reports under a name, lately.
#[derive(Clone, Debug, Default)]
pub struct Takeovers {
    present: String,
    superseded: String,
    returns: VecDeque<Millis>,
}

impl Takeovers {
    /// A session of an incarnation begins; `live` is whether another one was open. Whether that is one time too often.
    pub fn begins(&mut self, incarnation: &str, live: bool, now: Millis) -> bool {
        if incarnation.is_empty() || incarnation == self.present {
            return false;
        }
        let returns = live && incarnation == self.superseded;
        if live {
            self.superseded = std::mem::take(&mut self.present);
        }
        incarnation.clone_into(&mut self.present);
        if returns {
            self.returns.push_back(now);
        }
        self.returns.retain(|at| now.saturating_sub(*at) < WINDOW);
        let conflict = self.returns.len() >= RETURNS;
        if conflict {
            *self = Takeovers::default();
        }
        conflict
    }
}

/// uids that were heard of, the latest last.
#[derive(Clone, Debug, Default)]
pub struct Rivals(VecDeque<String>);

impl Rivals {
    /// A cluster with this uid has asked for the name.
    pub fn note(&mut self, uid: &str) {
        self.0.retain(|known| known != uid);
        self.0.push_back(uid.to_owned());
        while self.0.len() > CLAIMANTS {
            self.0.pop_front();
        }
    }

    /// Whether an operator may mean a cluster with this uid. While nobody has asked, and the one that has the name is away,
    /// it may be one that is still to come.
    pub fn may_be(&self, uid: &str, is_here: bool) -> bool {
        self.0.iter().any(|known| known == uid) || (self.0.is_empty() && !is_here)
    }

    /// Those that have asked, for a sentence.
    pub fn list(&self) -> String {
        self.0.iter().cloned().collect::<Vec<_>>().join(", ")
    }
}

/// A conflict that nobody has decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// In one sentence, for people.
    pub reason: String,
    /// Whether the claimants differ by the cluster's uid; else only by incarnation.
    by_uid: bool,
    since: Millis,
    /// Time of the last message of each.
    claimants: BTreeMap<String, Millis>,
}

impl Conflict {
    /// A conflict of clusters with different uids.
    #[must_use]
    pub fn of_uids(name: &str, before: &str, now_uid: &str, now: Millis) -> Conflict {
        let reason = format!(
            "two clusters report as {name}: {before} and {now_uid}; nothing of either is taken until `fleet clusters accept {name} --uid UID` names the right one"
        );
        Conflict {
            claimants: BTreeMap::from([(before.to_owned(), now), (now_uid.to_owned(), now)]),
            ..Conflict::restored(reason, now)
        }
    }

    /// A conflict of two processes in clusters with one uid.
    #[must_use]
    pub fn of_incarnations(name: &str, uid: &str, now: Millis) -> Conflict {
        let reason = format!(
            "two spokes take turns as {name}, as after a copy of the cluster: stop one, then run `fleet clusters accept {name} --uid {uid}`"
        );
        Conflict {
            by_uid: false,
            ..Conflict::restored(reason, now)
        }
    }

    /// As it was stored.
    #[must_use]
    pub fn restored(reason: String, now: Millis) -> Conflict {
        Conflict {
            reason,
            by_uid: true,
            since: now,
            claimants: BTreeMap::new(),
        }
    }

    /// A claimant connects. Whether it is the only one left.
    pub fn knock(&mut self, uid: &str, incarnation: &str, now: Millis) -> bool {
        let claimant = if self.by_uid { uid } else { incarnation };
        self.claimants.insert(claimant.to_owned(), now);
        while self.claimants.len() > CLAIMANTS {
            let oldest = self
                .claimants
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(c, _)| c.clone());
            oldest.map(|oldest| self.claimants.remove(&oldest));
        }
        let quiet = |at: Millis| now.saturating_sub(at) >= QUIET;
        let mut others = self.claimants.iter().filter(|(other, _)| **other != claimant);
        quiet(self.since) && others.all(|(_, at)| quiet(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_that_take_turns_at_once_are_a_conflict() {
        let mut takeovers = Takeovers::default();
        let turns = ["a", "b", "a", "b", "a"];
        let found: Vec<bool> = turns
            .iter()
            .zip(0..)
            .map(|(who, n)| takeovers.begins(who, n > 0, n * 2_000))
            .collect();
        assert_eq!(found, [false, false, false, false, true]);
    }

    #[test]
    fn leaders_that_change_are_none() {
        let mut takeovers = Takeovers::default();
        for n in 0..20 {
            assert!(
                !takeovers.begins(&format!("pod-{n}"), true, n * 1_000),
                "new processes"
            );
        }
        let mut takeovers = Takeovers::default();
        for n in 0..20 {
            let who = ["a", "b"][n % 2];
            let at = Millis::try_from(n).unwrap_or_default() * 15_000;
            assert!(
                !takeovers.begins(who, true, at),
                "back and forth, once per life of the leader's lease"
            );
        }
        let mut takeovers = Takeovers::default();
        for n in 0..20 {
            assert!(
                !takeovers.begins(["a", "b"][n % 2], false, 0),
                "after the other has ended"
            );
        }
    }

    #[test]
    fn a_conflict_ends_when_all_but_one_are_silent_for_long() {
        let mut conflict = Conflict::of_uids("a", "old", "new", 0);
        for minute in 1..90 {
            let at = minute * 60_000;
            assert!(!conflict.knock("new", "n", at) || at >= QUIET);
            if minute < 20 {
                assert!(!conflict.knock("old", "o", at));
            }
        }
        assert!(conflict.knock("new", "n", 19 * 60_000 + QUIET));
        let mut both = Conflict::of_uids("a", "old", "new", 0);
        assert!(!both.knock("old", "o", QUIET) || !both.knock("new", "n", QUIET + 1));
    }
}
