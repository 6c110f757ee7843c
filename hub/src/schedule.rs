//! When the next success of a backup is due: by its cron schedule, counted from the last success.
//!
//! A spoke's `next_run` does not show that a run was missed, since it moves on whether the run came or not.
//! So the hub asks the schedule itself: the first run that was planned after the last success is the one that is due.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crds::schedule::Schedule;
use jiff::Timestamp;

use crate::Millis;

/// A run may be this late without being called late: Kubernetes needs time to start pods.
const SLACK_LEAST: Millis = 10 * 60 * 1000;

/// Schedules that are kept parsed.
const SCHEDULES: usize = 4_096;
/// Answers that are kept of each.
const ANSWERS: usize = 4;

/// And this part of the interval: a weekly backup is not late after ten minutes.
const SLACK_DIVISOR: Millis = 10;

/// Until when a success must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The planned run that has to succeed.
    pub due: Millis,
    /// From here on the backup is late.
    pub late: Millis,
    /// From here on it is late even though a run is under way: by then the run after `due` should have come.
    pub late_though_running: Millis,
}

impl Deadline {
    /// Between runs at `due` and at `next`.
    fn between(due: Millis, next: Millis) -> Self {
        let interval = next.saturating_sub(due).max(0);
        let slack = SLACK_LEAST.max(interval / SLACK_DIVISOR);
        Self {
            due,
            late: due.saturating_add(slack),
            late_though_running: next.saturating_add(slack),
        }
    }
}

/// A schedule, with what it was asked last.
struct Parsed {
    schedule: Schedule,
    /// It counts from the time that is asked about: no two questions have one answer.
    counts: bool,
    answers: RefCell<VecDeque<Answer>>,
}

/// Between two times that a schedule names every question has one answer.
#[derive(Clone, Copy)]
struct Answer {
    since: Timestamp,
    due: Timestamp,
    /// `None` for one that comes due once and never again.
    next: Option<Timestamp>,
}

impl Parsed {
    /// The first two runs after a time.
    fn after(&self, since: Timestamp) -> Option<Answer> {
        let mut answers = self.answers.borrow_mut();
        let known = answers
            .iter()
            .find(|answer| !self.counts && answer.since <= since && since < answer.due);
        if let Some(known) = known {
            return Some(*known);
        }
        let due = self.schedule.next_after(since)?;
        let answer = Answer {
            since,
            due,
            next: self.schedule.next_after(due),
        };
        answers.truncate(ANSWERS - 1);
        answers.push_front(answer);
        Some(answer)
    }
}

/// A schedule, parsed once on each thread: a fleet has far fewer schedules than backups, and parsing costs most.
fn parsed(schedule: &str, timezone: &str) -> Option<Rc<Parsed>> {
    type All = HashMap<(String, String), Option<Rc<Parsed>>>;
    thread_local! {
        static PARSED: RefCell<All> = RefCell::default();
    }
    PARSED.with_borrow_mut(|known| {
        // A cluster that reports ever new schedules only loses the advantage.
        if known.len() >= SCHEDULES {
            known.clear();
        }
        let key = (schedule.to_owned(), timezone.to_owned());
        let entry = known.entry(key);
        let entry = entry.or_insert_with(|| {
            Some(Rc::new(Parsed {
                counts: schedule.starts_with("@every"),
                schedule: Schedule::parse(schedule, timezone).ok()?,
                answers: RefCell::default(),
            }))
        });
        entry.clone()
    })
}

/// The deadline that follows from a schedule when the last success was at `since`.
///
/// `None` when the schedule or the zone cannot be read, or when it never comes due.
#[must_use]
pub fn deadline(schedule: &str, timezone: &str, since: Millis) -> Option<Deadline> {
    let schedule = parsed(schedule, timezone)?;
    let answer = schedule.after(Timestamp::from_millisecond(since).ok()?)?;
    let due = millis(answer.due);
    // A schedule that comes due once and never again has no interval; a day is as good a guess as any.
    let next = answer.next.map_or(due.saturating_add(86_400_000), millis);
    Some(Deadline::between(due, next))
}

/// When a schedule without a zone comes due next after a time; `None` when it cannot be read or never does.
#[must_use]
pub fn next_run(schedule: &str, after: Millis) -> Option<Millis> {
    let schedule = parsed(schedule, "")?;
    let answer = schedule.after(Timestamp::from_millisecond(after).ok()?)?;
    Some(millis(answer.due))
}

/// When a window that is open closes; `None` while it is closed. Windows that meet are one, of which no more is looked at than
/// up to `horizon`.
#[must_use]
pub fn closes(
    (schedule, timezone): (&str, &str),
    length: Millis,
    now: Millis,
    horizon: Millis,
) -> Option<Millis> {
    let length = length.max(0);
    let schedule = parsed(schedule, timezone)?;
    let opens = |since: Millis| {
        let since = Timestamp::from_millisecond(since).ok()?;
        schedule.after(since).map(|answer| millis(answer.due))
    };
    // Open are those that began within its length.
    let mut opened = opens(now.saturating_sub(length)).filter(|opened| *opened <= now)?;
    let mut end = opened.saturating_add(length);
    while end < horizon
        && let Some(next) = opens(opened).filter(|next| *next <= end)
    {
        opened = next;
        end = next.saturating_add(length);
    }
    Some(end)
}

/// The deadline when only the spoke's own forecast is known.
#[must_use]
pub fn deadline_by_forecast(next_run: Millis) -> Deadline {
    Deadline::between(next_run, next_run)
}

fn millis(time: Timestamp) -> Millis {
    time.as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn the_first_run_after_the_last_success_is_due() {
        let deadline = deadline("0 2 * * *", "", at("2026-11-20T02:31:00Z")).unwrap();
        assert_eq!(deadline.due, at("2026-11-21T02:00:00Z"));
        assert_eq!(deadline.late, at("2026-11-21T04:24:00Z"), "a tenth of a day");
        assert_eq!(deadline.late_though_running, at("2026-11-22T04:24:00Z"));
    }

    #[test]
    fn frequent_backups_have_ten_minutes() {
        let deadline = deadline("*/5 * * * *", "", at("2026-11-20T02:01:00Z")).unwrap();
        assert_eq!(deadline.due, at("2026-11-20T02:05:00Z"));
        assert_eq!(deadline.late, at("2026-11-20T02:15:00Z"));
    }

    #[test]
    fn what_was_asked_before_changes_no_answer() {
        let begin = at("2026-10-20T00:00:00Z");
        // Over the end of summer time, forwards and backwards, with questions at the very time of a run.
        let steps: Vec<Millis> = (0..400).map(|n| begin + n * 15 * 60_000 * 7).collect();
        for (schedule, zone) in [
            ("0 2 * * *", "Europe/Berlin"),
            ("*/7 * * * *", ""),
            ("0 0 1 * *", ""),
            ("@every 45m", ""),
        ] {
            let fresh = Schedule::parse(schedule, zone).unwrap();
            for since in steps.iter().chain(steps.iter().rev()).copied() {
                let due = fresh
                    .next_after(Timestamp::from_millisecond(since).unwrap())
                    .unwrap();
                let known = deadline(schedule, zone, since).unwrap();
                assert_eq!(known.due, millis(due), "{schedule} since {since}");
                let after = deadline(schedule, zone, known.due).unwrap();
                assert!(after.due > known.due, "{schedule} since {since}");
            }
        }
    }

    #[test]
    fn zones_count() {
        let deadline = deadline("0 2 * * *", "Europe/Berlin", at("2026-11-20T12:00:00Z")).unwrap();
        assert_eq!(deadline.due, at("2026-11-21T01:00:00Z"));
    }

    #[test]
    fn nicknames_and_intervals() {
        assert_eq!(
            deadline("@daily", "", at("2026-11-20T12:00:00Z")).unwrap().due,
            at("2026-11-21T00:00:00Z")
        );
        let every = deadline("@every 1h30m", "", at("2026-11-20T12:00:00Z")).unwrap();
        assert_eq!(
            (every.due, every.late),
            (at("2026-11-20T13:30:00Z"), at("2026-11-20T13:40:00Z"))
        );
    }

    #[test]
    fn a_window_is_open_for_its_length_and_one_that_cannot_be_read_never() {
        let hours = 3_600_000;
        let open = |schedule: &str, length: Millis, now: &str| {
            closes((schedule, "Europe/Berlin"), length, at(now), at(now)).is_some()
        };
        assert!(!open("0 22 * * *", 6 * hours, "2026-11-20T20:59:59Z"));
        assert!(open("0 22 * * *", 6 * hours, "2026-11-20T21:00:00Z"));
        assert!(open("0 22 * * *", 6 * hours, "2026-11-21T02:59:59Z"));
        assert!(!open("0 22 * * *", 6 * hours, "2026-11-21T03:00:00Z"));
        assert!(!open("0 22 * * *", 0, "2026-11-20T21:00:01Z"));
        assert!(!open("", 6 * hours, "2026-11-20T21:00:00Z"));
    }

    #[test]
    fn a_window_closes_after_its_length_and_windows_that_meet_are_one() {
        let hours = 3_600_000;
        let closes = |schedule: &str, length: Millis, horizon: &str| {
            closes((schedule, ""), length, at("2026-11-20T22:30:00Z"), at(horizon))
        };
        let late = "2026-11-22T00:00:00Z";
        let night = closes("0 22 * * *", 6 * hours, late);
        assert_eq!(night, Some(at("2026-11-21T04:00:00Z")));
        let overlapping = closes("0 20,22,23 * * *", 3 * hours, late);
        assert_eq!(overlapping, Some(at("2026-11-21T02:00:00Z")));
        let always = closes("0 * * * *", hours, "2026-11-20T23:30:00Z").unwrap();
        assert!(always >= at("2026-11-20T23:30:00Z"), "{always}");
        assert_eq!(closes("0 23 * * *", hours, late), None);
    }

    #[test]
    fn what_cannot_be_read_has_no_deadline() {
        for schedule in [
            "",
            "x",
            "61 * * * *",
            "* * * * * *",
            "@every",
            "@every 5",
            "@every 1d",
        ] {
            assert_eq!(deadline(schedule, "", 0), None, "{schedule}");
        }
        assert_eq!(deadline("0 2 * * *", "Atlantis/Capital", 0), None);
        assert_eq!(deadline("0 2 * * *", "", Millis::MAX), None);
    }

    #[test]
    fn a_schedule_that_never_comes_ends_the_search_soon() {
        let started = std::time::Instant::now();
        assert_eq!(deadline("0 0 30 2 *", "", at("2026-11-20T12:00:00Z")), None);
        assert!(
            started.elapsed() < std::time::Duration::from_millis(500),
            "{:?}",
            started.elapsed()
        );
    }
}
