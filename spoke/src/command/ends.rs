//! How a run that a command asked for has ended: by what its resource has recorded, and else by its Job.

use crds::backup::{BackupResult, CommandedRun};
use proto::v1::{CommandState, OperationOutcome};

use super::ledger::End;
use super::runs::{Run, Sort};
use crate::context::Context;
use crate::world::{JobEnd, JobView, Key, World};

impl Run {
    /// The result that the resource has recorded.
    pub(super) fn ended(&self, context: &Context, id: &str, at: &Key, job: &JobView) -> Option<End> {
        let world = &context.world;
        match self.sort {
            Sort::Backup => {
                if let Some(end) = self.recorded(world, id, &at.name) {
                    return Some(end);
                }
                // It was counted before runs of commands were remembered, or more have ended since than are remembered.
                let backup = world.backups.get(&self.key)?;
                let mut counted = backup.status.as_ref()?.counted_jobs.iter();
                let (_, end) = job.end.as_ref()?;
                counted
                    .any(|uid| **uid == *job.meta.uid)
                    .then(|| self.by_itself(end))
            }
            Sort::Retention | Sort::Preview | Sort::Behalf | Sort::Check => {
                let finished = context.operations.result(&job.meta.uid)?;
                Some(outcome_end(&finished.outcome, finished.by.as_deref()))
            }
        }
    }

    /// The end of the backup that was run for a command, in a Job of this name if nothing is remembered by the id.
    pub(super) fn recorded(&self, world: &World, id: &str, job: &str) -> Option<End> {
        let backup = world.backups.get(&self.key)?;
        let status = backup.status.as_ref()?;
        if let Some(run) = status.commanded_runs.iter().find(|run| run.id == id) {
            return Some(backup_end(run));
        }
        let last = status.last_backup.as_ref();
        let last = last.filter(|last| last.job.as_deref() == Some(job))?;
        Some(backup_end(&CommandedRun {
            id: id.to_owned(),
            result: last.result,
            snapshot_id: last.snapshot_id.clone(),
            reason: last.reason.clone(),
            message: last.message.clone(),
        }))
    }

    /// What the end of a Job shows, where its result is not known.
    pub(super) fn by_itself(&self, end: &JobEnd) -> End {
        match end {
            // One that has found damage is complete, and so is a backup that could not read everything.
            JobEnd::Complete => {
                let text = format!(
                    "its Job is complete, its result is not known here: look at the status of {} {}",
                    self.kind(),
                    self.key
                );
                End::new(CommandState::Failed, text)
            }
            JobEnd::Failed { reason, message } => End::new(
                CommandState::Failed,
                format!("its Job has failed: {reason}: {message}"),
            ),
        }
    }

    /// What is known of a Job that was made and is gone.
    pub(super) fn gone(&self, context: &Context, id: &str, job: &str, made: &str) -> End {
        let known = match self.sort {
            Sort::Backup => self.recorded(&context.world, id, job),
            _ => context
                .operations
                .result(made)
                .map(|finished| outcome_end(&finished.outcome, finished.by.as_deref())),
        };
        known.unwrap_or_else(|| {
            let text = format!(
                "its Job is gone, and what came of it is not known here: look at the status of {} {}",
                self.kind(),
                self.key
            );
            End::new(CommandState::Failed, text)
        })
    }
}

/// How a run of a backup has ended.
fn backup_end(run: &CommandedRun) -> End {
    let snapshot = run.snapshot_id.as_deref().unwrap_or_default();
    let snapshot = snapshot.get(..8).unwrap_or(snapshot);
    let state = match run.result {
        BackupResult::Succeeded => CommandState::Done,
        BackupResult::PartiallyFailed | BackupResult::Failed => CommandState::Failed,
    };
    let why = [run.reason.as_deref(), run.message.as_deref()];
    let why: Vec<&str> = why
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    let mut text = match (run.result, snapshot) {
        (BackupResult::Succeeded, "") => "the backup has succeeded".to_owned(),
        (_, "") => run.result.as_str().to_owned(),
        (BackupResult::Succeeded, snapshot) => format!("snapshot {snapshot}"),
        (_, snapshot) => format!("{}, snapshot {snapshot}", run.result.as_str()),
    };
    if state == CommandState::Failed && !why.is_empty() {
        text = format!("{text}: {}", why.join(": "));
    }
    End::new(state, text)
}

/// How an operation has ended; `by` is the policy whose run did it, if it was another's.
fn outcome_end(outcome: &OperationOutcome, by: Option<&str>) -> End {
    let well = ["Applied", "NothingToRemove", "Preview", "Passed"];
    let state = if well.contains(&outcome.result.as_str()) {
        CommandState::Done
    } else {
        CommandState::Failed
    };
    let mut text = outcome.result.clone();
    for part in [&outcome.reason, &outcome.message] {
        if !part.is_empty() {
            text = format!("{text}: {part}");
        }
    }
    match outcome.result.as_str() {
        "ApprovalRequired" => text.push_str("; `fleet plan list` shows the plan that waits"),
        "Preview" if outcome.planned > 0 => text.push_str("; `fleet plan list` shows the plan"),
        _ => {}
    }
    if let Some(by) = by {
        text.push_str(&format!(" (done by the run of {by})"));
    }
    End::new(state, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_maintenance_run_follows_from_its_result() {
        let end = |result: &str, by| {
            let outcome = OperationOutcome {
                result: result.to_owned(),
                message: "m".to_owned(),
                ..OperationOutcome::default()
            };
            outcome_end(&outcome, by)
        };
        for (result, state) in [
            ("Applied", CommandState::Done),
            ("NothingToRemove", CommandState::Done),
            ("Preview", CommandState::Done),
            ("Passed", CommandState::Done),
            ("Damaged", CommandState::Failed),
            ("Interrupted", CommandState::Failed),
            ("ApprovalRequired", CommandState::Failed),
        ] {
            assert_eq!(end(result, None).state, state, "{result}");
        }
        assert!(end("ApprovalRequired", None).text.contains("fleet plan list"));
        assert!(
            end("Applied", Some("b/shop/nightly"))
                .text
                .contains("b/shop/nightly")
        );
    }

    #[test]
    fn a_job_that_is_complete_does_not_say_that_all_is_well() {
        for sort in [Sort::Backup, Sort::Retention, Sort::Preview, Sort::Check] {
            let key = Key::new("shop", "nas");
            let end = Run::new(sort, key).by_itself(&JobEnd::Complete);
            assert_eq!(end.state, CommandState::Failed, "{sort:?}");
            assert!(end.text.contains("not known here"), "{}", end.text);
        }
    }
}
