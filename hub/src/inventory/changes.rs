//! What changed lately: the rows that each revision touched. Bounded; who fell too far behind compares everything.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use proto::v1::Collection;

/// Rows remembered. Twice a hundred thousand rows would cost more than comparing everything once.
const CAPACITY: usize = 65_536;

/// Rows that one revision touched.
type Touched = Arc<[(Collection, Arc<str>)]>;

/// A log of touched rows. A copy shares it.
#[derive(Clone, Debug)]
pub struct Changes {
    revision: u64,
    /// Changes up to this revision have been forgotten.
    forgotten: u64,
    log: OrdMap<u64, Touched>,
    /// Rows in it.
    rows: usize,
    pending: BTreeSet<(i32, Arc<str>)>,
    capacity: usize,
}

impl Changes {
    /// An empty log that begins at a revision.
    #[must_use]
    pub fn new(revision: u64) -> Self {
        Self {
            revision,
            forgotten: revision,
            log: OrdMap::new(),
            rows: 0,
            pending: BTreeSet::new(),
            capacity: CAPACITY,
        }
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Notes that a row may look different from the next revision on.
    pub fn touch(&mut self, collection: Collection, key: &Arc<str>) {
        self.pending.insert((collection.into(), key.clone()));
    }

    /// Makes one revision of all that was touched.
    pub fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.revision += 1;
        let touched = std::mem::take(&mut self.pending).into_iter();
        let touched = touched.map(|(of, key)| (Collection::try_from(of).unwrap_or_default(), key));
        let touched: Touched = touched.collect();
        self.rows += touched.len();
        self.log.insert(self.revision, touched);
        while self.rows > self.capacity {
            let Some((revision, touched)) = self.log.get_min().cloned() else {
                return;
            };
            self.log.remove(&revision);
            self.rows -= touched.len();
            self.forgotten = revision;
        }
    }

    /// Rows of a collection touched after a revision; `None` when that is too long ago.
    #[must_use]
    pub fn since(&self, revision: u64, collection: Collection) -> Option<BTreeSet<Arc<str>>> {
        if revision < self.forgotten {
            return None;
        }
        let newer = self.log.range((Bound::Excluded(revision), Bound::Unbounded));
        let touched = newer.flat_map(|(_, touched)| touched.iter());
        let touched = touched.filter(|(of, _)| *of == collection);
        Some(touched.map(|(_, key)| key.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(changes: &Changes, since: u64) -> Option<Vec<String>> {
        changes
            .since(since, Collection::Backups)
            .map(|keys| keys.iter().map(|key| key.to_string()).collect())
    }

    #[test]
    fn one_revision_for_all_that_belongs_together() {
        let mut changes = Changes::new(10);
        changes.publish();
        assert_eq!(changes.revision(), 10, "nothing happened");
        changes.touch(Collection::Backups, &"a".into());
        changes.touch(Collection::Backups, &"b".into());
        changes.touch(Collection::Backups, &"a".into());
        changes.touch(Collection::Clusters, &"c".into());
        changes.publish();
        changes.touch(Collection::Backups, &"b".into());
        changes.publish();
        assert_eq!(changes.revision(), 12);
        assert_eq!(touched(&changes, 10), Some(vec!["a".into(), "b".into()]));
        assert_eq!(touched(&changes, 11), Some(vec!["b".into()]));
        assert_eq!(touched(&changes, 12), Some(vec![]));
        assert_eq!(touched(&changes, 9), None, "before the log began");
    }

    #[test]
    fn forgets_whole_revisions() {
        let mut changes = Changes {
            capacity: 2,
            ..Changes::new(0)
        };
        for key in ["a", "b", "c"] {
            changes.touch(Collection::Backups, &key.into());
            changes.publish();
        }
        assert_eq!(touched(&changes, 0), None);
        assert_eq!(touched(&changes, 1), Some(vec!["b".into(), "c".into()]));
    }
}
