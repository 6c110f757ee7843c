//! Which actors have to look again when an object changed: for each watched kind the [changes](super::changes) that count,
//! and the way from the changed object through the indexes of the stores to those that read it. A new watched kind is a
//! new table here, a new kind of reader a row in each table of what it reads. Pure.

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};

use super::changes::{
    any, backup_failed, deleted, labels, limits_otherwise, moves_queue, origin, policy_applied,
    policy_changed, policy_failed, presence, queues_otherwise, seen, usability, usable,
};
use super::relist::Change;
use crate::consent;
use crate::world::{
    AppPodView, ClaimView, CronJobView, Index, JobView, Key, Meta, MetaView, NamespaceView, PodView, World,
};

/// Readers that can be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    Repositories,
    Backups,
    Restores,
    Policies,
    /// Maintenance operations, by their Jobs.
    Operations,
    /// The part that keeps the scripts' ConfigMaps: one, whatever the key.
    Scripts,
    /// The part that wakes backups whose places in the queue have changed: one, whatever the key.
    Queue,
}

/// From a key to the readers that an index has under it.
#[derive(Clone, Copy, Debug)]
pub struct Step(pub Reader, pub Index);

/// One row: when an object has changed so, those at the end of the path look again.
pub struct Row<V: 'static> {
    /// Whether the change is one of what they read.
    when: fn(&Change<V>) -> bool,
    /// The keys that the path begins with.
    from: From<V>,
    /// Each step takes all keys that the one before has found. The last one's are woken.
    path: &'static [Step],
}

/// Where a path begins.
enum From<V: 'static> {
    One(fn(&World, &Key, &V) -> Option<Key>),
    Each(fn(&World, &Change<V>) -> Vec<Key>),
}

/// Readers to wake for a change, some perhaps twice.
pub fn wakes<V>(world: &World, rows: &[Row<V>], change: &Change<V>) -> Vec<(Reader, Key)> {
    let mut woken = Vec::new();
    let Some(state) = change.latest() else {
        return woken;
    };
    for row in rows.iter().filter(|row| (row.when)(change)) {
        let mut keys: Vec<Key> = match row.from {
            From::One(from) => from(world, &change.key, state).into_iter().collect(),
            From::Each(from) => from(world, change),
        };
        for step in row.path {
            keys = keys.iter().flat_map(|key| find(world, *step, key)).collect();
        }
        if let Some(Step(reader, _)) = row.path.last() {
            woken.extend(keys.into_iter().map(|key| (*reader, key)));
        }
    }
    woken
}

fn find(world: &World, Step(reader, index): Step, key: &Key) -> Vec<Key> {
    match reader {
        Reader::Repositories => world.repositories.find(index, key),
        Reader::Backups => world.backups.find(index, key),
        Reader::Restores => world.restores.find(index, key),
        Reader::Policies => world.policies.find(index, key),
        Reader::Operations | Reader::Scripts | Reader::Queue => vec![key.clone()],
    }
}

macro_rules! row {
    ($when:expr, each $from:expr => $($reader:ident by $index:ident),+) => {
        Row { when: $when, from: From::Each($from), path: &[$(Step(Reader::$reader, Index::$index)),+] }
    };
    ($when:expr, $from:expr => $($reader:ident by $index:ident),+) => {
        Row { when: $when, from: From::One($from), path: &[$(Step(Reader::$reader, Index::$index)),+] }
    };
}

pub const REPOSITORY: &[Row<ResticRepository>] = &[
    row!(usability, own => Backups by Group),
    row!(usability, own => Policies by Group),
    row!(usability, own => Restores by Repository),
    row!(usability, own => Backups by Group, Restores by Backup),
    row!(limits_otherwise, own => Queue by Key),
];

pub const BACKUP: &[Row<ResticBackup>] = &[
    // What failed may have found a lock, or left one.
    row!(backup_failed, |_, key, backup| Some(repository(key, &backup.spec.repository_ref)) => Repositories by Key),
    row!(origin, own => Restores by Backup),
    row!(|change| presence(change, deleted), own => Scripts by Key),
    row!(queues_otherwise, own => Queue by Key),
];

pub const RESTORE: &[Row<ResticRestore>] = &[row!(|change| presence(change, deleted), own => Scripts by Key)];

pub const POLICY: &[Row<GlobalRetentionPolicy>] = &[
    row!(policy_failed, |_, key, policy| Some(repository(key, &policy.spec.repository_ref)) => Repositories by Key),
    // Plans of the others may have come to nothing.
    row!(policy_applied, |_, key, policy| Some(repository(key, &policy.spec.repository_ref)) => Policies by Group),
    row!(policy_changed, own => Backups by Policy),
];

pub const CRON_JOB: &[Row<CronJobView>] = &[
    row!(any, |_, key, it| owner(key, &it.meta, "ResticBackup") => Backups by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "GlobalRetentionPolicy") => Policies by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "ResticRepository") => Repositories by Key),
];

pub const JOB: &[Row<JobView>] = &[
    row!(any, |_, key, job| job.type_.is_some().then(|| key.clone()) => Operations by Key),
    row!(any, |_, key, job| owner(key, &job.meta, "ResticRestore") => Restores by Key),
    row!(any, |_, key, job| owner(key, &job.meta, "ResticRepository") => Repositories by Key),
    row!(any, |_, _, job| made_for(&job.meta, job.of.as_ref()) => Backups by Label),
    row!(any, |_, _, job| made_for(&job.meta, job.of.as_ref()) => Policies by Label),
    // A place is free, or the queue has moved on.
    row!(moves_queue, own => Queue by Key),
];

/// Pods are owned by a Job, and that by what they were made for.
pub const POD: &[Row<PodView>] = &[
    row!(any, |_, key, pod| pod.token.and_then(|_| owner(key, &pod.meta, "Job")) => Operations by Key),
    row!(any, |world, key, pod| owner(key, &job(world, key, pod)?.meta, "ResticRestore") => Restores by Key),
    row!(any, |world, key, pod| owner(key, &job(world, key, pod)?.meta, "ResticRepository") => Repositories by Key),
    row!(any, pod_made_for => Backups by Label),
    row!(any, pod_made_for => Policies by Label),
];

/// Pods whose log shows that they have come further. Maintenance is found by its Job.
pub const PROGRESS: &[Row<PodView>] = &[
    row!(any, |world, key, pod| owner(key, &job(world, key, pod)?.meta, "ResticRestore") => Restores by Key),
    row!(any, backed_up => Backups by Label),
];

/// Pods of applications: they tell where a claim is in use, and what is behind a selector.
pub const APP_POD: &[Row<AppPodView>] = &[
    row!(seen, each |_, change| claims(change) => Backups by Claim),
    row!(seen, each selecting => Backups by Key),
];

/// Accounts, Roles and RoleBindings of pods.
pub const SERVICE_ACCOUNT: &[Row<MetaView>] = &[
    row!(any, |_, key, it| owner(key, &it.meta, "ResticBackup") => Backups by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "ResticRestore") => Restores by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "GlobalRetentionPolicy") => Policies by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "ResticRepository") => Repositories by Key),
];

pub const CONFIG_MAP: &[Row<MetaView>] = &[row!(any, own => Scripts by Key)];

/// Credentials: the repositories that name the Secret, those that get a copy of it, and the owners of copies.
pub const SECRET: &[Row<MetaView>] = &[
    row!(any, own => Repositories by Credentials),
    row!(any, own => Repositories by Credentials, Policies by Group),
    row!(any, own => Repositories by Credentials, Backups by Foreign),
    row!(any, |_, key, it| owner(key, &it.meta, "ResticBackup") => Backups by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "ResticRestore") => Restores by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "GlobalRetentionPolicy") => Policies by Key),
    row!(any, |_, key, it| owner(key, &it.meta, "ResticRepository") => Repositories by Key),
];

pub const CLAIM: &[Row<ClaimView>] = &[
    row!(usable, own => Backups by Claim),
    row!(usable, |_, key, _| Some(key.namespace_key()) => Backups by Pods),
    row!(usable, own => Restores by Claim),
];

/// Labels of a namespace decide whether what is in it may use a repository elsewhere.
pub const NAMESPACE: &[Row<NamespaceView>] = &[
    row!(labels, own => Backups by Namespace),
    row!(labels, own => Restores by Namespace),
    row!(labels, own => Policies by Namespace),
];

fn own<V>(_: &World, key: &Key, _: &V) -> Option<Key> {
    Some(key.clone())
}

/// Claims that a pod mounts. They stay the same while it lives.
fn claims(change: &Change<AppPodView>) -> Vec<Key> {
    let pod = change.latest();
    let claims = pod.into_iter().flat_map(AppPodView::claims);
    claims.map(|claim| change.key.sibling(claim)).collect()
}

/// Backups whose selector matches a pod, or did so before: in a namespace with many of both, not all of them look.
fn selecting(world: &World, change: &Change<AppPodView>) -> Vec<Key> {
    let matches = |backup: &ResticBackup| {
        let source = &backup.spec.source;
        let volume = source.pod_volume_backup.as_ref().map(|volume| &volume.selector);
        let exec = source
            .stdin
            .as_ref()
            .and_then(|stdin| Some(&stdin.exec.as_ref()?.pod_selector));
        let labels = [&change.old, &change.new]
            .into_iter()
            .flatten()
            .map(|pod| &pod.labels);
        let selectors = || volume.into_iter().chain(exec);
        labels
            .into_iter()
            .any(|labels| selectors().any(|selector| consent::matches(selector, labels)))
    };
    let all = world
        .backups
        .by(Index::Pods, &change.key.namespace_key())
        .into_iter();
    all.filter(|(_, backup)| matches(backup))
        .map(|(key, _)| key)
        .collect()
}

fn repository(key: &Key, reference: &crds::common::CrossNamespaceObjectReference) -> Key {
    Key::new(reference.namespace_or(&key.namespace), &reference.name)
}

/// The controlling owner, if it is of this kind.
fn owner(key: &Key, meta: &Meta, kind: &str) -> Option<Key> {
    let (owner, name) = meta.owner_name.as_ref()?;
    (**owner == *kind).then(|| key.sibling(name))
}

/// The Job of a pod.
fn job(world: &World, key: &Key, pod: &PodView) -> Option<std::sync::Arc<JobView>> {
    world.jobs.get(&owner(key, &pod.meta, "Job")?)
}

/// Jobs and pods of a backup or a policy name it by a label, which is cut and hashed when the name is long. A backup and
/// a policy of one name both look: one of them finds nothing. Jobs of the other kinds are owned by the resource itself.
fn made_for(job: &Meta, of: Option<&Key>) -> Option<Key> {
    let owned = job.owner_name.as_ref();
    let itself = owned.is_some_and(|(kind, _)| matches!(&**kind, "ResticRestore" | "ResticRepository"));
    of.filter(|_| !itself).cloned()
}

fn pod_made_for(world: &World, key: &Key, pod: &PodView) -> Option<Key> {
    let meta = job(world, key, pod)
        .map(|job| job.meta.clone())
        .unwrap_or_default();
    made_for(&meta, pod.of.as_ref())
}

/// The backup of a pod that runs one.
fn backed_up(world: &World, key: &Key, pod: &PodView) -> Option<Key> {
    let made_for = pod_made_for(world, key, pod)?;
    let maintains = job(world, key, pod).is_some_and(|job| job.type_.is_some());
    (!maintains).then_some(made_for)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
