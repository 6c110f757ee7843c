//! FleetLink: one stream per spoke. Who it is comes from its certificate; what it says changes only its own cluster.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use proto::v1::fleet_link_server::FleetLink;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Ack, CreationDone, CreationGrant, CreationRequest, HubMessage, ResyncRequest, SpokeMessage, Welcome,
    hub_message,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::creation::Ticket;
use crate::hub::Hub;
use crate::inventory::{Change, Facts, Held, Refused};
use crate::lock::{Command, Outgoing};
use crate::metrics::Open;
use crate::session::{self, Effect, Session};
use crate::{identity, now};

/// Messages on their way to one spoke. A spoke that does not read its stream is let go.
const OUTBOUND: usize = 64;
/// A stream without a Hello is nobody's.
const HELLO: Duration = Duration::from_secs(10);

/// The service.
pub struct LinkService {
    hub: Arc<Hub>,
}

impl LinkService {
    /// A service on a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> LinkService {
        LinkService { hub }
    }
}

#[tonic::async_trait]
impl FleetLink for LinkService {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<HubMessage, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<SpokeMessage>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let cluster = identity::spoke(&request)?;
        let mut incoming = request.into_inner();
        let (outgoing, stream) = mpsc::channel(OUTBOUND);
        let hub = self.hub.clone();
        tokio::spawn(async move {
            let ended = serve(&hub, &cluster, &mut incoming, &outgoing).await;
            if let Err(status) = ended {
                info!(%cluster, reason = status.message(), "a session ended");
                // An error means that the spoke is gone already.
                let _ = outgoing.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// One session, to its end.
async fn serve(
    hub: &Hub,
    cluster: &Arc<str>,
    incoming: &mut Streaming<SpokeMessage>,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let first = timeout(HELLO, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
    let Some(SpokeMessage {
        body: Some(Body::Hello(hello)),
        ..
    }) = first
    else {
        return Err(Status::invalid_argument(session::Broken::Hello.to_string()));
    };
    let protocol =
        session::agree(&hello).map_err(|broken| Status::failed_precondition(broken.to_string()))?;
    let number = hub.next_session();
    let facts = Facts {
        cluster_uid: hello.cluster_uid,
        version: hello.version,
        kubernetes_version: hello.kubernetes_version,
    };
    if let Some(before) = hub.read(|inventory| inventory.member(cluster).map(|m| m.facts.cluster_uid.clone()))
        && !before.is_empty()
        && !facts.cluster_uid.is_empty()
        && before != facts.cluster_uid
    {
        warn!(%cluster, before, now = facts.cluster_uid, "another cluster reports under this name: rebuilt, or a certificate used twice");
    }
    hub.change(|inventory| inventory.attach(cluster, number, facts, now()))
        .map_err(refused)?;
    let _open = Open::count(&hub.metrics.sessions);
    info!(%cluster, session = number, "a spoke connected");
    let heartbeat_interval_ms = u32::try_from(hub.heartbeat.as_millis()).unwrap_or(u32::MAX);
    let welcome = Welcome {
        session: number,
        protocol,
        hub_epoch: hub.epoch,
        heartbeat_interval_ms,
        ..Default::default()
    };
    send(hub, outgoing, hub_message::Body::Welcome(welcome), "welcome")?;
    let attach = Command::Attach {
        cluster: cluster.clone(),
        session: number,
        outgoing: outgoing.clone(),
    };
    hub.locks.tell(attach).await;
    let result = converse(hub, cluster, number, incoming, outgoing).await;
    let detach = Command::Detach {
        cluster: cluster.clone(),
        session: number,
    };
    hub.locks.tell(detach).await;
    hub.change(|inventory| inventory.detach(cluster, number, now()));
    result
}

async fn converse(
    hub: &Hub,
    cluster: &Arc<str>,
    number: u64,
    incoming: &mut Streaming<SpokeMessage>,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let mut session = Session::default();
    // A silent peer is found by HTTP/2 pings long before this.
    let silence = hub.heartbeat.saturating_mul(6).max(Duration::from_secs(5));
    let mut creating = hub.creating();
    loop {
        let message = tokio::select! {
            message = timeout(silence, incoming.next()) => message.map_err(|_| Status::deadline_exceeded("no heartbeat came"))?,
            _ = creating.changed() => {
                grant(hub, cluster, &mut creating, outgoing)?;
                continue;
            }
        };
        let Some(message) = message else { return Ok(()) };
        let SpokeMessage { seq, body } = message?;
        let (body, command) = lease(cluster, body);
        if let Some(command) = command {
            hub.metrics.messages.with_label_values(&["in", "lease"]).inc();
            hub.locks.tell(command).await;
            continue;
        }
        match body {
            Some(Body::CreationRequest(CreationRequest { id, .. })) => {
                hub.creations(|creations| {
                    creations.ask(Ticket {
                        cluster: cluster.clone(),
                        id,
                    })
                });
                // A holder that asks again has lost the answer.
                grant(hub, cluster, &mut creating, outgoing)?;
                continue;
            }
            Some(Body::CreationDone(CreationDone { id })) => {
                hub.creations(|creations| {
                    creations.done(&Ticket {
                        cluster: cluster.clone(),
                        id,
                    })
                });
                continue;
            }
            _ => {}
        }
        hub.metrics
            .messages
            .with_label_values(&["in", kind(body.as_ref())])
            .inc();
        let held = hub.read(|inventory| inventory.holdings(cluster));
        let effect = session
            .take(body, held, now())
            .map_err(|broken| Status::invalid_argument(broken.to_string()))?;
        let resync = effect.resync;
        apply(hub, cluster, number, effect, session.is_complete()).map_err(refused)?;
        if let Some(reason) = resync {
            let ask = ResyncRequest {
                reason: reason.to_owned(),
            };
            send(hub, outgoing, hub_message::Body::Resync(ask), "resync")?;
        }
        send(hub, outgoing, hub_message::Body::Ack(Ack { seq }), "ack")?;
    }
}

/// What is for the keeper of locks.
fn lease(cluster: &Arc<str>, body: Option<Body>) -> (Option<Body>, Option<Command>) {
    let cluster = cluster.clone();
    let command = match body {
        Some(Body::LeaseAsk(ask)) => Command::Ask(cluster, ask),
        Some(Body::LeaseWithdraw(withdraw)) => Command::Withdraw(cluster, withdraw),
        Some(Body::LeaseRenew(renew)) => Command::Renew(cluster, renew),
        Some(Body::LeaseRelease(release)) => Command::Release(cluster, release),
        other => return (other, None),
    };
    (None, Some(command))
}

/// Tells a spoke that one of its creations may begin.
fn grant(
    hub: &Hub,
    cluster: &Arc<str>,
    creating: &mut watch::Receiver<Option<Ticket>>,
    outgoing: &Outgoing,
) -> Result<(), Status> {
    let holder = creating.borrow_and_update().clone();
    match holder.filter(|ticket| ticket.cluster == *cluster) {
        Some(ticket) => send(
            hub,
            outgoing,
            hub_message::Body::CreationGrant(CreationGrant { id: ticket.id }),
            "creation_grant",
        ),
        None => Ok(()),
    }
}

fn apply(hub: &Hub, cluster: &Arc<str>, number: u64, effect: Effect, complete: bool) -> Result<(), Refused> {
    let uids: Vec<String> = effect.upserts.iter().map(|object| object.uid.clone()).collect();
    let mut known = hub.read(|inventory| inventory.held(cluster, &uids));
    // Schedules are parsed here, outside of the lock.
    let held = effect.upserts.into_iter().map(|object| {
        let previous = known.remove(&object.uid);
        Held::new(cluster, object, previous.as_deref(), now())
    });
    let upserts = held.collect();
    let confirmed = effect.only.is_some() && complete;
    let change = Change {
        upserts,
        gone: effect.gone,
        only: effect.only,
    };
    hub.change(|inventory| {
        inventory.hear(cluster, number, now())?;
        inventory.apply(cluster, number, change)?;
        if confirmed {
            inventory.confirm(cluster, number, now())
        } else {
            Ok(())
        }
    })?;
    let objects = hub.read(|inventory| {
        inventory
            .members()
            .map(|member| member.objects.len())
            .sum::<usize>()
    });
    hub.metrics
        .objects
        .set(i64::try_from(objects).unwrap_or(i64::MAX));
    Ok(())
}

fn send(hub: &Hub, outgoing: &Outgoing, body: hub_message::Body, type_: &str) -> Result<(), Status> {
    hub.metrics.messages.with_label_values(&["out", type_]).inc();
    outgoing
        .try_send(Ok(HubMessage { body: Some(body) }))
        .map_err(|_| Status::resource_exhausted("the spoke does not read its stream"))
}

fn refused(refused: Refused) -> Status {
    match refused {
        Refused::Superseded { .. } => Status::aborted(refused.to_string()),
        Refused::TooMany { .. } => Status::resource_exhausted(refused.to_string()),
    }
}

fn kind(body: Option<&Body>) -> &'static str {
    match body {
        Some(Body::Hello(_)) => "hello",
        Some(Body::Inventory(_)) => "inventory",
        Some(Body::Delta(_)) => "delta",
        Some(Body::Heartbeat(_)) => "heartbeat",
        Some(Body::CreationRequest(_) | Body::CreationDone(_)) => "creation",
        Some(
            Body::LeaseAsk(_)
            | Body::LeaseWithdraw(_)
            | Body::LeaseRenew(_)
            | Body::LeaseRelease(_)
            | Body::PlanPart(_),
        ) => "lease",
        Some(Body::PossessionProof(_)) => "possession",
        None => "unknown",
    }
}
