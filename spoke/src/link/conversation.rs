//! One session with the hub, from the dial to the end of its stream.

use std::time::Duration;

use anyhow::Context as _;
use crds::conditions::types;
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::spoke_message::Body;
use proto::v1::{ClaimsReport, Hello, HubMessage, SpokeMessage, Welcome, hub_message};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tracing::info;

use super::client::{News, Wake};
use super::config::{CONNECT, LinkConfig};
use super::lanes::{Lanes, Waiting, lanes};
use super::renewal::Renewal;
use super::seen::{self, SeenHub};
use super::session::Session;
use crate::allow::Allow;
use crate::context::Context;
use crate::enrol::Held;
use crate::exchange::{Arrived, Uncertified};
use crate::possession::Question;
use crate::world::Key;

/// Changes within this time travel together.
const COALESCE: Duration = Duration::from_millis(50);
/// Claims are looked through this long after something has changed: pods come and go.
const SURVEY: Duration = Duration::from_secs(10);
/// Until the hub has sent its own interval.
const HEARTBEAT: Duration = Duration::from_secs(10);
const CLOSED: &str = "the stream to the hub is closed";

/// Opens a session and keeps it until its stream ends.
pub(super) async fn session(config: &LinkConfig, context: &Context, wake: &Wake) -> anyhow::Result<()> {
    let (endpoint, held) = look(config, context, wake).await?;
    let channel: Channel = timeout(CONNECT, endpoint.connect())
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
    let answers = opened.context("the hub does not take this spoke")?.into_inner();
    let conversation = Conversation {
        config,
        context,
        wake,
        seen,
        session,
        waiting: Waiting::default(),
        collect: None,
        survey: None,
        claims: None,
        beat: every(HEARTBEAT),
        welcome: false,
        renewal: Renewal::new(held, context),
    };
    conversation.run(&lanes, answers).await
}

/// State of a session whose stream is open.
struct Conversation<'a> {
    config: &'a LinkConfig,
    context: &'a Context,
    wake: &'a Wake,
    /// The hub of the session before.
    seen: SeenHub,
    session: Session,
    waiting: Waiting,
    /// When marked changes are collected.
    collect: Option<Instant>,
    /// When claims are looked through.
    survey: Option<Instant>,
    /// Claims as they were sent.
    claims: Option<ClaimsReport>,
    beat: Interval,
    /// The hub has answered the Hello.
    welcome: bool,
    renewal: Renewal,
}

impl Conversation<'_> {
    /// Sends what is due and takes what the hub sends, until the stream ends.
    async fn run(mut self, lanes: &Lanes, mut answers: Streaming<HubMessage>) -> anyhow::Result<()> {
        let (context, possession) = (self.context, &self.config.possession);
        loop {
            let Conversation {
                waiting,
                session,
                collect,
                survey,
                beat,
                welcome,
                renewal,
                ..
            } = &mut self;
            tokio::select! {
                // Messages about leases overtake the rest.
                biased;
                () = context.leases.changed() => waiting.extend(context.leases.take()),
                permit = lanes.fast.reserve(), if !waiting.is_empty() => {
                    let permit = permit.context(CLOSED)?;
                    if let Some(message) = waiting.pop() {
                        count(context, "out", kind(&message));
                        permit.send(message);
                    }
                }
                answer = answers.message() => match read(answer?)? {
                    Some(hub_message::Body::Welcome(welcome)) => self.welcomed(&welcome).await?,
                    Some(body) if is_identity(&body) => self.identity(body).await,
                    Some(body) => self.received(body),
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
                () = at(renewal.at), if *welcome => waiting.extend(renewal.ask(context)),
                () = at(*collect), if *welcome && !session.is_busy() => {
                    *collect = None;
                    session.changes(&context.world, &context.outbox);
                }
                () = context.outbox.changed() => *collect = collect.or(Some(Instant::now() + COALESCE)),
                () = context.coverage.changed() => *survey = survey.or(Some(Instant::now() + SURVEY)),
                () = at(*survey), if *welcome && !session.is_busy() => self.survey(),
                () = context.creations.changed(), if *welcome => waiting.extend(context.creations.take()),
                () = context.commands.reported(), if *welcome => waiting.extend(context.commands.take_reports()),
                () = context.browsing.answered(), if *welcome => waiting.extend(context.browsing.take()),
                () = context.collectors.changed(), if *welcome => {
                    waiting.extend(context.collectors.take(context.clock.since_boot()));
                }
                () = possession.changed() => waiting.extend(possession.take()),
                _ = beat.tick() => session.beat(),
            }
        }
    }

    /// Reports the claims of the cluster, if they are not those that the hub has.
    fn survey(&mut self) {
        self.survey = None;
        let present = self.context.coverage.report(&self.context.world);
        if self.claims.as_ref() != Some(&present) {
            self.session.claims(present.clone());
            self.claims = Some(present);
        }
    }

    fn received(&mut self, body: hub_message::Body) {
        let context = self.context;
        match body {
            hub_message::Body::PossessionChallenge(challenge) => {
                count(context, "in", "possession");
                self.config.possession.asked(Question::Possession(challenge));
            }
            hub_message::Body::Command(command) => {
                count(context, "in", "command");
                let left = context.clock.since_boot().saturating_add(command.begin_within_ms);
                context
                    .commands
                    .deliver(Arrived::Command(Box::new(command), left));
            }
            hub_message::Body::Browse(question) => {
                count(context, "in", "browse");
                context.browsing.ask(question);
            }
            hub_message::Body::BrowseMore(more) => context.browsing.more(more.id, more.parts),
            hub_message::Body::CommandSettled(settled) => {
                context.commands.deliver(Arrived::Settled(settled.id));
            }
            hub_message::Body::CollectorAssignment(assignment) => {
                count(context, "in", "collector");
                let restic_id = assignment.restic_id.clone();
                context.collectors.assigned(assignment);
                (self.wake)(News::Collected(&restic_id));
            }
            hub_message::Body::StoreProbe(asked) => {
                count(context, "in", "copies");
                self.config.possession.asked(Question::Probe(asked));
            }
            hub_message::Body::RepositoryCopies(copies) => {
                count(context, "in", "copies");
                let restic_id = copies.restic_id.clone();
                context.copies.told(copies);
                (self.wake)(News::Collected(&restic_id));
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

    /// About the certificate of this cluster, and whom it trusts.
    async fn identity(&mut self, body: hub_message::Body) {
        let (config, context) = (self.config, self.context);
        count(context, "in", "certificate");
        match body {
            hub_message::Body::CertificateIssued(issued) => {
                let stored = self.renewal.issued(config, context, issued).await;
                stored.into_iter().for_each(|body| self.waiting.push(body));
            }
            hub_message::Body::CertificateRefused(refused) => self.renewal.refused(context, &refused.reason),
            hub_message::Body::TrustBundle(bundle) => {
                let stored = self.renewal.trust(config, context, &bundle).await;
                stored.into_iter().for_each(|body| self.waiting.push(body));
            }
            _ => {}
        }
    }

    /// The hub has answered the Hello.
    async fn welcomed(&mut self, welcome: &Welcome) -> anyhow::Result<()> {
        let context = self.context;
        if context.certificate.welcomed(&welcome.cluster) {
            (self.wake)(News::Named);
        }
        check_name(context)?;
        // Before anything is done under this hub's grants.
        if let Some(seen) = self.seen.after(&welcome.hub_incarnation, welcome.hub_epoch) {
            seen::write(&context.applier, &self.config.namespace, &seen)
                .await
                .context("cannot remember this hub (Lease fleet-hub-seen)")?;
        }
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
        context.metrics.link_connected.set(1);
        context.certificate.set_trouble("");
        context.metrics.link_since.set(unix(context));
        if !welcome.up_to_date {
            self.session.inventory(&context.world, &context.outbox);
        }
        // What was marked before the Hello counts as well: its wake-up may have been for an earlier session.
        self.collect = Some(Instant::now());
        self.survey = Some(Instant::now());
        context.creations.restart();
        context.commands.restart();
        context.browsing.restart();
        context
            .collectors
            .connected(&welcome.cluster, welcome.appoints_collectors);
        if !welcome.appoints_collectors {
            (self.wake)(News::Unappointed);
        }
        context.leases.connected(true);
        context.shared.welcomed();
        Ok(())
    }
}

fn is_identity(body: &hub_message::Body) -> bool {
    matches!(
        body,
        hub_message::Body::CertificateIssued(_)
            | hub_message::Body::CertificateRefused(_)
            | hub_message::Body::TrustBundle(_)
    )
}

/// The body of a message. One that this version does not know is ignored; the end of the stream is the end of the session.
fn read(answer: Option<HubMessage>) -> anyhow::Result<Option<hub_message::Body>> {
    answer
        .map(|HubMessage { body }| body)
        .context("the hub closed the stream")
}

fn hello(config: &LinkConfig, context: &Context, seen: &SeenHub, session: &mut Session) -> SpokeMessage {
    let (digest, objects) = session.hello(&context.world, &context.outbox);
    let allows = |word| context.site.allowed.check(word).is_ok();
    let retains = allows(Allow::Retain);
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
        collects: true,
        retains_for_others: retains || allows(Allow::Run),
        retains_with_policy: !retains,
        namespaces: context.site.namespaces.clone(),
    };
    SpokeMessage {
        body: Some(Body::Hello(hello)),
    }
}

/// How the hub is dialled now. The resources say so if there is no certificate to do it with.
async fn look(
    config: &LinkConfig,
    context: &Context,
    wake: &Wake,
) -> anyhow::Result<(Endpoint, Option<Held>)> {
    let found = config.endpoint(context).await;
    let looked = match &found {
        Ok(_) => Ok(()),
        Err(error) => match error.downcast_ref::<Uncertified>() {
            Some(uncertified) => Err(Uncertified {
                text: format!("{error:#}"),
                ..uncertified.clone()
            }),
            // A Secret that cannot be read is not one that is missing.
            None => return found,
        },
    };
    let missing = &context.metrics.certificate.missing;
    missing.set(i64::from(looked.is_err()));
    if context.certificate.looked(looked) {
        wake(News::Named);
    }
    found
}

/// Snapshots are tagged with the configured name, and the hub knows the cluster by its certificate's.
fn check_name(context: &Context) -> anyhow::Result<()> {
    let differs = context.certificate.differs(&[], types::READY);
    context
        .metrics
        .link_name_differs
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
        .link_messages
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
        Some(Body::StoreProbeAnswer(_)) => "copies",
        Some(Body::CollectorReport(_)) => "collector",
        Some(Body::CertificateRequest(_) | Body::CertificateStored(_) | Body::TrustStored(_)) => {
            "certificate"
        }
        Some(Body::CommandReport(_)) => "command",
        Some(Body::BrowsePart(_)) => "browse",
        Some(Body::ClaimsReport(_)) => "claims",
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

    #[tokio::test]
    async fn a_session_under_another_name_ends_with_both_names() {
        let context = crate::context::test_context();
        context.certificate.welcomed("a");
        assert!(check_name(&context).is_ok());
        context.certificate.welcomed("b");
        let text = check_name(&context).unwrap_err().to_string();
        assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");
        assert_eq!(context.metrics.link_name_differs.get(), 1);
    }
}
