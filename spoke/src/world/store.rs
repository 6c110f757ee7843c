//! Latest known state of one watched type.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use super::delivery::Delivery;
use super::key::Key;
use super::undecodable::Undecodable;

/// Under what entries can be looked up. Each sort of entry uses some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Index {
    /// The entry's own key. Kept by every store.
    Key,
    /// [`Stored::group`]: repository of a backup or policy, resource of a Job, controlling Job of a pod. Kept by every store.
    Group,
    /// Repository in another namespace that a backup uses.
    Foreign,
    /// Repository that a restore names itself.
    Repository,
    /// Backup that a restore names.
    Backup,
    /// PersistentVolumeClaim that a backup reads, that a restore writes to, or that a pod mounts.
    Claim,
    /// Namespace (without a namespace of its own) among whose pods a backup looks for its source.
    Pods,
    /// GlobalRetentionPolicy that a backup makes, whether it has retention now or not.
    Policy,
    /// Secret of a repository's credentials.
    Credentials,
    /// Namespace (without a namespace of its own) whose labels an entry depends on, or that a pod is in.
    Namespace,
    /// Value of the label that Jobs and pods made for an entry carry (`names::label_value`). Only where it is not the
    /// entry's name; [`Store::find`] looks for an entry of that name first.
    Label,
    /// restic id of a repository, without a namespace.
    ResticId,
    /// uid, without a namespace.
    Uid,
}

/// What became of a state that was put into a store.
#[derive(Debug)]
pub enum Put<V> {
    /// A state as new or newer is here already.
    Stale,
    /// It was taken in. With the state before.
    Taken(Option<Arc<V>>),
}

/// What a store must know of its entries.
pub trait Stored: Send + Sync + 'static {
    /// metadata.uid
    fn uid(&self) -> &str;
    /// metadata.resourceVersion as a number; rises with each write of an object.
    fn version(&self) -> u64;
    /// Entries that are looked up together, such as the Jobs of one backup.
    fn group(&self) -> Option<Key> {
        None
    }
    /// Under what else it can be looked up: pairs of an index and the value there. `key` is the entry's own.
    fn indexed(&self, key: &Key) -> Vec<(Index, Key)> {
        let _ = key;
        Vec::new()
    }
    /// If the entry is removed in this state, or leaves its group, keep this number (the fencing token of a pod whose end
    /// was not observed) under the group. The highest number counts. `observed` is false when the removal was found by
    /// a new list: changes before it may be missing in this state.
    fn residue(&self, observed: bool) -> Option<(Key, u64)> {
        let _ = observed;
        None
    }
}

/// Called with key, state before and state after of each change, while the store is locked: it must not use the store.
type Observer<V> = Box<dyn Fn(&Key, Option<&V>, Option<&V>) + Send + Sync>;

/// Entries by key, and by named indexes. Shared by all actors; locks are held for a map operation only.
pub struct Store<V> {
    inner: RwLock<Inner<V>>,
    /// One for each watch that fills the store.
    deliveries: RwLock<Vec<Delivery>>,
    observers: RwLock<Vec<Observer<V>>>,
}

struct Inner<V> {
    entries: HashMap<Key, Arc<V>>,
    /// Objects whose present state is not in `entries`. An older state of the same object may be there.
    undecodable: HashMap<Key, Arc<Undecodable>>,
    /// Index, value, key of the entry.
    index: BTreeSet<(Index, Key, Key)>,
    remembered: HashMap<Key, u64>,
}

impl<V> Default for Store<V> {
    fn default() -> Self {
        Store {
            observers: RwLock::default(),
            deliveries: RwLock::new(vec![Delivery::default()]),
            inner: RwLock::new(Inner {
                entries: HashMap::new(),
                undecodable: HashMap::new(),
                index: BTreeSet::new(),
                remembered: HashMap::new(),
            }),
        }
    }
}

impl<V: Stored> Store<V> {
    /// Notes a change of the one watch that fills the store.
    #[cfg(test)]
    pub fn note(&self, change: impl FnOnce(&mut Delivery)) {
        self.note_part(0, change);
    }

    /// So many watches fill the store.
    pub fn filled_by(&self, watches: usize) {
        let mut deliveries = self.deliveries.write().unwrap_or_else(PoisonError::into_inner);
        deliveries.resize(watches.max(1), Delivery::default());
    }

    /// Notes a change of one of them.
    pub fn note_part(&self, part: usize, change: impl FnOnce(&mut Delivery)) {
        let mut deliveries = self.deliveries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(delivery) = deliveries.get_mut(part) {
            change(delivery);
        }
    }

    /// Whether all of them deliver what changes.
    pub fn delivery(&self) -> Delivery {
        Delivery::of_all(&self.deliveries.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entry of a key.
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.read(|inner| inner.entries.get(key).cloned())
    }

    /// All entries of a group, in the order of their keys.
    pub fn group(&self, group: &Key) -> Vec<(Key, Arc<V>)> {
        self.by(Index::Group, group)
    }

    /// All entries with a value in an index, in the order of their keys.
    pub fn by(&self, index: Index, value: &Key) -> Vec<(Key, Arc<V>)> {
        self.read(|inner| {
            let keys = inner.keys(index, value);
            keys.filter_map(|key| Some((key.clone(), inner.entries.get(key)?.clone())))
                .collect()
        })
    }

    /// Keys of the entries with a value in an index, in their order.
    pub fn find(&self, index: Index, value: &Key) -> Vec<Key> {
        self.read(|inner| match index {
            Index::Key | Index::Label if inner.entries.contains_key(value) => vec![value.clone()],
            _ => inner.keys(index, value).cloned().collect(),
        })
    }

    /// Namespaces of the entries that a predicate takes, and of all that cannot be decoded.
    pub fn namespaces(&self, take: impl Fn(&V) -> bool) -> BTreeSet<Arc<str>> {
        self.read(|inner| {
            let unknown = inner.undecodable.keys().map(|key| key.namespace.clone());
            let mut found: BTreeSet<Arc<str>> = unknown.collect();
            for (key, value) in &inner.entries {
                if !found.contains(&key.namespace) && take(value) {
                    found.insert(key.namespace.clone());
                }
            }
            found
        })
    }

    /// Entries that a predicate takes. Reads everything: for rare events only.
    pub fn filter(&self, take: impl Fn(&Key, &V) -> bool) -> Vec<(Key, Arc<V>)> {
        self.read(|inner| {
            let entries = inner.entries.iter().filter(|(key, value)| take(key, value));
            entries.map(|(key, value)| (key.clone(), value.clone())).collect()
        })
    }

    /// Every key.
    pub fn keys(&self) -> Vec<Key> {
        self.read(|inner| inner.entries.keys().cloned().collect())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.read(|inner| inner.entries.len())
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a state in unless a newer one is here already; returns whether anything changed. What a write returned goes
    /// in at once, so that a turn never plans on a state older than its own last write, and the watch's echo of that
    /// write changes nothing.
    pub fn put(&self, key: Key, value: Arc<V>) -> bool {
        matches!(self.replace(key, value), Put::Taken(_))
    }

    /// As [`Store::put`], and returns the state before.
    pub fn replace(&self, key: Key, value: Arc<V>) -> Put<V> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let old = inner.entries.get(&key).cloned();
        if old.as_ref().is_some_and(|old| old.version() >= value.version()) {
            return Put::Stale;
        }
        if inner
            .undecodable
            .get(&key)
            .is_some_and(|broken| broken.version() <= value.version())
        {
            inner.undecodable.remove(&key);
        }
        self.notify(&key, old.as_deref(), Some(&value));
        // Also of one that stays and leaves its group, as a pod does whose Job is deleted with --cascade=orphan.
        if let Some(old) = &old
            && (old.uid() != value.uid() || old.group() != value.group())
        {
            inner.remember(old.residue(old.uid() == value.uid()));
        }
        inner.link(&key, old.as_deref(), Some(&value));
        inner.entries.insert(key, value);
        Put::Taken(old)
    }

    /// Takes an object out. A successor under the same name (another uid) stays.
    pub fn remove(&self, key: &Key, uid: Option<&str>) -> Option<Arc<V>> {
        self.take(key, uid, true)
    }

    /// Takes out an object that a new list no longer names.
    pub fn remove_unobserved(&self, key: &Key) -> Option<Arc<V>> {
        self.take(key, None, false)
    }

    fn take(&self, key: &Key, uid: Option<&str>, observed: bool) -> Option<Arc<V>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let fault = inner.undecodable.get(key);
        if fault.is_some_and(|fault| uid.is_none() || fault.meta.uid.as_deref() == uid) {
            inner.undecodable.remove(key);
            self.notify(key, None, None);
        }
        let present = inner.entries.get(key)?;
        if uid.is_some_and(|uid| uid != present.uid()) {
            return None;
        }
        self.notify(key, Some(present), None);
        let gone = inner.entries.remove(key)?;
        inner.link(key, Some(&gone), None);
        // Under the same lock: a reader that does not find the entry finds the number that it left.
        inner.remember(gone.residue(observed));
        Some(gone)
    }

    /// Notes that the present state of an object cannot be decoded. A state of it that was decoded before stays; that of a
    /// deleted namesake is taken out and returned.
    pub fn put_undecodable(&self, key: Key, object: Undecodable) -> Option<Arc<V>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let namesake = inner
            .entries
            .get(&key)
            .filter(|old| Some(old.uid()) != object.meta.uid.as_deref())
            .cloned();
        if let Some(old) = &namesake {
            self.notify(&key, Some(old), None);
            inner.entries.remove(&key);
            inner.link(&key, Some(old), None);
            inner.remember(old.residue(true));
        } else {
            let present = inner.entries.get(&key).map(AsRef::as_ref);
            self.notify(&key, present, present);
        }
        inner.undecodable.insert(key, Arc::new(object));
        namesake
    }

    /// What is known of an object whose present state cannot be decoded.
    pub fn undecodable(&self, key: &Key) -> Option<Arc<Undecodable>> {
        self.read(|inner| inner.undecodable.get(key).cloned())
    }

    /// Every key, those of undecodable objects included.
    pub fn all_keys(&self) -> BTreeSet<Key> {
        self.read(|inner| {
            inner
                .entries
                .keys()
                .chain(inner.undecodable.keys())
                .cloned()
                .collect()
        })
    }

    /// Has a function called with each change from now on.
    pub fn observe(&self, observer: impl Fn(&Key, Option<&V>, Option<&V>) + Send + Sync + 'static) {
        let mut observers = self.observers.write().unwrap_or_else(PoisonError::into_inner);
        observers.push(Box::new(observer));
    }

    fn notify(&self, key: &Key, old: Option<&V>, new: Option<&V>) {
        let observers = self.observers.read().unwrap_or_else(PoisonError::into_inner);
        observers.iter().for_each(|observer| observer(key, old, new));
    }

    /// The number that removed entries of a group left.
    pub fn remembered(&self, group: &Key) -> Option<u64> {
        self.read(|inner| inner.remembered.get(group).copied())
    }

    /// Adds to it.
    pub fn remember(&self, group: &Key, number: u64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remember(Some((group.clone(), number)));
    }

    /// Nobody will ask for this group again.
    pub fn forget(&self, group: &Key) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remembered.remove(group);
    }

    fn read<R>(&self, f: impl FnOnce(&Inner<V>) -> R) -> R {
        f(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V: Stored> Inner<V> {
    fn remember(&mut self, residue: Option<(Key, u64)>) {
        if let Some((group, number)) = residue {
            let known = self.remembered.entry(group).or_default();
            *known = number.max(*known);
        }
    }

    /// Keys of the entries with a value in an index.
    fn keys<'a>(&'a self, index: Index, value: &Key) -> impl Iterator<Item = &'a Key> + use<'a, V> {
        let value = value.clone();
        let first = (index, value.clone(), Key::first());
        let from = self.index.range((Bound::Included(first), Bound::Unbounded));
        from.take_while(move |(i, v, _)| *i == index && *v == value)
            .map(|(_, _, key)| key)
    }

    /// Moves an entry in the indexes from its old values to its new ones. Most changes change none.
    fn link(&mut self, key: &Key, old: Option<&V>, new: Option<&V>) {
        let values = |state: Option<&V>| {
            let mut values = state.map(|state| state.indexed(key)).unwrap_or_default();
            let group = state.and_then(Stored::group);
            values.extend(group.map(|group| (Index::Group, group)));
            values
        };
        let (old, new) = (values(old), values(new));
        if old == new {
            return;
        }
        for (index, value) in old {
            self.index.remove(&(index, value, key.clone()));
        }
        for (index, value) in new {
            self.index.insert((index, value, key.clone()));
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
