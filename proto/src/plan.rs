//! The hash of a retention plan: worker, hub and CLI compute it alike, so that what a person sees is what was approved.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

/// Hash of the snapshots that go, 64 hex digits: it changes when any of them does, and not when others come. `ids` are
/// full ids in any order.
#[must_use]
pub fn hash<'a>(restic_id: &str, ids: impl IntoIterator<Item = &'a str>) -> String {
    let ids: BTreeSet<&str> = ids.into_iter().collect();
    let mut digest = Sha256::new();
    digest.update(restic_id.as_bytes());
    for id in ids {
        digest.update(b"\n");
        digest.update(id.as_bytes());
    }
    hex::encode(digest.finalize())
}

/// Whether a text is an id as restic writes it: 64 lower-case hex digits.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_matter_and_each_id_does() {
        assert_eq!(hash("r", ["b", "a", "b"]), hash("r", ["a", "b"]));
        assert_ne!(hash("r", ["a"]), hash("r", ["a", "b"]));
        assert_ne!(hash("r", ["a"]), hash("q", ["a"]));
        assert_eq!(
            hash("r", ["a"]),
            "e4db90857248e66ee7a04c0c941fb7c33476964023575bfcee18aeea74e8ba59"
        );
    }

    #[test]
    fn ids_are_64_lower_case_hex_digits() {
        assert!(is_id(&"0af9".repeat(16)));
        for wrong in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }
}
