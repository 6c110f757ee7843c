//! The one task that owns all locks: takes commands, asks the grantors what to do, makes it durable, and tells spokes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::hub_message::Body;
use proto::v1::{
    AuditRequest, AuditResponse, DecidePlanRequest, Drain, HubMessage, LeaseAsk, LeaseCovered, LeaseGrant,
    LeaseRelease, LeaseReleased, LeaseRenewed, LeaseRevoke, LeaseWaiting, LocksRequest, LocksResponse,
    PlanApproved, PlansRequest, PlansResponse, ReleaseLockRequest, RetentionOutcome, RetentionRun,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{error, info, warn};

use super::grantor::{Effect, Grant, Grantor, Instant, Operation, Phase, Record};
use super::{Command, Outgoing, Settings, describe, run};
use crate::hub::Hub;
use crate::now as wall_clock;
use crate::rows;
use crate::store::{HubStore, StoredAudit, StoredLock, StoredPlan};

/// Time moves on this often while some lock is in use.
const TICK: Duration = Duration::from_millis(100);
/// Longest list.
const PAGE: u32 = 200;

/// The lock of one repository, with what the hub knows of those who hold it and wait.
#[derive(Default)]
struct Repository {
    grantor: Grantor,
    /// Questions as they came, by cluster and operation.
    asks: HashMap<(Arc<str>, Arc<str>), LeaseAsk>,
    /// What the present holder was given to do.
    run: Option<(u64, RetentionRun)>,
    recent: Option<Recent>,
    /// What each waiter was told last.
    told: HashMap<(Arc<str>, Arc<str>), LeaseWaiting>,
    draining: bool,
}

/// The last run that came to an end.
struct Recent {
    started: Instant,
    token: u64,
    by: String,
    /// uid of the policy whose Job it was: when that asks again, it means it.
    policy: String,
    policies: Vec<String>,
    outcome: RetentionOutcome,
}

/// All locks.
pub struct Keeper {
    hub: Arc<Hub>,
    store: Arc<dyn HubStore>,
    settings: Settings,
    start: tokio::time::Instant,
    repositories: BTreeMap<Arc<str>, Repository>,
    sessions: HashMap<Arc<str>, (u64, Outgoing)>,
}

impl Keeper {
    /// Locks as they were kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        hub: Arc<Hub>,
        store: Arc<dyn HubStore>,
        settings: Settings,
    ) -> anyhow::Result<Keeper> {
        let mut repositories = BTreeMap::new();
        for lock in store.locks().await? {
            let holder = lock.holder.map(|(cluster, id, subject)| Operation {
                cluster: cluster.into(),
                id: id.into(),
                subject: subject.into(),
            });
            let record = Record {
                token: lock.token,
                holder,
                delayed: lock.delayed,
            };
            let repository = Repository {
                grantor: Grantor::restored(record, 0, &settings.terms),
                ..Repository::default()
            };
            repositories.insert(lock.restic_id.into(), repository);
        }
        Ok(Keeper {
            hub,
            store,
            settings,
            start: tokio::time::Instant::now(),
            repositories,
            sessions: HashMap::new(),
        })
    }

    /// Works until `stop`.
    pub async fn keep(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        loop {
            let busy = self.repositories.values().any(|r| !r.grantor.is_idle());
            let tick = async {
                if busy {
                    tokio::time::sleep(TICK).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.take(command).await,
                    None => return,
                },
                () = tick => {}
                () = stop.cancelled() => return,
            }
            // A burst of commands is taken before time moves on.
            while let Ok(command) = commands.try_recv() {
                self.take(command).await;
            }
            self.advance_all().await;
        }
    }

    fn now(&self) -> Instant {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Attach {
                cluster,
                session,
                outgoing,
            } => {
                self.sessions.insert(cluster.clone(), (session, outgoing));
                self.tell_approvals(&cluster).await;
            }
            Command::Detach { cluster, session } => {
                if self
                    .sessions
                    .get(&cluster)
                    .is_some_and(|(present, _)| *present == session)
                {
                    self.sessions.remove(&cluster);
                }
            }
            Command::Ask(cluster, ask) => self.ask(cluster, ask).await,
            Command::Withdraw(cluster, withdraw) => {
                let operation = operation(&cluster, &withdraw.operation, "");
                if let Some(repository) = self.repositories.get_mut(withdraw.restic_id.as_str()) {
                    let known = repository.known(&operation);
                    repository.asks.remove(&(cluster, operation.id.clone()));
                    repository.grantor.withdraw(&known);
                }
            }
            Command::Renew(cluster, renew) => {
                let (now, terms) = (self.now(), self.settings.terms);
                let operation = operation(&cluster, &renew.operation, "");
                let id: Arc<str> = renew.restic_id.as_str().into();
                let repository = self.repositories.entry(id.clone()).or_default();
                let known = repository.known(&operation);
                let effects = repository.grantor.renew(&known, renew.token, now, &terms);
                self.carry_out(&id, effects, renew.seq).await;
            }
            Command::Release(cluster, release) => self.release(cluster, release).await,
            Command::Locks(request, reply) => {
                let _ = reply.send(self.locks(&request));
            }
            Command::Revoke(request, reply) => {
                let _ = reply.send(self.revoke(&request).await);
            }
            Command::Plans(request, reply) => {
                let _ = reply.send(self.plans(&request).await);
            }
            Command::Decide(request, who, reply) => {
                let _ = reply.send(self.decide(&request, &who).await);
            }
            Command::Audit(request, reply) => {
                let _ = reply.send(self.audit(&request).await);
            }
        }
    }

    async fn ask(&mut self, cluster: Arc<str>, ask: LeaseAsk) {
        if ask.restic_id.is_empty() || ask.operation.is_empty() {
            return;
        }
        let now = self.now();
        let id: Arc<str> = ask.restic_id.as_str().into();
        if let Some(covered) = self.covered(&cluster, &ask, now) {
            info!(%cluster, subject = ask.subject, token = covered.token, "needs no run of its own");
            self.cover(&id, &cluster, &ask.subject, covered).await;
            return;
        }
        let operation = operation(&cluster, &ask.operation, &ask.subject);
        let repository = self.repositories.entry(id.clone()).or_default();
        repository.told.remove(&(cluster.clone(), operation.id.clone()));
        repository.asks.insert((cluster, operation.id.clone()), ask);
        let known = repository.known(&operation);
        let effects = repository.grantor.ask(known, now);
        self.carry_out(&id, effects, 0).await;
    }

    /// The answer to a question whose policy has just taken part in another cluster's run.
    fn covered(&self, cluster: &Arc<str>, ask: &LeaseAsk, now: Instant) -> Option<LeaseCovered> {
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
        })
    }

    fn policy_name(&self, cluster: &Arc<str>, uid: &str) -> Option<String> {
        self.hub.read(|inventory| {
            let held = inventory.held(cluster, &[uid.to_owned()]);
            run::name_of(held.get(uid)?)
        })
    }

    async fn cover(&mut self, id: &Arc<str>, cluster: &Arc<str>, subject: &str, covered: LeaseCovered) {
        if let Err(error) = self
            .store
            .cover(id, covered.token, format!("{cluster}: {subject}"))
            .await
        {
            warn!(%error, "the audit misses a covered operation");
        }
        self.send(cluster, Body::LeaseCovered(covered));
    }

    async fn release(&mut self, cluster: Arc<str>, release: LeaseRelease) {
        let id: Arc<str> = release.restic_id.as_str().into();
        let asked = operation(&cluster, &release.operation, "");
        let repository = self.repositories.entry(id.clone()).or_default();
        let known = repository.known(&asked);
        let held = match repository.grantor.phase() {
            Phase::Held { grant, .. } | Phase::Delay { grant, .. } => {
                (grant.operation == known && grant.token == release.token).then(|| grant.clone())
            }
            _ => None,
        };
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
                    repository.grantor.withdraw(&operation);
                    repository.asks.remove(&key);
                }
                let covered = LeaseCovered {
                    operation: operation.id.to_string(),
                    by: by.clone(),
                    token: grant.token,
                    outcome: Some(outcome.clone()),
                };
                self.cover(id, &operation.cluster, &operation.subject, covered)
                    .await;
            }
        }
    }

    async fn advance_all(&mut self) {
        let (now, terms) = (self.now(), self.settings.terms);
        let active = self.repositories.iter().filter(|(_, r)| !r.grantor.is_idle());
        let ids: Vec<Arc<str>> = active.map(|(id, _)| id.clone()).collect();
        for id in ids {
            let busy = self.hub.read(|inventory| inventory.index().is_backing_up(&id));
            let sessions = &self.sessions;
            let Some(repository) = self.repositories.get_mut(&id) else {
                continue;
            };
            let effects = repository
                .grantor
                .advance(now, &terms, busy, |cluster| sessions.contains_key(cluster));
            let drains = matches!(repository.grantor.phase(), Phase::Draining { .. });
            let changed = std::mem::replace(&mut repository.draining, drains) != drains;
            if changed {
                self.drain(&id, drains);
            }
            self.carry_out(&id, effects, 0).await;
            self.tell_waiting(&id);
        }
    }

    /// Asks all clusters that are bound to a repository to hold new backups, or to go on.
    fn drain(&self, id: &Arc<str>, begin: bool) {
        let duration_ms = if begin { self.settings.terms.drain } else { 0 };
        let bound: std::collections::BTreeSet<Arc<str>> = self.hub.read(|inventory| {
            inventory
                .index()
                .bindings(id)
                .map(|held| held.cluster.clone())
                .collect()
        });
        for cluster in bound {
            let drain = Drain {
                restic_id: id.to_string(),
                duration_ms,
            };
            self.send(&cluster, Body::Drain(drain));
        }
    }

    /// Does what a grantor asks for, in order.
    async fn carry_out(&mut self, id: &Arc<str>, effects: Vec<Effect>, seq: u64) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Commit(record) => {
                    let granting = matches!(queue.front(), Some(Effect::Confirm(_)));
                    if let Err(error) = self.commit(id, &record, granting).await {
                        error!(%error, repository = %id, "the lock could not be made durable");
                        let now = self.now();
                        if granting && let Some(repository) = self.repositories.get_mut(id) {
                            repository.grantor.failed(record.token, now);
                            queue.pop_front();
                        }
                    }
                }
                Effect::Confirm(token) => {
                    let (now, terms) = (self.now(), self.settings.terms);
                    if let Some(repository) = self.repositories.get_mut(id) {
                        queue.extend(repository.grantor.committed(token, now, &terms));
                    }
                }
                Effect::Grant(grant) => self.tell_grant(id, &grant),
                Effect::Renewed { operation, token } => {
                    let renewed = LeaseRenewed {
                        operation: operation.id.to_string(),
                        token,
                        seq,
                    };
                    self.send(&operation.cluster, Body::LeaseRenewed(renewed));
                }
                Effect::Revoke {
                    operation,
                    token,
                    reason,
                } => {
                    let revoke = LeaseRevoke {
                        operation: operation.id.to_string(),
                        token,
                        reason: reason.to_owned(),
                    };
                    self.send(&operation.cluster, Body::LeaseRevoke(revoke));
                }
                Effect::Released { operation, token } => {
                    let released = LeaseReleased {
                        operation: operation.id.to_string(),
                        token,
                    };
                    self.send(&operation.cluster, Body::LeaseReleased(released));
                }
            }
        }
    }

    /// Keeps a record; a grant together with its entry in the audit.
    async fn commit(
        &mut self,
        id: &Arc<str>,
        record: &Record,
        granting: bool,
    ) -> Result<(), crate::store::StoreError> {
        let holder = record.holder.as_ref();
        let audit = match holder.filter(|_| granting) {
            None => None,
            Some(operation) => {
                let run = self.run(id, operation);
                let policies = run::names(&run);
                if let Some(repository) = self.repositories.get_mut(id) {
                    repository.run = Some((record.token, run));
                }
                Some(StoredAudit {
                    restic_id: id.to_string(),
                    token: record.token,
                    cluster: operation.cluster.to_string(),
                    operation: operation.id.to_string(),
                    subject: operation.subject.to_string(),
                    granted: wall_clock(),
                    ended: None,
                    policies,
                    covered: Vec::new(),
                    outcome: None,
                })
            }
        };
        let lock = StoredLock {
            restic_id: id.to_string(),
            token: record.token,
            holder: holder.map(|o| (o.cluster.to_string(), o.id.to_string(), o.subject.to_string())),
            delayed: record.delayed,
        };
        let timer = self.hub.metrics.commit_seconds.start_timer();
        let result = self.store.save_lock(lock, audit).await;
        timer.observe_duration();
        result
    }

    fn run(&self, id: &Arc<str>, operation: &Operation) -> RetentionRun {
        let key = (operation.cluster.clone(), operation.id.clone());
        let repository = self.repositories.get(id);
        let approved = repository
            .and_then(|r| r.asks.get(&key))
            .map(|a| a.approved.clone());
        self.hub
            .read(|inventory| run::compose(inventory, id, &approved.unwrap_or_default()))
    }

    fn tell_grant(&self, id: &Arc<str>, grant: &Grant) {
        let kept = self.repositories.get(id).and_then(|r| r.run.clone());
        let run = match kept {
            Some((token, run)) if token == grant.token => run,
            // Granted before the hub's last restart.
            _ => self.run(id, &grant.operation),
        };
        info!(repository = %id, cluster = %grant.operation.cluster, subject = %grant.operation.subject, token = grant.token, "lock granted");
        let message = LeaseGrant {
            operation: grant.operation.id.to_string(),
            token: grant.token,
            ttl_ms: self.settings.terms.ttl,
            renew_ms: self.settings.renew,
            run: Some(run),
        };
        self.send(&grant.operation.cluster, Body::LeaseGrant(message));
    }

    /// Tells each waiter what it waits for, when that has changed.
    fn tell_waiting(&mut self, id: &Arc<str>) {
        let Some(repository) = self.repositories.get_mut(id) else {
            return;
        };
        let reason = describe::reason(&repository.grantor);
        let mut told = HashMap::new();
        let mut news = Vec::new();
        for (position, waiter) in repository.grantor.waiting().iter().enumerate() {
            let key = (waiter.operation.cluster.clone(), waiter.operation.id.clone());
            let message = LeaseWaiting {
                operation: waiter.operation.id.to_string(),
                position: u32::try_from(position + 1).unwrap_or(u32::MAX),
                reason: reason.clone(),
            };
            if repository.told.get(&key) != Some(&message) {
                news.push((waiter.operation.cluster.clone(), message.clone()));
            }
            told.insert(key, message);
        }
        repository.told = told;
        for (cluster, message) in news {
            self.send(&cluster, Body::LeaseWaiting(message));
        }
    }

    fn send(&self, cluster: &Arc<str>, body: Body) {
        if let Some((_, outgoing)) = self.sessions.get(cluster) {
            self.hub
                .metrics
                .messages
                .with_label_values(&["out", "lease"])
                .inc();
            // One that is lost is asked for again.
            let _ = outgoing.try_send(Ok(HubMessage { body: Some(body) }));
        }
    }

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

    fn locks(&self, request: &LocksRequest) -> LocksResponse {
        let now = self.now();
        let connected = |cluster: &str| self.sessions.contains_key(cluster);
        let named = !request.repository.is_empty();
        let free = Grantor::default();
        let locks = self
            .resolve(&request.repository)
            .into_iter()
            .filter_map(|(id, name)| {
                let grantor = self.repositories.get(&id).map_or(&free, |r| &r.grantor);
                (named || !grantor.is_idle()).then(|| describe::lock(&id, &name, grantor, now, connected))
            });
        LocksResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            locks: locks.collect(),
        }
    }

    async fn revoke(&mut self, request: &ReleaseLockRequest) -> Result<(), Status> {
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

    async fn plans(&self, request: &PlansRequest) -> Result<PlansResponse, Status> {
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
                outcome: RetentionOutcome::decode(plan.outcome.as_slice()).ok(),
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

    async fn decide(&mut self, request: &DecidePlanRequest, who: &str) -> Result<(), Status> {
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
            };
            self.send(&plan.cluster.as_str().into(), Body::PlanApproved(approved));
        }
        Ok(())
    }

    /// A spoke that was away when a plan was approved hears of it when it comes back.
    async fn tell_approvals(&self, cluster: &Arc<str>) {
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
            };
            self.send(cluster, Body::PlanApproved(approved));
        }
    }

    async fn audit(&self, request: &AuditRequest) -> Result<AuditResponse, Status> {
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
                    .and_then(|bytes| RetentionOutcome::decode(bytes.as_slice()).ok()),
                policies: entry.policies,
                covered: entry.covered,
            });
        Ok(AuditResponse {
            as_of: Some(from_unix_millis(wall_clock())),
            entries: entries.collect(),
        })
    }
}

impl Repository {
    /// An operation as it is known, with its subject: messages after the first do not repeat it.
    fn known(&self, operation: &Operation) -> Operation {
        let same = |other: &&Operation| other.cluster == operation.cluster && other.id == operation.id;
        let held = match self.grantor.phase() {
            Phase::Held { grant, .. } | Phase::Delay { grant, .. } | Phase::Granting(grant) => {
                Some(&grant.operation)
            }
            Phase::Draining { operation, .. } => Some(operation),
            Phase::Free => None,
        };
        let waiting = self.grantor.waiting().iter().map(|w| &w.operation);
        held.into_iter()
            .chain(waiting)
            .find(same)
            .unwrap_or(operation)
            .clone()
    }
}

fn operation(cluster: &Arc<str>, id: &str, subject: &str) -> Operation {
    Operation {
        cluster: cluster.clone(),
        id: id.into(),
        subject: subject.into(),
    }
}

/// Short enough to type, long enough to be one plan's.
fn plan_id(restic_id: &str, hash: &str) -> String {
    let digest = Sha256::digest(format!("{restic_id}/{hash}").as_bytes());
    format!("p-{}", hex::encode(digest).chars().take(8).collect::<String>())
}

/// At least 8 digits of the hash, with or without its prefix.
fn hash_matches(hash: &str, given: &str) -> bool {
    let given = given.strip_prefix("sha256:").unwrap_or(given);
    let hash = hash.strip_prefix("sha256:").unwrap_or(hash);
    given.len() >= 8 && hash.starts_with(given)
}

fn unavailable(error: crate::store::StoreError) -> Status {
    Status::unavailable(error.to_string())
}
