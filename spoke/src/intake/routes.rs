//! Who has to look again when an object changed. Rules only name keys; what to do is for the actors to find out.

use std::sync::atomic::{AtomicBool, Ordering};

use crds::backup::BackupResult;
use crds::restore::RestorePhase;
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore, names};

use crate::kind::{Cause, KindHandle};
use crate::root::Kinds;
use crate::scripts::Scripts;
use crate::world::{CronJobView, JobView, Key, MetaView, NamespaceView, PodView, Stored as _, World};

/// The supervisors that the intake wakes.
pub struct Routes {
    kinds: Kinds,
    scripts: std::sync::Arc<Scripts>,
    /// Closed until every type has been listed: a turn on half a world would draw wrong conclusions.
    open: AtomicBool,
}

impl Routes {
    /// Routes, still closed.
    #[must_use]
    pub fn new(kinds: Kinds, scripts: std::sync::Arc<Scripts>) -> Routes {
        Routes {
            kinds,
            scripts,
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

    pub fn repository(&self, world: &World, key: &Key, value: &ResticRepository) {
        self.resource(
            &self.kinds.repositories,
            key,
            value.uid(),
            world.repositories.get(key).is_some(),
        );
        self.users_of(world, key, |_| true);
        self.policies_of(world, key);
        self.open_restores(world, |_, _| true);
    }

    pub fn backup(&self, world: &World, key: &Key, value: &ResticBackup) {
        self.resource(
            &self.kinds.backups,
            key,
            value.uid(),
            world.backups.get(key).is_some(),
        );
        // What failed may have found a lock, or left one.
        let last = value.status.as_ref().and_then(|s| s.last_backup.as_ref());
        if last.is_some_and(|run| run.result == BackupResult::Failed) {
            let reference = &value.spec.repository_ref;
            self.look_at_repository(reference.namespace_or(&key.namespace), &reference.name);
        }
        // Restores wait for a backup to appear, not for each of its status writes.
        self.waiting_restores(world, |at, restore| {
            let reference = restore.spec.backup_ref.as_ref();
            reference
                .is_some_and(|r| *r.name == *key.name && r.namespace_or(&at.namespace) == &*key.namespace)
        });
        if self.is_open() {
            self.scripts.poke();
        }
    }

    pub fn restore(&self, world: &World, key: &Key, value: &ResticRestore) {
        self.resource(
            &self.kinds.restores,
            key,
            value.uid(),
            world.restores.get(key).is_some(),
        );
        if self.is_open() {
            self.scripts.poke();
        }
    }

    pub fn policy(&self, world: &World, key: &Key, value: &GlobalRetentionPolicy) {
        let present = world.policies.get(key).is_some();
        self.resource(&self.kinds.policies, key, value.uid(), present);
        let last = value.status.as_ref().and_then(|s| s.last_run_result.as_deref());
        if matches!(last, Some("Failed" | "Interrupted")) {
            let reference = &value.spec.repository_ref;
            self.look_at_repository(reference.namespace_or(&key.namespace), &reference.name);
        }
    }

    /// What the hub says of this cluster's name has changed: everything that maintenance is done for says so.
    pub fn renamed(&self, world: &World) {
        if !self.is_open() {
            return;
        }
        for (repository, _) in world.repositories.filter(|_, _| true) {
            self.kinds.repositories.poke(repository, Cause::Related);
        }
        for (policy, _) in world.policies.filter(|_, _| true) {
            self.kinds.policies.poke(policy, Cause::Related);
        }
    }

    /// Backups into a physical repository are to be held, or may go on.
    pub fn drained(&self, world: &World, restic_id: &str) {
        let bound = world.repositories.filter(|_, repository| {
            let id = repository
                .status
                .as_ref()
                .and_then(|s| s.repository_id.as_deref());
            id == Some(restic_id)
        });
        for (repository, _) in bound {
            let users = world.backups.group(&repository).into_iter();
            self.poke_backups(users.map(|(backup, _)| backup));
        }
    }

    pub fn cron_job(&self, world: &World, key: &Key, value: &CronJobView) {
        self.owner(world, key, value.meta.owner_name.as_ref());
    }

    pub fn owned(&self, world: &World, key: &Key, value: &MetaView) {
        self.owner(world, key, value.meta.owner_name.as_ref());
    }

    pub fn job(&self, world: &World, key: &Key, value: &JobView) {
        if value.type_.is_some() {
            self.operation(key.clone());
        }
        self.made_for(world, key, value.meta.owner_name.as_ref(), value.of.as_ref());
    }

    /// Pods are owned by a Job, and that by what they were made for.
    pub fn pod(&self, world: &World, key: &Key, value: &PodView) {
        let job = value
            .meta
            .owner_name
            .as_ref()
            .map(|(_, name)| Key::new(&key.namespace, name));
        if let Some(job) = job.as_ref().filter(|_| value.token.is_some()) {
            self.operation(job.clone());
        }
        let job = job.and_then(|job| world.jobs.get(&job));
        let owner = job.as_ref().and_then(|job| job.meta.owner_name.as_ref());
        self.made_for(world, key, owner, value.of.as_ref());
    }

    pub fn config_map(&self, _: &World, _: &Key, _: &MetaView) {
        if self.is_open() {
            self.scripts.poke();
        }
    }

    /// Credentials: the repositories that name the Secret, and those that get a projection of it.
    pub fn secret(&self, world: &World, key: &Key, value: &MetaView) {
        if !self.is_open() {
            return;
        }
        self.owner(world, key, value.meta.owner_name.as_ref());
        let users = world.repositories.filter(|at, repository| {
            at.namespace == key.namespace && *repository.spec.credentials_secret_ref.name == *key.name
        });
        for (repository, _) in users {
            self.policies_of(world, &repository);
            self.users_of(world, &repository, |backup| {
                backup.namespace != repository.namespace
            });
            self.kinds.repositories.poke(repository, Cause::Related);
        }
    }

    pub fn claim(&self, world: &World, key: &Key, _: &MetaView) {
        if !self.is_open() {
            return;
        }
        let users = world.backups.filter(|at, backup| {
            at.namespace == key.namespace
                && backup
                    .spec
                    .source
                    .pvc
                    .as_ref()
                    .is_some_and(|pvc| *pvc.claim_name == *key.name)
        });
        self.poke_backups(users.into_iter().map(|(backup, _)| backup));
        self.open_restores(world, |at, _| at.namespace == key.namespace);
    }

    /// Labels of a namespace decide whether its backups may use a repository elsewhere.
    pub fn namespace(&self, world: &World, key: &Key, _: &NamespaceView) {
        if !self.is_open() {
            return;
        }
        let users = world.backups.filter(|at, backup| {
            *at.namespace == *key.name
                && backup.spec.repository_ref.namespace_or(&at.namespace) != &*at.namespace
        });
        self.poke_backups(users.into_iter().map(|(backup, _)| backup));
        self.open_restores(world, |at, _| *at.namespace == *key.name);
        let policies = world.policies.filter(|at, policy| {
            *at.namespace == *key.name
                && policy.spec.repository_ref.namespace_or(&at.namespace) != &*at.namespace
        });
        for (policy, _) in policies {
            self.kinds.policies.poke(policy, Cause::Related);
        }
    }

    fn operation(&self, job: Key) {
        if self.is_open() {
            self.kinds.operations.poke(job, Cause::Related);
        }
    }

    fn policies_of(&self, world: &World, repository: &Key) {
        if self.is_open() {
            for (policy, _) in world.policies.group(repository) {
                self.kinds.policies.poke(policy, Cause::Related);
            }
        }
    }

    /// Restores that have not begun yet: few, and soon none.
    fn waiting_restores(&self, world: &World, take: impl Fn(&Key, &ResticRestore) -> bool) {
        let pending = |phase: Option<RestorePhase>| phase.is_none_or(|phase| phase == RestorePhase::Pending);
        self.poke_restores(world, pending, take);
    }

    /// Restores that have not ended: one whose pod has not started loses its claim, or the consent that it needs.
    fn open_restores(&self, world: &World, take: impl Fn(&Key, &ResticRestore) -> bool) {
        let ended = |phase| matches!(phase, Some(RestorePhase::Completed | RestorePhase::Failed));
        self.poke_restores(world, |phase| !ended(phase), take);
    }

    fn poke_restores(
        &self,
        world: &World,
        phase: impl Fn(Option<RestorePhase>) -> bool,
        take: impl Fn(&Key, &ResticRestore) -> bool,
    ) {
        if !self.is_open() {
            return;
        }
        let wanted = |at: &Key, restore: &ResticRestore| {
            phase(restore.status.as_ref().and_then(|s| s.phase)) && take(at, restore)
        };
        for (key, _) in world.restores.filter(wanted) {
            self.kinds.restores.poke(key, Cause::Related);
        }
    }

    fn look_at_repository(&self, namespace: &str, name: &str) {
        if self.is_open() {
            let repository = Key::new(namespace, name);
            self.kinds.repositories.poke(repository, Cause::Related);
        }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn resource(&self, kind: &KindHandle, key: &Key, uid: &str, present: bool) {
        if !self.is_open() {
            return;
        }
        if present {
            kind.poke(key.clone(), Cause::Changed);
        } else {
            kind.gone(key.clone(), uid.to_owned());
        }
    }

    fn users_of(&self, world: &World, repository: &Key, take: impl Fn(&Key) -> bool) {
        if self.is_open() {
            let users = world
                .backups
                .group(repository)
                .into_iter()
                .map(|(backup, _)| backup);
            self.poke_backups(users.filter(|backup| take(backup)));
        }
    }

    fn owner(&self, _: &World, key: &Key, owner: Option<&(Box<str>, Box<str>)>) {
        if !self.is_open() {
            return;
        }
        match owner {
            Some((kind, name)) if &**kind == "ResticBackup" => {
                self.kinds
                    .backups
                    .poke(Key::new(&key.namespace, name), Cause::Related);
            }
            Some((kind, name)) if &**kind == "ResticRestore" => {
                self.kinds
                    .restores
                    .poke(Key::new(&key.namespace, name), Cause::Related);
            }
            Some((kind, name)) if &**kind == "GlobalRetentionPolicy" => {
                self.kinds
                    .policies
                    .poke(Key::new(&key.namespace, name), Cause::Related);
            }
            Some((kind, name)) if &**kind == "ResticRepository" => {
                self.kinds
                    .repositories
                    .poke(Key::new(&key.namespace, name), Cause::Related);
            }
            _ => {}
        }
    }

    fn made_for(&self, world: &World, key: &Key, owner: Option<&(Box<str>, Box<str>)>, of: Option<&Key>) {
        match owner {
            // Owned by the resource itself.
            Some((kind, _)) if matches!(&**kind, "ResticRestore" | "ResticRepository") => {
                self.owner(world, key, owner);
            }
            _ => self.labelled(world, of),
        }
    }

    /// Jobs and pods of a backup or a policy name it by a label, which is cut and hashed when the name is long. A
    /// backup and a policy of one name both look: one of them finds nothing.
    fn labelled(&self, world: &World, of: Option<&Key>) {
        let Some(label) = of.filter(|_| self.is_open()) else {
            return;
        };
        let long = |key: &Key| {
            key.namespace == label.namespace
                && key.name.len() > names::LABEL_MAX
                && *names::label_value(&key.name) == *label.name
        };
        if world.backups.get(label).is_some() {
            self.kinds.backups.poke(label.clone(), Cause::Related);
        } else {
            let long = world.backups.filter(|key, _| long(key));
            self.poke_backups(long.into_iter().map(|(key, _)| key));
        }
        if world.policies.get(label).is_some() {
            self.kinds.policies.poke(label.clone(), Cause::Related);
        } else {
            for (key, _) in world.policies.filter(|key, _| long(key)) {
                self.kinds.policies.poke(key, Cause::Related);
            }
        }
    }

    fn poke_backups(&self, keys: impl Iterator<Item = Key>) {
        for key in keys {
            self.kinds.backups.poke(key, Cause::Related);
        }
    }
}
