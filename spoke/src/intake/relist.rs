//! Watch events into store changes. Pure but for the store it is given.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;

use crate::world::{Key, Put, Store, Stored, Undecodable};

/// A change of an object, as others may have to be woken for it.
#[derive(Debug)]
pub struct Change<V> {
    pub key: Key,
    /// Absent when it appeared.
    pub old: Option<Arc<V>>,
    /// Absent when it went.
    pub new: Option<Arc<V>>,
    /// The store had the new state already: we wrote it. The object's own actor knows.
    pub echo: bool,
}

impl<V> Change<V> {
    /// Nothing of the object itself: something that is read with it.
    pub fn touched(key: Key, state: Arc<V>) -> Change<V> {
        Change {
            key,
            old: Some(state.clone()),
            new: Some(state),
            echo: false,
        }
    }

    /// The latest state that is known: the last one of an object that went.
    pub fn latest(&self) -> Option<&V> {
        self.new.as_deref().or(self.old.as_deref())
    }
}

/// Takes the events of one watch into a store, and finds what was deleted while the watch was broken, for which there is no event.
pub struct Relist<V> {
    /// Keys that the store had when the present list began and that the list has not named yet.
    unseen: Option<HashSet<Key>>,
    /// States as the watch delivered them last, where the echo of an own write is news to others: what changed is then
    /// not what differs from the store. Shares the objects of the store.
    delivered: Option<HashMap<Key, Arc<V>>>,
    /// The one namespace that the watch covers, of a store that watches of others fill, too.
    namespace: Option<String>,
}

impl<V: Stored> Relist<V> {
    /// With `echoes` also a state is a change that is in the store already because we wrote it ourselves.
    #[must_use]
    pub fn new(echoes: bool) -> Relist<V> {
        Relist {
            unseen: None,
            delivered: echoes.then(HashMap::new),
            namespace: None,
        }
    }

    /// Of one namespace alone: its lists say nothing of others.
    #[must_use]
    pub fn within(mut self, namespace: Option<String>) -> Relist<V> {
        self.namespace = namespace;
        self
    }

    /// Takes an event into the store. Returns what changed.
    pub fn apply(&mut self, store: &Store<V>, event: Event<(Key, V)>) -> Vec<Change<V>> {
        match event {
            Event::Init => {
                let mut keys: HashSet<Key> = store.all_keys().into_iter().collect();
                if let Some(namespace) = &self.namespace {
                    keys.retain(|key| *key.namespace == **namespace);
                }
                self.unseen = Some(keys);
                Vec::new()
            }
            Event::InitApply((key, value)) => {
                self.keep(&key);
                self.put(store, key, value).into_iter().collect()
            }
            Event::Apply((key, value)) => self.put(store, key, value).into_iter().collect(),
            Event::Delete((key, value)) => {
                let old = store.remove(&key, Some(value.uid()));
                self.gone(key, old).into_iter().collect()
            }
            Event::InitDone => {
                let gone = self.unseen.take().unwrap_or_default().into_iter();
                gone.filter_map(|key| {
                    let old = store.remove_unobserved(&key);
                    self.gone(key, old)
                })
                .collect()
            }
        }
    }

    /// Takes an event about an object that cannot be decoded. It exists, unless the event is a deletion: then
    /// what was decoded of it before is gone, and else what was decoded of a deleted namesake.
    pub fn undecodable(
        &mut self,
        store: &Store<V>,
        key: Key,
        object: Undecodable,
        deleted: bool,
    ) -> Vec<Change<V>> {
        let old = if deleted {
            store.remove(&key, object.meta.uid.as_deref())
        } else {
            self.keep(&key);
            store.put_undecodable(key.clone(), object)
        };
        self.gone(key, old).into_iter().collect()
    }

    /// The list has named this key.
    fn keep(&mut self, key: &Key) {
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(key);
        }
    }

    fn put(&mut self, store: &Store<V>, key: Key, value: V) -> Option<Change<V>> {
        let version = value.version();
        let value = Arc::new(value);
        let put = store.replace(key.clone(), value.clone());
        let Some(delivered) = &mut self.delivered else {
            let Put::Taken(old) = put else { return None };
            return Some(Change {
                key,
                old,
                new: Some(value),
                echo: false,
            });
        };
        let echo = matches!(put, Put::Stale);
        // The store's own object, so that none is kept twice.
        let new = store.get(&key).filter(|known| known.version() == version)?;
        let old = delivered.insert(key.clone(), new.clone());
        if old.as_ref().is_some_and(|old| old.version() == version) {
            return None;
        }
        Some(Change {
            key,
            old,
            new: Some(new),
            echo,
        })
    }

    fn gone(&mut self, key: Key, old: Option<Arc<V>>) -> Option<Change<V>> {
        let old = old?;
        if let Some(delivered) = &mut self.delivered {
            delivered.remove(&key);
        }
        Some(Change {
            key,
            old: Some(old),
            new: None,
            echo: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Entry(&'static str, u64);

    impl Stored for Entry {
        fn uid(&self) -> &str {
            self.0
        }
        fn version(&self) -> u64 {
            self.1
        }
    }

    fn names(changes: Vec<Change<Entry>>) -> Vec<String> {
        changes.iter().map(|change| change.key.to_string()).collect()
    }

    #[test]
    fn a_delete_missed_by_a_broken_watch_is_found_by_the_next_list() {
        let (store, mut relist) = (Store::default(), Relist::new(false));
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        relist.apply(&store, Event::Init);
        relist.apply(&store, Event::InitApply((a.clone(), Entry("a", 1))));
        relist.apply(&store, Event::InitApply((b, Entry("b", 1))));
        assert!(relist.apply(&store, Event::InitDone).is_empty());
        relist.apply(&store, Event::Init);
        assert!(
            relist
                .apply(&store, Event::InitApply((a, Entry("a", 1))))
                .is_empty(),
            "unchanged objects wake nobody"
        );
        assert_eq!(names(relist.apply(&store, Event::InitDone)), ["ns/b"]);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_list_of_one_namespace_says_nothing_of_others() {
        let store = Store::default();
        let [mut one, mut other] = ["one", "other"].map(|ns| Relist::new(false).within(Some(ns.to_owned())));
        let list = |relist: &mut Relist<Entry>, keys: &[(&str, &'static str)]| {
            relist.apply(&store, Event::Init);
            for (namespace, name) in keys {
                relist.apply(
                    &store,
                    Event::InitApply((Key::new(*namespace, *name), Entry(name, 1))),
                );
            }
            names(relist.apply(&store, Event::InitDone))
        };
        assert!(list(&mut one, &[("one", "a"), ("one", "b")]).is_empty());
        assert!(list(&mut other, &[("other", "c")]).is_empty());
        assert_eq!(list(&mut one, &[("one", "b")]), ["one/a"]);
        assert_eq!(store.len(), 2, "other/c is still there");
    }

    #[test]
    fn the_echo_of_an_own_write_is_news_only_where_it_is_asked_for() {
        let (store, a) = (Store::default(), Key::new("ns", "a"));
        let apply = |version| Event::Apply((Key::new("ns", "a"), Entry("a", version)));
        store.put(a.clone(), Arc::new(Entry("a", 2)));
        assert!(Relist::new(false).apply(&store, apply(2)).is_empty());
        let mut relist = Relist::new(true);
        let changes = relist.apply(&store, apply(2));
        assert!(changes.len() == 1 && changes[0].echo && changes[0].old.is_none());
        assert!(relist.apply(&store, apply(2)).is_empty(), "once");
        assert!(relist.apply(&store, apply(1)).is_empty(), "old news is no news");
        // Written by us between two events: what others saw last is what the watch delivered last.
        store.put(a, Arc::new(Entry("a", 3)));
        let changes = relist.apply(&store, apply(3));
        assert!(changes[0].echo);
        assert_eq!(changes[0].old.as_ref().unwrap().1, 2);
        let changes = relist.apply(&store, apply(4));
        assert!(!changes[0].echo);
    }

    #[test]
    fn a_list_that_breaks_half_way_deletes_nothing() {
        let (store, mut relist) = (Store::default(), Relist::new(false));
        relist.apply(&store, Event::Apply((Key::new("ns", "a"), Entry("a", 1))));
        relist.apply(&store, Event::Init);
        relist.apply(&store, Event::Init);
        assert_eq!(store.len(), 1);
    }

    fn broken(uid: &str) -> Undecodable {
        Undecodable {
            meta: kube::core::ObjectMeta {
                uid: Some(uid.to_owned()),
                ..kube::core::ObjectMeta::default()
            },
            ..Undecodable::default()
        }
    }

    #[test]
    fn an_undecodable_object_is_not_taken_for_deleted() {
        let (store, mut relist) = (Store::default(), Relist::new(false));
        let a = Key::new("ns", "a");
        relist.apply(&store, Event::Apply((a.clone(), Entry("a", 1))));
        relist.apply(&store, Event::Init);
        relist.undecodable(&store, a.clone(), broken("a"), false);
        assert!(relist.apply(&store, Event::InitDone).is_empty());
        assert_eq!(store.len(), 1);
        assert!(store.undecodable(&a).is_some());
        relist.apply(&store, Event::Apply((a.clone(), Entry("a", 2))));
        assert!(store.undecodable(&a).is_none(), "mended");
    }

    #[test]
    fn an_undecodable_object_is_kept_on_record_until_it_is_deleted() {
        let (store, mut relist) = (Store::<Entry>::default(), Relist::new(false));
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        relist.apply(&store, Event::Init);
        relist.undecodable(&store, a.clone(), broken("a"), false);
        relist.undecodable(&store, b.clone(), broken("b"), false);
        relist.apply(&store, Event::InitDone);
        assert!(store.undecodable(&a).is_some(), "also at the first list");
        relist.undecodable(&store, a.clone(), broken("a"), true);
        assert!(store.undecodable(&a).is_none());
        relist.apply(&store, Event::Init);
        relist.apply(&store, Event::InitDone);
        assert!(
            store.undecodable(&b).is_none(),
            "deleted while the watch was broken"
        );
    }
}
