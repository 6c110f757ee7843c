//! ResticRepository: opens the repository, creates it if there is none, and reads its figures. A look at a repository
//! takes seconds to minutes, so the actor starts it and takes another turn with the answer.

mod act;
mod locks;
mod plan;
mod status;
mod validate;

use std::sync::Arc;
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
use crate::world::{Key, Stored as _};

use plan::{Answer, Attempts, Inputs, Step};

pub use locks::owner as owner_in_words;

/// The kind, and what its actors share.
pub struct RepositoryKind {
    context: Arc<Context>,
    restic: Arc<dyn Restic>,
    /// Between two readings of statistics, unless a repository says otherwise.
    interval: Duration,
    /// Shortest time between two attempts at a repository that does not open.
    retry: Duration,
}

/// What an actor remembers. Losing it costs one more look at the repository.
#[derive(Default)]
pub struct Memory {
    attempts: Attempts,
    /// An answer whose status could not be written yet.
    unwritten: Option<Report>,
    /// The look under way, and what it depends on.
    asking: Option<(Inputs, AbortOnDropHandle<()>)>,
}

/// The answer of a look.
pub struct Report {
    inputs: Inputs,
    answer: Answer,
    /// Key of the password in the Secret, where it is not the usual one.
    password_key: Option<String>,
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
        }
    }
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

        let mut new = old.clone();
        if turn.report.is_some() {
            turn.memory.asking = None;
        }
        let report = turn.report.take().or_else(|| turn.memory.unwritten.take());
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
                    let work = self.ask(repository.clone(), inputs.clone(), known);
                    let panicked = Report {
                        inputs: inputs.clone(),
                        answer: Answer::Failed(Failure::Other("looking at the repository failed; the log says why".to_owned())),
                        password_key: None,
                    };
                    turn.memory.asking = Some((inputs.clone(), turn.reporter.work(work, panicked)));
                }
                new = status::checking(&new, generation, turn.now);
                None
            }
        };
        let outcome = self.finish(turn.key, &repository, &old, &new, next).await;
        if outcome.failed {
            turn.memory.unwritten = report;
        }
        outcome
    }

    fn gone(&self, _: &Key, uid: &str) {
        self.context.outbox.gone(uid);
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
    /// How the next attempt is to be timed.
    fn attempts_after(&self, before: &Attempts, report: &Report, now: Timestamp) -> Attempts {
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

    /// Writes the status, tells of transitions, and hands the result to the hub's outbox.
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
        if let Some(now) = world.repositories.get(key) {
            self.context
                .outbox
                .put(crate::link::convert::repository_state(&now));
        }
        Outcome::at(next)
    }
}
