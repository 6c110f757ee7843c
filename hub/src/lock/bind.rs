//! Keeps the table of bindings: reports, proofs of possession, and what people decide. Durable before it counts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use proto::possession::{NONCE, verify};
use proto::v1::hub_message::Body;
use proto::v1::{DecideBindingRequest, PossessionChallenge, PossessionProof};
use ring::rand::{SecureRandom as _, SystemRandom};
use tonic::Status;
use tracing::{info, warn};

use super::grantor::Instant;
use super::keeper::Keeper;
use super::people::unavailable;
use crate::access::{Person, Verb, out_of_scope};
use crate::authorize::Refusal;
use crate::bindings::{Binding, Key, Proof, State};
use crate::copies::{is_key, restic_id};
use crate::now as wall_clock;
use crate::store::StoredDecision;

/// Questions of one session that wait for their answers.
const OPEN: usize = 8;
/// A question without an answer for so long is asked anew; and so is one whose answer was that it cannot be given.
const PATIENCE: Instant = 10 * 60_000;

/// What a spoke is asked to prove.
#[derive(Default)]
pub(super) struct Questions {
    /// Nonce, and when it was sent.
    open: HashMap<Arc<str>, ([u8; NONCE], Instant)>,
    queue: VecDeque<Arc<str>>,
}

impl Questions {
    fn put(&mut self, id: &Arc<str>) {
        if !self.open.contains_key(id) && !self.queue.contains(id) {
            self.queue.push_back(id.clone());
        }
    }
}

impl Keeper {
    /// A cluster's inventory names repositories.
    pub(super) async fn uses(&mut self, cluster: &Arc<str>, ids: Vec<String>) {
        for id in ids {
            if !is_key(&id) {
                self.refuse(cluster, "binding", Refusal::Id);
                continue;
            }
            let reported = self
                .hub
                .read(|inventory| inventory.bindings().reported(cluster, &id, wall_clock()));
            match reported {
                Ok(Some(binding)) => {
                    info!(%cluster, repository = id, state = binding.state.as_str(), "a binding");
                    if self.keep_binding(Some(binding), None, None).await {
                        self.put_question(cluster, &id.as_str().into());
                    }
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.refuse(cluster, "binding", refusal);
                    break;
                }
            }
        }
        self.send_questions(cluster);
    }

    async fn keep_binding(
        &mut self,
        binding: Option<Binding>,
        key: Option<Key>,
        decision: Option<StoredDecision>,
    ) -> bool {
        let kept = self.store.save_binding(binding.clone(), key.clone(), decision);
        match kept.await {
            Ok(()) => {
                self.hub.change(|inventory| {
                    inventory.bind(binding.into_iter().collect(), key.into_iter().collect())
                });
                true
            }
            Err(error) => {
                self.failed(error, "a binding could not be kept");
                false
            }
        }
    }

    /// Asks a cluster about every repository that it has not proven yet.
    pub(super) fn question(&mut self, cluster: &Arc<str>) {
        let open: Vec<Arc<str>> = self.hub.read(|inventory| {
            let of = inventory.bindings().of_cluster(cluster);
            let open = of.filter(|binding| !binding.proven && binding.state != State::Ended);
            open.map(|binding| binding.restic_id.clone()).collect()
        });
        for id in open {
            self.put_question(cluster, &id);
        }
        self.send_questions(cluster);
    }

    fn put_question(&mut self, cluster: &Arc<str>, id: &Arc<str>) {
        if let Some(session) = self.sessions.get_mut(cluster) {
            session.questions.put(id);
        }
    }

    fn send_questions(&mut self, cluster: &Arc<str>) {
        let now = self.now();
        let mut messages = Vec::new();
        let Some(session) = self.sessions.get_mut(cluster) else {
            return;
        };
        let questions = &mut session.questions;
        while questions.open.len() < OPEN
            && let Some(id) = questions.queue.pop_front()
        {
            let mut nonce = [0; NONCE];
            if SystemRandom::new().fill(&mut nonce).is_err() {
                warn!("this machine has no random numbers; nobody can prove anything");
                return;
            }
            messages.push(PossessionChallenge {
                restic_id: id.to_string(),
                nonce: nonce.to_vec(),
            });
            questions.open.insert(id, (nonce, now));
        }
        for message in messages {
            self.send(cluster, Body::PossessionChallenge(message));
        }
    }

    /// Questions whose answers are missing are asked anew.
    pub(super) fn ask_again(&mut self) {
        let now = self.now();
        let mut due = Vec::new();
        for (cluster, session) in &mut self.sessions {
            let before = session.questions.open.len();
            session
                .questions
                .open
                .retain(|_, (_, sent)| now.saturating_sub(*sent) < PATIENCE);
            if session.questions.open.len() < before {
                due.push(cluster.clone());
            }
        }
        for cluster in due {
            self.question(&cluster);
        }
    }

    /// An answer to a question.
    pub(super) async fn proof(&mut self, cluster: &Arc<str>, mut proof: PossessionProof) {
        let id: Arc<str> = proof.restic_id.as_str().into();
        let Some(session) = self.sessions.get_mut(cluster) else {
            return;
        };
        if !proof.error.is_empty() {
            // The question stays open until it is asked anew.
            proto::text::clean(&mut proof.error, proto::text::LONGEST);
            info!(%cluster, repository = %id, error = proof.error, "a cluster cannot prove that it can open a repository");
            return;
        }
        let Some((nonce, _)) = session.questions.open.remove(&id) else {
            return self.refuse(cluster, "proof", Refusal::Proof);
        };
        // Signed under the id that the cluster knows.
        proof.restic_id = restic_id(&id).to_owned();
        if verify(&proof, cluster, &nonce).is_err() {
            return self.refuse(cluster, "proof", Refusal::Proof);
        }
        let proved = self.hub.read(|inventory| {
            inventory
                .bindings()
                .proved(cluster, &id, &proof.public_key, wall_clock())
        });
        match proved {
            Ok(Proof::Proven(binding, key)) => {
                let first = key.is_some();
                info!(%cluster, repository = %id, first, "a cluster can open a repository");
                if self.keep_binding(Some(binding), key, None).await && first {
                    self.question_others(cluster, &id);
                }
            }
            Ok(Proof::Early) => {}
            Ok(Proof::Rival(key)) => {
                warn!(repository = %id, "{}", key.rival);
                self.refuse(cluster, "proof", Refusal::Proof);
                self.keep_binding(None, Some(key), None).await;
            }
            Err(refusal) => self.refuse(cluster, "proof", refusal),
        }
        self.send_questions(cluster);
    }

    /// There is a key to compare with: clusters that wait are asked again.
    fn question_others(&mut self, cluster: &Arc<str>, id: &Arc<str>) {
        let waiting: Vec<Arc<str>> = self.hub.read(|inventory| {
            let of = inventory.bindings().of(id);
            let waiting = of.filter(|binding| !binding.proven && binding.state != State::Ended);
            waiting.map(|binding| binding.cluster.clone()).collect()
        });
        for other in waiting.iter().filter(|other| *other != cluster) {
            self.put_question(other, id);
            self.send_questions(other);
        }
    }

    pub(super) async fn decide_binding(
        &mut self,
        request: &DecideBindingRequest,
        person: &Person,
    ) -> Result<String, Status> {
        let who = &*person.name;
        let id = self.one(&request.repository, person)?;
        if !person.sight(Verb::Enrol).takes_cluster(&request.cluster) {
            return Err(out_of_scope(person, Verb::Enrol, "this cluster"));
        }
        let now = wall_clock();
        let decided = self.hub.read(|inventory| {
            inventory
                .bindings()
                .decided(&request.cluster, &id, request.accept, who, now)
        });
        let (binding, before) = decided.map_err(Status::failed_precondition)?;
        let decision = StoredDecision {
            at: now,
            who: who.to_owned(),
            what: if request.accept {
                "accept-binding"
            } else {
                "end-binding"
            }
            .to_owned(),
            subject: format!("{} {}", request.repository, request.cluster),
            restic_id: id.to_string(),
            cluster: request.cluster.clone(),
            before: before.as_str().to_owned(),
            after: binding.state.as_str().to_owned(),
            ..StoredDecision::default()
        };
        self.save_decided(binding, decision).await?;
        info!(repository = %id, cluster = request.cluster, by = who, accept = request.accept, "a binding was decided");
        Ok(if request.accept {
            format!(
                "cluster {} takes part in the maintenance of the repository; its policies keep and remove there",
                request.cluster
            )
        } else {
            format!(
                "cluster {} takes no part in the repository any more: its policies keep and remove nothing there, \
                 and its snapshots are removed only by policies that name it",
                request.cluster
            )
        })
    }

    async fn save_decided(&mut self, binding: Binding, decision: StoredDecision) -> Result<(), Status> {
        let saved = self
            .store
            .save_binding(Some(binding.clone()), None, Some(decision))
            .await;
        match saved {
            Ok(()) => {
                self.hub
                    .change(|inventory| inventory.bind(vec![binding], Vec::new()));
                Ok(())
            }
            Err(error) => {
                let status = unavailable(&error);
                self.failed(error, "a decision could not be kept");
                Err(status)
            }
        }
    }

    /// All bindings of a cluster that a person has given up end.
    pub(super) async fn forget(&mut self, cluster: &Arc<str>, who: &str) -> Result<usize, Status> {
        let now = wall_clock();
        let ids: Vec<Arc<str>> = self.hub.read(|inventory| {
            let of = inventory.bindings().of_cluster(cluster);
            of.map(|binding| binding.restic_id.clone()).collect()
        });
        let mut ended = 0;
        for id in ids {
            let decided = self
                .hub
                .read(|inventory| inventory.bindings().decided(cluster, &id, false, who, now));
            let Ok((binding, before)) = decided else { continue };
            let decision = StoredDecision {
                at: now,
                who: who.to_owned(),
                what: "forget-cluster".to_owned(),
                subject: cluster.to_string(),
                restic_id: id.to_string(),
                cluster: cluster.to_string(),
                before: before.as_str().to_owned(),
                after: binding.state.as_str().to_owned(),
                ..StoredDecision::default()
            };
            self.save_decided(binding, decision).await?;
            // Read again when it is needed next: without what the cluster has reported.
            self.repository(&id).history = None;
            ended += 1;
        }
        Ok(ended)
    }
}
