//! One attached session: each message is checked, applied and answered.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::spoke_message::Body;
use proto::v1::{CreationDone, CreationGrant, CreationRequest, HeartbeatAnswer, ResyncRequest, hub_message};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::frames::Frames;
use super::{refused, send};
use crate::authorize::{Claim, Speaker, authorize};
use crate::clean;
use crate::collect;
use crate::copies::wire;
use crate::creation::{Creations, Ticket};
use crate::hub::Hub;
use crate::inventory::{Arrived, Change, Held, Inventory, Refused};
use crate::lock::{Command, Message};
use crate::membership::Renewals;
use crate::outbound::Outgoing;
use crate::session::{Broken, Effect, Session, Update};
use crate::{Millis, Moment, now};

/// An attached session.
pub(super) struct Conversation<'a> {
    pub hub: &'a Hub,
    pub cluster: &'a Arc<str>,
    pub number: u64,
    /// Of the spoke's process.
    pub incarnation: &'a Arc<str>,
    pub outgoing: &'a Outgoing,
    pub session: Session,
    /// When its certificate ends, in milliseconds since 1970: that of the newest that the spoke has kept.
    pub expires: Millis,
    pub renewals: Renewals,
}

impl Conversation<'_> {
    /// Takes messages in until the stream ends.
    ///
    /// # Errors
    /// Why the session is ended.
    pub async fn run(&mut self, incoming: &mut Frames, end: &CancellationToken) -> Result<(), Status> {
        let hub = self.hub;
        // Nothing is asked of a spoke by pings: a thousand timers would wake the hub for what heartbeats say.
        let silence = hub.heartbeat.saturating_mul(3).max(Duration::from_secs(5));
        let mut creating = hub.creating();
        let mut trust = hub.membership.trust.changes();
        self.announce()?;
        loop {
            let left = self.expires.saturating_sub(now());
            let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
            let message = tokio::select! {
                biased;
                () = end.cancelled() => return Err(self.ended()),
                () = tokio::time::sleep(left) => return Err(expired(self.cluster)),
                _ = trust.changed() => {
                    self.announce()?;
                    continue;
                }
                message = timeout(silence, incoming.next()) => message.map_err(|_| Status::deadline_exceeded("no heartbeat came"))??,
                _ = creating.changed() => {
                    self.grant(&mut creating, None)?;
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            self.take(message.body, &mut creating).await?;
        }
    }

    /// Why the session was ended from outside.
    fn ended(&self) -> Status {
        if let Some(ban) = self.hub.membership.ban(self.cluster) {
            return Status::permission_denied(ban.text());
        }
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
        let body = match lock_message(self.heard(body)?) {
            Ok(message) => {
                self.tell(message).await;
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
            Some(Body::CollectorReport(report)) => {
                let command = collect::Command::Report {
                    cluster: cluster.clone(),
                    session: number,
                    report: Box::new(report),
                };
                hub.collectors.tell(command).await;
                Ok(())
            }
            Some(Body::ClaimsReport(mut claims)) => {
                clean::claims(&mut claims);
                let taken = hub.change(|inventory| inventory.take_claims(cluster, number, claims));
                taken.map_err(refused)
            }
            Some(Body::CommandReport(report)) => {
                hub.commands.report(cluster, number, report).await;
                Ok(())
            }
            Some(Body::BrowsePart(part)) => {
                hub.browsing.part(cluster, number, part);
                Ok(())
            }
            Some(Body::CreationDone(CreationDone { id })) => {
                self.create(id, |creations, ticket| creations.done(&ticket));
                Ok(())
            }
            body => self.membership(body).await,
        }
    }

    /// A message of the present session, with the keys of stores as the hub has them: another one has no say, on any lane.
    fn heard(&self, mut body: Option<Body>) -> Result<Option<Body>, Status> {
        let received = &self.hub.metrics.messages;
        received.with_label_values(&["in", kind(body.as_ref())]).inc();
        let heard = self.hub.change(|inventory| {
            inventory.hear(self.cluster, self.number, Moment::now())?;
            if let Some(body) = &mut body {
                wire::incoming(body, self.cluster, inventory.places());
            }
            Ok(())
        });
        heard.map_err(refused)?;
        Ok(body)
    }

    /// Certificates and authorities of the cluster.
    async fn membership(&mut self, body: Option<Body>) -> Result<(), Status> {
        match body {
            Some(Body::CertificateRequest(request)) => self.renew(&request.csr).await,
            Some(Body::CertificateStored(stored)) => {
                self.kept(&stored.serial);
                Ok(())
            }
            Some(Body::TrustStored(stored)) => {
                self.hub.membership.trusts(self.cluster, stored.keys);
                Ok(())
            }
            body => self.state(body).await,
        }
    }

    /// What there is in the cluster.
    async fn state(&mut self, body: Option<Body>) -> Result<(), Status> {
        let beat = matches!(body, Some(Body::Heartbeat(_)));
        let turn = self.hub.arrivals.turn(body.as_ref()).await;
        self.inventory(body)?;
        drop(turn);
        if beat {
            let answer = hub_message::Body::HeartbeatAnswer(HeartbeatAnswer {});
            send(self.hub, self.outgoing, answer, "heartbeat")?;
        }
        // What finds no room is found again with the next heartbeat.
        self.hub.locks.offer(|| {
            let new = self.hub.change(|inventory| inventory.take_reported(self.cluster));
            (!new.is_empty()).then(|| self.command(Message::Uses(new)))
        });
        Ok(())
    }

    /// Answers a request for the next certificate.
    async fn renew(&mut self, request: &[u8]) -> Result<(), Status> {
        let answer = self.renewals.answer(self.hub, self.cluster, request).await;
        send(self.hub, self.outgoing, answer, "certificate")
    }

    /// The spoke has kept a certificate: the session counts as long as that one.
    fn kept(&mut self, serial: &str) {
        if let Some(expires) = self.renewals.kept(serial) {
            self.expires = expires;
            self.hub.membership.has(self.cluster, serial);
        }
    }

    /// Sends the authorities that the spoke has to trust.
    fn announce(&self) -> Result<(), Status> {
        match self.hub.membership.trust.now().bundle() {
            Some(bundle) => send(
                self.hub,
                self.outgoing,
                hub_message::Body::TrustBundle(bundle),
                "trust",
            ),
            None => Ok(()),
        }
    }

    /// Passes a message on to the keeper of locks.
    async fn tell(&self, message: Message) {
        self.hub.locks.tell(self.command(message)).await;
    }

    fn command(&self, message: Message) -> Command {
        Command::Message {
            cluster: self.cluster.clone(),
            session: self.number,
            message: Box::new(message),
        }
    }

    /// Grants the spoke's process the start of one of its creations; if one is `asked` for, only about that.
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

/// Why a session ends, or does not begin, after the end of a certificate.
pub(super) fn expired(cluster: &str) -> Status {
    Status::unauthenticated(format!(
        "the certificate of cluster {cluster} has expired; if its spoke cannot renew it, join again with `fleet clusters join \
         {cluster}`"
    ))
}

/// What is for the keeper of locks; the rest comes back.
#[allow(clippy::result_large_err, reason = "what comes back is no error")]
fn lock_message(body: Option<Body>) -> Result<Message, Option<Body>> {
    Ok(match body {
        Some(Body::LeaseAsk(ask)) => Message::Ask(ask),
        Some(Body::LeaseWithdraw(withdraw)) => Message::Withdraw(withdraw),
        Some(Body::LeaseRenew(renew)) => Message::Renew(renew),
        Some(Body::LeaseRelease(release)) => Message::Release(Box::new(release)),
        Some(Body::PlanPart(part)) => Message::Part(part),
        Some(Body::PossessionProof(proof)) => Message::Proof(proof),
        Some(Body::StoreProbeAnswer(answer)) => Message::Probed(answer),
        other => return Err(other),
    })
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
        Some(Body::StoreProbeAnswer(_)) => "copies",
        Some(Body::CollectorReport(_)) => "collector",
        Some(Body::CertificateRequest(_) | Body::CertificateStored(_) | Body::TrustStored(_)) => {
            "certificate"
        }
        Some(Body::CommandReport(_)) => "command",
        Some(Body::BrowsePart(_)) => "browse",
        Some(Body::ClaimsReport(_)) => "claims",
        None => "unknown",
    }
}
