//! Which backups may run at the same time, and who is next. Where there is a limit, the Jobs of backups are born suspended
//! with a mark, as those of maintenance are born suspended, and the actor of their backup opens them. What a Job's turn is
//! follows from the Jobs: first come, first served, also after a restart. A run that may not be opened now takes no place.
//! Restores are not in the queue. Turns are computed once for each change of the queue, not by each backup. Pure, but for
//! what reads the cache.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::conditions::{self, reasons, types};
use crds::{ResticBackupStatus, ResticRepository};
use jiff::Timestamp;

use crate::runs::Words;
use crate::site::{self, Limits};
use crate::world::{Index, JobView, Key, World};

pub use places::Places;

/// Later places are not shown: a long queue would rewrite each status of it with each run that ends.
const PLACES_MAX: i32 = 20;

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
    Waits(Waits),
}

/// What a parked run waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// They do not change while the place does.
    pub words: Words,
    /// Among those that wait for the same, from 1 to 20. `None` where it is farther, or the run is not in the queue.
    pub place: Option<i32>,
}

impl Waits {
    /// Without a place.
    #[must_use]
    pub fn of(words: Words) -> Waits {
        Waits { words, place: None }
    }
}

/// What a status shows of a parked run.
#[must_use]
pub fn shown(status: &ResticBackupStatus) -> Option<Waits> {
    let shown = conditions::get(&status.conditions, types::WAITING)?;
    (shown.reason == reasons::PARKED).then(|| Waits {
        words: Words {
            reason: shown.reason.clone(),
            text: shown.message.clone(),
        },
        place: status.queue_place,
    })
}

/// By the uids of the Jobs of all parked runs.
pub type Turns = BTreeMap<String, Turn>;

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
    site::limit(repository.spec.max_concurrent_backups?)
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
        reason: reasons::PARKED.to_owned(),
        text: format!("{job}: {text}"),
    }
}

/// Computes the turns of all parked runs anew, for the backups to read. Returns the backups that have to act on them: those
/// with a run whose turn has come, and those whose status shows something else.
#[must_use]
pub fn moved(world: &World, places: &Places, limits: Limits) -> Vec<Key> {
    let turns = Arc::new(Queue::of(world, places, limits).turns());
    places.publish(turns.clone());
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
    let acts = |(key, turns): &(Key, Vec<&Turn>)| {
        let backup = world.backups.get(key);
        let status = backup.as_ref().and_then(|backup| backup.status.as_ref());
        // Of several runs of one backup, the status shows one.
        turns.contains(&&Turn::Begins)
            || !status.is_some_and(|status| turns.iter().any(|turn| shows(status, turn)))
    };
    of_backups.into_iter().filter(acts).map(|(key, _)| key).collect()
}

fn shows(status: &ResticBackupStatus, turn: &Turn) -> bool {
    match turn {
        Turn::Begins => false,
        Turn::Waits(waits) => shown(status).is_some_and(|shown| shown == *waits),
    }
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

    /// The turns of all parked runs.
    #[must_use]
    pub fn turns(mut self) -> Turns {
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
                turns.insert(entry.uid.to_string(), Turn::Waits(Waits { words, place: None }));
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
        let mut before: BTreeMap<&Pool, i32> = BTreeMap::new();
        for (entry, pool) in &waiting {
            let place = before.entry(pool).or_default();
            *place = place.saturating_add(1);
            let waits = Waits {
                words: self.words(entry, pool),
                place: Some(*place).filter(|place| *place <= PLACES_MAX),
            };
            turns.insert(entry.uid.to_string(), Turn::Waits(waits));
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

    fn words(&self, entry: &Entry, pool: &Pool) -> Words {
        let whose = match pool {
            Pool::Repository(key) => format!("repository {} (spec.maxConcurrentBackups", key.name),
            Pool::Node(name) => format!("node {name} (--max-backups-per-node"),
            Pool::Cluster => "the cluster (--max-backups".to_owned(),
        };
        let limit = self.limit(pool).unwrap_or_default();
        parked(&entry.job.name, &format!("waiting for {whose}: {limit})"))
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

/// `None` for what is no run of a backup that is there, and for what will never run.
fn entry(world: &World, closed: &BTreeSet<Key>, job: Key, view: &Arc<JobView>) -> Option<Entry> {
    let (kind, cron_job) = view.meta.owner_name.as_ref()?;
    let waits = view.parked && view.suspended;
    // Nobody opens the Job of a deleted namesake, or one that goes.
    let cron_job = || world.cron_jobs.get(&job.sibling(cron_job));
    let is_own = || cron_job().is_some_and(|cron_job| view.meta.owner.as_ref() == Some(&cron_job.meta.uid));
    if **kind != *"CronJob" || waits && (view.meta.deleting || !is_own()) {
        return None;
    }
    let backup = world.backups.find(Index::Label, view.of.as_ref()?).pop()?;
    let resource = world.backups.get(&backup)?;
    let spec = &resource.spec;
    let at = spec.repository_ref.namespace_or(&backup.namespace);
    let standing = match () {
        () if !is_parked(view) => Standing::Runs,
        () if closed.contains(&backup) || resource.metadata.deletion_timestamp.is_some() => Standing::Closed,
        () if spec.suspend && !view.by_request => Standing::Suspended,
        () => Standing::Parked,
    };
    Some(Entry {
        uid: view.meta.uid.clone(),
        job,
        created: view.parked_since.or(view.created).unwrap_or(Timestamp::MAX),
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

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world_tests;
