//! FleetLink: one stream per spoke. Who it is comes from its certificate; its messages change only its own cluster.

mod conversation;
mod frames;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use proto::certificate;
use proto::v1::fleet_link_server::FleetLink;
use proto::v1::spoke_message::Body;
use proto::v1::{Hello, HubMessage, SpokeMessage, Welcome, hub_message};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use self::conversation::Conversation;
use self::frames::Frames;
pub use self::frames::LinkServer;
use crate::collect;
use crate::hub::Hub;
use crate::inventory::{Facts, Introduction, Refused};
use crate::lock::Command;
use crate::membership::Renewals;
use crate::metrics::Open;
use crate::outbound::{Outgoing, lanes};
use crate::session::{self, Broken, Session};
use crate::{Moment, access, clean, identity};

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
        let cluster = access::spoke(&request)?;
        let certificate = certificate::read(&identity::leaf(&request)?);
        let certificate = certificate.map_err(|error| Status::permission_denied(error.to_string()))?;
        // Before a session is begun: it would end the one of a cluster that has the name again.
        admit(&self.hub, &cluster, &certificate)?;
        let mut incoming = Frames::of(&request)?;
        drop(request);
        let end = CancellationToken::new();
        let (outgoing, stream) = lanes(end.clone());
        let hub = self.hub.clone();
        tokio::spawn(async move {
            let ended = serve(&hub, &cluster, &certificate, &mut incoming, &outgoing, &end).await;
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
    certificate: &certificate::Facts,
    incoming: &mut Frames,
    outgoing: &Outgoing,
    end: &CancellationToken,
) -> Result<(), Status> {
    let mut hello = first(incoming).await?;
    let protocol =
        session::agree(&hello).map_err(|broken| Status::failed_precondition(broken.to_string()))?;
    clean::hello(&mut hello);
    let seen = (hello.hub_incarnation.clone(), hello.hub_epoch);
    let incarnation: Arc<str> = hello.incarnation.as_str().into();
    let collects = hello.collects;
    let number = hub.next_session();
    let up_to_date = attach(hub, cluster, number, hello).map_err(refused)?;
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
        appoints_collectors: true,
    };
    // On the lane of leases, as its first message: on the other one what a lock has to say would overtake it.
    hub.metrics.messages.with_label_values(&["out", "welcome"]).inc();
    let body = Some(hub_message::Body::Welcome(welcome));
    let sent = outgoing.try_send(Ok(HubMessage { body }));
    enter(hub, (cluster, number), outgoing, seen, collects).await;
    let mut conversation = Conversation {
        hub,
        cluster,
        number,
        incarnation: &incarnation,
        outgoing,
        session: Session::new(up_to_date, hub.max_bytes),
        expires: certificate.expires,
        renewals: Renewals::default(),
    };
    hub.membership.has(cluster, &certificate.serial);
    // A ban that came meanwhile has not found this session.
    let result = match sent.and_then(|()| admit(hub, cluster, certificate)) {
        Ok(()) => conversation.run(incoming, end).await,
        Err(status) => Err(status),
    };
    leave(hub, cluster, number).await;
    result
}

/// Everything that speaks with a cluster knows of its session.
async fn enter(
    hub: &Hub,
    (cluster, number): (&Arc<str>, u64),
    outgoing: &Outgoing,
    seen: (String, u64),
    collects: bool,
) {
    let attach = Command::Attach {
        cluster: cluster.clone(),
        session: number,
        outgoing: outgoing.clone(),
        seen,
    };
    hub.locks.tell(attach).await;
    hub.commands.attach(cluster, number, outgoing.clone()).await;
    hub.browsing.attach(cluster, number, outgoing.clone());
    let attach = collect::Command::Attach {
        cluster: cluster.clone(),
        session: number,
        outgoing: outgoing.clone(),
        collects,
    };
    hub.collectors.tell(attach).await;
}

/// The opposite of [`enter`], and the end of the session itself.
async fn leave(hub: &Hub, cluster: &Arc<str>, number: u64) {
    let detach = Command::Detach {
        cluster: cluster.clone(),
        session: number,
    };
    hub.locks.tell(detach).await;
    hub.commands.detach(cluster, number).await;
    hub.browsing.detach(cluster, number);
    let detach = collect::Command::Detach {
        cluster: cluster.clone(),
        session: number,
    };
    hub.collectors.tell(detach).await;
    hub.close(cluster, number);
    hub.change(|inventory| inventory.detach(cluster, number, Moment::now()));
}

/// Whether a cluster may connect with a certificate.
fn admit(hub: &Hub, cluster: &str, certificate: &certificate::Facts) -> Result<(), Status> {
    // TLS takes a certificate to the end of its last second.
    if certificate.expires <= crate::now() {
        return Err(conversation::expired(cluster));
    }
    match hub.membership.refuses(cluster, certificate) {
        Some(reason) => {
            hub.metrics.refused.with_label_values(&["hello", "banned"]).inc();
            Err(Status::permission_denied(reason))
        }
        None => Ok(()),
    }
}

/// The Hello of a stream.
async fn first(incoming: &mut Frames) -> Result<Hello, Status> {
    let first = timeout(HELLO, incoming.next())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
    match first.and_then(|message| message.body) {
        Some(Body::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument(Broken::Hello.to_string())),
    }
}

/// Makes a session the one that reports its cluster. Whether the inventory of the hub is that of the spoke.
fn attach(hub: &Hub, cluster: &Arc<str>, session: u64, hello: Hello) -> Result<bool, Refused> {
    let attached =
        hub.change(|inventory| inventory.attach(cluster, session, introduction(hello), Moment::now()));
    if let Err(Refused::Conflict { .. }) = attached {
        // Nothing is taken from the other one either.
        hub.end(cluster);
    }
    attached
}

/// What a spoke reports about itself.
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
        retains: hello.retains_for_others,
        retains_with_policy: hello.retains_with_policy,
        namespaces: hello.namespaces,
    }
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
