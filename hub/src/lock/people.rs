//! What people ask about locks, plans and past runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::{
    AuditRequest, AuditResponse, LockWaiter, LocksRequest, LocksResponse, OperationOutcome, PlansRequest,
    PlansResponse,
};
use tonic::Status;

use super::describe;
use super::ends::document_of;
use super::grantor::Grantor;
use super::keeper::Keeper;
use crate::Millis;
use crate::now as wall_clock;
use crate::rows;
use crate::store::{AuditCursor, PlanCursor, StoreError, StoredAudit, StoredDecision, StoredPlan};

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
                let outside: Vec<_> = self.asks.blocked_at(&id).collect();
                (named || !grantor.is_idle() || !outside.is_empty()).then(|| {
                    let mut lock = describe::lock(&id, &name, grantor, now, connected);
                    let outside = outside.into_iter().map(|(asker, asked, answer)| LockWaiter {
                        cluster: asker.0.to_string(),
                        subject: asked.ask.subject.clone(),
                        waited_ms: now.saturating_sub(asked.since),
                        reason: answer.reason.clone(),
                    });
                    lock.waiters.extend(outside);
                    self.hub.read(|inventory| {
                        super::restic::add(&mut lock, inventory);
                        super::restic::progress(&mut lock, inventory);
                    });
                    lock
                })
            });
        LocksResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            locks: locks.collect(),
        }
    }

    /// The one repository that a text means.
    pub(super) fn one(&self, text: &str) -> Result<Arc<str>, Status> {
        let found = self.resolve(text);
        let [(id, _)] = found.as_slice() else {
            return Err(Status::not_found(format!(
                "{text:?} names {} repositories; `fleet repos` lists them",
                found.len()
            )));
        };
        Ok(id.clone())
    }

    pub(super) async fn plans(&self, request: &PlansRequest) -> Result<PlansResponse, Status> {
        let as_of = Some(from_unix_millis(wall_clock()));
        if request.plan.is_empty() {
            let limit = page(request.limit);
            let before = plan_cursor(&request.before)?;
            let stored = self.store.plans(limit, before).await;
            let stored = stored.map_err(|e| unavailable(&e))?;
            let full = stored.len() == limit as usize;
            let next = stored.last().filter(|_| full);
            let next_before = next.map(|plan| format!("{}/{}", plan.made, plan.id));
            return Ok(PlansResponse {
                as_of,
                next_before: next_before.unwrap_or_default(),
                plans: stored.into_iter().map(|plan| self.plan_row(plan)).collect(),
            });
        }
        let stored = self.store.plans_named(&request.plan).await;
        let stored = stored.map_err(|e| unavailable(&e))?;
        let mut plans = Vec::new();
        for plan in stored {
            let found = self.verified(&plan).await?;
            let mut row = self.plan_row(plan);
            match found {
                Ok(document) => row.document = document,
                Err(missing) => missing.clone_into(&mut row.document_missing),
            }
            plans.push(row);
        }
        Ok(PlansResponse {
            as_of,
            plans,
            next_before: String::new(),
        })
    }

    /// The document of a plan, if its ids give the hash that an approval names; otherwise why it is not shown.
    pub(super) async fn verified(&self, plan: &StoredPlan) -> Result<Result<String, &'static str>, Status> {
        let document = self.store.document(&plan.restic_id, plan.token).await;
        let Some(document) = document.map_err(|e| unavailable(&e))? else {
            return Ok(Err("the list of its snapshots is not kept here"));
        };
        let hash = document_of(&plan.restic_id, &document).map(|plan| plan.hash);
        Ok(if hash.as_deref() == Some(plan.hash.as_str()) {
            String::from_utf8(document).map_err(|_| "its document is damaged")
        } else {
            Err("its document does not have its hash")
        })
    }

    fn plan_row(&self, plan: StoredPlan) -> proto::v1::Plan {
        let name = self
            .hub
            .read(|inventory| rows::repository_name(inventory, &plan.restic_id));
        proto::v1::Plan {
            repository: name,
            id: plan.id,
            restic_id: plan.restic_id,
            hash: plan.hash,
            state: plan.state,
            made: Some(from_unix_millis(plan.made)),
            cluster: plan.cluster,
            subject: plan.subject,
            token: plan.token,
            outcome: OperationOutcome::decode(plan.outcome.as_slice()).ok(),
            document: String::new(),
            decided_by: plan.decided_by,
            decided: plan.decided.map(from_unix_millis),
            document_missing: String::new(),
        }
    }

    pub(super) async fn audit(&self, request: &AuditRequest) -> Result<AuditResponse, Status> {
        let limit = page(request.limit);
        let before = audit_cursor(&request.before)?;
        let of = self.audited(&request.repository).await?;
        let until = before.as_ref().map_or(Millis::MAX, |(granted, ..)| *granted);
        let stored = self.store.audit(limit, before, of.clone()).await;
        let stored = stored.map_err(|e| unavailable(&e))?;
        let full = stored.len() == limit as usize;
        let next = stored.last().filter(|_| full);
        let next_before = next.map(|e| format!("{}/{}/{}", e.granted, e.restic_id, e.token));
        let from = next.map_or(Millis::MIN, |entry| entry.granted);
        let decisions = self.store.decisions(from, until, limit).await;
        let mut decisions = decisions.map_err(|e| unavailable(&e))?;
        decisions.retain(|d| {
            of.as_ref()
                .is_none_or(|of: &Vec<String>| of.contains(&d.restic_id))
        });
        Ok(AuditResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            entries: stored.into_iter().map(|entry| self.audit_row(entry)).collect(),
            decisions: decisions.into_iter().map(decision_row).collect(),
            next_before: next_before.unwrap_or_default(),
        })
    }

    /// The repositories whose audit is asked for; `None` means all. One that is gone is known by its id, as long as
    /// something is noted about it.
    async fn audited(&self, text: &str) -> Result<Option<Vec<String>>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let found: Vec<String> = self
            .resolve(text)
            .into_iter()
            .map(|(id, _)| id.to_string())
            .collect();
        if !found.is_empty() {
            return Ok(Some(found));
        }
        let gone = vec![text.to_owned()];
        let noted = self.store.audit(1, None, Some(gone.clone())).await;
        if noted.map_err(|e| unavailable(&e))?.is_empty() {
            return Err(Status::not_found(format!(
                "there is no repository {text:?}; `fleet repos` lists them"
            )));
        }
        Ok(Some(gone))
    }

    fn audit_row(&self, entry: StoredAudit) -> proto::v1::AuditEntry {
        let name = self
            .hub
            .read(|inventory| rows::repository_name(inventory, &entry.restic_id));
        proto::v1::AuditEntry {
            token: entry.token,
            repository: name,
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
            plan: entry.plan,
        }
    }
}

fn decision_row(decision: StoredDecision) -> proto::v1::Decision {
    proto::v1::Decision {
        at: Some(from_unix_millis(decision.at)),
        who: decision.who,
        what: decision.what,
        subject: decision.subject,
        restic_id: decision.restic_id,
        before: decision.before,
        after: decision.after,
    }
}

fn page(limit: u32) -> u32 {
    if limit == 0 { PAGE } else { limit.min(PAGE) }
}

fn plan_cursor(text: &str) -> Result<Option<PlanCursor>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let (made, id) = text.split_once('/')?;
        Some((made.parse().ok()?, id.to_owned()))
    };
    parse().map(Some).ok_or_else(bad_cursor)
}

fn audit_cursor(text: &str) -> Result<Option<AuditCursor>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let (granted, rest) = text.split_once('/')?;
        let (restic_id, token) = rest.split_once('/')?;
        Some((granted.parse().ok()?, restic_id.to_owned(), token.parse().ok()?))
    };
    parse().map(Some).ok_or_else(bad_cursor)
}

fn bad_cursor() -> Status {
    Status::invalid_argument("\"before\" is what the page before gave as next_before")
}

pub(super) fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}
