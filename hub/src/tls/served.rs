//! What a listener presents at one moment, and whose client certificates it takes.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientCertVerifierBuilder, NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
};
use rustls::{RootCertStore, ServerConfig};

/// Client certificates of a listener. One that is shown is always of one of these authorities.
#[derive(Clone, Copy)]
pub enum Clients<'a> {
    /// A peer without one does not get as far as a request.
    Demanded(&'a [CertificateDer<'static>]),
    /// People may come with a session instead.
    Optional(&'a [CertificateDer<'static>]),
    /// None is asked for.
    Without,
}

/// Authorities of client certificates.
struct Trusted {
    roots: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The configuration of a listener.
pub struct Served {
    config: Arc<ServerConfig>,
    clients: Option<Trusted>,
}

impl Served {
    /// With a certificate chain of the hub and its key.
    ///
    /// # Errors
    /// When these do not belong together, or an authority cannot be used.
    pub fn new(
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
        clients: Clients<'_>,
    ) -> anyhow::Result<Served> {
        let trusted = |roots: &[CertificateDer<'static>], optional: bool| {
            let builder = builder(roots)?;
            let builder = if optional {
                builder.allow_unauthenticated()
            } else {
                builder
            };
            anyhow::Ok(Trusted {
                roots: roots.to_vec(),
                verifier: builder.build()?,
            })
        };
        let clients = match clients {
            Clients::Demanded(roots) => Some(trusted(roots, false)?),
            Clients::Optional(roots) => Some(trusted(roots, true)?),
            Clients::Without => None,
        };
        let builder = ServerConfig::builder();
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain.to_vec(), key.clone_key());
        let config = config.context("the hub's certificate and key cannot be used together")?;
        Ok(Served {
            config: Arc::new(bounded(config)),
            clients,
        })
    }

    /// A configuration that no handshake succeeds with: in place until the first one is made.
    #[must_use]
    pub fn nothing() -> Served {
        let builder = ServerConfig::builder().with_no_client_auth();
        let nobody = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
        Served {
            config: Arc::new(bounded(builder.with_cert_resolver(nobody))),
            clients: None,
        }
    }

    /// For a handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// For browsers too: behind a proxy they may come with HTTP/1.1. Who offers HTTP/2 gets it.
    #[must_use]
    pub fn browsable(self) -> Served {
        let mut config = (*self.config).clone();
        config.alpn_protocols.push(b"http/1.1".to_vec());
        Served {
            config: Arc::new(config),
            ..self
        }
    }

    /// Whether both take the certificates of the same authorities.
    #[must_use]
    pub fn trusts_as(&self, other: &Served) -> bool {
        let roots = |served: &Served| served.clients.as_ref().map(|clients| clients.roots.clone());
        roots(self) == roots(other)
    }

    /// Whether a client could connect with this chain now, leaf first.
    #[must_use]
    pub fn takes(&self, chain: &[CertificateDer<'static>]) -> bool {
        let (Some(clients), Some((leaf, others))) = (&self.clients, chain.split_first()) else {
            return true;
        };
        let verifier = &clients.verifier;
        verifier.verify_client_cert(leaf, others, UnixTime::now()).is_ok()
    }
}

/// Whether clients that trust these authorities take this chain of the hub. Its names are not looked at: each client knows
/// which one it expects.
///
/// # Errors
/// Why not.
pub fn is_verified(
    chain: &[CertificateDer<'static>],
    authorities: &[CertificateDer<'static>],
) -> anyhow::Result<()> {
    let (leaf, others) = chain.split_first().context("there is no certificate")?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let verified = rustls::client::verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        &store(authorities)?,
        others,
        UnixTime::now(),
        algorithms.all,
    );
    Ok(verified?)
}

fn builder(roots: &[CertificateDer<'static>]) -> anyhow::Result<ClientCertVerifierBuilder> {
    Ok(WebPkiClientVerifier::builder(store(roots)?.into()))
}

fn store(roots: &[CertificateDer<'static>]) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).context("an authority cannot be used")?;
    }
    Ok(store)
}

fn bounded(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not be asked for its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}
