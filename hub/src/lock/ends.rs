//! How runs end: their outcome is kept, a plan that needs a person is put before people, and operations whose policy
//! has taken part need no run of their own.

use std::sync::Arc;

use prost::Message as _;
use proto::v1::hub_message::Body;
use proto::v1::{LeaseAsk, LeaseCovered, LeaseRelease};
use sha2::{Digest as _, Sha256};
use tracing::{error, info, warn};

use super::grantor::{Grant, Instant, Operation};
use super::keeper::{Keeper, Recent, operation};
use super::run;
use crate::now as wall_clock;
use crate::store::StoredPlan;

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
            ..Default::default()
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
            warn!(%error, "the audit misses a covered operation");
        }
        self.send(cluster, Body::LeaseCovered(covered));
    }

    pub(super) async fn release(&mut self, cluster: Arc<str>, release: LeaseRelease) {
        let id: Arc<str> = release.restic_id.as_str().into();
        let asked = operation(&cluster, &release.operation, "");
        let repository = self.repository(&id);
        let known = repository.known(&asked);
        let held = repository.grantor.held_by(&known, release.token);
        let key = (cluster.clone(), asked.id.clone());
        let ask = repository.asks.get(&key).cloned();
        if release.outcome.is_some() {
            repository.asks.remove(&key);
        }
        let effects = repository.grantor.release(&known, release.token);
        if let Some(grant) = held {
            let ended = self
                .store
                .finish(&id, grant.token, wall_clock(), release.outcome.as_ref())
                .await;
            if let Err(error) = ended {
                // Said again later: nothing is answered, nothing changes.
                error!(%error, "the end of a run could not be recorded");
                return;
            }
            self.conclude(&id, &grant, ask.as_ref(), &release).await;
        }
        self.carry_out(&id, effects, 0).await;
    }

    /// Takes the outcome of a run in: plans to approve, and operations that need no run of their own now.
    async fn conclude(
        &mut self,
        id: &Arc<str>,
        grant: &Grant,
        ask: Option<&LeaseAsk>,
        release: &LeaseRelease,
    ) {
        let Some(outcome) = release.outcome.clone() else {
            return;
        };
        let cluster = &grant.operation.cluster;
        info!(repository = %id, %cluster, subject = %grant.operation.subject, token = grant.token, result = outcome.result, "a run has ended");
        let policy = ask.map(|a| a.policy.clone()).unwrap_or_default();
        if outcome.result == "ApprovalRequired" {
            let plan = StoredPlan {
                id: plan_id(id, &outcome.plan),
                restic_id: id.to_string(),
                hash: outcome.plan.clone(),
                state: "waiting".to_owned(),
                made: wall_clock(),
                cluster: cluster.to_string(),
                policy: policy.clone(),
                subject: grant.operation.subject.to_string(),
                token: grant.token,
                outcome: outcome.encode_to_vec(),
                document: release.plan.clone(),
                decided_by: String::new(),
            };
            if let Err(error) = self.store.save_plan(plan).await {
                warn!(%error, "a plan could not be kept; its next run makes it again");
            }
        } else if ["Applied", "NothingToRemove"].contains(&outcome.result.as_str())
            && let Err(error) = self.store.settle_plans(id, &outcome.plan).await
        {
            warn!(%error, "plans could not be settled");
        }
        let Some(repository) = self.repositories.get_mut(id) else {
            return;
        };
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
            policy: policy.clone(),
            policies: policies.clone(),
            outcome: outcome.clone(),
        });
        if self.settings.coalesce.is_none() {
            return;
        }
        let waiting = repository.grantor.waiting().iter();
        let waiting: Vec<(Operation, Instant)> = waiting.map(|w| (w.operation.clone(), w.since)).collect();
        for (operation, since) in waiting {
            let key = (operation.cluster.clone(), operation.id.clone());
            let ask = self.repositories.get(id).and_then(|r| r.asks.get(&key).cloned());
            let Some(ask) = ask.filter(|ask| ask.approved.is_empty() && ask.policy != policy) else {
                continue;
            };
            let took_part = self
                .policy_name(&operation.cluster, &ask.policy)
                .is_some_and(|name| policies.contains(&name));
            // A run that began long before the question may have looked at the repository before it.
            let window = self
                .settings
                .coalesce
                .and_then(|w| u64::try_from(w.as_millis()).ok());
            let asked = since.saturating_sub(ask.age_ms);
            let early = window.is_some_and(|window| asked.saturating_sub(grant.since) <= window);
            if took_part && early {
                if let Some(repository) = self.repositories.get_mut(id) {
                    // It waits, so it holds nothing that could be freed here.
                    repository.grantor.withdraw(&operation, u64::MAX);
                    repository.asks.remove(&key);
                }
                let covered = LeaseCovered {
                    operation: operation.id.to_string(),
                    by: by.clone(),
                    token: grant.token,
                    outcome: Some(outcome.clone()),
                    ..Default::default()
                };
                self.cover(id, &operation.cluster, &operation.subject, covered)
                    .await;
            }
        }
    }
}

/// Short enough to type, long enough to be one plan's.
fn plan_id(restic_id: &str, hash: &str) -> String {
    let digest = Sha256::digest(format!("{restic_id}/{hash}").as_bytes());
    format!("p-{}", hex::encode(digest).chars().take(8).collect::<String>())
}
