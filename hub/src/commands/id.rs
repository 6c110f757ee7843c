//! Ids of commands. Pure.

use crate::Millis;

/// Alphabet of ids, in the order of ASCII.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// An id: 48 bits of time and 32 random ones as 16 of 0-9 and a-v, so that ids sort by time and fit into names of objects.
#[must_use]
pub fn id(now: Millis, random: u32) -> String {
    let bits = (u128::from(now.max(0).unsigned_abs()) & 0xffff_ffff_ffff) << 32 | u128::from(random);
    let digit = |place: u32| {
        let digit = usize::try_from((bits >> (5 * place)) & 31).unwrap_or_default();
        char::from(ALPHABET.get(digit).copied().unwrap_or(b'0'))
    };
    (0..16).rev().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_fit_into_names() {
        let ids = [
            id(1, u32::MAX),
            id(2, 0),
            id(1_790_000_000_000, 7),
            id(1_790_000_000_001, 0),
        ];
        assert!(ids.is_sorted(), "{ids:?}");
        for id in ids {
            assert_eq!(id.len(), 16);
            assert!(
                id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
                "{id}"
            );
        }
    }
}
