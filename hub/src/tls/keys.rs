//! The TLS configurations of all listeners, made anew when a certificate or an authority changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::{certificate, renewal};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::served::{Clients, Served, is_verified};
use crate::authority::Authority;
use crate::config::Config;
use crate::hub::Hub;
use crate::{Millis, now};

/// How often given files and the hub's own certificate are looked at, at most.
const LOOK: Duration = Duration::from_secs(30);
/// Shortest pause between two looks.
const SOON: Duration = Duration::from_millis(100);
/// Names that the hub's own certificate always has: clients look for `hub` unless they are told otherwise.
const NAMES: [&str; 3] = ["hub", "localhost", "127.0.0.1"];

/// The configuration of the moment of each listener.
pub struct Listeners {
    pub link: watch::Receiver<Arc<Served>>,
    pub view: watch::Receiver<Arc<Served>>,
    pub enrol: watch::Receiver<Arc<Served>>,
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

    fn served(&self, clients: Clients<'_>) -> anyhow::Result<Served> {
        Served::new(&self.chain, &self.key, clients)
    }
}

/// What configurations are made of. Two of these that are equal make the same.
#[derive(PartialEq)]
struct Material {
    presented: Presented,
    /// The certificate that the authority makes: who enrols compares a pin with what signed it.
    own: Option<Presented>,
    /// Authorities in files, which clients have to trust as well.
    given: Vec<CertificateDer<'static>>,
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
    /// Where clients learn which authorities to trust.
    hub: Arc<Hub>,
    authority: Option<Arc<Authority>>,
    /// Authorities in a file, trusted besides the hub's own.
    link_file: Option<PathBuf>,
    /// Authorities of the given certificate alone: clients trust them, and the hub does not.
    hub_file: Option<PathBuf>,
    /// Authority of people, in place of those of the link.
    view_file: Option<PathBuf>,
    names: Vec<String>,
    material: Option<Material>,
    /// When the hub's own certificate is renewed.
    due: Option<Millis>,
    out: [watch::Sender<Arc<Served>>; 3],
}

impl Keys {
    /// Reads and makes all that is needed to serve.
    ///
    /// # Errors
    /// When a file cannot be read, there is neither a certificate nor an authority that could sign one, or clients would
    /// refuse the given certificate.
    pub fn new(config: &Config, hub: Arc<Hub>) -> anyhow::Result<(Keys, Listeners)> {
        let authority = hub.membership.authority.clone();
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
            hub,
            authority,
            link_file: config.tls_ca.clone(),
            hub_file: config.tls_cert_ca.clone(),
            view_file: config.view_ca.clone(),
            names,
            material: None,
            due: None,
            out: std::array::from_fn(|_| watch::channel(Arc::new(Served::nothing())).0),
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
            given,
            link,
            view,
        } = &material;
        let configs = [
            presented.served(Clients::Demanded(link))?,
            presented.served(Clients::Optional(view))?.browsable(),
            own.as_ref().unwrap_or(presented).served(Clients::Without)?,
        ];
        for (out, config) in self.out.iter().zip(configs) {
            out.send_replace(Arc::new(config));
        }
        let given = given.iter().map(|der| der.to_vec());
        self.hub.membership.give(given.collect());
        self.material = Some(material);
        self.due = due;
        Ok(true)
    }

    fn read(&self, now: Millis) -> anyhow::Result<(Material, Option<Millis>)> {
        let mut link = self.authority.as_ref().map_or_else(Vec::new, |a| a.bundle());
        let given = self.link_file.as_deref().map(certificates).transpose()?;
        let mut given = given.unwrap_or_default();
        link.extend(given.iter().cloned());
        let hub = self.hub_file.as_deref().map(certificates).transpose()?;
        given.extend(hub.unwrap_or_default());
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
            (Some(presented), _) => {
                let own = self.authority.as_ref().map_or_else(Vec::new, |a| a.bundle());
                self.presented(presented, &[own, given.clone()].concat())?
            }
            (None, Some(own)) => own.again(),
            (None, None) => anyhow::bail!("there is no certificate of the hub"),
        };
        let material = Material {
            presented,
            own,
            given,
            link,
            view,
        };
        Ok((material, due))
    }

    /// The given certificate. One that cannot be used keeps the one before in use: whom the listeners trust must follow all
    /// the same, or a rotation of the authority would go on without them.
    fn presented(&self, given: &Given, announced: &[CertificateDer<'static>]) -> anyhow::Result<Presented> {
        match (given.read(announced), &self.material) {
            (Ok(presented), _) => Ok(presented),
            (Err(error), Some(present)) => {
                warn!("the present certificate of the hub stays in use: {error:#}");
                Ok(present.presented.again())
            }
            (Err(error), None) => Err(error),
        }
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
    /// What clients that trust these authorities would take.
    fn read(&self, authorities: &[CertificateDer<'static>]) -> anyhow::Result<Presented> {
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| anyhow::anyhow!("cannot use {}: {error}", self.key.display()))?;
        let chain = certificates(&self.certificate)?;
        is_verified(&chain, authorities).with_context(|| {
            format!(
                "spokes and people would refuse {} (--tls-cert): they trust what the hub announces, its own authority, \
                 --tls-ca and --tls-cert-ca, and none of these verifies it; give its authority as --tls-cert-ca",
                self.certificate.display()
            )
        })?;
        Ok(Presented { chain, key })
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
