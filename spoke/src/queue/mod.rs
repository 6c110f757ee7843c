//! Which backups may run at the same time, and who is next. Where there is a limit, the Jobs of backups are born suspended
//! with a mark, as those of maintenance are born suspended, and the actor of their backup opens them. What a Job's turn is
//! follows from the Jobs: first come, first served, also after a restart. A run that may not be opened now takes no place.
//! Restores are not in the queue. Pure, but for what reads the cache.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::ResticRepository;
use crds::conditions::{self, types};
use jiff::Timestamp;

use crate::runs::Words;
use crate::site::Limits;
use crate::world::{Index, JobView, Key, World};

pub use places::Places;

/// Reason of condition Waiting.
const PARKED: &str = "Parked";
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
    standing: Standing,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Runs,
    Parked,
    /// Parked, and its backup may not run now.
    Closed,
    /// Parked, made by the schedule, and the backup is suspended.
    Suspended,
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
    parked(job, "it is opened as soon as a run may begin")
}

/// What is said of a run whose backup may not run now.
#[must_use]
pub fn not_ready(job: &str) -> Words {
    parked(job, "it is opened when the backup is ready")
}

fn parked(job: &str, text: &str) -> Words {
    Words {
        reason: PARKED.to_owned(),
        text: format!("{job}: {text}"),
    }
}

/// Backups whose turn has come for a parked run, or whose status shows another place than that of now.
#[must_use]
pub fn moved(world: &World, places: &Places, limits: Limits) -> Vec<Key> {
    let turns = Queue::of(world, places, limits).turns();
    let mut of_backups: BTreeMap<Key, Vec<&Turn>> = BTreeMap::new();
    for (_, job) in world.jobs.filter(|_, job| is_parked(job)) {
        let backup = job
            .of
            .as_ref()
            .and_then(|label| world.backups.find(Index::Label, label).pop());
        if let (Some(backup), Some(turn)) = (backup, turns.get(&*job.meta.uid)) {
            of_backups.entry(backup).or_default().push(turn);
        }
    }
    let looks = |(key, turns): &(Key, Vec<&Turn>)| {
        let backup = world.backups.get(key);
        let status = backup.as_ref().and_then(|backup| backup.status.as_ref());
        let shown = status.and_then(|status| conditions::get(&status.conditions, types::WAITING));
        let shows = |turn: &&Turn| match turn {
            Turn::Begins => false,
            Turn::Waits(words) => shown.is_some_and(|shown| shown.message == words.text),
        };
        // Of several runs of one backup, the condition shows one.
        turns.contains(&&Turn::Begins) || !turns.iter().any(shows)
    };
    of_backups.into_iter().filter(looks).map(|(key, _)| key).collect()
}

impl Queue {
    /// The queue of this cluster as it is now.
    #[must_use]
    pub fn of(world: &World, places: &Places, limits: Limits) -> Queue {
        let closed = places.closed();
        let open = |job: &JobView| job.type_.is_none() && job.end.is_none() && (job.parked || !job.suspended);
        let jobs = world.jobs.filter(|_, job| open(job));
        let entries = jobs
            .into_iter()
            .filter_map(|(key, job)| entry(world, &closed, key, &job))
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
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.standing == Standing::Runs)
        {
            take(&mut taken, pools(entry));
        }
        // Of those who wait for a pool, the first keeps its place in the other pools that it needs: runs that come later
        // and need only one of them would pass it for ever. Places of the cluster are not kept: a repository with many
        // waiters would stop all others.
        let mut first: BTreeSet<Pool> = BTreeSet::new();
        let mut waiting: Vec<(&Entry, Pool)> = Vec::new();
        let mut turns = BTreeMap::new();
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.standing != Standing::Runs)
        {
            if let Some(words) = kept_parked(entry) {
                turns.insert(entry.uid.to_string(), Turn::Waits(words));
                continue;
            }
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
        let (mut all, mut before): (BTreeMap<&Pool, usize>, BTreeMap<&Pool, usize>) = Default::default();
        for (_, pool) in &waiting {
            *all.entry(pool).or_default() += 1;
        }
        for (entry, pool) in &waiting {
            let place = before.entry(pool).or_default();
            *place += 1;
            let words = self.words(entry, pool, *place, all.get(pool).copied().unwrap_or_default());
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
        parked(&entry.job.name, &format!("{place} waiting for {whose}: {limit})"))
    }
}

/// What is said of a run that takes no place.
fn kept_parked(entry: &Entry) -> Option<Words> {
    match entry.standing {
        Standing::Runs | Standing::Parked => None,
        Standing::Closed => Some(not_ready(&entry.job.name)),
        Standing::Suspended => {
            let text = "it is opened when the backup is not suspended any more (spec.suspend)";
            Some(parked(&entry.job.name, text))
        }
    }
}

/// `None` for what is no run of a backup that is there.
fn entry(world: &World, closed: &BTreeSet<Key>, job: Key, view: &Arc<JobView>) -> Option<Entry> {
    let owner = view.meta.owner_name.as_ref();
    owner.filter(|(kind, _)| **kind == *"CronJob")?;
    let backup = world.backups.find(Index::Label, view.of.as_ref()?).pop()?;
    let resource = world.backups.get(&backup)?;
    let spec = &resource.spec;
    let at = spec.repository_ref.namespace_or(&backup.namespace);
    let standing = match () {
        () if !is_parked(view) => Standing::Runs,
        () if closed.contains(&backup) => Standing::Closed,
        () if spec.suspend && !view.asked => Standing::Suspended,
        () => Standing::Parked,
    };
    Some(Entry {
        uid: view.meta.uid.clone(),
        job,
        created: view.created.unwrap_or(Timestamp::MAX),
        repository: Key::new(at, &spec.repository_ref.name),
        nodes: view.nodes.clone(),
        standing,
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
#[cfg(test)]
mod world_tests;
