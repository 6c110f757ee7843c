//! What people ask about locks, plans and past runs, and what they decide.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::hub_message::Body;
use proto::v1::{
    AuditRequest, AuditResponse, DecidePlanRequest, LocksRequest, LocksResponse, OperationOutcome,
    PlanApproved, PlansRequest, PlansResponse, ReleaseLockRequest,
};
use tonic::Status;
use tracing::info;

use super::describe;
use super::grantor::Grantor;
use super::keeper::Keeper;
use crate::now as wall_clock;
use crate::rows;
use crate::store::{StoreError, StoredPlan};

/// Longest list.
const PAGE: u32 = 200;

impl Keeper {
    /// Name and id of repositories that a text means: a name, an id, or the beginning of an id.
    fn resolve(&self, text: &str) -> Vec<(Arc<str>, String)> {
        let known = self.hub.read(|inventory| {
            let ids = inventory.index().repositories().cloned();
            ids.map(|id| {
                let name = rows::repository_name(inventory, &id);
                (id, name)
            })
            .collect::<BTreeMap<_, _>>()
        });
        let mut all: BTreeMap<Arc<str>, String> = known;
        for id in self.repositories.keys() {
            all.entry(id.clone()).or_default();
        }
        all.into_iter()
            .filter(|(id, name)| text.is_empty() || name == text || (text.len() >= 4 && id.starts_with(text)))
            .collect()
    }

    pub(super) fn locks(&self, request: &LocksRequest) -> LocksResponse {
        let now = self.now();
        let connected = |cluster: &str| self.sessions.contains_key(cluster);
        let named = !request.repository.is_empty();
        let free = Grantor::default();
        let locks = self
            .resolve(&request.repository)
            .into_iter()
            .filter_map(|(id, name)| {
                let grantor = self.repositories.get(&id).map_or(&free, |r| &r.grantor);
                (named || !grantor.is_idle()).then(|| {
                    let mut lock = describe::lock(&id, &name, grantor, now, connected);
                    self.hub
                        .read(|inventory| super::restic::add(&mut lock, inventory));
                    lock
                })
            });
        LocksResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            locks: locks.collect(),
        }
    }

    pub(super) async fn revoke(&mut self, request: &ReleaseLockRequest) -> Result<(), Status> {
        let found = self.resolve(&request.repository);
        let [(id, _)] = found.as_slice() else {
            return Err(Status::not_found(format!(
                "{:?} names {} repositories; `fleet repos` lists them",
                request.repository,
                found.len()
            )));
        };
        let repository = self
            .repositories
            .get_mut(id)
            .ok_or_else(|| Status::not_found("nobody holds it"))?;
        let effects = repository
            .grantor
            .revoke(request.token)
            .map_err(Status::failed_precondition)?;
        self.carry_out(id, effects, 0).await;
        Ok(())
    }

    pub(super) async fn plans(&self, request: &PlansRequest) -> Result<PlansResponse, Status> {
        let stored = self.store.plans().await.map_err(unavailable)?;
        let one = !request.plan.is_empty();
        let plans = stored
            .into_iter()
            .filter(|p| !one || p.id.starts_with(&request.plan));
        let plans = plans.map(|plan| {
            let names = self.resolve(&plan.restic_id);
            proto::v1::Plan {
                repository: names.first().map(|(_, name)| name.clone()).unwrap_or_default(),
                id: plan.id,
                restic_id: plan.restic_id,
                hash: plan.hash,
                state: plan.state,
                made: Some(from_unix_millis(plan.made)),
                cluster: plan.cluster,
                subject: plan.subject,
                token: plan.token,
                outcome: OperationOutcome::decode(plan.outcome.as_slice()).ok(),
                document: if one {
                    String::from_utf8_lossy(&plan.document).into_owned()
                } else {
                    String::new()
                },
                decided_by: plan.decided_by,
            }
        });
        Ok(PlansResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            plans: plans.collect(),
        })
    }

    pub(super) async fn decide(&mut self, request: &DecidePlanRequest, who: &str) -> Result<(), Status> {
        let stored = self.store.plans().await.map_err(unavailable)?;
        let found: Vec<&StoredPlan> = stored.iter().filter(|p| p.id == request.plan).collect();
        let [plan] = found.as_slice() else {
            return Err(Status::not_found(format!(
                "there is no plan {:?}; `fleet plan list` shows them",
                request.plan
            )));
        };
        if plan.state != "waiting" {
            return Err(Status::failed_precondition(format!(
                "plan {} is {}, not waiting",
                plan.id, plan.state
            )));
        }
        if !hash_matches(&plan.hash, &request.hash) {
            return Err(Status::failed_precondition(format!(
                "plan {} has another hash than {:?}: look at it again with `fleet plan show {}`",
                plan.id, request.hash, plan.id
            )));
        }
        let state = if request.approve { "approved" } else { "rejected" };
        self.store
            .decide_plan(&plan.id, state, who)
            .await
            .map_err(unavailable)?;
        info!(plan = plan.id, state, by = who, "a plan was decided");
        if request.approve {
            let approved = PlanApproved {
                policy: plan.policy.clone(),
                hash: plan.hash.clone(),
                ..Default::default()
            };
            self.send(&plan.cluster.as_str().into(), Body::PlanApproved(approved));
        }
        Ok(())
    }

    /// A spoke that was away when a plan was approved hears of it when it comes back.
    pub(super) async fn tell_approvals(&self, cluster: &Arc<str>) {
        let Ok(stored) = self.store.plans().await else {
            return;
        };
        for plan in stored
            .into_iter()
            .filter(|p| p.state == "approved" && p.cluster == **cluster)
        {
            let approved = PlanApproved {
                policy: plan.policy,
                hash: plan.hash,
                ..Default::default()
            };
            self.send(cluster, Body::PlanApproved(approved));
        }
    }

    pub(super) async fn audit(&self, request: &AuditRequest) -> Result<AuditResponse, Status> {
        let limit = if request.limit == 0 {
            PAGE
        } else {
            request.limit.min(PAGE)
        };
        let wanted = self.resolve(&request.repository);
        let names: HashMap<&str, &str> = wanted.iter().map(|(id, name)| (&**id, name.as_str())).collect();
        let stored = self.store.audit(
            limit,
            (!request.repository.is_empty()).then(|| wanted.iter().map(|(id, _)| id.to_string()).collect()),
        );
        let entries = stored
            .await
            .map_err(unavailable)?
            .into_iter()
            .map(|entry| proto::v1::AuditEntry {
                token: entry.token,
                repository: names
                    .get(entry.restic_id.as_str())
                    .map(|n| (*n).to_owned())
                    .unwrap_or_default(),
                restic_id: entry.restic_id,
                cluster: entry.cluster,
                subject: entry.subject,
                granted: Some(from_unix_millis(entry.granted)),
                ended: entry.ended.map(from_unix_millis),
                outcome: entry
                    .outcome
                    .and_then(|bytes| OperationOutcome::decode(bytes.as_slice()).ok()),
                policies: entry.policies,
                covered: entry.covered,
            });
        Ok(AuditResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            entries: entries.collect(),
        })
    }
}

/// At least 8 digits of the hash, with or without its prefix.
fn hash_matches(hash: &str, given: &str) -> bool {
    let given = given.strip_prefix("sha256:").unwrap_or(given);
    let hash = hash.strip_prefix("sha256:").unwrap_or(hash);
    given.len() >= 8 && hash.starts_with(given)
}

fn unavailable(error: StoreError) -> Status {
    Status::unavailable(error.to_string())
}
