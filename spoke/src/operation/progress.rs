//! Where an operation stands: for its owner's status, and for people.

use crds::conditions::reasons;
use proto::v1::OperationOutcome;

use super::actor::Operations;
use super::record::{POD_NOT_STARTED, Record};
use super::result;
use crate::exchange::{Pinned, Progress};
use crate::maintenance::holder::Phase;
use crate::restic::locks::STALE_LOCK;
use crate::runs::{self, State, Words};

impl Operations {
    /// Shows the owner where the operation stands.
    pub(super) fn publish(&self, record: &Record) {
        let progress = self.progress(record);
        let board = &self.context.operations;
        board.publish(&record.pinned.job, progress, record.finished.as_ref());
    }

    fn progress(&self, record: &Record) -> Progress {
        let name = &record.pinned.job.name;
        if record.finished.is_some() {
            return Progress::Ended;
        }
        if let Some(message) = &record.forbidden {
            return Progress::Waiting {
                reason: reasons::MAINTENANCE_FORBIDDEN,
                message: format!("{name} does not start: {message}"),
            };
        }
        match record.holder.phase() {
            Phase::Waiting { .. } if self.is_early(record) => self.later(record),
            Phase::Waiting { .. } if let Some(closed) = self.closed(record) => Progress::Waiting {
                reason: reasons::MAINTENANCE_CLOSED,
                message: format!("{name} waits: {}", closed.text),
            },
            Phase::Waiting { .. } if !self.context.leases.is_connected() => Progress::Waiting {
                reason: reasons::HUB_AWAY,
                message: format!(
                    "{name} waits for the maintenance lock: the hub cannot be reached. Backups go on"
                ),
            },
            Phase::Waiting { .. } => {
                let words = record.waiting.as_deref().unwrap_or("it is asked for");
                Progress::Waiting {
                    reason: reasons::WAITING_FOR_LOCK,
                    message: format!("{name} waits for the maintenance lock: {words}"),
                }
            }
            Phase::Held(_) => self.starting(record).unwrap_or(Progress::Running),
            _ => Progress::Running,
        }
    }

    /// A Job that follows another one after a pause, and why.
    fn later(&self, record: &Record) -> Progress {
        let name = &record.pinned.job.name;
        let job = self.job(&record.pinned.job, &record.pinned.operation);
        let (reason, why) = match job.as_ref().and_then(|job| job.follows.as_deref()) {
            Some(STALE_LOCK) => (
                reasons::REPOSITORY_LOCKED,
                "restic's lock of a run that is over is still in the repository, and is removed first",
            ),
            Some(POD_NOT_STARTED) => (
                reasons::POD_NEVER_STARTED,
                "the container of the run before did not start",
            ),
            _ => (reasons::WAITING_FOR_LOCK, "the run before it did not do its work"),
        };
        Progress::Waiting {
            reason,
            message: format!("{name} asks for the maintenance lock again later: {why}"),
        }
    }

    /// Why a pod does not start.
    fn starting(&self, record: &Record) -> Option<Progress> {
        let words = self.waits_for(&record.pinned)?;
        Some(Progress::Waiting {
            reason: reasons::POD_NEVER_STARTED,
            message: format!("{}: {}", words.reason, words.text),
        })
    }

    /// What the Job of an operation waits for, if none of its pods runs.
    fn waits_for(&self, pinned: &Pinned) -> Option<Words> {
        let job = self.job(&pinned.job, &pinned.operation)?;
        let run = self.run(pinned, job);
        match runs::state::<OperationOutcome>(&run, self.context.clock.now()) {
            State::Waiting { words, .. } => words,
            _ => None,
        }
    }

    /// Why the Job is shut, for its annotations and the result.
    pub(super) fn why(&self, record: &Record) -> (&'static str, String) {
        if let Some(ending) = &record.ending {
            return (ending.reason, ending.message.clone());
        }
        let words = self.waits_for(&record.pinned);
        result::describe(
            record.holder.interruption(),
            record.waiting.as_deref(),
            words.as_ref().map(|words| words.text.as_str()),
        )
    }
}
