//! Which backups may run at the same time, and who is next. Where there is a limit, the Jobs of backups are born suspended
//! with a mark, as those of maintenance are born suspended, and the actor of their backup opens them. What a Job's turn is
//! follows from the Jobs alone: first come, first served, also after a restart. Restores are not in the queue. Pure, but for
//! [`Queue::of`], which reads the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::ResticRepository;
use jiff::Timestamp;

use crate::runs::Words;
use crate::site::Limits;
use crate::world::{Index, JobView, Key, World};

/// Places after this one are not told apart: a long queue would rewrite each status of it with each run that ends.
const PLACES_MAX: usize = 20;

/// A run of a backup that has not ended.
#[derive(Clone, Debug)]
struct Entry {
    uid: Box<str>,
    job: Key,
    created: Timestamp,
    repository: Key,
    /// Nodes that it has to run on; empty where any will do.
    nodes: Vec<Box<str>>,
    parked: bool,
}

/// What there are only so many places of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pool {
    Repository(Key),
    Node(Box<str>),
    Cluster,
}

/// Whether a parked run may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Begins,
    Waits(Words),
}

/// Runs that have not ended, and limits.
#[derive(Default)]
pub struct Queue {
    entries: Vec<Entry>,
    limits: BTreeMap<Pool, usize>,
    node: Option<usize>,
}

/// Whether the runs of a repository have to wait for their turn.
#[must_use]
pub fn is_limited(limits: Limits, repository: &ResticRepository) -> bool {
    limits.cluster.is_some() || limits.node.is_some() || of_repository(repository).is_some()
}

fn of_repository(repository: &ResticRepository) -> Option<usize> {
    let limit = repository.spec.max_concurrent_backups?;
    usize::try_from(limit).ok().filter(|limit| *limit > 0)
}

/// A run of a backup that was not opened yet.
#[must_use]
pub fn is_parked(job: &JobView) -> bool {
    job.parked && job.suspended && job.end.is_none() && !job.meta.deleting
}

/// What is said of a run whose turn it is, and which was not opened yet.
#[must_use]
pub fn begins(job: &str) -> Words {
    Words {
        reason: "Parked".to_owned(),
        text: format!("{job}: it is opened as soon as a run may begin"),
    }
}

/// Backups with parked runs.
#[must_use]
pub fn waiting(world: &World) -> Vec<Key> {
    let parked = world.jobs.filter(|_, job| is_parked(job)).into_iter();
    parked
        .filter_map(|(_, job)| job.of.clone())
        .flat_map(|label| world.backups.find(Index::Label, &label))
        .collect()
}

impl Queue {
    /// The queue of this cluster as it is now.
    #[must_use]
    pub fn of(world: &World, limits: Limits) -> Queue {
        let open = |job: &JobView| job.type_.is_none() && job.end.is_none() && (job.parked || !job.suspended);
        let jobs = world.jobs.filter(|_, job| open(job));
        let entries = jobs
            .into_iter()
            .filter_map(|(key, job)| entry(world, key, &job))
            .collect();
        let repositories = world.repositories.filter(|_, r| of_repository(r).is_some());
        let of_repositories = repositories
            .into_iter()
            .filter_map(|(key, repository)| Some((Pool::Repository(key), of_repository(&repository)?)));
        let of_cluster = limits.cluster.map(|limit| (Pool::Cluster, limit));
        Queue {
            entries,
            limits: of_repositories.chain(of_cluster).collect(),
            node: limits.node,
        }
    }

    /// The turns of all parked runs, by the uids of their Jobs.
    #[must_use]
    pub fn turns(mut self) -> BTreeMap<String, Turn> {
        let age = |entry: &Entry| (entry.created, entry.job.clone());
        self.entries.sort_by_key(age);
        let mut taken: BTreeMap<Pool, usize> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| !entry.parked) {
            take(&mut taken, pools(entry));
        }
        // Of those who wait for a pool, the first keeps its place in the other pools that it needs: runs that come later
        // and need only one of them would pass it for ever. Places of the cluster are not kept: a repository with many
        // waiters would stop all others.
        let mut first: BTreeSet<Pool> = BTreeSet::new();
        let mut waiting: Vec<(&Entry, Pool)> = Vec::new();
        let mut turns = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.parked) {
            let pools = pools(entry);
            match pools.iter().find(|pool| self.is_full(&taken, pool)) {
                None => {
                    take(&mut taken, pools);
                    turns.insert(entry.uid.to_string(), Turn::Begins);
                }
                Some(full) => {
                    let full = full.clone();
                    if full != Pool::Cluster && first.insert(full.clone()) {
                        take(
                            &mut taken,
                            pools.into_iter().filter(|pool| *pool != Pool::Cluster),
                        );
                    }
                    waiting.push((entry, full));
                }
            }
        }
        for (n, (entry, pool)) in waiting.iter().enumerate() {
            let same = |list: &[(&Entry, Pool)]| list.iter().filter(|(_, other)| other == pool).count();
            let before = waiting.get(..n).map_or(0, same);
            let words = self.words(entry, pool, before + 1, same(&waiting));
            turns.insert(entry.uid.to_string(), Turn::Waits(words));
        }
        turns
    }

    fn is_full(&self, taken: &BTreeMap<Pool, usize>, pool: &Pool) -> bool {
        let limit = self.limit(pool);
        limit.is_some_and(|limit| taken.get(pool).copied().unwrap_or_default() >= limit)
    }

    fn limit(&self, pool: &Pool) -> Option<usize> {
        match pool {
            Pool::Node(_) => self.node,
            pool => self.limits.get(pool).copied(),
        }
    }

    fn words(&self, entry: &Entry, pool: &Pool, place: usize, of: usize) -> Words {
        let whose = match pool {
            Pool::Repository(key) => format!("repository {} (spec.maxConcurrentBackups", key.name),
            Pool::Node(name) => format!("node {name} (--max-backups-per-node"),
            Pool::Cluster => "the cluster (--max-backups".to_owned(),
        };
        let limit = self.limit(pool).unwrap_or_default();
        let place = if place > PLACES_MAX {
            format!("behind {PLACES_MAX} or more")
        } else if of > PLACES_MAX {
            format!("{} of more than {PLACES_MAX}", ordinal(place))
        } else {
            format!("{} of {of}", ordinal(place))
        };
        Words {
            reason: "Parked".to_owned(),
            text: format!("{}: {place} waiting for {whose}: {limit})", entry.job.name),
        }
    }
}

/// `None` for what is no run of a backup that is there.
fn entry(world: &World, job: Key, view: &Arc<JobView>) -> Option<Entry> {
    let owner = view.meta.owner_name.as_ref();
    owner.filter(|(kind, _)| **kind == *"CronJob")?;
    let backup = world.backups.find(Index::Label, view.of.as_ref()?).pop()?;
    let spec = &world.backups.get(&backup)?.spec;
    let at = spec.repository_ref.namespace_or(&backup.namespace);
    Some(Entry {
        uid: view.meta.uid.clone(),
        job,
        created: view.created.unwrap_or(Timestamp::MAX),
        repository: Key::new(at, &spec.repository_ref.name),
        nodes: view.nodes.clone(),
        parked: is_parked(view),
    })
}

/// Where a run needs a place. A run that may be on one of several nodes is not counted for any.
fn pools(entry: &Entry) -> Vec<Pool> {
    let node = match entry.nodes.as_slice() {
        [node] => Some(Pool::Node(node.clone())),
        _ => None,
    };
    let others = [Pool::Repository(entry.repository.clone()), Pool::Cluster];
    node.into_iter().chain(others).collect()
}

fn take(taken: &mut BTreeMap<Pool, usize>, pools: impl IntoIterator<Item = Pool>) {
    for pool in pools {
        *taken.entry(pool).or_default() += 1;
    }
}

fn ordinal(n: usize) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

#[cfg(test)]
mod tests;
