//! Deliveries that wait. Those for one receiver of one namespace form a lane: they go out one after the other, so that a
//! newer result never arrives before an older one, and a receiver that does not answer holds up no other. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Delivery;

/// Deliveries that wait in one lane.
const LANE_MAX: usize = 64;
/// Deliveries that wait in the lanes of one namespace: one namespace does not fill the memory of all.
const NAMESPACE_MAX: usize = 256;
/// Deliveries that wait in all lanes.
const TOTAL_MAX: usize = 4096;
/// Deliveries of one namespace that are under way at the same time.
const NAMESPACE_RUNNING: usize = 4;

/// Which lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    namespace: String,
    place: String,
}

/// A delivery in its lane.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub delivery: Delivery,
    pub since: Instant,
    /// Attempts that failed.
    pub failures: u32,
    not_before: Instant,
}

struct Entry {
    lane: Lane,
    waiting: VecDeque<Waiting>,
    running: bool,
}

/// All lanes, the one that was served last at the end.
#[derive(Default)]
pub struct Lanes {
    entries: VecDeque<Entry>,
}

impl Lanes {
    /// Takes a delivery, if there is room for it.
    #[must_use]
    pub fn push(&mut self, delivery: Delivery, now: Instant) -> bool {
        let lane = Lane {
            namespace: delivery.notification.subject.key.namespace.to_string(),
            place: delivery.target.place(),
        };
        let of_namespace = self.entries.iter().filter(|e| e.lane.namespace == lane.namespace);
        let in_namespace: usize = of_namespace.map(|entry| entry.waiting.len()).sum();
        if in_namespace >= NAMESPACE_MAX || self.len() >= TOTAL_MAX {
            return false;
        }
        let waiting = Waiting {
            delivery,
            since: now,
            failures: 0,
            not_before: now,
        };
        match self.entries.iter_mut().find(|entry| entry.lane == lane) {
            Some(entry) if entry.waiting.len() >= LANE_MAX => return false,
            Some(entry) => entry.waiting.push_back(waiting),
            None => self.entries.push_back(Entry {
                lane,
                waiting: VecDeque::from([waiting]),
                running: false,
            }),
        }
        true
    }

    /// The next delivery to attempt. It stays in its lane until [`Lanes::done`] or [`Lanes::failed`].
    pub fn next(&mut self, now: Instant) -> Option<(Lane, Waiting)> {
        let running = |namespace: &str| {
            let of = self.entries.iter().filter(|e| e.running);
            of.filter(|entry| entry.lane.namespace == namespace).count()
        };
        let is_due = |entry: &Entry| {
            let head = entry.waiting.front();
            !entry.running && head.is_some_and(|head| head.not_before <= now)
        };
        let may = |entry: &&Entry| is_due(entry) && running(&entry.lane.namespace) < NAMESPACE_RUNNING;
        let at = self.entries.iter().position(|entry| may(&entry))?;
        let mut entry = self.entries.remove(at)?;
        entry.running = true;
        let next = entry.waiting.front().cloned();
        let lane = entry.lane.clone();
        self.entries.push_back(entry);
        next.map(|waiting| (lane, waiting))
    }

    /// The delivery under way in a lane is over, in one way or the other.
    pub fn done(&mut self, lane: &Lane) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.lane == *lane) {
            entry.running = false;
            entry.waiting.pop_front();
        }
        self.entries.retain(|entry| !entry.waiting.is_empty());
    }

    /// The delivery under way in a lane is attempted again after `delay`.
    pub fn failed(&mut self, lane: &Lane, delay: Duration, now: Instant) {
        let entry = self.entries.iter_mut().find(|entry| entry.lane == *lane);
        let Some(entry) = entry else { return };
        entry.running = false;
        if let Some(head) = entry.waiting.front_mut() {
            head.failures += 1;
            head.not_before = now + delay;
        }
    }

    /// Nothing is under way any more.
    pub fn reset(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.running = false);
    }

    /// When the next delivery is due that is not due yet.
    #[must_use]
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let idle = self.entries.iter().filter(|entry| !entry.running);
        let heads = idle.filter_map(|entry| entry.waiting.front());
        heads.map(|head| head.not_before).filter(|at| *at > now).min()
    }

    /// Deliveries that wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.iter().map(|entry| entry.waiting.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{delivery, webhook};

    #[test]
    fn a_receiver_gets_its_deliveries_one_after_the_other_and_others_do_not_wait_for_it() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for (url, run) in [("http://slow", "1"), ("http://slow", "2"), ("http://other", "3")] {
            assert!(lanes.push(delivery("shop", run, webhook(url)), now));
        }
        let run = |next: &Option<(Lane, Waiting)>| {
            let next = next.as_ref();
            next.map(|(_, waiting)| waiting.delivery.notification.change.run.clone())
        };
        let first = lanes.next(now);
        assert_eq!(run(&first).as_deref(), Some("1"));
        assert_eq!(run(&lanes.next(now)).as_deref(), Some("3"));
        assert_eq!(run(&lanes.next(now)), None, "its lane is under way");
        let lane = first.unwrap().0;
        lanes.failed(&lane, Duration::from_secs(10), now);
        assert_eq!(run(&lanes.next(now)), None, "2 does not overtake 1");
        assert_eq!(lanes.wake(now), Some(now + Duration::from_secs(10)));
        let again = lanes.next(now + Duration::from_secs(10));
        assert_eq!(run(&again).as_deref(), Some("1"));
        assert_eq!(again.unwrap().1.failures, 1);
        lanes.done(&lane);
        assert_eq!(run(&lanes.next(now)).as_deref(), Some("2"));
    }

    #[test]
    fn one_namespace_takes_neither_all_room_nor_all_ways() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let mut push = |namespace: &str, n: usize, url: &str| {
            lanes.push(delivery(namespace, &n.to_string(), webhook(url)), now)
        };
        let one = (0..LANE_MAX + 10)
            .filter(|n| push("shop", *n, "http://one"))
            .count();
        assert_eq!(one, LANE_MAX);
        let many = (0..NAMESPACE_MAX)
            .filter(|n| push("shop", *n, &format!("http://{n}")))
            .count();
        assert_eq!(one + many, NAMESPACE_MAX);
        assert!(push("crm", 1, "http://one"), "another namespace has room");
        let mut running = Vec::new();
        while let Some((_, waiting)) = lanes.next(now) {
            running.push(waiting.delivery.notification.subject.key.namespace.to_string());
        }
        assert_eq!(
            running.iter().filter(|namespace| *namespace == "shop").count(),
            NAMESPACE_RUNNING
        );
        assert!(running.contains(&"crm".to_owned()));
    }
}
