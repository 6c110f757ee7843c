//! What the parts of a hub share: the inventory, the news of its revisions, and the store behind it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use proto::v1::ObjectState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::creation::{Creations, Ticket};
use crate::inventory::{Held, Inventory, Limits, Unsaved};
use crate::lock::Locks;
use crate::metrics::Metrics;
use crate::store::{Batch, HubStore, StoreError, StoredCluster, StoredObject};
use crate::{Millis, now};

/// Time moves on this often: what went silent turns stale, what came due turns late.
const TICK: Duration = Duration::from_millis(500);
/// Inventory is a cache of what spokes hold: written behind, in batches.
const WRITE_BEHIND: Duration = Duration::from_secs(1);
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
    sessions: AtomicU64,
    creations: Mutex<Creations>,
    /// Who may create a repository now; each session looks for its own tickets.
    creating: watch::Sender<Option<Ticket>>,
    /// The maintenance locks.
    pub locks: Locks,
    pub heartbeat: Duration,
    pub watch_heartbeat: Duration,
}

impl Hub {
    /// A hub with what its store has kept.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(config: &Config, store: Arc<dyn HubStore>, locks: Locks) -> anyhow::Result<Arc<Hub>> {
        let epoch = store.begin_epoch().await?;
        let limits = Limits {
            stale_after: config.stale_after.millis(),
            grace: config.disconnect_grace.millis(),
            objects: config.max_objects,
        };
        // Revisions of one start never meet those of another, so that a page token of before is known for what it is.
        let mut inventory = Inventory::new(limits, epoch << 32, now());
        let (clusters, objects) = store.load().await?;
        info!(
            epoch,
            clusters = clusters.len(),
            objects = objects.len(),
            "starting"
        );
        let mut by_cluster: std::collections::HashMap<String, Vec<StoredObject>> =
            std::collections::HashMap::new();
        for object in objects {
            by_cluster.entry(object.cluster.clone()).or_default().push(object);
        }
        for cluster in clusters {
            let name: Arc<str> = cluster.name.as_str().into();
            let kept = by_cluster.remove(&cluster.name).unwrap_or_default();
            let held = kept.into_iter().filter_map(|object| {
                // Written by another version: its spoke tells it again.
                let state = ObjectState::decode(object.state.as_slice()).ok()?;
                Some(Held::restored(&name, state, object.baseline))
            });
            let held = held.collect();
            inventory.restore(&name, cluster.facts, cluster.last_heard, held);
        }
        let (revision, _) = watch::channel(inventory.revision());
        Ok(Arc::new(Hub {
            inventory: Mutex::new(inventory),
            revision,
            store,
            metrics: Metrics::new()?,
            epoch,
            sessions: AtomicU64::new(epoch << 32),
            creations: Mutex::default(),
            creating: watch::channel(None).0,
            locks,
            heartbeat: config.heartbeat_interval.0,
            watch_heartbeat: config.watch_heartbeat.0,
        }))
    }

    /// A session number that was never given out before.
    pub fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Reads the inventory.
    pub fn read<R>(&self, f: impl FnOnce(&Inventory) -> R) -> R {
        f(&self.lock())
    }

    /// Changes the inventory, and tells of a new revision.
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

    /// News of revisions.
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Changes who may create a repository, and tells of it.
    pub fn creations(&self, f: impl FnOnce(&mut Creations)) {
        let connected = |cluster: &str| {
            self.read(|inventory| inventory.member(cluster).is_some_and(|m| m.live.is_some()))
        };
        let mut creations = self.creations.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut creations);
        let holder = creations.advance(now(), connected);
        drop(creations);
        self.creating
            .send_if_modified(|known| std::mem::replace(known, holder.clone()) != holder);
    }

    /// News of who may create a repository.
    pub fn creating(&self) -> watch::Receiver<Option<Ticket>> {
        self.creating.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inventory> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves time on, and writes behind, until `stop`; then writes what is left.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let (mut tick, mut write) = (interval(TICK), interval(WRITE_BEHIND));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        write.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writes = 0u32;
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.change(|inventory| inventory.advance(now()));
                    self.creations(|_| {});
                }
                _ = write.tick() => {
                    writes = writes.wrapping_add(1);
                    if writes.is_multiple_of(KEEP_TIMES) {
                        self.change(Inventory::mark_members_unsaved);
                    }
                    self.flush().await;
                }
                () = stop.cancelled() => break,
            }
        }
        self.change(Inventory::mark_members_unsaved);
        self.flush().await;
    }

    async fn flush(&self) {
        let (unsaved, batch) = self.change(|inventory| {
            let unsaved = inventory.take_unsaved();
            let batch = batch_of(inventory, &unsaved);
            (unsaved, batch)
        });
        if batch.is_empty() {
            return;
        }
        let timer = self.metrics.commit_seconds.start_timer();
        if let Err(error) = self.save(batch).await {
            warn!(%error, "what spokes told could not be written; it is tried again");
            self.change(|inventory| inventory.give_back(unsaved));
        }
        timer.observe_duration();
    }

    async fn save(&self, batch: Batch) -> Result<(), StoreError> {
        self.store.save(batch).await
    }
}

fn batch_of(inventory: &Inventory, unsaved: &Unsaved) -> Batch {
    let members = unsaved.members.iter().filter_map(|name| inventory.member(name));
    let clusters = members.map(|member| StoredCluster {
        name: member.name.to_string(),
        facts: member.facts.clone(),
        last_heard: member.last_heard,
    });
    let mut batch = Batch {
        clusters: clusters.collect(),
        ..Batch::default()
    };
    for ((cluster, uid), held) in &unsaved.objects {
        match held {
            Some(held) => batch.objects.push(StoredObject {
                cluster: cluster.to_string(),
                uid: uid.to_string(),
                baseline: held.baseline,
                state: held.object.encode_to_vec(),
            }),
            None => batch.gone.push((cluster.to_string(), uid.to_string())),
        }
    }
    batch
}

/// Milliseconds of a duration.
#[must_use]
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
