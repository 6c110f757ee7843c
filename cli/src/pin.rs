//! The authority of a hub by the hash of its key, in place of a file.
//!
//! The hub presents its authority in the handshake. It is looked at there, and the handshake is given up before anything is
//! sent: the connection that is used trusts the authority that was found and nothing else.

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::certificate::{KeyHash, pinned};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::Uri;

use crate::authorities::pem;
use crate::failure::Failure;

/// SHA-256 of the public key of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(KeyHash);

impl FromStr for Pin {
    type Err = String;

    /// 64 hex digits, with or without `sha256:` before them.
    fn from_str(text: &str) -> Result<Pin, String> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let bytes = hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok());
        let wrong = || "write sha256: and 64 hex digits, as `fleet people invite` prints it".to_owned();
        bytes.map(Pin).ok_or_else(wrong)
    }
}

/// Remembers what a hub presents, and takes nothing.
#[derive(Debug, Default)]
struct Look(Mutex<Vec<Vec<u8>>>);

const GIVEN_UP: &str = "only looked at";

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = others.iter().map(|der| der.to_vec()).collect();
        Err(Error::General(GIVEN_UP.to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(GIVEN_UP.to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(GIVEN_UP.to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The authority that a pin names, PEM.
///
/// # Errors
/// When the hub cannot be reached, or does not present it.
pub async fn authority(hub: &str, server_name: &str, pin: Pin, limit: Duration) -> Result<String, Failure> {
    let presented = timeout(limit, look(hub, server_name)).await;
    let presented = presented.map_err(|_| Failure::Timeout(hub.to_owned()))??;
    let found = pinned(presented.iter().map(Vec::as_slice), &pin.0);
    let found = found.ok_or_else(|| Failure::Untrusted {
        hub: hub.to_owned(),
        cause: "it does not present the authority that the pin names".to_owned(),
        advice: "nothing was sent; ask the admin for its present pin, or use --ca where the hub has a given certificate",
    })?;
    Ok(pem([found]))
}

async fn look(hub: &str, server_name: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let address = || Failure::Address(hub.to_owned());
    let uri: Uri = hub.parse().map_err(|_| address())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(address)?.trim_matches(['[', ']']);
    let name = ServerName::try_from(server_name.to_owned());
    let name = name.map_err(|_| Failure::Usage(format!("{server_name:?} is no name of a server")))?;
    let unreachable = |cause: std::io::Error| Failure::Unreachable {
        hub: hub.to_owned(),
        cause: cause.to_string(),
    };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await;
    let look = Arc::new(Look::default());
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(look.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let ended = connector.connect(name, stream.map_err(unreachable)?).await;
    let seen = std::mem::take(&mut *look.0.lock().unwrap_or_else(PoisonError::into_inner));
    match ended.err() {
        Some(error) if seen.is_empty() && !error.to_string().contains(GIVEN_UP) => Err(unreachable(error)),
        _ => Ok(seen),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_has_64_digits() {
        let digits = "0a".repeat(32);
        let pin: Pin = digits.parse().unwrap();
        assert_eq!(format!("sha256:{digits}").parse(), Ok(pin));
        for wrong in ["", "sha256:", "0a", &digits[1..], &format!("sha1:{digits}")] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }
}
