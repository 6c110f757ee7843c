//! A turn as a table: plan and conclusion of a kind, with an API server that accepts everything or refuses one object.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::Value;

use super::children::key_of;
use super::{Applied, Children, Controller, Input, Moment, Plan, Refused, RefusedBecause, Settled};
use crate::apply::ApplyError;
use crate::restic::locks::LockFile;
use crate::restic::{Failure, Restic, Snapshot, Statistics};
use crate::secrets::Credentials;
use crate::world::{CronJobView, JobView, Key};

/// A resource between turns.
pub struct Table<C: Controller> {
    pub controller: C,
    pub key: Key,
    pub resource: C::Resource,
    pub state: C::State,
    pub found: Vec<C::Found>,
    pub running: Vec<C::Work>,
    pub now: Moment,
}

/// The object that is refused, by its kind, and why.
pub type Refusing = Option<(&'static str, RefusedBecause)>;

impl<C: Controller> Table<C> {
    pub fn new(controller: C, resource: Value) -> Table<C> {
        let text = |field: &str| resource["metadata"][field].as_str().unwrap().to_owned();
        Table {
            controller,
            key: Key::new(text("namespace"), text("name")),
            resource: serde_json::from_value(resource).unwrap(),
            state: C::State::default(),
            found: Vec::new(),
            running: Vec::new(),
            now: at(1_767_225_600),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&Input<'_, C>) -> R) -> R {
        let valid = self.controller.validate(&self.key, &self.resource);
        f(&Input {
            key: &self.key,
            resource: &self.resource,
            valid: valid.as_ref(),
            state: &self.state,
            found: &self.found,
            running: &self.running,
            now: self.now,
        })
    }

    pub fn plan(&self, observed: &C::Observed) -> Plan<C> {
        self.with(|input| self.controller.plan(input, observed))
    }

    /// The end of a turn in which one object is refused, or none.
    pub fn settle(&self, observed: &C::Observed, refusing: Refusing) -> Settled<C> {
        self.with(|input| {
            let plan = self.controller.plan(input, observed);
            let applied = pretend(plan.children, refusing);
            let mut settled = Settled {
                status: plan.status,
                state: plan.state,
                next: plan.next,
                failed: applied.refused.is_some(),
            };
            self.controller.conclude(input, observed, &mut settled, &applied);
            settled
        })
    }
}

/// A moment, `second` by both clocks.
pub fn at(second: i64) -> Moment {
    Moment {
        wall: Timestamp::from_second(second).unwrap(),
        boot: u64::try_from(second).unwrap() * 1000,
    }
}

pub fn forbidden(text: &str) -> RefusedBecause {
    RefusedBecause::Write(ApplyError::Forbidden(text.to_owned()))
}

pub fn invalid(text: &str) -> RefusedBecause {
    RefusedBecause::Write(ApplyError::Invalid(text.to_owned()))
}

pub fn unavailable() -> RefusedBecause {
    RefusedBecause::Write(ApplyError::Unavailable("no answer".to_owned()))
}

/// Condition of a type as `status/reason`, and its message.
pub fn condition(
    list: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    type_: &str,
) -> (String, String) {
    let condition = crds::conditions::get(list, type_);
    condition.map_or_else(Default::default, |c| {
        (format!("{}/{}", c.status, c.reason), c.message.clone())
    })
}

/// Applies in the order of the driver, up to the object that is refused.
fn pretend(children: Children, refusing: Refusing) -> Applied {
    let mut applied = Applied::default();
    let refused = apply(children, refusing, &mut applied).err();
    Applied { refused, ..applied }
}

fn apply(children: Children, mut refusing: Refusing, applied: &mut Applied) -> Result<(), Refused> {
    let mut pass = |kind: &'static str, name: &str| {
        let refused = refusing.take_if(|(refused, _)| *refused == kind);
        refused.map_or(Ok(()), |(_, cause)| {
            let name = name.to_owned();
            Err(Refused { kind, name, cause })
        })
    };
    if children.permission.is_some() {
        pass("Lease", "fleet-shared")?;
    }
    for removal in children.removals {
        if let super::Removal::Job { at, .. } = removal {
            pass("Job", &at.name)?;
        }
    }
    if let Some(account) = children.account {
        pass("ServiceAccount", &key_of(&account).name)?;
    }
    if let Some((role, _)) = children.grant {
        pass("Role", &key_of(&role).name)?;
    }
    if children.credentials.is_some() || children.location.is_some() {
        pass("Secret", "secret")?;
    }
    if let Some(claim) = children.claim {
        pass("PersistentVolumeClaim", &key_of(&claim).name)?;
    }
    if let Some((cron_job, _)) = children.cron_job {
        pass("CronJob", &key_of(&cron_job).name)?;
        applied.cron_job = Some((key_of(&cron_job), Arc::new(CronJobView::of(&stored(cron_job)))));
    }
    for run in children.runs {
        pass("Job", &run.name)?;
        applied.runs.push(Key::new("ns", run.name));
    }
    if let Some(job) = children.job {
        pass("Job", &key_of(&job).name)?;
        applied.job = Some((key_of(&job), Arc::new(JobView::of(&job))));
    }
    if let Some(super::PolicyChange::Apply(policy)) = children.policy {
        pass("GlobalRetentionPolicy", &key_of(&*policy).name)?;
    }
    Ok(())
}

fn stored(mut cron_job: CronJob) -> CronJob {
    cron_job.metadata.generation = Some(1);
    cron_job.metadata.uid = Some("cron-job".to_owned());
    cron_job
}

/// For plans, which do not use it.
pub struct NoRestic;

impl Restic for NoRestic {
    fn id<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        std::future::ready(Err(Failure::Interrupted)).boxed()
    }
    fn init<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        std::future::ready(Err(Failure::Interrupted)).boxed()
    }
    fn statistics<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Statistics, Failure>> {
        std::future::ready(Err(Failure::Interrupted)).boxed()
    }
    fn locks<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        std::future::ready(Err(Failure::Interrupted)).boxed()
    }
    fn lock<'a>(&'a self, _: &'a Credentials, _: &'a str) -> BoxFuture<'a, Result<LockFile, Failure>> {
        std::future::ready(Err(Failure::Interrupted)).boxed()
    }
    fn snapshots<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Vec<Snapshot>, Failure>> {
        std::future::ready(Err(Failure::Interrupted)).boxed()
    }
}

/// A repository that is Ready, in namespace ns.
pub fn repository() -> Arc<crds::ResticRepository> {
    let repository = serde_json::json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "ns", "uid": "r" },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } },
        "status": { "repositoryID": "id",
                    "conditions": [{ "type": "Ready", "status": "True", "reason": "RepositoryAccessible", "message": "",
                                     "lastTransitionTime": "2025-12-31T00:00:00Z" }] },
    });
    Arc::new(serde_json::from_value(repository).unwrap())
}
