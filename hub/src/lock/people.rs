//! What people ask about locks and plans.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::{LockWaiter, LocksRequest, LocksResponse, OperationOutcome, PlansRequest, PlansResponse};
use tonic::Status;

use super::describe;
use super::ends::document_of;
use super::grantor::Grantor;
use super::keeper::Keeper;
use super::narrow;
use crate::access::{Person, Sight, Verb};
use crate::named;
use crate::now as wall_clock;
use crate::rows;
use crate::seen::Seen;
use crate::store::{PlanCursor, StoreError, StoredPlan};

/// Longest list.
pub(crate) const PAGE: u32 = 200;
/// Pages that are read at most for one page of what a person sees.
pub(crate) const SCANS: usize = 25;

impl Keeper {
    /// Id and name of repositories that a text means.
    fn resolve(&self, text: &str, sight: &Sight) -> Vec<(Arc<str>, String)> {
        let inventory = self.hub.snapshot();
        let seen = Seen::new(&inventory, sight);
        let unseen = self.repositories.keys().filter(|_| sight.is_everything());
        named::repositories(seen, unseen, text)
    }

    /// Name and id of the repositories whose locks are held or waited for.
    fn in_use(&self, sight: &Sight) -> Vec<(Arc<str>, String)> {
        let held = self.repositories.iter().filter(|(_, r)| !r.grantor.is_idle());
        let blocked = self.asks.blocked().filter_map(|(asker, _)| self.asks.get(asker));
        let ids: BTreeSet<&Arc<str>> = held
            .map(|(id, _)| id)
            .chain(blocked.map(|asked| &asked.restic_id))
            .collect();
        let inventory = self.hub.snapshot();
        let seen = Seen::new(&inventory, sight);
        let ids = ids.into_iter().filter(|id| seen.repository(id));
        ids.map(|id| (id.clone(), rows::repository_name(seen, id)))
            .collect()
    }

    pub(super) fn locks(&self, request: &LocksRequest, sight: &Sight) -> LocksResponse {
        let now = self.now();
        let connected = |cluster: &str| self.sessions.contains_key(cluster);
        let named = !request.repository.is_empty();
        let free = Grantor::default();
        let found = match named {
            true => self.resolve(&request.repository, sight),
            false => self.in_use(sight),
        };
        let locks = found.into_iter().filter_map(|(id, name)| {
            let repository = self.repositories.get(&id);
            let grantor = repository.map_or(&free, |r| &r.grantor);
            let crowded = repository.and_then(|r| r.crowded.as_deref());
            let outside: Vec<_> = self.asks.blocked_at(&id).collect();
            (named || !grantor.is_idle() || !outside.is_empty()).then(|| {
                let mut lock = describe::lock(&id, &name, (grantor, crowded), now, connected);
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
                    narrow::lock(&mut lock, Seen::new(inventory, sight));
                });
                lock
            })
        });
        LocksResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            locks: locks.collect(),
        }
    }

    /// The one repository that a text means to a person.
    pub(super) fn one(&self, text: &str, person: &Person) -> Result<Arc<str>, Status> {
        let found = self.resolve(text, &person.sight(Verb::See));
        match found.as_slice() {
            [(id, _)] => Ok(id.clone()),
            found => Err(named::not_one(text, found.len())),
        }
    }

    pub(super) async fn plans(&self, request: &PlansRequest, sight: &Sight) -> Result<PlansResponse, Status> {
        let as_of = Some(from_unix_millis(wall_clock()));
        if request.plan.is_empty() {
            let (stored, next_before) = self.page_of_plans(request, sight).await?;
            return Ok(PlansResponse {
                as_of,
                next_before,
                plans: stored
                    .into_iter()
                    .map(|plan| self.plan_row(plan, sight))
                    .collect(),
            });
        }
        let mut plans = Vec::new();
        for plan in self.plans_named(&request.plan, sight).await? {
            let found = self.verified(&plan).await?;
            let mut row = self.plan_row(plan, sight);
            match found {
                Ok(document) => {
                    row.document = self.hub.read(|inventory| {
                        narrow::document(document, &row.restic_id, Seen::new(inventory, sight))
                    });
                }
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

    /// Plans by their names, as far as they are seen.
    pub(super) async fn plans_named(&self, name: &str, sight: &Sight) -> Result<Vec<StoredPlan>, Status> {
        let stored = self.store.plans_named(name).await;
        let stored = stored.map_err(|e| unavailable(&e))?;
        Ok(self.seen(stored, sight))
    }

    fn seen(&self, mut plans: Vec<StoredPlan>, sight: &Sight) -> Vec<StoredPlan> {
        let inventory = self.hub.snapshot();
        plans.retain(|plan| narrow::sees_plan(plan, Seen::new(&inventory, sight)));
        plans
    }

    /// A page of plans that are seen, and where the next one begins.
    async fn page_of_plans(
        &self,
        request: &PlansRequest,
        sight: &Sight,
    ) -> Result<(Vec<StoredPlan>, String), Status> {
        let limit = page(request.limit);
        let mut before = plan_cursor(&request.before)?;
        let mut found: Vec<StoredPlan> = Vec::new();
        for _ in 0..SCANS {
            let stored = self.store.plans(PAGE, before.clone()).await;
            let stored = stored.map_err(|e| unavailable(&e))?;
            let more = stored.len() == PAGE as usize;
            before = stored.last().map(|plan| (plan.made, plan.id.clone()));
            found.extend(self.seen(stored, sight));
            if found.len() > limit as usize {
                found.truncate(limit as usize);
                before = found.last().map(|plan| (plan.made, plan.id.clone()));
                break;
            }
            if !more {
                return Ok((found, String::new()));
            }
        }
        let next = before.map(|(made, id)| format!("{made}/{id}"));
        Ok((found, next.unwrap_or_default()))
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

    fn plan_row(&self, plan: StoredPlan, sight: &Sight) -> proto::v1::Plan {
        let mut outcome = OperationOutcome::decode(plan.outcome.as_slice()).ok();
        let name = self.hub.read(|inventory| {
            let seen = Seen::new(inventory, sight);
            if let Some(outcome) = &mut outcome {
                narrow::outcome(outcome, &plan.restic_id, seen);
            }
            rows::repository_name(seen, &plan.restic_id)
        });
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
            outcome,
            document: String::new(),
            decided_by: plan.decided_by,
            decided: plan.decided.map(from_unix_millis),
            document_missing: String::new(),
        }
    }
}

pub(crate) fn page(limit: u32) -> u32 {
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

pub(crate) fn bad_cursor() -> Status {
    Status::invalid_argument("\"before\" is what the page before gave as next_before")
}

pub(crate) fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}
