//! GlobalRetentionPolicy: a CronJob whose Jobs are born suspended, a lease for each, and a status that shows what came
//! of it. What a run does is not this policy alone: all policies of all clusters that are bound to the same physical
//! repository make one plan.

mod approval;
mod behalf;
mod build;
pub(crate) mod damage;
mod own;
mod owner;
mod plan;
pub(crate) mod policies;
mod runs;
mod status;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use crds::conditions::{self, types};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus, ResticRepository, names};
use futures::future::BoxFuture;
use proto::v1::RetentionPolicySpec;

use crate::config::Config;
use crate::consent;
use crate::context::Context;
use crate::exchange::{CommandedRun, Event, Operation, running};
use crate::kind::{
    Announcement, Applied, Cache, Controller, Input, Mailbox, Plan, Settled, Task, Tools, Unreadable,
    announce, observed_generation, ready_changed,
};
use crate::runs::progress::{self, Running};
use crate::secrets::Credentials;
use crate::site::Site;
use crate::world::{CronJobView, JobView, Key, Store, World};

pub use behalf::BehalfOwner;
pub use owner::RetentionOwner;
use validate::{Invalid, Valid};

/// The kind: its settings.
pub struct RetentionController {
    plans: Planning,
}

/// What plans depend on beside the cluster.
struct Planning {
    /// Name of this cluster in the fleet.
    cluster: String,
    /// Image of the maintenance pods.
    image: String,
    /// How long a run waits for restic's lock of others.
    retry_lock: String,
    /// The operator watches some namespaces alone.
    is_partial: bool,
}

/// What is remembered. Losing it costs a question: everything that matters is in the Jobs and with the grantor.
#[derive(Clone, Default)]
pub struct State {
    /// Hashes of plans that were approved at the hub, each with the restic id. The hub sends them again in each session
    /// until a run under them was granted.
    approvals: BTreeSet<(String, String)>,
}

/// What the hub sends.
pub enum Found {
    /// A plan was approved: its hash, and the restic id.
    Approved { hash: String, restic_id: String },
}

/// What a policy depends on.
#[derive(Default)]
pub struct Observed {
    repository: Option<Arc<ResticRepository>>,
    /// Labels of the policy's own namespace.
    labels: Option<Arc<BTreeMap<String, String>>>,
    cron_job: Option<Arc<CronJobView>>,
    /// Jobs of the policy, those of a deleted namesake excepted.
    jobs: Vec<Arc<JobView>>,
    operations: Vec<Operation>,
    /// Runs that the hub's commands ask for.
    commands: Vec<CommandedRun>,
    /// How far the Jobs of those that run have come.
    works: BTreeMap<Key, Running>,
    /// The other policies of the repository.
    others: Vec<(Key, Arc<GlobalRetentionPolicy>)>,
    /// The lock is shared with other clusters.
    shared: bool,
    /// The repository's owner does not consent any more, or the repository was deleted.
    consent_ended: bool,
    /// Why no maintenance is done: this cluster has another name in its certificate.
    name_differs: Option<String>,
}

impl RetentionController {
    /// Policies of this cluster.
    #[must_use]
    pub fn new(site: &Site, config: &Config) -> RetentionController {
        RetentionController {
            plans: Planning {
                cluster: site.cluster.clone(),
                image: config.image.clone(),
                retry_lock: config.maintenance_retry_lock.clone(),
                is_partial: !site.namespaces.is_empty(),
            },
        }
    }
}

/// A policy as a run takes it, without its source: the hub knows the name of the cluster.
#[must_use]
pub fn policy_spec(key: &Key, policy: &GlobalRetentionPolicy, restic_id: &str) -> RetentionPolicySpec {
    RetentionPolicySpec {
        source: String::new(),
        ..policies::spec_of(key, policy, "", restic_id)
    }
}

impl Controller for RetentionController {
    type Resource = GlobalRetentionPolicy;
    type Status = GlobalRetentionPolicyStatus;
    type Valid = Valid;
    type Refusal = Invalid;
    type Observed = Observed;
    type State = State;
    type Work = Infallible;
    type Found = Found;
    const NAME: &'static str = "GlobalRetentionPolicy";
    const FINALIZER: Option<&'static str> = Some("backup.resticbackup.io/globalretentionpolicy-finalizer");
    const OWNS_OPERATIONS: bool = true;

    fn store<'a>(&'a self, world: &'a World) -> &'a Store<GlobalRetentionPolicy> {
        &world.policies
    }

    fn validate(&self, key: &Key, policy: &GlobalRetentionPolicy) -> Result<Valid, Invalid> {
        validate::validate(key, policy)
    }

    fn observe(&self, cache: Cache<'_>, input: &Input<'_, Self>) -> Observed {
        let (world, key) = (cache.world, input.key);
        let reference = &input.resource.spec.repository_ref;
        let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
        let cron_job = Key::new(&key.namespace, names::retention_cron_job(&key.name));
        let cron_job = world.cron_jobs.get(&cron_job);
        let owner = cron_job.as_ref().map(|c| &c.meta.uid);
        let jobs = world
            .jobs
            .group(&Key::new(&key.namespace, names::label_value(&key.name)));
        let jobs = jobs.into_iter().map(|(_, job)| job);
        let labels = world.namespaces.get(&Key::new("", &key.namespace));
        let others = world.policies.group(&at);
        let operations = cache.operations.of(input.uid());
        Observed {
            repository: world.repositories.get(&at),
            labels: labels.map(|n| n.labels.clone()),
            jobs: jobs
                .filter(|job| owner.is_some() && job.meta.owner.as_ref() == owner)
                .collect(),
            cron_job: cron_job.clone(),
            works: progress::of_jobs(world, running(&operations)),
            operations,
            commands: cache.commands.wanted(input.uid()),
            others: others.into_iter().filter(|(other, _)| other != key).collect(),
            shared: cache.leases.is_shared(),
            consent_ended: consent::ended(world, key, reference),
            name_differs: cache
                .certificate
                .differs(&input.status().conditions, types::READY),
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
        settled.status.observed_generation = observed_generation(&settled.status.conditions);
    }

    fn events(old: &GlobalRetentionPolicyStatus, new: &GlobalRetentionPolicyStatus) -> Vec<Announcement> {
        let ready = ready_changed(&old.conditions, &new.conditions);
        let run = |status: &GlobalRetentionPolicyStatus| (status.last_run.clone(), status.last_run_token);
        let outcome = conditions::get(&new.conditions, types::DEGRADED).filter(|_| run(old) != run(new));
        let outcome = outcome.map(|outcome| {
            let by = new.last_run_by.as_ref().map(|by| format!(" (run of {by})"));
            Announcement {
                note: format!("{}{}", outcome.message, by.unwrap_or_default()),
                ..announce(outcome, outcome.status != "True")
            }
        });
        ready.into_iter().chain(outcome).collect()
    }

    fn perform(
        &self,
        _: Tools,
        task: Task<Infallible>,
        _: Result<Credentials, Unreadable>,
    ) -> BoxFuture<'static, Found> {
        match task.work {}
    }

    fn panicked(work: &Infallible) -> Found {
        match *work {}
    }

    fn subscribe(&self, context: &Context, uid: &str, mailbox: Mailbox<Found>) {
        context.leases.listen_policy(uid, move |event| {
            if let Event::Approved { hash, restic_id } = event {
                mailbox.send(Found::Approved { hash, restic_id });
            }
        });
    }

    fn gone(context: &Context, _: &Key, uid: &str) {
        context.leases.forget_policy(uid);
    }
}

#[cfg(test)]
mod plan_tests;
