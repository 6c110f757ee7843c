//! Repositories as clusters report them, for the choice of their collectors. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decide::Candidate;
use crate::Millis;
use crate::health::is_ready;
use crate::inventory::Inventory;

/// A repository as clusters report it.
#[derive(Debug, Default)]
pub struct Reported {
    pub candidates: Vec<Candidate>,
    /// Clusters that report it and are not bound.
    pub others: Vec<Arc<str>>,
    /// Time between two readings as the resources set it.
    pub interval: Option<Millis>,
    /// When figures were last read.
    pub latest: Option<Millis>,
}

/// All repositories whose id is known, with the clusters that report them.
pub fn reported(inventory: &Inventory, collects: impl Fn(&Arc<str>) -> bool) -> BTreeMap<Arc<str>, Reported> {
    let mut all = BTreeMap::new();
    for id in inventory.index().repositories() {
        let latest = inventory.collected(id).and_then(|c| c.latest.as_ref());
        let mut of = Reported {
            latest: latest.map(|latest| latest.at),
            ..Reported::default()
        };
        for held in inventory.index().bindings(id) {
            let Some(repository) = held.repository().filter(|r| !r.restic_id.is_empty()) else {
                continue;
            };
            let cluster = &held.cluster;
            if !inventory.bindings().is_bound(cluster, id) {
                of.others.push(cluster.clone());
                continue;
            }
            let set = Millis::try_from(repository.refresh_ms).ok().filter(|ms| *ms > 0);
            of.interval = of.interval.into_iter().chain(set).min();
            let healthy = collects(cluster) && !inventory.fresh(cluster).stale && is_ready(&held.object);
            match of.candidates.iter_mut().find(|c| c.cluster == *cluster) {
                Some(known) => known.healthy |= healthy,
                None => of.candidates.push(Candidate {
                    cluster: cluster.clone(),
                    healthy,
                }),
            }
        }
        if !of.candidates.is_empty() || !of.others.is_empty() {
            all.insert(id.clone(), of);
        }
    }
    all
}
