//! What every actor is given: the world to read, the one way to write, and the edges (clock, leader, metrics).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::apply::{Applier, ApplyError, Object};
use crate::clock::{Clock, Random};
use crate::events::Events;
use crate::exchange::{
    Board, Browsing, CertificateName, Collectors, Commands, Copies, Coverage, Creations, Leases, Outbox,
};
use crate::leader::LeaderGate;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::queue::Places;
use crate::sharing::Shared;
use crate::site::Site;
#[cfg(test)]
use crate::world::Delivery;
use crate::world::{Key, Store, Stored, World, slim};

/// Turns that run at the same time. The start of a cluster with 10,000 resources must not be 10,000 parallel requests.
pub const TURNS: usize = 32;

/// Shared by all actors of a spoke.
pub struct Context {
    pub world: World,
    pub applier: Applier,
    pub events: Events,
    pub notifier: Notifier,
    pub leader: LeaderGate,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub turns: Semaphore,
    /// What changed since it was last sent to the hub.
    pub outbox: Arc<Outbox>,
    /// Which claims backups cover.
    pub coverage: Arc<Coverage>,
    /// What the hub asks this cluster to do.
    pub commands: Commands,
    /// What people ask about snapshots.
    pub browsing: Browsing,
    /// Permission to create repositories.
    pub creations: Creations,
    /// Who collects the figures of which repository.
    pub collectors: Collectors,
    /// Other stores with the id of a repository.
    pub copies: Copies,
    /// The way to the maintenance lock.
    pub leases: Leases,
    /// Maintenance operations under way, and what their owners still have to record.
    pub operations: Board,
    /// Name of this cluster in the fleet.
    pub cluster: String,
    /// The queue of backups.
    pub places: Arc<Places>,
    /// What specs are checked against.
    pub site: Site,
    /// Which repositories are shared through a hub.
    pub shared: Shared,
    /// The name of this cluster in its certificate.
    pub certificate: CertificateName,
}

impl Context {
    /// Writes a status if it differs from the stored one, and takes the answer into the store, so that the next turn
    /// plans on it and the echo of the watch wakes nobody. Whether the answer holds more than that: somebody has edited
    /// the resource since it had the metadata `planned`, and the watch may drop that change as older than the answer.
    ///
    /// # Errors
    /// When the status could not be written.
    pub async fn write_status<K: Object + Stored, S: Serialize + PartialEq>(
        &self,
        store: &Store<K>,
        (key, planned): (&Key, &ObjectMeta),
        old: &S,
        new: &S,
    ) -> Result<bool, ApplyError> {
        if old == new {
            return Ok(false);
        }
        let uid = planned.uid.as_deref().unwrap_or_default();
        let mut written: K = self.applier.status(key, uid, new).await?;
        slim(written.meta_mut());
        let meta = written.meta();
        let edited = meta.generation != planned.generation
            || meta.deletion_timestamp != planned.deletion_timestamp
            || meta.annotations != planned.annotations
            || meta.labels != planned.labels;
        store.put(key.clone(), Arc::new(written));
        Ok(edited)
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
    let world = World::default();
    // No watch fills them: what a test puts in is all there is.
    world
        .pods
        .note(|pods| *pods = Delivery::complete(jiff::Timestamp::MIN));
    Arc::new(Context {
        world,
        applier: Applier::new(client, leader.clone(), metrics.clone()),
        events: Events::new(metrics.clone()).0,
        notifier: Notifier::new(metrics.clone()).0,
        leader,
        metrics,
        clock: Arc::new(crate::clock::SystemClock),
        random: Arc::new(crate::clock::SystemRandom),
        turns: Semaphore::new(TURNS),
        outbox: Arc::default(),
        coverage: Arc::default(),
        commands: Commands::default(),
        browsing: Browsing::default(),
        creations: Creations::new(false),
        collectors: Collectors::new(false, 0),
        copies: Copies::default(),
        leases: Leases::new(true).0,
        operations: Board::default(),
        shared: Shared::new(None, true, "system"),
        certificate: CertificateName::new("a", true),
        places: Arc::default(),
        site: Site::of_tests(),
        cluster: "a".to_owned(),
    })
}
