//! Times at which maintenance may begin.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schedule::schema::{BAD_SCHEDULE, BAD_TIMEZONE, schedule_rule, timezone_rule};
use crate::schedule::{Schedule, ScheduleError, parse_duration, resolve, seed};
use crate::schema;

/// Shortest and longest window.
const LENGTHS: (SignedDuration, SignedDuration) =
    (SignedDuration::from_mins(1), SignedDuration::from_hours(31 * 24));

/// Times at which maintenance may begin: from each slot of a schedule on, for a duration. What has begun goes on after its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.schedule.startsWith('@every')")
    .message("allowedWindow.schedule cannot be @every: a window begins at times of the clock; write \"0 22 * * *\" or @daily"))]
pub struct AllowedWindow {
    /// When it begins: five cron fields such as "0 22 * * 1-5", or @daily. H is a value that follows from namespace and name.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new(schedule_rule()).message(BAD_SCHEDULE))]
    pub schedule: String,
    /// How long it is open, such as 6h; at least one minute.
    #[schemars(schema_with = "schema::duration")]
    pub duration: String,
    /// IANA time zone of the schedule, such as Europe/Berlin; UTC unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new(timezone_rule()).message(BAD_TIMEZONE))]
    pub timezone: Option<String>,
}

/// Why a window is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWindow {
    #[error("allowedWindow.{0}")]
    Schedule(#[from] ScheduleError),
    #[error(
        "allowedWindow.schedule {0:?}: a window begins at times of the clock; write \"0 22 * * *\" or @daily"
    )]
    Every(String),
    #[error("allowedWindow.duration {0:?} is not between one minute and 31 days; write 6h or 30m")]
    Duration(String),
}

/// A window as it may be worked with.
#[derive(Clone, Debug)]
pub struct Window {
    schedule: Schedule,
    length: SignedDuration,
}

impl AllowedWindow {
    /// Reads it. `kind` and `metadata` are those of its resource: the values of H follow from them.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn parse(&self, kind: &str, metadata: &ObjectMeta) -> Result<Window, BadWindow> {
        if self.schedule.trim_start().starts_with("@every") {
            return Err(BadWindow::Every(self.schedule.clone()));
        }
        let cron = resolve(&self.schedule, &seed(kind, metadata))?;
        let schedule = Schedule::parse(&cron, self.timezone.as_deref().unwrap_or_default())?;
        let length = parse_duration(&self.duration).filter(|d| (LENGTHS.0..=LENGTHS.1).contains(d));
        let length = length.ok_or_else(|| BadWindow::Duration(self.duration.clone()))?;
        Ok(Window { schedule, length })
    }
}

impl Window {
    /// When it opens next; `None` while it is open. The end of time stands for a schedule that is never due.
    #[must_use]
    pub fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        // Open are those that began within its length.
        let since = now.checked_sub(self.length).unwrap_or(Timestamp::MIN);
        let next = self.schedule.next_after(since).unwrap_or(Timestamp::MAX);
        (next > now).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(schedule: &str, duration: &str, timezone: &str) -> Result<Window, BadWindow> {
        let window = AllowedWindow {
            schedule: schedule.to_owned(),
            duration: duration.to_owned(),
            timezone: Some(timezone.to_owned()),
        };
        window.parse("GlobalRetentionPolicy", &ObjectMeta::default())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_open_from_each_slot_on_for_its_duration_and_says_when_it_opens() {
        let nights = window("0 22 * * *", "6h", "Europe/Berlin").unwrap();
        let opens = |now: &str| nights.opens(at(now));
        assert_eq!(opens("2026-11-26T21:00:00Z"), None, "22:00 in Berlin");
        assert_eq!(opens("2026-11-27T02:59:59Z"), None);
        assert_eq!(opens("2026-11-27T03:00:00Z"), Some(at("2026-11-27T21:00:00Z")));
        assert_eq!(opens("2026-11-26T20:59:59Z"), Some(at("2026-11-26T21:00:00Z")));
        // The clock goes back an hour in this night, and the window is open as long as in others.
        assert_eq!(opens("2026-10-25T01:59:59Z"), None);
        assert_eq!(opens("2026-10-25T02:00:00Z"), Some(at("2026-10-25T21:00:00Z")));
        let always = window("0 * * * *", "2h", "").unwrap();
        assert_eq!(always.opens(at("2026-11-26T21:30:00Z")), None);
        let never = window("0 0 31 2 *", "2h", "").unwrap();
        assert_eq!(never.opens(at("2026-11-26T21:30:00Z")), Some(Timestamp::MAX));
    }

    #[test]
    fn what_cannot_be_a_window_is_refused_with_the_field() {
        for (schedule, duration, zone, field) in [
            ("@every 6h", "1h", "", "allowedWindow.schedule"),
            ("61 * * * *", "1h", "", "allowedWindow.schedule"),
            ("@daily", "59s", "", "allowedWindow.duration"),
            ("@daily", "800h", "", "allowedWindow.duration"),
            ("@daily", "soon", "", "allowedWindow.duration"),
            ("@daily", "1h", "Berlin", "allowedWindow.timezone"),
        ] {
            let refused = window(schedule, duration, zone).unwrap_err().to_string();
            assert!(refused.starts_with(field), "{refused}");
        }
    }
}
