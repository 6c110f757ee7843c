//! The part with clients: the list of snapshots, the objects, Events.

use std::sync::Arc;

use crds::conditions::{self, reasons, types};
use crds::restore::RestorePhase;
use crds::{ResticRestore, ResticRestoreStatus, names};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use tracing::{info, warn};

use super::select::{self, Chosen};
use super::status::{fail, started, waiting};
use super::target::{self, Claim};
use super::validate::{Target, Valid, Wanted};
use super::{Ready, Report, RestoreKind, Wait, build, unanswered};
use crate::apply::ApplyError;
use crate::children;
use crate::events::Severity;
use crate::kind::{Kind as _, Outcome};
use crate::secrets::cluster;
use crate::world::{ClaimView, JobView, Key, Stored};

/// What making the objects came to.
enum Made {
    Job(Key, Arc<JobView>),
    Not(Wait),
}

impl RestoreKind {
    /// Reads the list of snapshots and chooses.
    pub(super) fn ask(&self, ready: Ready, wanted: Wanted) -> impl Future<Output = Report> + Send + 'static {
        let (context, restic) = (self.context.clone(), self.restic.clone());
        async move {
            match cluster::read(&context, &ready.repository).await {
                Err(error) => Report::Unanswered(format!("the Secret could not be read: {error}")),
                Ok(Err(error)) => Report::Unanswered(error.to_string()),
                Ok(Ok(credentials)) => match restic.snapshots(&credentials).await {
                    Ok(snapshots) => {
                        Report::Chosen(select::choose(&wanted, ready.identity.as_ref(), &snapshots))
                    }
                    Err(failure) => unanswered(&failure),
                },
            }
        }
    }

    /// Makes everything that the restore needs, its Job last.
    #[allow(clippy::too_many_arguments, reason = "one call, one name each")]
    pub(super) async fn start(
        &self,
        key: &Key,
        restore: &ResticRestore,
        valid: &Valid,
        ready: &Ready,
        chosen: &Chosen,
        new: &mut ResticRestoreStatus,
        now: Timestamp,
    ) -> Outcome {
        match self.make(key, restore, valid, ready, chosen).await {
            Ok(Made::Job(at, job)) => {
                started(new, restore, &at, &job, now);
                Outcome::default()
            }
            // The claim's watch wakes this actor.
            Ok(Made::Not(wait)) => {
                waiting(new, restore, wait.reason, &wait.message, now);
                Outcome::default()
            }
            Err(ApplyError::NotLeader) => Outcome::default(),
            // A Job of that name which is not ours.
            Err(error @ (ApplyError::Invalid(_) | ApplyError::Conflict(_))) => {
                fail(
                    new,
                    restore,
                    reasons::JOB_CREATION_FAILED,
                    &error.to_string(),
                    now,
                );
                Outcome::default()
            }
            Err(error) => {
                waiting(
                    new,
                    restore,
                    reasons::JOB_CREATION_FAILED,
                    &error.to_string(),
                    now,
                );
                Outcome::retry()
            }
        }
    }

    async fn make(
        &self,
        key: &Key,
        restore: &ResticRestore,
        valid: &Valid,
        ready: &Ready,
        chosen: &Chosen,
    ) -> Result<Made, ApplyError> {
        let (world, applier) = (&self.context.world, &self.context.applier);
        let at = |name: &str| Key::new(&key.namespace, name);
        if valid.job.service_account.is_none() {
            children::service_account(&self.context, &build::service_account(key, restore)).await?;
        }
        let name = names::restore_credentials(&key.name);
        let projection = cluster::projection(&self.context, key, &ready.at, &ready.repository, &name).await?;
        if let Some(projection) = projection {
            children::credentials(&self.context, &build::credentials(key, restore, projection)).await?;
        }
        if let Some(wait) = self.claim(key, restore, valid).await? {
            return Ok(Made::Not(wait));
        }
        let repository = (&ready.at, ready.repository.as_ref());
        let wanted = build::job(
            key,
            &self.context.cluster,
            restore,
            valid,
            repository,
            ready.image.clone(),
            chosen,
        );
        let place = at(&wanted.name_any());
        let written = match applier.create(&wanted).await {
            Ok(written) => written,
            // Made in an earlier turn whose end nobody has seen.
            Err(ApplyError::Conflict(text)) => {
                let present: Option<Job> = applier.get(&place).await?;
                let ours = present.filter(|job| {
                    job.owner_references()
                        .iter()
                        .any(|o| o.uid == Stored::uid(restore))
                });
                let ours = ours.ok_or(ApplyError::Conflict(text))?;
                if ours.metadata.deletion_timestamp.is_some() {
                    return Err(ApplyError::Unavailable(format!(
                        "Job {place} is still being deleted"
                    )));
                }
                ours
            }
            Err(error) => return Err(error),
        };
        let view = Arc::new(JobView::of(&written));
        world.jobs.put(place.clone(), view.clone());
        Ok(Made::Job(place, view))
    }

    /// Makes the target's claim, if the restore has to. Looks at the API server: a store may be a moment behind, and the
    /// Job must not begin on a claim of somebody else. Returns what to wait for.
    async fn claim(
        &self,
        key: &Key,
        restore: &ResticRestore,
        valid: &Valid,
    ) -> Result<Option<Wait>, ApplyError> {
        let Target::New(wanted) = &valid.target else {
            return Ok(None);
        };
        let (applier, at) = (&self.context.applier, Key::new(&key.namespace, &wanted.name));
        let decide = |present: Option<&PersistentVolumeClaim>| {
            let view = present.map(ClaimView::of);
            target::claim(&valid.target, Stored::uid(restore), view.as_ref())
        };
        let mut present: Option<PersistentVolumeClaim> = applier.get(&at).await?;
        if decide(present.as_ref()) == Claim::Make {
            present = match applier.create(&build::claim(key, restore, wanted)).await {
                Ok(written) => Some(written),
                // Somebody was quicker.
                Err(ApplyError::Conflict(_)) => applier.get(&at).await?,
                Err(error) => return Err(error),
            };
        }
        match (decide(present.as_ref()), present) {
            (Claim::Ready, Some(claim)) => {
                self.context.world.claims.put(at, Arc::new(ClaimView::of(&claim)));
                Ok(None)
            }
            (Claim::Wait(wait), _) => Ok(Some(wait)),
            _ => Err(ApplyError::Unavailable(format!(
                "PersistentVolumeClaim {at} comes and goes"
            ))),
        }
    }

    /// Ends a Job whose pod never starts.
    pub(super) async fn remove_job(&self, at: &Key, uid: &str) -> Result<(), ApplyError> {
        self.context.applier.delete::<Job>(at, uid).await
    }

    /// Writes the status, and tells of what changed.
    pub(super) async fn finish(
        &self,
        key: &Key,
        restore: &ResticRestore,
        old: &ResticRestoreStatus,
        new: &ResticRestoreStatus,
    ) -> Result<(), ApplyError> {
        let uid = Stored::uid(restore);
        self.context
            .write_status(&self.context.world.restores, key, uid, old, new)
            .await
            .inspect_err(|error| {
                if !matches!(
                    error,
                    ApplyError::NotLeader | ApplyError::Gone(_) | ApplyError::Conflict(_)
                ) {
                    warn!(%error, "could not write the status");
                }
            })?;
        let reason = |status: &ResticRestoreStatus| {
            conditions::get(&status.conditions, types::READY).map(|c| c.reason.clone())
        };
        if let Some(ready) = conditions::get(&new.conditions, types::READY)
            && reason(old).as_ref() != Some(&ready.reason)
            && ready.reason != reasons::SELECTING_SNAPSHOT
        {
            let well = ready.status == "True" || new.phase == Some(RestorePhase::InProgress);
            let severity = if well { Severity::Normal } else { Severity::Warning };
            info!(object = %key, reason = ready.reason, message = ready.message, "restore");
            self.context
                .events
                .publish(Self::NAME, key, uid, severity, &ready.reason, &ready.message);
        }
        Ok(())
    }
}
