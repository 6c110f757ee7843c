//! What becomes of a command. Pure: a record and an event in, the next record out.
//!
//! | state | the spoke may have begun it | ends by itself |
//! |---|---|---|
//! | Waiting | never: it is written as Sent before it is sent | when it expires |
//! | Sent, Accepted, Running | yes | only by the spoke's report, or when nothing was reported for [`LOST`] |
//! | Done, Failed, Refused, Expired, Cancelled | – | it is the end |

use crate::Millis;

/// A cluster that has not reported about a command for this long after it expired will not any more.
pub const LOST: Millis = 7 * 24 * 3_600_000;

/// Where a command stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    #[default]
    Waiting,
    Sent,
    Accepted,
    Running,
    Done,
    Failed,
    Refused,
    Expired,
    Cancelled,
}

/// All states.
pub const STATES: [State; 9] = [
    State::Waiting,
    State::Sent,
    State::Accepted,
    State::Running,
    State::Done,
    State::Failed,
    State::Refused,
    State::Expired,
    State::Cancelled,
];

impl State {
    /// Spelling in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Sent => "sent",
            State::Accepted => "accepted",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Refused => "refused",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
        }
    }

    /// The state of that spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<State> {
        STATES.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing changes any more.
    #[must_use]
    pub fn is_end(self) -> bool {
        self >= State::Done
    }
}

/// A command as the hub keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub id: String,
    pub cluster: String,
    /// fleet.v1.CommandBody
    pub body: Vec<u8>,
    pub what: String,
    pub subject: String,
    pub who: String,
    /// The person, and the id that their client chose; `None` if it chose none.
    pub request: Option<String>,
    pub created: Millis,
    pub expires: Millis,
    pub state: State,
    pub text: String,
    pub object: String,
    pub changed: Millis,
    pub ended: Option<Millis>,
    /// Who has taken it back; empty for nobody.
    pub cancelled_by: String,
    /// Repository of the resource: its restic id, and the name of its ResticRepository; empty where that is not known.
    pub restic_id: String,
    pub repository: String,
}

impl Record {
    /// Namespace of the resource.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.subject
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// How long it may still wait to begin.
    #[must_use]
    pub fn left(&self, now: Millis) -> u64 {
        u64::try_from(self.expires.saturating_sub(now)).unwrap_or_default()
    }
}

/// What happens to a command.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// It is about to be sent.
    Sending,
    /// Its cluster reports.
    Reported {
        state: State,
        text: &'a str,
        object: &'a str,
    },
    /// Time has passed.
    Time,
    /// A person takes it back.
    Cancel(&'a str),
    /// Its cluster was removed from the fleet.
    Forgotten,
}

/// The record after an event; `None` if it stays as it is.
#[must_use]
pub fn next(record: &Record, event: Event<'_>, now: Millis) -> Option<Record> {
    if record.state.is_end() {
        return None;
    }
    let waiting = record.state == State::Waiting;
    let expired = now >= record.expires;
    let end = |state, text: String| Some(at(record, state, text, now));
    match event {
        Event::Sending | Event::Time if waiting && expired => end(
            State::Expired,
            format!("cluster {} was not connected in time", record.cluster),
        ),
        Event::Sending if waiting => Some(at(record, State::Sent, String::new(), now)),
        Event::Time if !waiting && now >= record.expires.max(record.changed).saturating_add(LOST) => end(
            State::Failed,
            "its cluster has not reported for 7 days; it may have been carried out".to_owned(),
        ),
        Event::Reported { state, .. } if state < record.state.max(State::Accepted) => None,
        Event::Reported { state, text, object } => {
            let mut next = at(record, state, text.to_owned(), now);
            if !object.is_empty() {
                object.clone_into(&mut next.object);
            }
            let same = (next.state, &next.text, &next.object) == (record.state, &record.text, &record.object);
            (!same).then_some(next)
        }
        Event::Cancel(who) if record.cancelled_by.is_empty() => {
            let mut next = match waiting {
                true => at(record, State::Cancelled, "it was not sent".to_owned(), now),
                false => record.clone(),
            };
            who.clone_into(&mut next.cancelled_by);
            Some(next)
        }
        Event::Forgotten if waiting => end(
            State::Cancelled,
            "its cluster was removed from the fleet".to_owned(),
        ),
        Event::Forgotten => end(
            State::Failed,
            "its cluster was removed from the fleet; it may have been carried out".to_owned(),
        ),
        Event::Sending | Event::Time | Event::Cancel(_) => None,
    }
}

fn at(record: &Record, state: State, text: String, now: Millis) -> Record {
    Record {
        state,
        text,
        changed: now,
        ended: state.is_end().then_some(now),
        ..record.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: State) -> Record {
        Record {
            id: "1".to_owned(),
            cluster: "a".to_owned(),
            expires: 100,
            state,
            ..Record::default()
        }
    }

    fn reported(state: State) -> Event<'static> {
        Event::Reported {
            state,
            text: "t",
            object: "",
        }
    }

    #[test]
    fn the_whole_table_before_and_after_expiry() {
        use State::{Accepted, Cancelled, Done, Expired, Failed, Running, Sent, Waiting};
        let table: [(State, Event<'_>, Millis, Option<State>); 26] = [
            (Waiting, Event::Sending, 99, Some(Sent)),
            (Waiting, Event::Sending, 100, Some(Expired)),
            (Waiting, Event::Time, 99, None),
            (Waiting, Event::Time, 100, Some(Expired)),
            (Waiting, Event::Cancel("ann"), 1, Some(Cancelled)),
            (Waiting, Event::Forgotten, 1, Some(Cancelled)),
            // A store that was restored from a copy may be behind its cluster.
            (Waiting, reported(Done), 1, Some(Done)),
            (Waiting, reported(Waiting), 1, None),
            (Waiting, reported(Sent), 1, None),
            (Sent, Event::Sending, 200, None),
            (Sent, Event::Time, 200, None),
            (Sent, Event::Time, 100 + LOST, Some(Failed)),
            (Sent, Event::Cancel("ann"), 1, Some(Sent)),
            (Sent, Event::Forgotten, 1, Some(Failed)),
            (Sent, reported(Accepted), 1, Some(Accepted)),
            (Sent, reported(Expired), 200, Some(Expired)),
            (Accepted, reported(Running), 1, Some(Running)),
            (Accepted, reported(Cancelled), 1, Some(Cancelled)),
            (Running, reported(Accepted), 1, None),
            (Running, reported(Failed), 1, Some(Failed)),
            (Running, Event::Time, 100 + LOST - 1, None),
            (Done, reported(Failed), 1, None),
            (Done, Event::Cancel("ann"), 1, None),
            (Expired, reported(Done), 1, None),
            (Cancelled, Event::Sending, 1, None),
            (Failed, Event::Forgotten, 1, None),
        ];
        for (state, event, now, then) in table {
            let after = next(&record(state), event, now);
            assert_eq!(
                after.as_ref().map(|r| r.state),
                then,
                "{state:?} {event:?} at {now}"
            );
            let ended = after.and_then(|r| r.ended);
            assert_eq!(
                ended.is_some(),
                then.is_some_and(State::is_end),
                "{state:?} {event:?}"
            );
        }
    }

    #[test]
    fn a_command_that_was_sent_is_cancelled_only_by_its_cluster() {
        let asked = next(&record(State::Sent), Event::Cancel("ann"), 1).unwrap();
        assert_eq!((asked.state, asked.cancelled_by.as_str()), (State::Sent, "ann"));
        assert_eq!(next(&asked, Event::Cancel("bob"), 2), None, "once");
        let late = next(&asked, reported(State::Done), 3).unwrap();
        assert_eq!((late.state, late.cancelled_by.as_str()), (State::Done, "ann"));
    }

    #[test]
    fn the_same_report_again_changes_nothing_and_another_text_does() {
        let running = next(&record(State::Sent), reported(State::Running), 1).unwrap();
        assert_eq!(next(&running, reported(State::Running), 2), None);
        let further = Event::Reported {
            state: State::Running,
            text: "50 %",
            object: "Job shop/j",
        };
        let further = next(&running, further, 2).unwrap();
        assert_eq!(
            (further.text.as_str(), further.object.as_str()),
            ("50 %", "Job shop/j")
        );
        let done = next(&further, reported(State::Done), 3).unwrap();
        assert_eq!(done.object, "Job shop/j", "it stays known");
    }

    #[test]
    fn no_event_leads_from_an_end_and_every_spelling_is_read() {
        for state in STATES {
            assert_eq!(State::parse(state.as_str()), Some(state));
            for event in [
                Event::Sending,
                Event::Time,
                Event::Cancel("a"),
                Event::Forgotten,
                reported(State::Done),
            ] {
                let after = next(&record(state), event, Millis::MAX / 2);
                assert!(!state.is_end() || after.is_none(), "{state:?} {event:?}");
            }
        }
        assert_eq!(State::parse("x"), None);
        assert_eq!(
            (record(State::Sent).left(40), record(State::Sent).left(140)),
            (60, 0)
        );
    }
}
