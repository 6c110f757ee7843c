//! How runs end: their outcome and plan are kept, a plan that needs a person is put before people, and operations whose
//! policy has taken part need no run of their own.

use std::sync::Arc;

use prost::Message as _;
use proto::plan::{PlanDocument, PlanLine, plan_hash};
use proto::v1::hub_message::Body;
use proto::v1::{LeaseAsk, LeaseCovered, LeaseRelease, OperationOutcome};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::grantor::{Grant, Instant, Operation};
use super::keeper::{Keeper, Recent, Reply, operation};
use super::run;
use crate::authorize::Refusal;
use crate::clean;
use crate::now as wall_clock;
use crate::store::{StoredEnd, StoredPlan};

/// What the last applied run left, at most: so many clusters and groups.
const BASELINE: usize = 20_000;

impl Keeper {
    /// The answer to a question whose policy has just taken part in another cluster's run.
    pub(super) fn covered(&self, cluster: &Arc<str>, ask: &LeaseAsk, now: Instant) -> Option<LeaseCovered> {
        let window = u64::try_from(self.settings.coalesce?.as_millis()).ok()?;
        let recent = self.repositories.get(ask.restic_id.as_str())?.recent.as_ref()?;
        // A question that waited at the spoke for a connection was asked that much earlier.
        let asked = now.saturating_sub(ask.age_ms);
        let own = recent.policy == ask.policy;
        if own || !ask.approved.is_empty() || asked.saturating_sub(recent.started) > window {
            return None;
        }
        let policy = self.policy_name(cluster, &ask.policy)?;
        recent.policies.contains(&policy).then(|| LeaseCovered {
            operation: ask.operation.clone(),
            by: recent.by.clone(),
            token: recent.token,
            outcome: Some(recent.outcome.clone()),
            restic_id: ask.restic_id.clone(),
        })
    }

    fn policy_name(&self, cluster: &Arc<str>, uid: &str) -> Option<String> {
        self.hub.read(|inventory| {
            let held = inventory.held(cluster, &[uid.to_owned()]);
            run::name_of(held.get(uid)?)
        })
    }

    pub(super) async fn cover(
        &mut self,
        id: &Arc<str>,
        cluster: &Arc<str>,
        subject: &str,
        covered: LeaseCovered,
    ) {
        if let Err(error) = self
            .store
            .cover(id, covered.token, format!("{cluster}: {subject}"))
            .await
        {
            self.failed(error, "the audit misses a covered operation");
        }
        self.send(cluster, Body::LeaseCovered(covered));
    }

    pub(super) async fn release(&mut self, cluster: Arc<str>, mut release: LeaseRelease) {
        let id: Arc<str> = release.restic_id.as_str().into();
        let asked = operation(&cluster, &release.operation, "");
        let document = self
            .parts
            .get_mut(&cluster)
            .and_then(|parts| parts.of(&release))
            .unwrap_or_default();
        let repository = self.repository(&id);
        let known = repository.known(&asked);
        let held = repository.grantor.held_by(&known, release.token);
        let key = (cluster.clone(), asked.id.clone());
        let ask = self.asks.get(&key).filter(|(pinned, _)| *pinned == id).cloned();
        if let Some(grant) = held {
            if let Some(outcome) = &mut release.outcome {
                clean::outcome(outcome);
            }
            if release.policy.is_empty() {
                release.policy = ask.map(|(_, ask)| ask.policy).unwrap_or_default();
            }
            if !self.finish(&id, &grant, &release, document).await {
                // The spoke releases again: nothing is answered, nothing changes.
                return;
            }
            self.conclude(&id, &grant, &release).await;
        }
        // One that waits again asks again.
        self.asks.remove(&key);
        let repository = self.repository(&id);
        let effects = repository.grantor.release(&known, release.token);
        self.carry_out(&id, effects, Reply::default()).await;
    }

    /// Records the end of a run with its plan.
    async fn finish(
        &mut self,
        id: &Arc<str>,
        grant: &Grant,
        release: &LeaseRelease,
        document: Vec<u8>,
    ) -> bool {
        let cluster = grant.operation.cluster.clone();
        let outcome = release.outcome.clone().unwrap_or_default();
        let plan = match document_of(id, &document) {
            Some(plan) if outcome.plan.is_empty() || plan.hash == outcome.plan => Some(plan),
            None if document.is_empty() => None,
            _ => {
                warn!(%cluster, repository = %id, token = grant.token, "the plan of a run does not have the hash that it says");
                self.refuse(&cluster, "plan", Refusal::Malformed);
                None
            }
        };
        let fits = document.is_empty() || plan.is_some();
        let told = told_plan(id, grant, release, &outcome).filter(|_| fits);
        let carried_out = ["Applied", "NothingToRemove"].contains(&outcome.result.as_str());
        let left = plan.as_ref().map(|plan| &plan.left).unwrap_or(&outcome.left);
        let left = left.iter().take(BASELINE);
        let end = StoredEnd {
            restic_id: id.to_string(),
            token: grant.token,
            ended: wall_clock(),
            outcome: release.outcome.clone(),
            plan: told,
            document: if plan.is_some() { document } else { Vec::new() },
            baseline: carried_out.then(|| left.map(|b| (b.key.clone(), b.left)).collect()),
        };
        match self.store.finish(end).await {
            Ok(()) => {
                // Read again when it is needed next.
                self.repository(id).history = None;
                true
            }
            Err(error) => {
                self.failed(error, "the end of a run could not be recorded");
                false
            }
        }
    }

    /// Takes the outcome of a run in: operations that need no run of their own now.
    async fn conclude(&mut self, id: &Arc<str>, grant: &Grant, release: &LeaseRelease) {
        let Some(outcome) = release.outcome.clone() else {
            return;
        };
        let cluster = &grant.operation.cluster;
        info!(repository = %id, %cluster, subject = %grant.operation.subject, token = grant.token, result = outcome.result, "a run has ended");
        let repository = self.repository(id);
        let Some((_, run)) = repository.run.take().filter(|(token, _)| *token == grant.token) else {
            return;
        };
        if !run::is_conclusive(&outcome.result) {
            return;
        }
        let policies = run::names(&run);
        let by = format!("{cluster}: {}", grant.operation.subject);
        repository.recent = Some(Recent {
            started: grant.since,
            token: grant.token,
            by: by.clone(),
            policy: release.policy.clone(),
            policies: policies.clone(),
            outcome: outcome.clone(),
        });
        let Some(window) = self.settings.coalesce else {
            return;
        };
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let waiting = self.repository(id).grantor.waiting().iter();
        let waiting: Vec<(Operation, Instant)> = waiting.map(|w| (w.operation.clone(), w.since)).collect();
        for (operation, since) in waiting {
            let key = (operation.cluster.clone(), operation.id.clone());
            let ask = self.asks.get(&key).map(|(_, ask)| ask.clone());
            let Some(ask) = ask.filter(|ask| ask.approved.is_empty() && ask.policy != release.policy) else {
                continue;
            };
            let took_part = self
                .policy_name(&operation.cluster, &ask.policy)
                .is_some_and(|name| policies.contains(&name));
            // A run that began long before the question may have looked at the repository before it.
            let asked = since.saturating_sub(ask.age_ms);
            if !took_part || asked.saturating_sub(grant.since) > window {
                continue;
            }
            // It waits, so it holds nothing that could be freed here.
            self.repository(id).grantor.withdraw(&operation, u64::MAX);
            self.asks.remove(&key);
            let covered = LeaseCovered {
                operation: operation.id.to_string(),
                by: by.clone(),
                token: grant.token,
                outcome: Some(outcome.clone()),
                restic_id: id.to_string(),
            };
            self.cover(id, &operation.cluster, &operation.subject, covered)
                .await;
        }
    }
}

/// The plan in a document, if it is one of this repository and its ids give its hash.
pub(super) fn document_of(restic_id: &str, document: &[u8]) -> Option<PlanDocument> {
    let PlanLine { plan } = serde_json::from_slice(document).ok()?;
    let hash = plan_hash(restic_id, plan.remove.iter().map(|removal| removal.id.as_str()));
    (plan.restic_id == restic_id && plan.hash == hash).then_some(plan)
}

/// A plan as people are told of it; `None` when the run made none.
fn told_plan(
    id: &Arc<str>,
    grant: &Grant,
    release: &LeaseRelease,
    outcome: &OperationOutcome,
) -> Option<StoredPlan> {
    let state = match outcome.result.as_str() {
        "ApprovalRequired" => "waiting",
        "Preview" => "preview",
        "Applied" => "applied",
        _ => return None,
    };
    (!outcome.plan.is_empty()).then(|| StoredPlan {
        id: plan_id(id, &outcome.plan),
        restic_id: id.to_string(),
        hash: outcome.plan.clone(),
        state: state.to_owned(),
        made: wall_clock(),
        cluster: grant.operation.cluster.to_string(),
        policy: release.policy.clone(),
        subject: grant.operation.subject.to_string(),
        token: grant.token,
        outcome: outcome.encode_to_vec(),
        decided_by: String::new(),
        decided: None,
    })
}

/// Short enough to type, long enough to be one plan's.
fn plan_id(restic_id: &str, hash: &str) -> String {
    let digest = Sha256::digest(format!("{restic_id}/{hash}").as_bytes());
    format!("p-{}", hex::encode(digest).chars().take(8).collect::<String>())
}
