//! ResticBackup: a CronJob that backs a volume up, and a status that tells what came of it.

mod act;
pub mod build;
mod options;
mod plan;
mod result;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{self, Status, reasons, types};
use crds::{ResticBackup, ResticBackupStatus, names};
use jiff::{SignedDuration, Timestamp};

use crate::apply::ApplyError;
use crate::children;
use crate::consent;
use crate::context::Context;
use crate::kind::{Kind, Outcome, Turn};
use crate::runs::{self, JobWithPods, Words};
use crate::world::{Key, Stored as _};

use plan::{Gate, Observed};
pub use status::next;
pub use validate::SOURCE_DIR;
use validate::Valid;

/// Finalizer of the original operator.
const COMPAT_FINALIZER: &str = "backup.resticbackup.io/resticbackup-finalizer";

/// The kind, and what its actors share.
pub struct BackupKind {
    context: Arc<Context>,
}

impl BackupKind {
    /// A kind on a context.
    #[must_use]
    pub fn new(context: Arc<Context>) -> BackupKind {
        BackupKind { context }
    }
}

impl Kind for BackupKind {
    /// Everything that matters is in the status and in the objects themselves.
    type Memory = ();
    type Report = ();
    const NAME: &'static str = "ResticBackup";

    fn uid(&self, key: &Key) -> Option<String> {
        self.context.world.backups.get(key).map(|b| b.uid().to_owned())
    }

    fn keys(&self) -> Vec<Key> {
        self.context.world.backups.keys()
    }

    async fn turn(&self, turn: Turn<'_, Self>) -> Outcome {
        let (key, now) = (turn.key, turn.now);
        let Some(backup) = self
            .context
            .world
            .backups
            .get(key)
            .filter(|b| b.uid() == turn.uid)
        else {
            return Outcome::default();
        };
        if backup.metadata.deletion_timestamp.is_some() {
            return children::release(&self.context, key, &*backup, COMPAT_FINALIZER).await;
        }
        let generation = backup.metadata.generation;
        let old = backup.status.clone().unwrap_or_default();
        let runs = self.runs(key, &old);
        let refused = self.refused(key, &runs);
        let (mut new, mut again) = status::with_runs(&old, &backup, &runs, refused, now);

        let mut failed = false;
        for run in &runs {
            let ended = children::end_lingering(&self.context, run, now).await;
            failed |= ended.failed;
            again = again.into_iter().chain(ended.next).min();
        }
        let mut next = None;
        match validate::validate(key, &self.context.site, &backup) {
            Err(error) => {
                status::ready(
                    &mut new,
                    Status::False,
                    error.reason(),
                    &error.to_string(),
                    generation,
                    now,
                );
                new.next_backup = None;
                if error.is_unsafe() || consent::ended(&self.context.world, key, &backup.spec.repository_ref)
                {
                    failed |= self.withdraw(key).await.is_err();
                }
            }
            Ok(valid) => {
                next = self
                    .carry_out(key, &backup, &valid, &mut new, &mut failed, now)
                    .await;
            }
        }
        let next = [next, again].into_iter().flatten().min();
        if self.finish(key, &backup, &old, &new).await.is_err() {
            return Outcome { next, failed: true };
        }
        let claim = backup.spec.source.pvc.as_ref().map(|pvc| &pvc.claim_name);
        let deleting = claim.is_some_and(|claim| self.is_claim_deleting(key, claim));
        let ended = status::ended(&new, &runs);
        let released = children::release_pods(&self.context, &ended, deleting, now).await;
        Outcome {
            next: [next, released.next].into_iter().flatten().min(),
            failed: failed || released.failed,
        }
    }

    fn gone(&self, key: &Key, _: &str) {
        self.context.metrics.backup_gone(key);
    }

    async fn crashed(&self, key: &Key, uid: &str, failures: u32) {
        let Some(backup) = self.context.world.backups.get(key).filter(|b| b.uid() == uid) else {
            return;
        };
        let old = backup.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let text =
            format!("the controller of this resource crashed {failures} times in a row; its log says why");
        let now = self.context.clock.now();
        status::ready(
            &mut new,
            Status::False,
            reasons::CRASHED,
            &text,
            backup.metadata.generation,
            now,
        );
        let _ = self
            .context
            .write_status(&self.context.world.backups, key, uid, &old, &new)
            .await;
    }
}

impl BackupKind {
    /// Jobs of this backup, those of a deleted namesake excepted.
    fn runs(&self, key: &Key, old: &ResticBackupStatus) -> Vec<JobWithPods> {
        let world = &self.context.world;
        let label = Key::new(&key.namespace, names::label_value(&key.name));
        let cron_job = world
            .cron_jobs
            .get(&Key::new(&key.namespace, names::backup_cron_job(&key.name)));
        let owner = cron_job.map(|c| c.meta.uid.clone());
        let jobs = world
            .jobs
            .group(&label)
            .into_iter()
            .filter(|(_, job)| job.meta.owner == owner && owner.is_some());
        let last_words = conditions::get(&old.conditions, types::WAITING).map(|c| c.message.clone());
        jobs.map(|(key, job)| JobWithPods {
            last_words: last_words.clone(),
            ..JobWithPods::of(world, key, job)
        })
        .collect()
    }

    /// Why the CronJob makes no Job, if that is so.
    fn refused(&self, key: &Key, runs: &[JobWithPods]) -> Option<Words> {
        let world = &self.context.world;
        let name = names::backup_cron_job(&key.name);
        let cron_job = world.cron_jobs.get(&Key::new(&key.namespace, &name))?;
        let created = runs.iter().filter_map(|run| run.job.created);
        let last = created.chain(cron_job.last_schedule).max();
        runs::not_created(&name, world.notices.get(&cron_job.meta.uid).as_deref(), last)
    }

    fn is_claim_deleting(&self, key: &Key, name: &str) -> bool {
        let claim = self.context.world.claims.get(&Key::new(&key.namespace, name));
        claim.is_some_and(|claim| claim.meta.deleting)
    }

    /// Decides on a valid spec, and does what follows. Returns when the schedule is due.
    async fn carry_out(
        &self,
        key: &Key,
        backup: &ResticBackup,
        valid: &Valid,
        new: &mut ResticBackupStatus,
        failed: &mut bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let world = &self.context.world;
        let generation = backup.metadata.generation;
        let repository = world.repositories.get(&valid.repository);
        let labels = world
            .namespaces
            .get(&Key::new("", &key.namespace))
            .map(|n| n.labels.clone())
            .unwrap_or_default();
        let claim = world.claims.get(&Key::new(&key.namespace, &valid.claim));
        let observed = Observed {
            repository: repository.as_deref(),
            labels: &labels,
            claim: claim.as_deref(),
        };
        let mut held: Option<Duration> = None;
        match (plan::gate(key, valid, &observed), repository) {
            (Gate::Open, Some(repository)) => {
                status::repository(
                    new,
                    true,
                    reasons::REPOSITORY_READY,
                    "the repository is ready",
                    generation,
                    now,
                );
                let id = repository.status.as_ref().and_then(|s| s.repository_id.clone());
                held = id.and_then(|id| self.context.leases.drain_left(&id));
                // A start that falls into the time is made up for when it is over.
                let mut wanted = valid.clone();
                wanted.suspend |= held.is_some();
                let is_held = held.is_some();
                let result = self.ensure(key, backup, &wanted, is_held, &repository, new).await;
                self.report(valid, held.is_some(), new, result, generation, failed, now);
            }
            (Gate::Refused { message }, _) => {
                let reason = reasons::NAMESPACE_NOT_ALLOWED;
                status::repository(new, false, reason, &message, generation, now);
                status::ready(new, Status::False, reason, &message, generation, now);
                *failed |= self.withdraw(key).await.is_err();
                new.next_backup = None;
                return None;
            }
            (Gate::Held { reason, message }, _) => {
                let text = "the repository is ready";
                status::repository(new, true, reasons::REPOSITORY_READY, text, generation, now);
                status::ready(new, Status::False, reason, &message, generation, now);
                // A run would hang, or bind the claim.
                let cron_job = Key::new(&key.namespace, names::backup_cron_job(&key.name));
                *failed |= children::suspend(&self.context, cron_job).await.is_err();
                new.next_backup = None;
                return None;
            }
            (Gate::Wait { reason, message }, _) => {
                status::repository(new, false, reason, &message, generation, now);
                status::ready(new, Status::False, reason, &message, generation, now);
                if consent::ended(world, key, &backup.spec.repository_ref) {
                    *failed |= self.withdraw(key).await.is_err();
                }
            }
            (Gate::Open, None) => {}
        }
        let cron_job = world
            .cron_jobs
            .get(&Key::new(&key.namespace, names::backup_cron_job(&key.name)));
        let cron_job = cron_job?;
        new.next_backup = status::next(&valid.schedule, valid.suspend, cron_job.last_schedule, now);
        // A second later, so that the CronJob controller has had its turn.
        let due = new
            .next_backup
            .as_ref()
            .and_then(|t| t.0.checked_add(SignedDuration::from_secs(1)).ok());
        let free = held.and_then(|left| now.checked_add(SignedDuration::try_from(left).ok()?).ok());
        [due, free].into_iter().flatten().min()
    }

    /// What making the objects came to, as condition Ready.
    #[allow(clippy::too_many_arguments, reason = "one call, one name each")]
    fn report(
        &self,
        valid: &Valid,
        held: bool,
        new: &mut ResticBackupStatus,
        result: Result<(), ApplyError>,
        generation: Option<i64>,
        failed: &mut bool,
        now: Timestamp,
    ) {
        match result {
            Ok(()) => {
                let mut text = if valid.suspend {
                    "suspended".to_owned()
                } else if held {
                    format!(
                        "scheduled: {} ({}); this and a run that was asked for are held for a moment, maintenance of the repository begins",
                        valid.cron, valid.timezone
                    )
                } else {
                    format!("scheduled: {} ({})", valid.cron, valid.timezone)
                };
                if !valid.without_effect.is_empty() {
                    text = format!("{text}; not in effect yet: {}", valid.without_effect.join(", "));
                }
                status::ready(
                    new,
                    Status::True,
                    reasons::BACKUP_CONFIGURED,
                    &text,
                    generation,
                    now,
                );
            }
            Err(ApplyError::NotLeader) => {}
            Err(error @ (ApplyError::Invalid(_) | ApplyError::Forbidden(_))) => {
                // A change of the spec helps, or of somebody's quota; the latter is not watched.
                *failed = true;
                status::ready(
                    new,
                    Status::False,
                    reasons::CRON_JOB_FAILED,
                    &error.to_string(),
                    generation,
                    now,
                );
            }
            Err(error) => {
                *failed = true;
                // Present state stays as it is known: the API server being away is no fault of this backup.
                if conditions::get(&new.conditions, types::READY).is_none() {
                    status::ready(
                        new,
                        Status::Unknown,
                        reasons::API_ERROR,
                        &error.to_string(),
                        generation,
                        now,
                    );
                }
            }
        }
    }
}
