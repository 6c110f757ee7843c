//! The TLS configurations of all listeners, made anew when a certificate or an authority changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::{certificate, renewal};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::authority::Authority;
use crate::config::Config;
use crate::{Millis, now};

/// How often given files and the hub's own certificate are looked at, at most.
const LOOK: Duration = Duration::from_secs(30);
/// Shortest pause between two looks.
const SOON: Duration = Duration::from_millis(100);
/// Names that the hub's own certificate always has: clients look for `hub` unless they are told otherwise.
const NAMES: [&str; 3] = ["hub", "localhost", "127.0.0.1"];

/// The configuration of the moment of each listener.
pub struct Listeners {
    pub link: watch::Receiver<Arc<ServerConfig>>,
    pub view: watch::Receiver<Arc<ServerConfig>>,
    pub enrol: watch::Receiver<Arc<ServerConfig>>,
}

/// A certificate chain of the hub and its key.
#[derive(PartialEq)]
struct Presented {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Presented {
    fn again(&self) -> Presented {
        Presented {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// What configurations are made of. Two of these that are equal make the same.
#[derive(PartialEq)]
struct Material {
    presented: Presented,
    /// The certificate that the authority makes: who enrols compares a pin with what signed it.
    own: Option<Presented>,
    link: Vec<CertificateDer<'static>>,
    view: Vec<CertificateDer<'static>>,
}

/// Certificate and key of the hub in files.
struct Given {
    certificate: PathBuf,
    key: PathBuf,
}

/// Keeps the configurations up to date.
pub struct Keys {
    given: Option<Given>,
    authority: Option<Arc<Authority>>,
    /// Authorities in a file, trusted besides the hub's own.
    link_file: Option<PathBuf>,
    /// Authority of people, in place of those of the link.
    view_file: Option<PathBuf>,
    names: Vec<String>,
    material: Option<Material>,
    /// When the hub's own certificate is renewed.
    due: Option<Millis>,
    out: [watch::Sender<Arc<ServerConfig>>; 3],
}

impl Keys {
    /// Reads and makes all that is needed to serve.
    ///
    /// # Errors
    /// When a file cannot be read, or there is neither a certificate nor an authority that could sign one.
    pub fn new(config: &Config, authority: Option<Arc<Authority>>) -> anyhow::Result<(Keys, Listeners)> {
        let given = match (&config.tls_cert, &config.tls_key) {
            (Some(certificate), Some(key)) => Some(Given {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            (None, None) => None,
            _ => anyhow::bail!("--tls-cert and --tls-key belong together"),
        };
        anyhow::ensure!(
            given.is_some() || authority.is_some(),
            "--tls-ca without --authority-dir leaves the hub without a certificate: give --tls-cert and --tls-key"
        );
        let names = NAMES.iter().map(|name| (*name).to_owned());
        let names = names.chain(config.server_name.iter().cloned()).collect();
        let mut keys = Keys {
            given,
            authority,
            link_file: config.tls_ca.clone(),
            view_file: config.view_ca.clone(),
            names,
            material: None,
            due: None,
            out: std::array::from_fn(|_| watch::channel(Arc::new(nothing())).0),
        };
        keys.refresh(now())?;
        let listeners = {
            let [link, view, enrol] = &keys.out;
            Listeners {
                link: link.subscribe(),
                view: view.subscribe(),
                enrol: enrol.subscribe(),
            }
        };
        Ok((keys, listeners))
    }

    /// Looks again and again, until `stop`.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut changes = self.authority.as_ref().map(|authority| authority.changes());
        let mut least = SOON;
        loop {
            let left = self.due.map_or(Millis::MAX, |due| due.saturating_sub(now()));
            let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
            let changed = async {
                match &mut changes {
                    Some(changes) => changes.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changed => {}
                () = tokio::time::sleep(LOOK.min(left).max(least)) => {}
            }
            let refreshed = self.refresh(now());
            // What is overdue and cannot be had is tried at intervals too.
            least = if refreshed.is_ok() { SOON } else { LOOK };
            match refreshed {
                Ok(true) => info!("certificates of the hub were replaced; new connections use them"),
                Ok(false) => {}
                Err(error) => warn!("the present certificates of the hub stay in use: {error:#}"),
            }
        }
    }

    /// Makes the configurations anew if something has changed. Whether it has.
    fn refresh(&mut self, now: Millis) -> anyhow::Result<bool> {
        let (material, due) = self.read(now)?;
        if self.material.as_ref() == Some(&material) {
            return Ok(false);
        }
        let Material {
            presented,
            own,
            link,
            view,
        } = &material;
        let configs = [
            config(presented, Clients::Demanded(link))?,
            browsable(config(presented, Clients::Optional(view))?),
            config(own.as_ref().unwrap_or(presented), Clients::Without)?,
        ];
        for (out, config) in self.out.iter().zip(configs) {
            out.send_replace(Arc::new(config));
        }
        self.material = Some(material);
        self.due = due;
        Ok(true)
    }

    fn read(&self, now: Millis) -> anyhow::Result<(Material, Option<Millis>)> {
        let mut link = self.authority.as_ref().map_or_else(Vec::new, |a| a.bundle());
        if let Some(file) = &self.link_file {
            link.extend(certificates(file)?);
        }
        let view = match &self.view_file {
            Some(file) => certificates(file)?,
            None => link.clone(),
        };
        let (own, due) = match &self.authority {
            Some(authority) => {
                let (own, due) = self.own(authority, now)?;
                (Some(own), Some(due))
            }
            None => (None, None),
        };
        let presented = match (&self.given, &own) {
            (Some(given), _) => given.read()?,
            (None, Some(own)) => own.again(),
            (None, None) => anyhow::bail!("there is no certificate of the hub"),
        };
        let material = Material {
            presented,
            own,
            link,
            view,
        };
        Ok((material, due))
    }

    /// The hub's own certificate: the present one, until half of its life is over or another authority signs.
    fn own(&self, authority: &Authority, now: Millis) -> anyhow::Result<(Presented, Millis)> {
        let present = self.material.as_ref().and_then(|material| material.own.as_ref());
        let signer = |own: &Presented| Some(certificate::read(own.chain.get(1)?).ok()?.key);
        let present = present.filter(|own| signer(own) == Some(authority.active()));
        if let (Some(own), Some(due)) = (present, self.due.filter(|due| now < *due)) {
            return Ok((own.again(), due));
        }
        let (chain, key) = authority.server(&self.names, now)?;
        let leaf = chain.first().context("an empty chain")?;
        let expires = certificate::read(leaf)?.expires;
        Ok((Presented { chain, key }, renewal::due(now, expires, 0.5)))
    }
}

impl Given {
    fn read(&self) -> anyhow::Result<Presented> {
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| anyhow::anyhow!("cannot use {}: {error}", self.key.display()))?;
        Ok(Presented {
            chain: certificates(&self.certificate)?,
            key,
        })
    }
}

/// All certificates in a file, PEM.
///
/// # Errors
/// When it cannot be read, or holds none.
pub fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || -> Result<Vec<_>, rustls::pki_types::pem::Error> {
        CertificateDer::pem_file_iter(file)?.collect()
    };
    let found = read().map_err(|error| anyhow::anyhow!("cannot read {}: {error}", file.display()))?;
    anyhow::ensure!(!found.is_empty(), "there is no certificate in {}", file.display());
    Ok(found)
}

/// Client certificates of a listener. One that is shown is always of one of these authorities.
#[derive(Clone, Copy)]
enum Clients<'a> {
    /// A peer without one does not get as far as a request.
    Demanded(&'a [CertificateDer<'static>]),
    /// People may come with a session instead.
    Optional(&'a [CertificateDer<'static>]),
    /// None is asked for.
    Without,
}

fn config(presented: &Presented, clients: Clients<'_>) -> anyhow::Result<ServerConfig> {
    let builder = ServerConfig::builder();
    let builder = match clients {
        Clients::Demanded(roots) => builder.with_client_cert_verifier(verifier(roots)?.build()?),
        Clients::Optional(roots) => {
            builder.with_client_cert_verifier(verifier(roots)?.allow_unauthenticated().build()?)
        }
        Clients::Without => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(presented.chain.clone(), presented.key.clone_key());
    Ok(served(config.context(
        "the hub's certificate and key cannot be used together",
    )?))
}

fn verifier(roots: &[CertificateDer<'static>]) -> anyhow::Result<ClientCertVerifierBuilder> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).context("an authority cannot be used")?;
    }
    Ok(WebPkiClientVerifier::builder(store.into()))
}

fn served(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not be asked for its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// For browsers too: behind a proxy they may come with HTTP/1.1. Who offers HTTP/2 gets it.
fn browsable(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols.push(b"http/1.1".to_vec());
    config
}

/// A configuration that no handshake succeeds with: in place until the first one is made.
fn nothing() -> ServerConfig {
    let builder = ServerConfig::builder().with_no_client_auth();
    served(builder.with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new())))
}
