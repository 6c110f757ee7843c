//! What needs a person besides the state of a backup, kept up to date with each change, grouped by cause.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::waits::Matter;

/// Resources that need a person for one reason, by place.
pub type Groups = OrdMap<(Matter, Arc<str>), OrdSet<Arc<str>>>;

/// Reasons for which a resource needs a person.
type Reasons = Arc<[(Matter, Arc<str>)]>;

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Matters {
    groups: Groups,
    /// What is wrong with a resource, by kind and place.
    of: OrdMap<(u8, Arc<str>), Reasons>,
    /// Sum of all groups.
    total: u64,
}

impl Matters {
    /// In the order in which they are shown.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// How many there are in all groups.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Notes what is wrong with a resource; nothing when it is well or gone.
    pub(super) fn put(&mut self, kind: u8, place: &Arc<str>, wrong: Vec<(Matter, String)>) {
        let key = (kind, place.clone());
        let known = self.of.get(&key).map_or(&[][..], |known| &**known);
        let alike = |(a, b): (&(Matter, Arc<str>), &(Matter, String))| a.0 == b.0 && *a.1 == *b.1;
        if known.len() == wrong.len() && known.iter().zip(&wrong).all(alike) {
            return;
        }
        for group in self.of.remove(&key).iter().flat_map(|groups| groups.iter()) {
            if let Some(places) = self.groups.get_mut(group) {
                self.total -= u64::from(places.remove(place).is_some());
                if places.is_empty() {
                    self.groups.remove(group);
                }
            }
        }
        if wrong.is_empty() {
            return;
        }
        let wrong: Arc<[(Matter, Arc<str>)]> = wrong.into_iter().map(|(m, why)| (m, why.into())).collect();
        for group in wrong.iter() {
            let places = self.groups.entry(group.clone()).or_default();
            self.total += u64::from(places.insert(place.clone()).is_none());
        }
        self.of.insert(key, wrong);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_stands_in_the_groups_of_what_is_wrong_with_it_now() {
        let mut matters = Matters::default();
        let (one, two): (Arc<str>, Arc<str>) = ("a/ns/nas".into(), "b/ns/nas".into());
        let wrong = |texts: &[(Matter, &str)]| texts.iter().map(|(m, t)| (*m, (*t).to_owned())).collect();
        matters.put(
            0,
            &one,
            wrong(&[(Matter::Damaged, "pack"), (Matter::Unready, "password")]),
        );
        matters.put(0, &two, wrong(&[(Matter::Unready, "password")]));
        // Another kind under the same name.
        matters.put(1, &one, wrong(&[(Matter::RestoreFailed, "password")]));
        let counts = |matters: &Matters| -> Vec<(Matter, usize)> {
            let groups = matters.groups().iter();
            groups
                .map(|((matter, _), places)| (*matter, places.len()))
                .collect()
        };
        let all = [
            (Matter::Damaged, 1),
            (Matter::Unready, 2),
            (Matter::RestoreFailed, 1),
        ];
        assert_eq!((counts(&matters), matters.total()), (all.to_vec(), 4));
        matters.put(0, &one, Vec::new());
        let left = [(Matter::Unready, 1), (Matter::RestoreFailed, 1)];
        assert_eq!((counts(&matters), matters.total()), (left.to_vec(), 2));
    }
}
