//! What people decide about locks and plans. Written to the store before it is answered.

use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{DecidePlanRequest, PlanApproved, ReleaseLockRequest};
use tonic::Status;
use tracing::{info, warn};

use super::keeper::{Keeper, Reply};
use super::narrow;
use super::people::unavailable;
use crate::Millis;
use crate::access::{Person, Verb, out_of_scope};
use crate::away::decide::Candidate;
use crate::away::order::of_approval;
use crate::copies;
use crate::now as wall_clock;
use crate::seen::{Seen, namespace_of};
use crate::store::{StoredDecision, StoredPlan};

impl Keeper {
    pub(super) async fn revoke(
        &mut self,
        request: &ReleaseLockRequest,
        person: &Person,
    ) -> Result<(), Status> {
        let id = self.one(&request.repository, person)?;
        let (cluster, subject) = self.may_take_back(&id, person)?;
        let who = &person.name;
        let repository = self
            .repositories
            .get_mut(&id)
            .ok_or_else(|| Status::not_found("nobody holds it"))?;
        let (what, before) = if request.checked {
            ("release-delay", "delayed")
        } else {
            ("release-lock", "held")
        };
        let effects = if request.checked {
            repository.grantor.release_delay(request.token)
        } else {
            repository.grantor.revoke(request.token)
        };
        let effects = effects.map_err(Status::failed_precondition)?;
        self.deciding = Some(StoredDecision {
            at: wall_clock(),
            who: who.to_string(),
            what: what.to_owned(),
            subject: format!("{} token {}", request.repository, request.token),
            restic_id: id.to_string(),
            namespace: namespace_of(&subject).to_owned(),
            cluster,
            before: before.to_owned(),
            after: if request.checked { "free" } else { "taken back" }.to_owned(),
        });
        info!(repository = %id, token = request.token, by = %who, what, "a lock was taken back");
        self.carry_out(&id, effects, Reply::default()).await;
        // It is written with the record; when that failed, the grantor repeats the record and this is lost.
        match self.deciding.take() {
            None => Ok(()),
            Some(decision) => self.store.decide(decision).await.map_err(|e| unavailable(&e)),
        }
    }

    /// Cluster and subject of who holds a lock, if the person may take it back.
    fn may_take_back(&self, id: &Arc<str>, person: &Person) -> Result<(String, String), Status> {
        let holder = self.repositories.get(id).and_then(|r| r.holder());
        let (cluster, subject) = holder.map_or_else(Default::default, |operation| {
            (operation.cluster.to_string(), operation.subject.to_string())
        });
        let sight = person.sight(Verb::Run);
        let may = self.hub.read(|inventory| {
            let seen = Seen::new(inventory, &sight);
            // Of a holder that is not known, it could be any of the repository.
            if cluster.is_empty() {
                seen.whole_repository(id)
            } else {
                seen.operation(id, &cluster, &subject)
            }
        });
        if may {
            Ok((cluster, subject))
        } else {
            Err(out_of_scope(person, Verb::Run, "what holds this lock"))
        }
    }

    pub(super) async fn decide(
        &mut self,
        request: &DecidePlanRequest,
        person: &Person,
    ) -> Result<(), Status> {
        let who = &person.name;
        let stored = self.plans_named(&request.plan, &person.sight(Verb::See)).await?;
        let Some(plan) = stored.iter().find(|p| p.id == request.plan) else {
            return Err(Status::not_found(format!(
                "there is no plan {:?}; `fleet plan list` shows them",
                request.plan
            )));
        };
        let sight = person.sight(Verb::Approve);
        let covers = |inventory: &_| narrow::covers(plan, Seen::new(inventory, &sight));
        if !self.hub.read(covers) {
            return Err(out_of_scope(
                person,
                Verb::Approve,
                "the removal of these snapshots",
            ));
        }
        let state = decided(request.approve);
        decidable(plan, request)?;
        if request.approve
            && let Err(missing) = self.verified(plan).await?
        {
            return Err(Status::failed_precondition(format!(
                "plan {} cannot be approved: {missing}",
                plan.id
            )));
        }
        let decision = decision(plan, who, request.approve);
        let given = decision.at;
        if let Err(error) = self.store.decide_plan(&plan.id, state, decision).await {
            let status = unavailable(&error);
            self.failed(error, "a decision could not be kept");
            return Err(status);
        }
        info!(plan = plan.id, state, by = %who, "a plan was decided");
        // Read again when it is needed next: with what was decided, which counts for each store of the id.
        let id = copies::restic_id(&plan.restic_id);
        let stores = self.repositories.iter_mut();
        for (_, repository) in stores.filter(|(key, _)| copies::restic_id(key) == id) {
            repository.history = None;
        }
        if request.approve {
            self.tell_approval(plan, given).await;
        } else {
            self.asks.reject(&plan.restic_id, &plan.hash);
        }
        Ok(())
    }

    /// Approvals that no run was granted under yet: sent in each session, however often.
    pub(super) async fn tell_approvals(&mut self, cluster: &Arc<str>) {
        match self.store.approved(cluster).await {
            Ok(plans) => {
                for plan in plans {
                    let given = plan.decided.unwrap_or(plan.made);
                    self.tell_approval(&plan, given).await;
                }
            }
            Err(error) => self.failed(error, "approvals could not be read"),
        }
    }

    /// Tells the cluster whose run made a plan that it was approved. A policy runs by itself then; a repository, whose run was
    /// asked for by the hub, is asked for another one.
    async fn tell_approval(&self, plan: &StoredPlan, given: Millis) {
        let cluster: Arc<str> = plan.cluster.as_str().into();
        let of_repository = self.hub.read(|inventory| {
            let held = inventory.held(&cluster, std::slice::from_ref(&plan.policy));
            let held = held
                .get(&plan.policy)
                .filter(|held| held.repository().is_some())?;
            Some(Candidate::of(held))
        });
        let Some(by) = of_repository else {
            return self.send(&cluster, approval(plan));
        };
        // A cluster that is away is asked when it is back.
        if !self.sessions.contains_key(&cluster) {
            return;
        }
        let record = of_approval(&plan.restic_id, &by, &plan.hash, given, wall_clock());
        if let Some(record) = record
            && let Err(status) = self.hub.commands.submit(record).await
        {
            warn!(
                plan = plan.id,
                reason = status.message(),
                "the run of an approved plan could not be asked for"
            );
        }
    }
}

/// Whether a plan is open to this decision, and is the one that the person has seen.
fn decidable(plan: &StoredPlan, request: &DecidePlanRequest) -> Result<(), Status> {
    let open: &[&str] = if request.approve {
        &["waiting", "preview", "rejected"]
    } else {
        &["waiting", "preview", "approved"]
    };
    if !open.contains(&plan.state.as_str()) {
        let text = format!("plan {} is {}", plan.id, plan.state);
        return Err(Status::failed_precondition(text));
    }
    if !hash_matches(&plan.hash, &request.hash) {
        return Err(Status::failed_precondition(format!(
            "plan {} has another hash than {:?}: look at it again with `fleet plan show {}`",
            plan.id, request.hash, plan.id
        )));
    }
    Ok(())
}

fn approval(plan: &StoredPlan) -> Body {
    Body::PlanApproved(PlanApproved {
        policy: plan.policy.clone(),
        hash: plan.hash.clone(),
        plan: plan.id.clone(),
        restic_id: plan.restic_id.clone(),
    })
}

/// At least 8 digits of the hash, with or without its prefix.
fn hash_matches(hash: &str, given: &str) -> bool {
    let given = given.strip_prefix("sha256:").unwrap_or(given);
    let hash = hash.strip_prefix("sha256:").unwrap_or(hash);
    given.len() >= 8 && hash.starts_with(given)
}

fn decided(approve: bool) -> &'static str {
    if approve { "approved" } else { "rejected" }
}

/// The entry in the audit.
fn decision(plan: &StoredPlan, who: &str, approve: bool) -> StoredDecision {
    let what = if approve { "approve-plan" } else { "reject-plan" };
    StoredDecision {
        at: wall_clock(),
        who: who.to_owned(),
        what: what.to_owned(),
        subject: plan.id.clone(),
        restic_id: plan.restic_id.clone(),
        cluster: plan.cluster.clone(),
        namespace: namespace_of(&plan.subject).to_owned(),
        before: plan.state.clone(),
        after: decided(approve).to_owned(),
    }
}
