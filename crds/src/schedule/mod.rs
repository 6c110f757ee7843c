//! Schedules as Kubernetes reads them: what its CronJob controller accepts is accepted, what it refuses is refused, and
//! the next run is the one that it would start, at clock changes too. Operator, hub and schema use this one reading;
//! `tests/kubernetes.rs` compares it with Kubernetes' own code.

mod duration;
mod fields;
mod local;
pub mod schema;
mod spread;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use duration::parse as parse_duration;
use fields::Fields;
pub use spread::{resolve, seed};

/// Why a schedule or a time zone is refused. Texts name the value and say what to write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    #[error(
        "schedule {schedule:?} is not valid: {detail}; write five fields such as \"30 2 * * *\" or \"H 2 * * *\", @daily or @every 6h"
    )]
    Cron { schedule: String, detail: String },
    #[error(
        "timezone {0:?} is not an IANA time zone; write one such as \"Europe/Berlin\" or \"UTC\", in this spelling"
    )]
    TimeZone(String),
}

/// A parsed schedule in its time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    rule: Rule,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Rule {
    Fields(Fields),
    Every(SignedDuration),
}

impl Schedule {
    /// Parses five cron fields, an `@daily`-like macro or `@every 1h30m`, and an IANA time zone; an empty one is UTC.
    pub fn parse(schedule: &str, timezone: &str) -> Result<Schedule, ScheduleError> {
        let zone = zone(timezone).ok_or_else(|| ScheduleError::TimeZone(timezone.to_owned()))?;
        let rule = rule(schedule).map_err(|detail| ScheduleError::Cron {
            schedule: schedule.to_owned(),
            detail,
        })?;
        Ok(Schedule { rule, zone })
    }

    /// Whether it is due once an hour or less often.
    #[must_use]
    pub fn is_at_most_hourly(&self) -> bool {
        match &self.rule {
            Rule::Every(every) => *every >= SignedDuration::from_hours(1),
            Rule::Fields(fields) => fields.minute.is_single(),
        }
    }

    /// First time after `after` at which the schedule is due; `None` if there is none within five years (31 February).
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(every) => whole_second(after)?.checked_add(*every).ok(),
            Rule::Fields(fields) => local::next(fields, &self.zone, after),
        }
    }

    /// First run after `now`. `@every` counts from the last run, as the CronJob does, also when runs were missed since;
    /// from `now` if there was none.
    #[must_use]
    pub fn next_run(&self, last: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        match (&self.rule, last) {
            (Rule::Every(every), Some(last)) if last <= now => {
                let last = whole_second(last)?;
                let passed = now.as_second().checked_sub(last.as_second())? / every.as_secs();
                let offset = every.as_secs().checked_mul(passed.checked_add(1)?)?;
                Timestamp::from_second(last.as_second().checked_add(offset)?).ok()
            }
            (Rule::Every(_), Some(last)) => self.next_after(last),
            _ => self.next_after(now),
        }
    }
}

fn whole_second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_nanosecond().div_euclid(1_000_000_000).try_into().ok()?).ok()
}

fn rule(schedule: &str) -> Result<Rule, String> {
    if schedule.contains("TZ") {
        return Err("it must not name a time zone; write it in spec.timezone".to_owned());
    }
    if let Some(every) = schedule.strip_prefix("@every ") {
        let every = duration::nanoseconds(every)
            .ok_or_else(|| format!("{every:?} is not a duration such as 6h or 1h30m"))?;
        // Kubernetes knows whole seconds, and takes the shortest for whatever is less.
        return Ok(Rule::Every(SignedDuration::from_secs(
            (every / 1_000_000_000).max(1),
        )));
    }
    Fields::parse(schedule).map(Rule::Fields)
}

/// A zone by the name that Kubernetes accepts: names are case-sensitive, and "Local" would be the zone of whichever
/// machine reads it.
fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() {
        return Some(TimeZone::UTC);
    }
    let part = |part: &str| {
        !matches!(part, "." | "..")
            && (1..=14).contains(&part.len())
            && !part.starts_with('-')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_+".contains(c))
    };
    if !name.split('/').all(part) || name.eq_ignore_ascii_case("local") {
        return None;
    }
    let zone = TimeZone::get(name).ok()?;
    (zone.iana_name() == Some(name)).then_some(zone)
}

#[cfg(test)]
mod tests;
