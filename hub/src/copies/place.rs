//! In which store the repository of each cluster lies: what is known, and what a probe adds to it. Pure.
//!
//! One location is taken for one store until something speaks against it; another location is not known to be the same store
//! before a lock of restic that is held through the one is listed through the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::probe::Finding;
use super::{MARK, Place, Places, number};
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
    let own: HashMap<&str, &Place> = known.iter().map(|p| (&*p.cluster, *p)).collect();
    let mut alike: HashMap<&str, BTreeSet<&Arc<str>>> = HashMap::new();
    for place in &known {
        alike.entry(&place.urls).or_default().insert(&place.store);
    }
    for member in members {
        let own = own.get(&*member.cluster).filter(|p| p.urls == member.urls);
        let alike = alike.get(&*member.urls).and_then(|of| of.first());
        let store = match own {
            Some(own) => Some(own.store.clone()),
            // Where there are several stores, one text may lead to another of them from another cluster.
            None if stores.len() == 1 && alike.is_some() => alike.map(|store| Arc::clone(store)),
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
    let mut conclusion = Conclusion {
        members,
        finding,
        known: standing(restic_id, members, places).placed,
        numbers: Numbers::new(restic_id, members, places),
        placed: BTreeMap::new(),
    };
    let Some(store) = conclusion.place_group(excluded) else {
        return BTreeMap::new();
    };
    conclusion.place_absent(&store, excluded);
    let unknown = conclusion.keep(suspected);
    conclusion.found(&unknown)
}

/// A conclusion that is being drawn.
struct Conclusion<'a> {
    members: &'a [Member],
    finding: &'a Finding,
    /// Store of each cluster of which it was known.
    known: BTreeMap<Arc<str>, Arc<str>>,
    numbers: Numbers<'a>,
    /// Store of each cluster of which it is known now.
    placed: BTreeMap<Arc<str>, Arc<str>>,
}

impl Conclusion<'_> {
    /// The witness and those that list its lock are in one store. `None` where that may be one of the known ones.
    fn place_group(&mut self, excluded: &mut Excluded) -> Option<Arc<str>> {
        let witness = &self.finding.witness;
        let mut group = self.finding.present.clone();
        group.insert(witness.clone());
        let own = self.known.get(witness);
        let own = own.or_else(|| group.iter().find_map(|cluster| self.known.get(cluster)));
        let store = match own.cloned() {
            Some(store) => self.evict(store),
            None => self.new_store(&group, excluded)?,
        };
        self.placed
            .extend(group.into_iter().map(|cluster| (cluster, store.clone())));
        Some(store)
    }

    /// Those that were taken to use the group's store and do not list its lock are in another one. The store stays with the
    /// cluster that was bound to it first. Returns the group's.
    fn evict(&mut self, store: Arc<str>) -> Arc<str> {
        let uses = |m: &&Member| self.known.get(&m.cluster) == Some(&store);
        let lacks = |m: &&Member| uses(m) && self.finding.absent.contains(&m.cluster);
        let evicted: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(lacks)
            .map(|m| m.cluster.clone())
            .collect();
        if evicted.is_empty() {
            return store;
        }
        let eldest = eldest(self.members.iter().filter(uses));
        let stays = eldest.is_some_and(|eldest| evicted.contains(&eldest.cluster));
        let other = self.numbers.next();
        let (theirs, own) = if stays { (store, other) } else { (other, store) };
        self.placed
            .extend(evicted.into_iter().map(|cluster| (cluster, theirs.clone())));
        own
    }

    /// A store for a group of which none is known, once it is none of the known ones.
    fn new_store(&mut self, group: &BTreeSet<Arc<str>>, excluded: &mut Excluded) -> Option<Arc<str>> {
        let absent = self.finding.absent.iter();
        let not: BTreeSet<Arc<str>> = absent.filter_map(|c| self.known.get(c)).cloned().collect();
        for cluster in group {
            excluded
                .entry(cluster.clone())
                .or_default()
                .extend(not.iter().cloned());
        }
        let not = excluded.get(&self.finding.witness)?;
        let new = self.known.values().all(|store| not.contains(store));
        new.then(|| self.numbers.next())
    }

    /// Those that do not list the lock are not in the group's store: once they are in none, they get one for each location.
    fn place_absent(&mut self, store: &Arc<str>, excluded: &mut Excluded) {
        let mut by_urls: BTreeMap<&str, Arc<str>> = BTreeMap::new();
        let absent = self
            .members
            .iter()
            .filter(|m| self.finding.absent.contains(&m.cluster));
        for member in absent.filter(|m| !self.known.contains_key(&m.cluster)) {
            let not = excluded.entry(member.cluster.clone()).or_default();
            not.insert(store.clone());
            if self.known.values().all(|store| not.contains(store)) {
                let own = by_urls.entry(&member.urls).or_insert_with(|| self.numbers.next());
                self.placed.insert(member.cluster.clone(), own.clone());
            }
        }
    }

    /// What was taken for granted is kept with it, unless the finding speaks against it: then it is known of those alone that
    /// were asked, and the places of the others in such a store, which are returned, hold no more.
    fn keep(&mut self, suspected: bool) -> BTreeSet<Arc<str>> {
        let moved = |(cluster, store): &(&Arc<str>, &Arc<str>)| {
            self.placed.get(*cluster).is_some_and(|now| now != *store)
        };
        let doubted: BTreeSet<Arc<str>> = self
            .known
            .iter()
            .filter(moved)
            .map(|(_, store)| store.clone())
            .collect();
        let mut unknown = BTreeSet::new();
        for (cluster, store) in &self.known {
            let asked = self.finding.present.contains(cluster) || self.finding.absent.contains(cluster);
            if asked || !(suspected || doubted.contains(store)) {
                self.placed
                    .entry(cluster.clone())
                    .or_insert_with(|| store.clone());
            } else if doubted.contains(store) && !self.placed.contains_key(cluster) {
                unknown.insert(cluster.clone());
            }
        }
        unknown
    }

    fn found(&self, unknown: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, Found> {
        let of = |m: &Member| {
            let (store, urls) = match self.placed.get(&m.cluster) {
                Some(store) => (store, &*m.urls),
                None if unknown.contains(&m.cluster) => (&m.store, UNKNOWN),
                None => return None,
            };
            let found = Found {
                store: store.clone(),
                urls: urls.to_owned(),
            };
            Some((m.cluster.clone(), found))
        };
        self.members.iter().filter_map(of).collect()
    }
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
