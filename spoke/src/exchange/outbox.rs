//! Which resources may look different to the hub than it was last told. Holds keys only: a state is converted from the
//! caches at the moment when it is sent, so what is sent is never older than the caches and never more than they hold.
//!
//! The stores mark a key here with each change, whatever made it: a watch, a new list, or the answer to an own write.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
use tokio::sync::Notify;

use crate::world::{Key, Stored, World};

/// Kinds that the hub is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Repository,
    Backup,
    Policy,
    Restore,
}

/// One resource by kind and name. What has that name may change; its uid is looked up when it is sent.
pub type Place = (Kind, Key);

/// Keys that changed, and the repository to which each policy was last known to be bound.
#[derive(Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    dirty: HashSet<Place>,
    /// Repositories whose id changed: what refers to them looks different too.
    rebound: HashSet<Key>,
    /// A backup has another repository than before: restores look theirs up through it.
    restores: bool,
    bindings: Bindings,
}

/// Last known bindings. A policy keeps its binding while its ResticRepository is deleted, made again or not looked at yet:
/// without it, the hub would make plans that do not know what this policy keeps.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// restic id that a ResticRepository of this name had last.
    repositories: HashMap<Key, String>,
    /// restic id that a policy was last bound to, by the policy's uid.
    policies: HashMap<String, String>,
}

impl Bindings {
    /// The last known restic id of a policy whose ResticRepository has none now: of the repository's name, else of the
    /// policy before its reference was changed, else what the policy's status has kept over a restart.
    #[must_use]
    pub fn last(&self, uid: &str, repository: &Key, status: Option<&str>) -> Option<String> {
        let known = self
            .repositories
            .get(repository)
            .or_else(|| self.policies.get(uid));
        known.cloned().or_else(|| status.map(str::to_owned))
    }
}

/// What has changed since the last call.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    pub dirty: HashSet<Place>,
    /// Repositories whose users have to be looked at as well.
    pub rebound: HashSet<Key>,
    /// Every restore has to be looked at as well.
    pub restores: bool,
}

impl Outbox {
    /// An outbox that is marked by each change of the stores from now on.
    pub fn attached(world: &World) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::default());
        let o = outbox.clone();
        world
            .repositories
            .observe(move |key, old, new| o.repository(key, old, new));
        let o = outbox.clone();
        world
            .backups
            .observe(move |key, old, new| o.backup(key, old, new));
        let o = outbox.clone();
        world
            .policies
            .observe(move |key, old, new| o.policy(key, old, new));
        let o = outbox.clone();
        world
            .restores
            .observe(move |key, _: Option<&ResticRestore>, _| o.mark(Kind::Restore, key));
        outbox
    }

    /// Something may have changed at a place.
    pub fn mark(&self, kind: Kind, key: &Key) {
        self.lock().dirty.insert((kind, key.clone()));
        self.changed.notify_one();
    }

    fn repository(&self, key: &Key, old: Option<&ResticRepository>, new: Option<&ResticRepository>) {
        let id = |r: Option<&ResticRepository>| r.and_then(|r| r.status.as_ref()?.repository_id.clone());
        let (before, now) = (id(old), id(new));
        {
            let mut inner = self.lock();
            // The id of one that cannot be decoded is in its JSON, which is not at hand here.
            if before != now || old.is_some() != new.is_some() || new.is_none() {
                inner.rebound.insert(key.clone());
            }
            if let Some(id) = now.or(before).filter(|id| !id.is_empty()) {
                inner.bindings.repositories.insert(key.clone(), id);
            }
        }
        self.mark(Kind::Repository, key);
    }

    fn backup(&self, key: &Key, old: Option<&ResticBackup>, new: Option<&ResticBackup>) {
        if old.and_then(Stored::group) != new.and_then(Stored::group) {
            self.lock().restores = true;
        }
        self.mark(Kind::Backup, key);
    }

    fn policy(&self, key: &Key, old: Option<&GlobalRetentionPolicy>, new: Option<&GlobalRetentionPolicy>) {
        if let Some(old) = old {
            let mut inner = self.lock();
            let bindings = &mut inner.bindings;
            match new.filter(|new| new.uid() == old.uid()) {
                None => drop(bindings.policies.remove(old.uid())),
                Some(new) if new.group() != old.group() => {
                    let last = old
                        .group()
                        .and_then(|group| bindings.repositories.get(&group).cloned());
                    bindings
                        .policies
                        .extend(last.map(|id| (old.uid().to_owned(), id)));
                }
                Some(_) => {}
            }
        }
        self.mark(Kind::Policy, key);
    }

    /// A policy was converted while its repository was known.
    pub fn bound(&self, uid: &str, restic_id: &str) {
        self.lock()
            .bindings
            .policies
            .insert(uid.to_owned(), restic_id.to_owned());
    }

    /// The last known bindings.
    pub fn last_binding(&self, uid: &str, repository: &Key, status: Option<&str>) -> Option<String> {
        self.lock().bindings.last(uid, repository, status)
    }

    /// What has changed since the last call.
    pub fn take(&self) -> Changes {
        let mut inner = self.lock();
        Changes {
            dirty: std::mem::take(&mut inner.dirty),
            rebound: std::mem::take(&mut inner.rebound),
            restores: std::mem::take(&mut inner.restores),
        }
    }

    /// Resolves when there may be changes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
