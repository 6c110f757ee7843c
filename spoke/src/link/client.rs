//! Dials the hub and keeps the stream open. Only the leader talks to the hub, and only once every watch has listed: an
//! inventory is converted from the caches, so it is whole from then on, whether or not an actor has taken a turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crds::conditions::types;
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::spoke_message::Body;
use proto::v1::{Hello, HubMessage, SpokeMessage, Welcome, hub_message};
use rand::Rng as _;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tracing::{info, warn};

use super::lanes::{Waiting, lanes};
use super::seen::{self, SeenHub};
use super::session::Session;
use crate::backoff::{Backoff, Jitter};
use crate::config::Config;
use crate::context::Context;
use crate::possession::Possession;
use crate::world::Key;

/// Pause before dialling again, with full jitter: a hub that restarts meets all its spokes.
const RECONNECT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), Jitter::Full);
/// Pause after another session of this cluster has taken over. Then another replica leads: this one learns it from the
/// leader's Lease, which is renewed twice in that time, and does not take the session back.
const SUPERSEDED: Duration = Duration::from_secs(10);
/// A session of this length was a good one.
const STABLE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// Changes within this time travel together.
const COALESCE: Duration = Duration::from_millis(50);
/// Until the hub says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Where the hub is, and who we are to it.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    url: String,
    server_name: String,
    tls: PathBuf,
    kubernetes: String,
    incarnation: String,
    /// Where Leases are kept.
    namespace: String,
    possession: Arc<Possession>,
}

impl LinkConfig {
    /// A link to the hub at `url`.
    #[must_use]
    pub fn new(url: &str, config: &Config, kubernetes: &str, possession: Arc<Possession>) -> LinkConfig {
        let incarnation: u128 = rand::rng().random();
        LinkConfig {
            url: url.to_owned(),
            server_name: config.hub_server_name.clone(),
            tls: config.tls_dir.clone(),
            kubernetes: kubernetes.to_owned(),
            incarnation: format!("{incarnation:032x}"),
            namespace: config.lease_namespace.clone(),
            possession,
        }
    }

    /// The files are read at each dial: a rotated certificate needs no restart.
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let read = |name: &str| {
            let path = self.tls.join(name);
            std::fs::read(&path).with_context(|| {
                format!("cannot read {}; the link needs ca.crt, tls.crt and tls.key there (Secret fleet-spoke-tls)", path.display())
            })
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.crt")?))
            .identity(Identity::from_pem(read("tls.crt")?, read("tls.key")?))
            .domain_name(&self.server_name);
        Ok(Endpoint::from_shared(self.url.clone())?
            .tls_config(tls)?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(128 << 10))
    }
}

/// What the hub says that actors have to be woken for.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// Backups of the repository with this restic id are to be held, or may go on.
    Drained(&'a str),
    /// The name of this cluster in its certificate.
    Renamed,
}

/// Called with what the hub says.
pub type Wake = Arc<dyn Fn(News<'_>) + Send + Sync>;

/// Keeps a session open until `stop`.
pub async fn run(
    config: Arc<LinkConfig>,
    context: Arc<Context>,
    wake: Wake,
    mut synced: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let work = async {
        // A session of an earlier start has ended with it.
        disconnected(&context);
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        let mut leader = context.leader.clone();
        let mut attempts = 0u32;
        let mut told = String::new();
        loop {
            let term = leader.wait_until_leader().await;
            let start = Instant::now();
            let mut lost = context.leader.clone();
            let ended = tokio::select! {
                ended = session(&config, &context, &wake) => ended,
                () = lost.wait_until_lost(term) => Ok(()),
            };
            disconnected(&context);
            let superseded = ended.as_ref().is_err_and(is_superseded);
            if let Err(error) = ended {
                let text = format!("{error:#}");
                // The same cause again is not news.
                if text != told {
                    warn!(
                        hub = config.url,
                        "no connection to the hub, backups go on without it: {text}"
                    );
                    told = text;
                }
            }
            if start.elapsed() > STABLE {
                attempts = 0;
                told.clear();
            }
            attempts = attempts.saturating_add(1);
            let pause = RECONNECT.after(attempts, &*context.random);
            sleep(if superseded { pause.max(SUPERSEDED) } else { pause }).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Whether a session ended because a newer one of the cluster has begun.
fn is_superseded(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<tonic::Status>());
    causes.any(|status| status.code() == tonic::Code::Aborted)
}

fn disconnected(context: &Context) {
    context.metrics.link.connected.set(0);
    context.leases.connected(false);
}

/// One session: ends with the stream.
async fn session(config: &LinkConfig, context: &Context, wake: &Wake) -> anyhow::Result<()> {
    let channel: Channel = timeout(CONNECT, config.endpoint()?.connect())
        .await
        .context("no answer in time")??;
    let mut session = Session::default();
    // Without it a restored hub would not be known as one; so no session begins before it was read.
    let seen = seen::read(&context.applier, &config.namespace)
        .await
        .context("cannot read which hub was seen before (Lease fleet-hub-seen)")?;
    let (lanes, stream) = lanes();
    let hello = hello(config, context, &seen, &mut session);
    count(context, "out", kind(&hello));
    lanes.fast.send(hello).await.context(CLOSED)?;
    let mut client = FleetLinkClient::new(channel).max_decoding_message_size(proto::MESSAGE_MAX);
    let opened = timeout(CONNECT, client.link(stream))
        .await
        .context("no answer in time")?;
    // With TLS 1.3 a refused certificate shows only here.
    let mut answers = opened
        .context("the hub does not take this spoke; check its certificate in Secret fleet-spoke-tls")?
        .into_inner();
    let mut conversation = Conversation {
        config,
        context,
        wake,
        session,
        waiting: Waiting::default(),
        collect: None,
        beat: every(HEARTBEAT),
        welcome: false,
    };
    loop {
        let Conversation {
            waiting,
            session,
            collect,
            beat,
            welcome,
            ..
        } = &mut conversation;
        tokio::select! {
            // What is said about leases overtakes the rest.
            biased;
            () = context.leases.changed() => context.leases.take().into_iter().for_each(|body| waiting.push(body)),
            permit = lanes.fast.reserve(), if !waiting.is_empty() => {
                let permit = permit.context(CLOSED)?;
                if let Some(message) = waiting.pop() {
                    count(context, "out", kind(&message));
                    permit.send(message);
                }
            }
            answer = answers.message() => match read(answer?)? {
                Some(hub_message::Body::Welcome(welcome)) => {
                    if context.certificate.welcomed(&welcome.cluster) {
                        wake(News::Renamed);
                    }
                    check_name(context)?;
                    // Before anything is done under this hub's grants.
                    if let Some(seen) = seen.after(&welcome.hub_incarnation, welcome.hub_epoch) {
                        seen::write(&context.applier, &config.namespace, &seen)
                            .await
                            .context("cannot remember this hub (Lease fleet-hub-seen)")?;
                    }
                    conversation.welcomed(&welcome);
                }
                Some(body) => conversation.hear(body),
                // A message of a newer hub.
                None => {}
            },
            permit = lanes.slow.reserve(), if session.is_busy() => {
                let permit = permit.context(CLOSED)?;
                if let Some(message) = session.next_part() {
                    count(context, "out", kind(&message));
                    permit.send(message);
                }
            }
            () = at(*collect), if *welcome && !session.is_busy() => {
                *collect = None;
                session.changes(&context.world, &context.outbox);
            }
            () = context.outbox.changed() => *collect = collect.or(Some(Instant::now() + COALESCE)),
            () = context.creations.changed(), if *welcome => {
                context.creations.take().into_iter().for_each(|body| waiting.push(body));
            }
            () = config.possession.changed() => {
                config.possession.take().into_iter().for_each(|body| waiting.push(body));
            }
            _ = beat.tick() => session.beat(),
        }
    }
}

/// What the hub says. A body that this version does not know is ignored; the end of the stream is the end of the session.
fn read(answer: Option<HubMessage>) -> anyhow::Result<Option<hub_message::Body>> {
    answer
        .map(|HubMessage { body }| body)
        .context("the hub closed the stream")
}

const CLOSED: &str = "the stream to the hub is closed";

fn hello(config: &LinkConfig, context: &Context, seen: &SeenHub, session: &mut Session) -> SpokeMessage {
    let (digest, objects) = session.hello(&context.world, &context.outbox);
    let hello = Hello {
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX,
        incarnation: config.incarnation.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes_version: config.kubernetes.clone(),
        cluster_uid: context
            .world
            .namespaces
            .get(&Key::new("", "kube-system"))
            .map_or_else(String::new, |n| n.meta.uid.to_string()),
        digest,
        objects,
        hub_incarnation: seen.incarnation.clone(),
        hub_epoch: seen.epoch,
    };
    SpokeMessage {
        body: Some(Body::Hello(hello)),
    }
}

/// What a session knows while its stream is open.
struct Conversation<'a> {
    config: &'a LinkConfig,
    context: &'a Context,
    wake: &'a Wake,
    session: Session,
    waiting: Waiting,
    /// When marked changes are collected.
    collect: Option<Instant>,
    beat: Interval,
    /// The hub has answered the Hello.
    welcome: bool,
}

impl Conversation<'_> {
    fn hear(&mut self, body: hub_message::Body) {
        let context = self.context;
        match body {
            hub_message::Body::PossessionChallenge(challenge) => {
                count(context, "in", "possession");
                self.config.possession.asked(challenge);
            }
            hub_message::Body::CreationGrant(grant) => context.creations.granted(grant.id, grant.hold_ms),
            hub_message::Body::Resync(resync) => {
                info!(reason = resync.reason, "the hub asks for the inventory again");
                self.session.inventory(&context.world, &context.outbox);
            }
            lease => {
                count(context, "in", "lease");
                if let Some(restic_id) = context.leases.deliver(lease) {
                    (self.wake)(News::Drained(&restic_id));
                }
            }
        }
    }

    fn welcomed(&mut self, welcome: &Welcome) {
        let context = self.context;
        info!(
            hub = self.config.url,
            session = welcome.session,
            epoch = welcome.hub_epoch,
            up_to_date = welcome.up_to_date,
            "connected to the hub"
        );
        let interval = Duration::from_millis(u64::from(welcome.heartbeat_interval_ms));
        self.beat = every(interval.max(Duration::from_millis(100)));
        self.welcome = true;
        context.metrics.link.connected.set(1);
        context.metrics.link.since.set(unix(context));
        if !welcome.up_to_date {
            self.session.inventory(&context.world, &context.outbox);
        }
        // What was marked before the Hello counts as well: its wake-up may have been for an earlier session.
        self.collect = Some(Instant::now());
        context.creations.restart();
        context.leases.connected(true);
        context.shared.welcomed();
    }
}

/// Snapshots are tagged with the configured name, and the hub knows the cluster by its certificate's.
fn check_name(context: &Context) -> anyhow::Result<()> {
    let differs = context.certificate.differs(&[], types::READY);
    context
        .metrics
        .link
        .name_differs
        .set(i64::from(differs.is_some()));
    match differs {
        Some(text) => anyhow::bail!(text),
        None => Ok(()),
    }
}

fn every(interval_: Duration) -> Interval {
    let mut beat = interval(interval_);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    beat
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn count(context: &Context, direction: &str, type_: &str) {
    context
        .metrics
        .link
        .messages
        .with_label_values(&[direction, type_])
        .inc();
}

fn kind(message: &SpokeMessage) -> &'static str {
    match &message.body {
        Some(Body::Hello(_)) => "hello",
        Some(Body::Inventory(_)) => "inventory",
        Some(Body::Delta(_)) => "delta",
        Some(Body::Heartbeat(_)) => "heartbeat",
        Some(Body::CreationRequest(_) | Body::CreationDone(_)) => "creation",
        Some(Body::PossessionProof(_)) => "possession",
        Some(_) => "lease",
        None => "unknown",
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
fn unix(context: &Context) -> f64 {
    context.clock.now().as_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_stream_is_not_an_unknown_message() {
        assert!(read(None).is_err());
        assert_eq!(read(Some(HubMessage { body: None })).unwrap(), None);
        let known = hub_message::Body::Welcome(Welcome::default());
        let message = HubMessage {
            body: Some(known.clone()),
        };
        assert_eq!(read(Some(message)).unwrap(), Some(known));
    }

    #[test]
    fn one_that_was_superseded_is_told_apart() {
        let ended = |status: tonic::Status| anyhow::Error::from(status).context("the hub");
        assert!(is_superseded(&ended(tonic::Status::aborted("a newer session"))));
        assert!(!is_superseded(&ended(tonic::Status::unavailable("gone"))));
        assert!(!is_superseded(&anyhow::anyhow!("no answer in time")));
    }

    #[tokio::test]
    async fn a_session_under_another_name_ends_with_both_names() {
        let context = crate::context::test_context();
        context.certificate.welcomed("a");
        assert!(check_name(&context).is_ok());
        context.certificate.welcomed("b");
        let text = check_name(&context).unwrap_err().to_string();
        assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");
        assert_eq!(context.metrics.link.name_differs.get(), 1);
    }
}
