//! The hub's own authority: it signs the certificates of spokes and of the hub itself.
//!
//! A rotation has three steps, each by a person: the next authority is made and announced to every spoke; it signs; the
//! old one is no longer trusted. What is trusted is the bundle of all of them.

mod files;
mod issue;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use proto::certificate::{Facts, KeyHash, read};
use proto::v1::IssuedCertificate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

pub use self::files::certificate_pem;
use self::files::{Folder, Signer};
pub use self::issue::{IssueError, random, requested_key};
use crate::Millis;

/// Where a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// There is one authority.
    Steady,
    /// The next one is in the bundle, and signs nothing.
    Announced,
    /// The next one signs; the old one is still trusted.
    Activated,
}

impl Rotation {
    /// As people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Rotation::Steady => "steady",
            Rotation::Announced => "announced",
            Rotation::Activated => "activated",
        }
    }
}

/// A certificate that was just signed.
#[derive(Clone, Debug)]
pub struct Signed {
    pub certificate: IssuedCertificate,
    pub facts: Facts,
    /// Key of the authority that signed it.
    pub authority: KeyHash,
}

struct Signers {
    active: Arc<Signer>,
    next: Option<Signer>,
    old: Option<CertificateDer<'static>>,
}

/// The authority, with all that it needs to sign.
pub struct Authority {
    folder: Folder,
    domain: Arc<str>,
    life: Millis,
    signers: RwLock<Signers>,
    changed: watch::Sender<u64>,
}

impl Authority {
    /// The authority in a folder, which is begun if there is none. `life` is that of the certificates it signs.
    ///
    /// # Errors
    /// When the folder cannot be read or written, the fleet's authority is not in it, or the given one cannot be used.
    pub fn open_or_create(
        folder: &Path,
        domain: &str,
        life: Millis,
        begin: Begin<'_>,
        now: Millis,
    ) -> anyhow::Result<Authority> {
        let files = Folder::new(folder);
        if files.active()?.is_none() {
            anyhow::ensure!(
                !begin.joined,
                "there is no authority in {}, and clusters have joined by one: mount its folder (--authority-dir), or put a \
                 backup of the hub back, which has it. If it is lost, start once with --new-authority; every cluster then has \
                 to join again",
                folder.display()
            );
            match begin.from {
                Some(file) => {
                    files.create(&given(file)?)?;
                    tracing::info!(folder = %folder.display(), from = %file.display(), "took the given authority over");
                }
                None => {
                    let (certificate, key) = issue::new_authority(domain, now)?;
                    files.create(&format!("{certificate}{key}"))?;
                    tracing::info!(folder = %folder.display(), domain, "made an authority for the fleet");
                }
            }
        }
        Authority::open(folder, domain, life)
    }

    /// The authority in a folder.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(folder: &Path, domain: &str, life: Millis) -> anyhow::Result<Authority> {
        let files = Folder::new(folder);
        let active = files.active()?;
        let active = active.ok_or_else(|| {
            anyhow::anyhow!(
                "there is no authority in {}: the hub makes it at its first start; set --authority-dir as the hub has it",
                folder.display()
            )
        })?;
        // Cut off in the middle of an activation, the old one is the active one.
        let old = files.old()?.filter(|old| *old != active.certificate);
        Ok(Authority {
            signers: RwLock::new(Signers {
                active: Arc::new(active),
                next: files.next()?,
                old,
            }),
            folder: files,
            domain: domain.into(),
            life,
            changed: watch::channel(0).0,
        })
    }

    /// Where it is kept.
    #[must_use]
    pub fn folder(&self) -> std::path::PathBuf {
        self.folder.to_path()
    }

    /// Trust domain of everything that it signs.
    #[must_use]
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }

    /// Key of what signs now: what a pin names.
    #[must_use]
    pub fn active(&self) -> KeyHash {
        self.read(|signers| signers.active.key)
    }

    /// Life of the certificates that it signs.
    #[must_use]
    pub fn life(&self) -> Millis {
        self.life
    }

    /// Key of what will sign next, if it was announced.
    #[must_use]
    pub fn announced(&self) -> Option<KeyHash> {
        self.read(|signers| signers.next.as_ref().map(|next| next.key))
    }

    /// Keys of all that is trusted, the active one first.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyHash> {
        let facts = |der: &CertificateDer<'static>| Some(read(der).ok()?.key);
        self.bundle().iter().filter_map(facts).collect()
    }

    /// All that is trusted, DER; the active one first.
    #[must_use]
    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        self.read(|signers| {
            let next = signers.next.as_ref().map(|next| next.certificate.clone());
            let active = std::iter::once(signers.active.certificate.clone());
            active.chain(next).chain(signers.old.clone()).collect()
        })
    }

    /// All that is trusted, PEM.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        self.bundle().iter().map(|der| certificate_pem(der)).collect()
    }

    /// News of the bundle and of what signs.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A certificate for a cluster's spoke.
    ///
    /// # Errors
    /// When the request cannot be used.
    pub fn spoke(&self, cluster: &str, request: &[u8], now: Millis) -> Result<Signed, IssueError> {
        let signer = self.signer();
        let certificate = issue::spoke(&signer.issuer, &self.domain, cluster, request, self.life, now)?;
        let facts = read(&certificate).map_err(|error| IssueError::Authority(error.to_string()))?;
        Ok(Signed {
            certificate: IssuedCertificate {
                chain: vec![certificate.to_vec(), signer.certificate.to_vec()],
                authorities: self.bundle().iter().map(|der| der.to_vec()).collect(),
            },
            facts,
            authority: signer.key,
        })
    }

    /// A certificate of the hub for its names, with what signed it, so that a pin can be compared.
    ///
    /// # Errors
    /// When a name is none.
    pub fn server(
        &self,
        names: &[String],
        now: Millis,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IssueError> {
        let signer = self.signer();
        let (certificate, key) = issue::server(&signer.issuer, &self.domain, names, self.life, now)?;
        Ok((vec![certificate, signer.certificate.clone()], key))
    }

    /// Certificate and key of a person with a role, and what to trust: PEM. It does not begin before `begins`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn person(
        &self,
        person: (&str, &str),
        begins: Millis,
        life: Millis,
        now: Millis,
    ) -> Result<(String, Facts), IssueError> {
        let signer = self.signer();
        let (certificate, key) = issue::person(&signer.issuer, &self.domain, person, begins, life, now)?;
        let facts = read(certificate.der()).map_err(|error| IssueError::Authority(error.to_string()))?;
        let pem = format!("{}{key}{}", certificate.pem(), self.bundle_pem());
        Ok((pem, facts))
    }

    /// Where a rotation is.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.read(|signers| match (&signers.next, &signers.old) {
            (Some(_), _) => Rotation::Announced,
            (None, Some(_)) => Rotation::Activated,
            (None, None) => Rotation::Steady,
        })
    }

    /// Makes the next authority, and announces it.
    ///
    /// # Errors
    /// When a rotation is under way, or the folder cannot be written.
    pub fn begin(&self, now: Millis) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.rotation() == Rotation::Steady,
            "a rotation is under way already ({})",
            self.rotation().as_str()
        );
        let (certificate, key) = issue::new_authority(&self.domain, now)?;
        self.folder.announce(&certificate, &key)?;
        self.reload()
    }

    /// The next authority signs from now on.
    ///
    /// # Errors
    /// When none was announced, or the folder cannot be written.
    pub fn activate(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.rotation() == Rotation::Announced,
            "no next authority was announced; begin with `fleet clusters rotate-authority begin`"
        );
        self.folder.activate(&self.signer())?;
        self.reload()
    }

    /// The old authority is no longer trusted.
    ///
    /// # Errors
    /// When the next one does not sign yet, or the folder cannot be written.
    pub fn retire(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.rotation() == Rotation::Activated,
            "there is no old authority; the next one has to be activated first"
        );
        self.folder.retire()?;
        self.reload()
    }

    fn reload(&self) -> anyhow::Result<()> {
        let fresh = Authority::open(&self.folder.to_path(), &self.domain, self.life)?;
        let fresh = fresh.signers.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.signers.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.changed.send_modify(|change| *change += 1);
        Ok(())
    }

    fn signer(&self) -> Arc<Signer> {
        self.read(|signers| signers.active.clone())
    }

    fn read<R>(&self, f: impl FnOnce(&Signers) -> R) -> R {
        f(&self.signers.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a folder is begun that has no authority.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin<'a> {
    /// Clusters have joined by an authority that is gone: nothing is begun.
    pub joined: bool,
    /// A given one: a file with its certificate and its key, PEM. One is made without.
    pub from: Option<&'a Path>,
}

/// A given authority, if it can be used.
fn given(file: &Path) -> anyhow::Result<String> {
    let hint = || format!("cannot use {} (--authority-from)", file.display());
    let text = std::fs::read_to_string(file).with_context(hint)?;
    Signer::parse(&text).with_context(hint)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
