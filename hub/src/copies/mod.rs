//! Copied repositories: one restic id in several stores. A *key* names a store everywhere in the hub: the restic id for the
//! first store, and the id with a number behind it for each other one. Spokes know restic ids alone, so [`wire`] translates
//! what they send and are sent. [`place`] decides in which store a cluster's repository lies, from what [`probe`] finds
//! (both pure).

pub mod place;
pub mod probe;
pub mod shown;
pub mod wire;

use std::sync::Arc;

use imbl::OrdMap;
use proto::plan::is_id;

/// Between a restic id and the number of a further store.
const MARK: char = '@';

/// The restic id of a key.
#[must_use]
pub fn restic_id(key: &str) -> &str {
    key.split(MARK).next().unwrap_or(key)
}

/// Whether a text is the key of a store.
#[must_use]
pub fn is_key(text: &str) -> bool {
    match text.split_once(MARK) {
        None => is_id(text),
        Some((id, number)) => {
            is_id(id)
                && number
                    .parse::<u32>()
                    .is_ok_and(|n| n > 1 && n.to_string() == number)
        }
    }
}

/// Number of the store of a key; 1 for the first.
fn number(key: &str) -> u32 {
    let number = key.split_once(MARK).and_then(|(_, number)| number.parse().ok());
    number.unwrap_or(1)
}

/// The store in which a cluster's repository lies, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub restic_id: Arc<str>,
    pub cluster: Arc<str>,
    /// Key of the store.
    pub store: Arc<str>,
    /// Locations of the cluster's resources for which it was found.
    pub urls: String,
}

/// All places that are known. Empty for a repository of which no cluster has shown another location than the others.
#[derive(Clone, Debug, Default)]
pub struct Places {
    of: OrdMap<Arc<str>, OrdMap<Arc<str>, Place>>,
}

impl Places {
    /// Key of the store in which the repository of a cluster lies; that of the first store where none was found.
    #[must_use]
    pub fn key(&self, cluster: &str, restic_id: &str) -> Arc<str> {
        match self.get(cluster, restic_id) {
            Some(place) => place.store.clone(),
            None => restic_id.into(),
        }
    }

    /// The place of a cluster's repository.
    #[must_use]
    pub fn get(&self, cluster: &str, restic_id: &str) -> Option<&Place> {
        self.of.get(restic_id)?.get(cluster)
    }

    /// All places of a restic id, by cluster.
    pub fn of(&self, restic_id: &str) -> impl Iterator<Item = &Place> {
        self.of.get(restic_id).into_iter().flat_map(OrdMap::values)
    }

    /// Takes a place in that was made durable.
    pub fn put(&mut self, place: Place) {
        let of = self.of.entry(place.restic_id.clone()).or_default();
        of.insert(place.cluster.clone(), place);
    }

    /// Restic ids of which places are known.
    pub fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.of.keys()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_restic_id_with_or_without_a_number() {
        let id = "a".repeat(64);
        for (text, key) in [
            (id.clone(), true),
            (format!("{id}@2"), true),
            (format!("{id}@17"), true),
            (format!("{id}@1"), false),
            (format!("{id}@02"), false),
            (format!("{id}@"), false),
            (format!("{id}@2@3"), false),
            ("a@2".to_owned(), false),
        ] {
            assert_eq!(is_key(&text), key, "{text}");
        }
        assert_eq!(
            (restic_id(&format!("{id}@2")), number(&format!("{id}@2"))),
            (id.as_str(), 2)
        );
        assert_eq!((restic_id(&id), number(&id)), (id.as_str(), 1));
    }
}
