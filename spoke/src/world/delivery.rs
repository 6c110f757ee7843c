//! Whether the watch of a store delivers changes. An object that is not in the store does not exist only while it does.
//! Pure.

use jiff::{SignedDuration, Timestamp};

/// A request of the watch that is answered within this time leaves no gap: the API server ends every watch after two
/// minutes, and the next one resumes at the last version.
const SHORT: SignedDuration = SignedDuration::from_secs(2);

/// State of a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Every change since then was, or is being, delivered. Absent until the first list is complete and after a failure.
    since: Option<Timestamp>,
    /// When the request was sent that the API server has not answered yet.
    asked: Option<Timestamp>,
    /// A list is complete, and the watch that follows it is not accepted yet.
    listed: bool,
}

impl Delivery {
    /// Changes are delivered since `since`.
    #[must_use]
    pub fn complete(since: Timestamp) -> Delivery {
        Delivery {
            since: Some(since),
            ..Delivery::default()
        }
    }

    /// A list or a watch was requested.
    pub fn asked(&mut self, now: Timestamp) {
        self.asked.get_or_insert(now);
    }

    /// The list is complete.
    pub fn listed(&mut self) {
        self.asked = None;
        self.listed = true;
    }

    /// The API server has accepted a watch, which follows a complete list or resumes an earlier watch. After a gap the
    /// changes within it arrive in a moment.
    pub fn accepted(&mut self, now: Timestamp) {
        let asked = self.asked.take().unwrap_or(now);
        if now.duration_since(asked) > SHORT {
            self.since = None;
        }
        let gap = if self.listed { SignedDuration::ZERO } else { SHORT };
        self.since.get_or_insert(now.saturating_add(gap).unwrap_or(now));
        self.listed = false;
    }

    /// The watch failed, or lists anew.
    pub fn broke(&mut self) {
        self.since = None;
        self.listed = false;
    }

    /// Of a store that several watches fill: it lacks what one of them lacks.
    #[must_use]
    pub fn of_all(parts: &[Delivery]) -> Delivery {
        let known = parts.iter().all(|part| part.since.is_some());
        let since = parts.iter().filter_map(|part| part.since).max();
        Delivery {
            since: since.filter(|_| known),
            asked: parts.iter().filter_map(|part| part.asked).min(),
            listed: false,
        }
    }

    /// Since when the store lacks nothing; `None` if it is not known what it lacks.
    #[must_use]
    pub fn since(&self, now: Timestamp) -> Option<Timestamp> {
        let hangs = self.asked.is_some_and(|asked| now.duration_since(asked) > SHORT);
        self.since.filter(|since| *since <= now && !hangs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_store_is_unknown_until_its_first_watch_is_accepted_and_after_each_failure() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.since(at(0)), None);
        delivery.asked(at(1));
        assert_eq!(delivery.since(at(1)), None, "it lists");
        delivery.listed();
        assert_eq!(
            delivery.since(at(2)),
            None,
            "what changed since is not watched yet"
        );
        delivery.asked(at(3));
        delivery.accepted(at(3));
        assert_eq!(delivery.since(at(90)), Some(at(3)));
        delivery.broke();
        assert_eq!(delivery.since(at(91)), None);
        delivery.asked(at(92));
        delivery.accepted(at(92));
        assert_eq!(
            delivery.since(at(92)),
            None,
            "the changes in the gap are on their way"
        );
        assert_eq!(delivery.since(at(94)), Some(at(94)));
    }

    #[test]
    fn a_store_of_several_watches_lacks_what_one_of_them_lacks() {
        let (first, second) = (Delivery::complete(at(1)), Delivery::complete(at(5)));
        assert_eq!(Delivery::of_all(&[first, second]).since(at(9)), Some(at(5)));
        let unknown = Delivery::default();
        assert_eq!(Delivery::of_all(&[first, unknown]).since(at(9)), None);
        let mut hangs = first;
        hangs.asked(at(3));
        assert_eq!(Delivery::of_all(&[second, hangs]).since(at(9)), None);
    }

    #[test]
    fn a_watch_that_resumes_at_once_has_no_gap_and_one_that_hangs_has() {
        let mut delivery = Delivery::complete(at(0));
        delivery.asked(at(120));
        assert_eq!(delivery.since(at(121)), Some(at(0)));
        delivery.accepted(at(121));
        assert_eq!(delivery.since(at(200)), Some(at(0)));
        delivery.asked(at(240));
        assert_eq!(delivery.since(at(250)), None, "not answered");
        // Asked again after the first request was given up.
        delivery.asked(at(260));
        delivery.accepted(at(261));
        assert_eq!(delivery.since(at(263)), Some(at(263)));
    }
}
