//! When a certificate is renewed. Pure.

/// Part of the life after which a certificate is renewed, and how much of the life that is shifted at most.
const HALF: f64 = 0.5;
const SPREAD: f64 = 0.1;

/// When a certificate is to be renewed: half-way through its life, shifted by up to a tenth of the life either way.
/// Times are milliseconds since 1970; `draw` is a random number from 0 up to 1, which spreads the clusters of a fleet.
#[must_use]
pub fn due(begins: i64, expires: i64, draw: f64) -> i64 {
    let life = expires.saturating_sub(begins).max(0);
    let part = HALF + SPREAD * (2.0 * draw.clamp(0.0, 1.0) - 1.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "lives are years at most, and milliseconds of them fit"
    )]
    let after = (life as f64 * part) as i64;
    begins.saturating_add(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_way_and_spread_by_a_tenth() {
        let day = 86_400_000;
        assert_eq!(due(0, day, 0.5), day / 2);
        assert_eq!(due(0, day, 0.0), day * 4 / 10);
        assert_eq!(due(0, day, 1.0), day * 6 / 10);
        assert_eq!(due(1_000, 500, 0.3), 1_000, "a life that is none is over");
        assert!(due(i64::MIN, i64::MAX, 7.0) > i64::MIN);
    }
}
