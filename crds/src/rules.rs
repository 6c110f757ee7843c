//! The language of retention rules: what may be written in `selector` and `retention`, and what it means. The schema,
//! the operator, the hub and the maintenance pod all use this one parser. It takes what restic 0.18 takes, except
//! spellings that restic reads in a way their writer cannot have meant (a unit twice, surrounding white space).

use std::fmt;
use std::str::FromStr;

use crate::common::RetentionPolicy;
use crate::retention::PolicyRule;

/// Version of the language. It rises with each kind of rule that an older reader would not carry out. A newer version
/// may narrow what a selector matches, and never widens it: an older reader keeps all that the selector it can read
/// matches.
pub const RULES_VERSION: u32 = 2;
/// Version that selectors, and rules without `groupBy`, need.
pub const PLAIN_VERSION: u32 = 1;

/// Spans such as `14d` or `1y6m`: number and unit (y, m, d, h), each unit once, in any order.
pub const PATTERN: &str = "^([0-9]{1,6}[ymdh]){1,4}$";
/// A unit that is given twice. restic would use the last one.
pub const REPEATED: &str = "y.*y|m.*m|d.*d|h.*h";
/// What a tag must not hold: restic ends a tag at a comma, and removes white space at both ends.
pub const BAD_TAG: &str = "[,\\x00\\n\\r]";

/// Names of the counts, in the order of [`Rule::counts`].
pub const COUNTS: [&str; 6] = [
    "keepLast",
    "keepHourly",
    "keepDaily",
    "keepWeekly",
    "keepMonthly",
    "keepYearly",
];
/// Names of the spans, in the order of [`Rule::spans`].
pub const SPANS: [&str; 6] = [
    "keepWithin",
    "keepWithinHourly",
    "keepWithinDaily",
    "keepWithinWeekly",
    "keepWithinMonthly",
    "keepWithinYearly",
];

/// What snapshots can be grouped by.
pub const GROUPS: [&str; 3] = ["host", "paths", "tags"];
/// What the schema says of `groupBy`.
pub const BAD_GROUPS: &str = "groupBy takes host, tags and paths";

/// What the schema says of a rule that keeps nothing.
pub const KEEPS_NOTHING: &str =
    "at least one keep rule must be greater than zero: write keepDaily: 7, for example";
/// What the schema says of a rule with keepTags alone.
pub const TAGS_ALONE: &str = "keepTags alone cannot be used, because restic refuses to remove every snapshot of a group \
                              without such a tag: add keepLast: 1, for example";
/// What the schema says of a span.
pub const BAD_SPAN: &str =
    "write a number and y, m, d or h, each unit once, such as 14d or 1y6m; for weeks write days";
/// What the schema says of a host name.
pub const BAD_HOSTNAME: &str = "hostname must not hold line breaks";
/// What the schema says of a tag.
pub const BAD_TAGS: &str =
    "tags must not be empty, hold commas or line breaks, or begin or end with white space";

/// A span of time, as restic's `--keep-within` takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub years: u32,
    pub months: u32,
    pub days: u32,
    pub hours: u32,
}

impl Span {
    /// Whether it keeps nothing, like a count of 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Span::default()
    }
}

/// A text that is no span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{BAD_SPAN}")]
pub struct BadSpan;

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Span, BadSpan> {
        let mut span = Span::default();
        let mut seen = [false; 4];
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let unit = rest.as_bytes().get(digits).ok_or(BadSpan)?;
            let (at, field) = match unit {
                b'y' => (0, &mut span.years),
                b'm' => (1, &mut span.months),
                b'd' => (2, &mut span.days),
                b'h' => (3, &mut span.hours),
                _ => return Err(BadSpan),
            };
            if digits > 6 || std::mem::replace(&mut seen[at], true) {
                return Err(BadSpan);
            }
            *field = rest[..digits].parse().map_err(|_| BadSpan)?;
            rest = &rest[digits + 1..];
        }
        if seen == [false; 4] {
            return Err(BadSpan);
        }
        Ok(span)
    }
}

/// A rule, borrowed from a resource or from a message of the link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rule<'a> {
    /// Tags that a snapshot must carry, all of them.
    pub tags: &'a [String],
    /// Host name that it must have; empty for any.
    pub hostname: &'a str,
    /// In the order of [`COUNTS`]; 0 is no rule.
    pub counts: [i64; 6],
    /// In the order of [`SPANS`]; an empty text is no rule.
    pub spans: [&'a str; 6],
    pub keep_tags: &'a [String],
    /// Of [`GROUPS`]; all of them if it is empty.
    pub group_by: &'a [String],
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    #[error("retention keeps nothing: {KEEPS_NOTHING}")]
    KeepsNothing,
    #[error("retention: {TAGS_ALONE}")]
    TagsAlone,
    #[error("retention.{0} is negative")]
    Negative(&'static str),
    #[error("retention.{0}: {1:?} is not a span: {BAD_SPAN}")]
    Span(&'static str, String),
    #[error("groupBy: {0:?} is unknown: {BAD_GROUPS}")]
    Group(String),
    #[error("{0}: {1:?} cannot be used: {2}")]
    Text(&'static str, String, BadText),
}

/// Why restic would not read a text as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadText {
    Empty,
    Comma,
    Control,
    Surrounded,
}

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadText::Empty => "it is empty",
            BadText::Comma => "restic reads a comma as the end of a tag",
            BadText::Control => "it holds a line break or a NUL character",
            BadText::Surrounded => "restic removes white space at its beginning and end",
        })
    }
}

/// Whether restic reads a tag as it is written.
///
/// # Errors
/// Why not.
pub fn check_tag(tag: &str) -> Result<(), BadText> {
    if tag.trim().is_empty() {
        Err(BadText::Empty)
    } else if tag.contains(['\0', '\n', '\r']) {
        Err(BadText::Control)
    } else if tag.contains(',') {
        Err(BadText::Comma)
    } else if tag.trim() != tag {
        Err(BadText::Surrounded)
    } else {
        Ok(())
    }
}

impl<'a> Rule<'a> {
    /// The rule of a resource.
    #[must_use]
    pub fn of(part: &'a PolicyRule) -> Rule<'a> {
        let selector = &part.selector;
        Rule {
            tags: &selector.tags,
            hostname: selector.hostname.as_deref().unwrap_or_default(),
            group_by: &part.group_by,
            ..Rule::keeping(&part.retention)
        }
    }

    /// What is kept, of all snapshots.
    #[must_use]
    pub fn keeping(keep: &'a RetentionPolicy) -> Rule<'a> {
        let count = |n: Option<i32>| n.map_or(0, i64::from);
        fn span(text: &Option<String>) -> &str {
            text.as_deref().unwrap_or_default()
        }
        Rule {
            counts: [
                count(keep.keep_last),
                count(keep.keep_hourly),
                count(keep.keep_daily),
                count(keep.keep_weekly),
                count(keep.keep_monthly),
                count(keep.keep_yearly),
            ],
            spans: [
                span(&keep.keep_within),
                span(&keep.keep_within_hourly),
                span(&keep.keep_within_daily),
                span(&keep.keep_within_weekly),
                span(&keep.keep_within_monthly),
                span(&keep.keep_within_yearly),
            ],
            keep_tags: &keep.keep_tags,
            ..Rule::default()
        }
    }

    /// Whether it can be carried out as it is written.
    ///
    /// # Errors
    /// The first thing that is wrong, with its field.
    pub fn check(&self) -> Result<(), BadRule> {
        let text =
            |field, text: &String| check_tag(text).map_err(|why| BadRule::Text(field, text.clone(), why));
        self.tags.iter().try_for_each(|tag| text("selector.tags", tag))?;
        if self.hostname.contains(['\0', '\n', '\r']) {
            let host = self.hostname.to_owned();
            return Err(BadRule::Text("selector.hostname", host, BadText::Control));
        }
        self.keep_tags
            .iter()
            .try_for_each(|tag| text("retention.keepTags", tag))?;
        if let Some(unknown) = self.group_by.iter().find(|by| !GROUPS.contains(&by.as_str())) {
            return Err(BadRule::Group(unknown.clone()));
        }
        let mut keeps = false;
        for (name, count) in COUNTS.into_iter().zip(self.counts) {
            if count < 0 {
                return Err(BadRule::Negative(name));
            }
            keeps |= count > 0;
        }
        let spans = SPANS.into_iter().zip(self.spans);
        for (name, text) in spans.filter(|(_, text)| !text.is_empty()) {
            let span = Span::from_str(text).map_err(|_| BadRule::Span(name, text.to_owned()))?;
            keeps |= !span.is_zero();
        }
        match (keeps, self.keep_tags) {
            (true, _) => Ok(()),
            (false, []) => Err(BadRule::KeepsNothing),
            (false, _) => Err(BadRule::TagsAlone),
        }
    }

    /// Version of the language that a reader needs to carry the rule out.
    #[must_use]
    pub fn version(&self) -> u32 {
        if self.group_by.is_empty() {
            PLAIN_VERSION
        } else {
            RULES_VERSION
        }
    }

    /// The part of the selector that can be used. It matches all that the selector as a whole could match.
    #[must_use]
    pub fn usable_selector(&self) -> (Vec<String>, String) {
        let tags = self.tags.iter().filter(|tag| check_tag(tag).is_ok());
        let usable = !self.hostname.contains(['\0', '\n', '\r']);
        let host = if usable { self.hostname } else { "" };
        (tags.cloned().collect(), host.to_owned())
    }
}

/// CEL: at least one count or span of `of` is greater than zero.
fn keeps_by_time(of: &str) -> String {
    let counts = COUNTS.map(|name| format!("(has({of}.{name}) && {of}.{name} > 0)"));
    let spans = SPANS.map(|name| format!("(has({of}.{name}) && {of}.{name}.matches('[1-9]'))"));
    [counts, spans].concat().join(" || ")
}

/// CEL: there is a keep rule in `of`, such as `self`.
#[must_use]
pub fn keeps_something(of: &str) -> String {
    format!("{} || {}", keeps_by_time(of), has_tags(of))
}

/// CEL: keepTags is not the only keep rule of `of`.
#[must_use]
pub fn keeps_more_than_tags(of: &str) -> String {
    format!("{} || !({})", keeps_by_time(of), has_tags(of))
}

fn has_tags(of: &str) -> String {
    format!("(has({of}.keepTags) && {of}.keepTags.size() > 0)")
}

/// CEL of a backup's `retention`: it is off, or this holds of its policy.
#[must_use]
pub fn off_or(rule: fn(&str) -> String) -> String {
    format!(
        "!(has(self.enabled) && self.enabled) || (has(self.policy) && ({}))",
        rule("self.policy")
    )
}

/// CEL: what snapshots are grouped by.
#[must_use]
pub fn groups_rule() -> String {
    format!("self.all(g, g in ['{}'])", GROUPS.join("', '"))
}

/// CEL: a span. An empty text is no rule.
#[must_use]
pub fn span_rule() -> String {
    format!("self == '' || (self.matches('{PATTERN}') && !self.matches('{REPEATED}'))")
}

/// CEL: a host name of a selector.
#[must_use]
pub fn hostname_rule() -> String {
    r"!self.matches('[\x00\n\r]')".to_owned()
}

/// CEL: tags that restic reads as they are written.
#[must_use]
pub fn tags_rule() -> String {
    format!("self.all(t, t != '' && t.trim() == t && !t.matches('{BAD_TAG}'))")
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
