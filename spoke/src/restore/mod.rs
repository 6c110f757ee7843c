//! ResticRestore: brings a snapshot back, once. Pending until everything it names is there and its snapshot is known,
//! InProgress while its Job runs, then Completed or Failed for good. An operator that restarts at any point finds in the
//! status and in the Job itself where it was.

mod act;
mod build;
mod outcome;
mod select;
mod status;
mod target;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::common::CrossNamespaceObjectReference;
use crds::conditions::{self, reasons, types};
use crds::restore::RestorePhase;
use crds::{ResticRepository, ResticRestore, ResticRestoreStatus, names};
use jiff::{SignedDuration, Timestamp};
use tokio_util::task::AbortOnDropHandle;

use crate::apply::ApplyError;
use crate::children;
use crate::config::Config;
use crate::consent::{self, Blocked};
use crate::context::Context;
use crate::kind::{Kind, Outcome, Turn};
use crate::pod::finished::Ended;
use crate::restic::{Failure, Restic};
use crate::runs::JobWithPods;
use crate::world::{JobView, Key, Stored as _};

use outcome::Progress;
use select::{Chosen, Identity, NotChosen};
use status::{fail, over, started, waiting};
use target::Claim;
use validate::{Origin, Target, Valid};

/// Finalizer of the original operator.
const COMPAT_FINALIZER: &str = "backup.resticbackup.io/resticrestore-finalizer";

/// The kind, and what its actors share.
pub struct RestoreKind {
    context: Arc<Context>,
    restic: Arc<dyn Restic>,
    /// Between two attempts at a repository that does not answer.
    retry: Duration,
}

/// What an actor remembers. Losing it costs one more look at the list of snapshots.
#[derive(Default)]
pub struct Memory {
    asking: Option<AbortOnDropHandle<()>>,
    /// Not before this time; the repository did not answer.
    wait_until: Option<Timestamp>,
}

/// The snapshot that is meant, or why there is none.
pub enum Report {
    Chosen(Result<Chosen, NotChosen>),
    /// The repository could not be asked.
    Unanswered(String),
}

/// What a restore needs of its surroundings.
struct Ready {
    at: Key,
    repository: Arc<ResticRepository>,
    /// Image of the backup that is referred to, or the default.
    image: String,
    identity: Option<Identity>,
}

/// Why a restore cannot begin yet.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    reason: &'static str,
    message: String,
}

impl RestoreKind {
    /// A kind on a context.
    #[must_use]
    pub fn new(context: Arc<Context>, restic: Arc<dyn Restic>, config: &Config) -> RestoreKind {
        RestoreKind {
            context,
            restic,
            retry: config.retry_interval,
        }
    }
}

impl Kind for RestoreKind {
    type Memory = Memory;
    type Report = Report;
    const NAME: &'static str = "ResticRestore";

    fn uid(&self, key: &Key) -> Option<String> {
        self.context.world.restores.get(key).map(|r| r.uid().to_owned())
    }

    fn keys(&self) -> Vec<Key> {
        self.context.world.restores.keys()
    }

    async fn turn(&self, mut turn: Turn<'_, Self>) -> Outcome {
        let (key, now) = (turn.key, turn.now);
        let world = &self.context.world;
        let Some(restore) = world.restores.get(key).filter(|r| r.uid() == turn.uid) else {
            return Outcome::default();
        };
        if restore.metadata.deletion_timestamp.is_some() {
            return children::release(&self.context, key, &*restore, COMPAT_FINALIZER).await;
        }
        let old = restore.status.clone().unwrap_or_default();
        if matches!(old.phase, Some(RestorePhase::Completed | RestorePhase::Failed)) {
            return self.settle(key, &restore, &old, now).await;
        }
        let mut new = old.clone();
        new.observed_generation = restore.metadata.generation;
        new.phase = new.phase.or(Some(RestorePhase::Pending));
        let outcome = match validate::validate(key, &restore) {
            Err(error) => {
                waiting(&mut new, &restore, error.reason(), &error.to_string(), now);
                Outcome::default()
            }
            Ok(valid) => self.advance(&mut turn, &restore, &valid, &mut new).await,
        };
        let written = self.finish(key, &restore, &old, &new).await;
        let cleaned = if self.needs_credentials(key, &restore, &new) {
            Outcome::default()
        } else if written.is_ok() {
            self.settle(key, &restore, &new, now).await
        } else {
            self.clean(key, &restore).await
        };
        Outcome {
            failed: outcome.failed || written.is_err() || cleaned.failed,
            next: [outcome.next, cleaned.next].into_iter().flatten().min(),
        }
    }

    fn gone(&self, _: &Key, _: &str) {}

    async fn crashed(&self, key: &Key, uid: &str, failures: u32) {
        let Some(restore) = self.context.world.restores.get(key).filter(|r| r.uid() == uid) else {
            return;
        };
        let old = restore.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let text =
            format!("the controller of this resource crashed {failures} times in a row; its log says why");
        waiting(
            &mut new,
            &restore,
            reasons::CRASHED,
            &text,
            self.context.clock.now(),
        );
        let _ = self
            .context
            .write_status(&self.context.world.restores, key, uid, &old, &new)
            .await;
    }
}

impl RestoreKind {
    /// One step on the way from Pending to an end.
    async fn advance(
        &self,
        turn: &mut Turn<'_, Self>,
        restore: &ResticRestore,
        valid: &Valid,
        new: &mut ResticRestoreStatus,
    ) -> Outcome {
        let (key, now) = (turn.key, turn.now);
        let report = turn.report.take();
        if report.is_some() {
            turn.memory.asking = None;
        }
        // A Job that is there was made in an earlier turn, whatever the status could still say of it.
        if let Some((at, job)) = self.job(key, restore) {
            if job.meta.deleting && new.phase == Some(RestorePhase::Pending) {
                // Taken back: its end wakes this actor again.
                return Outcome::default();
            }
            if let Some(wait) = self.lost_footing(key, &job, restore, valid) {
                return self.take_back(&at, &job, restore, &wait, new, now).await;
            }
            return self.follow(&at, &job, restore, valid, new, now).await;
        }
        if new.phase == Some(RestorePhase::InProgress) {
            let text = "the restore's Job was deleted before it had ended; what it had written is in the target: create the restore anew";
            fail(new, restore, reasons::JOB_NOT_FOUND, text, now);
            return Outcome::default();
        }
        let ready = match self.surroundings(key, restore, valid) {
            Ok(ready) => ready,
            Err(Wait { reason, message }) => {
                waiting(new, restore, reason, &message, now);
                return Outcome::default();
            }
        };
        match report {
            Some(Report::Chosen(Ok(chosen))) => {
                self.start(key, restore, valid, &ready, &chosen, new, now).await
            }
            Some(Report::Chosen(Err(error))) => {
                let reason = match error {
                    NotChosen::Ambiguous(..) | NotChosen::SeveralBackups(_) => reasons::SNAPSHOT_AMBIGUOUS,
                    _ => reasons::SNAPSHOT_NOT_FOUND,
                };
                fail(new, restore, reason, &error.to_string(), now);
                Outcome::default()
            }
            Some(Report::Unanswered(error)) => {
                let text = format!("the list of snapshots could not be read, it is tried again: {error}");
                waiting(new, restore, reasons::REPOSITORY_UNREACHABLE, &text, now);
                let pause = SignedDuration::try_from(self.retry).unwrap_or(SignedDuration::from_secs(30));
                turn.memory.wait_until = now.checked_add(pause).ok();
                Outcome::at(turn.memory.wait_until)
            }
            None if turn.memory.wait_until.is_some_and(|until| now < until) => {
                Outcome::at(turn.memory.wait_until)
            }
            None => {
                if turn.memory.asking.is_none() {
                    let work = self.ask(ready, valid.snapshot.clone());
                    let panicked = Report::Unanswered("reading it failed; the log says why".to_owned());
                    turn.memory.asking = Some(turn.reporter.work(work, panicked));
                }
                waiting(
                    new,
                    restore,
                    reasons::SELECTING_SNAPSHOT,
                    "reading the list of snapshots",
                    now,
                );
                Outcome::default()
            }
        }
    }

    /// The Job of this very restore.
    fn job(&self, key: &Key, restore: &ResticRestore) -> Option<(Key, Arc<JobView>)> {
        let at = Key::new(&key.namespace, names::restore_job(&key.name));
        let job = self.context.world.jobs.get(&at)?;
        (job.meta.owner.as_deref() == Some(restore.uid())).then_some((at, job))
    }

    /// What a Job needs and does not have any more, before any of its pods has started: the claim that this restore made,
    /// or the consent of the repository's owner.
    fn lost_footing(&self, key: &Key, job: &JobView, restore: &ResticRestore, valid: &Valid) -> Option<Wait> {
        let world = &self.context.world;
        let pods = world.pods.group(&Key::new("", &job.meta.uid));
        let began = pods.iter().any(|(_, pod)| pod.started || pod.restic.is_some());
        if began || job.end.is_some() {
            return None;
        }
        if let Some(reference) = self.repository_reference(valid)
            && consent::ended(world, key, &reference)
        {
            let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
            return Some(Wait {
                reason: reasons::NAMESPACE_NOT_ALLOWED,
                message: format!(
                    "ResticRepository {at} does not allow namespace {} any more",
                    key.namespace
                ),
            });
        }
        let Target::New(new) = &valid.target else {
            return None;
        };
        let present = world.claims.get(&Key::new(&key.namespace, &new.name));
        match target::claim(&valid.target, restore.uid(), present.as_deref()) {
            Claim::Ready => None,
            Claim::Make => Some(Wait {
                reason: reasons::TARGET_EXISTS,
                message: format!(
                    "PersistentVolumeClaim {:?} was deleted before the restore began; it is made again",
                    new.name
                ),
            }),
            Claim::Wait(wait) => Some(wait),
        }
    }

    /// Ends a Job whose pods have not started, and waits again.
    async fn take_back(
        &self,
        at: &Key,
        job: &JobView,
        restore: &ResticRestore,
        wait: &Wait,
        new: &mut ResticRestoreStatus,
        now: Timestamp,
    ) -> Outcome {
        if self.remove_job(at, &job.meta.uid).await.is_err() {
            return Outcome::retry();
        }
        self.context.world.jobs.remove(at, Some(&job.meta.uid));
        new.phase = Some(RestorePhase::Pending);
        (new.start_time, new.job_ref) = (None, None);
        waiting(new, restore, wait.reason, &wait.message, now);
        Outcome::default()
    }

    /// Whether the copy of the credentials is still needed: a Job of this restore has not ended, and consent goes on.
    fn needs_credentials(&self, key: &Key, restore: &ResticRestore, status: &ResticRestoreStatus) -> bool {
        let over = matches!(status.phase, Some(RestorePhase::Completed | RestorePhase::Failed));
        let job = self.job(key, restore);
        let at_work = job.is_some_and(|(_, job)| job.end.is_none() && !job.meta.deleting);
        let ended = |reference| consent::ended(&self.context.world, key, &reference);
        let valid = validate::validate(key, restore).ok();
        let reference = valid.and_then(|valid| self.repository_reference(&valid));
        !over && at_work && !reference.is_some_and(ended)
    }

    /// What is left to do when the end is recorded: the copy of the credentials goes, and the pod that holds the claim.
    async fn settle(
        &self,
        key: &Key,
        restore: &ResticRestore,
        status: &ResticRestoreStatus,
        now: Timestamp,
    ) -> Outcome {
        let cleaned = self.clean(key, restore).await;
        let over = matches!(status.phase, Some(RestorePhase::Completed | RestorePhase::Failed));
        let Some((at, job)) = self.job(key, restore).filter(|_| over) else {
            return cleaned;
        };
        let run = JobWithPods::of(&self.context.world, at, job.clone());
        let lingering = children::end_lingering(&self.context, &run, now).await;
        let ended = job.end.as_ref().map(|(at, _)| Ended {
            job_uid: job.meta.uid.to_string(),
            at: at.or(job.created).unwrap_or(now),
            well: status.phase == Some(RestorePhase::Completed),
        });
        let target = &restore.spec.target;
        let claim = target.pvc.as_ref().map(|pvc| &pvc.claim_name);
        let claim = claim.or(target.new_pvc.as_ref().map(|new| &new.name));
        let deleting = claim.is_some_and(|name| {
            let claim = self.context.world.claims.get(&Key::new(&key.namespace, name));
            claim.is_some_and(|claim| claim.meta.deleting)
        });
        let ended: Vec<Ended> = ended.into_iter().collect();
        let released = children::release_pods(&self.context, &ended, deleting, now).await;
        Outcome {
            next: released.next.into_iter().chain(lingering.next).min(),
            failed: cleaned.failed || released.failed || lingering.failed,
        }
    }

    /// Deletes the copy of the credentials, if there is one.
    async fn clean(&self, key: &Key, restore: &ResticRestore) -> Outcome {
        let copy = Key::new(&key.namespace, names::restore_credentials(&key.name));
        let secret = self.context.world.secrets.get(&copy);
        if secret.is_none_or(|secret| secret.meta.owner.as_deref() != Some(restore.uid())) {
            return Outcome::default();
        }
        match children::remove_credentials(&self.context, &copy).await {
            Ok(()) | Err(ApplyError::NotLeader) => Outcome::default(),
            Err(_) => Outcome::retry(),
        }
    }

    /// The repository that is restored from, as far as it is known.
    fn repository_reference(&self, valid: &Valid) -> Option<CrossNamespaceObjectReference> {
        let at = match &valid.origin {
            Origin::Repository(at) => at.clone(),
            Origin::Backup(from) => {
                let backup = self.context.world.backups.get(from)?;
                let reference = &backup.spec.repository_ref;
                Key::new(reference.namespace_or(&from.namespace), &reference.name)
            }
        };
        Some(CrossNamespaceObjectReference {
            name: at.name.to_string(),
            namespace: Some(at.namespace.to_string()),
        })
    }

    /// The Job is there: what becomes of it.
    async fn follow(
        &self,
        at: &Key,
        job: &Arc<JobView>,
        restore: &ResticRestore,
        valid: &Valid,
        new: &mut ResticRestoreStatus,
        now: Timestamp,
    ) -> Outcome {
        started(new, restore, at, job, now);
        let mut run = JobWithPods::of(&self.context.world, at.clone(), job.clone());
        run.last_words = conditions::get(&new.conditions, types::WAITING).map(|c| c.message.clone());
        match outcome::progress(&run, valid.filtered, now) {
            Progress::Running => {
                status::running(new, restore, at, now);
                Outcome::default()
            }
            Progress::Waiting { words, again } => {
                status::starting(new, restore, at, words.as_ref(), now);
                Outcome::at(again)
            }
            // What its pod was last known to wait for is still needed.
            Progress::Settling(again) => Outcome::at(Some(again)),
            Progress::NeverStarted(outcome) => {
                if self.remove_job(at, &job.meta.uid).await.is_err() {
                    return Outcome::retry();
                }
                over(new, restore, &outcome, now);
                Outcome::default()
            }
            Progress::Over(outcome) => {
                over(new, restore, &outcome, now);
                Outcome::default()
            }
        }
    }

    /// Is everything there that the restore names?
    fn surroundings(&self, key: &Key, restore: &ResticRestore, valid: &Valid) -> Result<Ready, Wait> {
        let world = &self.context.world;
        let (at, backup) = match &valid.origin {
            Origin::Repository(at) => (at.clone(), None),
            Origin::Backup(from) => {
                let backup = world.backups.get(from).ok_or_else(|| Wait {
                    reason: reasons::BACKUP_NOT_FOUND,
                    message: format!(
                        "ResticBackup {from} does not exist; create it, correct spec.backupRef, or name the repository in spec.repositoryRef"
                    ),
                })?;
                let reference = &backup.spec.repository_ref;
                (
                    Key::new(reference.namespace_or(&from.namespace), &reference.name),
                    Some((from, backup)),
                )
            }
        };
        let labels = world.namespaces.get(&Key::new("", &key.namespace));
        let labels = labels
            .map(|n| n.labels.clone())
            .unwrap_or_else(|| Arc::new(BTreeMap::new()));
        let repository = world.repositories.get(&at);
        if let Err(blocked) = consent::usable(&at, &key.namespace, repository.as_deref(), &labels) {
            return Err(match blocked {
                Blocked::Wait { reason, message } => Wait { reason, message },
                Blocked::Refused { message } => Wait {
                    reason: reasons::NAMESPACE_NOT_ALLOWED,
                    message,
                },
            });
        }
        let missing = || Wait {
            reason: reasons::REPOSITORY_NOT_FOUND,
            message: format!("ResticRepository {at} does not exist"),
        };
        let repository = repository.ok_or_else(missing)?;
        let image = backup
            .as_ref()
            .and_then(|(_, b)| b.spec.restic.as_ref()?.image.clone());
        let image = image.filter(|image| !image.is_empty());
        let image = image.unwrap_or_else(|| crds::RESTIC_IMAGE.to_owned());
        let images = &self.context.site.images;
        if !images.allows(&image) {
            return Err(Wait {
                reason: reasons::IMAGE_NOT_ALLOWED,
                message: images.refusal(&image),
            });
        }
        self.target(key, restore, valid)?;
        Ok(Ready {
            image,
            identity: backup.map(|(from, b)| Identity::of(&self.context.site, from, &b)),
            at,
            repository,
        })
    }

    fn target(&self, key: &Key, restore: &ResticRestore, valid: &Valid) -> Result<(), Wait> {
        let name = match &valid.target {
            Target::Existing(name) => name,
            Target::New(new) => &new.name,
        };
        let present = self.context.world.claims.get(&Key::new(&key.namespace, name));
        match target::claim(&valid.target, restore.uid(), present.as_deref()) {
            Claim::Ready | Claim::Make => Ok(()),
            Claim::Wait(wait) => Err(wait),
        }
    }
}

/// A failure of the repository, in words for the status.
fn unanswered(failure: &Failure) -> Report {
    Report::Unanswered(failure.to_string())
}
