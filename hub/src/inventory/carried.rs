//! The last run of each repository, for the rows of policies whose clusters are away.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::v1::Collection;

use super::{Held, Inventory};
use crate::Millis;

/// A run that came to a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// When it ended.
    pub at: Millis,
    pub by: Arc<str>,
    /// Places of the policies that took part.
    policies: BTreeSet<String>,
}

impl Inventory {
    /// A run of a repository has come to a result; `policies` took part, by place.
    pub fn carry(&mut self, restic_id: &Arc<str>, (by, at): (&Arc<str>, Millis), policies: BTreeSet<String>) {
        let carried = Carried {
            at,
            by: by.clone(),
            policies,
        };
        self.carried.insert(restic_id.clone(), Arc::new(carried));
        let places: Vec<Arc<str>> = self
            .index
            .policies(restic_id)
            .filter(|held| self.fresh(&held.cluster).stale)
            .map(|held| held.place.clone())
            .collect();
        for place in &places {
            self.changes.touch(Collection::Policies, place);
        }
        self.changes.publish();
    }

    /// The last run of a policy's repository, if the policy took part and another cluster carried it out.
    #[must_use]
    pub fn carried_by_another(&self, held: &Held) -> Option<&Carried> {
        let carried = self.carried.get(held.policy()?.restic_id.as_str())?;
        (carried.by != held.cluster && carried.policies.contains(&*held.place)).then_some(carried)
    }
}
