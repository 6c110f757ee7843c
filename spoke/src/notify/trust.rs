//! Certificate authorities that the certificates of receivers are checked against.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_native_certs::CertificateResult;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::Failure;

const UNREAD: &str = "the certificate authorities of the machine could not be read";

/// The machine's own authorities, which are read at the first use.
#[derive(Default)]
pub struct Trust {
    machine: OnceCell<Machine>,
}

/// What the machine trusts, for the two libraries that take it.
pub struct Machine {
    pub certificates: Vec<CertificateDer<'static>>,
    pub roots: Arc<RootCertStore>,
}

impl Trust {
    /// The machine's own authorities.
    ///
    /// # Errors
    /// They could not be read this time.
    pub async fn machine(&self) -> Result<&Machine, Failure> {
        let read = || async {
            let found = spawn_blocking(rustls_native_certs::load_native_certs).await;
            found.ok().and_then(usable).ok_or_else(|| Failure::later(UNREAD))
        };
        self.machine.get_or_try_init(read).await
    }
}

/// What was found; `None` where errors may be the reason that nothing was.
fn usable(found: CertificateResult) -> Option<Machine> {
    for error in &found.errors {
        warn!(%error, "certificate authorities of the machine could not be read");
    }
    let mut roots = RootCertStore::empty();
    let mut certificates = found.certs;
    certificates.retain(|certificate| roots.add(certificate.clone()).is_ok());
    if certificates.is_empty() && !found.errors.is_empty() {
        return None;
    }
    Some(Machine {
        certificates,
        roots: Arc::new(roots),
    })
}

/// Certificates in the `ca.crt` of a Secret.
///
/// # Errors
/// There is none, or one cannot be used.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bad = || Failure::last("ca.crt of the Secret holds no certificates in PEM");
    let mut check = RootCertStore::empty();
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| bad())?;
        check.add(certificate.clone()).map_err(|_| bad())?;
        found.push(certificate);
    }
    if found.is_empty() {
        return Err(bad());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_could_not_be_read_are_not_taken_for_none() {
        let error = || rustls_native_certs::Error {
            context: "x",
            kind: rustls_native_certs::ErrorKind::Os("x".into()),
        };
        let found = |errors: Vec<rustls_native_certs::Error>| {
            let mut found = CertificateResult::default();
            found.errors = errors;
            found
        };
        assert!(usable(found(vec![error()])).is_none());
        assert!(usable(found(vec![])).is_some(), "an image without any");
    }

    #[test]
    fn a_ca_crt_without_a_certificate_is_none() {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        let good = parameters.self_signed(&key).unwrap().pem();
        assert_eq!(authorities(good.as_bytes()).unwrap().len(), 1);
        assert_eq!(authorities(good.repeat(2).as_bytes()).unwrap().len(), 2);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [
            "",
            "no PEM",
            &key.serialize_pem(),
            broken,
            &format!("{good}{broken}"),
        ] {
            assert!(authorities(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
