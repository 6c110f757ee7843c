//! What the parts of a hub share: the inventory, the news of its revisions, and the store behind it.

mod load;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1::Lock;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::warn;

pub use self::load::restored;
use crate::access::Authority;
use crate::access::people::People;
use crate::arrivals::Arrivals;
use crate::browse::Browsing;
use crate::collect::Collectors;
use crate::commands::Commands;
use crate::config::Config;
use crate::creation::{Creations, Ticket};
use crate::files::Files;
use crate::inventory::{Inventory, Limits};
use crate::lock::Locks;
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::seal::Seal;
use crate::store::copy::{Copied, CopyError};
use crate::store::pause::Pause;
use crate::store::{HubStore, Kept, Start, StoreError};
use crate::{Millis, Moment};

/// Time moves on this often: what went silent turns stale, what came due turns late.
const TICK: Duration = Duration::from_millis(500);
/// Inventory is a cache of what spokes hold: written behind, in batches.
const WRITE_BEHIND: Duration = Duration::from_secs(1);
/// Resources that are written at once, about: while they are written they are held twice.
const BATCH: usize = 2_000;
/// Looks through the whole inventory at the same time.
const LOOKS: usize = 2;
/// Times of last hearing are kept this often.
const KEEP_TIMES: u32 = 60;

/// A running hub.
pub struct Hub {
    inventory: Mutex<Inventory>,
    revision: watch::Sender<u64>,
    store: Arc<dyn HubStore>,
    pub metrics: Metrics,
    /// Rises with each start.
    pub epoch: u64,
    /// Random, made with the store.
    pub incarnation: String,
    /// Grants have tokens above this one.
    pub token_floor: u64,
    sessions: AtomicU64,
    /// The present session of each cluster, and what ends it.
    open: Mutex<HashMap<Arc<str>, (u64, CancellationToken)>>,
    /// Held while a batch is written, so that a cluster that is removed is not written again.
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Most bytes of one cluster.
    pub max_bytes: usize,
    creations: Mutex<Creations>,
    /// Who may create a repository now; each session looks for its own tickets.
    creating: watch::Sender<Option<Ticket>>,
    /// Maintenance of the whole fleet is paused.
    paused: Mutex<Option<Pause>>,
    /// Which clusters are in the fleet.
    pub membership: Membership,
    /// Who may do what.
    pub authority: Arc<Authority>,
    /// Seals cursors.
    pub seal: Seal,
    /// The maintenance locks.
    pub locks: Locks,
    /// What people make clusters do.
    pub commands: Commands,
    /// What people read through clusters.
    pub browsing: Browsing,
    /// Who collects the figures of repositories.
    pub collectors: Collectors,
    pub heartbeat: Duration,
    /// Who may send all that a cluster has.
    pub arrivals: Arrivals,
    pub watch_heartbeat: Duration,
    /// Its own files.
    pub files: Files,
    /// All that the store has kept is there.
    loaded: watch::Sender<bool>,
    /// Looks through the whole inventory at the same time.
    looks: Semaphore,
    /// Maintenance locks whose holder fell silent.
    delayed: Mutex<Arc<[Lock]>>,
}

impl Hub {
    /// A hub with what its store has kept.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(
        config: &Config,
        store: Arc<dyn HubStore>,
        (locks, collectors): (Locks, Collectors),
        metrics: Metrics,
    ) -> anyhow::Result<Arc<Hub>> {
        let Start {
            epoch,
            incarnation,
            token_floor,
        } = store.begin().await?;
        let limits = Limits {
            stale_after: config.stale_after.millis(),
            grace: config.disconnect_grace.millis(),
            objects: config.max_objects,
            bytes: config.max_bytes,
        };
        let membership = Membership::start(config, &*store).await?;
        let inventory = restored(limits, epoch, Kept::default(), Moment::now());
        let (roles, sessions) = store.people(Moment::now().wall).await?;
        let people = People::new(roles, sessions, store.revoked().await?);
        let authority = Authority::new(membership.domain.clone(), people);
        let mut creations = Creations::new(config.creation_hold.millis());
        // A store that was never used before has granted no creation.
        if epoch > 1 {
            creations.pause(Moment::now().steady);
        }
        let (revision, _) = watch::channel(inventory.revision());
        let commands = Commands::load(store.clone()).await?;
        let paused = store.pause().await?;
        Ok(Arc::new(Hub {
            inventory: Mutex::new(inventory),
            revision,
            store,
            metrics,
            epoch,
            incarnation,
            token_floor,
            sessions: AtomicU64::new(epoch << 32),
            open: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
            max_bytes: config.max_bytes,
            creations: Mutex::new(creations),
            creating: watch::channel(None).0,
            paused: Mutex::new(paused),
            membership,
            authority: Arc::new(authority),
            seal: Seal::new()?,
            locks,
            commands,
            browsing: Browsing::new(epoch),
            collectors,
            heartbeat: config.heartbeat_interval.0,
            arrivals: Arrivals::default(),
            watch_heartbeat: config.watch_heartbeat.0,
            files: Files::of(config),
            loaded: watch::channel(false).0,
            looks: Semaphore::new(LOOKS),
            delayed: Mutex::new(Arc::from([])),
        }))
    }

    /// What the store has kept is in force: requests are answered from now on.
    pub fn set_loaded(&self) {
        self.loaded.send_replace(true);
    }

    /// Maintenance locks whose holder fell silent, as of the last look.
    pub fn delayed(&self) -> Arc<[Lock]> {
        self.delayed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_delayed(&self, locks: Vec<Lock>) {
        *self.delayed.lock().unwrap_or_else(PoisonError::into_inner) = locks.into();
    }

    /// Whether all that the store has kept is there.
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits until it is.
    pub async fn loaded(&self) {
        // The sender lives as long as the hub.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// A session number that was never given out before.
    pub fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes a session the present one of its cluster and ends the one before. A session that is not the newest is ended
    /// itself.
    pub fn open(&self, cluster: &Arc<str>, session: u64, end: &CancellationToken) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get(cluster) {
            Some((present, _)) if *present > session => end.cancel(),
            _ => {
                let before = open.insert(cluster.clone(), (session, end.clone()));
                before.inspect(|(_, end)| end.cancel());
            }
        }
    }

    /// Ends the present session of a cluster, if there is one.
    pub fn end(&self, cluster: &str) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(cluster).inspect(|(_, end)| end.cancel());
    }

    /// A session has ended.
    pub fn close(&self, cluster: &Arc<str>, session: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(cluster).is_some_and(|(present, _)| *present == session) {
            open.remove(cluster);
        }
    }

    /// Looks through a copy of the inventory on a thread of its own, few at the same time: what takes milliseconds must not
    /// hold up the tasks of spokes.
    ///
    /// # Errors
    /// Internal when it panics.
    pub async fn look<R: Send + 'static>(
        &self,
        f: impl FnOnce(&Inventory) -> R + Send + 'static,
    ) -> Result<R, Status> {
        // The semaphore is never closed.
        let _room = self
            .looks
            .acquire()
            .await
            .map_err(|_| Status::unavailable("the hub ends"))?;
        let inventory = self.snapshot();
        let looked = tokio::task::spawn_blocking(move || f(&inventory)).await;
        looked.map_err(|error| Status::internal(error.to_string()))
    }

    /// A copy of the inventory as of now, for what looks through more than a few of its rows: nobody waits for its reader.
    pub fn snapshot(&self) -> Inventory {
        self.lock().frozen()
    }

    /// Reads the inventory. Writers wait meanwhile, so it is for single rows.
    pub fn read<R>(&self, f: impl FnOnce(&Inventory) -> R) -> R {
        f(&self.lock())
    }

    /// Changes the inventory, and publishes a new revision.
    pub fn change<R>(&self, f: impl FnOnce(&mut Inventory) -> R) -> R {
        let mut inventory = self.lock();
        let result = f(&mut inventory);
        let revision = inventory.revision();
        drop(inventory);
        self.revision
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
        self.metrics
            .revision
            .set(i64::try_from(revision & u64::from(u32::MAX)).unwrap_or_default());
        result
    }

    /// Whether maintenance of the whole fleet is paused.
    pub fn paused(&self) -> Option<Pause> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_paused(&self, pause: Option<Pause>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }

    /// News of revisions.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Changes who may create a repository, and publishes it.
    pub fn creations(&self, f: impl FnOnce(&mut Creations, Millis)) {
        let now = Moment::now().steady;
        let connected = |cluster: &str| {
            self.read(|inventory| inventory.member(cluster).is_some_and(|m| m.live.is_some()))
        };
        let mut creations = self.creations.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut creations, now);
        let holder = creations.advance(now, connected);
        drop(creations);
        self.creating
            .send_if_modified(|known| std::mem::replace(known, holder.clone()) != holder);
    }

    /// How long the one who may create keeps the permission from now on.
    pub fn creation_left(&self) -> Millis {
        let creations = self.creations.lock().unwrap_or_else(PoisonError::into_inner);
        creations.left(Moment::now().steady)
    }

    /// News of who may create a repository.
    pub fn creating(&self) -> watch::Receiver<Option<Ticket>> {
        self.creating.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inventory> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves time on, and writes behind, until `stop`; then writes what is left.
    ///
    /// # Errors
    /// When another process has taken the store over.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) -> Result<(), StoreError> {
        let (mut tick, mut write) = (interval(TICK), interval(WRITE_BEHIND));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        write.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes = 0u32;
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    while self.change(|inventory| inventory.step(Moment::now())) {
                        tokio::task::yield_now().await;
                    }
                    self.creations(|_, _| {});
                }
                _ = write.tick() => {
                    writes = writes.wrapping_add(1);
                    if writes.is_multiple_of(KEEP_TIMES) {
                        self.change(Inventory::mark_members_unsaved);
                    }
                    match self.write_some().await {
                        Ok(true) => write.reset_immediately(),
                        Ok(false) => {}
                        Err(fenced @ StoreError::Fenced(_)) => return Err(fenced),
                        // It was logged, and the batch was given back.
                        Err(_) => {}
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        self.change(Inventory::mark_members_unsaved);
        let _ = self.flush().await;
        Ok(())
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// When it could not be written; it is tried again with the next batch.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        while self.write_some().await? {}
        Ok(())
    }

    /// Writes of what has changed so much as is written soon; whether more is left.
    async fn write_some(&self) -> Result<bool, StoreError> {
        let _writing = self.writing.lock().await;
        let (unsaved, more, batch) = self.change(|inventory| {
            let (unsaved, more) = inventory.take_unsaved(BATCH);
            let batch = unsaved.batch(inventory);
            (unsaved, more, batch)
        });
        if batch.is_empty() {
            return Ok(false);
        }
        let timer = self.metrics.commit_seconds.start_timer();
        let result = self.store.save(batch).await;
        if let Err(error) = &result {
            self.metrics.store_failures.inc();
            warn!(%error, "what spokes reported could not be written; it is tried again");
            self.change(|inventory| inventory.give_back(unsaved));
        }
        timer.observe_duration();
        result.map(|()| more)
    }

    /// Writes a backup of the store to a file that must not exist yet. It counts once somebody has it: `note_copy`.
    ///
    /// # Errors
    /// When the store cannot be read, or the file cannot be written.
    pub async fn backup_to(&self, file: PathBuf) -> Result<Copied, CopyError> {
        // What spokes reported is written behind: a backup holds what was known when it was asked for. If that cannot be
        // written, the backup has what is.
        let _ = self.flush().await;
        let authority = self
            .membership
            .authority
            .as_ref()
            .map(|authority| authority.folder());
        self.store.copy(file, authority, crate::now()).await
    }

    /// The store.
    pub fn store(&self) -> &dyn HubStore {
        &*self.store
    }
}

/// Milliseconds of a duration.
#[must_use]
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
