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
