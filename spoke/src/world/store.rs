//! Latest known state of one watched type.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    /// A key out of its parts.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Key {
        Key {
            namespace: namespace.as_ref().into(),
            name: name.as_ref().into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
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
    /// If the entry is removed in this state, or leaves its group, keep this number (the fencing token of a pod whose end
    /// was not observed) under the group. The highest number counts. `observed` is false when the removal was found by
    /// a new list: changes before it may be missing in this state.
    fn last_word(&self, observed: bool) -> Option<(Key, u64)> {
        let _ = observed;
        None
    }
}

/// An object of one of our kinds that this version cannot decode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Undecodable {
    pub meta: ObjectMeta,
    /// Why, as serde says it.
    pub error: String,
    /// The object as JSON, without managed fields.
    pub raw: serde_json::Value,
}

impl Undecodable {
    fn version(&self) -> u64 {
        let version = self.meta.resource_version.as_deref();
        version.and_then(|v| v.parse().ok()).unwrap_or_default()
    }
}

/// Called with key, state before and state after of each change, while the store is locked: it must not use the store.
type Observer<V> = Box<dyn Fn(&Key, Option<&V>, Option<&V>) + Send + Sync>;

/// Entries by key, and by group. Shared by all actors; locks are held for a map operation only.
pub struct Store<V> {
    inner: RwLock<Inner<V>>,
    observer: OnceLock<Observer<V>>,
}

struct Inner<V> {
    entries: HashMap<Key, Arc<V>>,
    /// Objects whose present state is not in `entries`. An older state of the same object may be there.
    undecodable: HashMap<Key, Arc<Undecodable>>,
    groups: HashMap<Key, BTreeSet<Key>>,
    remembered: HashMap<Key, u64>,
}

impl<V> Default for Store<V> {
    fn default() -> Self {
        Store {
            observer: OnceLock::new(),
            inner: RwLock::new(Inner {
                entries: HashMap::new(),
                undecodable: HashMap::new(),
                groups: HashMap::new(),
                remembered: HashMap::new(),
            }),
        }
    }
}

impl<V: Stored> Store<V> {
    /// The entry of a key.
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.read(|inner| inner.entries.get(key).cloned())
    }

    /// All entries of a group, in the order of their keys.
    pub fn group(&self, group: &Key) -> Vec<(Key, Arc<V>)> {
        self.read(|inner| {
            let keys = inner.groups.get(group).into_iter().flatten();
            keys.filter_map(|key| Some((key.clone(), inner.entries.get(key)?.clone())))
                .collect()
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

    /// Takes a state in unless a newer one is here already; says whether anything changed. What a write returned goes
    /// in at once, so that a turn never plans on a state older than its own last write, and the watch's echo of that
    /// write changes nothing.
    pub fn put(&self, key: Key, value: Arc<V>) -> bool {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner
            .entries
            .get(&key)
            .is_some_and(|old| old.version() >= value.version())
        {
            return false;
        }
        if inner
            .undecodable
            .get(&key)
            .is_some_and(|broken| broken.version() <= value.version())
        {
            inner.undecodable.remove(&key);
        }
        self.tell(&key, inner.entries.get(&key).map(AsRef::as_ref), Some(&value));
        inner.unlink(&key);
        let old = inner.entries.get(&key).cloned();
        // Also of one that stays and leaves its group, as a pod does whose Job is deleted with --cascade=orphan.
        if let Some(old) = old.filter(|old| old.uid() != value.uid() || old.group() != value.group()) {
            inner.remember(old.last_word(old.uid() == value.uid()));
        }
        if let Some(group) = value.group() {
            inner.groups.entry(group).or_default().insert(key.clone());
        }
        inner.entries.insert(key, value);
        true
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
            self.tell(key, None, None);
        }
        let present = inner.entries.get(key)?;
        if uid.is_some_and(|uid| uid != present.uid()) {
            return None;
        }
        self.tell(key, Some(present), None);
        inner.unlink(key);
        let gone = inner.entries.remove(key)?;
        // Under the same lock: whoever sees that it is gone finds its last word.
        inner.remember(gone.last_word(observed));
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
            self.tell(&key, Some(old), None);
            inner.unlink(&key);
            inner.entries.remove(&key);
            inner.remember(old.last_word(true));
        } else {
            let present = inner.entries.get(&key).map(AsRef::as_ref);
            self.tell(&key, present, present);
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

    /// Has a function called with each change from now on. Only the first one counts.
    pub fn observe(&self, observer: impl Fn(&Key, Option<&V>, Option<&V>) + Send + Sync + 'static) {
        // An error means that there is one already.
        let _ = self.observer.set(Box::new(observer));
    }

    fn tell(&self, key: &Key, old: Option<&V>, new: Option<&V>) {
        if let Some(observer) = self.observer.get() {
            observer(key, old, new);
        }
    }

    /// The last word of the entries of a group that are gone.
    pub fn remembered(&self, group: &Key) -> Option<u64> {
        self.read(|inner| inner.remembered.get(group).copied())
    }

    /// Adds to it.
    pub fn remember(&self, group: &Key, word: u64) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remember(Some((group.clone(), word)));
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
    fn remember(&mut self, word: Option<(Key, u64)>) {
        if let Some((group, word)) = word {
            let known = self.remembered.entry(group).or_default();
            *known = word.max(*known);
        }
    }

    fn unlink(&mut self, key: &Key) {
        let Some(group) = self.entries.get(key).and_then(|old| old.group()) else {
            return;
        };
        if let Some(keys) = self.groups.get_mut(&group) {
            keys.remove(key);
            if keys.is_empty() {
                self.groups.remove(&group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Entry(&'static str, u64, Option<Key>);

    impl Stored for Entry {
        fn uid(&self) -> &str {
            self.0
        }
        fn version(&self) -> u64 {
            self.1
        }
        fn group(&self) -> Option<Key> {
            self.2.clone()
        }
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let (store, key) = (Store::default(), Key::new("ns", "a"));
        assert!(store.put(key.clone(), Arc::new(Entry("u", 5, None))));
        assert!(!store.put(key.clone(), Arc::new(Entry("u", 5, None))));
        assert!(!store.put(key.clone(), Arc::new(Entry("u", 4, None))));
        assert_eq!(store.get(&key).unwrap().1, 5);
    }

    #[test]
    fn a_late_delete_leaves_the_successor_alone() {
        let (store, key) = (Store::default(), Key::new("ns", "a"));
        store.put(key.clone(), Arc::new(Entry("old", 5, None)));
        store.put(key.clone(), Arc::new(Entry("new", 7, None)));
        assert!(store.remove(&key, Some("old")).is_none());
        assert!(store.remove(&key, Some("new")).is_some());
    }

    #[test]
    fn groups_follow_their_entries() {
        let (store, a, b) = (Store::default(), Key::new("ns", "a"), Key::new("ns", "b"));
        let (one, two) = (Key::new("ns", "one"), Key::new("ns", "two"));
        store.put(a.clone(), Arc::new(Entry("a", 1, Some(one.clone()))));
        store.put(b.clone(), Arc::new(Entry("b", 1, Some(one.clone()))));
        store.put(a.clone(), Arc::new(Entry("a", 2, Some(two.clone()))));
        assert_eq!(store.group(&one).len(), 1);
        assert_eq!(store.group(&two).len(), 1);
        store.remove(&b, None);
        assert!(store.group(&one).is_empty());
    }
}
