//! FleetClusters: what people decide about which clusters are in the fleet. Kept before it is answered.

use std::sync::Arc;

use proto::time::from_unix_millis;
use proto::v1::fleet_clusters_server::FleetClusters;
use proto::v1::{
    BanClusterRequest, BanClusterResponse, CreateJoinTokenRequest, CreateJoinTokenResponse,
    RotateAuthorityRequest, RotateAuthorityResponse, UnbanClusterRequest, UnbanClusterResponse,
};
use tonic::{Request, Response, Status};
use tracing::info;

use super::rotate;
use crate::access::{Person, Verb, out_of_scope};
use crate::authority::random;
use crate::bans::Ban;
use crate::enrol::tokens;
use crate::hub::Hub;
use crate::store::{StoreError, StoredDecision, StoredToken};
use crate::{access, identity, now};

/// Longest reason that is kept.
const REASON: usize = 500;

/// The service.
pub struct ClustersService {
    hub: Arc<Hub>,
}

impl ClustersService {
    /// A service on a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> ClustersService {
        ClustersService { hub }
    }
}

#[tonic::async_trait]
impl FleetClusters for ClustersService {
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let person = access::person(&request)?;
        create(&self.hub, request.into_inner(), &person)
            .await
            .map(Response::new)
    }

    async fn ban_cluster(
        &self,
        request: Request<BanClusterRequest>,
    ) -> Result<Response<BanClusterResponse>, Status> {
        let person = access::person(&request)?;
        ban(&self.hub, request.into_inner(), &person)
            .await
            .map(Response::new)
    }

    async fn unban_cluster(
        &self,
        request: Request<UnbanClusterRequest>,
    ) -> Result<Response<UnbanClusterResponse>, Status> {
        let person = access::person(&request)?;
        unban(&self.hub, request.into_inner(), &person)
            .await
            .map(Response::new)
    }

    async fn rotate_authority(
        &self,
        request: Request<RotateAuthorityRequest>,
    ) -> Result<Response<RotateAuthorityResponse>, Status> {
        let person = access::person(&request)?;
        rotate::rotate(&self.hub, request.into_inner(), &person)
            .await
            .map(Response::new)
    }
}

async fn create(
    hub: &Hub,
    request: CreateJoinTokenRequest,
    person: &Person,
) -> Result<CreateJoinTokenResponse, Status> {
    let membership = &hub.membership;
    let authority = membership.authority.as_ref().ok_or_else(|| {
        Status::failed_precondition(
            "the hub trusts a given authority only (--tls-ca) and cannot sign: set --authority-dir of the hub, or make the \
             certificate by hand",
        )
    })?;
    let cluster = may(person, Verb::Enrol, &request.cluster)?;
    let who = &*person.name;
    let life = tokens::life(request.valid_ms)
        .ok_or_else(|| Status::invalid_argument("a join token is valid for 1 minute to 24 hours"))?;
    // A ban ends the tokens of before: none is made beside it.
    let _deciding = membership.deciding.lock().await;
    if let Some(ban) = membership.ban(cluster) {
        return Err(Status::failed_precondition(ban.text()));
    }
    let random = random().map_err(|error| Status::unavailable(error.to_string()))?;
    let (token, created) = (tokens::spell(&random), now());
    let stored = StoredToken {
        hash: tokens::hash(&token),
        cluster: cluster.to_owned(),
        created,
        expires: created.saturating_add(life),
        who: who.to_owned(),
        used: None,
    };
    let expires = Some(from_unix_millis(stored.expires));
    let decision = decision(
        who,
        "join-token",
        cluster,
        "",
        &format!("valid for {} s", life / 1000),
    );
    hub.store()
        .add_token(stored, decision)
        .await
        .map_err(|error| unavailable(&error))?;
    info!(cluster, who, "a join token was made");
    let known = hub.read(|inventory| {
        inventory
            .member(cluster)
            .map(|member| member.facts.cluster_uid.clone())
    });
    Ok(CreateJoinTokenResponse {
        token,
        expires,
        pin: hex::encode(authority.active()),
        enrol_url: membership.enrol_url.clone(),
        link_url: membership.link_url.clone(),
        known_uid: known.unwrap_or_default(),
    })
}

async fn ban(hub: &Hub, request: BanClusterRequest, person: &Person) -> Result<BanClusterResponse, Status> {
    let cluster = may(person, Verb::Ban, &request.cluster)?;
    let who = &*person.name;
    let reason: String = request
        .reason
        .chars()
        .filter(|c| !c.is_control())
        .take(REASON)
        .collect();
    let ban = Ban {
        cluster: cluster.to_owned(),
        since: now(),
        who: who.to_owned(),
        reason,
        lifted: None,
        refused_before: None,
    };
    // From here to the end nobody else decides: what is kept and what is in force would differ.
    let _deciding = hub.membership.deciding.lock().await;
    let before = hub.membership.ban(cluster).map_or("", |_| "banned");
    let decision = decision(
        who,
        "ban-cluster",
        cluster,
        before,
        &format!("banned: {}", ban.reason),
    );
    hub.store()
        .save_ban(ban.clone(), decision)
        .await
        .map_err(|error| unavailable(&error))?;
    let text = ban.text();
    hub.membership.put_ban(ban);
    let was_connected = hub.change(|inventory| inventory.ban(cluster, Some(text)));
    // After the ban is known: a session that begins in between looks again once it can be ended.
    hub.end(cluster);
    info!(cluster, who, was_connected, "a cluster was banned");
    Ok(BanClusterResponse { was_connected })
}

async fn unban(
    hub: &Hub,
    request: UnbanClusterRequest,
    person: &Person,
) -> Result<UnbanClusterResponse, Status> {
    let cluster = may(person, Verb::Ban, &request.cluster)?;
    let who = &*person.name;
    let _deciding = hub.membership.deciding.lock().await;
    let Some(present) = hub.membership.ban(cluster) else {
        return Err(Status::not_found(format!("cluster {cluster:?} is not banned")));
    };
    let lifted = now();
    let ban = Ban {
        lifted: Some(lifted),
        refused_before: if request.rejoin {
            Some(lifted)
        } else {
            present.refused_before
        },
        ..present
    };
    let after = if request.rejoin {
        "lifted, has to join again"
    } else {
        "lifted"
    };
    let decision = decision(who, "unban-cluster", cluster, "banned", after);
    hub.store()
        .save_ban(ban.clone(), decision)
        .await
        .map_err(|error| unavailable(&error))?;
    hub.membership.put_ban(ban);
    hub.change(|inventory| inventory.ban(cluster, None));
    info!(cluster, who, rejoin = request.rejoin, "a ban was lifted");
    Ok(UnbanClusterResponse {})
}

/// A cluster that a person may do something to, all of it.
fn may<'a>(person: &Person, verb: Verb, cluster: &'a str) -> Result<&'a str, Status> {
    if !person.sight(verb).takes_cluster(cluster) {
        return Err(out_of_scope(person, verb, "this cluster"));
    }
    proper(cluster)
}

fn proper(name: &str) -> Result<&str, Status> {
    let text = || {
        format!(
            "{name:?} is no name of a cluster: 1 to 253 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
        )
    };
    match identity::proper_name(name) {
        true => Ok(name),
        false => Err(Status::invalid_argument(text())),
    }
}

fn decision(who: &str, what: &str, subject: &str, before: &str, after: &str) -> StoredDecision {
    StoredDecision {
        at: now(),
        who: who.to_owned(),
        what: what.to_owned(),
        subject: subject.to_owned(),
        cluster: subject.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
        ..StoredDecision::default()
    }
}

fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}
