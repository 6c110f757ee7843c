//! Watch events into store changes. Pure but for the store it is given.

use std::collections::HashSet;
use std::sync::Arc;

use kube::runtime::watcher::Event;

use crate::world::{Key, Store, Stored, Undecodable};

/// Finds what was deleted while a watch was broken: no event ever tells of it.
#[derive(Default)]
pub struct Relist {
    /// Keys that the store had when the present list began and that the list has not named yet.
    unseen: Option<HashSet<Key>>,
}

impl Relist {
    /// Takes an event into the store. Returns what changed: new states, and last states of what is gone. With `echoes`
    /// also a state that is in the store already because we wrote it ourselves.
    pub fn apply<V: Stored>(
        &mut self,
        store: &Store<V>,
        event: Event<(Key, V)>,
        echoes: bool,
    ) -> Vec<(Key, Arc<V>)> {
        match event {
            Event::Init => {
                self.unseen = Some(store.all_keys().into_iter().collect());
                Vec::new()
            }
            Event::InitApply((key, value)) => {
                self.keep(&key);
                put(store, key, value)
            }
            Event::Apply((key, value)) => {
                let version = value.version();
                let changed = put(store, key.clone(), value);
                let echo = store
                    .get(&key)
                    .filter(|known| echoes && changed.is_empty() && known.version() == version);
                changed
                    .into_iter()
                    .chain(echo.map(|known| (key, known)))
                    .collect()
            }
            Event::Delete((key, value)) => store
                .remove(&key, Some(value.uid()))
                .map(|old| (key, old))
                .into_iter()
                .collect(),
            Event::InitDone => {
                let gone = self.unseen.take().unwrap_or_default();
                gone.into_iter()
                    .filter_map(|key| store.remove_unobserved(&key).map(|old| (key, old)))
                    .collect()
            }
        }
    }

    /// Takes an event about an object that cannot be decoded. It exists, unless the event says that it was deleted: then
    /// what was decoded of it before is returned, and else what was decoded of a deleted namesake.
    pub fn undecodable<V: Stored>(
        &mut self,
        store: &Store<V>,
        key: Key,
        object: Undecodable,
        deleted: bool,
    ) -> Vec<(Key, Arc<V>)> {
        if deleted {
            let old = store.remove(&key, object.meta.uid.as_deref());
            return old.map(|old| (key, old)).into_iter().collect();
        }
        self.keep(&key);
        let namesake = store.put_undecodable(key.clone(), object);
        namesake.map(|old| (key, old)).into_iter().collect()
    }

    /// The list has named this key.
    fn keep(&mut self, key: &Key) {
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(key);
        }
    }
}

fn put<V: Stored>(store: &Store<V>, key: Key, value: V) -> Vec<(Key, Arc<V>)> {
    let value = Arc::new(value);
    if store.put(key.clone(), value.clone()) {
        vec![(key, value)]
    } else {
        Vec::new()
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

    fn names(changes: Vec<(Key, Arc<Entry>)>) -> Vec<String> {
        changes.into_iter().map(|(key, _)| key.to_string()).collect()
    }

    #[test]
    fn a_delete_missed_by_a_broken_watch_is_found_by_the_next_list() {
        let (store, mut relist) = (Store::default(), Relist::default());
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        relist.apply(&store, Event::Init, false);
        relist.apply(&store, Event::InitApply((a.clone(), Entry("a", 1))), false);
        relist.apply(&store, Event::InitApply((b, Entry("b", 1))), false);
        assert!(relist.apply(&store, Event::InitDone, false).is_empty());
        relist.apply(&store, Event::Init, false);
        assert!(
            relist
                .apply(&store, Event::InitApply((a, Entry("a", 1))), false)
                .is_empty(),
            "unchanged objects wake nobody"
        );
        assert_eq!(names(relist.apply(&store, Event::InitDone, false)), ["ns/b"]);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn the_echo_of_an_own_write_is_news_only_where_it_is_asked_for() {
        let (store, mut relist, a) = (Store::default(), Relist::default(), Key::new("ns", "a"));
        store.put(a.clone(), Arc::new(Entry("a", 2)));
        assert!(
            relist
                .apply(&store, Event::Apply((a.clone(), Entry("a", 2))), false)
                .is_empty()
        );
        assert_eq!(
            names(relist.apply(&store, Event::Apply((a.clone(), Entry("a", 2))), true)),
            ["ns/a"]
        );
        assert!(
            relist
                .apply(&store, Event::Apply((a, Entry("a", 1))), true)
                .is_empty(),
            "old news is no news"
        );
    }

    #[test]
    fn a_list_that_breaks_half_way_deletes_nothing() {
        let (store, mut relist) = (Store::default(), Relist::default());
        relist.apply(&store, Event::Apply((Key::new("ns", "a"), Entry("a", 1))), false);
        relist.apply(&store, Event::Init, false);
        relist.apply(&store, Event::Init, false);
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
        let (store, mut relist) = (Store::default(), Relist::default());
        let a = Key::new("ns", "a");
        relist.apply(&store, Event::Apply((a.clone(), Entry("a", 1))), false);
        relist.apply(&store, Event::Init, false);
        relist.undecodable(&store, a.clone(), broken("a"), false);
        assert!(relist.apply(&store, Event::InitDone, false).is_empty());
        assert_eq!(store.len(), 1);
        assert!(store.undecodable(&a).is_some());
        relist.apply(&store, Event::Apply((a.clone(), Entry("a", 2))), false);
        assert!(store.undecodable(&a).is_none(), "mended");
    }

    #[test]
    fn an_undecodable_object_is_kept_on_record_until_it_is_deleted() {
        let (store, mut relist) = (Store::<Entry>::default(), Relist::default());
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        relist.apply(&store, Event::Init, false);
        relist.undecodable(&store, a.clone(), broken("a"), false);
        relist.undecodable(&store, b.clone(), broken("b"), false);
        relist.apply(&store, Event::InitDone, false);
        assert!(store.undecodable(&a).is_some(), "also at the first list");
        relist.undecodable(&store, a.clone(), broken("a"), true);
        assert!(store.undecodable(&a).is_none());
        relist.apply(&store, Event::Init, false);
        relist.apply(&store, Event::InitDone, false);
        assert!(
            store.undecodable(&b).is_none(),
            "deleted while the watch was broken"
        );
    }
}
