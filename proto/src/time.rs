//! Times on the wire: seconds and nanoseconds since the Unix epoch, as protobuf's well-known type has them.

use prost_types::Timestamp;

/// A wire time out of seconds since the Unix epoch.
#[must_use]
pub fn from_unix(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// A wire time out of milliseconds since the Unix epoch.
#[must_use]
pub fn from_unix_millis(millis: i64) -> Timestamp {
    let nanos = i32::try_from(millis.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Timestamp {
        seconds: millis.div_euclid(1000),
        nanos,
    }
}

/// Milliseconds since the Unix epoch of a wire time.
#[must_use]
pub fn to_unix_millis(time: &Timestamp) -> i64 {
    time.seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(time.nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_the_wire() {
        for millis in [-1_500, -1, 0, 1, 999, 1_000, 1_795_000_000_123] {
            assert_eq!(to_unix_millis(&from_unix_millis(millis)), millis);
        }
    }
}
