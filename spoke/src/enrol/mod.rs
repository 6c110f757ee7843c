//! How this cluster gets its certificate: with a join token at first, then on the link. Key and certificate are kept in a
//! Secret of the operator's namespace, so that every replica has them.

mod decide;
mod pin;
mod secret;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crds::conditions::reasons;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use proto::certificate::KeyHash;
use proto::v1::fleet_enrol_client::FleetEnrolClient;
use proto::v1::{EnrolRequest, IssuedCertificate};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::Notify;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing::{info, warn};

use self::decide::{Step, decide};
use self::pin::Pinned;
pub use self::secret::{Held, Join};
use self::secret::{IDENTITY, Identity, JOIN, Prepared};
use crate::apply::Applier;
use crate::context::Context;
use crate::exchange::Uncertified;
use crate::world::{Key, World};

/// Time for the connection to the hub, and for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a join Secret that could not be read.
const LOOK: Duration = Duration::from_secs(15);

/// Where Secrets are, and what the hub's certificate has to name.
#[derive(Clone, Debug)]
pub struct Place {
    pub namespace: String,
    pub server_name: String,
}

/// The certificate for the next dial, got with a join token if there is none.
///
/// # Errors
/// Why there is none, with what to do.
pub async fn certificate(place: &Place, context: &Context) -> anyhow::Result<Held> {
    let (applier, cluster) = (&context.applier, &context.cluster);
    let mut identity = read(applier, place).await?;
    let join = applier
        .get::<Secret>(&Key::new(place.namespace.as_str(), JOIN))
        .await;
    let join = join.with_context(|| format!("cannot read Secret {JOIN}"))?;
    let join = match (join.as_ref().map(Join::parse).transpose(), &identity.held) {
        (Ok(join), _) => join,
        (Err(error), None) => return Err(error),
        (Err(error), Some(_)) => {
            warn!("{error:#}; the certificate that is there is used");
            None
        }
    };
    let now = context.clock.now();
    let step = decide(cluster, identity.held.as_ref(), join.as_ref(), now);
    let join = match (step, join) {
        (Step::Enrol, Some(join)) => join,
        (Step::Blocked(blocked), _) => return Err(blocked.into()),
        _ => return identity.held.context("there is no certificate"),
    };
    match enrol(place, context, &join, &mut identity).await {
        Ok(held) => {
            info!(cluster, serial = held.facts.serial, "joined the fleet");
            Ok(held)
        }
        Err(error) => {
            let good = identity
                .held
                .filter(|held| now.as_millisecond() < held.facts.expires);
            let held = good.ok_or_else(|| error.context("this cluster could not join the fleet"));
            held.inspect(|_| warn!("the join token is of no use; the certificate that is there is used"))
        }
    }
}

/// Joins: the key is kept before the token is sent, so that a lost answer can be asked for again.
async fn enrol(
    place: &Place,
    context: &Context,
    join: &Join,
    identity: &mut Identity,
) -> anyhow::Result<Held> {
    let joined = join.hash();
    let prepared = identity
        .prepared
        .clone()
        .filter(|prepared| prepared.joined == joined);
    let key = match prepared {
        Some(prepared) => prepared.key,
        None => {
            let key = new_key()?;
            identity.prepared = Some(Prepared {
                key: key.clone(),
                joined: joined.clone(),
            });
            write(&context.applier, place, identity).await?;
            key
        }
    };
    let request = EnrolRequest {
        token: join.token.clone(),
        csr: request(&key)?,
        cluster: context.cluster.clone(),
        cluster_uid: context.site.cluster_uid.clone(),
    };
    let issued = ask(place, join, request).await?;
    let held = Held::of(&issued, &key, (&joined, &join.hub, &join.cluster))?;
    let fresh = Identity {
        held: Some(held.clone()),
        prepared: None,
    };
    write(&context.applier, place, &fresh).await?;
    Ok(held)
}

async fn ask(place: &Place, join: &Join, request: EnrolRequest) -> anyhow::Result<IssuedCertificate> {
    anyhow::ensure!(
        join.enrol.starts_with("https://"),
        "key enrol of Secret {JOIN} does not begin with https://"
    );
    let tls = ClientTlsConfig::new().domain_name(&place.server_name);
    let endpoint = Endpoint::from_shared(join.enrol.clone())?
        .tls_config_with_verifier(tls, Arc::new(Pinned::new(join.pin)))?
        .connect_timeout(PATIENCE);
    let channel = timeout(PATIENCE, endpoint.connect()).await;
    let channel = channel.with_context(|| format!("no answer from {} in time", join.enrol))?;
    let channel = channel.with_context(|| format!("no connection to {}", join.enrol))?;
    let answer = timeout(PATIENCE, FleetEnrolClient::new(channel).enrol(request)).await;
    let answer = answer.context("no answer in time")?;
    let answer = answer.map_err(|status| refused(&status))?;
    answer
        .into_inner()
        .certificate
        .context("the hub's answer has no certificate")
}

/// A refusal of the hub needs a person; anything else is tried again.
fn refused(status: &tonic::Status) -> anyhow::Error {
    let text = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied | Code::FailedPrecondition | Code::InvalidArgument => Uncertified {
            reason: reasons::CLUSTER_NOT_JOINED,
            text,
        }
        .into(),
        _ => anyhow::anyhow!(text),
    }
}

/// A key for the next certificate, PEM.
///
/// # Errors
/// When there is no randomness.
pub fn new_key() -> anyhow::Result<String> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// A signing request for a key, DER.
///
/// # Errors
/// When the key cannot be read.
pub fn request(key: &str) -> anyhow::Result<Vec<u8>> {
    let key = KeyPair::from_pem(key)?;
    Ok(CertificateParams::default()
        .serialize_request(&key)?
        .der()
        .to_vec())
}

/// Keeps the next certificate.
///
/// # Errors
/// When it is of another key, or could not be kept.
pub async fn renewed(
    place: &Place,
    applier: &Applier,
    before: &Held,
    issued: &IssuedCertificate,
    key: &str,
) -> anyhow::Result<Held> {
    let held = Held::of(issued, key, (&before.joined, &before.hub, &before.cluster))?;
    keep(place, applier, &held).await?;
    Ok(held)
}

/// Keeps the authorities that the hub announces, and names their keys.
///
/// # Errors
/// When they could not be kept.
pub async fn trust(
    place: &Place,
    applier: &Applier,
    held: &mut Held,
    authorities: &[Vec<u8>],
) -> anyhow::Result<Vec<KeyHash>> {
    let keys: Vec<KeyHash> = authorities
        .iter()
        .filter_map(|der| Some(proto::certificate::read(der).ok()?.key))
        .collect();
    anyhow::ensure!(!keys.is_empty(), "the hub announces no authority");
    let bundle = secret::bundle(authorities);
    if bundle != held.authorities {
        let fresh = Held {
            authorities: bundle,
            ..held.clone()
        };
        keep(place, applier, &fresh).await?;
        *held = fresh;
    }
    Ok(keys)
}

async fn keep(place: &Place, applier: &Applier, held: &Held) -> anyhow::Result<()> {
    // A token that was applied meanwhile may have a key already.
    let present = read(applier, place).await?;
    let identity = Identity {
        held: Some(held.clone()),
        ..present
    };
    write(applier, place, &identity).await
}

async fn read(applier: &Applier, place: &Place) -> anyhow::Result<Identity> {
    let secret = applier
        .get::<Secret>(&Key::new(place.namespace.as_str(), IDENTITY))
        .await;
    let secret = secret.with_context(|| format!("cannot read Secret {IDENTITY}"))?;
    Ok(secret.as_ref().map(Identity::parse).unwrap_or_default())
}

async fn write(applier: &Applier, place: &Place, identity: &Identity) -> anyhow::Result<()> {
    let written = applier.apply(&identity.secret(&place.namespace)).await;
    written
        .map(drop)
        .with_context(|| format!("cannot write Secret {IDENTITY}"))
}

/// Name and hub of this cluster, as it joined or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub cluster: String,
    pub hub: String,
}

/// Which fleet this cluster has joined, or is to join. What is to be joined counts before what was.
///
/// # Errors
/// When the API server does not answer.
pub async fn membership(client: &Client, namespace: &str) -> anyhow::Result<Option<Membership>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let get = async |name: &str| {
        let secret = timeout(PATIENCE, secrets.get_opt(name)).await;
        let secret = secret.with_context(|| format!("no answer about Secret {name}"))?;
        secret.with_context(|| format!("cannot read Secret {name}"))
    };
    let join = get(JOIN).await?.as_ref().map(Join::parse).transpose();
    // What cannot be used does not take a cluster out of its fleet.
    let join = join.unwrap_or_else(|error| {
        warn!("{error:#}");
        None
    });
    if let Some(Join { cluster, hub, .. }) = join {
        return Ok(Some(Membership { cluster, hub }));
    }
    let held = get(IDENTITY)
        .await?
        .and_then(|secret| Identity::parse(&secret).held);
    let held = held.filter(|held| !held.hub.is_empty());
    Ok(held.map(|held| Membership {
        cluster: held.cluster,
        hub: held.hub,
    }))
}

/// Notified whenever the join Secret is seen to be there, for as long as the cache lives.
#[must_use]
pub fn invitations(world: &World, namespace: &str) -> Arc<Notify> {
    let (news, join) = (Arc::new(Notify::new()), Key::new(namespace, JOIN));
    let told = news.clone();
    world.secrets.observe(move |key, _, new| {
        if *key == join && new.is_some() {
            told.notify_one();
        }
    });
    news
}

/// Waits until there is a hub to join, in a spoke that began without one.
pub async fn invited(client: &Client, namespace: &str, news: &Notify) -> Membership {
    loop {
        news.notified().await;
        match membership(client, namespace).await {
            Ok(Some(membership)) => return membership,
            Ok(None) => {}
            Err(error) => {
                warn!("whether there is a hub to join is not known: {error:#}");
                tokio::time::sleep(LOOK).await;
                news.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests;
