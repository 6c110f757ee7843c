//! The hooks of a restore: what became of them, and what is owed. Pure.

use crds::conditions::{self, Conditions, reasons, types};
use crds::hooks::{HookResult, POST_RESTORE};
use crds::restore::RestorePhase;
use crds::{ResticRestoreStatus, names};

use super::plan::is_over;
use super::{Observed, RestoreController, build};
use crate::hooks::{self, Plan as Hooks, follow};
use crate::kind::{Input, Plan, Removal};
use crate::runs::JobWithPods;
use crate::runs::hooks::outcome;
use crate::site::Site;

/// What a restore may lack whose files are there.
const LACKING: [&str; 2] = [reasons::ATTRIBUTES_NOT_RESTORED, reasons::VERIFICATION_SKIPPED];

/// Takes what is known of the restore's hooks into the plan.
pub(super) fn follow(
    site: &Site,
    input: &Input<'_, RestoreController>,
    observed: &Observed,
    plan: &mut Plan<RestoreController>,
) {
    let (key, old) = (input.key, input.status());
    let prefix = names::restore_service_account(&key.name);
    let uid = |status: &ResticRestoreStatus| {
        let job = observed.job.as_ref().filter(|_| is_over(status));
        job.map(|run| run.job.meta.uid.to_string())
            .into_iter()
            .collect::<Vec<_>>()
    };
    let (before, counted) = (uid(&old), uid(&plan.status));
    let runs = follow::Runs {
        present: observed.job.as_slice(),
        gone: &observed.gone,
        before: &before,
        counted: &counted,
        made: &observed.made,
        spec: input.valid.ok().and_then(|valid| valid.hooks.as_ref()),
        spec_known: input.valid.is_ok(),
    };
    let followed = follow::follow(&old.open_hooks, &prefix, &runs, input.now.wall);
    plan.status.open_hooks = followed.open;
    plan.next = plan.next.into_iter().chain(followed.next).min();
    for hook in followed.made_up.into_iter().flat_map(|(_, ran)| ran) {
        plan.status.hooks.retain(|known| known.name != hook.name);
        plan.status.hooks.push(hook);
    }
    degraded(&mut plan.status, &prefix, input);
    let wanted = followed.wanted.filter(|_| plan.children.job.is_none());
    plan.children.job = wanted
        .map(|(hooks, open)| {
            let metadata = build::hook_job(key, input.resource);
            hooks::job(metadata, (&prefix, &site.image), &hooks, &open)
        })
        .or(plan.children.job.take());
    let unused = is_over(&old) && plan.status.open_hooks.is_empty();
    if unused && input.valid.is_ok_and(|valid| valid.hooks.is_some()) {
        plan.children.removals.push(Removal::Grant(key.sibling(prefix)));
    }
}

/// A restore that went well is degraded by a hook after it that did not.
fn degraded(status: &mut ResticRestoreStatus, prefix: &str, input: &Input<'_, RestoreController>) {
    if status.phase != Some(RestorePhase::Completed) {
        return;
    }
    let after = status.hooks.iter().find(|hook| hook.name == POST_RESTORE);
    let text = match (after, status.open_hooks.first()) {
        (_, Some(entry)) => format!(
            "{POST_RESTORE} has not ended well; Job {} runs it again",
            names::hook_job(prefix, &entry.uid)
        ),
        (Some(after), None) if after.result != HookResult::Succeeded => {
            let why = after.message.clone().unwrap_or_default();
            format!("{POST_RESTORE} has not ended well, and is not tried again: {why}")
        }
        _ => String::new(),
    };
    // The end of the restore keeps what it lacks, whatever becomes of its hooks.
    let lacking = conditions::get(&status.conditions, types::COMPLETE)
        .filter(|end| LACKING.contains(&end.reason.as_str()))
        .map(|end| (end.reason.clone(), end.message.clone()));
    let mut conditions = Conditions::at(&mut status.conditions, input.generation(), input.now.wall);
    if !text.is_empty() {
        conditions.set(types::DEGRADED, true, reasons::POST_HOOK_FAILED, text);
    } else if let Some((reason, text)) = lacking {
        conditions.set(types::DEGRADED, true, &reason, text);
    } else {
        conditions.set(
            types::DEGRADED,
            false,
            reasons::RESTORE_COMPLETED,
            "all went well",
        );
    }
}

/// Adds the hooks of a Job that is over.
pub(super) fn settle(status: &mut ResticRestoreStatus, run: &JobWithPods) {
    if let Some(hooks) = run.job.hooks.as_deref().and_then(Hooks::parse) {
        status.hooks = outcome(hooks.names(), run, follow::never(Some(run))).ran;
    }
}
