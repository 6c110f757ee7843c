//! The objects that a plan asks for, and what became of them. A stage tells which of both a value is, so that a status
//! can speak only of what was applied.

use std::fmt;
use std::sync::Arc;

use crds::{ResticRepository, names};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde_json::json;
use tracing::{info, warn};

use crate::apply::{Applier, ApplyError, Object};
use crate::context::Context;
use crate::credentials;
use crate::pod::finished::Finished;
use crate::pod::{self, stale};
use crate::runs::Lingering;
use crate::world::{ClaimView, CronJobView, JobView, Key, Meta, MetaView, Store, Stored as _};

/// What the parts of [`Children`] are before and after they were applied.
pub trait Stage {
    type Permission;
    type Removal;
    type Account;
    type Grant;
    type Credentials;
    type Location;
    type Claim;
    type CronJob;
    type Run;
    type Job;
    type Pod;
    type Lingering;
}

/// As a plan asks for them.
#[derive(Debug)]
pub struct Prepared;

/// As the API server has them.
#[derive(Debug)]
pub struct Applied;

impl Stage for Prepared {
    type Permission = Permission;
    type Removal = Removal;
    type Account = ServiceAccount;
    type Grant = (Role, RoleBinding);
    type Credentials = Credentials;
    type Location = Credentials;
    type Claim = PersistentVolumeClaim;
    /// With its generation after our last write: another generation was made by somebody else.
    type CronJob = (CronJob, Option<i64>);
    type Run = Run;
    type Job = Job;
    type Pod = Finished;
    type Lingering = Lingering;
}

impl Stage for Applied {
    type Permission = ();
    type Removal = ();
    type Account = ();
    type Grant = ();
    type Credentials = ();
    type Location = ();
    type Claim = ();
    type CronJob = (Key, Arc<CronJobView>);
    type Run = Key;
    type Job = (Key, Arc<JobView>);
    type Pod = ();
    type Lingering = ();
}

/// Everything that is made for a resource, in the order in which it is applied. What is right already costs no request.
pub struct Children<S: Stage> {
    /// Nothing else is applied without it.
    pub permission: Option<S::Permission>,
    pub removals: Vec<S::Removal>,
    pub account: Option<S::Account>,
    /// What the account may do in the API server.
    pub grant: Option<S::Grant>,
    /// Copy of the credentials of a repository in another namespace.
    pub credentials: Option<S::Credentials>,
    /// Copy of a repository's location and credentials for pods in its own namespace.
    pub location: Option<S::Location>,
    /// A claim that is written to only with the mark of the restore that made it (`names::ANNOTATION_RESTORE_UID`).
    pub claim: Option<S::Claim>,
    pub cron_job: Option<S::CronJob>,
    /// Jobs of the CronJob, now.
    pub runs: Vec<S::Run>,
    /// A Job of its own. A maintenance operation starts with it.
    pub job: Option<S::Job>,
    /// Finished pods to delete. One that stays for now is no fault of the resource.
    pub finished: Vec<S::Pod>,
    /// Pods to end that another container keeps alive.
    pub lingering: Vec<S::Lingering>,
}

impl<S: Stage> Default for Children<S> {
    fn default() -> Self {
        Children {
            permission: None,
            removals: Vec::new(),
            account: None,
            grant: None,
            credentials: None,
            location: None,
            claim: None,
            cron_job: None,
            runs: Vec::new(),
            job: None,
            finished: Vec::new(),
            lingering: Vec::new(),
        }
    }
}

/// Maintenance of a repository has to be allowed to this spoke (see [`crate::sharing::Shared`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Permission {
    pub restic_id: String,
    /// Why it is not, if that is known beforehand.
    pub denied: Option<String>,
    /// CronJob to suspend while it is not.
    pub otherwise_suspend: Key,
}

/// An object that is not wanted any more.
#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    /// A Job is deleted; a maintenance operation is withdrawn with it.
    Job { at: Key, uid: String },
    /// Role and RoleBinding of this name are deleted, if they are ours.
    Grant(Key),
    /// The copy of a repository's credentials is deleted, if it is one of ours.
    Credentials(Key),
    /// A CronJob is suspended. Its mark is removed too, so that the next apply makes it right again.
    Schedule(Key),
}

/// A copy of a repository's credentials. Read and written by the driver: no plan holds what is in a Secret.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub metadata: ObjectMeta,
    pub at: Key,
    pub repository: Arc<ResticRepository>,
}

/// A Job made from the CronJob's template. The name follows from what it was asked with, so that asking twice makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub name: String,
    /// Hash of the plan that it may carry out.
    pub approves: Option<String>,
}

/// The object that could not be applied, and why. Those after it were not tried.
#[derive(Debug)]
pub struct Refused {
    /// As in the API, such as CronJob.
    pub kind: &'static str,
    pub name: String,
    pub cause: Cause,
}

/// Why an object was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Write(ApplyError),
    /// Another object of this name exists; its metadata, and what the API server said.
    #[error("{text}")]
    Occupied { meta: Box<Meta>, text: String },
    /// [`Children::permission`] was not given.
    #[error("{0}")]
    NotAllowed(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.cause)
    }
}

impl Refused {
    fn write<T: Object + k8s_openapi::Resource>(name: impl Into<String>, error: ApplyError) -> Refused {
        Refused {
            kind: T::KIND,
            name: name.into(),
            cause: Cause::Write(error),
        }
    }

    /// Reason of condition Ready, by the object.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        use crds::conditions::reasons;
        match self.kind {
            "CronJob" => reasons::CRON_JOB_FAILED,
            "ServiceAccount" => reasons::SERVICE_ACCOUNT_FAILED,
            "Role" | "RoleBinding" => reasons::ROLE_FAILED,
            "Secret" => reasons::SECRET_FAILED,
            "PersistentVolumeClaim" => reasons::TARGET_FAILED,
            _ => reasons::JOB_CREATION_FAILED,
        }
    }

    /// The API server refuses the object: trying again helps only after a change of the spec, a quota, or rights.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self.cause,
            Cause::Write(ApplyError::Invalid(_) | ApplyError::Forbidden(_))
        )
    }

    /// No later attempt is expected to succeed with the same spec.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        matches!(
            self.cause,
            Cause::Occupied { .. } | Cause::Write(ApplyError::Invalid(_) | ApplyError::Conflict(_))
        )
    }

    pub(super) fn is_not_leader(&self) -> bool {
        matches!(self.cause, Cause::Write(ApplyError::NotLeader))
    }
}

impl Children<Prepared> {
    /// Applies everything, up to the first object that is refused.
    pub(super) async fn apply(self, context: &Context, key: &Key) -> (Children<Applied>, Option<Refused>) {
        let mut applied = Children::default();
        let refused = self.apply_into(context, key, &mut applied).await.err();
        (applied, refused)
    }

    async fn apply_into(
        self,
        context: &Context,
        key: &Key,
        applied: &mut Children<Applied>,
    ) -> Result<(), Refused> {
        // Without `..`: an object that is added to a plan has to be applied here too.
        let Children {
            permission,
            removals,
            account,
            grant,
            credentials,
            location,
            claim,
            cron_job,
            runs,
            job,
            finished,
            lingering,
        } = self;
        if let Some(permission) = permission {
            applied.permission = Some(permit(context, permission).await?);
        }
        for removal in removals {
            remove(context, removal).await?;
            applied.removals.push(());
        }
        let world = &context.world;
        if let Some(wanted) = account {
            applied.account = Some(mark(context, &world.service_accounts, &wanted).await?);
        }
        if let Some((role, binding)) = grant {
            mark(context, &world.roles, &role).await?;
            mark(context, &world.role_bindings, &binding).await?;
            applied.grant = Some(());
        }
        if let Some(wanted) = credentials {
            applied.credentials = Some(copy(context, key, wanted).await?);
        }
        if let Some(wanted) = location {
            applied.location = Some(copy(context, key, wanted).await?);
        }
        if let Some(wanted) = claim {
            applied.claim = Some(create_claim(context, &wanted).await?);
        }
        if let Some((wanted, recorded)) = cron_job {
            let (at, view) = apply_cron_job(context, &wanted, recorded).await?;
            applied.cron_job = Some((at, view.clone()));
            for run in runs {
                applied.runs.push(start(context, &wanted, &view, run).await?);
            }
        }
        if let Some(wanted) = job {
            applied.job = Some(create_job(context, &wanted).await?);
        }
        for pod in finished {
            match context.applier.delete::<Pod>(&pod.at, &pod.uid).await {
                Ok(()) => {
                    world.pods.remove(&pod.at, Some(&pod.uid));
                    applied.finished.push(());
                }
                Err(ApplyError::NotLeader) => {
                    return Err(Refused::write::<Pod>(&*pod.at.name, ApplyError::NotLeader));
                }
                Err(error) => warn!(pod = %pod.at, %error, "a finished pod could not be deleted"),
            }
        }
        for pod in lingering {
            match end_lingering(&context.applier, &pod).await {
                Ok(()) => applied.lingering.push(()),
                Err(ApplyError::NotLeader) => {
                    return Err(Refused::write::<Pod>(&*pod.pod.name, ApplyError::NotLeader));
                }
                // The result is recorded without it.
                Err(error) => {
                    warn!(pod = %pod.pod, %error, "a pod that another container keeps alive could not be ended")
                }
            }
        }
        Ok(())
    }
}

/// Ends a pod that another container keeps alive after `restic` has ended. Its log stays: the pod is not deleted, its
/// active deadline ends it; the Job then counts it as failed, whatever `restic` has reported.
///
/// # Errors
/// When Job or pod cannot be written. That they are gone is fine.
pub async fn end_lingering(applier: &Applier, pod: &Lingering) -> Result<(), ApplyError> {
    let gone_is_fine = |error| match error {
        ApplyError::Gone(_) => Ok(()),
        error => Err(error),
    };
    if let Some(job) = &pod.job {
        let patch = json!({ "spec": { "backoffLimit": 0 } });
        let written = applier.merge::<Job>(job, &patch).await;
        written.map(drop).or_else(gone_is_fine)?;
    }
    let patch = json!({ "spec": { "activeDeadlineSeconds": 1 } });
    let written = applier.merge::<Pod>(&pod.pod, &patch).await;
    written.map(drop).or_else(gone_is_fine)
}

async fn permit(context: &Context, permission: Permission) -> Result<(), Refused> {
    let lease = |cause| Refused {
        kind: "Lease",
        name: "fleet-shared".to_owned(),
        cause,
    };
    let allowed = match permission.denied {
        Some(text) => Err(text),
        None => context
            .shared
            .allowed(&context.applier, &context.leases, &permission.restic_id)
            .await
            .map_err(|error| lease(Cause::Write(error)))?,
    };
    match allowed {
        Ok(()) => Ok(()),
        Err(text) => {
            remove(context, Removal::Schedule(permission.otherwise_suspend)).await?;
            Err(lease(Cause::NotAllowed(text)))
        }
    }
}

async fn remove(context: &Context, removal: Removal) -> Result<(), Refused> {
    let world = &context.world;
    match removal {
        Removal::Job { at, uid } => {
            let deleted = context.applier.delete::<Job>(&at, &uid).await;
            deleted.map_err(|error| Refused::write::<Job>(&*at.name, error))?;
            world.jobs.remove(&at, Some(&uid));
        }
        Removal::Credentials(copy) => unmark::<Secret>(context, &world.secrets, &copy).await?,
        Removal::Grant(at) => {
            unmark::<RoleBinding>(context, &world.role_bindings, &at).await?;
            unmark::<Role>(context, &world.roles, &at).await?;
        }
        Removal::Schedule(at) => {
            if world.cron_jobs.get(&at).is_some_and(|c| !c.suspend) {
                let patch = json!({ "metadata": { "annotations": { names::ANNOTATION_APPLIED: null } }, "spec": { "suspend": true } });
                let written = context.applier.merge::<CronJob>(&at, &patch).await;
                let written = written.map_err(|error| Refused::write::<CronJob>(&*at.name, error))?;
                world.cron_jobs.put(at, Arc::new(CronJobView::of(&written)));
            }
        }
    }
    Ok(())
}

/// Applies an object of which the cache has the metadata, if it was made from another manifest.
async fn mark<T>(context: &Context, store: &Store<MetaView>, wanted: &T) -> Result<(), Refused>
where
    T: Object + k8s_openapi::Resource,
{
    let at = key_of(wanted);
    if stale(store.get(&at).as_ref().map(|v| &v.meta), wanted.meta()) {
        let written = context.applier.apply(wanted).await;
        let written = written.map_err(|error| Refused::write::<T>(&*at.name, error))?;
        store.put(at, view(written.meta()));
    }
    Ok(())
}

/// Deletes an object of ours, of which the cache has the metadata.
async fn unmark<T>(context: &Context, store: &Store<MetaView>, at: &Key) -> Result<(), Refused>
where
    T: Object + k8s_openapi::Resource,
{
    // One of the same name that somebody else made has neither mark nor owner of ours.
    let ours = |view: &MetaView| view.meta.applied.is_some() && view.meta.owner_name.is_some();
    if let Some(view) = store.get(at).filter(|view| ours(view)) {
        let deleted = context.applier.delete::<T>(at, view.uid()).await;
        deleted.map_err(|error| Refused::write::<T>(&*at.name, error))?;
        store.remove(at, Some(view.uid()));
    }
    Ok(())
}

async fn copy(context: &Context, consumer: &Key, wanted: Credentials) -> Result<(), Refused> {
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let refused = |error| Refused::write::<Secret>(name.clone(), error);
    let projection = credentials::projection(context, consumer, &wanted.at, &wanted.repository, &name).await;
    let Some(projection) = projection.map_err(refused)? else {
        return Ok(());
    };
    let secret = pod::credentials(wanted.metadata, projection);
    let written = context.applier.apply(&secret).await.map_err(refused)?;
    context.world.secrets.put(key_of(&secret), view(written.meta()));
    Ok(())
}

async fn apply_cron_job(
    context: &Context,
    wanted: &CronJob,
    recorded: Option<i64>,
) -> Result<(Key, Arc<CronJobView>), Refused> {
    let (cron_jobs, at) = (&context.world.cron_jobs, key_of(wanted));
    if let Some(present) = cron_jobs.get(&at) {
        let changed_by_others = recorded.is_some_and(|g| g != present.meta.generation);
        if !changed_by_others && !stale(Some(&present.meta), &wanted.metadata) {
            return Ok((at, present));
        }
    }
    let written = context.applier.apply(wanted).await;
    let written = written.map_err(|error| Refused::write::<CronJob>(&*at.name, error))?;
    let view = Arc::new(CronJobView::of(&written));
    cron_jobs.put(at.clone(), view.clone());
    Ok((at, view))
}

async fn start(context: &Context, of: &CronJob, view: &CronJobView, run: Run) -> Result<Key, Refused> {
    let mut job = pod::manual_job(of, &view.meta.uid, run.name);
    if let Some(hash) = run.approves {
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ANNOTATION_APPROVE.to_owned(), hash);
    }
    let at = key_of(&job);
    match context.applier.create(&job).await {
        Ok(_) => info!(job = %at, "a run was asked for"),
        // Made before; nobody recorded it.
        Err(ApplyError::Conflict(_)) => {}
        Err(error) => return Err(Refused::write::<Job>(&*at.name, error)),
    }
    Ok(at)
}

/// Creates a Job that a resource controls. One that was made in an earlier turn, whose end nobody recorded, counts.
async fn create_job(context: &Context, wanted: &Job) -> Result<(Key, Arc<JobView>), Refused> {
    let at = key_of(wanted);
    let refused = |error| Refused::write::<Job>(&*at.name, error);
    let written = match context.applier.create(wanted).await {
        Ok(written) => written,
        Err(ApplyError::Conflict(text)) => {
            let present: Option<Job> = context.applier.get(&at).await.map_err(refused)?;
            let owner = Meta::of(&wanted.metadata).owner;
            let meta = present.as_ref().map(|job| Meta::of(&job.metadata));
            match (present, meta) {
                (Some(job), Some(meta)) if meta.owner == owner && !meta.deleting => job,
                (_, Some(meta)) => {
                    return Err(Refused {
                        kind: "Job",
                        name: at.name.to_string(),
                        cause: Cause::Occupied {
                            meta: Box::new(meta),
                            text: format!("conflict: {text}"),
                        },
                    });
                }
                _ => return Err(refused(ApplyError::Unavailable(text))),
            }
        }
        Err(error) => return Err(refused(error)),
    };
    info!(job = %at, "a Job was created");
    let view = Arc::new(JobView::of(&written));
    context.world.jobs.put(at.clone(), view.clone());
    Ok((at.clone(), view))
}

/// Creates a claim unless the one of this name has the same mark. Asks the API server: a cache may be a moment behind, and
/// nothing may be written to a claim of somebody else.
async fn create_claim(context: &Context, wanted: &PersistentVolumeClaim) -> Result<(), Refused> {
    let (applier, at) = (&context.applier, key_of(wanted));
    let refused = |error| Refused::write::<PersistentVolumeClaim>(&*at.name, error);
    let mut present: Option<PersistentVolumeClaim> = applier.get(&at).await.map_err(refused)?;
    if present.is_none() {
        present = match applier.create(wanted).await {
            Ok(written) => Some(written),
            Err(ApplyError::Conflict(_)) => applier.get(&at).await.map_err(refused)?,
            Err(error) => return Err(refused(error)),
        };
    }
    let Some(present) = present else {
        let text = format!("PersistentVolumeClaim {at} comes and goes");
        return Err(refused(ApplyError::Unavailable(text)));
    };
    let meta = Meta::of(&present.metadata);
    if meta.deleting || meta.restore != Meta::of(&wanted.metadata).restore {
        return Err(Refused {
            kind: "PersistentVolumeClaim",
            name: at.name.to_string(),
            cause: Cause::Occupied {
                meta: Box::new(meta),
                text: "it exists already".to_owned(),
            },
        });
    }
    context
        .world
        .claims
        .put(at.clone(), Arc::new(ClaimView::of(&present)));
    Ok(())
}

fn view(meta: &ObjectMeta) -> Arc<MetaView> {
    Arc::new(MetaView { meta: Meta::of(meta) })
}

pub(super) fn key_of<T: Resource>(object: &T) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}
