//! Figures for people. The exact ones stand beside them.

use jiff::SignedDuration;

/// `1.5 GiB`, as restic prints sizes.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: &[&str] = &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
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

/// Bytes of a quantity as Kubernetes writes it, such as `10Gi`; `None` for what is none.
#[must_use]
pub fn quantity(text: &str) -> Option<u64> {
    const FACTORS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    let suffixed = FACTORS.into_iter().find_map(|(suffix, factor)| {
        let number = text.strip_suffix(suffix)?;
        Some((number, factor))
    });
    let (number, factor) = suffixed.unwrap_or((text, 1.0));
    let value = number.parse::<f64>().ok()? * factor;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is checked"
    )]
    (value.is_finite() && (0.0..1.8e19).contains(&value)).then_some(value.round() as u64)
}

/// `1h2m3s`, in whole seconds.
#[must_use]
pub fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536 << 20), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(SignedDuration::from_secs(3723)), "1h2m3s");
        assert_eq!(duration(SignedDuration::from_secs(59)), "59s");
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [
            ("5368709120", 5 << 30),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            ("20G", 20_000_000_000),
            ("1e3", 1000),
            ("128974848000m", 128_974_848),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(quantity(text), Some(bytes), "{text}");
        }
        for none in ["", "Gi", "-1", "-5Gi", "much", "inf", "1e30", "NaN"] {
            assert_eq!(quantity(none), None, "{none}");
        }
    }
}
