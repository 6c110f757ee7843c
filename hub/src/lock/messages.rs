//! Messages of spokes: whether they are allowed, within which bounds, and what is done about them.

use std::collections::HashMap;
use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{LeaseAsk, LeaseRenew, LeaseRevoke, LeaseWaiting, LeaseWithdraw};
use tracing::{info, warn};

use super::Message;
use super::given::Withheld;
use super::grantor::{Effect, Instant};
use super::keeper::{Keeper, Reply, operation};
use crate::authorize::{Claim, Refusal, Speaker, authorize};
use crate::clean;

/// Operations of one cluster that may wait.
const WAITING: usize = 64;
/// Longest id of an operation, uid or hash.
const LONGEST: usize = 256;
/// A cluster cannot have seen a token this far above the hub's: even a restored store is not so old.
const AHEAD: u64 = 1 << 20;
/// The same refusal of the same cluster is logged this often.
const QUIET: Instant = 60_000;

/// When each refusal of each cluster was logged last.
#[derive(Default)]
pub(super) struct Refusals(HashMap<(Arc<str>, &'static str), Instant>);

impl Message {
    fn kind(&self) -> &'static str {
        match self {
            Message::Ask(_) => "ask",
            Message::Withdraw(_) => "withdraw",
            Message::Renew(_) => "renew",
            Message::Release(_) => "release",
            Message::Part(_) => "plan",
            Message::Proof(_) => "proof",
            Message::Probed(_) => "copies",
            Message::Uses(_) => "binding",
        }
    }

    fn claim(&self) -> Claim<'_> {
        match self {
            Message::Ask(ask) => Claim::Lease(&ask.restic_id),
            Message::Renew(renew) => Claim::Lease(&renew.restic_id),
            Message::Withdraw(withdraw) => Claim::End(&withdraw.restic_id),
            Message::Release(release) => Claim::End(&release.restic_id),
            Message::Part(part) => Claim::End(&part.restic_id),
            Message::Proof(proof) => Claim::Proof(&proof.restic_id),
            Message::Probed(answer) => Claim::Share(&answer.restic_id),
            // Whether a report makes a binding is the table's own question.
            Message::Uses(_) => Claim::Report,
        }
    }

    fn is_short(&self) -> bool {
        let short = |text: &str| !text.is_empty() && text.len() <= LONGEST;
        match self {
            Message::Ask(ask) => {
                short(&ask.operation) && ask.policy.len() <= LONGEST && ask.approved.len() <= LONGEST
            }
            Message::Withdraw(withdraw) => short(&withdraw.operation),
            Message::Renew(renew) => short(&renew.operation) && renew.run_hash.len() <= LONGEST,
            Message::Release(release) => short(&release.operation) && release.policy.len() <= LONGEST,
            Message::Part(part) => short(&part.operation),
            Message::Probed(answer) => answer.error.len() <= 16 * LONGEST,
            Message::Proof(_) | Message::Uses(_) => true,
        }
    }
}

impl Keeper {
    /// Does what a message asks for, if its cluster may ask for it.
    pub(super) async fn receive(&mut self, cluster: Arc<str>, session: u64, message: Message) {
        let current = self
            .sessions
            .get(&cluster)
            .is_some_and(|present| present.number == session);
        let speaker = Speaker {
            cluster: &cluster,
            current,
        };
        let claim = message.claim();
        let allowed = self
            .hub
            .read(|inventory| authorize(speaker, claim, inventory.bindings()))
            .and_then(|()| message.is_short().then_some(()).ok_or(Refusal::Malformed));
        if let Err(refusal) = allowed {
            self.refuse(&cluster, message.kind(), refusal);
            if current {
                self.answer_refused(&cluster, &message, refusal);
            }
            return;
        }
        match message {
            Message::Ask(ask) => self.ask(cluster, ask).await,
            Message::Withdraw(withdraw) => self.withdraw(&cluster, &withdraw).await,
            // No answer: the holder's own clock decides.
            Message::Renew(_) if self.blind => {}
            Message::Renew(renew) => self.renew(&cluster, &renew).await,
            Message::Release(release) => self.release(cluster, *release).await,
            Message::Part(part) => {
                let gathered = self.parts.entry(cluster.clone()).or_default().take(part);
                if let Err(refusal) = gathered {
                    self.refuse(&cluster, "plan", refusal);
                }
            }
            Message::Proof(proof) => self.proof(&cluster, proof).await,
            Message::Probed(answer) => self.probed(&cluster, answer).await,
            Message::Uses(ids) => self.uses(&cluster, ids).await,
        }
    }

    /// Counts a refusal, and logs it now and then.
    pub(super) fn refuse(&mut self, cluster: &Arc<str>, what: &'static str, refusal: Refusal) {
        let label = refusal.label();
        self.hub.metrics.refused.with_label_values(&[what, label]).inc();
        let now = self.now();
        let last = self.refusals.0.entry((cluster.clone(), label)).or_insert(0);
        if *last == 0 || now.saturating_sub(*last) >= QUIET {
            *last = now.max(1);
            warn!(%cluster, what, reason = label, "a message of a spoke is refused: {refusal}");
        }
    }

    /// Answers an honest spoke with the reason why nothing happens.
    fn answer_refused(&self, cluster: &Arc<str>, message: &Message, refusal: Refusal) {
        match message {
            Message::Ask(ask) => {
                let waiting = LeaseWaiting {
                    operation: ask.operation.clone(),
                    restic_id: ask.restic_id.clone(),
                    position: 0,
                    reason: refusal.to_string(),
                };
                self.send(cluster, Body::LeaseWaiting(waiting));
            }
            Message::Renew(renew) => self.revoke_lease(cluster, renew, refusal.to_string()),
            _ => {}
        }
    }

    pub(super) async fn ask(&mut self, cluster: Arc<str>, mut ask: LeaseAsk) {
        clean::ask(&mut ask);
        let now = self.now();
        let id: Arc<str> = ask.restic_id.as_str().into();
        let key = (cluster.clone(), Arc::<str>::from(ask.operation.as_str()));
        match self.asks.get(&key) {
            Some(known) if known.restic_id != id => {
                return self.refuse(&cluster, "ask", Refusal::Malformed);
            }
            Some(_) => {}
            None if self.asks.count(&cluster) >= WAITING => {
                let refusal = Refusal::TooMany("waiting operations");
                self.refuse(&cluster, "ask", refusal);
                return self.answer_refused(&cluster, &Message::Ask(ask), refusal);
            }
            None => {}
        }
        let (seen, subject) = (ask.seen_token, ask.subject.clone());
        let floor = self.hub.token_floor;
        let repository = self.repository(&id);
        let operation = repository.known(&operation(&cluster, &ask.operation, &subject));
        let known = repository.grantor.token().max(floor);
        if seen > known.saturating_add(AHEAD) {
            return self.refuse(&cluster, "ask", Refusal::Token);
        }
        if seen > known {
            warn!(repository = %id, seen, known, "a cluster has seen a higher token than this hub has granted");
        }
        let older = ask.age_ms > now;
        self.asks.put(&key, &id, ask, now);
        if older {
            self.recall_run(&id).await;
        }
        if let Some(covered) = self.covered(&key) {
            info!(%cluster, subject, token = covered.token, "needs no run of its own");
            self.asks.remove(&key);
            let effects = self.repository(&id).grantor.withdraw(&operation, seen);
            self.carry_out(&id, effects, Reply::default()).await;
            self.cover(&id, &cluster, &subject, covered).await;
            return;
        }
        if let Err(reason) = self.given(&id, &key, &[]).await {
            // A grant that never reached the cluster is free at once; another one ends by its release.
            let effects = self.withhold(&id, &operation, seen, &reason);
            return self.carry_out(&id, effects, Reply::default()).await;
        }
        self.asks.unblock(&key);
        let repository = self.repository(&id);
        repository.told.remove(&key);
        let effects = repository.grantor.ask(operation, seen, now);
        self.carry_out(&id, effects, Reply::default()).await;
    }

    async fn withdraw(&mut self, cluster: &Arc<str>, withdraw: &LeaseWithdraw) {
        let asked = operation(cluster, &withdraw.operation, "");
        let id: Arc<str> = withdraw.restic_id.as_str().into();
        let key = (cluster.clone(), asked.id.clone());
        if self.asks.about(&key, &id).is_some() {
            self.asks.remove(&key);
        }
        if let Some(repository) = self.repositories.get_mut(&id) {
            let known = repository.known(&asked);
            let effects = repository.grantor.withdraw(&known, withdraw.token);
            self.carry_out(&id, effects, Reply::default()).await;
        }
    }

    async fn renew(&mut self, cluster: &Arc<str>, renew: &LeaseRenew) {
        let (now, terms) = (self.now(), self.settings.terms);
        let asked = operation(cluster, &renew.operation, "");
        let id: Arc<str> = renew.restic_id.as_str().into();
        let repository = self.repository(&id);
        let known = repository.known(&asked);
        if repository.grantor.is_forgotten(renew.token, now)
            && !self.note_forgotten(&id, &known, renew.token).await
        {
            // No answer: the holder renews again.
            return;
        }
        let repository = self.repository(&id);
        let mut effects = repository.grantor.renew(&known, renew.token, now, &terms);
        let holds = repository.grantor.held_by(&known, renew.token).is_some();
        let mut reply = Reply {
            seq: renew.seq,
            run: None,
        };
        let key = (cluster.clone(), asked.id.clone());
        if holds && !renew.run_hash.is_empty() {
            self.recall(&id, &key, renew.token).await;
            let given = self.given(&id, &key, &renew.run_hash).await;
            if given.is_err() {
                // The pod must not go on with rules that may not be in force any more: without an answer the lease ends.
                effects.retain(|effect| !matches!(effect, Effect::Renewed { .. }));
            }
            match given {
                Ok(run) => reply.run = run,
                Err(Withheld::TooLong(reason)) => {
                    self.refuse(cluster, "renew", Refusal::TooMany("policies"));
                    self.revoke_lease(cluster, renew, reason);
                }
                Err(
                    Withheld::Unknown(_)
                    | Withheld::KeyInUse(_)
                    | Withheld::Changed(_)
                    | Withheld::ReadOnly(_)
                    | Withheld::Unclear(_)
                    | Withheld::Paused(_)
                    | Withheld::NewerKind(_),
                ) => {}
            }
        }
        self.carry_out(&id, effects, reply).await;
    }

    fn revoke_lease(&self, cluster: &Arc<str>, renew: &LeaseRenew, reason: String) {
        let revoke = LeaseRevoke {
            by_person: false,
            operation: renew.operation.clone(),
            restic_id: renew.restic_id.clone(),
            token: renew.token,
            reason,
        };
        self.send(cluster, Body::LeaseRevoke(revoke));
    }
}
