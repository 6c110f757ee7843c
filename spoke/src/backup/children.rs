//! The objects of a backup that a turn applies or removes. Pure.

use std::sync::Arc;

use crds::hooks::OpenHooks;
use crds::{ResticRepository, names};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::build::{self, Objects};
use super::locate::Located;
use super::readiness::Readiness;
use super::validate::Valid;
use super::{BackupController, Observed, moved};
use crate::hooks::{Needs, Plan as HookPlan};
use crate::kind::{Children, Credentials, Input, Removal, Run};
use crate::site::Site;
use crate::world::Key;

/// Hooks of runs.
pub(super) struct Hooked<'a> {
    /// Some are run by a Job of their own now.
    pub(super) owes: bool,
    /// Runs whose hooks are not known to have ended well.
    pub(super) open: &'a [OpenHooks],
}

/// What a valid backup has: its objects where it can run, and their end where it may not.
pub(super) fn wanted(
    site: &Site,
    input: &Input<'_, BackupController>,
    observed: &Observed,
    (valid, readiness): (&Valid, Readiness),
    hooks: &Hooked<'_>,
    active: &mut Vec<String>,
) -> Children {
    let mut children = Children::default();
    match (readiness, &observed.repository) {
        (Readiness::Ready(located), Some(repository)) => {
            let to = Destination {
                repository,
                // What an earlier run owes would undo what the hook before the next one does.
                held: observed.held.is_some() || hooks.owes,
                kept: kept(hooks.open, observed),
            };
            children = objects(site, input, valid, &located, &to, observed);
            if !to.held {
                let again = make_anew((input.key, input.now.wall), observed, &located, &mut children);
                active.retain(|job| !again.contains(job));
            }
        }
        (Readiness::Refused { .. }, _) => children.removals = withdrawal(input.key, hooks.open),
        // A run would hang, or bind the claim; or each would fail.
        (Readiness::Held { .. } | Readiness::Down { .. }, _) => {
            let cron_job = Key::new(&input.key.namespace, names::backup_cron_job(&input.key.name));
            children.removals = vec![Removal::Schedule(cron_job)];
        }
        _ if observed.consent_ended => children.removals = withdrawal(input.key, hooks.open),
        _ => {}
    }
    children
}

/// Runs for a node where the data is not any more are replaced. The Jobs that go.
fn make_anew(
    (key, now): (&Key, Timestamp),
    observed: &Observed,
    located: &Located,
    children: &mut Children,
) -> Vec<String> {
    let cron_job = names::backup_cron_job(&key.name);
    let mut gone = Vec::new();
    for moved in moved::moved(&observed.runs, located, &cron_job, now) {
        children.removals.push(moved.removal);
        children.runs.push(moved.run);
        gone.push(moved.job);
    }
    gone
}

/// Where a backup goes.
struct Destination<'a> {
    repository: &'a Arc<ResticRepository>,
    /// No run may begin now: maintenance of it is about to begin, or what an earlier run owes is run.
    held: bool,
    /// Rights that runs under way have.
    kept: Needs,
}

/// Everything that a backup needs.
fn objects(
    site: &Site,
    input: &Input<'_, BackupController>,
    valid: &Valid,
    located: &Located,
    to: &Destination<'_>,
    observed: &Observed,
) -> Children {
    let (key, backup) = (input.key, input.resource);
    let (repository, held) = (to.repository, to.held);
    // A start that falls into the time for which runs are held is made up for when it is over.
    let mut wanted = valid.clone();
    wanted.suspend |= held;
    let Objects {
        service_account,
        grant,
        credentials,
        cache,
        cron_job,
    } = build::build(key, site, backup, &wanted, located, (repository, to.kept));
    let recorded = backup.status.as_ref().and_then(|s| s.cron_job_ref.as_ref());
    // Asked for again when the hold is over.
    let request = request(input).filter(|_| !held).map(|request| {
        let suffix = names::short_hash(format!("{}/{request}", input.uid()).as_bytes());
        Run {
            name: names::bounded(&cron_job.name_any(), &format!("-{suffix}"), names::LABEL_MAX),
            ..Run::default()
        }
    });
    // Behind the one above, whose request is recorded if any Job was made.
    let commanded = observed.commands.iter().filter(|_| !held).map(|command| Run {
        name: names::command_job(&cron_job.name_any(), &command.id),
        command: Some(command.clone()),
        ..Run::default()
    });
    let runs = request.into_iter().chain(commanded).collect();
    let copy = Key::new(&key.namespace, names::backup_credentials(&key.name));
    let unwanted = [
        credentials.is_none().then_some(Removal::Credentials(copy)),
        grant
            .is_none()
            .then(|| Removal::Grant(key.sibling(names::backup_service_account(&key.name)))),
    ];
    Children {
        removals: unwanted.into_iter().flatten().collect(),
        account: service_account,
        grant,
        credentials: credentials.map(|metadata| Credentials {
            metadata,
            at: valid.repository.clone(),
            repository: repository.clone(),
        }),
        cache,
        cron_job: Some((cron_job, recorded.and_then(|r| r.generation))),
        runs,
        ..Children::default()
    }
}

/// A new value of the annotation asks for one run.
pub(super) fn request<'a>(input: &Input<'a, BackupController>) -> Option<&'a str> {
    let asked = input.resource.annotations().get(names::ANNOTATION_RUN)?;
    let status = input.resource.status.as_ref();
    let done = status.and_then(|s| s.last_run_request.as_ref());
    (!asked.is_empty() && done != Some(asked)).then_some(asked.as_str())
}

/// What was made ends: the copy of the credentials, what its pods may do, and the schedule.
pub(super) fn withdrawal(key: &Key, open: &[OpenHooks]) -> Vec<Removal> {
    let mut removals = Removal::withdrawal(
        &key.namespace,
        names::backup_credentials(&key.name),
        names::backup_cron_job(&key.name),
    );
    removals.extend(rights(key, open));
    removals
}

/// What its pods may do in the API server ends, unless hooks of a run need it.
fn rights(key: &Key, open: &[OpenHooks]) -> Option<Removal> {
    let own = key.sibling(names::backup_service_account(&key.name));
    open.is_empty().then_some(Removal::Grant(own))
}

/// What the hooks of open runs need, whatever the spec says now. Those of a run whose Job is gone are not known.
fn kept(open: &[OpenHooks], observed: &Observed) -> Needs {
    let of = |entry: &OpenHooks| {
        let run = observed.runs.iter().find(|run| *run.job.meta.uid == *entry.uid);
        let plan = run.and_then(|run| HookPlan::parse(run.job.hooks.as_deref()?));
        plan.map_or(Needs::ALL, |plan| Needs::of(Some(&plan)))
    };
    open.iter().map(of).fold(Needs::default(), Needs::and)
}
