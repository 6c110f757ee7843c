//! The one task that owns all locks: takes commands, asks the grantors what to do, makes it durable, and answers spokes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proto::v1::hub_message::Body;
use proto::v1::{HubMessage, OperationKind, OperationOutcome, RetentionRun};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::asks::Asks;
use super::bind::Questions;
use super::copies::Copies;
use super::grantor::{Grantor, Holder, Instant, Operation, Phase, Record};
use super::messages::Refusals;
use super::parts::Parts;
use super::repository::Repository;
use super::{Command, Outgoing, SeenHub, Settings};
use crate::hub::Hub;
use crate::now as wall_clock;
use crate::store::{HubStore, StoreError, StoredDecision, StoredLock, replaced};

/// Time moves on this often while some lock is in use.
const TICK: Duration = Duration::from_millis(100);
/// What is not urgent is looked at this often.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// Old entries are removed once in so many rounds of housekeeping.
const PRUNE: u32 = 120;

/// The last run that came to an end.
pub(super) struct Recent {
    /// By the hub's clock; below 0 for one before its start.
    pub started: i64,
    pub token: u64,
    pub by: String,
    /// uid of the policy whose Job it was: when that asks again, it means it.
    pub policy: String,
    pub policies: Vec<String>,
    /// See [`super::run::shows`].
    pub shows: Option<BTreeSet<String>>,
    pub outcome: OperationOutcome,
}

/// A spoke's present session.
pub(super) struct Session {
    pub number: u64,
    pub outgoing: Outgoing,
    pub questions: Questions,
}

/// What goes with an answer to a renewal.
#[derive(Default)]
pub(super) struct Reply {
    pub seq: u64,
    pub run: Option<RetentionRun>,
}

/// All locks.
pub struct Keeper {
    pub(super) hub: Arc<Hub>,
    pub(super) store: Arc<dyn HubStore>,
    pub(super) settings: Settings,
    start: tokio::time::Instant,
    /// No new grant on a repository that is met for the first time before this time.
    not_before: Instant,
    /// When it became known that the store was restored from a backup, or is not the one that clusters have seen.
    pub(super) restored: Option<Instant>,
    pub(super) repositories: BTreeMap<Arc<str>, Repository>,
    pub(super) asks: Asks,
    pub(super) sessions: HashMap<Arc<str>, Session>,
    /// Plans that are arriving, one per cluster.
    pub(super) parts: HashMap<Arc<str>, Parts>,
    pub(super) refusals: Refusals,
    /// Stores of copied repositories.
    pub(super) copies: Copies,
    /// A person's decision that is written with the next record.
    pub(super) deciding: Option<StoredDecision>,
    /// Why the process has to end.
    pub(super) fenced: Option<StoreError>,
    /// When it was last noted in the store that this hub works on it.
    pub(super) signed: Instant,
    /// The store could not be read: renewals are not answered.
    pub(super) blind: bool,
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
                grantor: Grantor::restored(record, 0, &settings.terms).above(hub.token_floor),
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
            restored: None,
            repositories,
            asks: Asks::default(),
            sessions: HashMap::new(),
            parts: HashMap::new(),
            refusals: Refusals::default(),
            copies: Copies::default(),
            deciding: None,
            fenced: None,
            signed: 0,
            blind: false,
        })
    }

    /// Works until `stop`.
    ///
    /// # Errors
    /// When another process has taken the store over: nothing may be answered any more.
    pub async fn keep(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        // A memory that is not the only one any more must renew nothing: looked at ten times in the life of a lease.
        let look = Duration::from_millis((self.settings.terms.ttl / 10).clamp(10, 5_000));
        let mut looks = tokio::time::interval(look);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rounds = 0u32;
        self.judge_age().await;
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
                    None => return Ok(()),
                },
                () = tick => {}
                _ = looks.tick() => {
                    self.look().await;
                    self.look_at_copies().await;
                }
                _ = housekeeping.tick() => {
                    self.tidy(rounds.is_multiple_of(PRUNE)).await;
                    rounds = rounds.wrapping_add(1);
                }
                () = stop.cancelled() => return Ok(()),
            }
            // A burst of commands is taken before time moves on.
            while self.fenced.is_none()
                && let Ok(command) = commands.try_recv()
            {
                self.take(command).await;
            }
            if let Some(fenced) = self.fenced.take() {
                return Err(fenced);
            }
            self.advance_all().await;
        }
    }

    /// A write that did not succeed.
    pub(super) fn failed(&mut self, error: StoreError, what: &str) {
        error!(%error, "{what}");
        self.hub.metrics.store_failures.inc();
        if error.is_fenced() {
            self.fenced = Some(error);
        }
    }

    /// The lock of a repository, which may be met for the first time.
    pub(super) fn repository(&mut self, id: &Arc<str>) -> &mut Repository {
        let (not_before, restored, terms) = (self.not_before, self.restored, self.settings.terms);
        let floor = self.hub.token_floor;
        self.repositories.entry(id.clone()).or_insert_with(|| {
            let mut grantor = Grantor::fresh(not_before).above(floor);
            if let Some(at) = restored {
                // Nothing is known of it that would have to be written.
                let _ = grantor.store_restored(at, &terms);
            }
            Repository {
                grantor,
                ..Repository::default()
            }
        })
    }

    pub(super) fn now(&self) -> Instant {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Attach {
                cluster,
                session,
                outgoing,
                seen,
            } => self.attach(cluster, session, outgoing, seen).await,
            Command::Detach { cluster, session } => {
                let present = self.sessions.get(&cluster);
                if present.is_some_and(|present| present.number == session) {
                    self.sessions.remove(&cluster);
                    self.parts.remove(&cluster);
                }
            }
            Command::Message {
                cluster,
                session,
                message,
            } => self.receive(cluster, session, *message).await,
            Command::Locks(request, sight, reply) => {
                let _ = reply.send(self.locks(&request, &sight));
            }
            Command::Revoke(request, who, reply) => {
                let _ = reply.send(self.revoke(&request, &who).await);
            }
            Command::Plans(request, sight, reply) => {
                let _ = reply.send(self.plans(&request, &sight).await);
            }
            Command::Decide(request, who, reply) => {
                let _ = reply.send(self.decide(&request, &who).await);
            }
            Command::Bind(request, who, reply) => {
                let _ = reply.send(self.decide_binding(&request, &who).await);
            }
            Command::Suspect(key, suspect) => self.suspect(&key, suspect),
            Command::Pause(reason, who, reply) => {
                let _ = reply.send(self.pause(reason, &who).await);
            }
            Command::Forget(cluster, who, reply) => {
                let _ = reply.send(self.forget(&cluster, &who).await);
            }
        }
    }

    /// A new session. Of two that come at the same time the later one counts, in whatever order they are taken.
    async fn attach(&mut self, cluster: Arc<str>, session: u64, outgoing: Outgoing, seen: SeenHub) {
        if self
            .sessions
            .get(&cluster)
            .is_some_and(|present| present.number > session)
        {
            return;
        }
        let present = Session {
            number: session,
            outgoing,
            questions: Questions::default(),
        };
        self.sessions.insert(cluster.clone(), present);
        self.parts.remove(&cluster);
        self.copies.attached(&cluster);
        self.compare(&cluster, seen).await;
        self.tell_drains(&cluster);
        self.tell_approvals(&cluster).await;
        let unreported = self.hub.read(|inventory| inventory.unreported(&cluster));
        self.uses(&cluster, unreported).await;
        self.question(&cluster);
    }

    async fn advance_all(&mut self) {
        let (now, terms) = (self.now(), self.settings.terms);
        // A drain that was withdrawn leaves an idle lock, and clusters that still hold their backups.
        let due = |r: &Repository| r.draining || !r.grantor.is_idle();
        let active = self.repositories.iter().filter(|(_, r)| due(r));
        let ids: Vec<Arc<str>> = active.map(|(id, _)| id.clone()).collect();
        self.find_places(&ids, now);
        for id in ids {
            let busy = self.hub.read(|inventory| inventory.is_backing_up(&id));
            let (sessions, asks) = (&self.sessions, &self.asks);
            let Some(repository) = self.repositories.get_mut(&id) else {
                continue;
            };
            // A check takes none of restic's locks, and a key is added beside backups: they need not be held for it.
            let checks = |operation: &Operation| {
                let asked = asks.get(&(operation.cluster.clone(), operation.id.clone()));
                asked.is_some_and(|asked| match asked.ask.kind() {
                    OperationKind::Check => true,
                    OperationKind::Key => asked.ask.removes_key.is_empty(),
                    _ => false,
                })
            };
            let room = repository.crowded.is_none();
            let may = |operation: &Operation| room || asks.unlocks(operation);
            let connected = |cluster: &str| sessions.contains_key(cluster);
            let grantor = &mut repository.grantor;
            let upcoming = grantor.upcoming(|operation| connected(&operation.cluster) && may(operation));
            let busy = busy && !upcoming.is_some_and(checks);
            let effects = grantor.advance_where(now, &terms, busy, may, connected);
            let drains = matches!(repository.grantor.phase(), Phase::Draining { .. });
            let changed = std::mem::replace(&mut repository.draining, drains) != drains;
            if changed {
                self.drain(&id, drains);
            }
            self.carry_out(&id, effects, Reply::default()).await;
            self.tell_waiting(&id);
            if self.fenced.is_some() {
                return;
            }
        }
    }

    /// Forgets what is not needed: entries that were never granted, questions that nobody waits for, old documents.
    async fn tidy(&mut self, prune: bool) {
        self.retry_blocked().await;
        self.ask_again();
        let repositories = &self.repositories;
        self.asks.retain(|key, id| {
            let asked = operation(&key.0, &key.1, "");
            repositories.get(id).is_some_and(|r| r.knows(&asked))
        });
        // The wait after a start is kept by the keeper itself.
        self.repositories
            .retain(|_, r| r.draining || !r.grantor.is_idle() || r.grantor.token() > 0);
        if prune {
            let before = wall_clock().saturating_sub(self.settings.audit);
            if let Err(error) = self.store.prune(before, self.settings.documents).await {
                self.failed(error, "old entries of the audit could not be removed");
            }
            let before = wall_clock().saturating_sub(replaced::KEPT);
            if let Err(error) = self.store.forget_replaced(before).await {
                self.failed(error, "what clusters had that were replaced could not be removed");
            }
        }
    }

    pub(super) fn send(&self, cluster: &Arc<str>, body: Body) {
        if let Some(session) = self.sessions.get(cluster) {
            self.hub
                .metrics
                .messages
                .with_label_values(&["out", "lease"])
                .inc();
            // One that is lost is asked for again.
            let _ = session.outgoing.try_send(Ok(HubMessage { body: Some(body) }));
        }
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
        revoked: lock.revoked,
    }
}

pub(super) fn operation(cluster: &Arc<str>, id: &str, subject: &str) -> Operation {
    Operation {
        cluster: cluster.clone(),
        id: id.into(),
        subject: subject.into(),
    }
}
