//! FleetEnrol: a certificate for a join token, on a listener without client certificates.

pub mod tokens;

use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use proto::certificate::key_hash;
use proto::v1::fleet_enrol_server::FleetEnrol;
use proto::v1::{EnrolRequest, EnrolResponse, IssuedCertificate};
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use self::tokens::{Refusal, Shown, Step};
use crate::authority::requested_key;
use crate::hub::Hub;
use crate::inventory::Inventory;
use crate::rate::{Limit, Rate};
use crate::store::{StoredDecision, StoredToken, TokenUse};
use crate::{Moment, identity, membership, now};

/// Most bytes of a request: a signing request of P-256 has a few hundred.
pub const REQUEST_MAX: usize = 8 << 10;
/// Attempts to enrol of all together.
const ATTEMPTS: Limit = Limit {
    burst: 100,
    per_second: 20,
};
/// Longest uid.
const UID: usize = 128;

/// The service.
pub struct EnrolService {
    hub: Arc<Hub>,
    rate: Mutex<Rate>,
}

impl EnrolService {
    /// A service on a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> EnrolService {
        EnrolService {
            hub,
            rate: Mutex::new(Rate::new(ATTEMPTS, Moment::now().steady)),
        }
    }

    /// Enrols, and looks a second time if another request with the same token came first.
    async fn enrol(&self, request: &EnrolRequest) -> Result<IssuedCertificate, Status> {
        let key = requested_key(&request.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let key = key_hash(&key).to_vec();
        for _ in 0..2 {
            if let Some(certificate) = self.attempt(request, &key).await? {
                return Ok(certificate);
            }
        }
        Err(Status::aborted("the join token is in use; ask again"))
    }

    /// `None` when another request has used the token meanwhile.
    async fn attempt(&self, request: &EnrolRequest, key: &[u8]) -> Result<Option<IssuedCertificate>, Status> {
        let hub = &self.hub;
        let hash = tokens::hash(&request.token);
        let token = hub.store().token(hash.clone()).await;
        let token = token.map_err(|error| Status::unavailable(error.to_string()))?;
        let shown = Shown {
            cluster: &request.cluster,
            public_key: key,
        };
        let step = match tokens::decide(token.as_ref(), shown, now()) {
            Ok(step) => step,
            Err(refusal) => return Err(self.refuse(token, &refusal).await),
        };
        self.admit(request)?;
        if let Step::Again(answer) = step {
            let answer = IssuedCertificate::decode(answer.as_slice());
            return answer
                .map(Some)
                .map_err(|error| Status::internal(error.to_string()));
        }
        let signed = hub.membership.sign(&request.cluster, &request.csr);
        let signed = signed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let certificate = membership::stored(&request.cluster, &signed);
        let decision = StoredDecision {
            at: certificate.issued,
            who: token.map(|token| token.who).unwrap_or_default(),
            what: "enrol".to_owned(),
            subject: request.cluster.clone(),
            cluster: request.cluster.clone(),
            after: format!(
                "certificate {} for the cluster with uid {}",
                certificate.serial, request.cluster_uid
            ),
            ..StoredDecision::default()
        };
        let used = TokenUse {
            hash,
            public_key: key.to_vec(),
            answer: signed.certificate.encode_to_vec(),
            certificate: certificate.clone(),
            decision,
        };
        let first = hub.store().use_token(used).await;
        if !first.map_err(|error| Status::unavailable(error.to_string()))? {
            return Ok(None);
        }
        hub.membership.issued(&certificate);
        info!(
            cluster = request.cluster,
            serial = certificate.serial,
            "a cluster has joined"
        );
        Ok(Some(signed.certificate))
    }

    /// Whether a cluster may have the name that its token is for.
    fn admit(&self, request: &EnrolRequest) -> Result<(), Status> {
        let (cluster, uid) = (&request.cluster, &request.cluster_uid);
        if let Some(ban) = self.hub.membership.ban(cluster) {
            return Err(Status::permission_denied(ban.text()));
        }
        let known = |inventory: &Inventory| {
            inventory
                .member(cluster)
                .map(|member| member.facts.cluster_uid.clone())
        };
        let known = self.hub.read(known).unwrap_or_default();
        if known.is_empty() || known == *uid {
            return Ok(());
        }
        self.hub
            .change(|inventory: &mut Inventory| inventory.asks_for(cluster, uid));
        Err(Status::failed_precondition(format!(
            "cluster {cluster} is known with uid {known}, and this is another one ({uid}): `fleet clusters accept {cluster} --uid \
             {uid}` gives it the name"
        )))
    }

    /// What is told of a refusal, and kept of it when somebody has the token.
    async fn refuse(&self, token: Option<StoredToken>, refusal: &Refusal) -> Status {
        let text = refusal.to_string();
        warn!(reason = text, "an attempt to join was refused");
        if let Some(token) = token {
            let decision = StoredDecision {
                at: now(),
                who: token.who,
                what: "enrol-refused".to_owned(),
                subject: token.cluster.clone(),
                cluster: token.cluster,
                after: text.clone(),
                ..StoredDecision::default()
            };
            if let Err(error) = self.hub.store().decide(decision).await {
                warn!(%error, "a refusal could not be kept");
            }
        }
        Status::permission_denied(text)
    }
}

#[tonic::async_trait]
impl FleetEnrol for EnrolService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let looked_at = {
            let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
            rate.take(Moment::now().steady)
        };
        let request = request.into_inner();
        let answer = if looked_at {
            check(&request).map(|()| request)
        } else {
            Err(Status::resource_exhausted(
                "too many attempts to join; try again in a second",
            ))
        };
        let answer = match answer {
            Ok(request) => EnrolService::enrol(self, &request).await,
            Err(status) => Err(status),
        };
        let label = answer.as_ref().err().map_or("ok", |status| label(status.code()));
        self.hub.metrics.enrolments.with_label_values(&[label]).inc();
        Ok(Response::new(EnrolResponse {
            certificate: Some(answer?),
        }))
    }
}

fn check(request: &EnrolRequest) -> Result<(), Status> {
    if !identity::proper_name(&request.cluster) {
        return Err(Status::invalid_argument(
            "the cluster's name is none: a-z, 0-9, '-' and '.'",
        ));
    }
    if request.cluster_uid.is_empty() || request.cluster_uid.len() > UID {
        return Err(Status::invalid_argument(
            "the uid of namespace kube-system is missing or too long",
        ));
    }
    Ok(())
}

/// Closed set of metric labels.
fn label(code: Code) -> &'static str {
    match code {
        Code::ResourceExhausted => "throttled",
        Code::Unavailable | Code::Internal | Code::Aborted => "failed",
        _ => "refused",
    }
}
