//! TLS to a hub of which only the key of its authority is known. The token is sent after the handshake, so nobody else
//! gets it.

use std::sync::Arc;

use proto::certificate::{KeyHash, pinned};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Trusts the authority whose key a pin names, if the hub presents it.
#[derive(Debug)]
pub struct Pinned {
    pin: KeyHash,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// Trusts this pin.
    #[must_use]
    pub fn new(pin: KeyHash) -> Pinned {
        Pinned {
            pin,
            provider: Arc::new(ring::default_provider()),
        }
    }
}

/// What a person reads when another hub answers.
pub const OTHER_HUB: &str =
    "the hub at this address does not present the authority that the join token names";

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = pinned(others.iter().map(AsRef::as_ref), &self.pin);
        let authority = authority.ok_or_else(|| Error::General(OTHER_HUB.to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.to_vec()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone());
        let verifier = verifier
            .build()
            .map_err(|_| Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        verifier.verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority() -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        (certificate, Issuer::new(parameters, key))
    }

    fn leaf(issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let parameters = CertificateParams::new(vec!["hub".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        parameters.signed_by(&key, issuer).unwrap().der().clone()
    }

    fn verify(
        pin: KeyHash,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &str,
    ) -> Result<(), Error> {
        let name = ServerName::try_from(name).unwrap();
        Pinned::new(pin)
            .verify_server_cert(leaf, others, &name, &[], UnixTime::now())
            .map(drop)
    }

    #[test]
    fn only_what_the_pinned_authority_has_signed_is_trusted() {
        let ((own, issuer), (foreign, intruder)) = (authority(), authority());
        let key = |der: &CertificateDer<'_>| proto::certificate::read(der).unwrap().key;
        let pin = key(&own);
        let good = leaf(&issuer);
        assert_eq!(verify(pin, &good, std::slice::from_ref(&own), "hub"), Ok(()));
        assert!(
            verify(pin, &good, std::slice::from_ref(&own), "elsewhere").is_err(),
            "another name"
        );
        let refused = verify(pin, &leaf(&intruder), std::slice::from_ref(&foreign), "hub").unwrap_err();
        assert_eq!(refused, Error::General(OTHER_HUB.to_owned()));
        assert!(
            verify(pin, &leaf(&intruder), &[foreign, own.clone()], "hub").is_err(),
            "to show the pinned authority is not enough"
        );
        assert!(verify(pin, &good, &[], "hub").is_err());
        assert!(verify(pin, &own, &[], "hub").is_err(), "an authority is no hub");
    }
}
