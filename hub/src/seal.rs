//! Texts that only this process can read: cursors, which would otherwise show what is outside of a person's scope.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::authority::{IssueError, random};

/// Texts have one of few lengths, so that their length tells nothing.
const BLOCK: usize = 128;

/// A key of this run of the hub.
pub struct Seal(LessSafeKey);

impl Seal {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Seal, IssueError> {
        let failed = |_| IssueError::Authority("no key could be made".to_owned());
        let key = UnboundKey::new(&AES_256_GCM, &random::<32>()?).map_err(failed)?;
        Ok(Seal(LessSafeKey::new(key)))
    }

    /// Seals a text for a use.
    ///
    /// # Errors
    /// As above.
    pub fn close(&self, used_for: &str, text: &str) -> Result<String, IssueError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = text.as_bytes().to_vec();
        // Zeros are no part of a text.
        sealed.resize(sealed.len().div_ceil(BLOCK).max(1) * BLOCK, 0);
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(nonce_of, Aad::from(used_for), &mut sealed)
            .map_err(|_| IssueError::Authority("a text could not be sealed".to_owned()))?;
        Ok(hex::encode([nonce.as_slice(), &sealed].concat()))
    }

    /// The text that was sealed for a use; `None` for anything else, also for what another run of the hub has sealed.
    #[must_use]
    pub fn open(&self, used_for: &str, sealed: &str) -> Option<String> {
        let mut bytes = hex::decode(sealed).ok()?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.0.open_in_place(nonce, Aad::from(used_for), text).ok()?;
        let text = std::str::from_utf8(text).ok()?;
        Some(text.trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_for_its_use_only_and_shows_nothing() {
        let (seal, other) = (Seal::new().unwrap(), Seal::new().unwrap());
        let sealed = seal.close("audit", "5/ab/7/9").unwrap();
        assert_eq!(seal.open("audit", &sealed).as_deref(), Some("5/ab/7/9"));
        assert_eq!(seal.open("plans", &sealed), None);
        assert_eq!(other.open("audit", &sealed), None);
        for wrong in ["", "zz", "00", &sealed[2..]] {
            assert_eq!(seal.open("audit", wrong), None, "{wrong}");
        }
        let longer = seal.close("audit", "500000/ab/70000/9000").unwrap();
        assert_eq!(sealed.len(), longer.len());
        assert_ne!(sealed, seal.close("audit", "5/ab/7/9").unwrap());
    }
}
