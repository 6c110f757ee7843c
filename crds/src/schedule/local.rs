//! The next time that fits, in a time zone. The search goes through the same steps as the one in Kubernetes (robfig/cron),
//! because what they come to at a clock change, such as a run at 02:30 that moves to 03:00, lies in these steps.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;

use super::fields::Fields;

/// Kubernetes gives up after so many years.
const YEARS: i16 = 5;

/// First time after `after`, or `None` if none is near.
pub(super) fn next(fields: &Fields, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    // Kubernetes looks at each minute of five years, and finds nothing either.
    if fields.minute.is_empty() || fields.hour.is_empty() || fields.month.is_empty() {
        return None;
    }
    let begin = after.as_nanosecond().div_euclid(1_000_000_000) + 1;
    let mut search = Search {
        zone,
        time: Local::of(begin.try_into().ok()?, zone)?,
        cut: false,
    };
    let limit = search.time.civil.year().checked_add(YEARS)?;
    while search.time.civil.year() <= limit {
        if search.month(fields)? && search.day(fields)? && search.hour(fields)? && search.minute(fields)? {
            // Seconds are not part of a schedule; the field is 0.
            if search.second()? {
                return Timestamp::from_second(search.time.unix).ok();
            }
        }
    }
    None
}

/// A time, and what clocks in the zone show then.
#[derive(Clone, Copy)]
struct Local {
    unix: i64,
    civil: DateTime,
}

impl Local {
    fn of(unix: i64, zone: &TimeZone) -> Option<Local> {
        let civil = offset(unix, zone)?.to_datetime(Timestamp::from_second(unix).ok()?);
        Some(Local { unix, civil })
    }

    /// The time at which clocks show this. Where they never do, or do twice, it is the one that Go chooses.
    fn when(day: Date, hour: i8, minute: i8, second: i8, zone: &TimeZone) -> Option<Local> {
        let shown = day.at(hour, minute, second, 0);
        let shown = jiff::tz::Offset::UTC.to_timestamp(shown).ok()?.as_second();
        let near = i64::from(offset(shown, zone)?.seconds());
        let exact = i64::from(offset(shown.checked_sub(near)?, zone)?.seconds());
        Local::of(shown.checked_sub(exact)?, zone)
    }
}

fn offset(unix: i64, zone: &TimeZone) -> Option<jiff::tz::Offset> {
    Some(zone.to_offset(Timestamp::from_second(unix).ok()?))
}

/// Each step goes forward until its part fits. `Some(false)` means that a larger part has changed: look at all again.
/// `None` means that the calendar ends.
struct Search<'a> {
    zone: &'a TimeZone,
    time: Local,
    /// Whether the parts below the one that was moved first are at their least.
    cut: bool,
}

impl Search<'_> {
    fn date(&self) -> Date {
        self.time.civil.date()
    }

    fn midnight(&mut self, day: Date) -> Option<()> {
        self.time = Local::when(day, 0, 0, 0, self.zone)?;
        Some(())
    }

    /// The same hour, minute and second of another day.
    fn same_time(&mut self, day: Date) -> Option<()> {
        let at = self.time.civil;
        self.time = Local::when(day, at.hour(), at.minute(), at.second(), self.zone)?;
        Some(())
    }

    fn forward(&mut self, seconds: i64) -> Option<()> {
        self.time = Local::of(self.time.unix.checked_add(seconds)?, self.zone)?;
        Some(())
    }

    fn month(&mut self, fields: &Fields) -> Option<bool> {
        while !fields.month.has(self.date().month()) {
            if !self.cut {
                self.cut = true;
                self.midnight(self.date().first_of_month())?;
            }
            self.same_time(month_later(self.date())?)?;
            if self.date().month() == 1 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn day(&mut self, fields: &Fields) -> Option<bool> {
        while !fits(fields, self.date()) {
            if !self.cut {
                self.cut = true;
                self.midnight(self.date())?;
            }
            let (before, tomorrow) = (self.time.unix, self.date().tomorrow().ok()?);
            self.same_time(tomorrow)?;
            // Midnight may not exist: the day then begins at 1 o'clock, or the search is at 23 o'clock of the day before.
            match self.time.civil.hour() {
                0 => {}
                hour if hour > 12 => self.forward(i64::from(24 - hour) * 3600)?,
                hour => self.forward(-i64::from(hour) * 3600)?,
            }
            // A zone that changes sides of the date line leaves out a day. Kubernetes tries it for ever.
            if self.time.unix <= before {
                self.midnight(tomorrow.tomorrow().ok()?)?;
            }
            if self.date().day() == 1 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn hour(&mut self, fields: &Fields) -> Option<bool> {
        while !fields.hour.has(self.time.civil.hour()) {
            if !self.cut {
                self.cut = true;
                let hour = self.time.civil.hour();
                self.time = Local::when(self.date(), hour, 0, 0, self.zone)?;
            }
            self.forward(3600)?;
            if self.time.civil.hour() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn minute(&mut self, fields: &Fields) -> Option<bool> {
        while !fields.minute.has(self.time.civil.minute()) {
            if !self.cut {
                self.cut = true;
                self.forward(-self.time.unix.rem_euclid(60))?;
            }
            self.forward(60)?;
            if self.time.civil.minute() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    fn second(&mut self) -> Option<bool> {
        while self.time.civil.second() != 0 {
            self.cut = true;
            self.forward(1)?;
            if self.time.civil.second() == 0 {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// The same day of the next month, counted on into the month after it where that has no such day.
fn month_later(day: Date) -> Option<Date> {
    let (year, month) = if day.month() == 12 {
        (day.year().checked_add(1)?, 1)
    } else {
        (day.year(), day.month() + 1)
    };
    if year > 9990 {
        return None;
    }
    date(year, month, 1)
        .checked_add(jiff::Span::new().days(i64::from(day.day()) - 1))
        .ok()
}

fn fits(fields: &Fields, day: Date) -> bool {
    let by_day = fields.day.has(day.day());
    let by_weekday = fields.weekday.has(day.weekday().to_sunday_zero_offset());
    if fields.day.star || fields.weekday.star {
        by_day && by_weekday
    } else {
        by_day || by_weekday
    }
}
