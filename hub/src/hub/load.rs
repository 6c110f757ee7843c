//! What a start of the hub takes back from its store, while it serves already.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;
use tracing::info;

use super::Hub;
use crate::Moment;
use crate::inventory::{Held, Inventory, Limits};
use crate::store::{Kept, StoredCluster, StoredObject};

/// Clusters that are read and wait to be decoded.
const AHEAD: usize = 16;

impl Hub {
    /// Takes back what the store has kept. The hub serves meanwhile: requests wait, and the verdict is not known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(&self) -> anyhow::Result<()> {
        let (bindings, keys) = self.store.bindings().await?;
        let places = self.store.places().await?;
        self.change(|inventory| {
            // Before what they are needed for.
            inventory.place(places);
            inventory.bind(bindings, keys);
        });
        let clusters = self.store.clusters().await?;
        info!(epoch = self.epoch, clusters = clusters.len(), "starting");
        let (into, objects) = mpsc::channel(AHEAD);
        let (read, restored) = tokio::join!(self.store.objects(into), self.restore(clusters, objects));
        read?;
        let objects = restored?;
        info!(objects, "what the store has kept is there");
        let vanished = self.store.vanished().await?;
        self.change(|inventory| {
            inventory.restore_vanished(vanished);
            for ban in self.membership.banned() {
                inventory.ban(&ban.cluster, Some(ban.text()));
            }
        });
        Ok(())
    }

    /// Decodes on all cores what is read, cluster by cluster, and takes it back. How many resources there were.
    async fn restore(
        &self,
        clusters: Vec<StoredCluster>,
        objects: mpsc::Receiver<Vec<StoredObject>>,
    ) -> Result<usize, JoinError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut clusters: HashMap<String, StoredCluster> = clusters
            .into_iter()
            .map(|cluster| (cluster.name.clone(), cluster))
            .collect();
        let mut decoded = ReceiverStream::new(objects)
            .map(|objects| spawn_blocking(move || of_one(&objects)))
            .buffer_unordered(cores);
        let mut count = 0;
        while let Some(decoded) = decoded.next().await {
            let (name, held) = decoded?;
            count += held.len();
            if let Some(cluster) = clusters.remove(&*name) {
                self.change(|inventory| inventory.restore(&cluster, held));
            }
            // Who asks for the verdict is answered.
            tokio::task::yield_now().await;
        }
        self.change(|inventory| {
            for cluster in clusters.values() {
                inventory.restore(cluster, Vec::new());
            }
        });
        Ok(count)
    }
}

/// The inventory of a new start, as a store has kept it.
#[must_use]
pub fn restored(limits: Limits, epoch: u64, (clusters, objects): Kept, now: Moment) -> Inventory {
    // Revisions of one start never meet those of another, so that a page token of before is known for what it is.
    let mut inventory = Inventory::new(limits, epoch << 32, now);
    let mut by_cluster: HashMap<String, Vec<StoredObject>> = HashMap::new();
    for object in objects {
        by_cluster.entry(object.cluster.clone()).or_default().push(object);
    }
    for cluster in clusters {
        let objects = by_cluster.remove(&cluster.name).unwrap_or_default();
        inventory.restore(&cluster, of_one(&objects).1);
    }
    inventory
}

/// Resources of one cluster, with its name. Every schedule is read.
fn of_one(objects: &[StoredObject]) -> (Arc<str>, Vec<Held>) {
    let name: Arc<str> = objects.first().map_or("", |object| &object.cluster).into();
    let held = objects
        .iter()
        .map(|object| Held::restored(&name, &object.uid, &object.state, object.baseline));
    let held = held.collect();
    (name, held)
}
