//! The one task that owns all locks: takes commands, asks the grantors what to do, makes it durable, and tells spokes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proto::v1::hub_message::Body;
use proto::v1::{
    Drain, HubMessage, LeaseAsk, LeaseGrant, LeaseReleased, LeaseRenewed, LeaseRevoke, LeaseWaiting,
    OperationOutcome, RetentionRun,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::grantor::{Effect, Grant, Grantor, Holder, Instant, Operation, Phase, Record};
use super::{Command, Outgoing, Settings, describe, run};
use crate::hub::Hub;
use crate::now as wall_clock;
use crate::store::{HubStore, StoreError, StoredAudit, StoredLock};

/// Time moves on this often while some lock is in use.
const TICK: Duration = Duration::from_millis(100);

/// The lock of one repository, with what the hub knows of those who hold it and wait.
#[derive(Default)]
pub(super) struct Repository {
    pub grantor: Grantor,
    /// Questions as they came, by cluster and operation.
    pub asks: HashMap<(Arc<str>, Arc<str>), LeaseAsk>,
    /// What the present holder was given to do.
    pub run: Option<(u64, RetentionRun)>,
    pub recent: Option<Recent>,
    /// What each waiter was told last.
    told: HashMap<(Arc<str>, Arc<str>), LeaseWaiting>,
    draining: bool,
}

/// The last run that came to an end.
pub(super) struct Recent {
    pub started: Instant,
    pub token: u64,
    pub by: String,
    /// uid of the policy whose Job it was: when that asks again, it means it.
    pub policy: String,
    pub policies: Vec<String>,
    pub outcome: OperationOutcome,
}

/// All locks.
pub struct Keeper {
    pub(super) hub: Arc<Hub>,
    pub(super) store: Arc<dyn HubStore>,
    pub(super) settings: Settings,
    start: tokio::time::Instant,
    /// No new grant on a repository that is met for the first time before this time.
    not_before: Instant,
    pub(super) repositories: BTreeMap<Arc<str>, Repository>,
    pub(super) sessions: HashMap<Arc<str>, (u64, Outgoing)>,
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
            let record = recorded(&lock);
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
            not_before: settings.terms.expiry(),
            repositories,
            sessions: HashMap::new(),
        })
    }

    /// Works until `stop`.
    pub async fn keep(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        loop {
            let busy = self
                .repositories
                .values()
                .any(|r| r.draining || !r.grantor.is_idle());
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

    /// The lock of a repository, which may be met for the first time.
    pub(super) fn repository(&mut self, id: &Arc<str>) -> &mut Repository {
        let not_before = self.not_before;
        self.repositories.entry(id.clone()).or_insert_with(|| Repository {
            grantor: Grantor::fresh(not_before),
            ..Repository::default()
        })
    }

    pub(super) fn now(&self) -> Instant {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn take(&mut self, command: Command) {
        let command = match command {
            Command::From {
                session,
                cluster,
                command,
            } => match self.sessions.get(&cluster) {
                Some((present, _)) if *present == session => *command,
                _ => return,
            },
            command => command,
        };
        match command {
            Command::From { .. } => {}
            Command::Attach {
                cluster,
                session,
                outgoing,
            } => {
                // Of two quick sessions the older may come last.
                if self
                    .sessions
                    .get(&cluster)
                    .is_some_and(|(present, _)| *present > session)
                {
                    return;
                }
                self.sessions.insert(cluster.clone(), (session, outgoing));
                self.tell_drains(&cluster);
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
                let id: Arc<str> = withdraw.restic_id.as_str().into();
                if let Some(repository) = self.repositories.get_mut(&id) {
                    let known = repository.known(&operation);
                    repository.asks.remove(&(cluster, operation.id.clone()));
                    let effects = repository.grantor.withdraw(&known, withdraw.token);
                    self.carry_out(&id, effects, 0).await;
                }
            }
            Command::Renew(cluster, renew) => {
                let (now, terms) = (self.now(), self.settings.terms);
                let operation = operation(&cluster, &renew.operation, "");
                let id: Arc<str> = renew.restic_id.as_str().into();
                let repository = self.repository(&id);
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
        let seen = ask.seen_token;
        let repository = self.repository(&id);
        repository.told.remove(&(cluster.clone(), operation.id.clone()));
        repository.asks.insert((cluster, operation.id.clone()), ask);
        let known = repository.known(&operation);
        if seen > repository.grantor.token() {
            warn!(repository = %id, seen, known = repository.grantor.token(), "a higher token was granted before: was this store restored from a backup?");
        }
        let effects = repository.grantor.ask(known, seen, now);
        self.carry_out(&id, effects, 0).await;
    }

    async fn advance_all(&mut self) {
        let (now, terms) = (self.now(), self.settings.terms);
        // A drain that was withdrawn leaves an idle lock, and clusters that still hold their backups.
        let due = |r: &Repository| r.draining || !r.grantor.is_idle();
        let active = self.repositories.iter().filter(|(_, r)| due(r));
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

    /// A spoke that connects during a drain has not heard of it.
    fn tell_drains(&self, cluster: &Arc<str>) {
        let draining = self.repositories.iter().filter(|(_, r)| r.draining);
        for (id, _) in draining {
            let bound = self.hub.read(|inventory| {
                inventory
                    .index()
                    .bindings(id)
                    .any(|held| held.cluster == *cluster)
            });
            if bound {
                let drain = Drain {
                    restic_id: id.to_string(),
                    duration_ms: self.settings.terms.drain,
                };
                self.send(cluster, Body::Drain(drain));
            }
        }
    }

    /// Does what a grantor asks for, in order.
    pub(super) async fn carry_out(&mut self, id: &Arc<str>, effects: Vec<Effect>, seq: u64) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Commit { record, grant } => {
                    let kept = self.commit(id, &record, grant.as_ref()).await;
                    let (now, terms) = (self.now(), self.settings.terms);
                    let Some(repository) = self.repositories.get_mut(id) else {
                        return;
                    };
                    if let Err(error) = kept {
                        error!(%error, repository = %id, "the lock could not be made durable");
                        repository.grantor.failed(now);
                        return;
                    }
                    if let Some(grant) = grant {
                        queue.extend(repository.grantor.committed(grant.token, now, &terms));
                    }
                }
                Effect::Grant(grant) => self.tell_grant(id, &grant),
                Effect::Renewed { operation, token } => {
                    let renewed = LeaseRenewed {
                        operation: operation.id.to_string(),
                        token,
                        seq,
                        ..Default::default()
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
                        by_person: reason == super::grantor::TAKEN_BACK,
                        ..Default::default()
                    };
                    self.send(&operation.cluster, Body::LeaseRevoke(revoke));
                }
                Effect::Released { operation, token } => {
                    let released = LeaseReleased {
                        operation: operation.id.to_string(),
                        token,
                        ..Default::default()
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
        grant: Option<&Grant>,
    ) -> Result<(), StoreError> {
        let audit = match grant {
            None => None,
            Some(Grant { operation, token, .. }) => {
                let run = self.run(id, operation);
                let policies = run::names(&run);
                if let Some(repository) = self.repositories.get_mut(id) {
                    repository.run = Some((*token, run));
                }
                Some(StoredAudit {
                    restic_id: id.to_string(),
                    token: *token,
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
            holder: record.holder.as_ref().map(|holder| match holder {
                Holder::Known(o) => (o.cluster.to_string(), o.id.to_string(), o.subject.to_string()),
                Holder::Unknown => Default::default(),
            }),
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
            ..Default::default()
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
                ..Default::default()
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

    pub(super) fn send(&self, cluster: &Arc<str>, body: Body) {
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
}

impl Repository {
    /// An operation as it is known, with its subject: messages after the first do not repeat it.
    pub fn known(&self, operation: &Operation) -> Operation {
        let same = |other: &&Operation| other.cluster == operation.cluster && other.id == operation.id;
        let held = match self.grantor.phase() {
            Phase::Held { grant, .. } | Phase::Granting { grant, .. } => Some(&grant.operation),
            Phase::Delay { holder, .. } => holder.operation(),
            Phase::Draining { first, .. } => Some(&first.operation),
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

/// A lock as its grantor knows it. One whose holder is not known is kept with empty names.
fn recorded(lock: &StoredLock) -> Record {
    let holder = lock.holder.as_ref().map(|(cluster, id, subject)| {
        if id.is_empty() {
            return Holder::Unknown;
        }
        Holder::Known(Operation {
            cluster: cluster.as_str().into(),
            id: id.as_str().into(),
            subject: subject.as_str().into(),
        })
    });
    Record {
        token: lock.token,
        holder,
        delayed: lock.delayed,
        revoked: false,
    }
}

pub(super) fn operation(cluster: &Arc<str>, id: &str, subject: &str) -> Operation {
    Operation {
        cluster: cluster.clone(),
        id: id.into(),
        subject: subject.into(),
    }
}
