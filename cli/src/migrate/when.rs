//! Schedules of other tools, as ours are written. Pure.

/// A schedule of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    pub schedule: String,
    pub timezone: Option<String>,
    /// What could not be carried over.
    pub note: Option<String>,
}

/// Where nothing better is known: once a day, at a time that follows from the resource's name.
pub const DAILY: &str = "H H * * *";
const MACROS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// Reads a schedule of five fields, `@daily` and the like, k8up's `@daily-random`, and `@every`, with a time zone before it.
#[must_use]
pub fn when(text: &str) -> When {
    let text = text.trim();
    let (zone, text) = match text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
        Some(rest) => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        None => ("", text),
    };
    let timezone = (!zone.is_empty()).then(|| zone.to_owned());
    let text = text.trim();
    let known = |schedule: &str| When {
        schedule: schedule.to_owned(),
        timezone: timezone.clone(),
        note: None,
    };
    let random = match text {
        "@hourly-random" => "H * * * *",
        "@daily-random" | "@midnight-random" => DAILY,
        "@weekly-random" => "H H * * H",
        "@monthly-random" => "H H H * *",
        "@yearly-random" | "@annually-random" => "H H H H *",
        _ => "",
    };
    if !random.is_empty() {
        return known(random);
    }
    if MACROS.contains(&text) {
        return known(text);
    }
    if let Some(schedule) = text.strip_prefix("@every ").and_then(every) {
        return known(&schedule);
    }
    let fields = text.split_whitespace().count();
    if fields == 5 && !text.starts_with('@') {
        return known(text);
    }
    When {
        note: Some(format!(
            "the schedule {text:?} has no equal here; {DAILY:?} (once a day) stands in its place"
        )),
        ..known(DAILY)
    }
}

/// Five fields for an interval that divides an hour or a day.
fn every(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text
        .strip_suffix("0s")
        .filter(|text| text.ends_with('m'))
        .unwrap_or(text);
    let text = text
        .strip_suffix("0m")
        .filter(|text| text.ends_with('h'))
        .unwrap_or(text);
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u32 = count.parse().ok().filter(|count| *count > 0)?;
    match unit {
        "h" if count == 24 => Some(DAILY.to_owned()),
        "h" if 24 % count == 0 => Some(format!("H */{count} * * *")),
        "m" if count == 60 => Some("H * * * *".to_owned()),
        "m" if count < 60 && 60 % count == 0 => Some(format!("*/{count} * * * *")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_carried_over_or_named() {
        for (theirs, ours) in [
            ("30 2 * * *", "30 2 * * *"),
            ("@daily", "@daily"),
            ("@daily-random", "H H * * *"),
            ("@weekly-random", "H H * * H"),
            ("@every 6h", "H */6 * * *"),
            ("@every 24h0m0s", "H H * * *"),
            ("@every 15m", "*/15 * * * *"),
        ] {
            let found = when(theirs);
            assert_eq!((found.schedule.as_str(), &found.note), (ours, &None), "{theirs}");
        }
        let zoned = when("CRON_TZ=Europe/Berlin 0 3 * * 1");
        assert_eq!(zoned.schedule, "0 3 * * 1");
        assert_eq!(zoned.timezone.as_deref(), Some("Europe/Berlin"));
        for strange in ["@every 7h", "0 30 2 * * *", "", "@reboot"] {
            let found = when(strange);
            assert!(found.note.is_some() && found.schedule == DAILY, "{strange}");
        }
    }
}
