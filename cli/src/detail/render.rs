//! An object as text: verdict, facts, conditions, 30 days, relations, what happened, and what to do next. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{ActivityEntry, GetResponse, Resource, RunDay};

use super::{Found, facts};
use crate::activity;
use crate::render::align;
use crate::text::{ago, time};
use crate::why;

const DAYS: i64 = 30;
const DAY: i64 = 86_400;
/// Of what happened, so many are shown; `-o json` has all that the hub gave.
const EVENTS: usize = 10;

/// One screen.
#[must_use]
pub fn text(found: &Found, now: Timestamp) -> String {
    let answer = &found.answer;
    let body = answer.row.as_ref().and_then(|row| row.body.as_ref());
    let (state, reason, facts) = facts::of(body, now);
    let mut text = format!(
        "{}  {} {}\n",
        cleaned(&state.to_uppercase()),
        found.kind(),
        cleaned(&found.name())
    );
    if !reason.is_empty() {
        let _ = writeln!(text, "why   {}", cleaned(&reason));
    }
    for step in why::of(found, now).next {
        let _ = writeln!(text, "next  {}", cleaned(&step));
    }
    let facts: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, value)| vec![format!("  {name}"), value])
        .collect();
    text.push('\n');
    text.push_str(&align(&facts));
    for resource in &answer.resources {
        conditions(&mut text, resource, answer.resources.len() > 1, now);
    }
    if !answer.days.is_empty() {
        let _ = writeln!(text, "\nlast {DAYS} days  {}", strip(&answer.days, now));
    }
    relations(&mut text, answer);
    if !answer.events.is_empty() {
        text.push_str("\nwhat happened\n");
        text.push_str(&events(answer.events.iter().take(EVENTS), now));
    }
    text
}

fn conditions(text: &mut String, resource: &Resource, named: bool, now: Timestamp) {
    if resource.conditions.is_empty() {
        return;
    }
    let place = if named {
        format!(" of {}", cleaned(&resource.place))
    } else {
        String::new()
    };
    let _ = writeln!(text, "\nconditions{place}");
    let lines: Vec<Vec<String>> = resource
        .conditions
        .iter()
        .map(|c| {
            vec![
                format!("  {}", c.r#type),
                c.status.clone(),
                c.reason.clone(),
                ago(c.last_transition.as_ref(), now),
                c.message.clone(),
            ]
        })
        .collect();
    text.push_str(&align(&lines));
}

fn relations(text: &mut String, answer: &GetResponse) {
    if answer.relations.is_empty() {
        return;
    }
    text.push_str("\nbelongs to it\n");
    let lines: Vec<Vec<String>> = answer
        .relations
        .iter()
        .map(|of| {
            let name = if of.name.is_empty() { &of.key } else { &of.name };
            vec![format!("  {}", of.what), name.clone(), of.state.to_uppercase()]
        })
        .collect();
    text.push_str(&align(&lines));
    let more = answer.related.saturating_sub(answer.relations.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "  … and {more} more");
    }
}

/// What happened, a line each.
fn events<'a>(entries: impl Iterator<Item = &'a ActivityEntry>, now: Timestamp) -> String {
    let lines: Vec<Vec<String>> = entries
        .map(|entry| {
            vec![
                format!("  {}", ago(entry.at.as_ref(), now)),
                entry.what.clone(),
                activity::result(entry).to_owned(),
                entry.subject.clone(),
                entry.text.clone(),
            ]
        })
        .collect();
    align(&lines)
}

/// A letter a day, oldest first: `.` no run, `+` all succeeded, `~` some files missing, `x` one failed.
#[must_use]
pub fn strip(days: &[RunDay], now: Timestamp) -> String {
    let today = now.as_second().div_euclid(DAY);
    let mut letters = vec!['.'; usize::try_from(DAYS).unwrap_or_default()];
    for of in days {
        let Some(at) = time(of.day.as_ref()) else { continue };
        let age = today - at.as_second().div_euclid(DAY);
        let place = usize::try_from(DAYS - 1 - age).ok();
        let letter = match (of.failed, of.partial, of.succeeded) {
            (1.., ..) => 'x',
            (_, 1.., _) => '~',
            (_, _, 1..) => '+',
            _ => '.',
        };
        if let Some(slot) = place.and_then(|place| letters.get_mut(place)) {
            *slot = letter;
        }
    }
    let count = |of: fn(&RunDay) -> u32| days.iter().map(of).sum::<u32>();
    format!(
        "{}  {} succeeded, {} partial, {} failed",
        letters.into_iter().collect::<String>(),
        count(|day| day.succeeded),
        count(|day| day.partial),
        count(|day| day.failed)
    )
}

/// `since 3h ago`; empty when it is not known.
#[must_use]
pub fn since(at: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    at.map_or_else(String::new, |at| {
        format!("since {}", ago(Some(at), now).trim_end_matches(" ago"))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_day_is_shown_by_the_worst_of_its_runs() {
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let day = |age: i64, succeeded, partial, failed| RunDay {
            day: Some(proto::time::from_unix(
                (now.as_second().div_euclid(DAY) - age) * DAY,
            )),
            succeeded,
            partial,
            failed,
            bytes_added: 0,
        };
        let days = [
            day(0, 3, 0, 1),
            day(1, 1, 1, 0),
            day(2, 2, 0, 0),
            day(29, 1, 0, 0),
            day(40, 0, 0, 9),
        ];
        let text = strip(&days, now);
        assert!(text.starts_with(&format!("+{}+~x  ", ".".repeat(26))), "{text}");
    }
}
