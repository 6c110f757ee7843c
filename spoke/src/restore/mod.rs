//! ResticRestore: brings a snapshot back, once. Pending until everything it names is there and its snapshot is known,
//! InProgress while its Job runs, then Completed or Failed for good. An operator that restarts at any point finds in the
//! status and in the Job itself where it was.

mod arguments;
mod build;
mod hooks;
mod outcome;
mod plan;
mod select;
mod size;
mod status;
mod surroundings;
mod target;
mod user;
mod validate;
mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::common::CrossNamespaceObjectReference;
use crds::conditions::{self, reasons, types};
use crds::restore::RestorePhase;
use crds::{ResticBackup, ResticRepository, ResticRestore, ResticRestoreStatus, names};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::config::Config;
use crate::consent;
use crate::events::Severity;
use crate::hooks::follow;
use crate::kind::{
    Announcement, Applied, Cache, Controller, Input, Plan, Settled, Task, Tools, Unreadable, ready_changed,
};
use crate::restic::Restic;
use crate::runs::JobWithPods;
use crate::secrets::Credentials;
use crate::site::Site;
use crate::world::{ClaimView, Key, Store, World};

pub use arguments::arguments;
use select::{Chosen, Identity, NotChosen};
use validate::{Invalid, Origin, Valid, Wanted};

/// The kind: its settings, and restic.
pub struct RestoreController {
    restic: Arc<dyn Restic>,
    plans: Planning,
}

/// What plans depend on beside the cluster.
struct Planning {
    site: Site,
    /// Between two attempts at a repository that does not answer.
    retry: Duration,
}

/// What is remembered. Losing it costs one more look at the list of snapshots.
#[derive(Clone, Default)]
pub struct State {
    /// Not before this time; the repository did not answer.
    wait_until: Option<Timestamp>,
}

/// What takes long.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Reads the list of snapshots and chooses.
    Select(Selection),
}

/// Which snapshot is looked for, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// ResticRepository, and its restic id.
    repository: (Key, Option<String>),
    wanted: Wanted,
    identity: Option<Identity>,
}

/// What work finds. The spec may be another one by then.
#[derive(Clone, Debug)]
pub struct Found {
    asked: Selection,
    answer: Answer,
}

/// The snapshot that is meant, or why there is none.
#[derive(Clone, Debug)]
pub enum Answer {
    Chosen(Result<Chosen, NotChosen>),
    /// The repository could not be asked.
    Unanswered(String),
}

/// What a restore depends on.
#[derive(Default)]
pub struct Observed {
    /// The Job of this very restore, and its pods.
    job: Option<JobWithPods>,
    /// The same, with open hooks, when it was deleted; and the Job that makes up for some.
    gone: Vec<JobWithPods>,
    made: Vec<JobWithPods>,
    /// The backup that is restored from, if the restore names one.
    backup: Option<Arc<ResticBackup>>,
    /// The repository that is restored from, as far as it is known.
    at: Option<Key>,
    repository: Option<Arc<ResticRepository>>,
    /// Labels of the restore's own namespace.
    labels: Option<Arc<BTreeMap<String, String>>>,
    /// The claim of the target's name.
    claim: Option<Arc<ClaimView>>,
    /// Secret with the credentials of a repository that a template of its hooks refers to.
    key_in_hooks: Option<String>,
    /// There is a copy of the credentials that this restore owns.
    has_copy: bool,
    /// The repository's owner does not consent any more, or the repository was deleted.
    consent_ended: bool,
}

impl Observed {
    /// Hooks are asked for, or are not known to have ended.
    fn has_hooks(&self, input: &Input<'_, RestoreController>) -> bool {
        let given = input.valid.is_ok_and(|valid| valid.hooks.is_some());
        let run = self.job.as_ref().is_some_and(|run| run.job.hooks.is_some());
        given || run || !input.status().open_hooks.is_empty()
    }
}

/// Why a restore cannot begin yet.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    reason: &'static str,
    message: String,
}

impl RestoreController {
    /// Restores of this cluster.
    #[must_use]
    pub fn new(site: &Site, restic: Arc<dyn Restic>, config: &Config) -> RestoreController {
        RestoreController {
            restic,
            plans: Planning {
                site: site.clone(),
                retry: config.retry_interval,
            },
        }
    }
}

impl Controller for RestoreController {
    type Resource = ResticRestore;
    type Status = ResticRestoreStatus;
    type Valid = Valid;
    type Refusal = Invalid;
    type Observed = Observed;
    type State = State;
    type Work = Work;
    type Found = Found;
    const NAME: &'static str = "ResticRestore";
    const FINALIZER: Option<&'static str> = Some("backup.resticbackup.io/resticrestore-finalizer");

    fn store<'a>(&'a self, world: &'a World) -> &'a Store<ResticRestore> {
        &world.restores
    }

    fn validate(&self, key: &Key, restore: &ResticRestore) -> Result<Valid, Invalid> {
        validate::validate(key, restore)
    }

    fn observe(&self, cache: Cache<'_>, input: &Input<'_, Self>) -> Observed {
        let (world, key, valid) = (cache.world, input.key, input.valid.ok());
        let at = |name: String| Key::new(&key.namespace, name);
        let is_its = |owner: Option<&str>| owner == Some(input.uid());
        let place = at(names::restore_job(&key.name));
        let job = world.jobs.get(&place);
        let job = job.filter(|job| is_its(job.meta.owner.as_deref()));
        let last_words =
            conditions::get(&input.status().conditions, types::WAITING).map(|c| c.message.clone());
        let copy = world.secrets.get(&at(names::restore_credentials(&key.name)));
        let (backup, repository) = valid.map_or((None, None), |valid| origin(world, valid));
        let claim = valid.and_then(|valid| world.claims.get(&at(valid.target.name().to_owned())));
        let labels = world.namespaces.get(&Key::new("", &key.namespace));
        let reference = repository.as_ref().map(|at| CrossNamespaceObjectReference {
            name: at.name.to_string(),
            namespace: Some(at.namespace.to_string()),
        });
        let job = job.map(|job| JobWithPods {
            last_words,
            ..JobWithPods::of(world, place, job)
        });
        let open = &input.status().open_hooks;
        let prefix = names::restore_service_account(&key.name);
        Observed {
            gone: follow::gone(world, &key.namespace, open, job.as_slice()),
            made: follow::made(world, &key.namespace, &prefix, open),
            job,
            backup,
            repository: repository.as_ref().and_then(|at| world.repositories.get(at)),
            at: repository,
            labels: labels.map(|n| n.labels.clone()),
            claim,
            key_in_hooks: valid
                .and_then(|valid| valid.hooks.as_ref())
                .and_then(|hooks| {
                    hooks
                        .secrets()
                        .find(|name| world.holds_credentials(&at((*name).to_owned())))
                })
                .map(str::to_owned),
            has_copy: copy.is_some_and(|copy| is_its(copy.meta.owner.as_deref())),
            consent_ended: reference.is_some_and(|reference| consent::ended(world, key, &reference)),
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
        plan::conclude(input, observed, settled, applied);
    }

    fn events(old: &ResticRestoreStatus, new: &ResticRestoreStatus) -> Vec<Announcement> {
        let ready = ready_changed(&old.conditions, &new.conditions);
        let ready = ready.filter(|event| event.reason != reasons::SELECTING_SNAPSHOT);
        let is_at_work = new.phase == Some(RestorePhase::InProgress);
        ready
            .into_iter()
            .map(|event| Announcement {
                severity: if is_at_work {
                    Severity::Normal
                } else {
                    event.severity
                },
                ..event
            })
            .collect()
    }

    fn perform(
        &self,
        _: Tools,
        task: Task<Work>,
        credentials: Result<Credentials, Unreadable>,
    ) -> BoxFuture<'static, Found> {
        let (restic, Work::Select(asked)) = (self.restic.clone(), task.work);
        async move {
            let answer = match credentials {
                Ok(credentials) => match restic.snapshots(&credentials).await {
                    Ok(snapshots) => {
                        let identity = asked.identity.as_ref();
                        Answer::Chosen(select::choose(&asked.wanted, identity, &snapshots))
                    }
                    Err(failure) => Answer::Unanswered(failure.to_string()),
                },
                Err(error) => Answer::Unanswered(error.to_string()),
            };
            Found { asked, answer }
        }
        .boxed()
    }

    fn panicked(Work::Select(asked): &Work) -> Found {
        Found {
            asked: asked.clone(),
            answer: Answer::Unanswered("reading it failed; see the operator's log".to_owned()),
        }
    }
}

/// The backup that is named, and where the repository is.
fn origin(world: &World, valid: &Valid) -> (Option<Arc<ResticBackup>>, Option<Key>) {
    match &valid.origin {
        Origin::Repository(at) => (None, Some(at.clone())),
        Origin::Backup(from) => {
            let backup = world.backups.get(from);
            let at = backup.as_ref().map(|backup| {
                let reference = &backup.spec.repository_ref;
                Key::new(reference.namespace_or(&from.namespace), &reference.name)
            });
            (backup, at)
        }
    }
}

#[cfg(test)]
mod option_tests;
#[cfg(test)]
mod plan_tests;
