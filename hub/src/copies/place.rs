//! In which store the repository of each cluster lies: what is known, and what a probe adds to it. Pure.
//!
//! One location is taken for one store until something speaks against it; another location is not known to be the same store
//! before a lock of restic that is held through the one is listed through the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::probe::Finding;
use super::{MARK, Places, number};
use crate::Millis;
use crate::inventory::Inventory;

/// A cluster that is bound to a repository and uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub cluster: Arc<str>,
    /// Key of the store that it is taken to use.
    pub store: Arc<str>,
    /// Locations of its resources, sorted, with a space between them.
    pub urls: String,
    /// Since when it is bound.
    pub since: Millis,
}

/// Clusters that are bound to any store of a restic id and have a resource for it, by name.
#[must_use]
pub fn members(inventory: &Inventory, restic_id: &str) -> Vec<Member> {
    let stores = inventory.places().of(restic_id).map(|place| place.store.clone());
    let stores: BTreeSet<Arc<str>> = stores.chain([Arc::from(restic_id)]).collect();
    let mut members = Vec::new();
    for store in stores {
        let mut urls: BTreeMap<&Arc<str>, BTreeSet<&str>> = BTreeMap::new();
        for held in inventory.index().bindings(&store) {
            if let Some(repository) = held.repository() {
                urls.entry(&held.cluster).or_default().insert(&repository.url);
            }
        }
        for (cluster, urls) in urls {
            let bindings = inventory.bindings();
            if !bindings.is_bound(cluster, &store) {
                continue;
            }
            members.push(Member {
                cluster: cluster.clone(),
                store: store.clone(),
                urls: urls.into_iter().collect::<Vec<_>>().join(" "),
                since: bindings.get(cluster, &store).map_or(0, |binding| binding.since),
            });
        }
    }
    members.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    members
}

/// What is known of the members of a restic id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Store of each cluster of which it is known.
    pub placed: BTreeMap<Arc<str>, Arc<str>>,
    /// Clusters of which it is not.
    pub unplaced: BTreeSet<Arc<str>>,
}

/// What is known of the members. Without any place, the locations of the cluster that was bound first stand for the first
/// store.
#[must_use]
pub fn standing(restic_id: &str, members: &[Member], places: &Places) -> Standing {
    let mut standing = Standing::default();
    let stores: BTreeSet<&Arc<str>> = places.of(restic_id).map(|p| &p.store).collect();
    let known: Vec<_> = places.of(restic_id).filter(|p| p.urls != UNKNOWN).collect();
    let first = eldest(members.iter());
    for member in members {
        let own = known
            .iter()
            .find(|p| p.cluster == member.cluster && p.urls == member.urls);
        let alike: BTreeSet<&Arc<str>> = known
            .iter()
            .filter(|p| p.urls == member.urls)
            .map(|p| &p.store)
            .collect();
        let store = match own {
            Some(own) => Some(own.store.clone()),
            // Where there are several stores, one text may lead to another of them from another cluster.
            None if stores.len() == 1 && alike.len() == 1 => alike.into_iter().next().cloned(),
            None if stores.is_empty() && first.is_some_and(|first| first.urls == member.urls) => {
                Some(restic_id.into())
            }
            None => None,
        };
        match store {
            Some(store) => {
                standing.placed.insert(member.cluster.clone(), store);
            }
            None => {
                standing.unplaced.insert(member.cluster.clone());
            }
        }
    }
    standing
}

fn eldest<'a>(members: impl Iterator<Item = &'a Member>) -> Option<&'a Member> {
    members.min_by(|a, b| a.since.cmp(&b.since).then_with(|| a.cluster.cmp(&b.cluster)))
}

/// Locations of a place that matches none: its cluster keeps the key that it has, and is not known to use that store.
pub const UNKNOWN: &str = "";

/// Where a cluster's repository was found to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Key of the store.
    pub store: Arc<str>,
    /// Locations for which it was found; [`UNKNOWN`] if it is not known any more.
    pub urls: String,
}

/// Takes from a finding what does not hold for the locations of now: those of a cluster may have changed while the probe was
/// under way. `None` if nothing is left.
#[must_use]
pub fn as_asked(
    mut finding: Finding,
    asked: &BTreeMap<Arc<str>, String>,
    members: &[Member],
) -> Option<Finding> {
    let same = |cluster: &Arc<str>| {
        let now = members.iter().find(|m| m.cluster == *cluster);
        now.is_some_and(|now| asked.get(cluster) == Some(&now.urls))
    };
    finding.present.retain(same);
    finding.absent.retain(same);
    let is_empty = finding.present.is_empty() && finding.absent.is_empty();
    (same(&finding.witness) && !is_empty).then_some(finding)
}

/// Stores that each cluster is known not to use.
pub type Excluded = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// The places that follow from a finding; none where it shows nothing. `suspected`: something else speaks against what is
/// taken for granted, and the finding does not settle it.
#[must_use]
pub fn conclude(
    restic_id: &str,
    (members, places): (&[Member], &Places),
    (finding, suspected): (&Finding, bool),
    excluded: &mut Excluded,
) -> BTreeMap<Arc<str>, Found> {
    let known = standing(restic_id, members, places).placed;
    let witness = &finding.witness;
    let mut group = finding.present.clone();
    group.insert(witness.clone());
    let mut numbers = Numbers::new(restic_id, members, places);
    let mut placed: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    let own = known
        .get(witness)
        .or_else(|| group.iter().find_map(|c| known.get(c)));
    let store = match own.cloned() {
        Some(store) => {
            let lacking =
                |m: &&Member| finding.absent.contains(&m.cluster) && known.get(&m.cluster) == Some(&store);
            let evicted: Vec<&Member> = members.iter().filter(lacking).collect();
            let of_store = members.iter().filter(|m| known.get(&m.cluster) == Some(&store));
            let eldest = eldest(of_store);
            let stays = |m: &&Member| eldest.is_some_and(|eldest| eldest.cluster == m.cluster);
            if evicted.iter().any(stays) {
                placed.extend(evicted.iter().map(|m| (m.cluster.clone(), store.clone())));
                numbers.next()
            } else {
                let other = (!evicted.is_empty()).then(|| numbers.next());
                let gone = evicted.iter().map(|m| m.cluster.clone());
                placed.extend(gone.zip(std::iter::repeat(other.unwrap_or_default())));
                store
            }
        }
        None => {
            let not = finding.absent.iter().filter_map(|c| known.get(c)).cloned();
            let not: BTreeSet<Arc<str>> = not.collect();
            for cluster in &group {
                excluded
                    .entry(cluster.clone())
                    .or_default()
                    .extend(not.iter().cloned());
            }
            let excluded = excluded.get(witness);
            if !known
                .values()
                .all(|store| excluded.is_some_and(|not| not.contains(store)))
            {
                return BTreeMap::new();
            }
            numbers.next()
        }
    };
    placed.extend(group.into_iter().map(|cluster| (cluster, store.clone())));
    let mut by_urls: BTreeMap<&str, Arc<str>> = BTreeMap::new();
    let absent = members.iter().filter(|m| finding.absent.contains(&m.cluster));
    for member in absent.filter(|m| !known.contains_key(&m.cluster)) {
        let not = excluded.entry(member.cluster.clone()).or_default();
        not.insert(store.clone());
        if known.values().all(|store| not.contains(store)) {
            let own = by_urls.entry(&member.urls).or_insert_with(|| numbers.next());
            placed.insert(member.cluster.clone(), own.clone());
        }
    }
    // What was taken for granted is kept with it, unless the finding speaks against it: then it is known of those alone that were
    // asked, and the places of the others in such a store hold no more.
    let doubted: BTreeSet<Arc<str>> = known
        .iter()
        .filter(|(cluster, store)| placed.get(*cluster).is_some_and(|now| now != *store))
        .map(|(_, store)| store.clone())
        .collect();
    let mut unknown: BTreeSet<Arc<str>> = BTreeSet::new();
    for (cluster, store) in known {
        let asked = finding.present.contains(&cluster) || finding.absent.contains(&cluster);
        if asked || !(suspected || doubted.contains(&store)) {
            placed.entry(cluster).or_insert(store);
        } else if doubted.contains(&store) && !placed.contains_key(&cluster) {
            unknown.insert(cluster);
        }
    }
    let found = members.iter().filter_map(|m| {
        let found = match placed.get(&m.cluster) {
            Some(store) => Found {
                store: store.clone(),
                urls: m.urls.clone(),
            },
            None if unknown.contains(&m.cluster) => Found {
                store: m.store.clone(),
                urls: UNKNOWN.to_owned(),
            },
            None => return None,
        };
        Some((m.cluster.clone(), found))
    });
    found.collect()
}

/// Keys that no store has yet.
struct Numbers<'a> {
    restic_id: &'a str,
    highest: u32,
}

impl<'a> Numbers<'a> {
    fn new(restic_id: &'a str, members: &[Member], places: &Places) -> Numbers<'a> {
        let stores = members.iter().map(|m| &m.store);
        let stores = stores.chain(places.of(restic_id).map(|p| &p.store));
        Numbers {
            restic_id,
            highest: stores.map(|store| number(store)).max().unwrap_or(1),
        }
    }

    fn next(&mut self) -> Arc<str> {
        self.highest += 1;
        format!("{}{MARK}{}", self.restic_id, self.highest).into()
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
