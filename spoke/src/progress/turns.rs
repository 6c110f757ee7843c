//! Whose log is read next. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::world::{Key, PodView};

/// The log of a pod is read this long after its start, and after it was read, at the earliest.
pub const EACH: SignedDuration = SignedDuration::from_secs(30);
/// The same for one that could not be read.
pub const FAILED: SignedDuration = SignedDuration::from_secs(300);

/// When each pod is due, by its uid.
#[derive(Debug, Default)]
pub struct Turns {
    next: HashMap<Box<str>, Timestamp>,
}

impl Turns {
    /// The pods that are due at `now`, the one that has waited longest first.
    #[must_use]
    pub fn due<'a>(&self, pods: &'a [(Key, Arc<PodView>)], now: Timestamp) -> Vec<(&'a Key, &'a PodView)> {
        let due = |pod: &PodView| {
            let first = || pod.since?.checked_add(EACH).ok();
            self.next.get(&pod.meta.uid).copied().or_else(first)
        };
        let pods = pods
            .iter()
            .filter_map(|(key, pod)| Some((due(pod)?, key, &**pod)));
        let mut pods: Vec<_> = pods.filter(|(due, ..)| *due <= now).collect();
        pods.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
        pods.into_iter().map(|(_, key, pod)| (key, pod)).collect()
    }

    /// A pod's log was asked for.
    pub fn read(&mut self, uid: &str, failed: bool, now: Timestamp) {
        let pause = if failed { FAILED } else { EACH };
        let next = now.saturating_add(pause).unwrap_or(now);
        self.next.insert(uid.into(), next);
    }

    /// Forgets all pods but these.
    pub fn keep(&mut self, uids: &HashSet<&str>) {
        self.next.retain(|uid, _| uids.contains(&**uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, since: i64) -> (Key, Arc<PodView>) {
        let mut pod = PodView {
            since: Timestamp::from_second(since).ok(),
            ..PodView::default()
        };
        pod.meta.uid = uid.into();
        (Key::new("ns", uid), Arc::new(pod))
    }

    fn due(turns: &Turns, pods: &[(Key, Arc<PodView>)], now: i64) -> Vec<String> {
        let due = turns.due(pods, Timestamp::from_second(now).unwrap());
        due.iter().map(|(key, _)| key.name.to_string()).collect()
    }

    #[test]
    fn a_short_run_is_never_read_and_a_long_one_each_half_minute() {
        let (mut turns, pods) = (Turns::default(), [pod("a", 100)]);
        assert!(due(&turns, &pods, 129).is_empty());
        assert_eq!(due(&turns, &pods, 130), ["a"]);
        turns.read("a", false, Timestamp::from_second(131).unwrap());
        assert!(due(&turns, &pods, 160).is_empty());
        assert_eq!(due(&turns, &pods, 161), ["a"]);
        turns.read("a", true, Timestamp::from_second(161).unwrap());
        assert!(
            due(&turns, &pods, 460).is_empty(),
            "a log that cannot be read is asked for less often"
        );
        assert_eq!(due(&turns, &pods, 461), ["a"]);
    }

    #[test]
    fn the_one_that_has_waited_longest_is_next() {
        let (mut turns, pods) = (Turns::default(), [pod("a", 100), pod("b", 90), pod("c", 110)]);
        assert_eq!(due(&turns, &pods, 200), ["b", "a", "c"]);
        turns.read("b", false, Timestamp::from_second(201).unwrap());
        assert_eq!(due(&turns, &pods, 240), ["a", "c", "b"]);
        turns.keep(&["a"].into());
        assert_eq!(
            due(&turns, &pods, 202),
            ["b", "a", "c"],
            "another pod under the same uid cannot be"
        );
    }
}
