//! Applies the objects of a plan: the order, permission, removals, and the ends of pods.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::json;
use tracing::warn;

use super::{Applied, Cause, Children, Contest, Permission, Refused, Removal, objects, policy};
use crate::apply::{Applier, ApplyError, Object};
use crate::context::Context;
use crate::hooks::Grant;
use crate::runs::Lingering;
use crate::runs::finished::Finished;
use crate::world::{Key, MetaView, Store, Stored as _};

impl Children {
    /// Applies everything, up to the first object that is refused; the retention policy in any case. `uid` is that of the
    /// resource.
    pub(in crate::kind) async fn apply(
        mut self,
        context: &Context,
        key: &Key,
        uid: &str,
        contest: &mut Contest,
    ) -> Applied {
        let mut applied = Applied::default();
        let (policy, opens) = (self.policy.take(), self.opens);
        let refused = self
            .apply_into(context, key, uid, contest, &mut applied)
            .await
            .err();
        if let Some(opens) = opens {
            // An opening that was refused keeps its place, and is tried again with the actor's pauses.
            let stopped = refused.is_some() && !applied.prepared;
            context.places.report(key, opens && !stopped);
        }
        let of_policy = match policy {
            Some(change) => policy::change(context, change).await.err(),
            None => None,
        };
        Applied {
            refused: refused.or(of_policy),
            ..applied
        }
    }

    async fn apply_into(
        self,
        context: &Context,
        key: &Key,
        uid: &str,
        contest: &mut Contest,
        applied: &mut Applied,
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
            cache,
            cron_job,
            openings,
            opens: _,
            runs,
            job,
            commanded,
            finished,
            lingering,
            policy: _,
        } = self;
        if let Some(permission) = permission {
            permit(context, permission, uid, contest).await?;
        }
        for removal in removals {
            remove(context, removal, uid, contest).await?;
        }
        apply_account(context, account, grant).await?;
        for copy in credentials.into_iter().chain(location) {
            objects::apply_credentials(context, key, copy).await?;
        }
        create_claims(context, claim, cache).await?;
        if let Some((wanted, recorded)) = cron_job {
            let (at, view) = objects::apply_cron_job(context, &wanted, recorded, contest).await?;
            applied.cron_job = Some((at, view.clone()));
            for run in runs {
                let made = objects::start(context, &wanted, &view, run).await?;
                applied.runs.extend(made);
            }
        }
        applied.prepared = true;
        for opening in openings {
            objects::open(context, &opening).await?;
        }
        if let Some(job) = job {
            applied.job = Some(objects::create_job(context, &job).await?);
        }
        for (job, command) in commanded {
            objects::create_commanded(context, &job, &command).await?;
        }
        end_pods(context, finished, lingering).await
    }
}

/// Applies the account of the pods, and what it may do in the API server.
async fn apply_account(
    context: &Context,
    account: Option<ServiceAccount>,
    grant: Option<Grant>,
) -> Result<(), Refused> {
    if let Some(account) = account {
        objects::apply_marked(context, &context.world.service_accounts, &account).await?;
    }
    if let Some((role, binding)) = grant {
        objects::apply_marked(context, &context.world.roles, &role).await?;
        objects::apply_marked(context, &context.world.role_bindings, &binding).await?;
    }
    Ok(())
}

/// Creates claims for what pods write.
async fn create_claims(
    context: &Context,
    claim: Option<PersistentVolumeClaim>,
    cache: Option<PersistentVolumeClaim>,
) -> Result<(), Refused> {
    if let Some(claim) = claim {
        objects::create_claim(context, &claim).await?;
    }
    if let Some(cache) = cache {
        objects::create_owned_claim(context, &cache).await?;
    }
    Ok(())
}

/// Deletes pods that are finished, and ends those that another container keeps alive.
async fn end_pods(
    context: &Context,
    finished: Vec<Finished>,
    lingering: Vec<Lingering>,
) -> Result<(), Refused> {
    for pod in finished {
        delete_finished(context, &pod).await?;
    }
    for pod in lingering {
        let ended = end_lingering(&context.applier, &pod).await;
        // The result is recorded without it.
        only_not_leader(
            &pod.pod,
            ended,
            "a pod that another container keeps alive could not be ended",
        )?;
    }
    Ok(())
}

async fn delete_finished(context: &Context, pod: &Finished) -> Result<(), Refused> {
    // Its Job's result is recorded.
    context.world.last_seen.recorded(&pod.job_uid);
    let deleted = context.applier.delete::<Pod>(&pod.at, &pod.uid).await;
    if deleted.is_ok() {
        context.world.pods.remove(&pod.at, Some(&pod.uid));
    }
    only_not_leader(&pod.at, deleted, "a finished pod could not be deleted")
}

/// A pod that stays is no fault of its resource; it is logged as `what`.
fn only_not_leader(pod: &Key, result: Result<(), ApplyError>, what: &str) -> Result<(), Refused> {
    match result {
        Ok(()) => Ok(()),
        Err(ApplyError::NotLeader) => Err(Refused::write::<Pod>(&*pod.name, ApplyError::NotLeader)),
        Err(error) => {
            warn!(%pod, %error, "{what}");
            Ok(())
        }
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

async fn permit(
    context: &Context,
    permission: Permission,
    owner: &str,
    contest: &mut Contest,
) -> Result<(), Refused> {
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
            objects::suspend(context, &permission.otherwise_suspend, owner, contest).await?;
            Err(lease(Cause::NotAllowed(text)))
        }
    }
}

/// Deletes an object of ours, of which the cache has the metadata.
async fn delete_marked<T>(context: &Context, store: &Store<MetaView>, at: &Key) -> Result<(), Refused>
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

async fn remove(
    context: &Context,
    removal: Removal,
    owner: &str,
    contest: &mut Contest,
) -> Result<(), Refused> {
    let world = &context.world;
    match removal {
        Removal::Job { at, uid } => {
            let deleted = context.applier.delete::<Job>(&at, &uid).await;
            deleted.map_err(|error| Refused::write::<Job>(&*at.name, error))?;
            world.jobs.remove(&at, Some(&uid));
            context.places.moved();
        }
        Removal::Credentials(copy) => delete_marked::<Secret>(context, &world.secrets, &copy).await?,
        Removal::Grant(at) => {
            delete_marked::<RoleBinding>(context, &world.role_bindings, &at).await?;
            delete_marked::<Role>(context, &world.roles, &at).await?;
        }
        Removal::Schedule(at) => objects::suspend(context, &at, owner, contest).await?,
    }
    Ok(())
}
