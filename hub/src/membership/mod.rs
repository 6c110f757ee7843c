//! Which clusters are in the fleet: the authority that certifies them, who is banned, and who trusts what.

mod renew;
mod rotate;
mod service;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Context as _;
use proto::certificate::{Facts, KeyHash};
use proto::time::from_unix_millis;

pub use self::renew::Renewals;
pub use self::service::ClustersService;
pub use self::trust::{Trust, Trusted};
use crate::access::Role;
use crate::authority::{Authority, Begin, IssueError, Signed};
use crate::bans::{Ban, Bans};
use crate::config::{Config, Span};
use crate::store::beside::Beside;
use crate::store::{HubStore, StoredCertificate, StoredDecision};
use crate::tls::certificates;
use crate::{Millis, identity, now};

/// Who is in the fleet.
pub struct Membership {
    /// The hub's own authority; `None` when only a given one is trusted, and nobody can enrol.
    pub authority: Option<Arc<Authority>>,
    /// Trust domain of the fleet.
    pub domain: Arc<str>,
    /// What spokes are told about where they enrol and connect; empty for nothing.
    pub enrol_url: String,
    pub link_url: String,
    /// A given certificate is presented to spokes and people, in place of one of the own authority.
    presents_given: bool,
    /// Given authorities, DER: one of them may have signed the hub's certificate.
    given: Mutex<Vec<Vec<u8>>>,
    /// All authorities that clients of the hub have to trust.
    pub trust: Trusted,
    bans: RwLock<Bans>,
    /// Held by a decision about bans or the authority, from what it looks at to what it puts in force.
    deciding: tokio::sync::Mutex<()>,
    /// Keys of the authorities that each cluster has kept, as it reported in this run of the hub.
    trusted: Mutex<BTreeMap<Arc<str>, BTreeSet<KeyHash>>>,
    /// Serial of the newest certificate that each cluster is known to have, as above. One that was issued may be lost.
    shown: Mutex<BTreeMap<Arc<str>, String>>,
}

impl Membership {
    /// As configured and as the store has kept it.
    ///
    /// # Errors
    /// When the authority or the store cannot be used.
    pub async fn start(config: &Config, store: &dyn HubStore) -> anyhow::Result<Membership> {
        let authority = match authority_folder(config) {
            Some(folder) => {
                let (domain, life) = (&config.trust_domain, config.certificate_life.millis());
                let joined = !config.new_authority && store.has_enrolled().await?;
                let begin = Begin {
                    joined,
                    from: config.authority_from.as_deref(),
                };
                let authority = Authority::open_or_create(&folder, domain, life, begin, now())?;
                Some(Arc::new(authority))
            }
            None => None,
        };
        let mut bans = Bans::default();
        store.bans().await?.into_iter().for_each(|ban| bans.put(ban));
        for certificate in store.certificates(now()).await? {
            bans.issued(&certificate.cluster, &certificate.serial, certificate.issued);
        }
        let files = [&config.tls_ca, &config.tls_cert_ca].into_iter().flatten();
        let given: Vec<_> = files.map(|file| certificates(file)).collect::<Result<_, _>>()?;
        let given: Vec<Vec<u8>> = given.iter().flatten().map(|der| der.to_vec()).collect();
        Ok(Membership {
            trust: Trusted::new(authority.as_deref(), &given),
            given: Mutex::new(given),
            authority,
            domain: config.trust_domain.as_str().into(),
            enrol_url: config.enrol_url.clone(),
            link_url: config.link_url.clone(),
            presents_given: config.tls_cert.is_some(),
            bans: RwLock::new(bans),
            deciding: tokio::sync::Mutex::default(),
            trusted: Mutex::default(),
            shown: Mutex::default(),
        })
    }

    /// Why a cluster with a certificate may not connect, if so.
    #[must_use]
    pub fn refuses(&self, cluster: &str, certificate: &Facts) -> Option<String> {
        self.with_bans(|bans| bans.refuses(cluster, certificate))
    }

    /// The ban of a cluster that may not connect now.
    #[must_use]
    pub fn ban(&self, cluster: &str) -> Option<Ban> {
        self.with_bans(|bans| bans.present(cluster).cloned())
    }

    /// All bans that are not lifted.
    #[must_use]
    pub fn banned(&self) -> Vec<Ban> {
        self.with_bans(|bans| bans.all().cloned().collect())
    }

    /// A certificate was issued, and is kept.
    pub fn issued(&self, certificate: &StoredCertificate) {
        let mut bans = self.bans.write().unwrap_or_else(PoisonError::into_inner);
        bans.issued(&certificate.cluster, &certificate.serial, certificate.issued);
    }

    /// The authorities that clients have to trust, DER.
    #[must_use]
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.trust.now().authorities.clone()
    }

    /// Key of the authority that the hub presents to people, hex digits; `None` where it presents a given certificate.
    #[must_use]
    pub fn pin(&self) -> Option<String> {
        let authority = self.authority.as_ref().filter(|_| !self.presents_given)?;
        Some(hex::encode(authority.active()))
    }

    /// Takes the given authorities up as their file has them now, DER.
    pub fn give(&self, given: Vec<Vec<u8>>) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = given;
        self.refresh();
    }

    /// Announces the authorities of now, if they are others.
    fn refresh(&self) {
        // Held until they are announced: an earlier state must not come last.
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        self.trust.refresh(self.authority.as_deref(), &given);
    }

    /// A certificate for a cluster's spoke, with the authorities that it has to trust.
    ///
    /// # Errors
    /// When there is no authority, or the request cannot be used.
    pub fn sign(&self, cluster: &str, request: &[u8]) -> Result<Signed, IssueError> {
        let authority = self.authority.as_ref().ok_or(IssueError::None)?;
        let mut signed = authority.spoke(cluster, request, now())?;
        signed.certificate.authorities = self.authorities();
        Ok(signed)
    }

    /// A cluster has kept a bundle.
    pub fn trusts(&self, cluster: &Arc<str>, keys: Vec<Vec<u8>>) {
        let keys = keys.into_iter().filter_map(|key| KeyHash::try_from(key).ok());
        let mut trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        // A bundle has three at most.
        trusted.insert(cluster.clone(), keys.take(8).collect());
    }

    /// A cluster has connected with a certificate, or has kept it for its next connection.
    pub fn has(&self, cluster: &Arc<str>, serial: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.insert(cluster.clone(), serial.to_owned());
    }

    fn put_ban(&self, ban: Ban) {
        let mut bans = self.bans.write().unwrap_or_else(PoisonError::into_inner);
        bans.put(ban);
    }

    fn with_bans<R>(&self, f: impl FnOnce(&Bans) -> R) -> R {
        f(&self.bans.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A certificate that was signed for a cluster, as it is kept.
#[must_use]
pub fn stored(cluster: &str, signed: &Signed) -> StoredCertificate {
    StoredCertificate {
        serial: signed.facts.serial.clone(),
        cluster: cluster.to_owned(),
        issued: now(),
        expires: signed.facts.expires,
        authority: signed.authority.to_vec(),
        forgotten: false,
    }
}

/// Folder of the hub's own authority: beside the store, unless only a given authority is to be trusted.
#[must_use]
pub fn authority_folder(config: &Config) -> Option<PathBuf> {
    let beside = || config.store.with_file_name("authority");
    let own = config.tls_ca.is_none().then(beside);
    config.authority_dir.clone().or(own)
}

/// Certificate and key of a person with a role in the whole fleet, and the authorities to trust, PEM. It is in the audit
/// before it is given out, also while the hub runs.
///
/// # Errors
/// When the name is none, there is no authority to sign with, or the entry cannot be written.
pub async fn operator_certificate(
    config: &Config,
    name: &str,
    role: Role,
    valid: Span,
) -> anyhow::Result<String> {
    anyhow::ensure!(
        identity::proper_name(name),
        "{name:?} is no name: 1 to 253 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
    );
    let folder = authority_folder(config);
    let folder = folder.ok_or_else(|| {
        anyhow::anyhow!("the hub trusts a given authority only (--tls-ca): have that one sign a certificate")
    })?;
    let authority = Authority::open(&folder, &config.trust_domain, config.certificate_life.millis())?;
    let store = Beside::open(&config.store).await?;
    let now = now();
    // Those of before a revocation stay refused: this one has to begin after it.
    let begins = store.revoked(name).await?.unwrap_or(Millis::MIN);
    let (pem, facts) = authority.person((role.as_str(), name), begins, valid.millis(), now)?;
    let decision = StoredDecision {
        at: now,
        who: "fleet-hub".to_owned(),
        what: "operator-certificate".to_owned(),
        subject: name.to_owned(),
        after: format!(
            "certificate {}, {} in the whole fleet, until {}",
            facts.serial,
            role.as_str(),
            from_unix_millis(facts.expires)
        ),
        ..StoredDecision::default()
    };
    let kept = store.decide(decision).await;
    kept.context("no certificate is given out without its entry in the audit")?;
    Ok(pem)
}
