//! ResticRepository: opens the repository, creates it if there is none, and reads its figures. A look at a repository
//! takes seconds to minutes, so the actor starts it and takes another turn with the answer.

mod act;
mod build;
mod locks;
mod owner;
mod plan;
mod status;
mod unlock;
mod validate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::conditions::{self, reasons, types};
use crds::{ResticRepository, ResticRepositoryStatus};
use jiff::{SignedDuration, Timestamp};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::apply::ApplyError;
use crate::config::Config;
use crate::context::Context;
use crate::kind::{Kind, Outcome, Turn};
use crate::restic::{Failure, Restic};
use crate::worker::since_boot;
use crate::world::{Key, Stored as _};

use plan::{Answer, Attempts, Inputs, Step};
use unlock::{Locks, Looked, Settings};

pub use locks::owner as owner_in_words;
pub use owner::UnlockOwner;

/// The kind, and what its actors share.
pub struct RepositoryKind {
    context: Arc<Context>,
    restic: Arc<dyn Restic>,
    /// Between two readings of statistics, unless a repository says otherwise.
    interval: Duration,
    /// Shortest time between two attempts at a repository that does not open.
    retry: Duration,
    /// Image of the maintenance pods.
    image: String,
    settings: Settings,
    /// Locks that may be removed, by repository: what their operations are given.
    removable: Mutex<HashMap<Key, Vec<String>>>,
}

/// What an actor remembers. Losing it costs one more look at the repository.
#[derive(Default)]
pub struct Memory {
    attempts: Attempts,
    /// An answer whose status could not be written yet.
    unwritten: Option<Reply>,
    /// The look under way, and what it depends on.
    asking: Option<(Inputs, AbortOnDropHandle<()>)>,
    locks: Locks,
    /// A look at the locks alone.
    looking: Option<AbortOnDropHandle<()>>,
    listening: bool,
}

/// What comes back to an actor.
pub enum Report {
    Answer(Reply),
    /// A look at the locks alone; `None` if it failed.
    Locks(Option<Looked>),
    /// An operation of the repository has moved.
    Operation,
}

/// The answer of a look.
pub struct Reply {
    inputs: Inputs,
    answer: Answer,
    /// Key of the password in the Secret, where it is not the usual one.
    password_key: Option<String>,
    /// The locks, where they could be listed.
    locks: Option<Looked>,
}

impl RepositoryKind {
    /// A kind on a context.
    #[must_use]
    pub fn new(context: Arc<Context>, restic: Arc<dyn Restic>, config: &Config) -> RepositoryKind {
        RepositoryKind {
            context,
            restic,
            interval: config.refresh_interval,
            retry: config.retry_interval,
            image: config.image.clone(),
            settings: Settings {
                interval: millis(config.lock_interval),
                after: millis(config.unlock_after),
                after_end: millis(config.test_unlock_after.unwrap_or(config.unlock_after)),
                test: config.test_unlock_after.is_some(),
            },
            removable: Mutex::default(),
        }
    }

    fn lock_removable(&self) -> MutexGuard<'_, HashMap<Key, Vec<String>>> {
        self.removable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Kind for RepositoryKind {
    type Memory = Memory;
    type Report = Report;
    const NAME: &'static str = "ResticRepository";

    fn uid(&self, key: &Key) -> Option<String> {
        self.context
            .world
            .repositories
            .get(key)
            .map(|r| r.uid().to_owned())
    }

    fn keys(&self) -> Vec<Key> {
        self.context.world.repositories.keys()
    }

    async fn turn(&self, mut turn: Turn<'_, Self>) -> Outcome {
        let Some(repository) = self
            .context
            .world
            .repositories
            .get(turn.key)
            .filter(|r| r.uid() == turn.uid)
        else {
            return Outcome::default();
        };
        if repository.metadata.deletion_timestamp.is_some() {
            return Outcome::default();
        }
        let generation = repository.metadata.generation.unwrap_or_default();
        let old = repository.status.clone().unwrap_or_default();
        let valid = match validate::validate(&repository, self.interval) {
            Ok(valid) => valid,
            Err(error) => {
                let new = status::invalid(&old, &error.to_string(), generation, turn.now);
                return self.finish(turn.key, &repository, &old, &new, None).await;
            }
        };
        if self
            .publish_location(turn.key, &repository, &valid)
            .await
            .is_err()
        {
            return Outcome::retry();
        }
        let secret = self
            .context
            .world
            .secrets
            .get(&Key::new(&turn.key.namespace, &valid.secret));
        let inputs = Inputs {
            generation,
            secret: secret.map(|s| s.meta.version.to_string()),
        };

        self.subscribe(&mut turn);
        let mut new = old.clone();
        let report = self.take(&mut turn).or_else(|| turn.memory.unwritten.take());
        let report = report.filter(|report| report.inputs == inputs);
        if let Some(report) = &report {
            new = status::after(&old, &report.answer, &inputs, turn.now);
            if matches!(report.answer, Answer::Open { .. }) {
                new.credentials_key.clone_from(&report.password_key);
            }
            turn.memory.attempts = self.attempts_after(&turn.memory.attempts, report, turn.now);
        }
        let next = match plan::step(&new, &inputs, &turn.memory.attempts, valid.interval, turn.now) {
            Step::Wait(next) => next,
            Step::Ask => {
                if turn
                    .memory
                    .asking
                    .as_ref()
                    .is_none_or(|(asked, _)| *asked != inputs)
                {
                    let known = new.repository_id.clone();
                    let locks = turn.memory.locks.known();
                    let work = self.ask(repository.clone(), inputs.clone(), known, locks);
                    let text = "looking at the repository failed; the log says why".to_owned();
                    let panicked = Report::Answer(Reply {
                        inputs: inputs.clone(),
                        answer: Answer::Failed(Failure::Other(text)),
                        password_key: None,
                        locks: None,
                    });
                    turn.memory.asking = Some((inputs.clone(), turn.reporter.work(work, panicked)));
                }
                new = status::checking(&new, generation, turn.now);
                None
            }
        };
        let tended = self
            .tend(turn.key, &repository, turn.memory, &mut new, turn.now)
            .await;
        self.context
            .certificate
            .mark(&mut new.conditions, Some(generation), turn.now);
        let look = self.look_at_locks(&mut turn, &repository, &new);
        let next = [next, look].into_iter().flatten().min();
        let mut outcome = self.finish(turn.key, &repository, &old, &new, next).await;
        if outcome.failed {
            turn.memory.unwritten = report;
        } else {
            // Their results are recorded now.
            self.context.operations.wake(turn.uid);
        }
        if let Err(error) = tended
            && !matches!(error, ApplyError::NotLeader)
        {
            warn!(object = %turn.key, %error, "the Job that removes locks could not be made or deleted");
            outcome.failed = true;
        }
        outcome
    }

    fn gone(&self, key: &Key, uid: &str) {
        self.context.operations.forget_owner(uid);
        self.lock_removable().remove(key);
    }

    async fn crashed(&self, key: &Key, uid: &str, failures: u32) {
        let Some(repository) = self
            .context
            .world
            .repositories
            .get(key)
            .filter(|r| r.uid() == uid)
        else {
            return;
        };
        let old = repository.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let text =
            format!("the controller of this resource crashed {failures} times in a row; its log says why");
        let (status, now) = (conditions::Status::False, self.context.clock.now());
        conditions::set(
            &mut new.conditions,
            types::READY,
            status,
            reasons::CRASHED,
            &text,
            repository.metadata.generation,
            now,
        );
        let _ = self
            .context
            .write_status(&self.context.world.repositories, key, uid, &old, &new)
            .await;
    }
}

impl RepositoryKind {
    /// Operations of the repository wake its actor.
    fn subscribe(&self, turn: &mut Turn<'_, Self>) {
        if !std::mem::replace(&mut turn.memory.listening, true) {
            let reporter = turn.reporter.clone();
            self.context
                .operations
                .listen(turn.uid, move || reporter.send(Report::Operation));
        }
    }

    /// Takes in what came back; returns the answer of the repository, if that is it.
    fn take(&self, turn: &mut Turn<'_, Self>) -> Option<Reply> {
        match turn.report.take()? {
            Report::Answer(mut reply) => {
                turn.memory.asking = None;
                if let Some(looked) = reply.locks.take() {
                    turn.memory.locks.take(looked);
                }
                Some(reply)
            }
            Report::Locks(looked) => {
                turn.memory.looking = None;
                turn.memory.locks.take(looked?);
                None
            }
            Report::Operation => None,
        }
    }

    /// Starts a look at the locks when it is due. Returns when the next one is.
    fn look_at_locks(
        &self,
        turn: &mut Turn<'_, Self>,
        repository: &Arc<ResticRepository>,
        status: &ResticRepositoryStatus,
    ) -> Option<Timestamp> {
        if turn.memory.looking.is_some() || turn.memory.asking.is_some() {
            return None;
        }
        let due = self.look_due(turn.key, status, &turn.memory.locks, turn.now)?;
        if due > turn.now {
            return Some(due);
        }
        turn.memory.locks.attempted = Some(since_boot());
        let work = self.ask_for_locks(repository.clone(), turn.memory.locks.known());
        let work = async move { Report::Locks(work.await) };
        turn.memory.looking = Some(turn.reporter.work(work, Report::Locks(None)));
        None
    }

    /// How the next attempt is to be timed.
    fn attempts_after(&self, before: &Attempts, report: &Reply, now: Timestamp) -> Attempts {
        let good = matches!(
            &report.answer,
            Answer::Open {
                statistics: Ok(_),
                ..
            }
        );
        if good {
            return Attempts {
                inputs: Some(report.inputs.clone()),
                failures: 0,
                next: None,
            };
        }
        let same = before.inputs.as_ref() == Some(&report.inputs);
        let failures = if same {
            before.failures.saturating_add(1)
        } else {
            1
        };
        let delay = report.answer.retry_after(failures, self.retry);
        let next = delay.and_then(|d| now.checked_add(SignedDuration::try_from(d).ok()?).ok());
        Attempts {
            inputs: Some(report.inputs.clone()),
            failures,
            next,
        }
    }

    /// Writes the status, and publishes its transitions.
    async fn finish(
        &self,
        key: &Key,
        repository: &ResticRepository,
        old: &ResticRepositoryStatus,
        new: &ResticRepositoryStatus,
        next: Option<Timestamp>,
    ) -> Outcome {
        let uid = repository.uid();
        let world = &self.context.world;
        if let Err(error) = self
            .context
            .write_status(&world.repositories, key, uid, old, new)
            .await
        {
            if !matches!(
                error,
                ApplyError::NotLeader | ApplyError::Gone(_) | ApplyError::Conflict(_)
            ) {
                warn!(%error, "could not write the status");
            }
            return Outcome { next, failed: true };
        }
        self.tell(key, uid, old, new);
        Outcome::at(next)
    }
}
