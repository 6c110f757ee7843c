//! The part with a client: makes the objects what the plan says, and tells of what changed.

use crds::backup::BackupRun;
use crds::conditions::{self, types};
use crds::{ResticBackup, ResticBackupStatus, ResticRepository, names};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt as _;
use tracing::{info, warn};

use super::build::{self, Objects};
use super::validate::Valid;
use super::{BackupKind, Kind as _};
use crate::apply::ApplyError;
use crate::children;
use crate::events::Severity;
use crate::pod;
use crate::secrets::cluster;
use crate::world::{Key, Stored};

impl BackupKind {
    /// Makes ServiceAccount, credentials and CronJob what they should be. What is right already costs nothing. `held`: no
    /// run begins now, neither by the schedule nor by request.
    pub(super) async fn ensure(
        &self,
        key: &Key,
        backup: &ResticBackup,
        valid: &Valid,
        held: bool,
        repository: &ResticRepository,
        new: &mut ResticBackupStatus,
    ) -> Result<(), ApplyError> {
        let projection = cluster::projection(
            &self.context,
            key,
            &valid.repository,
            repository,
            &names::backup_credentials(&key.name),
        )
        .await?;
        let Objects {
            service_account,
            credentials,
            cron_job,
        } = build::build(key, &self.context.cluster, backup, valid, repository, projection);

        if let Some(wanted) = service_account {
            children::service_account(&self.context, &wanted).await?;
        }
        if let Some(wanted) = credentials {
            children::credentials(&self.context, &wanted).await?;
        }
        children::cron_job(&self.context, &cron_job, &mut new.cron_job_ref).await?;
        let place = Key::new(&key.namespace, cron_job.name_any());
        if held {
            // Asked for again when the hold is over.
            return Ok(());
        }
        self.run_on_request(key, backup, &cron_job, &place, new).await
    }

    /// One run for each new value of the annotation. The Job's name follows from the value, so that a crash between
    /// its creation and the status cannot start a second one.
    async fn run_on_request(
        &self,
        key: &Key,
        backup: &ResticBackup,
        cron_job: &CronJob,
        place: &Key,
        new: &mut ResticBackupStatus,
    ) -> Result<(), ApplyError> {
        let Some(request) = backup
            .annotations()
            .get(names::ANNOTATION_RUN)
            .filter(|v| !v.is_empty())
        else {
            return Ok(());
        };
        if new.last_run_request.as_ref() == Some(request) {
            return Ok(());
        }
        let Some(owner) = self.context.world.cron_jobs.get(place) else {
            return Ok(());
        };
        let suffix = names::short_hash(format!("{}/{request}", Stored::uid(backup)).as_bytes());
        let name = names::bounded(&place.name, &format!("-{suffix}"), names::LABEL_MAX);
        let job = pod::manual_job(cron_job, &owner.meta.uid, name);
        match self.context.applier.create(&job).await {
            Ok(_) => info!(object = %key, job = job.name_any(), "a backup was asked for"),
            Err(ApplyError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        new.last_run_request = Some(request.clone());
        Ok(())
    }

    /// Consent was withdrawn, or never given: what was made with it stops.
    pub(super) async fn withdraw(&self, key: &Key) -> Result<(), ApplyError> {
        let at = |name: String| Key::new(&key.namespace, name);
        let cron_job = at(names::backup_cron_job(&key.name));
        children::withdraw(&self.context, cron_job, &at(names::backup_credentials(&key.name))).await
    }

    /// Writes the status, and tells of what changed: Events and metrics.
    pub(super) async fn finish(
        &self,
        key: &Key,
        backup: &ResticBackup,
        old: &ResticBackupStatus,
        new: &ResticBackupStatus,
    ) -> Result<(), ApplyError> {
        let world = &self.context.world;
        self.context
            .write_status(&world.backups, key, Stored::uid(backup), old, new)
            .await
            .inspect_err(|error| {
                if !matches!(
                    error,
                    ApplyError::NotLeader | ApplyError::Gone(_) | ApplyError::Conflict(_)
                ) {
                    warn!(%error, "could not write the status");
                }
            })?;
        self.tell(key, Stored::uid(backup), old, new);
        self.measure(key, new);
        Ok(())
    }

    fn tell(&self, key: &Key, uid: &str, old: &ResticBackupStatus, new: &ResticBackupStatus) {
        let publish = |severity, reason: &str, note: &str| {
            info!(object = %key, reason, note, "backup");
            self.context
                .events
                .publish(Self::NAME, key, uid, severity, reason, note);
        };
        let reason = |status: &ResticBackupStatus| {
            conditions::get(&status.conditions, types::READY).map(|c| c.reason.clone())
        };
        if let Some(ready) = conditions::get(&new.conditions, types::READY)
            && reason(old).as_ref() != Some(&ready.reason)
        {
            let severity = if ready.status == "True" {
                Severity::Normal
            } else {
                Severity::Warning
            };
            publish(severity, &ready.reason, &ready.message);
        }
        if let Some(run) = new
            .last_backup
            .as_ref()
            .filter(|run| old.last_backup.as_ref() != Some(run))
        {
            let severity = if run.reason.is_none() {
                Severity::Normal
            } else {
                Severity::Warning
            };
            publish(severity, &format!("Backup{}", run.result.as_str()), &note(run));
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
    fn measure(&self, key: &Key, status: &ResticBackupStatus) {
        let Some(run) = &status.last_backup else { return };
        let seconds = run
            .start_time
            .as_ref()
            .zip(run.completion_time.as_ref())
            .map(|(s, c)| c.0.duration_since(s.0).as_secs_f64());
        let success = status
            .last_successful_backup
            .as_ref()
            .map(|t| t.0.as_second() as f64);
        self.context
            .metrics
            .backup(key, success, run.bytes_processed.map(|b| b as f64), seconds);
        self.context.metrics.backup_result(key, run.result.as_str());
    }
}

fn note(run: &BackupRun) -> String {
    let mut parts = vec![run.job.clone().unwrap_or_default()];
    if let Some(id) = run.snapshot_id.as_deref().and_then(|id| id.get(..8)) {
        parts.push(format!("snapshot {id}"));
    }
    parts.extend(
        run.bytes_added
            .and_then(|b| u64::try_from(b).ok())
            .map(|b| format!("{} added", crate::units::bytes(b))),
    );
    parts.extend(run.duration.clone());
    parts.extend(run.message.clone());
    parts.join(", ")
}
