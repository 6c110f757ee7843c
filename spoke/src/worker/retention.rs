//! One retention run: read, plan, wait for approval or forget by full ids, prune, look again.

use std::time::Duration;

use proto::digest::run_hash;
use proto::v1::{OperationOutcome, RetentionRun};

use super::child::{Alarm, Leave, Restic, Stopped, Why};
use super::contend::exclusive;
use super::forget::prune_alarm;
use super::limits::{self, Limit};
use super::plan::{Action, Plan};
use super::reads::{self, Halt};
use super::select::{Standing, standing};
use super::{document, failed, order::Order, outcome};
use crate::restic::locks::STALE_LOCK;
use crate::restic::output;

/// Storage that has not opened the repository by then is not waited for under the lock.
pub(super) const OPEN: Duration = Duration::from_secs(90);
/// Ids in one command: arguments have a limit.
const BATCH: usize = 500;
/// Plans that are made at most, while the policies change.
const PLANS: usize = 4;

/// Runs, and reports the result. `print` gets the plan, one line, once.
pub async fn run(order: &Order, restic: &Restic, print: impl Fn(&str)) -> OperationOutcome {
    let mut outcome = OperationOutcome::default();
    let halt = match steps(order, restic, &print, &mut outcome).await {
        Ok(()) => return outcome,
        Err(halt) => halt,
    };
    let (result, reason) = match &halt {
        Halt::Stopped(Stopped::LeaseLost) => ("Interrupted", "LeaseLost"),
        Halt::Stopped(Stopped::Signal) => ("Interrupted", "Stopped"),
        Halt::Stopped(Stopped::Alarm(_)) => ("Failed", "IncompleteRead"),
        Halt::Stopped(Stopped::StaleLock(_)) => ("Failed", STALE_LOCK),
        Halt::Stopped(Stopped::Failed(failure)) => ("Failed", crate::pod::message::reason_of(failure)),
        Halt::Failed { reason, .. } => ("Failed", *reason),
    };
    // What is known of the run so far stays in the report.
    OperationOutcome {
        policies: outcome.policies,
        faults: outcome.faults,
        plan: outcome.plan,
        snapshots: outcome.snapshots,
        planned: outcome.planned,
        removed: outcome.removed,
        result: result.to_owned(),
        ..failed(reason, halt.to_string())
    }
}

async fn steps(
    order: &Order,
    restic: &Restic,
    print: &impl Fn(&str),
    outcome: &mut OperationOutcome,
) -> Result<(), Halt> {
    wait_for_lease(restic).await?;
    let mut run = read_order(order)?;
    let config = words(&["cat", "config", "--no-lock", "--json"]);
    let limit = Limit::Whole(OPEN.min(restic.read_limit));
    let printed = restic.run(&config, limit).await;
    let id = printed.and_then(|printed| Ok(output::config_id(&printed)?));
    let id = id.map_err(|stopped| reads::failed("restic cat config", stopped))?;
    for _ in 0..PLANS {
        if id != run.restic_id {
            let text = format!("the repository here is {id}, the lock is for {}", run.restic_id);
            *outcome = failed("RepositoryChanged", text);
            return Ok(());
        }
        // What a prune would take for unused may be needed to repair it.
        if !run.damage.is_empty() {
            *outcome = failed(
                "RepositoryDamaged",
                format!("nothing was removed: {}", run.damage),
            );
            return Ok(());
        }
        outcome.policies = run
            .policies
            .iter()
            .map(|p| format!("{}@{}", p.source, p.generation))
            .collect();
        let plan = reads::plan(&run, restic).await?;
        let action = plan.action(&run.approved);
        if action == Action::Apply {
            // The policies of all clusters as they are now: what one of them has begun to keep meanwhile stays.
            let newest = read_order(order)?;
            if run_hash(&newest) != run_hash(&run) {
                super::log("the order has changed since the plan was made: planning again");
                run = newest;
                continue;
            }
        }
        outcome::describe(&plan, outcome);
        print(&document::line(&plan.document));
        outcome::log_out_of_reach(&plan.document);
        return carry_out(&run, restic, &plan, action, outcome).await;
    }
    Err(Halt::Failed {
        reason: "PolicyChanged",
        text: format!("nothing was removed: the policies changed {PLANS} times while the plan was made"),
    })
}

fn read_order(order: &Order) -> Result<RetentionRun, Halt> {
    order.read().map_err(|text| Halt::Failed {
        reason: "NoOrder",
        text,
    })
}

async fn carry_out(
    run: &RetentionRun,
    restic: &Restic,
    plan: &Plan,
    action: Action,
    outcome: &mut OperationOutcome,
) -> Result<(), Halt> {
    match action {
        Action::Nothing | Action::Apply => {}
        Action::Preview | Action::Wait | Action::Changed | Action::Stopped => {
            outcome::without_removal(run, plan, action, outcome);
            return Ok(());
        }
    }
    let mut policies = run.policies.iter();
    let prune = policies.any(|p| p.prune && standing(p) == Standing::InForce);
    if prune {
        outcome.bytes_before = stored(restic).await?;
    }
    if action == Action::Apply {
        let forgot = forget(restic, run, plan).await;
        // restic 0.18 exits 0 even if the storage refused the delete, so removals are counted by listing again. One
        // that fails half way has removed something, too.
        let planned: Vec<&str> = plan.ids().collect();
        let removed = reads::removed(restic, &planned, &plan.staying).await;
        if let Ok(removed) = removed {
            outcome.removed = outcome::count(removed);
        }
        forgot.map_err(|stopped| Halt::at("restic forget", stopped))?;
        removed?;
    }
    if prune {
        let staying = plan.staying.len();
        let alarm = move || -> Option<Alarm> { Some(Box::new(move |line: &str| prune_alarm(line, staying))) };
        let limit = Limit::prune(&restic.retry_lock);
        let pruned = exclusive(&reporting(restic), run, &words(&["prune"]), alarm, limit).await;
        pruned.map_err(|stopped| Halt::at("restic prune", stopped))?;
        outcome.pruned = true;
        outcome.bytes_after = stored(restic).await?;
    }
    outcome::conclude(plan, action, outcome);
    Ok(())
}

async fn forget(restic: &Restic, run: &RetentionRun, plan: &Plan) -> Result<(), Stopped> {
    let ids: Vec<&str> = plan.ids().collect();
    for batch in ids.chunks(BATCH) {
        let mut arguments = words(&["forget", "--json"]);
        arguments.extend(batch.iter().map(|&id| id.to_owned()));
        let limit = Limit::forget(batch.len(), &restic.retry_lock);
        exclusive(restic, run, &arguments, || None, limit).await?;
    }
    Ok(())
}

/// A restic that prints its counts from time to time.
pub(super) fn reporting(restic: &Restic) -> Restic {
    let mut restic = restic.clone();
    let (variable, value) = limits::PROGRESS;
    restic.variables.push((variable.to_owned(), value.to_owned()));
    restic
}

pub(super) async fn wait_for_lease(restic: &Restic) -> Result<(), Stopped> {
    let mut leave = restic.leave.clone();
    let seen = leave.wait_for(|leave| *leave != Leave::NotYet).await;
    match seen.map(|leave| *leave) {
        Ok(Leave::End { why, .. }) => Err(why.into()),
        Ok(_) => Ok(()),
        Err(_) => Err(Why::LeaseLost.into()),
    }
}

async fn stored(restic: &Restic) -> Result<u64, Halt> {
    let arguments = words(&["stats", "--mode", "raw-data", "--json", "--no-lock"]);
    let printed = restic.read(&arguments).await;
    let bytes = printed.and_then(|printed| Ok(output::stored_bytes(&printed.stdout)?));
    bytes.map_err(|stopped| Halt::at("restic stats", stopped))
}

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}
