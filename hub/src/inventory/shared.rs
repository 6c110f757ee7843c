//! Values that many resources have in common, held once: a fleet has far fewer schedules and repositories than backups.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Values are looked through for unused ones after so many at least.
const FEW: usize = 1_024;

/// All values of one type.
#[derive(Debug)]
pub struct Shared<T>(Mutex<Known<T>>);

#[derive(Debug)]
struct Known<T> {
    values: HashSet<Arc<T>>,
    /// At so many values those that nothing uses any more are removed.
    limit: usize,
}

impl<T: Eq + Hash> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared(Mutex::new(Known {
            values: HashSet::new(),
            limit: FEW,
        }))
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// The one that equals a value.
    pub fn of(&self, value: T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.values.get(&value) {
            return known.clone();
        }
        if known.values.len() >= known.limit {
            known.values.retain(|value| Arc::strong_count(value) > 1);
            known.values.shrink_to_fit();
            known.limit = FEW.max(2 * known.values.len());
        }
        let value = Arc::new(value);
        known.values.insert(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_are_removed() {
        let shared = Shared::default();
        let first = shared.of("a".to_owned());
        assert!(Arc::ptr_eq(&first, &shared.of("a".to_owned())));
        for n in 0..10 * FEW {
            shared.of(n.to_string());
        }
        let known = shared.0.lock().unwrap();
        assert!(known.values.len() <= FEW, "{}", known.values.len());
        drop(known);
        assert!(Arc::ptr_eq(&first, &shared.of("a".to_owned())), "it is in use");
    }
}
