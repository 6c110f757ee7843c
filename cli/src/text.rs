//! Figures and times for people.

use jiff::Timestamp;
use prost_types::Timestamp as WireTime;
use proto::v1::RunProgress;

/// `1 cluster`, `2 clusters`.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    let noun = if count == 1 { one } else { many };
    format!("{count} {noun}")
}

/// `1.5 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{count} {name}")
    } else {
        format!("{value:.1} {name}")
    }
}

/// A wire time.
#[must_use]
pub fn time(time: Option<&WireTime>) -> Option<Timestamp> {
    time.and_then(|t| Timestamp::from_millisecond(proto::time::to_unix_millis(t)).ok())
}

/// RFC 3339.
#[must_use]
pub fn rfc3339(at: Option<&WireTime>) -> Option<String> {
    time(at).map(|t| t.to_string())
}

/// `2h`, of a number of milliseconds.
#[must_use]
pub fn millis(count: u64) -> String {
    span(i64::try_from(count / 1000).unwrap_or(i64::MAX))
}

/// `2h`, of a number of seconds.
fn span(seconds: i64) -> String {
    match seconds {
        s if s < 120 => format!("{s}s"),
        s if s < 2 * 3600 => format!("{}m", s / 60),
        s if s < 48 * 3600 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// `2h ago`; `-` when it never was.
#[must_use]
pub fn ago(at: Option<&WireTime>, now: Timestamp) -> String {
    time(at).map_or_else(
        || "-".to_owned(),
        |t| format!("{} ago", span(now.duration_since(t).as_secs().max(0))),
    )
}

/// `in 2h`; `due` when that is past.
#[must_use]
pub fn until(at: Option<&WireTime>, now: Timestamp) -> String {
    match time(at).map(|t| t.duration_since(now).as_secs()) {
        None => "-".to_owned(),
        Some(seconds) if seconds <= 0 => "due".to_owned(),
        Some(seconds) => format!("in {}", span(seconds)),
    }
}

/// First ten digits of an id; `-` when there is none.
#[must_use]
pub fn short(id: &str) -> &str {
    if id.is_empty() {
        "-"
    } else {
        id.get(..10).unwrap_or(id)
    }
}

/// `42%, 1.2 GiB of 3.0 GiB, ends in 5m`; of a check or a prune `70%, 7 / 10 packs`. `-` when nothing runs.
#[must_use]
pub fn progress(progress: Option<&RunProgress>, now: Timestamp) -> String {
    let Some(progress) = progress else {
        return "-".to_owned();
    };
    let percent = progress.percent.map(|percent| format!("{percent}%"));
    let read = match (progress.bytes_done, progress.bytes_total) {
        (Some(done), Some(total)) => Some(format!("{} of {}", bytes(done), bytes(total))),
        (Some(done), None) => Some(bytes(done)),
        (None, _) => None,
    };
    let step = Some(progress.step.clone()).filter(|step| !step.is_empty());
    let end = progress.estimated_completion.as_ref();
    let end = end.map(|end| match until(Some(end), now).as_str() {
        "due" => "ends soon".to_owned(),
        left => format!("ends {left}"),
    });
    let parts: Vec<String> = [percent, read, step, end].into_iter().flatten().collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_what_is_known() {
        let now = Timestamp::from_second(1_000_000).unwrap_or_default();
        let mut run = RunProgress {
            percent: Some(42),
            bytes_done: Some(1 << 30),
            bytes_total: Some(3 << 30),
            estimated_completion: Some(WireTime {
                seconds: 1_000_300,
                nanos: 0,
            }),
            ..RunProgress::default()
        };
        assert_eq!(progress(Some(&run), now), "42%, 1.0 GiB of 3.0 GiB, ends in 5m");
        run.estimated_completion = Some(WireTime { seconds: 1, nanos: 0 });
        assert_eq!(progress(Some(&run), now), "42%, 1.0 GiB of 3.0 GiB, ends soon");
        let prune = RunProgress {
            percent: Some(70),
            step: "7 / 10 packs".to_owned(),
            ..RunProgress::default()
        };
        assert_eq!(progress(Some(&prune), now), "70%, 7 / 10 packs");
        assert_eq!(progress(None, now), "-");
    }

    #[test]
    fn ages_read_well() {
        let now = Timestamp::from_second(1_000_000).unwrap_or_default();
        let at = |seconds: i64| Some(WireTime { seconds, nanos: 0 });
        assert_eq!(ago(at(999_990).as_ref(), now), "10s ago");
        assert_eq!(ago(at(1_000_000 - 3 * 3600).as_ref(), now), "3h ago");
        assert_eq!(ago(None, now), "-");
        assert_eq!(until(at(1_000_300).as_ref(), now), "in 5m");
        assert_eq!(until(at(999_999).as_ref(), now), "due");
    }
}
