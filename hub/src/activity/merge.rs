//! Entries of several sources in one order, and where each source goes on. Pure.

use std::collections::VecDeque;

use proto::v1::ActivityEntry;
use serde::{Deserialize, Serialize};

use crate::Millis;

/// Where the next page of each source begins; `None` at the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// End and number.
    pub run: Option<(Millis, i64)>,
    /// Begin and place.
    pub restore: Option<(Millis, String)>,
    /// Time of the grant, restic id and token.
    pub grant: Option<(Millis, String, u64)>,
    /// Time and id.
    pub operation: Option<(Millis, String)>,
    /// Number.
    pub decision: Option<u64>,
}

impl Cursor {
    /// As it is sealed.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn parse(text: &str) -> Option<Cursor> {
        serde_json::from_str(text).ok()
    }
}

/// Place of an entry in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Run(Millis, i64),
    Restore(Millis, String),
    Grant(Millis, String, u64),
    Operation(Millis, String),
    Decision(u64),
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Item {
    pub at: Millis,
    pub place: Place,
    pub entry: ActivityEntry,
}

/// Entries of one source, newest first.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub items: VecDeque<Item>,
    /// The source has more, or may have.
    pub more: bool,
    /// Where it was looked up to: what a person may not see is not looked at again.
    pub looked: Option<Place>,
}

impl Found {
    /// Whether the next one is not known: it may be newer than those of other sources.
    fn is_open(&self) -> bool {
        self.items.is_empty() && self.more
    }
}

/// The newest of all, and where the next page begins, if there is one. A page may be short, even empty, and not the last: so
/// much is looked through for each, and the next one goes on from there.
pub fn merged(
    mut sources: Vec<Found>,
    mut cursor: Cursor,
    limit: usize,
) -> (Vec<ActivityEntry>, Option<Cursor>) {
    let mut entries = Vec::new();
    while entries.len() < limit && !sources.iter().any(Found::is_open) {
        let newest = sources.iter_mut().filter(|found| !found.items.is_empty());
        let newest = newest.max_by_key(|found| found.items.front().map(|item| item.at));
        let Some(item) = newest.and_then(|found| found.items.pop_front()) else {
            break;
        };
        cursor.pass(item.place);
        entries.push(item.entry);
    }
    let more = sources.iter().any(|found| found.more || !found.items.is_empty());
    for found in sources {
        if found.items.is_empty()
            && let Some(looked) = found.looked
        {
            cursor.pass(looked);
        }
    }
    (entries, more.then_some(cursor))
}

impl Cursor {
    fn pass(&mut self, place: Place) {
        match place {
            Place::Run(ended, id) => self.run = Some((ended, id)),
            Place::Restore(began, of) => self.restore = Some((began, of)),
            Place::Grant(granted, id, token) => self.grant = Some((granted, id, token)),
            Place::Operation(created, id) => self.operation = Some((created, id)),
            Place::Decision(id) => self.decision = Some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(times: &[Millis]) -> Found {
        let item = |at: &Millis| Item {
            at: *at,
            place: Place::Decision(at.unsigned_abs()),
            entry: ActivityEntry {
                what: format!("d{at}"),
                ..ActivityEntry::default()
            },
        };
        Found {
            items: times.iter().map(item).collect(),
            ..Found::default()
        }
    }

    fn runs(times: &[Millis]) -> Found {
        let item = |at: &Millis| Item {
            at: *at,
            place: Place::Run(*at, 0),
            entry: ActivityEntry {
                what: format!("r{at}"),
                ..ActivityEntry::default()
            },
        };
        Found {
            items: times.iter().map(item).collect(),
            ..Found::default()
        }
    }

    #[test]
    fn pages_of_all_sources_hold_each_entry_once_in_order() {
        let (d, r) = (vec![90, 50, 20, 10], vec![80, 70, 60, 20, 5]);
        let (mut cursor, mut seen) = (Cursor::default(), Vec::new());
        loop {
            let rest = |all: &[Millis], before: Option<Millis>| -> Vec<Millis> {
                all.iter()
                    .copied()
                    .filter(|at| before.is_none_or(|before| *at < before))
                    .collect()
            };
            let before = cursor.decision.map(|id| id.cast_signed());
            let sources = vec![
                decisions(&rest(&d, before)),
                runs(&rest(&r, cursor.run.map(|(ended, _)| ended))),
            ];
            let (entries, next) = merged(sources, cursor, 2);
            seen.extend(entries.into_iter().map(|entry| entry.what));
            match next {
                Some(next) => cursor = Cursor::parse(&next.text()).unwrap(),
                None => break,
            }
        }
        let first: Vec<&str> = seen.iter().map(String::as_str).take(5).collect();
        assert_eq!(first, ["d90", "r80", "r70", "r60", "d50"]);
        assert_eq!(seen.len(), d.len() + r.len());
        assert_eq!(Cursor::parse("zz"), None);
    }

    #[test]
    fn what_may_not_be_seen_is_not_looked_at_again() {
        let hidden = Found {
            more: true,
            looked: Some(Place::Decision(7)),
            ..Found::default()
        };
        let (entries, next) = merged(vec![hidden.clone()], Cursor::default(), 5);
        assert_eq!((entries.len(), next.unwrap().decision), (0, Some(7)));
        // What comes next of it may be newer than all runs: they wait for it.
        let (entries, next) = merged(vec![hidden, runs(&[6, 5])], Cursor::default(), 5);
        let next = next.unwrap();
        assert_eq!((entries.len(), next.decision, next.run), (0, Some(7), None));
    }

    #[test]
    fn a_source_that_runs_dry_in_the_middle_holds_the_others_up() {
        let open = Found {
            more: true,
            looked: Some(Place::Decision(40)),
            ..decisions(&[90])
        };
        let (entries, next) = merged(vec![open, runs(&[95, 80])], Cursor::default(), 5);
        let whats: Vec<String> = entries.into_iter().map(|entry| entry.what).collect();
        let next = next.unwrap();
        assert_eq!(whats, ["r95", "d90"]);
        assert_eq!((next.decision, next.run), (Some(40), Some((95, 0))));
    }
}
