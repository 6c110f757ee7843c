//! Cron schedules as Kubernetes reads them, in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Why a schedule or a time zone is refused. Texts name the value and say what to write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    #[error(
        "schedule {schedule:?} is not a cron expression: {detail}; write five fields such as \"30 2 * * *\", or @daily"
    )]
    Cron { schedule: String, detail: String },
    #[error("timezone {0:?} is not an IANA time zone; write one such as \"Europe/Berlin\" or \"UTC\"")]
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
    Cron(Box<Cron>),
    Every(SignedDuration),
}

impl Schedule {
    /// Parses five cron fields, an `@daily`-like macro or `@every 1h30m`, and an IANA time zone.
    pub fn parse(schedule: &str, timezone: &str) -> Result<Schedule, ScheduleError> {
        let zone = match timezone {
            "" | "UTC" | "Etc/UTC" => TimeZone::UTC,
            // Kubernetes refuses "Local" too: it would mean the controller manager's own zone.
            "Local" => return Err(ScheduleError::TimeZone(timezone.to_owned())),
            name => TimeZone::get(name).map_err(|_| ScheduleError::TimeZone(name.to_owned()))?,
        };
        let bad = |detail: &str| ScheduleError::Cron {
            schedule: schedule.to_owned(),
            detail: detail.to_owned(),
        };
        let text = schedule.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let every = parse_duration(every).ok_or_else(|| bad("@every takes a duration such as 1h30m"))?;
            if every < SignedDuration::from_secs(1) {
                return Err(bad("@every takes at least one second"));
            }
            return Ok(Schedule {
                rule: Rule::Every(every),
                zone,
            });
        }
        if let Some(word) = words(text).find(|w| !is_standard_word(w)) {
            return Err(bad(&format!("{word:?} is not known to Kubernetes")));
        }
        let text = if text == "@midnight" { "@daily" } else { text };
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(text)
            .map_err(|e| bad(&e.to_string()))?;
        Ok(Schedule {
            rule: Rule::Cron(Box::new(cron)),
            zone,
        })
    }

    /// First time after `after` at which the schedule is due; `None` if there is none in sight (31 February).
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(every) => after.checked_add(*every).ok(),
            Rule::Cron(cron) => {
                let zoned = after.to_zoned(self.zone.clone());
                cron.find_next_occurrence(&zoned, false)
                    .ok()
                    .map(|next| next.timestamp())
            }
        }
    }
}

/// Runs of letters in the fields: Kubernetes knows the names of months and days, and none of croner's extensions.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let fields = if text.starts_with('@') { "" } else { text };
    fields
        .split(|c: char| !c.is_ascii_alphabetic() && c != '#')
        .filter(|w| !w.is_empty())
}

fn is_standard_word(word: &str) -> bool {
    const NAMES: &str = "jan feb mar apr may jun jul aug sep oct nov dec sun mon tue wed thu fri sat";
    NAMES.split(' ').any(|name| name.eq_ignore_ascii_case(word))
}

/// Parses a Go duration such as `1h30m` or `90s`. `None` if it is not one.
#[must_use]
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest.get(..digits)?.parse().ok()?;
        let tail = rest.get(digits..)?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        total += amount
            * match tail.get(..unit_end)? {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = tail.get(unit_end..)?;
    }
    SignedDuration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        schedule.next_after(after.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        assert_eq!(
            next("30 2 * * *", "UTC", "2026-11-23T03:00:00Z"),
            "2026-11-24T02:30:00Z"
        );
        assert_eq!(
            next("@daily", "UTC", "2026-11-23T03:00:00Z"),
            "2026-11-24T00:00:00Z"
        );
        assert_eq!(
            next("@midnight", "UTC", "2026-11-23T03:00:00Z"),
            "2026-11-24T00:00:00Z"
        );
        assert_eq!(
            next("*/15 */2 * * *", "UTC", "2026-11-23T02:20:00Z"),
            "2026-11-23T02:30:00Z"
        );
        assert_eq!(
            next("0 0 1 JAN *", "UTC", "2026-11-23T00:00:00Z"),
            "2027-01-01T00:00:00Z"
        );
        assert_eq!(
            next("@every 1h30m", "UTC", "2026-11-23T00:00:00Z"),
            "2026-11-23T01:30:00Z"
        );
    }

    #[test]
    fn the_time_zone_counts() {
        assert_eq!(
            next("0 3 * * *", "Europe/Berlin", "2026-11-23T00:00:00Z"),
            "2026-11-23T02:00:00Z"
        );
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        for bad in [
            "",
            "12345",
            "61 * * * *",
            "garbage 0 3 * * 0",
            "@dailyXYZ",
            "0 0 L * *",
            "0 0 * * 5#2",
            "* * * * * *",
        ] {
            assert!(Schedule::parse(bad, "UTC").is_err(), "{bad:?} was taken");
        }
        for bad in ["Local", "Mars/Olympus"] {
            assert_eq!(
                Schedule::parse("@daily", bad).unwrap_err(),
                ScheduleError::TimeZone(bad.to_owned())
            );
        }
    }

    #[test]
    fn a_day_that_never_comes_has_no_next() {
        assert_eq!(
            Schedule::parse("0 0 31 2 *", "UTC")
                .unwrap()
                .next_after(Timestamp::UNIX_EPOCH),
            None
        );
    }

    #[test]
    fn go_durations() {
        assert_eq!(parse_duration("1h30m"), Some(SignedDuration::from_mins(90)));
        assert_eq!(parse_duration("1.5s"), Some(SignedDuration::from_millis(1500)));
        for bad in ["", "5", "h", "1x"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
    }
}
