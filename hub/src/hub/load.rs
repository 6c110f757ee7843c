//! What a start of the hub takes back from its store, while it serves already.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::info;

use super::Hub;
use crate::Moment;
use crate::inventory::{Held, Inventory, Limits};
use crate::store::{Kept, StoredCluster, StoredObject};

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
        let kept = self.store.load().await?;
        info!(
            epoch = self.epoch,
            clusters = kept.0.len(),
            objects = kept.1.len(),
            "starting"
        );
        for (cluster, held) in tokio::task::spawn_blocking(|| decoded(kept)).await? {
            self.change(|inventory| inventory.restore(&cluster, held));
            // Who asks for the verdict is answered.
            tokio::task::yield_now().await;
        }
        let vanished = self.store.vanished().await?;
        self.change(|inventory| {
            inventory.restore_vanished(vanished);
            for ban in self.membership.banned() {
                inventory.ban(&ban.cluster, Some(ban.text()));
            }
        });
        Ok(())
    }
}

/// The inventory of a new start, as a store has kept it.
#[must_use]
pub fn restored(limits: Limits, epoch: u64, kept: Kept, now: Moment) -> Inventory {
    // Revisions of one start never meet those of another, so that a page token of before is known for what it is.
    let mut inventory = Inventory::new(limits, epoch << 32, now);
    for (cluster, held) in decoded(kept) {
        inventory.restore(&cluster, held);
    }
    inventory
}

/// What a store has kept, by cluster. Every resource is decoded, and its schedule read, on all cores.
fn decoded((clusters, objects): Kept) -> Vec<(StoredCluster, Vec<Held>)> {
    let mut by_cluster: HashMap<String, Vec<StoredObject>> = HashMap::new();
    for object in objects {
        by_cluster.entry(object.cluster.clone()).or_default().push(object);
    }
    let kept: Vec<(StoredCluster, Vec<StoredObject>)> = clusters
        .into_iter()
        .map(|cluster| {
            let objects = by_cluster.remove(&cluster.name).unwrap_or_default();
            (cluster, objects)
        })
        .collect();
    let one = |(cluster, objects): &(StoredCluster, Vec<StoredObject>)| {
        let name: Arc<str> = cluster.name.as_str().into();
        let held = objects
            .iter()
            .map(|object| Held::restored(&name, &object.uid, &object.state, object.baseline));
        (cluster.clone(), held.collect())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let part = kept.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = kept
            .chunks(part)
            .map(|part| scope.spawn(move || part.iter().map(one).collect::<Vec<_>>()))
            .collect();
        let parts = parts.into_iter().flat_map(|part| match part.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        parts.collect()
    })
}
