//! Durations as Go writes them.

use jiff::SignedDuration;

/// Parses a Go duration such as `1h30m` or `90s`, not below zero. `None` if it is not one.
#[must_use]
pub fn parse(text: &str) -> Option<SignedDuration> {
    let nanoseconds = nanoseconds(text.trim())?;
    (nanoseconds >= 0).then(|| SignedDuration::from_nanos(nanoseconds))
}

/// As Go's `time.ParseDuration`: an optional sign, then numbers with units, or "0".
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, tail) = digits(rest);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => digits(tail),
            None => ("", tail),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        total = total.checked_add(amount(whole, fraction, unit(name)?)?)?;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return None;
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit(name: &str) -> Option<i128> {
    Some(match name {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn amount(whole: &str, fraction: &str, unit: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut share = unit;
    for digit in fraction.chars().take(18) {
        // Exact while the share is divisible; what is left is less than a nanosecond.
        total = total.checked_add(i128::from(digit.to_digit(10)?) * share / 10)?;
        share /= 10;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        assert_eq!(parse("1h30m"), Some(SignedDuration::from_mins(90)));
        assert_eq!(parse("1.5s"), Some(SignedDuration::from_millis(1500)));
        assert_eq!(parse(".5h"), Some(SignedDuration::from_mins(30)));
        assert_eq!(parse("0"), Some(SignedDuration::ZERO));
        for bad in ["", "5", "h", "1x", "-5s", ".s", "1h 2m", "9999999999h"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
