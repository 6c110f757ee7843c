//! The authorities that a hub is trusted by, and those that it announces: a login keeps them up to date by itself, while the
//! old ones still verify the hub.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use proto::certificate::{AUTHORITIES_HEADER, Announced, KeyHash, announced, read};
use proto::v1::AuthoritiesRequest;
use proto::v1::fleet_admin_client::FleetAdminClient;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;

use crate::connection::{Authorized, Connection, connect};
use crate::contexts::{self, Context};
use crate::failure::Failure;
use crate::output::note;

/// Certificates as PEM.
#[must_use]
pub fn pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let one = |der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
        let body: String = lines.map(|line| format!("{line}\n")).collect();
        format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    };
    certificates.into_iter().map(one).collect()
}

/// The certificates of a PEM file that may hold keys and more besides.
#[must_use]
pub fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    found.map(CertificateDer::into_owned).collect()
}

/// Keys of the certificates of a PEM file.
#[must_use]
pub fn keys(pem: &[u8]) -> BTreeSet<KeyHash> {
    let key = |der: &CertificateDer<'static>| Some(read(der).ok()?.key);
    certificates(pem).iter().filter_map(key).collect()
}

/// As a request has them.
#[must_use]
pub fn wire(keys: &BTreeSet<KeyHash>) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.to_vec()).collect()
}

/// What is to be done about an announcement. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    None,
    /// The login trusts other authorities than the hub announces.
    Fetch,
    /// The next authority is not in the files that the person has chosen.
    ByHand,
}

fn news(trusted: &BTreeSet<KeyHash>, announced: &[Announced], by_login: bool) -> News {
    let keys: BTreeSet<KeyHash> = announced.iter().map(|one| one.key).collect();
    if by_login {
        return if keys == *trusted { News::None } else { News::Fetch };
    }
    match announced
        .iter()
        .any(|one| one.next && !trusted.contains(&one.key))
    {
        true => News::ByHand,
        false => News::None,
    }
}

/// The authorities of a connection.
pub struct Trusted {
    keys: BTreeSet<KeyHash>,
    /// The login that it is of.
    context: Option<Context>,
    /// An announcement was heeded: once for a command.
    done: AtomicBool,
}

impl Trusted {
    /// Of a connection.
    #[must_use]
    pub fn of(connection: &Connection) -> Trusted {
        Trusted {
            keys: keys(&connection.ca),
            context: connection.context.clone(),
            done: AtomicBool::new(false),
        }
    }

    /// Heeds what the hub announces in an answer. A failure is told and is not that of the command.
    pub async fn heed(
        &self,
        headers: &MetadataMap,
        admin: &FleetAdminClient<Authorized>,
        hub: &str,
        limit: Duration,
    ) {
        let header = headers
            .get(AUTHORITIES_HEADER)
            .and_then(|value| value.to_str().ok());
        let Some(announced) = header.and_then(announced) else {
            return;
        };
        let news = news(&self.keys, &announced, self.context.is_some());
        if news == News::None || self.done.swap(true, Ordering::Relaxed) {
            return;
        }
        match &self.context {
            Some(context) => {
                if let Err(failure) = fetch(admin.clone(), context, limit).await {
                    note(&format!(
                        "fleet: the authorities that the hub at {hub} announces could not be kept, and are tried again with the next \
                         command: {failure}"
                    ));
                }
            }
            None => note(&format!(
                "fleet: the certificate of the hub at {hub} will be of another authority soon; before that: fleet hub \
                 authorities > FILE, and have FLEET_CA name that file"
            )),
        }
    }
}

/// Fetches the authorities, connects by them alone, and keeps them.
async fn fetch(
    mut admin: FleetAdminClient<Authorized>,
    context: &Context,
    limit: Duration,
) -> Result<(), Failure> {
    let late = |_| Failure::Timeout(context.hub.clone());
    let failed = |status: tonic::Status| Failure::of(&status, &context.hub, true);
    let answer = timeout(limit, admin.authorities(AuthoritiesRequest::default())).await;
    let found = answer.map_err(late)?.map_err(failed)?.into_inner().authorities;
    let fresh = Context {
        ca: pem(found.iter().map(Vec::as_slice)),
        ..context.clone()
    };
    // A hub that presents something else than it announces would lock this login out.
    let (channel, session) = connect(Connection::of(&fresh), limit).await?;
    keep(&fresh)?;
    let kept = AuthoritiesRequest {
        kept: wire(&keys(fresh.ca.as_bytes())),
    };
    let mut admin = FleetAdminClient::with_interceptor(channel, session);
    timeout(limit, admin.authorities(kept))
        .await
        .map_err(late)?
        .map_err(failed)?;
    Ok(())
}

/// Writes the authorities of a login, unless another one has taken its place meanwhile.
fn keep(fresh: &Context) -> Result<(), Failure> {
    let path = contexts::path()?;
    let mut all = contexts::load(&path)?;
    let mut present = all.contexts.iter_mut();
    let Some(present) = present.find(|one| one.name == fresh.name && one.session == fresh.session) else {
        return Ok(());
    };
    present.ca.clone_from(&fresh.ca);
    contexts::save(&path, &all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_login_follows_and_files_are_a_persons_own() {
        let one = |byte, next| Announced {
            key: [byte; 32],
            next,
        };
        let trusted = BTreeSet::from([[1; 32]]);
        let (same, soon, other) = (
            [one(1, false)],
            [one(1, false), one(2, true)],
            [one(1, false), one(3, false)],
        );
        assert_eq!(news(&trusted, &same, true), News::None);
        assert_eq!(news(&trusted, &soon, true), News::Fetch);
        assert_eq!(news(&trusted, &[one(2, false)], true), News::Fetch);
        assert_eq!(news(&trusted, &soon, false), News::ByHand);
        assert_eq!(
            news(&trusted, &other, false),
            News::None,
            "it signs nothing of the hub's"
        );
        assert_eq!(
            news(&BTreeSet::from([[1; 32], [2; 32], [9; 32]]), &soon, false),
            News::None
        );
    }

    #[test]
    fn certificates_are_found_among_other_things() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let file = format!("{}{}", key.serialize_pem(), pem([certificate.der().as_ref()]));
        assert_eq!(certificates(file.as_bytes()), [certificate.der().clone()]);
        assert_eq!(keys(file.as_bytes()).len(), 1);
        assert!(keys(b"nothing").is_empty());
    }
}
