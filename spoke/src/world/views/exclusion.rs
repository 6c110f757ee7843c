//! What a person has written about a claim or a namespace that nobody is to back up.

use crds::names;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::meta::annotation;

/// Longest reason that is kept.
const LONGEST: usize = 256;

/// Why nobody backs something up, and until when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusion {
    /// Empty where the exclusion does not count.
    pub reason: Box<str>,
    pub until: Option<Timestamp>,
    /// Why it does not count; empty where it does.
    pub fault: Box<str>,
}

impl Exclusion {
    /// By the annotations of an object; `None` without one.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Option<Exclusion> {
        let text = annotation(meta, names::ANNOTATION_EXCLUDE);
        let until = annotation(meta, names::ANNOTATION_EXCLUDE_UNTIL);
        let fault = |fault: String| {
            Some(Exclusion {
                fault: fault.into(),
                ..Exclusion::default()
            })
        };
        let Some(text) = text else {
            let without = until.map(|_| format!("{} without a reason", names::ANNOTATION_EXCLUDE_UNTIL));
            return without.and_then(fault);
        };
        let reason: String = text.trim().chars().take(LONGEST).collect();
        if reason.is_empty() || reason.eq_ignore_ascii_case("true") {
            return fault(format!(
                "{} must say why in its value, such as \"a cache\"",
                names::ANNOTATION_EXCLUDE
            ));
        }
        let until = match until.map(|text| (text, time(text.trim()))) {
            None => None,
            Some((_, Some(until))) => Some(until),
            Some((text, None)) => {
                let text: String = text.chars().take(LONGEST).collect();
                return fault(format!(
                    "{} is {text:?}, and must be a day such as 2027-03-01, or a time as of RFC 3339",
                    names::ANNOTATION_EXCLUDE_UNTIL
                ));
            }
        };
        Some(Exclusion {
            reason: reason.into(),
            until,
            fault: Box::default(),
        })
    }

    /// Whether it says why.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.reason.is_empty()
    }
}

fn time(text: &str) -> Option<Timestamp> {
    let day = || {
        let day: Date = text.parse().ok()?;
        Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    text.parse().ok().or_else(day)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(exclude: Option<&str>, until: Option<&str>) -> Option<Exclusion> {
        let annotations = [
            (names::ANNOTATION_EXCLUDE, exclude),
            (names::ANNOTATION_EXCLUDE_UNTIL, until),
        ];
        let annotations = annotations.into_iter();
        let annotations: BTreeMap<String, String> = annotations
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        Exclusion::of(&ObjectMeta {
            annotations: Some(annotations),
            ..ObjectMeta::default()
        })
    }

    #[test]
    fn only_an_exclusion_with_a_reason_and_a_proper_end_counts() {
        assert_eq!(of(None, None), None);
        let cache = of(Some(" a cache "), None).unwrap();
        assert_eq!(
            (&*cache.reason, cache.until, cache.counts()),
            ("a cache", None, true)
        );
        let day: Timestamp = "2027-03-01T00:00:00Z".parse().unwrap();
        for until in ["2027-03-01", "2027-03-01T01:00:00+01:00"] {
            assert_eq!(
                of(Some("a cache"), Some(until)).unwrap().until,
                Some(day),
                "{until}"
            );
        }
        for (exclude, until, says) in [
            (Some(""), None, "must say why"),
            (Some("true"), None, "must say why"),
            (Some("a cache"), Some("soon"), "\"soon\""),
            (Some("a cache"), Some("2027-02-30"), "must be a day"),
            (None, Some("2027-03-01"), "without a reason"),
        ] {
            let exclusion = of(exclude, until).unwrap();
            assert!(!exclusion.counts(), "{exclude:?} {until:?}");
            assert!(exclusion.fault.contains(says), "{}", exclusion.fault);
        }
    }
}
