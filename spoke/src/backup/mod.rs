//! ResticBackup: a CronJob that backs a volume up, and a status that shows what came of it. Pure, as all of a kind is:
//! `kind::Driver` carries the plans out.

mod arguments;
mod breaker;
pub mod build;
mod cache;
mod children;
mod commanded;
mod events;
mod hooks;
mod locate;
mod moved;
mod plan;
mod readiness;
mod result;
mod retention;
mod source;
mod stale;
mod status;
mod suspicion;
mod validate;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{self, types};
use crds::{GlobalRetentionPolicy, ResticBackup, ResticBackupStatus, ResticRepository, names};
use futures::future::BoxFuture;

use crate::consent;
use crate::exchange::CommandedRun;
use crate::hooks::follow;
use crate::kind::{
    Announcement, Applied, Cache, Controller, Input, Plan, Settled, Task, Tools, Unreadable,
    observed_generation,
};
use crate::queue::{self, Places, Turns};
use crate::runs::{self, JobWithPods, Words};
use crate::secrets::Credentials;
use crate::site::Site;
use crate::world::{CronJobView, Key, Store, World};

use validate::{Invalid, Valid};

/// The kind: what it knows of this installation.
pub struct BackupController {
    site: Site,
}

impl BackupController {
    /// Backups of this cluster.
    #[must_use]
    pub fn new(site: &Site) -> BackupController {
        BackupController { site: site.clone() }
    }
}

/// Of its parked runs.
fn turns(places: &Places, runs: &[JobWithPods]) -> Turns {
    let all = places.turns();
    let parked = runs.iter().filter(|run| queue::is_parked(&run.job));
    let own = parked.filter_map(|run| all.get_key_value(&*run.job.meta.uid));
    own.map(|(uid, turn)| (uid.clone(), turn.clone())).collect()
}

/// What a backup depends on.
#[derive(Default)]
pub struct Observed {
    repository: Option<Arc<ResticRepository>>,
    /// Labels of the backup's own namespace, if it is in the cache.
    labels: Option<Arc<BTreeMap<String, String>>>,
    source: locate::Surroundings,
    cron_job: Option<Arc<CronJobView>>,
    /// The object of the name that the backup's retention policy has.
    policy: Option<Arc<GlobalRetentionPolicy>>,
    runs: Vec<JobWithPods>,
    /// Runs with open hooks whose Jobs were deleted, and Jobs that make up for some.
    gone: Vec<JobWithPods>,
    made: Vec<JobWithPods>,
    /// By uid of its parked Jobs: whether they may begin.
    turns: Turns,
    /// Why the CronJob makes no Job, if that is so.
    refused: Option<Words>,
    /// Runs that the hub's commands ask for.
    commands: Vec<CommandedRun>,
    /// Maintenance of the repository is about to begin: no run starts for so long.
    held: Option<Duration>,
    /// The repository's owner does not consent any more, or the repository was deleted.
    consent_ended: bool,
}

impl Controller for BackupController {
    type Resource = ResticBackup;
    type Status = ResticBackupStatus;
    type Valid = Valid;
    type Refusal = Invalid;
    type Observed = Observed;
    type State = ();
    type Work = Infallible;
    type Found = Infallible;
    const NAME: &'static str = "ResticBackup";
    const FINALIZER: Option<&'static str> = Some("backup.resticbackup.io/resticbackup-finalizer");

    fn store<'a>(&'a self, world: &'a World) -> &'a Store<ResticBackup> {
        &world.backups
    }

    fn validate(&self, key: &Key, backup: &ResticBackup) -> Result<Valid, Invalid> {
        validate::validate(key, &self.site, backup)
    }

    fn observe(&self, cache: Cache<'_>, input: &Input<'_, Self>) -> Observed {
        let (world, key, valid) = (cache.world, input.key, input.valid.ok());
        let repository = valid.and_then(|valid| world.repositories.get(&valid.repository));
        let id = repository
            .as_ref()
            .and_then(|r| r.status.as_ref()?.repository_id.clone());
        let cron_job = Key::new(&key.namespace, names::backup_cron_job(&key.name));
        let cron_job = world.cron_jobs.get(&cron_job);
        let source = valid.map(|valid| locate::Surroundings::of(world, key, valid));
        let labels = world.namespaces.get(&Key::new("", &key.namespace));
        let last_words =
            conditions::get(&input.status().conditions, types::WAITING).map(|c| c.message.clone());
        let runs = jobs(world, key, cron_job.as_deref(), last_words.as_deref());
        let open = &input.status().open_hooks;
        let prefix = names::backup_service_account(&key.name);
        Observed {
            gone: follow::gone(world, &key.namespace, open, &runs),
            made: follow::made(world, &key.namespace, &prefix, open),
            labels: labels.map(|n| n.labels.clone()),
            source: source.unwrap_or_default(),
            turns: turns(cache.places, &runs),
            refused: cron_job
                .as_deref()
                .and_then(|cron_job| refused(world, key, cron_job, &runs)),
            runs,
            cron_job,
            policy: world
                .policies
                .get(&key.sibling(names::backup_retention(&key.name))),
            commands: cache.commands.wanted(input.uid()),
            held: id.and_then(|id| cache.leases.drain_left(&id)),
            consent_ended: consent::ended(world, key, &input.resource.spec.repository_ref),
            repository,
        }
    }

    fn plan(&self, input: &Input<'_, Self>, observed: &Observed) -> Plan<Self> {
        plan::plan(&self.site, input, observed)
    }

    fn conclude(
        &self,
        input: &Input<'_, Self>,
        observed: &Observed,
        settled: &mut Settled<Self>,
        applied: &Applied,
    ) {
        plan::conclude(input, observed, settled, applied);
        settled.status.observed_generation = observed_generation(&settled.status.conditions);
    }

    fn events(old: &ResticBackupStatus, new: &ResticBackupStatus) -> Vec<Announcement> {
        events::events(old, new)
    }

    fn perform(
        &self,
        _: Tools,
        task: Task<Infallible>,
        _: Result<Credentials, Unreadable>,
    ) -> BoxFuture<'static, Infallible> {
        match task.work {}
    }

    fn panicked(work: &Infallible) -> Infallible {
        match *work {}
    }
}

/// Jobs of a backup, those of a deleted namesake excepted.
fn jobs(
    world: &World,
    key: &Key,
    cron_job: Option<&CronJobView>,
    last_words: Option<&str>,
) -> Vec<JobWithPods> {
    let Some(cron_job) = cron_job else {
        return Vec::new();
    };
    let label = Key::new(&key.namespace, names::label_value(&key.name));
    let jobs = world.jobs.group(&label).into_iter();
    jobs.filter(|(_, job)| job.meta.owner.as_ref() == Some(&cron_job.meta.uid))
        .map(|(key, job)| JobWithPods {
            last_words: last_words.map(str::to_owned),
            ..JobWithPods::of(world, key, job)
        })
        .collect()
}

/// Why the CronJob makes no Job, if that is so.
fn refused(world: &World, key: &Key, cron_job: &CronJobView, jobs: &[JobWithPods]) -> Option<Words> {
    let created = jobs.iter().filter_map(|run| run.job.created);
    let last = created.chain(cron_job.last_schedule).max();
    let notice = world.notices.get(&cron_job.meta.uid);
    runs::not_created(&names::backup_cron_job(&key.name), notice.as_deref(), last)
}

#[cfg(test)]
mod plan_tests;
