//! Wakes the actors that read what changed, as listed in the [`table`](super::table). Each finds out what to do in its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::relist::Change;
use super::table::{self, Reader, Row};
use crate::exchange::says_it_waits;
use crate::kind::Kinds;
use crate::kind::{Cause, KindHandle};
use crate::queue::Places;
use crate::scripts::Scripts;
use crate::world::{Index, Key, Stored, World};

/// The supervisors that the intake wakes.
pub struct Routes {
    kinds: Kinds,
    scripts: Arc<Scripts>,
    queue: Arc<Places>,
    /// Closed until every type has been listed: a turn on half a world would draw wrong conclusions.
    open: AtomicBool,
}

impl Routes {
    /// Routes, still closed.
    #[must_use]
    pub fn new(kinds: Kinds, scripts: Arc<Scripts>, queue: Arc<Places>) -> Routes {
        Routes {
            kinds,
            scripts,
            queue,
            open: AtomicBool::new(false),
        }
    }

    /// Opens the routes.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// This replica leads: every resource gets its actor.
    pub fn lead(&self) {
        self.kinds.lead();
        self.scripts.poke();
    }

    /// This replica no longer leads. Resolves when no actor is left.
    pub async fn follow(&self) {
        self.kinds.follow().await;
    }

    /// Wake-ups may have been lost: everything is looked at.
    pub fn look_at_all(&self) {
        if self.is_open() {
            self.kinds.poke_all(Cause::Related);
            self.scripts.poke();
        }
    }

    /// Wakes the actor of one of our own resources that changed.
    pub fn resource<V: Stored>(&self, reader: Reader, change: &Change<V>) {
        let Some(kind) = self.kind(reader).filter(|_| self.is_open() && !change.echo) else {
            return;
        };
        match (&change.new, &change.old) {
            (Some(_), _) => kind.poke(change.key.clone(), Cause::Changed),
            (None, Some(old)) => kind.gone(change.key.clone(), old.uid().to_owned()),
            (None, None) => {}
        }
    }

    /// Wakes those that read a warning about a CronJob, a Job or a pod.
    pub fn notice(&self, world: &World, kind: Option<&str>, key: &Key) {
        match kind {
            Some("CronJob") => self.touched(world, table::CRON_JOB, key, world.cron_jobs.get(key)),
            Some("Job") => self.touched(world, table::JOB, key, world.jobs.get(key)),
            _ => self.touched(world, table::POD, key, world.pods.get(key)),
        }
    }

    /// Wakes those whose status shows how far a pod has come.
    pub fn progressed(&self, world: &World, pod: &Key) {
        self.touched(world, table::PROGRESS, pod, world.pods.get(pod));
    }

    fn touched<V>(&self, world: &World, rows: &[Row<V>], key: &Key, state: Option<Arc<V>>) {
        if let Some(state) = state {
            let change = Change::touched(key.clone(), state);
            self.readers(world, rows, &change);
        }
    }

    /// Wakes those that read what changed.
    pub fn readers<V>(&self, world: &World, rows: &[Row<V>], change: &Change<V>) {
        if !self.is_open() {
            return;
        }
        for (reader, key) in table::wakes(world, rows, change) {
            self.poke(reader, key);
        }
    }

    /// The certificate of this cluster or its name was read. `waits`: there is none, or it is not the configured one.
    pub fn named(&self, world: &World, waits: bool) {
        if !self.is_open() {
            return;
        }
        for (reader, key) in readers_of_name(world, waits) {
            self.poke(reader, key);
        }
    }

    /// Backups into a physical repository are to be held, or may go on.
    pub fn drained(&self, world: &World, restic_id: &str) {
        for repository in world.repositories.find(Index::ResticId, &Key::new("", restic_id)) {
            for backup in world.backups.find(Index::Group, &repository) {
                self.poke(Reader::Backups, backup);
            }
        }
    }

    /// Who collects the figures of a physical repository, or what was collected, has changed.
    pub fn collected(&self, world: &World, restic_id: &str) {
        for repository in world.repositories.find(Index::ResticId, &Key::new("", restic_id)) {
            self.poke(Reader::Repositories, repository);
        }
    }

    /// Nobody is appointed to read figures of repositories: each may be due here.
    pub fn unappointed(&self, world: &World) {
        for repository in world.repositories.keys() {
            self.poke(Reader::Repositories, repository);
        }
    }

    fn poke(&self, reader: Reader, key: Key) {
        match self.kind(reader) {
            Some(kind) => kind.poke(key, Cause::Related),
            None if reader == Reader::Queue => self.queue.moved(),
            None => self.scripts.poke(),
        }
    }

    /// Wakes backups.
    pub fn backups(&self, keys: Vec<Key>) {
        keys.into_iter().for_each(|key| self.poke(Reader::Backups, key));
    }

    /// Wakes the actor of a resource that a command of the hub is about.
    pub fn asked(&self, reader: Reader, key: Key) {
        if self.is_open() {
            self.poke(reader, key);
        }
    }

    fn kind(&self, reader: Reader) -> Option<&KindHandle> {
        Some(match reader {
            Reader::Repositories => &self.kinds.repositories,
            Reader::Backups => &self.kinds.backups,
            Reader::Restores => &self.kinds.restores,
            Reader::Policies => &self.kinds.policies,
            Reader::Operations => &self.kinds.operations,
            Reader::Scripts | Reader::Queue => return None,
        })
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

/// What maintenance is done for shows that it waits for a person: all of it while it does, and else what shows it still.
fn readers_of_name(world: &World, waits: bool) -> Vec<(Reader, Key)> {
    let shows = |conditions: Option<&Vec<Condition>>| {
        let mut conditions = conditions.into_iter().flatten();
        waits || conditions.any(says_it_waits)
    };
    let repositories = world
        .repositories
        .filter(|_, r| shows(r.status.as_ref().map(|s| &s.conditions)));
    let policies = world
        .policies
        .filter(|_, p| shows(p.status.as_ref().map(|s| &s.conditions)));
    let repositories = repositories
        .into_iter()
        .map(|(key, _)| (Reader::Repositories, key));
    let policies = policies.into_iter().map(|(key, _)| (Reader::Policies, key));
    repositories.chain(policies).collect()
}

#[cfg(test)]
mod tests {
    use crds::conditions::reasons;
    use crds::{GlobalRetentionPolicy, ResticRepository};
    use serde_json::json;

    use super::*;

    fn world(reason: &str) -> World {
        let world = World::default();
        let of = |kind: &str, name: &str, reason: &str, spec: serde_json::Value| {
            json!({
                "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind,
                "metadata": { "name": name, "namespace": "shop", "uid": name, "resourceVersion": "1" },
                "spec": spec,
                "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": reason, "message": "",
                                             "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
            })
        };
        let repository = json!({ "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } });
        let policy = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily",
                             "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] });
        for (name, reason) in [("one", reason), ("two", reasons::REPOSITORY_ACCESSIBLE)] {
            let repository: ResticRepository =
                serde_json::from_value(of("ResticRepository", name, reason, repository.clone())).unwrap();
            let policy: GlobalRetentionPolicy =
                serde_json::from_value(of("GlobalRetentionPolicy", name, reason, policy.clone())).unwrap();
            world
                .repositories
                .put(Key::new("shop", name), Arc::new(repository));
            world.policies.put(Key::new("shop", name), Arc::new(policy));
        }
        world
    }

    #[test]
    fn a_name_that_agrees_wakes_only_what_shows_another() {
        let one = Key::new("shop", "one");
        let fine = world(reasons::REPOSITORY_ACCESSIBLE);
        assert_eq!(readers_of_name(&fine, false), [], "the first session of a start");
        assert_eq!(readers_of_name(&fine, true).len(), 4);
        let said = world(reasons::CLUSTER_NAME_DIFFERS);
        assert_eq!(
            readers_of_name(&said, false),
            [(Reader::Repositories, one.clone()), (Reader::Policies, one)]
        );
    }
}
