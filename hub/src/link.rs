//! FleetLink: one stream per spoke. Who it is comes from its certificate; what it says changes only its own cluster.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use proto::v1::fleet_link_server::FleetLink;
use proto::v1::spoke_message::Body;
use proto::v1::{
    CreationDone, CreationGrant, CreationRequest, Hello, HubMessage, ResyncRequest, SpokeMessage, Welcome,
    hub_message,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::authorize::{Claim, Speaker, authorize};
use crate::clean;
use crate::creation::{Creations, Ticket};
use crate::hub::Hub;
use crate::inventory::{Arrived, Change, Facts, Held, Introduction, Inventory, Refused};
use crate::lock::{Command, Word};
use crate::metrics::Open;
use crate::outbound::{Outgoing, lanes};
use crate::session::{self, Broken, Effect, Session, Update};
use crate::{Moment, identity, now};

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
        let end = CancellationToken::new();
        let (outgoing, stream) = lanes(end.clone());
        let hub = self.hub.clone();
        tokio::spawn(async move {
            let ended = serve(&hub, &cluster, &mut incoming, &outgoing, &end).await;
            if let Err(status) = ended {
                info!(%cluster, reason = status.message(), "a session ended");
                // An error means that the spoke is gone already.
                let _ = outgoing.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// One session, to its end.
async fn serve(
    hub: &Hub,
    cluster: &Arc<str>,
    incoming: &mut Streaming<SpokeMessage>,
    outgoing: &Outgoing,
    end: &CancellationToken,
) -> Result<(), Status> {
    let first = timeout(HELLO, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
    let Some(SpokeMessage {
        body: Some(Body::Hello(mut hello)),
    }) = first
    else {
        return Err(Status::invalid_argument(Broken::Hello.to_string()));
    };
    let protocol =
        session::agree(&hello).map_err(|broken| Status::failed_precondition(broken.to_string()))?;
    clean::hello(&mut hello);
    let seen = (hello.hub_incarnation.clone(), hello.hub_epoch);
    let incarnation: Arc<str> = hello.incarnation.as_str().into();
    let number = hub.next_session();
    let attached =
        hub.change(|inventory| inventory.attach(cluster, number, introduction(hello), Moment::now()));
    if let Err(Refused::Conflict { .. }) = attached {
        // Nothing is taken from the other one either.
        hub.end(cluster);
    }
    let up_to_date = attached.map_err(refused)?;
    hub.open(cluster, number, end);
    let _open = Open::count(&hub.metrics.sessions);
    info!(%cluster, session = number, up_to_date, "a spoke connected");
    let welcome = Welcome {
        session: number,
        protocol,
        hub_epoch: hub.epoch,
        heartbeat_interval_ms: u32::try_from(hub.heartbeat.as_millis()).unwrap_or(u32::MAX),
        cluster: cluster.to_string(),
        hub_incarnation: hub.incarnation.clone(),
        up_to_date,
    };
    let sent = send(hub, outgoing, hub_message::Body::Welcome(welcome), "welcome");
    let attach = Command::Attach {
        cluster: cluster.clone(),
        session: number,
        outgoing: outgoing.clone(),
        seen,
    };
    hub.locks.tell(attach).await;
    let mut conversation = Conversation {
        hub,
        cluster,
        number,
        incarnation: &incarnation,
        outgoing,
        session: Session::new(up_to_date, hub.max_bytes),
    };
    let result = match sent {
        Ok(()) => conversation.run(incoming, end).await,
        Err(status) => Err(status),
    };
    let detach = Command::Detach {
        cluster: cluster.clone(),
        session: number,
    };
    hub.locks.tell(detach).await;
    hub.close(cluster, number);
    hub.change(|inventory| inventory.detach(cluster, number, Moment::now()));
    result
}

/// What a spoke says about itself.
fn introduction(hello: Hello) -> Introduction {
    Introduction {
        facts: Facts {
            cluster_uid: hello.cluster_uid,
            version: hello.version,
            kubernetes_version: hello.kubernetes_version,
        },
        incarnation: hello.incarnation,
        digest: hello.digest,
        objects: hello.objects,
    }
}

/// An attached session.
struct Conversation<'a> {
    hub: &'a Hub,
    cluster: &'a Arc<str>,
    number: u64,
    /// Of the spoke's process.
    incarnation: &'a Arc<str>,
    outgoing: &'a Outgoing,
    session: Session,
}

impl Conversation<'_> {
    async fn run(
        &mut self,
        incoming: &mut Streaming<SpokeMessage>,
        end: &CancellationToken,
    ) -> Result<(), Status> {
        let hub = self.hub;
        // A silent peer is found by HTTP/2 pings long before this.
        let silence = hub.heartbeat.saturating_mul(6).max(Duration::from_secs(5));
        let mut creating = hub.creating();
        loop {
            let message = tokio::select! {
                biased;
                () = end.cancelled() => return Err(self.ended()),
                message = timeout(silence, incoming.next()) => message.map_err(|_| Status::deadline_exceeded("no heartbeat came"))?,
                _ = creating.changed() => {
                    self.grant(&mut creating, None)?;
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            self.take(message?.body, &mut creating).await?;
        }
    }

    /// Why the session was ended from outside.
    fn ended(&self) -> Status {
        match self
            .hub
            .read(|inventory| inventory.is_present(self.cluster, self.number))
        {
            true => Status::resource_exhausted("the spoke does not read its stream"),
            false => refused(Refused::Superseded {
                cluster: self.cluster.clone(),
            }),
        }
    }

    async fn take(
        &mut self,
        body: Option<Body>,
        creating: &mut watch::Receiver<Option<Ticket>>,
    ) -> Result<(), Status> {
        let (hub, cluster, number) = (self.hub, self.cluster, self.number);
        // On every lane: a session that is not the present one has no say.
        hub.change(|inventory| inventory.hear(cluster, number, Moment::now()))
            .map_err(refused)?;
        hub.metrics
            .messages
            .with_label_values(&["in", kind(body.as_ref())])
            .inc();
        let body = match word(body) {
            Ok(word) => {
                self.tell(word).await;
                return Ok(());
            }
            Err(body) => body,
        };
        match body {
            Some(Body::CreationRequest(CreationRequest { id })) => {
                self.create(id, Creations::ask);
                // A holder that asks again has lost the answer.
                self.grant(creating, Some(id))
            }
            Some(Body::CreationDone(CreationDone { id })) => {
                self.create(id, |creations, ticket| creations.done(&ticket));
                Ok(())
            }
            body => {
                self.inventory(body)?;
                let new = hub.change(|inventory| inventory.take_reported(cluster));
                if !new.is_empty() {
                    self.tell(Word::Uses(new)).await;
                }
                Ok(())
            }
        }
    }

    /// Says something to the keeper of locks.
    async fn tell(&self, word: Word) {
        let command = Command::Word {
            cluster: self.cluster.clone(),
            session: self.number,
            word: Box::new(word),
        };
        self.hub.locks.tell(command).await;
    }

    /// Tells the spoke's process that one of its creations may begin; if one is `asked` for, only about that.
    fn grant(
        &self,
        creating: &mut watch::Receiver<Option<Ticket>>,
        asked: Option<u64>,
    ) -> Result<(), Status> {
        // A question must not hide the news of another ticket.
        let holder = match asked {
            Some(_) => creating.borrow().clone(),
            None => creating.borrow_and_update().clone(),
        };
        let own =
            |ticket: &Ticket| ticket.cluster == *self.cluster && ticket.incarnation == *self.incarnation;
        match holder
            .filter(own)
            .filter(|ticket| asked.is_none_or(|id| id == ticket.id))
        {
            Some(ticket) => send(
                self.hub,
                self.outgoing,
                hub_message::Body::CreationGrant(CreationGrant {
                    id: ticket.id,
                    hold_ms: u64::try_from(self.hub.creation_left()).unwrap_or_default(),
                }),
                "creation_grant",
            ),
            None => Ok(()),
        }
    }

    fn create(&self, id: u64, f: impl FnOnce(&mut Creations, Ticket)) {
        let (hub, cluster) = (self.hub, self.cluster.clone());
        let speaker = |inventory: &Inventory| Speaker {
            cluster: self.cluster,
            current: inventory.is_present(self.cluster, self.number),
        };
        let allowed =
            hub.read(|inventory| authorize(speaker(inventory), Claim::Creation, inventory.bindings()));
        if allowed.is_err() {
            return;
        }
        let incarnation = self.incarnation.clone();
        hub.creations(|creations, _| {
            f(
                creations,
                Ticket {
                    cluster,
                    incarnation,
                    id,
                },
            );
        });
    }

    fn inventory(&mut self, body: Option<Body>) -> Result<(), Status> {
        let (hub, cluster, number) = (self.hub, self.cluster, self.number);
        let held = hub.read(|inventory| inventory.holdings(cluster));
        let taken = self.session.take(body, held, Moment::now().steady);
        let Effect {
            update,
            doubt,
            resync,
        } = taken.map_err(|broken| {
            if let Broken::TooLarge(_) = broken {
                self.refuse(&broken.to_string());
            }
            Status::invalid_argument(broken.to_string())
        })?;
        if doubt {
            hub.change(|inventory| inventory.doubt(cluster, number, Moment::now()))
                .map_err(refused)?;
        }
        if let Some(update) = update {
            self.apply(update).map_err(|error| {
                if !matches!(error, Refused::Superseded { .. }) {
                    self.refuse(&error.to_string());
                }
                refused(error)
            })?;
        }
        if let Some(reason) = resync {
            let ask = ResyncRequest {
                reason: reason.to_owned(),
            };
            send(hub, self.outgoing, hub_message::Body::Resync(ask), "resync")?;
        }
        Ok(())
    }

    fn refuse(&self, reason: &str) {
        self.hub
            .change(|inventory| inventory.refuse(self.cluster, self.number, reason, Moment::now()));
    }

    fn apply(&self, update: Update) -> Result<(), Refused> {
        let (hub, cluster, number) = (self.hub, self.cluster, self.number);
        let uids: Vec<String> = update.states.iter().map(|(uid, _)| uid.clone()).collect();
        let mut known = hub.read(|inventory| inventory.held(cluster, &uids));
        // Schedules are parsed here, outside of the lock.
        let upserts = update.states.into_iter().map(|(uid, state)| {
            let previous = known.remove(&uid);
            Arrived {
                held: Held::new(cluster, &uid, &state, previous.as_deref(), now()),
                state,
            }
        });
        let change = Change {
            upserts: upserts.collect(),
            gone: update.gone,
            whole: update.whole,
        };
        let objects = hub.change(|inventory| {
            inventory
                .apply(cluster, number, change, Moment::now())
                .map(|()| inventory.object_count())
        })?;
        hub.metrics
            .objects
            .set(i64::try_from(objects).unwrap_or(i64::MAX));
        Ok(())
    }
}

/// What is for the keeper of locks; the rest comes back.
#[allow(clippy::result_large_err, reason = "what comes back is no error")]
fn word(body: Option<Body>) -> Result<Word, Option<Body>> {
    Ok(match body {
        Some(Body::LeaseAsk(ask)) => Word::Ask(ask),
        Some(Body::LeaseWithdraw(withdraw)) => Word::Withdraw(withdraw),
        Some(Body::LeaseRenew(renew)) => Word::Renew(renew),
        Some(Body::LeaseRelease(release)) => Word::Release(Box::new(release)),
        Some(Body::PlanPart(part)) => Word::Part(part),
        Some(Body::PossessionProof(proof)) => Word::Proof(proof),
        other => return Err(other),
    })
}

fn send(hub: &Hub, outgoing: &Outgoing, body: hub_message::Body, type_: &str) -> Result<(), Status> {
    hub.metrics.messages.with_label_values(&["out", type_]).inc();
    outgoing.send(HubMessage { body: Some(body) })
}

fn refused(refused: Refused) -> Status {
    match refused {
        Refused::Superseded { .. } => Status::aborted(refused.to_string()),
        Refused::TooMany { .. } | Refused::TooMuch { .. } => Status::resource_exhausted(refused.to_string()),
        Refused::Conflict { .. } => Status::failed_precondition(refused.to_string()),
        Refused::Forgotten { .. } => Status::unavailable(refused.to_string()),
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
