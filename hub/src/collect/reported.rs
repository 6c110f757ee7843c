//! Repositories as clusters report them, for the choice of their collectors. Pure.

use std::sync::Arc;

use super::decide::Candidate;
use crate::Millis;
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

/// A repository with the clusters that report it; `None` where nobody does, or its id is not known.
pub fn reported(
    inventory: &Inventory,
    id: &Arc<str>,
    collects: impl Fn(&Arc<str>) -> bool,
) -> Option<Reported> {
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
        let healthy = collects(cluster) && !inventory.fresh(cluster).stale && held.is_ready();
        match of.candidates.iter_mut().find(|c| c.cluster == *cluster) {
            Some(known) => known.healthy |= healthy,
            None => of.candidates.push(Candidate {
                cluster: cluster.clone(),
                healthy,
            }),
        }
    }
    (!of.candidates.is_empty() || !of.others.is_empty()).then_some(of)
}

/// Rows of the repositories that a cluster reports.
pub fn of_cluster<'a>(inventory: &'a Inventory, cluster: &str) -> impl Iterator<Item = &'a Arc<str>> {
    let objects = inventory.member(cluster).map(|member| member.objects.values());
    let repositories = objects
        .into_iter()
        .flatten()
        .filter(|held| held.repository().is_some());
    repositories.map(|held| &held.row)
}
