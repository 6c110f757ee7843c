//! `H` in a schedule: a value that follows from the name of the resource, so that many resources of one schedule do not
//! all start at once. As Jenkins has it: `H 3 * * *`, `H/15 * * * *`, `H H(0-7) * * *`, `H(0-29)/10 * * * *`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest as _, Sha256};

use super::ScheduleError;
use super::fields::{BOUNDS, Bounds, Fields};

/// Every month has these days.
const DAYS: u64 = 28;

/// What `H` stands for is the same for one resource as long as it has its name.
#[must_use]
pub fn seed(kind: &str, metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    format!("{kind}/{namespace}/{name}")
}

/// The schedule as Kubernetes takes it: each `H` is replaced by a value within its range
/// that follows from `seed` and the field. A schedule without `H` stays as it is, valid or not.
///
/// # Errors
/// Where an `H` is not written as `H`, `H(0-29)`, `H/15` or `H(0-29)/15`, or its range does not lie in the field.
pub fn resolve(schedule: &str, seed: &str) -> Result<String, ScheduleError> {
    let text = schedule.trim();
    let is_spread = |field: &str| field.split(',').any(|item| item.starts_with('H'));
    if text.starts_with('@') || !text.split_whitespace().any(is_spread) {
        return Ok(schedule.to_owned());
    }
    let bad = |detail: String| ScheduleError::Cron {
        schedule: schedule.to_owned(),
        detail,
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != BOUNDS.len() {
        return Err(bad(format!("it has {} fields instead of five", fields.len())));
    }
    let resolved: Result<Vec<String>, String> = fields
        .iter()
        .zip(&BOUNDS)
        .map(|(field, bounds)| of_field(field, bounds, seed))
        .collect();
    let resolved = resolved.map_err(bad)?.join(" ");
    Fields::parse(&resolved).map_err(bad)?;
    Ok(resolved)
}

fn of_field(field: &str, bounds: &Bounds, seed: &str) -> Result<String, String> {
    let items: Result<Vec<String>, String> = field
        .split(',')
        .map(|item| match item.strip_prefix('H') {
            Some(rest) => of_item(rest, bounds, seed).ok_or_else(|| {
                let (least, most) = (bounds.least, bounds.most);
                format!(
                    "{item:?} is not H, H/n or H({least}-{most}), with a range of the {} in it",
                    bounds.name
                )
            }),
            None => Ok(item.to_owned()),
        })
        .collect();
    Ok(items?.join(","))
}

/// What follows `H`: an optional range in brackets, and an optional step.
fn of_item(rest: &str, bounds: &Bounds, seed: &str) -> Option<String> {
    let (range, step) = match rest.split_once('/') {
        Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0)?)),
        None => (rest, None),
    };
    let (least, most) = if range.is_empty() {
        // A day that not every month has would leave months out.
        let days = bounds.least == 1 && bounds.most == 31;
        (bounds.least, if days { DAYS } else { bounds.most })
    } else {
        let (least, most) = range.strip_prefix('(')?.strip_suffix(')')?.split_once('-')?;
        (number(least)?, number(most)?)
    };
    if least < bounds.least || most > bounds.most || least > most {
        return None;
    }
    let choices = (most - least + 1).min(step.unwrap_or(u64::MAX));
    let value = least + hash(seed, bounds.name) % choices;
    Some(match step {
        Some(step) => format!("{value}-{most}/{step}"),
        None => value.to_string(),
    })
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Fields are independent of each other.
fn hash(seed: &str, field: &str) -> u64 {
    let digest = Sha256::digest(format!("{seed}/{field}").as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube::core::cel::Validator;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::schedule::Schedule;

    fn of(schedule: &str, name: &str) -> String {
        resolve(schedule, &seed("ResticBackup", &at(name))).unwrap()
    }

    fn at(name: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: Some("shop".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn admitted(schema: &Value, schedule: &str) -> bool {
        Validator::new()
            .validate(schema, &Value::from(schedule), None)
            .is_ok()
    }

    fn schema() -> Value {
        let crd = serde_json::to_value(crate::ResticBackup::crd()).unwrap();
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/schedule";
        crd.pointer(path).unwrap().clone()
    }

    /// A change of these values moves every backup of every cluster.
    #[test]
    fn a_resolution_stays_what_it_was() {
        assert_eq!(
            [
                of("H H * * *", "orders"),
                of("H/15 * * * *", "orders"),
                of("H H(0-7),H(12-20) H * H", "orders"),
            ],
            EXPECTED
        );
        assert_ne!(of("H H * * *", "orders"), of("H H * * *", "billing"));
        let other = resolve("H H * * *", &seed("GlobalRetentionPolicy", &at("orders"))).unwrap();
        assert_ne!(of("H H * * *", "orders"), other);
    }

    const EXPECTED: [&str; 3] = ["5 5 * * *", "5-59/15 * * * *", "5 5,14 25 * 3"];

    #[test]
    fn what_has_no_h_stays_as_it_is() {
        for text in ["30 2 * * THU", "@hourly", "@every 6h", "garbage", "0 0 * MARCH *"] {
            assert_eq!(of(text, "orders"), text);
        }
    }

    #[test]
    fn what_is_no_range_of_the_field_is_refused() {
        let schema = schema();
        for bad in [
            "H(0-60) * * * *",
            "* H(0-24) * * *",
            "* * H(0-28) * *",
            "H(29-0) * * * *",
            "H/0 * * * *",
            "H/+15 * * * *",
            "H(+0-29) * * * *",
            "H(0-29)/+15 * * * *",
            "H() * * * *",
            "H-5 * * * *",
            "H5 * * * *",
            "5-H * * * *",
            "H(1) * * * *",
            "H(1-2 * * * *",
            "H * * *",
            "H H H H H H",
            "H H * * 7",
            "h * * * *",
        ] {
            let taken = resolve(bad, "a").is_ok_and(|text| Schedule::parse(&text, "UTC").is_ok());
            assert!(!taken, "{bad}");
            assert!(!admitted(&schema, bad), "{bad}");
        }
    }

    #[test]
    fn names_are_spread_over_the_hour() {
        let minutes: std::collections::BTreeSet<String> = (0..600)
            .map(|n| of("H 3 * * *", &format!("backup-{n}")))
            .collect();
        assert_eq!(minutes.len(), 60, "{minutes:?}");
    }

    fn item(bounds: &'static Bounds) -> impl Strategy<Value = (String, u64, u64)> {
        let range =
            (bounds.least..=bounds.most).prop_flat_map(move |least| (Just(least), least..=bounds.most));
        (proptest::option::of(range), proptest::option::of(1u64..40)).prop_map(move |(range, step)| {
            let brackets = range.map_or_else(String::new, |(least, most)| format!("({least}-{most})"));
            let step = step.map_or_else(String::new, |step| format!("/{step}"));
            let (least, most) = range.unwrap_or((bounds.least, bounds.most));
            (format!("H{brackets}{step}"), least, most)
        })
    }

    proptest! {
        #[test]
        fn each_resolution_is_a_schedule_in_range(
            minute in item(&BOUNDS[0]), hour in item(&BOUNDS[1]), day in item(&BOUNDS[2]), month in item(&BOUNDS[3]),
            weekday in item(&BOUNDS[4]), seed in "[a-z/-]{1,20}",
        ) {
            let parts = [minute, hour, day, month, weekday];
            let text = parts.iter().map(|part| part.0.as_str()).collect::<Vec<_>>().join(" ");
            prop_assert!(admitted(&schema(), &text), "{}", text);
            let resolved = resolve(&text, &seed).unwrap();
            prop_assert!(Schedule::parse(&resolved, "UTC").is_ok(), "{}", resolved);
            prop_assert!(admitted(&schema(), &resolved), "{}", resolved);
            prop_assert_eq!(resolve(&text, &seed).unwrap(), resolved.clone());
            let fields = Fields::parse(&resolved).unwrap();
            let sets = [fields.minute, fields.hour, fields.day, fields.month, fields.weekday];
            for (set, (_, least, most)) in sets.into_iter().zip(&parts) {
                let inside = (0..64i8).filter(|value| set.has(*value)).map(|value| u64::try_from(value).unwrap());
                let inside: Vec<u64> = inside.collect();
                prop_assert!(!inside.is_empty() && inside.iter().all(|value| (least..=most).contains(&value)));
            }
        }
    }
}
