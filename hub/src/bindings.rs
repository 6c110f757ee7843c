//! Which cluster is bound to which repository. Pure: a table, and what happens to it.
//!
//! The first cluster that reports a repository is bound to it. Every other one is pending until it has shown the key that
//! only who can open the repository has, or until a person accepts it.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::Millis;
use crate::authorize::Refusal;

/// Repositories that one cluster may be bound to.
const PER_CLUSTER: usize = 10_000;

/// Where a binding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The cluster may use and maintain it.
    Bound,
    /// It is shown, and nothing more.
    Pending,
    /// A person has ended it; only a person begins it again.
    Ended,
}

impl State {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Bound => "bound",
            State::Pending => "pending",
            State::Ended => "ended",
        }
    }

    /// As it was stored. A state that is not known gives no rights, as an ended binding.
    #[must_use]
    pub fn parse(text: &str) -> State {
        match text {
            "bound" => State::Bound,
            "pending" => State::Pending,
            _ => State::Ended,
        }
    }
}

/// One cluster and one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub restic_id: Arc<str>,
    pub cluster: Arc<str>,
    pub state: State,
    /// Why it stands so, for people.
    pub how: String,
    pub since: Millis,
    /// The cluster has shown the repository's key.
    pub proven: bool,
}

/// The public half of a repository's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub restic_id: Arc<str>,
    pub public_key: Vec<u8>,
    /// Who showed it first.
    pub cluster: Arc<str>,
    pub since: Millis,
    /// Who showed another one: an alarm for people, and no decision. Empty if nobody did.
    pub rival: String,
}

/// What a proof with a valid signature changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The binding, and the key if it is the repository's first.
    Proven(Binding, Option<Key>),
    /// The cluster waits, and there is no key yet to compare with.
    Early,
    /// It is another key than the one that is known.
    Rival(Key),
}

/// All bindings. A copy shares them.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    repositories: OrdMap<Arc<str>, OrdMap<Arc<str>, Arc<Binding>>>,
    keys: OrdMap<Arc<str>, Arc<Key>>,
    /// Repositories of each cluster.
    clusters: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
}

impl Bindings {
    /// The binding of a cluster to a repository.
    #[must_use]
    pub fn get(&self, cluster: &str, restic_id: &str) -> Option<&Binding> {
        self.repositories.get(restic_id)?.get(cluster).map(AsRef::as_ref)
    }

    /// Whether a cluster is bound to a repository.
    #[must_use]
    pub fn is_bound(&self, cluster: &str, restic_id: &str) -> bool {
        self.get(cluster, restic_id)
            .is_some_and(|binding| binding.state == State::Bound)
    }

    /// All bindings of a repository, by cluster.
    pub fn of(&self, restic_id: &str) -> impl Iterator<Item = &Binding> {
        self.repositories
            .get(restic_id)
            .into_iter()
            .flat_map(OrdMap::values)
            .map(AsRef::as_ref)
    }

    /// Clusters that are bound to a repository.
    pub fn bound(&self, restic_id: &str) -> impl Iterator<Item = &Arc<str>> {
        let bound = self.of(restic_id).filter(|b| b.state == State::Bound);
        bound.map(|b| &b.cluster)
    }

    /// All bindings of a cluster.
    pub fn of_cluster<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Binding> {
        let ids = self.clusters.get(cluster).into_iter().flatten();
        ids.filter_map(move |id| self.get(cluster, id))
    }

    /// The key of a repository.
    #[must_use]
    pub fn key(&self, restic_id: &str) -> Option<&Key> {
        self.keys.get(restic_id).map(AsRef::as_ref)
    }

    /// Takes a binding in that was made durable.
    pub fn put(&mut self, binding: Binding) {
        let ids = self.clusters.entry(binding.cluster.clone()).or_default();
        ids.insert(binding.restic_id.clone());
        let of = self.repositories.entry(binding.restic_id.clone()).or_default();
        of.insert(binding.cluster.clone(), Arc::new(binding));
    }

    /// The binding of a cluster is to another store of the same restic id, which has the same key of restic. Made durable
    /// before.
    pub fn move_to(&mut self, cluster: &str, from: &str, to: &Arc<str>) {
        let known = self
            .keys
            .get(from)
            .filter(|_| !self.keys.contains_key(to))
            .cloned();
        if let Some(key) = known {
            self.put_key(Key {
                restic_id: to.clone(),
                ..(*key).clone()
            });
        }
        let binding = self.repositories.get_mut(from).and_then(|of| of.remove(cluster));
        if let Some(ids) = self.clusters.get_mut(cluster) {
            ids.remove(from);
        }
        if let Some(binding) = binding {
            self.put(Binding {
                restic_id: to.clone(),
                ..(*binding).clone()
            });
        }
    }

    /// Repositories to which more than one cluster is bound.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<str>> {
        let all = self.repositories.iter();
        let shared = all.filter(|(_, of)| {
            let bound = of.values().filter(|binding| binding.state == State::Bound);
            bound.take(2).count() > 1
        });
        shared.map(|(id, _)| id)
    }

    /// Takes a key in that was made durable.
    pub fn put_key(&mut self, key: Key) {
        self.keys.insert(key.restic_id.clone(), Arc::new(key));
    }

    /// A cluster reports that it uses a repository: the binding to keep, if it is a new one.
    ///
    /// # Errors
    /// When it uses too many.
    pub fn reported(
        &self,
        cluster: &Arc<str>,
        restic_id: &str,
        now: Millis,
    ) -> Result<Option<Binding>, Refusal> {
        if self.get(cluster, restic_id).is_some() {
            return Ok(None);
        }
        if self
            .clusters
            .get(cluster)
            .is_some_and(|ids| ids.len() >= PER_CLUSTER)
        {
            return Err(Refusal::TooMany("repositories"));
        }
        let first = !self.of(restic_id).any(|other| other.state != State::Ended);
        let (state, how) = if first {
            (State::Bound, "the first cluster that reported it")
        } else {
            (
                State::Pending,
                "other clusters use the repository, and this one has not shown yet that it can open it",
            )
        };
        Ok(Some(Binding {
            restic_id: restic_id.into(),
            cluster: cluster.clone(),
            state,
            how: how.to_owned(),
            since: now,
            proven: false,
        }))
    }

    /// A cluster has signed with this key.
    ///
    /// # Errors
    /// When it has no binding that a proof could change.
    pub fn proved(
        &self,
        cluster: &str,
        restic_id: &str,
        public_key: &[u8],
        now: Millis,
    ) -> Result<Proof, Refusal> {
        let binding = self.get(cluster, restic_id).ok_or(Refusal::NotBound)?;
        if binding.state == State::Ended {
            return Err(Refusal::Ended);
        }
        let mut proven = Binding {
            proven: true,
            ..binding.clone()
        };
        match self.key(restic_id) {
            None if binding.state == State::Pending => Ok(Proof::Early),
            None => {
                let key = Key {
                    restic_id: binding.restic_id.clone(),
                    public_key: public_key.to_vec(),
                    cluster: binding.cluster.clone(),
                    since: now,
                    rival: String::new(),
                };
                Ok(Proof::Proven(proven, Some(key)))
            }
            Some(key) if key.public_key == public_key => {
                if proven.state == State::Pending {
                    proven.state = State::Bound;
                    "it has shown that it can open the repository".clone_into(&mut proven.how);
                    proven.since = now;
                }
                Ok(Proof::Proven(proven, None))
            }
            Some(key) => Ok(Proof::Rival(Key {
                rival: format!(
                    "clusters {} and {cluster} have different keys under this id",
                    key.cluster
                ),
                ..key.clone()
            })),
        }
    }

    /// A person decides: the binding to keep, and its state before.
    ///
    /// # Errors
    /// Why there is nothing to decide.
    pub fn decided(
        &self,
        cluster: &str,
        restic_id: &str,
        accept: bool,
        who: &str,
        now: Millis,
    ) -> Result<(Binding, State), &'static str> {
        let binding = self
            .get(cluster, restic_id)
            .ok_or("the cluster has not reported this repository")?;
        let state = if accept { State::Bound } else { State::Ended };
        if binding.state == state {
            return Err(if accept {
                "the cluster is bound to it already"
            } else {
                "the binding has ended already"
            });
        }
        let how = if accept {
            format!("accepted by {who}")
        } else {
            format!("ended by {who}")
        };
        let decided = Binding {
            state,
            how,
            since: now,
            ..binding.clone()
        };
        Ok((decided, binding.state))
    }
}

#[cfg(test)]
#[path = "bindings_tests.rs"]
mod tests;
