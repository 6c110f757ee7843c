//! What the API server checks of a schedule, so that it takes what the CronJob behind it will be taken with.

use std::fmt::Write as _;

use super::fields::{BOUNDS, Bounds, MACROS, MONTHS, WEEKDAYS};

/// What the schema says of a schedule.
pub const BAD_SCHEDULE: &str = "write five cron fields such as \"30 2 * * *\" or \"H 2 * * *\" (minute 0-59, hour 0-23, day 1-31, month 1-12 or jan-dec, \
weekday 0-6 or sun-sat, with 0 for Sunday; a range ends after it begins; H, H/15 and H(0-29) are a value that follows from the resource's name), @daily or @every 6h; the time zone belongs into timezone";
/// What the schema says of a time zone.
pub const BAD_TIMEZONE: &str =
    "timezone must be the name of an IANA time zone in its exact spelling, such as Europe/Berlin or UTC";

/// CEL: `self` is a schedule that Kubernetes takes.
#[must_use]
pub fn schedule_rule() -> String {
    let macros: Vec<String> = MACROS.iter().map(|(name, _)| format!("'{name}'")).collect();
    let fields: Vec<String> = BOUNDS.iter().map(field).collect();
    // Ranges are compared as numbers. No month and weekday share a name.
    let mut numbers =
        "self.lowerAscii().replace('\\t', ',').replace(' ', ',').replace('h(', '').replace(')', '')"
            .to_owned();
    for (names, least) in [(MONTHS, 1), (WEEKDAYS, 0)] {
        for (position, name) in names.iter().enumerate() {
            let _ = write!(numbers, ".replace('{name}', '{}')", least + position);
        }
    }
    format!(
        "self.startsWith('@') ? (self in [{macros}] || (self.matches('{every}') && \
string(duration(self.substring(7))) != '')) : (self.matches('^[ \\\\t]*{fields}[ \\\\t]*$') && !self.contains('TZ') && \
{numbers}.split(',').all(p, !p.matches('^[+]?[0-9]+-') || \
int(p.split('-')[0]) <= int(p.split('-')[1].split('/')[0])))",
        macros = macros.join(", "),
        every = "^@every [+-]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|\u{b5}s|\u{3bc}s|ms|s|m|h))+)$",
        fields = fields.join("[ \\\\t]+"),
    )
}

/// CEL: `self` is the name of a time zone that the API server knows. An empty one means UTC.
#[must_use]
pub fn timezone_rule() -> String {
    "self == '' || (self.lowerAscii() != 'local' && \
self.split('/').all(p, p.matches('^[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}$') && p != '.' && p != '..') && \
timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0)"
        .to_owned()
}

/// A regular expression for one field: a list of items, of which empty ones do not count.
fn field(bounds: &Bounds) -> String {
    let numbers = match (bounds.least, bounds.most) {
        (0, 59) => "[0-5]?[0-9]",
        (0, 23) => "(1?[0-9]|2[0-3])",
        (1, 31) => "([1-9]|[12][0-9]|3[01])",
        (1, 12) => "([1-9]|1[0-2])",
        _ => "[0-6]",
    };
    let spread = format!("H([(]0*{numbers}-0*{numbers}[)])?");
    let mut value = format!("[+]?0*{numbers}");
    if !bounds.names.is_empty() {
        value = format!("({value}|(?i:{}))", bounds.names.join("|"));
    }
    let step = |sign: &str| format!("(/{sign}0*[1-9][0-9]{{0,17}})?");
    let (signed, unsigned) = (step("[+]?"), step(""));
    let item = format!("(([*?](-[^,/ \\\\t]*)?|{value}(-{value})?){signed}|{spread}{unsigned})");
    format!("(,*{item}(,+{item})*,*|,+)")
}
