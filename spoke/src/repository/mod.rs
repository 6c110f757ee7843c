//! ResticRepository: opens the repository, creates it if there is none, reads its figures, and has left-over locks
//! removed. A look at a repository takes seconds to minutes: it is `Work`, and its answer is what the next plan has found.

mod answer;
mod behalf;
mod build;
mod changed;
mod check;
mod collect;
mod copied;
mod life;
mod locks;
mod owner;
mod plan;
mod read_only;
mod rotation;
mod status;
mod unlock;
mod validate;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{self, reasons, types};
use crds::{ResticRepository, ResticRepositoryStatus, names};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use proto::v1::RepositoryCopies;

use crate::config::Config;
use crate::exchange::{Collection, CommandedRun, Operation, Waits, running};
use crate::kind::{
    Announcement, Applied, Cache, Controller, Input, Plan, Settled, Task, Tools, Unreadable, announce,
    ready_changed,
};
use crate::restic::locks::LockFile;
use crate::restic::{Failure, Restic};
use crate::runs::progress::{self, Running};
use crate::secrets::Credentials;
use crate::site::Site;
use crate::world::{CronJobView, Index, JobView, Key, Store, World};

use answer::{Answer, Attempts, Inputs};
use collect::Collect;
use locks::Life;
use unlock::{Locks, Looked, Settings};
use validate::{Invalid, Valid};

pub use check::CheckOwner;
pub use owner::UnlockOwner;
pub use rotation::KeyOwner;

/// The kind: its settings, and restic.
pub struct RepositoryController {
    restic: Arc<dyn Restic>,
    /// Between two readings of statistics, unless a repository sets another.
    interval: Duration,
    plans: Planning,
}

/// What plans depend on beside the cluster.
#[derive(Clone)]
struct Planning {
    /// Shortest time between two attempts at a repository that does not open.
    retry: Duration,
    /// Image of the maintenance pods.
    image: String,
    /// Name of this cluster in the fleet.
    cluster: String,
    /// How long a retention run waits for restic's lock of others.
    retry_lock: String,
    locks: Settings,
}

/// What is remembered. Losing it costs one more look at the repository.
#[derive(Clone, Default)]
pub struct State {
    attempts: Attempts,
    locks: Locks,
}

/// What a look is to find.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// The repository with this restic id, which was there before.
    Known(String),
    /// A repository, or none: then one is created.
    AnyOrNew,
    /// A repository.
    Any,
}

/// What takes long.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Opens the repository, and reads its figures where this cluster does.
    Look {
        inputs: Inputs,
        expected: Expected,
        /// Locks that need not be read.
        known_locks: BTreeSet<String>,
        /// Which key the password opens is known.
        key_known: bool,
        /// Figures are read too; `None` where another cluster collects them.
        collect: Option<Collect>,
    },
    /// Looks at the locks alone.
    Locks { known: BTreeSet<String> },
}

/// What work finds.
pub enum Found {
    Answer(Box<Reply>),
    /// `None` if the look failed.
    Locks(Option<Looked>),
}

/// The answer of a look.
#[derive(Clone)]
pub struct Reply {
    inputs: Inputs,
    answer: Answer,
    /// The locks, where they could be listed.
    locks: Option<Looked>,
    /// Id of the key that the password opens, where it was asked for.
    key: Option<String>,
}

/// What a repository depends on.
#[derive(Default)]
pub struct Observed {
    /// resourceVersion of the Secret; `None` while there is none.
    secret: Option<String>,
    /// The lock is shared with other clusters.
    shared: bool,
    /// Who collects its figures.
    collection: Collection,
    /// What the hub has found out about other stores with its id; `None` for nothing yet.
    copies: Option<RepositoryCopies>,
    operations: Vec<Operation>,
    /// Checks, and retention runs for clusters that are away, that the hub's commands ask for.
    commands: Vec<CommandedRun>,
    /// The policies that such retention runs are for, by the uid of the Job.
    behalves: BTreeMap<String, String>,
    /// Since when a command of the hub asks for the removal of left-over locks.
    unlocking: Option<u64>,
    /// How far the Jobs of those that run have come.
    works: BTreeMap<Key, Running>,
    /// The CronJob of integrity checks.
    check_cron_job: Option<Arc<CronJobView>>,
    /// What a change of the password depends on.
    rotation: rotation::Seen,
    /// The Job that removes locks.
    job: Option<(Key, Arc<JobView>)>,
    /// Another ready resource for the same physical repository comes before this one by its name: the first removes
    /// locks.
    is_preceded: bool,
    /// When a run on this repository last failed.
    failed: Option<Timestamp>,
    /// What the cluster knows of the processes that hold locks, by their user and host.
    lives: BTreeMap<(String, String), Life>,
    /// Why all maintenance waits for a person: this cluster has no certificate, or one of another name.
    waits: Option<Waits>,
}

impl RepositoryController {
    /// Repositories of this cluster.
    #[must_use]
    pub fn new(site: &Site, restic: Arc<dyn Restic>, config: &Config) -> RepositoryController {
        RepositoryController {
            restic,
            interval: config.refresh_interval,
            plans: Planning {
                retry: config.retry_interval,
                image: config.image.clone(),
                cluster: site.cluster.clone(),
                retry_lock: config.maintenance_retry_lock.clone(),
                locks: Settings {
                    interval: millis(config.lock_interval),
                    after: millis(config.unlock_after),
                    after_end: millis(config.unlock_after_end()),
                    test: config.test_unlock_after.is_some(),
                },
            },
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Controller for RepositoryController {
    type Resource = ResticRepository;
    type Status = ResticRepositoryStatus;
    type Valid = Valid;
    type Refusal = Invalid;
    type Observed = Observed;
    type State = State;
    type Work = Work;
    type Found = Found;
    const NAME: &'static str = "ResticRepository";
    const OWNS_OPERATIONS: bool = true;

    fn store<'a>(&'a self, world: &'a World) -> &'a Store<ResticRepository> {
        &world.repositories
    }

    fn validate(&self, _: &Key, repository: &ResticRepository) -> Result<Valid, Invalid> {
        validate::validate(repository, self.interval)
    }

    fn observe(&self, cache: Cache<'_>, input: &Input<'_, Self>) -> Observed {
        let (world, key) = (cache.world, input.key);
        let secret = &input.resource.spec.credentials_secret_ref.name;
        let secret = world.secrets.get(&Key::new(&key.namespace, secret));
        let at = Key::new(&key.namespace, names::unlock_job(&key.name));
        let job = world.jobs.get(&at);
        let job = job.filter(|job| job.meta.owner.as_deref() == Some(input.uid()));
        let is_ready = |repository: &ResticRepository| {
            let status = repository.status.as_ref();
            status.is_some_and(|s| conditions::is_true(&s.conditions, types::READY))
        };
        let id = input.status().repository_id.map(|id| Key::new("", &id));
        let same = id.map(|id| world.repositories.by(Index::ResticId, &id));
        let mut same = same.into_iter().flatten();
        let life = |lock: &LockFile| {
            let holder = (lock.user.clone(), lock.host.clone());
            (
                holder,
                life::life(world, &self.plans.cluster, lock, input.now.wall),
            )
        };
        let operations = cache.operations.of(input.uid());
        Observed {
            secret: secret.map(|s| s.meta.version.to_string()),
            shared: cache.leases.is_shared(),
            works: progress::of_jobs(world, running(&operations)),
            behalves: behalf::policies(world, &operations),
            operations,
            commands: cache.commands.wanted(input.uid()),
            unlocking: cache.commands.unlocking(input.uid()).map(|asked| asked.since),
            copies: cache.copies.of(input.status().repository_id.as_deref()),
            collection: cache
                .collectors
                .of(input.status().repository_id.as_deref(), input.now.boot),
            job: job.map(|job| (at, job)),
            check_cron_job: check::cron_job(world, key, input.uid()),
            rotation: rotation::see(world, input),
            is_preceded: same.any(|(at, repository)| at < *key && is_ready(&repository)),
            failed: life::last_failure(world, key),
            lives: life::files(&input.state.locks, input.found).map(life).collect(),
            waits: cache
                .certificate
                .waits(&input.status().conditions, types::WAITING),
        }
    }

    fn plan(&self, input: &Input<'_, Self>, observed: &Observed) -> Plan<Self> {
        plan::plan(&self.plans, input, observed)
    }

    fn conclude(
        &self,
        input: &Input<'_, Self>,
        observed: &Observed,
        settled: &mut Settled<Self>,
        applied: &Applied,
    ) {
        if let Ok(Valid {
            check: Some(check), ..
        }) = input.valid
        {
            check::conclude(input, observed, check, applied, settled);
        }
        if let Some(refused) = &applied.refused {
            plan::conclude(&self.plans, input, settled, refused);
        }
    }

    fn events(old: &ResticRepositoryStatus, new: &ResticRepositoryStatus) -> Vec<Announcement> {
        events(old, new)
    }

    fn perform(
        &self,
        tools: Tools,
        task: Task<Work>,
        credentials: Result<Credentials, Unreadable>,
    ) -> BoxFuture<'static, Found> {
        let restic = self.restic.clone();
        async move { work::perform(restic.as_ref(), &tools, task.work, credentials).await }.boxed()
    }

    fn panicked(work: &Work) -> Found {
        match work {
            Work::Look { inputs, .. } => {
                let text = "looking at the repository failed; see the operator's log".to_owned();
                Found::Answer(Box::new(Reply {
                    inputs: inputs.clone(),
                    answer: Answer::Failed(Failure::Other(text)),
                    locks: None,
                    key: None,
                }))
            }
            Work::Locks { .. } => Found::Locks(None),
        }
    }
}

/// Transitions: what became of locks, steps of a change of the password, and Ready. Looking is none, and neither is the step from created to accessible.
fn events(old: &ResticRepositoryStatus, new: &ResticRepositoryStatus) -> Vec<Announcement> {
    let unlocked = |status: &ResticRepositoryStatus| status.last_unlock.clone().map(|last| last.job_uid);
    let degraded = |status: &ResticRepositoryStatus| {
        let condition = conditions::get(&status.conditions, types::DEGRADED)?;
        Some((condition.status.clone(), condition.reason.clone()))
    };
    let changed = (unlocked(old), degraded(old)) != (unlocked(new), degraded(new));
    let locks = conditions::get(&new.conditions, types::DEGRADED).filter(|_| changed);
    let locks = locks.map(|condition| announce(condition, condition.status != "True"));
    let step = |status: &ResticRepositoryStatus| {
        let shown = conditions::get(&status.conditions, types::PASSWORD_ROTATION);
        shown.map(|condition| condition.reason.clone())
    };
    let rotation =
        conditions::get(&new.conditions, types::PASSWORD_ROTATION).filter(|_| step(old) != step(new));
    let rotation =
        rotation.map(|condition| announce(condition, condition.reason != reasons::ROTATION_FAILED));
    let before = conditions::get(&old.conditions, types::READY).map(|c| c.reason.as_str());
    let created = before == Some(reasons::REPOSITORY_INITIALIZED);
    let quiet = |event: &Announcement| {
        let well = conditions::is_true(&new.conditions, types::READY);
        event.reason == reasons::CHECKING || (created && well)
    };
    let ready = ready_changed(&old.conditions, &new.conditions).filter(|event| !quiet(event));
    let ready = copied::changed(old, new).into_iter().chain(ready);
    let ready = behalf::announce(old, new).into_iter().chain(ready);
    locks.into_iter().chain(rotation).chain(ready).collect()
}

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod secret_tests;
