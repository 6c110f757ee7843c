//! What is to be stored, and how much of it at once. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use prost::bytes::Bytes;

use super::{Inventory, Member, Place};
use crate::Millis;
use crate::store::replaced::{Replaced, Replacement};
use crate::store::runs::StoredRun;
use crate::store::{Batch, StoredDecision, StoredObject};

/// What has not been stored yet: the latest wins, so it is never more than there is to store.
#[derive(Clone, Debug, Default)]
pub struct Unsaved {
    /// Clusters whose facts or times changed.
    pub members: HashSet<Arc<str>>,
    /// Resources that changed, in the order of the table: a page of it is written once. `None` is deleted.
    pub objects: BTreeMap<Place, Option<Unwritten>>,
    /// Clusters whose name others have taken: what is stored of them is set aside before anything else is written.
    pub replaced: Vec<Replacement>,
    /// Policies have vanished, or one that had is settled.
    pub vanished: bool,
    /// What people decided about clusters: written with what it changes.
    pub decisions: Vec<StoredDecision>,
    /// Runs of backups that have ended, oldest first.
    pub runs: Vec<StoredRun>,
}

/// A state that has not been stored yet.
#[derive(Clone, Debug)]
pub struct Unwritten {
    pub baseline: Millis,
    pub state: Bytes,
}

impl Unsaved {
    /// Takes what one transaction is to write: all, or whole clusters of about `most` resources. A cluster's row says whether
    /// the resources that are stored are all, so both go together. A policy is known as vanished before it is gone.
    pub fn take(&mut self, most: usize) -> Unsaved {
        // A decision is written with what it changes, and what was before a cluster with what takes its place.
        if !self.decisions.is_empty() || !self.replaced.is_empty() {
            return std::mem::take(self);
        }
        let mut rest = self.objects.keys().skip(most).map(|(cluster, _)| cluster);
        let next = rest.next().and_then(|last| rest.find(|cluster| *cluster > last));
        let Some(next) = next.cloned() else {
            return std::mem::take(self);
        };
        let left = self.objects.split_off(&(next.clone(), Arc::default()));
        let has_some = |member: &Arc<str>| {
            let mut own = left.range((member.clone(), Arc::default())..);
            own.next().is_some_and(|((cluster, _), _)| cluster == member)
        };
        let stays = |member: &Arc<str>| *member >= next && has_some(member);
        let members = self.members.extract_if(|member| stays(member)).collect();
        let left = Unsaved {
            members,
            objects: left,
            ..Unsaved::default()
        };
        std::mem::replace(self, left)
    }

    /// Another cluster takes the name of one: what is stored of that, with what is not written yet, is set aside.
    pub fn replace(&mut self, name: &Arc<str>, of: Replaced) {
        let unwritten = unwritten(&self.objects, name);
        self.replaced.push(Replacement { of, unwritten });
    }

    /// The batch as of one moment: a cluster's row holds whether the objects that are stored with it are complete.
    #[must_use]
    pub fn batch(&self, inventory: &Inventory) -> Batch {
        let members = self.members.iter().filter_map(|name| inventory.member(name));
        let mut batch = Batch {
            clusters: members.map(Member::stored).collect(),
            vanished: self.vanished.then(|| inventory.stored_vanished()),
            replaced: self.replaced.clone(),
            decisions: self.decisions.clone(),
            runs: self.runs.clone(),
            ..Batch::default()
        };
        for ((cluster, uid), unwritten) in &self.objects {
            match unwritten {
                Some(unwritten) => batch.objects.push(StoredObject {
                    cluster: cluster.to_string(),
                    uid: uid.to_string(),
                    baseline: unwritten.baseline,
                    state: unwritten.state.clone(),
                }),
                None => batch.gone.push((cluster.to_string(), uid.to_string())),
            }
        }
        batch
    }

    /// Takes back what could not be stored; what changed since is newer and stays.
    pub fn give_back(&mut self, unsaved: Unsaved) {
        self.members.extend(unsaved.members);
        // What could not be stored belongs to what was set aside meanwhile.
        for replacement in &mut self.replaced {
            let name: Arc<str> = replacement.of.cluster.as_str().into();
            let older = unwritten(&unsaved.objects, &name);
            // The later one counts.
            replacement.unwritten.splice(..0, older);
        }
        let newer = std::mem::replace(&mut self.replaced, unsaved.replaced);
        self.replaced.extend(newer);
        for (key, state) in unsaved.objects {
            self.objects.entry(key).or_insert(state);
        }
        self.vanished |= unsaved.vanished;
        let newer = std::mem::replace(&mut self.decisions, unsaved.decisions);
        self.decisions.extend(newer);
        let newer = std::mem::replace(&mut self.runs, unsaved.runs);
        self.runs.extend(newer);
    }
}

/// What is not written yet of a cluster.
fn unwritten(objects: &BTreeMap<Place, Option<Unwritten>>, name: &Arc<str>) -> Vec<(String, Option<Bytes>)> {
    let its = objects.range((name.clone(), Arc::default())..);
    let its = its.take_while(|((cluster, _), _)| cluster == name);
    let its = its.map(|((_, uid), state)| {
        let state = state.as_ref().map(|unwritten| unwritten.state.clone());
        (uid.to_string(), state)
    });
    its.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters with so many resources each, and one that has a row only.
    fn unsaved(counts: &[(&str, usize)]) -> Unsaved {
        let mut unsaved = Unsaved::default();
        unsaved.members.insert("quiet".into());
        unsaved.vanished = true;
        for (cluster, count) in counts {
            unsaved.members.insert((*cluster).into());
            for number in 0..*count {
                let place = ((*cluster).into(), number.to_string().into());
                unsaved.objects.insert(place, None);
            }
        }
        unsaved
    }

    fn shape(unsaved: &Unsaved) -> (usize, Vec<String>, bool) {
        let mut members: Vec<String> = unsaved.members.iter().map(ToString::to_string).collect();
        members.sort();
        (unsaved.objects.len(), members, unsaved.vanished)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn clusters_are_taken_whole_and_in_order_until_nothing_is_left() {
        let mut all = unsaved(&[("a", 3), ("b", 3), ("c", 1)]);
        assert_eq!(shape(&all.take(4)), (6, names(&["a", "b", "quiet"]), true));
        assert_eq!(shape(&all.take(4)), (1, names(&["c"]), false));
        assert_eq!(shape(&all.take(4)), (0, vec![], false));
    }

    #[test]
    fn one_cluster_is_not_divided_and_a_decision_is_written_with_what_it_changes() {
        let mut all = unsaved(&[("a", 9)]);
        assert_eq!(shape(&all.take(4)), (9, names(&["a", "quiet"]), true));
        let mut all = unsaved(&[("a", 9), ("b", 9)]);
        all.decisions.push(StoredDecision::default());
        assert_eq!(shape(&all.take(4)).0, 18);
    }

    #[test]
    fn what_is_given_back_does_not_hide_what_is_newer() {
        let mut all = unsaved(&[("a", 2)]);
        let taken = all.take(9);
        let newer = Unwritten {
            baseline: 7,
            state: Bytes::default(),
        };
        all.objects.insert(("a".into(), "1".into()), Some(newer));
        all.give_back(taken);
        assert_eq!(shape(&all), (2, names(&["a", "quiet"]), true));
        assert!(all.objects[&("a".into(), "1".into())].is_some());
    }

    /// A write is under way when another cluster takes the name, and fails.
    #[test]
    fn what_could_not_be_stored_belongs_to_the_cluster_that_was_replaced_meanwhile() {
        let state = |byte: u8| {
            Some(Unwritten {
                baseline: 0,
                state: vec![byte].into(),
            })
        };
        let place = |cluster: &str, uid: &str| -> Place { (cluster.into(), uid.into()) };
        let mut all = unsaved(&[]);
        all.objects.insert(place("a", "x"), state(1));
        all.objects.insert(place("a", "y"), state(1));
        let taken = all.take(9);
        all.objects.insert(place("a", "y"), state(2));
        all.objects.insert(place("b", "z"), state(2));
        let of = Replaced {
            cluster: "a".to_owned(),
            ..Replaced::default()
        };
        all.replace(&"a".into(), of);
        for uid in ["x", "y"] {
            all.objects.insert(place("a", uid), None);
        }
        all.give_back(taken);
        let all = all.take(0);
        let [replaced] = &all.replaced[..] else {
            panic!("{:?}", all.replaced)
        };
        let states: BTreeMap<&str, Option<Bytes>> = replaced
            .unwritten
            .iter()
            .map(|(uid, state)| (uid.as_str(), state.clone()))
            .collect();
        assert_eq!(
            states,
            [("x", Some(vec![1].into())), ("y", Some(vec![2].into()))].into()
        );
    }
}
