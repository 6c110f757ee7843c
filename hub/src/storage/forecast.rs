//! How a repository grows, out of what it had stored before. Pure. Too little to tell is said as that.

use crate::Millis;
use crate::store::collect::DAY;

/// Growth is told of figures that reach over so many days at least.
const SPAN: Millis = 7 * DAY;
/// And of so many figures.
const FEW: usize = 5;
/// Figures that end longer ago tell nothing of now.
const OLD: Millis = 7 * DAY;
/// More figures are thinned out: all pairs of them are looked at.
const MANY: usize = 120;
/// A time that is farther away is none.
const FAR: f64 = 3650.0;

/// Why growth is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing was collected.
    Nothing,
    /// Not long enough, or not often enough.
    Short,
    /// Not lately.
    Old,
}

impl Unknown {
    /// In one sentence.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Unknown::Nothing => "no cluster has collected figures of it",
            Unknown::Short => "its figures reach back for less than a week",
            Unknown::Old => "its last figures are more than a week old",
        }
    }
}

/// Bytes that a day adds: the median of what each two figures tell. A prune that removes much at once, or a night that adds
/// much, moves it little. `points` are times and bytes, oldest first.
///
/// # Errors
/// When too little is known.
pub fn per_day(points: &[(Millis, u64)], now: Millis) -> Result<f64, Unknown> {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        return Err(Unknown::Nothing);
    };
    if now.saturating_sub(*last) > OLD {
        return Err(Unknown::Old);
    }
    if points.len() < FEW || last - first < SPAN {
        return Err(Unknown::Short);
    }
    let step = points.len().div_ceil(MANY);
    // Thinned out from the end: the newest is among them.
    let thin: Vec<(Millis, u64)> = points.iter().rev().step_by(step).copied().collect();
    let mut slopes = Vec::with_capacity(thin.len() * thin.len() / 2);
    for (n, (late, more)) in thin.iter().enumerate() {
        for (early, less) in thin.iter().skip(n + 1) {
            if late > early {
                slopes.push((float(*more) - float(*less)) / days(late - early));
            }
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().ok_or(Unknown::Short)
}

/// Days until a capacity is reached: 0 when it is, `None` when it is not within ten years.
#[must_use]
pub fn days_until_full(stored: u64, capacity: u64, per_day: f64) -> Option<f64> {
    if stored >= capacity {
        return Some(0.0);
    }
    let days = float(capacity - stored) / per_day;
    (per_day > 0.0 && days <= FAR).then_some(days)
}

#[allow(clippy::cast_precision_loss, reason = "a forecast is no more exact than that")]
pub(super) fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[allow(clippy::cast_precision_loss, reason = "as above")]
fn days(time: Millis) -> f64 {
    time as f64 / DAY as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_000 * DAY;
    const GB: u64 = 1_000_000_000;

    /// A figure of each day up to now.
    fn series(count: i64, of: impl Fn(i64) -> u64) -> Vec<(Millis, u64)> {
        (0..count).map(|n| (NOW - (count - 1 - n) * DAY, of(n))).collect()
    }

    #[test]
    fn steady_growth_is_found_and_an_outlier_moves_it_little() {
        let steady = |n: i64| 100 * GB + n.unsigned_abs() * GB;
        let rate = per_day(&series(30, steady), NOW).unwrap();
        assert!((rate / float(GB) - 1.0).abs() < 1e-6, "{rate}");
        // Thinned out.
        let rate = per_day(&series(700, steady), NOW).unwrap();
        assert!((rate / float(GB) - 1.0).abs() < 1e-6, "{rate}");
        let spike = |n: i64| if n == 11 { 900 * GB } else { steady(n) };
        let rate = per_day(&series(30, spike), NOW).unwrap();
        assert!((rate / float(GB) - 1.0).abs() < 0.1, "{rate}");
        // A prune each week that removes six days of seven.
        let sawtooth = |n: i64| 100 * GB + (n / 7 + n % 7).unsigned_abs() * GB;
        let rate = per_day(&series(84, sawtooth), NOW).unwrap() / float(GB);
        assert!((0.1..0.2).contains(&rate), "{rate}: a seventh");
        let shrinking = |n: i64| 100 * GB - n.unsigned_abs() * GB;
        assert!(per_day(&series(30, shrinking), NOW).unwrap() < 0.0);
    }

    #[test]
    fn too_little_is_said_as_that() {
        let flat = |_| GB;
        assert_eq!(per_day(&[], NOW), Err(Unknown::Nothing));
        assert_eq!(per_day(&series(7, flat), NOW), Err(Unknown::Short));
        assert_eq!(per_day(&series(8, flat), NOW), Ok(0.0));
        assert_eq!(per_day(&series(30, flat), NOW + 8 * DAY), Err(Unknown::Old));
        let rare = [(NOW - 30 * DAY, 1), (NOW, 2)];
        assert_eq!(per_day(&rare, NOW), Err(Unknown::Short));
        // A clock that was set back between two of them.
        let twice: Vec<(Millis, u64)> = series(10, flat).into_iter().flat_map(|p| [p, p]).collect();
        assert_eq!(per_day(&twice, NOW), Ok(0.0));
    }

    #[test]
    fn a_capacity_is_reached_or_not() {
        assert_eq!(days_until_full(5, 5, -1.0), Some(0.0));
        assert_eq!(days_until_full(50, 100, 5.0), Some(10.0));
        assert_eq!(days_until_full(50, 100, 0.0), None);
        assert_eq!(days_until_full(50, 100, -3.0), None);
        assert_eq!(days_until_full(0, 100_000, 1.0), None, "not in ten years");
    }
}
