//! What every actor is given: the world to read, the one way to write, and the edges (clock, leader, metrics).

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::apply::{Applier, ApplyError, Object};
use crate::leader::LeaderGate;
use crate::metrics::Metrics;
use crate::pod::images::AllowedImages;
use crate::world::{Key, Store, Stored, World};

/// Turns that run at the same time. The start of a cluster with 10,000 resources must not be 10,000 parallel requests.
pub const TURNS: usize = 32;

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Shared by all actors of a spoke.
pub struct Context {
    pub world: World,
    pub applier: Applier,
    pub events: crate::events::Events,
    pub leader: LeaderGate,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub turns: Semaphore,
    /// What changed since the hub was last told.
    pub outbox: Arc<crate::link::Outbox>,
    /// Permission to create repositories.
    pub creations: crate::link::Creations,
    /// The way to the maintenance lock.
    pub leases: crate::maintenance::Leases,
    /// Maintenance operations under way, and what their owners still have to record.
    pub operations: crate::operation::Board,
    /// Name of this cluster in the fleet.
    pub cluster: String,
    /// What specs are checked against.
    pub site: Site,
    /// Which repositories are shared through a hub.
    pub shared: crate::maintenance::Shared,
    /// The name of this cluster in its certificate.
    pub certificate: crate::link::CertificateName,
}

/// What this installation is called, and what it allows.
#[derive(Clone, Debug)]
pub struct Site {
    /// Name of this cluster in the fleet.
    pub cluster: String,
    /// uid of namespace kube-system: the same for the life of a cluster, and never that of another one.
    pub cluster_uid: String,
    pub images: AllowedImages,
}

#[cfg(test)]
impl Site {
    /// Cluster a, with the default images.
    pub fn of_tests() -> Site {
        Site {
            cluster: "a".to_owned(),
            cluster_uid: "uid-of-a".to_owned(),
            images: AllowedImages::default(),
        }
    }
}

impl Context {
    /// Writes a status if it differs from the stored one, and takes the answer into the store, so that the next turn
    /// plans on it and the echo of the watch wakes nobody.
    pub async fn write_status<K: Object + Stored, S: Serialize + PartialEq>(
        &self,
        store: &Store<K>,
        key: &Key,
        uid: &str,
        old: &S,
        new: &S,
    ) -> Result<(), ApplyError> {
        if old == new {
            return Ok(());
        }
        let mut written: K = self.applier.status(key, uid, new).await?;
        written.meta_mut().managed_fields = None;
        store.put(key.clone(), Arc::new(written));
        Ok(())
    }
}

/// A context that leads, with empty stores and no API server.
#[cfg(test)]
pub fn test_context() -> Arc<Context> {
    let nowhere = "http://127.0.0.1:1".parse().unwrap();
    test_context_on(kube::Client::try_from(kube::Config::new(nowhere)).unwrap())
}

/// A context that leads, with empty stores.
#[cfg(test)]
pub fn test_context_on(client: kube::Client) -> Arc<Context> {
    let (metrics, leader) = (Arc::new(Metrics::new().unwrap()), LeaderGate::always());
    Arc::new(Context {
        world: World::default(),
        applier: Applier::new(client, leader.clone(), metrics.clone()),
        events: crate::events::Events::new(metrics.clone()).0,
        leader,
        metrics,
        clock: Arc::new(SystemClock),
        turns: Semaphore::new(TURNS),
        outbox: Arc::default(),
        creations: crate::link::Creations::new(false),
        leases: crate::maintenance::Leases::new(true).0,
        operations: crate::operation::Board::default(),
        shared: crate::maintenance::Shared::new(None, true, "system"),
        certificate: crate::link::CertificateName::new("a", true),
        site: Site::of_tests(),
        cluster: "a".to_owned(),
    })
}
