//! Dials the hub and keeps the stream open. Only the leader talks to the hub, and only once every watch has listed:
//! half an inventory would look like deletions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::spoke_message::Body;
use proto::v1::{Hello, HubMessage, SpokeMessage, hub_message};
use rand::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tracing::{info, warn};

use super::session::Session;
use crate::config::Config;
use crate::context::Context;
use crate::intake::Routes;
use crate::world::Key;

/// First and longest pause before dialling again, with full jitter: a hub that restarts meets all its spokes.
const RECONNECT_MIN: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(60);
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
}

impl LinkConfig {
    /// A link to the hub at `url`.
    #[must_use]
    pub fn new(url: &str, config: &Config, kubernetes: &str) -> LinkConfig {
        let incarnation: u128 = rand::rng().random();
        LinkConfig {
            url: url.to_owned(),
            server_name: config.hub_server_name.clone(),
            tls: config.tls_dir.clone(),
            kubernetes: kubernetes.to_owned(),
            incarnation: format!("{incarnation:032x}"),
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

/// Keeps a session open until `stop`.
pub async fn run(
    config: LinkConfig,
    context: Arc<Context>,
    routes: Arc<Routes>,
    mut synced: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let work = async {
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
                ended = session(&config, &context, &routes) => ended,
                () = lost.wait_until_lost(term) => Ok(()),
            };
            context.metrics.link_connected.set(0);
            context.leases.connected(false);
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
            sleep(pause(attempts)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Full jitter below a doubling ceiling.
fn pause(attempts: u32) -> Duration {
    let ceiling = RECONNECT_MIN
        .saturating_mul(1u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX))
        .min(RECONNECT_MAX);
    ceiling.mul_f64(rand::rng().random_range(0.0..=1.0))
}

/// One session: ends with the stream.
async fn session(config: &LinkConfig, context: &Context, routes: &Routes) -> anyhow::Result<()> {
    let channel: Channel = timeout(CONNECT, config.endpoint()?.connect())
        .await
        .context("no answer in time")??;
    let mut session = Session::default();
    let (out, stream) = mpsc::channel::<SpokeMessage>(4);
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
        ..Default::default()
    };
    out.send(session.message(Body::Hello(hello))).await?;
    let mut client = FleetLinkClient::new(channel);
    let opened = timeout(CONNECT, client.link(ReceiverStream::new(stream)))
        .await
        .context("no answer in time")?;
    // With TLS 1.3 a refused certificate shows only here.
    let mut answers = opened
        .context("the hub does not take this spoke; check its certificate in Secret fleet-spoke-tls")?
        .into_inner();

    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    loop {
        tokio::select! {
            // What is said about leases overtakes the rest.
            biased;
            () = context.leases.changed() => {
                let messages = context.leases.take().into_iter().map(|body| session.message(body)).collect();
                send(context, &out, messages, "lease").await?;
            }
            answer = answers.message() => match answer?.and_then(|HubMessage { body }| body) {
                Some(hub_message::Body::Welcome(welcome)) => {
                    info!(hub = config.url, session = welcome.session, epoch = welcome.hub_epoch, "connected to the hub");
                    let every = Duration::from_millis(u64::from(welcome.heartbeat_interval_ms)).max(Duration::from_millis(100));
                    beat = interval(every);
                    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    beat.reset();
                    context.metrics.link_connected.set(1);
                    context.metrics.link_since.set(unix(context));
                    send(context, &out, session.inventory(&context.outbox), "inventory").await?;
                    context.creations.restart();
                    context.leases.connected(true);
                }
                Some(hub_message::Body::CreationGrant(grant)) => context.creations.granted(grant.id),
                Some(hub_message::Body::Resync(resync)) => {
                    info!(reason = resync.reason, "the hub asks for the inventory again");
                    send(context, &out, session.inventory(&context.outbox), "inventory").await?;
                }
                Some(hub_message::Body::Ack(_)) => {
                    context.metrics.link_messages.with_label_values(&["in", "ack"]).inc();
                }
                Some(lease) => {
                    context.metrics.link_messages.with_label_values(&["in", "lease"]).inc();
                    if let Some(restic_id) = context.leases.deliver(lease) {
                        routes.drained(&context.world, &restic_id);
                    }
                }
                // Something of a newer hub.
                None if !out.is_closed() => {}
                None => anyhow::bail!("the hub closed the stream"),
            },
            () = context.outbox.changed() => {
                sleep(COALESCE).await;
                send(context, &out, session.deltas(&context.outbox), "delta").await?;
            }
            () = context.creations.changed() => {
                let messages = context.creations.take().into_iter().map(|body| session.message(body)).collect();
                send(context, &out, messages, "creation").await?;
            }
            _ = beat.tick() => send(context, &out, vec![session.heartbeat()], "heartbeat").await?,
        }
    }
}

async fn send(
    context: &Context,
    out: &mpsc::Sender<SpokeMessage>,
    messages: Vec<SpokeMessage>,
    type_: &str,
) -> anyhow::Result<()> {
    for message in messages {
        out.send(message)
            .await
            .context("the stream to the hub is closed")?;
        context
            .metrics
            .link_messages
            .with_label_values(&["out", type_])
            .inc();
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
fn unix(context: &Context) -> f64 {
    context.clock.now().as_second() as f64
}
