//! What hub and spoke read in a certificate besides its names. Pure.

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The certificate is not DER of an X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read")]
pub struct Unreadable;

/// SHA-256 of a public key (SubjectPublicKeyInfo, DER): what a pin names.
pub type KeyHash = [u8; 32];

/// Times and key of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Lower-case hex digits, without a sign.
    pub serial: String,
    /// Begin and end of its validity, in milliseconds since 1970.
    pub begins: i64,
    pub expires: i64,
    /// Of its own key.
    pub key: KeyHash,
}

/// Reads a certificate, DER.
///
/// # Errors
/// When it does not parse.
pub fn read(der: &[u8]) -> Result<Facts, Unreadable> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
    let validity = certificate.validity();
    Ok(Facts {
        serial: format!("{:x}", certificate.serial),
        begins: validity.not_before.timestamp().saturating_mul(1000),
        expires: validity.not_after.timestamp().saturating_mul(1000),
        key: key_hash(certificate.public_key().raw),
    })
}

/// The hash of a SubjectPublicKeyInfo, DER.
#[must_use]
pub fn key_hash(public_key_info: &[u8]) -> KeyHash {
    Sha256::digest(public_key_info).into()
}

/// Header of the hub's answers to people: [`announcement`] of the authorities that its certificates are of.
pub const AUTHORITIES_HEADER: &str = "fleet-authorities";

/// An authority that the hub announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    pub key: KeyHash,
    /// It will sign next, and does not yet.
    pub next: bool,
}

/// Authorities as a header has them: hex digits of their keys with commas between them, and "+" before what signs next.
#[must_use]
pub fn announcement(authorities: &[Announced]) -> String {
    let text = |one: &Announced| {
        let digits = one.key.iter().map(|byte| format!("{byte:02x}"));
        format!(
            "{}{}",
            if one.next { "+" } else { "" },
            digits.collect::<String>()
        )
    };
    authorities.iter().map(text).collect::<Vec<String>>().join(",")
}

/// The authorities of such a header; `None` when it cannot be read.
#[must_use]
pub fn announced(text: &str) -> Option<Vec<Announced>> {
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let one = |text: &str| {
        let digits = text.strip_prefix('+').unwrap_or(text);
        let pairs = digits.as_bytes().chunks(2).filter(|_| digits.len() == 64);
        let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
        Some(Announced {
            key: bytes?.try_into().ok()?,
            next: digits.len() < text.len(),
        })
    };
    text.split(',').map(one).collect()
}

/// The certificate among `presented` (DER) whose key a pin names.
#[must_use]
pub fn pinned<'a>(presented: impl IntoIterator<Item = &'a [u8]>, pin: &KeyHash) -> Option<&'a [u8]> {
    presented
        .into_iter()
        .find(|der| read(der).is_ok_and(|facts| facts.key == *pin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["hub".to_owned()]).unwrap();
        parameters.serial_number = Some(rcgen::SerialNumber::from(vec![0x0a, 0xbc]));
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 1, 2);
        parameters.self_signed(&key).unwrap()
    }

    #[test]
    fn serial_and_times_are_read() {
        let facts = read(certificate().der()).unwrap();
        assert_eq!(facts.serial, "abc");
        assert_eq!(facts.expires - facts.begins, 86_400_000);
        assert_eq!(read(b"junk"), Err(Unreadable));
    }

    #[test]
    fn an_announcement_is_read_as_it_was_written() {
        let one = |byte, next| Announced {
            key: [byte; 32],
            next,
        };
        let all = [one(0xab, false), one(1, true)];
        let text = announcement(&all);
        assert!(text.starts_with("abab") && text.contains(",+0101"), "{text}");
        assert_eq!(announced(&text).unwrap(), all);
        for wrong in ["", "ab", "+", &text[1..], &format!("{text},")] {
            assert_eq!(announced(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pin_names_one_key() {
        let (one, two) = (certificate(), certificate());
        let chain = || [one.der().as_ref(), two.der().as_ref()];
        let pin = read(two.der()).unwrap().key;
        assert_eq!(pinned(chain(), &pin), Some(two.der().as_ref()));
        assert_eq!(pinned([one.der().as_ref()], &pin), None);
        assert_eq!(pinned([&b"junk"[..]], &pin), None);
    }
}
