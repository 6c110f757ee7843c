//! The two Secrets of enrolment, in the operator's own namespace: what a person applies to join, and what the cluster got
//! for it. Values are never logged.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proto::certificate::{Facts, KeyHash, read};
use proto::v1::IssuedCertificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

/// What `fleet clusters join` makes.
pub const JOIN: &str = "fleet-spoke-join";
/// Key and certificate of this cluster.
pub const IDENTITY: &str = "fleet-spoke-identity";

/// What a person applied to join a fleet.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Join {
    pub token: String,
    /// SHA-256 of the public key of the hub's authority.
    pub pin: KeyHash,
    /// Where to enrol.
    pub enrol: String,
    /// Where to connect, and the name of this cluster.
    pub hub: String,
    pub cluster: String,
}

impl Join {
    /// Reads it.
    ///
    /// # Errors
    /// Which key is missing or malformed.
    pub fn parse(secret: &Secret) -> anyhow::Result<Join> {
        let text = |key: &str| -> anyhow::Result<String> {
            let value = value(secret, key).with_context(|| {
                format!("Secret {JOIN} has no key {key}; apply what `fleet clusters join` prints")
            })?;
            let text = String::from_utf8(value.to_vec());
            let text = text.with_context(|| format!("key {key} of Secret {JOIN} is no text"))?;
            Ok(text.trim().to_owned())
        };
        let pin = hex::decode(text("pin")?)
            .ok()
            .and_then(|pin| KeyHash::try_from(pin).ok());
        Ok(Join {
            token: text("token")?,
            pin: pin.with_context(|| format!("key pin of Secret {JOIN} is not 64 hex digits"))?,
            enrol: text("enrol")?,
            hub: text("hub")?,
            cluster: text("cluster")?,
        })
    }

    /// Names the token in the other Secret, without giving it away.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.token.as_bytes()))
    }
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// The identity of this cluster: a certificate with its key, and whom to trust.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// PEM.
    pub chain: String,
    pub key: String,
    pub authorities: String,
    /// Of the certificate.
    pub facts: Facts,
    /// Key of the authority that signed it.
    pub signer: Option<KeyHash>,
    /// Names the token that it was got for.
    pub joined: String,
    pub hub: String,
    pub cluster: String,
}

/// A key that was made for a token, before the token was shown to anybody: the answer may be lost.
#[derive(Clone, PartialEq, Eq)]
pub struct Prepared {
    pub key: String,
    /// Names the token.
    pub joined: String,
}

/// What the Secret holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub held: Option<Held>,
    pub prepared: Option<Prepared>,
}

impl Held {
    /// A certificate that was issued, with its key.
    ///
    /// # Errors
    /// When there is no certificate, or it is of another key.
    pub fn of(issued: &IssuedCertificate, key: &str, join: (&str, &str, &str)) -> anyhow::Result<Held> {
        let (joined, hub, cluster) = join;
        let leaf = issued
            .chain
            .first()
            .context("the hub's answer has no certificate")?;
        let facts = read(leaf)?;
        let own = rcgen::KeyPair::from_pem(key).context("the key cannot be read")?;
        let own = rcgen::PublicKeyData::subject_public_key_info(&own);
        anyhow::ensure!(
            facts.key == proto::certificate::key_hash(&own),
            "the hub's certificate is of another key"
        );
        anyhow::ensure!(
            !issued.authorities.is_empty(),
            "the hub's answer has no authority"
        );
        let signer = issued.chain.get(1).and_then(|der| read(der).ok());
        Ok(Held {
            chain: issued.chain.iter().map(|der| pem(der)).collect(),
            key: key.to_owned(),
            authorities: bundle(&issued.authorities),
            facts,
            signer: signer.map(|facts| facts.key),
            joined: joined.to_owned(),
            hub: hub.to_owned(),
            cluster: cluster.to_owned(),
        })
    }

    #[cfg(test)]
    pub(super) fn of_tests() -> Held {
        Held {
            chain: String::new(),
            key: String::new(),
            authorities: String::new(),
            facts: Facts {
                serial: String::new(),
                begins: 0,
                expires: 0,
                key: [0; 32],
            },
            signer: None,
            joined: String::new(),
            hub: String::new(),
            cluster: String::new(),
        }
    }
}

impl Identity {
    /// Reads it. A certificate that cannot be read is none: the cluster has to join again then, and a person is told.
    #[must_use]
    pub fn parse(secret: &Secret) -> Identity {
        let text = |key: &str| value(secret, key).and_then(|value| String::from_utf8(value.to_vec()).ok());
        let prepared = text("next.key").zip(text("next.joined"));
        Identity {
            held: held(text),
            prepared: prepared.map(|(key, joined)| Prepared { key, joined }),
        }
    }

    /// The Secret.
    #[must_use]
    pub fn secret(&self, namespace: &str) -> Secret {
        let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
        };
        if let Some(held) = &self.held {
            put("tls.crt", &held.chain);
            put("tls.key", &held.key);
            put("ca.crt", &held.authorities);
            put("joined", &held.joined);
            put("hub", &held.hub);
            put("cluster", &held.cluster);
        }
        if let Some(prepared) = &self.prepared {
            put("next.key", &prepared.key);
            put("next.joined", &prepared.joined);
        }
        Secret {
            metadata: ObjectMeta {
                name: Some(IDENTITY.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }
}

fn held(text: impl Fn(&str) -> Option<String>) -> Option<Held> {
    let chain = text("tls.crt")?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .ok()?;
    let facts = read(certificates.first()?).ok()?;
    let signer = certificates.get(1).and_then(|der| read(der).ok());
    Some(Held {
        key: text("tls.key")?,
        authorities: text("ca.crt")?,
        joined: text("joined").unwrap_or_default(),
        hub: text("hub").unwrap_or_default(),
        cluster: text("cluster").unwrap_or_default(),
        signer: signer.map(|facts| facts.key),
        facts,
        chain,
    })
}

fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let value = secret.data.as_ref()?.get(key)?;
    (!value.0.is_empty()).then_some(value.0.as_slice())
}

/// Authorities (DER), PEM.
#[must_use]
pub fn bundle(authorities: &[Vec<u8>]) -> String {
    authorities.iter().map(|der| pem(der)).collect()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(key: &rcgen::KeyPair) -> IssuedCertificate {
        let parameters = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        let certificate = parameters.self_signed(key).unwrap().der().to_vec();
        IssuedCertificate {
            chain: vec![certificate.clone(), certificate.clone()],
            authorities: vec![certificate],
        }
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let key = rcgen::KeyPair::generate().unwrap();
        let held = Held::of(&issued(&key), &key.serialize_pem(), ("t", "https://h", "a")).unwrap();
        assert_eq!(held.signer, Some(held.facts.key));
        let identity = Identity {
            held: Some(held),
            prepared: Some(Prepared {
                key: "k".to_owned(),
                joined: "u".to_owned(),
            }),
        };
        assert!(Identity::parse(&identity.secret("system")) == identity);
        assert!(Identity::parse(&Secret::default()) == Identity::default());
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (key, other) = (
            rcgen::KeyPair::generate().unwrap(),
            rcgen::KeyPair::generate().unwrap(),
        );
        assert!(Held::of(&issued(&key), &other.serialize_pem(), ("", "", "")).is_err());
        assert!(Held::of(&IssuedCertificate::default(), &key.serialize_pem(), ("", "", "")).is_err());
    }

    #[test]
    fn what_is_missing_to_join_is_named() {
        let full = [
            ("token", "t"),
            ("enrol", "https://h:1\n"),
            ("hub", "https://h:2"),
            ("cluster", "a"),
        ];
        let pin = "ab".repeat(32);
        let secret = |without: &str| {
            let pairs = full.iter().copied().chain([("pin", pin.as_str())]);
            let data = pairs.filter(|(key, _)| *key != without);
            Secret {
                data: Some(
                    data.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec())))
                        .collect(),
                ),
                ..Secret::default()
            }
        };
        let join = Join::parse(&secret("")).unwrap();
        assert_eq!((join.enrol.as_str(), join.pin), ("https://h:1", [0xab; 32]));
        assert!(!format!("{join:?}").contains("token"));
        for key in ["token", "pin", "enrol", "hub", "cluster"] {
            let text = Join::parse(&secret(key)).unwrap_err().to_string();
            assert!(text.contains(key), "{text}");
        }
    }
}
