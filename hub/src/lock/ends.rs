//! How runs end: their outcome and plan are kept, a plan that needs a person is put before people, and operations whose
//! policy has taken part need no run of their own.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use proto::plan::{PlanDocument, PlanLine, cut, plan_hash};
use proto::v1::hub_message::Body;
use proto::v1::{LeaseAsk, LeaseCovered, LeaseRelease, OperationKind, OperationOutcome};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::asks::{Asker, signed};
use super::grantor::{Grant, Operation};
use super::keeper::{Keeper, Recent, Reply, operation};
use super::{narrow, run};
use crate::authorize::Refusal;
use crate::clean;
use crate::copies;
use crate::now as wall_clock;
use crate::store::{CheckedDamage, StoredEnd, StoredPlan};

/// What the last applied run left, at most: so many clusters and groups.
const BASELINE: usize = 20_000;

impl Keeper {
    /// The answer to a question whose policy has just taken part in another cluster's run.
    pub(super) fn covered(&self, key: &Asker) -> Option<LeaseCovered> {
        let window = self.window()?;
        let asked = self.asks.get(key)?;
        let recent = self.repositories.get(&asked.restic_id)?.recent.as_ref()?;
        let own = recent.policy == asked.ask.policy;
        // A commanded preview shows what its person asked for.
        if own
            || asked.ask.preview
            || !asked.ask.approved.is_empty()
            || asked.made.saturating_sub(recent.started) > window
        {
            return None;
        }
        let retention = asked.ask.kind() == OperationKind::Retention;
        let spared = self.hub.read(|inventory| {
            let held = inventory.held(&key.0, std::slice::from_ref(&asked.ask.policy));
            let held = held.get(&asked.ask.policy);
            // One that was asked for in the place of a policy is about all of them.
            held.is_some_and(|held| {
                (retention && held.repository().is_some())
                    || run::spares(held, &recent.policies, recent.shows.as_ref())
            })
        });
        spared.then(|| LeaseCovered {
            operation: asked.ask.operation.clone(),
            by: recent.by.clone(),
            token: recent.token,
            outcome: Some(recent.outcome.clone()),
            restic_id: asked.restic_id.to_string(),
        })
    }

    /// A policy that took part in a run that began at most so many milliseconds before its question needs no run.
    fn window(&self) -> Option<i64> {
        i64::try_from(self.settings.coalesce?.as_millis()).ok()
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
        let ended = match held {
            None => self.forgotten(&id, &known, release.token).await,
            held => Ok(held),
        };
        let Ok(ended) = ended else {
            // The spoke releases again.
            return;
        };
        if let Some(grant) = ended {
            // What a check has found must not be lost because the hub has forgotten that it is one.
            if !self.recall(&id, &key, grant.token).await {
                return;
            }
            let ask = self.asks.about(&key, &id).map(|asked| asked.ask.clone());
            let mut ask = ask.unwrap_or_default();
            if ask.subject.is_empty() && checked(&release) {
                // Of a grant that this store has lost.
                ask.kind = OperationKind::Check.into();
            }
            if let Some(outcome) = &mut release.outcome {
                clean::outcome(outcome);
            }
            if release.policy.is_empty() {
                release.policy.clone_from(&ask.policy);
            }
            let damage = found(&ask, &grant, &release);
            let result = release
                .outcome
                .as_ref()
                .map_or("", |outcome| outcome.result.as_str());
            let shows = run::shows(result, document_of(&id, &document).as_ref());
            if !self.finish(&id, &grant, &release, document, damage).await {
                // The spoke releases again: nothing is answered, nothing changes.
                return;
            }
            self.conclude(&id, &grant, &release, shows, ask.preview).await;
        }
        let repository = self.repository(&id);
        let effects = repository.grantor.release(&known, release.token);
        if !repository.knows(&asked) {
            self.asks.remove(&key);
        }
        self.carry_out(&id, effects, Reply::default()).await;
    }

    /// Records the end of a run with its plan.
    async fn finish(
        &mut self,
        id: &Arc<str>,
        grant: &Grant,
        release: &LeaseRelease,
        document: Vec<u8>,
        damage: Option<CheckedDamage>,
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
        let goes = plan.as_ref().map(narrow::goes);
        let told = told_plan(id, grant, release, &outcome).filter(|_| fits);
        let told = told.map(|told| StoredPlan { goes, ..told });
        let carried_out = ["Applied", "NothingToRemove"].contains(&outcome.result.as_str());
        let mut left = plan
            .as_ref()
            .map_or_else(|| outcome.left.clone(), |plan| plan.left.clone());
        cut(&mut left, BASELINE);
        let end = StoredEnd {
            restic_id: id.to_string(),
            token: grant.token,
            ended: wall_clock(),
            outcome: release.outcome.clone(),
            plan: told,
            document: if plan.is_some() { document } else { Vec::new() },
            baseline: carried_out.then_some(left),
            damage,
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

    /// Takes the outcome of a run in: operations that need no run of their own now. After a commanded preview all do.
    async fn conclude(
        &mut self,
        id: &Arc<str>,
        grant: &Grant,
        release: &LeaseRelease,
        shows: Option<BTreeSet<String>>,
        preview: bool,
    ) {
        let Some(outcome) = release.outcome.clone() else {
            return;
        };
        let cluster = &grant.operation.cluster;
        info!(repository = %id, %cluster, subject = %grant.operation.subject, token = grant.token, result = outcome.result, "a run has ended");
        let repository = self.repository(id);
        let run = repository.run.take().filter(|(token, _)| *token == grant.token);
        let Some(run) = run.and_then(|(_, run)| run) else {
            return;
        };
        if preview || !run::is_conclusive(&outcome.result) {
            return;
        }
        let carried = run::carried(&run, &outcome.result);
        repository.recent = Some(Recent {
            started: signed(grant.since),
            token: grant.token,
            by: format!("{cluster}: {}", grant.operation.subject),
            policy: release.policy.clone(),
            policies: run::names(&run),
            shows,
            outcome,
        });
        if let Some(policies) = carried {
            self.hub
                .change(|inventory| inventory.carry(id, (cluster, wall_clock()), policies));
        }
        let waiting = self.repository(id).grantor.waiting().iter();
        let waiting: Vec<Operation> = waiting.map(|w| w.operation.clone()).collect();
        for operation in waiting {
            let key = (operation.cluster.clone(), operation.id.clone());
            let Some(covered) = self.covered(&key) else {
                continue;
            };
            // It waits, so it holds nothing that could be freed here.
            self.repository(id).grantor.withdraw(&operation, u64::MAX);
            self.asks.remove(&key);
            self.cover(id, &operation.cluster, &operation.subject, covered)
                .await;
        }
    }
}

/// Whether the outcome is one that only checks have.
fn checked(release: &LeaseRelease) -> bool {
    let result = release.outcome.as_ref().map(|outcome| outcome.result.as_str());
    matches!(result, Some("Damaged" | "Passed"))
}

/// What a check has found; `None` for other operations, and when nothing is known anew. One that passed speaks for its
/// own resource alone: another may have looked at other parts.
fn found(ask: &LeaseAsk, grant: &Grant, release: &LeaseRelease) -> Option<CheckedDamage> {
    let outcome = release.outcome.as_ref()?;
    let Operation { cluster, subject, .. } = &grant.operation;
    let text = match outcome.result.as_str() {
        "Damaged" => Some(format!("{subject} in cluster {cluster}: {}", outcome.message)),
        "Passed" => None,
        _ => return None,
    };
    (ask.kind() == OperationKind::Check).then(|| CheckedDamage {
        cluster: cluster.to_string(),
        owner: release.policy.clone(),
        text,
    })
}

/// The plan in a document, if it is one of this repository and its ids give its hash.
pub(super) fn document_of(restic_id: &str, document: &[u8]) -> Option<PlanDocument> {
    let PlanLine { plan } = serde_json::from_slice(document).ok()?;
    let restic_id = copies::restic_id(restic_id);
    let hash = plan_hash(restic_id, plan.remove.iter().map(|removal| removal.id.as_str()));
    (plan.restic_id == restic_id && plan.hash == hash).then_some(plan)
}

/// A plan as people see it; `None` when the run made none.
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
        goes: None,
    })
}

/// Short enough to type, long enough to be one plan's.
fn plan_id(restic_id: &str, hash: &str) -> String {
    let digest = Sha256::digest(format!("{restic_id}/{hash}").as_bytes());
    format!("p-{}", hex::encode(digest).chars().take(8).collect::<String>())
}
