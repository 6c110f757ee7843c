//! What was made of each backup, kept up to date with each change: the worst first, the counts, and what is wrong where.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::health::Health;

/// Backups by state, in the order of [`Health::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Health::ALL.len()]);

impl Counts {
    /// Of one state.
    #[must_use]
    pub fn of(&self, health: Health) -> u64 {
        self.0.get(health as usize).copied().unwrap_or(0)
    }

    /// Of all states.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Of the states that fit.
    #[must_use]
    pub fn fitting(&self, fits: impl Fn(Health) -> bool) -> u64 {
        let states = Health::ALL.into_iter().filter(|health| fits(*health));
        states.map(|health| self.of(health)).sum()
    }

    /// One more.
    pub fn add(&mut self, health: Health) {
        if let Some(count) = self.0.get_mut(health as usize) {
            *count += 1;
        }
    }

    /// All of another count.
    pub fn merge(&mut self, other: &Counts) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    fn remove(&mut self, health: Health) {
        if let Some(count) = self.0.get_mut(health as usize) {
            *count -= 1;
        }
    }
}

/// Backups with one state for one reason, by place.
pub type Causes = OrdMap<(Health, Arc<str>), OrdSet<Arc<str>>>;

/// What was made of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    health: Health,
    /// Why, if it needs a person.
    cause: Option<Arc<str>>,
}

/// All backups as they were judged last.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Those that are not ok: most are, and stand in the order alone.
    of: OrdMap<Arc<str>, Verdict>,
    order: OrdSet<(Health, Arc<str>)>,
    total: Counts,
    clusters: OrdMap<Arc<str>, Counts>,
    causes: Causes,
}

impl Judged {
    /// The state of a backup.
    #[must_use]
    pub fn health(&self, place: &Arc<str>) -> Option<Health> {
        let other = self.of.get(place).map(|verdict| verdict.health);
        let ok = || self.order.contains(&(Health::Ok, place.clone()));
        other.or_else(|| ok().then_some(Health::Ok))
    }

    /// Why a backup needs a person; `None` when it does not.
    #[must_use]
    pub fn cause(&self, place: &str) -> Option<&Arc<str>> {
        self.of.get(place)?.cause.as_ref()
    }

    /// Counts of the whole fleet.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.total
    }

    /// Counts of a cluster.
    #[must_use]
    pub fn of_cluster(&self, cluster: &str) -> Counts {
        self.clusters.get(cluster).copied().unwrap_or_default()
    }

    /// What needs a person, worst first.
    #[must_use]
    pub fn causes(&self) -> &Causes {
        &self.causes
    }

    /// Places of the backups in a state, after one of them if it is given.
    pub fn in_state<'a>(
        &'a self,
        health: Health,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let first = match after {
            Some(after) => Bound::Excluded((health, Arc::from(after))),
            None => Bound::Included((health, Arc::from(""))),
        };
        let rest = self.order.range((first, Bound::Unbounded));
        rest.take_while(move |(of, _)| *of == health)
            .map(|(_, place)| place)
    }

    /// Notes a judgement. `cause` is given for what needs a person.
    pub(super) fn put(
        &mut self,
        cluster: &Arc<str>,
        place: &Arc<str>,
        health: Health,
        cause: Option<String>,
    ) {
        if self.health(place) == Some(health) && self.cause(place).map(|cause| &**cause) == cause.as_deref() {
            return;
        }
        self.remove(cluster, place);
        let cause: Option<Arc<str>> = cause.map(Arc::from);
        if let Some(cause) = &cause {
            let places = self.causes.entry((health, cause.clone())).or_default();
            places.insert(place.clone());
        }
        self.order.insert((health, place.clone()));
        self.total.add(health);
        self.clusters.entry(cluster.clone()).or_default().add(health);
        if health != Health::Ok {
            self.of.insert(place.clone(), Verdict { health, cause });
        }
    }

    /// A backup is gone.
    pub(super) fn remove(&mut self, cluster: &Arc<str>, place: &Arc<str>) {
        let known = self.of.remove(place);
        let Verdict { health, cause } = known.unwrap_or(Verdict {
            health: Health::Ok,
            cause: None,
        });
        if self.order.remove(&(health, place.clone())).is_none() {
            return;
        }
        self.total.remove(health);
        if let Some(counts) = self.clusters.get_mut(cluster) {
            counts.remove(health);
            if *counts == Counts::default() {
                self.clusters.remove(cluster);
            }
        }
        if let Some(cause) = cause {
            let key = (health, cause);
            if let Some(places) = self.causes.get_mut(&key) {
                places.remove(place);
                if places.is_empty() {
                    self.causes.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = (u8, Option<(usize, u8)>)> {
        (0u8..12, prop::option::of((0..Health::ALL.len(), 0u8..3)))
    }

    proptest! {
        /// Whatever happens: counts, order and causes are those of a count of everything.
        #[test]
        fn what_is_kept_is_what_a_count_gives(steps in prop::collection::vec(step(), 0..60)) {
            let mut judged = Judged::default();
            let mut model = std::collections::BTreeMap::new();
            let cluster = |n: u8| -> Arc<str> { format!("c{}", n % 3).into() };
            let place = |n: u8| -> Arc<str> { format!("{}/ns/{n}", cluster(n)).into() };
            for (n, verdict) in steps {
                match verdict {
                    Some((rank, cause)) => {
                        let health = Health::ALL[rank];
                        let cause = health.is_unsafe().then(|| format!("cause {cause}"));
                        judged.put(&cluster(n), &place(n), health, cause.clone());
                        model.insert(n, (health, cause));
                    }
                    None => {
                        judged.remove(&cluster(n), &place(n));
                        model.remove(&n);
                    }
                }
            }
            for health in Health::ALL {
                let mut wanted: Vec<Arc<str>> = model.iter().filter(|(_, v)| v.0 == health).map(|(n, _)| place(*n)).collect();
                wanted.sort();
                let found: Vec<Arc<str>> = judged.in_state(health, None).cloned().collect();
                prop_assert_eq!(&found, &wanted);
                prop_assert_eq!(judged.total().of(health), wanted.len() as u64);
                if let Some(first) = wanted.first() {
                    let after: Vec<Arc<str>> = judged.in_state(health, Some(first)).cloned().collect();
                    prop_assert_eq!(&after, &wanted[1..]);
                }
                for c in 0..3 {
                    let of = model.iter().filter(|(n, v)| v.0 == health && *n % 3 == c).count() as u64;
                    prop_assert_eq!(judged.of_cluster(&cluster(c)).of(health), of);
                }
            }
            let mut wanted: std::collections::BTreeMap<(Health, String), usize> = std::collections::BTreeMap::new();
            for (health, cause) in model.values() {
                if let Some(cause) = cause {
                    *wanted.entry((*health, cause.clone())).or_default() += 1;
                }
            }
            let found = judged.causes().iter().map(|((health, cause), places)| ((*health, cause.to_string()), places.len()));
            prop_assert_eq!(found.collect::<std::collections::BTreeMap<_, _>>(), wanted);
        }
    }
}
