//! The hooks of runs: what became of them in a run's result, and what runs owe. Pure.

use crds::ResticBackupStatus;
use crds::backup::{BackupResult, BackupRun};
use crds::conditions::reasons;
use crds::names;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

use super::{BackupController, Observed, build};
use crate::hooks::{self, Plan, follow};
use crate::kind::Input;
use crate::runs::JobWithPods;
use crate::runs::hooks::outcome;
use crate::site::Site;

/// What follows from open hooks.
#[derive(Default)]
pub(super) struct Followed {
    pub job: Option<Job>,
    pub next: Option<Timestamp>,
}

/// Takes what is known of the runs' hooks into the status.
pub(super) fn follow(
    status: &mut ResticBackupStatus,
    site: &Site,
    input: &Input<'_, BackupController>,
    observed: &Observed,
) -> Followed {
    let (key, old) = (input.key, input.status());
    let prefix = names::backup_service_account(&key.name);
    let counted = status.counted_jobs.clone();
    let runs = follow::Runs {
        present: &observed.runs,
        gone: &observed.gone,
        before: &old.counted_jobs,
        counted: &counted,
        made: &observed.made,
        spec: input.valid.ok().and_then(|valid| valid.hooks.as_ref()),
        spec_known: input.valid.is_ok(),
    };
    let followed = follow::follow(&old.open_hooks, &prefix, &runs, input.now.wall);
    for (job, ran) in &followed.made_up {
        if let Some(run) = status
            .last_backup
            .as_mut()
            .filter(|run| run.job.as_ref() == Some(job))
        {
            make_up(run, ran);
        }
    }
    status.open_hooks = followed.open;
    let job = followed.wanted.map(|(plan, open)| {
        let metadata = build::hook_job(key, input.resource);
        hooks::job(metadata, (&prefix, &site.image), &plan, &open)
    });
    Followed {
        job,
        next: followed.next,
    }
}

/// A Job has run hooks of this run.
fn make_up(run: &mut BackupRun, ran: &[crds::hooks::HookRun]) {
    for hook in ran {
        run.hooks.retain(|known| known.name != hook.name);
        run.hooks.push(hook.clone());
    }
}

/// Adds the hooks of a run to its result.
pub(super) fn settle(run: &mut BackupRun, of: &JobWithPods) {
    let Some(plan) = of.job.hooks.as_deref().and_then(Plan::parse) else {
        return;
    };
    let names = plan.names();
    let outcome = outcome(names, of, follow::never(Some(of)));
    run.hooks = outcome.ran;
    let Some(name) = names.after.filter(|name| outcome.owed.contains(name)) else {
        return;
    };
    let told = run.hooks.iter().find(|hook| hook.name == name);
    let why = told.and_then(|hook| hook.message.clone());
    let why = why.unwrap_or_else(|| "its end was not seen".to_owned());
    let text = format!("the {name} hook has not ended well: {why}");
    run.message = Some(match run.message.take() {
        Some(message) => format!("{message}; {text}"),
        None => text,
    });
    if run.result == BackupResult::Succeeded {
        run.result = BackupResult::PartiallyFailed;
        run.reason = Some(reasons::POST_HOOK_FAILED.to_owned());
    }
}

/// What open hooks mean for condition Degraded.
pub(super) fn owing(status: &ResticBackupStatus, prefix: &str) -> Option<String> {
    let entry = status.open_hooks.iter().find(|entry| !entry.owed.is_empty())?;
    Some(format!(
        "{} of run {} has not ended well, and the application may still be as the hook before left it; Job {} runs it again",
        entry.owed.join(", "),
        entry.job,
        names::hook_job(prefix, &entry.uid),
    ))
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
