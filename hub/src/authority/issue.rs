//! Certificates, as the hub's authority signs them. Times come from outside.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::Millis;

/// Life of an authority.
const AUTHORITY: Millis = 10 * 365 * 86_400_000;
/// Certificates begin this much before they are made: clocks of clusters differ.
const BACKDATED: Millis = 5 * 60_000;

/// Why nothing was signed. The text is what the peer reads.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the hub has no authority of its own (--authority-dir): certificates are made by hand")]
    None,
    #[error("the signing request cannot be used: {0}")]
    Request(String),
    #[error("the authority cannot sign: {0}")]
    Authority(String),
}

fn authority(error: impl std::fmt::Display) -> IssueError {
    IssueError::Authority(error.to_string())
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    Server,
    Client,
}

/// A new authority: certificate and key, PEM.
///
/// # Errors
/// When there is no randomness.
pub fn new_authority(domain: &str, now: Millis) -> Result<(String, String), IssueError> {
    let key = KeyPair::generate().map_err(authority)?;
    let mut parameters = parameters(now, AUTHORITY)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Two authorities of one hub, during a rotation, must not be taken for each other.
    let serial = random::<4>()?;
    let name = format!("restic-fleet authority {} of {domain}", hex::encode(serial));
    parameters.distinguished_name.push(DnType::CommonName, name);
    let certificate = parameters.self_signed(&key).map_err(authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// A certificate of a cluster's spoke for the key of a signing request, DER. Nothing else of the request counts.
///
/// # Errors
/// When the request does not parse, is not signed by its own key, or its key is not P-256.
pub fn spoke(
    issuer: &Issuer<'_, KeyPair>,
    domain: &str,
    cluster: &str,
    request: &[u8],
    life: Millis,
    now: Millis,
) -> Result<CertificateDer<'static>, IssueError> {
    let request = parse(request)?;
    let mut parameters = leaf(now, life, cluster, Use::Client)?;
    uri(&mut parameters, domain, "spoke", cluster)?;
    let certificate = parameters.signed_by(&request.public_key, issuer);
    Ok(certificate.map_err(authority)?.der().clone())
}

/// The public key of a signing request, DER.
///
/// # Errors
/// As above.
pub fn requested_key(request: &[u8]) -> Result<Vec<u8>, IssueError> {
    Ok(parse(request)?.public_key.subject_public_key_info())
}

fn parse(request: &[u8]) -> Result<CertificateSigningRequestParams, IssueError> {
    let refused = |error: &dyn std::fmt::Display| IssueError::Request(error.to_string());
    let request = CertificateSigningRequestParams::from_der(&request.into()).map_err(|e| refused(&e))?;
    if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(refused(&"its key is not ECDSA on P-256"));
    }
    Ok(request)
}

/// A certificate of the hub for its names, with its key.
///
/// # Errors
/// When a name is none.
pub fn server(
    issuer: &Issuer<'_, KeyPair>,
    domain: &str,
    names: &[String],
    life: Millis,
    now: Millis,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), IssueError> {
    let mut parameters = leaf(now, life, "hub", Use::Server)?;
    for name in names {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(authority)?),
        };
        parameters.subject_alt_names.push(name);
    }
    let hub = format!("spiffe://{domain}/hub");
    parameters
        .subject_alt_names
        .push(SanType::URI(hub.as_str().try_into().map_err(authority)?));
    let key = KeyPair::generate().map_err(authority)?;
    let certificate = parameters.signed_by(&key, issuer).map_err(authority)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok((certificate.der().clone(), key.into()))
}

/// A certificate of a person with a role, which does not begin before a time, and its key, PEM.
///
/// # Errors
/// When it cannot be signed.
pub fn person(
    issuer: &Issuer<'_, KeyPair>,
    domain: &str,
    (role, name): (&str, &str),
    begins: Millis,
    life: Millis,
    now: Millis,
) -> Result<(rcgen::Certificate, String), IssueError> {
    let mut parameters = leaf(now, life, name, Use::Client)?;
    parameters.not_before = parameters.not_before.max(date(begins.max(0))?);
    uri(&mut parameters, domain, role, name)?;
    let key = KeyPair::generate().map_err(authority)?;
    let certificate = parameters.signed_by(&key, issuer).map_err(authority)?;
    Ok((certificate, key.serialize_pem()))
}

fn uri(parameters: &mut CertificateParams, domain: &str, role: &str, name: &str) -> Result<(), IssueError> {
    let uri = format!("spiffe://{domain}/{role}/{name}");
    let uri = uri.as_str().try_into().map_err(authority)?;
    parameters.subject_alt_names.push(SanType::URI(uri));
    Ok(())
}

fn leaf(now: Millis, life: Millis, name: &str, use_: Use) -> Result<CertificateParams, IssueError> {
    let mut parameters = parameters(now, life)?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![match use_ {
        Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    Ok(parameters)
}

fn parameters(now: Millis, life: Millis) -> Result<CertificateParams, IssueError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    // rcgen makes the serial out of the key, so that a key that is used again would have one serial twice.
    let mut serial = random::<16>()?;
    serial[0] &= 0x7f;
    parameters.serial_number = Some(SerialNumber::from(serial.to_vec()));
    parameters.not_before = date(now.saturating_sub(BACKDATED.min(life)))?;
    parameters.not_after = date(now.saturating_add(life))?;
    Ok(parameters)
}

fn date(time: Millis) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(time.div_euclid(1000)).map_err(authority)
}

/// Random bytes.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], IssueError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(authority)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, identify};

    const NOW: Millis = 1_795_000_000_000;

    fn issuer() -> Issuer<'static, KeyPair> {
        let (certificate, key) = new_authority("fleet", NOW).unwrap();
        Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key).unwrap()).unwrap()
    }

    fn request(names: &[&str], key: &KeyPair) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hub_chooses_every_name_of_a_spoke() {
        let (key, issuer) = (KeyPair::generate().unwrap(), issuer());
        let request = request(&["hub", "evil.example.org"], &key);
        let certificate = spoke(&issuer, "fleet", "a", &request, 86_400_000, NOW).unwrap();
        let identity = identify(&certificate, "fleet").unwrap();
        assert_eq!(identity, Identity::Spoke { cluster: "a".into() });
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(
            names.value.general_names.len(),
            1,
            "no DNS name: a spoke is never a hub"
        );
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        let facts = proto::certificate::read(&certificate).unwrap();
        assert_eq!(facts.expires, NOW + 86_400_000);
        assert_eq!(facts.begins, NOW - BACKDATED);
        assert_eq!(
            facts.key,
            proto::certificate::key_hash(&requested_key(&request).unwrap())
        );
    }

    #[test]
    fn a_key_that_is_certified_twice_has_two_serials() {
        let (key, issuer) = (KeyPair::generate().unwrap(), issuer());
        let request = request(&[], &key);
        let serial = || {
            let certificate = spoke(&issuer, "fleet", "a", &request, 1_000, NOW).unwrap();
            proto::certificate::read(&certificate).unwrap().serial
        };
        assert_ne!(serial(), serial());
    }

    #[test]
    fn other_keys_and_broken_requests_are_refused() {
        let issuer = issuer();
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut broken = request(&[], &KeyPair::generate().unwrap());
        let last = broken.len() - 1;
        broken[last] ^= 1;
        for request in [request(&[], &other), broken, b"junk".to_vec()] {
            let refused = spoke(&issuer, "fleet", "a", &request, 1_000, NOW);
            assert!(matches!(refused, Err(IssueError::Request(_))));
        }
    }

    #[test]
    fn a_hub_has_names_and_addresses() {
        let names = [
            "hub".to_owned(),
            "10.0.0.1".to_owned(),
            "hub.example.org".to_owned(),
        ];
        let (certificate, _) = server(&issuer(), "fleet", &names, 1_000, NOW).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        let found = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(found.value.general_names.len(), 4);
        assert!(server(&issuer(), "fleet", &["a\u{e4}".to_owned()], 1, NOW).is_err());
    }
}
