//! The questions of operations as they came, and those that wait outside of the queue. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::v1::{LeaseAsk, LeaseWaiting, OperationKind};

use super::grantor::{Instant, Operation};

/// Cluster and operation.
pub type Asker = (Arc<str>, Arc<str>);

/// A question, pinned to its repository.
#[derive(Clone, Debug)]
pub struct Asked {
    pub restic_id: Arc<str>,
    pub ask: LeaseAsk,
    /// When the operation first wanted the lock, by the hub's clock. The time that it waited at its spoke is in it once,
    /// however often it is asked again.
    pub since: Instant,
    /// The same, which may be before this start of the hub.
    pub made: i64,
}

/// All questions.
#[derive(Debug, Default)]
pub struct Asks {
    asked: BTreeMap<Asker, Asked>,
    /// Operations that cannot be given anything to do at the moment, and the answer that they got.
    blocked: BTreeMap<Asker, LeaseWaiting>,
}

impl Asks {
    /// A question.
    #[must_use]
    pub fn get(&self, asker: &Asker) -> Option<&Asked> {
        self.asked.get(asker)
    }

    /// Whether an operation removes left-over locks. Backups fail on them, so it waits for no place of its storage host and
    /// takes none.
    #[must_use]
    pub fn unlocks(&self, operation: &Operation) -> bool {
        let asked = self.get(&(operation.cluster.clone(), operation.id.clone()));
        asked.is_some_and(|asked| asked.ask.kind() == OperationKind::Unlock)
    }

    /// A question about this repository.
    #[must_use]
    pub fn about(&self, asker: &Asker, restic_id: &str) -> Option<&Asked> {
        self.get(asker).filter(|asked| *asked.restic_id == *restic_id)
    }

    /// How many questions a cluster has.
    #[must_use]
    pub fn count(&self, cluster: &Arc<str>) -> usize {
        let from = (cluster.clone(), Arc::<str>::from(""));
        let of_cluster = self.asked.range(from..).take_while(|((of, _), _)| of == cluster);
        of_cluster.count()
    }

    /// Takes a question in; one that is asked again keeps the time of the first.
    pub fn put(&mut self, asker: &Asker, restic_id: &Arc<str>, ask: LeaseAsk, now: Instant) {
        let since = now.saturating_sub(ask.age_ms);
        let made = signed(now).saturating_sub(signed(ask.age_ms));
        let known = self.asked.get(asker);
        let asked = Asked {
            restic_id: restic_id.clone(),
            ask,
            since: known.map_or(since, |known| known.since.min(since)),
            made: known.map_or(made, |known| known.made.min(made)),
        };
        self.asked.insert(asker.clone(), asked);
    }

    /// The operation wants nothing any more.
    pub fn remove(&mut self, asker: &Asker) {
        self.asked.remove(asker);
        self.blocked.remove(asker);
    }

    /// All that a cluster asks about a repository is asked anew.
    pub fn remove_of(&mut self, cluster: &Arc<str>, restic_id: &str) {
        let gone = |asker: &Asker, asked: &Asked| asker.0 == *cluster && *asked.restic_id == *restic_id;
        let askers: Vec<Asker> = self
            .asked
            .iter()
            .filter(|(asker, asked)| gone(asker, asked))
            .map(|(asker, _)| asker.clone())
            .collect();
        for asker in askers {
            self.remove(&asker);
        }
    }

    /// Removes questions that are not needed; those that wait outside of the queue are.
    pub fn retain(&mut self, needed: impl Fn(&Asker, &str) -> bool) {
        let blocked = &self.blocked;
        self.asked
            .retain(|asker, asked| blocked.contains_key(asker) || needed(asker, &asked.restic_id));
    }

    /// A person has rejected a plan: no question asks for it any more.
    pub fn reject(&mut self, restic_id: &str, hash: &str) {
        let about = self.asked.values_mut().filter(|a| *a.restic_id == *restic_id);
        for asked in about.filter(|asked| asked.ask.approved == hash) {
            asked.ask.approved.clear();
        }
    }

    /// The operation waits outside of the queue. Whether the answer is a new one.
    pub fn block(&mut self, asker: &Asker, answer: LeaseWaiting) -> bool {
        let before = self.blocked.insert(asker.clone(), answer.clone());
        before.as_ref() != Some(&answer)
    }

    /// It waits in the queue, or holds the lock.
    pub fn unblock(&mut self, asker: &Asker) {
        self.blocked.remove(asker);
    }

    /// Operations that wait outside of the queue.
    pub fn blocked(&self) -> impl Iterator<Item = (&Asker, &LeaseWaiting)> {
        self.blocked.iter()
    }

    /// Those for one repository, with their questions.
    pub fn blocked_at(&self, restic_id: &str) -> impl Iterator<Item = (&Asker, &Asked, &LeaseWaiting)> {
        self.blocked.iter().filter_map(move |(asker, answer)| {
            let asked = self.about(asker, restic_id)?;
            Some((asker, asked, answer))
        })
    }
}

/// A time of the hub's clock, which may be compared with one before its start.
#[must_use]
pub fn signed(time: Instant) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker() -> Asker {
        ("a".into(), "job".into())
    }

    fn ask(age_ms: u64) -> LeaseAsk {
        LeaseAsk {
            age_ms,
            approved: "hash".to_owned(),
            ..LeaseAsk::default()
        }
    }

    #[test]
    fn the_time_that_a_question_waited_is_counted_once() {
        let mut asks = Asks::default();
        asks.put(&asker(), &"r".into(), ask(100), 1_000);
        // Asked again 500 later, over a new connection: its age has grown with the time.
        asks.put(&asker(), &"r".into(), ask(600), 1_500);
        assert_eq!(asks.get(&asker()).unwrap().since, 900);
        // The hub's own repetition carries the age of the message.
        asks.put(&asker(), &"r".into(), ask(600), 2_000);
        assert_eq!(asks.get(&asker()).unwrap().since, 900);
    }

    #[test]
    fn a_question_may_be_older_than_the_hub() {
        let mut asks = Asks::default();
        asks.put(&asker(), &"r".into(), ask(5_000), 1_000);
        let asked = asks.get(&asker()).unwrap();
        assert_eq!((asked.since, asked.made), (0, -4_000));
    }

    #[test]
    fn a_rejected_plan_is_asked_for_no_more_and_others_are() {
        let mut asks = Asks::default();
        asks.put(&asker(), &"r".into(), ask(0), 0);
        for (restic_id, hash) in [("s", "hash"), ("r", "other")] {
            asks.reject(restic_id, hash);
            assert_eq!(asks.get(&asker()).unwrap().ask.approved, "hash");
        }
        asks.reject("r", "hash");
        assert_eq!(asks.get(&asker()).unwrap().ask.approved, "");
    }

    #[test]
    fn what_waits_outside_of_the_queue_is_kept_and_shown_with_its_repository() {
        let mut asks = Asks::default();
        asks.put(&asker(), &"r".into(), ask(0), 0);
        assert!(asks.block(&asker(), LeaseWaiting::default()));
        assert!(!asks.block(&asker(), LeaseWaiting::default()), "the same again");
        asks.retain(|_, _| false);
        assert_eq!(
            (asks.blocked_at("r").count(), asks.blocked_at("s").count()),
            (1, 0)
        );
        asks.unblock(&asker());
        asks.retain(|_, _| false);
        assert_eq!(asks.count(&"a".into()), 0);
    }
}
