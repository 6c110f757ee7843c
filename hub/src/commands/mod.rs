//! Commands of people to clusters: the log, and the way of each to its spoke and back. Each step is in the store before it
//! has an effect: before a person is answered, before a command is sent, and before a spoke may forget its end.

mod describe;
mod id;
mod machine;
mod wire;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proto::text::{LONGEST, clean};
use proto::v1::hub_message::Body;
use proto::v1::{CommandReport, CommandSettled};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

pub use describe::{About, Kind, about, find, names_snapshot};
pub use id::id;
pub use machine::{Event, LOST, Record, STATES, State, next};

use self::wire::{command, message, reported};
use crate::outbound::Outgoing;
use crate::store::{HubStore, StoreError, StoredDecision};
use crate::{Millis, now};

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(500);
/// Commands of one cluster that have not ended. More are refused.
const OPEN_MAX: usize = 256;
/// Commands on their way in one session that the spoke has not answered; the next one follows an answer.
const IN_FLIGHT: usize = 16;
/// A command without an answer is sent again in the same session after this.
const AGAIN: Duration = Duration::from_secs(30);

/// The log, and the sessions that commands go out on.
pub struct Commands {
    inner: Mutex<Inner>,
    store: Arc<dyn HubStore>,
    /// Rises with each change.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// Those that have not ended. Ids begin with the time, so that this is their order.
    open: BTreeMap<String, Record>,
    sessions: HashMap<Arc<str>, Session>,
}

struct Session {
    number: u64,
    outgoing: Outgoing,
    /// Sent and not answered.
    flying: HashMap<String, Instant>,
    answered: HashSet<String>,
}

impl Commands {
    /// The log as a store has kept it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn load(store: Arc<dyn HubStore>) -> Result<Commands, StoreError> {
        let open = store.open_commands().await?;
        let open = open
            .into_iter()
            .map(|record| (record.id.clone(), record))
            .collect();
        let inner = Inner {
            open,
            ..Inner::default()
        };
        Ok(Commands {
            inner: Mutex::new(inner),
            store,
            changed: watch::channel(0).0,
        })
    }

    /// News of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Clusters that can be reached now.
    pub async fn connected(&self) -> HashSet<Arc<str>> {
        self.inner.lock().await.sessions.keys().cloned().collect()
    }

    /// Takes a new command in. One with a request that is known already is the one that was taken in then.
    ///
    /// # Errors
    /// ResourceExhausted when too many of the cluster are open, Unavailable when it cannot be kept.
    pub async fn submit(&self, record: Record) -> Result<Record, Status> {
        let mut inner = self.inner.lock().await;
        if let Some(request) = &record.request
            && let Some(known) = self.store.command_of(request).await.map_err(unavailable)?
        {
            return Ok(known);
        }
        let open = inner.open.values().filter(|open| open.cluster == record.cluster);
        if open.count() >= OPEN_MAX {
            return Err(Status::resource_exhausted(format!(
                "cluster {} has {OPEN_MAX} operations that have not ended; `fleet operations list --cluster {0}` shows them",
                record.cluster
            )));
        }
        let decision = decision(&record, &record.who, "command");
        self.store
            .add_command(record.clone(), decision)
            .await
            .map_err(unavailable)?;
        info!(
            id = record.id,
            cluster = record.cluster,
            what = record.what,
            who = record.who,
            "a command"
        );
        inner.open.insert(record.id.clone(), record.clone());
        self.pump(&mut inner, &record.cluster).await;
        self.tell();
        Ok(inner.open.get(&record.id).cloned().unwrap_or(record))
    }

    /// A person takes a command back.
    ///
    /// # Errors
    /// NotFound, FailedPrecondition when it has ended, Unavailable when that cannot be kept.
    pub async fn cancel(&self, id: &str, who: &str) -> Result<Record, Status> {
        let mut inner = self.inner.lock().await;
        let Some(record) = inner.open.get(id).cloned() else {
            return Err(Status::failed_precondition(format!(
                "operation {id} has ended; `fleet operations show {id}` shows how"
            )));
        };
        let Some(after) = next(&record, Event::Cancel(who), now()) else {
            return Ok(record);
        };
        let decision = decision(&after, who, "cancel-command");
        self.save(&mut inner, &after, Some(decision))
            .await
            .map_err(unavailable)?;
        if let Some(session) = inner.sessions.get_mut(after.cluster.as_str()) {
            session.answered.remove(id);
            session.flying.remove(id);
        }
        self.pump(&mut inner, &after.cluster).await;
        self.tell();
        Ok(inner.open.get(id).cloned().unwrap_or(after))
    }

    /// A session has begun: what its cluster has not ended is sent to it.
    pub async fn attach(&self, cluster: &Arc<str>, number: u64, outgoing: Outgoing) {
        let mut inner = self.inner.lock().await;
        if inner
            .sessions
            .get(cluster)
            .is_some_and(|present| present.number > number)
        {
            return;
        }
        let session = Session {
            number,
            outgoing,
            flying: HashMap::new(),
            answered: HashSet::new(),
        };
        inner.sessions.insert(cluster.clone(), session);
        self.pump(&mut inner, cluster).await;
        self.tell();
    }

    /// A session has ended.
    pub async fn detach(&self, cluster: &Arc<str>, number: u64) {
        let mut inner = self.inner.lock().await;
        if inner
            .sessions
            .get(cluster)
            .is_some_and(|present| present.number == number)
        {
            inner.sessions.remove(cluster);
            self.tell();
        }
    }

    /// A cluster reports about one of its commands.
    pub async fn report(&self, cluster: &Arc<str>, number: u64, mut report: CommandReport) {
        let mut inner = self.inner.lock().await;
        if inner
            .sessions
            .get(cluster)
            .is_none_or(|session| session.number != number)
        {
            return;
        }
        clean(&mut report.text, 4 * LONGEST);
        clean(&mut report.object, LONGEST);
        let Some(state) = reported(report.state()) else {
            return;
        };
        let known = inner
            .open
            .get(&report.id)
            .filter(|known| *known.cluster == **cluster)
            .cloned();
        let kept = match known {
            // Of another cluster, or over: the spoke need not keep it.
            None => Ok(true),
            Some(known) => {
                let event = Event::Reported {
                    state,
                    text: &report.text,
                    object: &report.object,
                };
                match next(&known, event, now()) {
                    Some(after) => self
                        .save(&mut inner, &after, None)
                        .await
                        .map(|()| after.state.is_end()),
                    None => Ok(false),
                }
            }
        };
        let Some(session) = inner.sessions.get_mut(cluster) else {
            return;
        };
        match kept {
            Ok(ended) => {
                session.flying.remove(&report.id);
                session.answered.insert(report.id.clone());
                if ended {
                    let settled = CommandSettled { id: report.id };
                    // An error ends the session, and the next one settles it.
                    let _ = session.outgoing.send(message(Body::CommandSettled(settled)));
                }
            }
            // It is asked for again.
            Err(error) => {
                warn!(%error, id = report.id, "what a cluster reported about a command could not be kept")
            }
        }
        self.pump(&mut inner, cluster).await;
        self.tell();
    }

    /// A cluster was removed from the fleet.
    ///
    /// # Errors
    /// When the ends of its commands cannot be kept.
    pub async fn forget(&self, cluster: &str) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let its = inner.open.values().filter(|record| record.cluster == cluster);
        let ends: Vec<Record> = its
            .filter_map(|record| next(record, Event::Forgotten, now()))
            .collect();
        for after in ends {
            self.save(&mut inner, &after, None).await?;
        }
        self.tell();
        Ok(())
    }

    /// Moves time on until `stop`.
    ///
    /// # Errors
    /// When another process has taken the store over.
    pub async fn keep(&self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.advance(now()).await?,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn advance(&self, now: Millis) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let ends: Vec<Record> = inner
            .open
            .values()
            .filter_map(|record| next(record, Event::Time, now))
            .collect();
        let changed = !ends.is_empty();
        for after in ends {
            match self.save(&mut inner, &after, None).await {
                Err(fenced @ StoreError::Fenced(_)) => return Err(fenced),
                // Tried again at the next tick.
                Err(error) => warn!(%error, id = after.id, "the end of a command could not be kept"),
                Ok(()) => {}
            }
        }
        let mut silent = Vec::new();
        for (cluster, session) in &mut inner.sessions {
            let before = session.flying.len();
            session.flying.retain(|_, sent| sent.elapsed() < AGAIN);
            if session.flying.len() < before {
                silent.push(cluster.clone());
            }
        }
        for cluster in silent {
            self.pump(&mut inner, &cluster).await;
        }
        if changed {
            self.tell();
        }
        Ok(())
    }

    /// Sends what the cluster's session has room for, the oldest first.
    async fn pump(&self, inner: &mut MutexGuard<'_, Inner>, cluster: &str) {
        loop {
            let Some(session) = inner.sessions.get(cluster) else {
                return;
            };
            if session.flying.len() >= IN_FLIGHT {
                return;
            }
            let unsent = |record: &&Record| {
                record.cluster == cluster
                    && !session.flying.contains_key(&record.id)
                    && !session.answered.contains(&record.id)
            };
            let Some(record) = inner.open.values().find(unsent).cloned() else {
                return;
            };
            let record = match next(&record, Event::Sending, now()) {
                None => record,
                Some(after) => {
                    if let Err(error) = self.save(inner, &after, None).await {
                        warn!(%error, id = after.id, "a command is not sent, because that could not be kept");
                        return;
                    }
                    after
                }
            };
            if record.state.is_end() {
                continue;
            }
            let command = command(&record, now());
            let Some(session) = inner.sessions.get_mut(cluster) else {
                return;
            };
            session.flying.insert(record.id, Instant::now());
            if session.outgoing.send(message(Body::Command(command))).is_err() {
                // The session ends; the next one begins with all of them.
                return;
            }
        }
    }

    async fn save(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        after: &Record,
        decision: Option<StoredDecision>,
    ) -> Result<(), StoreError> {
        self.store.save_command(after.clone(), decision).await?;
        if after.state.is_end() {
            info!(
                id = after.id,
                cluster = after.cluster,
                state = after.state.as_str(),
                "a command has ended"
            );
            inner.open.remove(&after.id);
        } else {
            inner.open.insert(after.id.clone(), after.clone());
        }
        Ok(())
    }

    fn tell(&self) {
        self.changed
            .send_modify(|revision| *revision = revision.wrapping_add(1));
    }
}

fn decision(record: &Record, who: &str, what: &str) -> StoredDecision {
    StoredDecision {
        at: now(),
        who: who.to_owned(),
        what: what.to_owned(),
        subject: format!(
            "{} {}/{} ({})",
            record.what, record.cluster, record.subject, record.id
        ),
        restic_id: record.restic_id.clone(),
        cluster: record.cluster.clone(),
        namespace: record.namespace().to_owned(),
        ..StoredDecision::default()
    }
}

fn unavailable(error: StoreError) -> Status {
    Status::unavailable(error.to_string())
}
