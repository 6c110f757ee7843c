//! One retention run: dry-run each rule, one plan, guard, forget by full ids, prune, look again.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::v1::{OperationOutcome, RetentionRun};

use super::child::{Leave, Restic, Stopped, Why};
use super::forget::{decision, dry_run};
use super::plan::{self, Decision, Plan, Verdict};
use super::{failed, log};
use crate::pod::RETRY_LOCK;
use crate::restic::{Failure, Snapshot, output};

/// Storage that has not opened the repository by then is not waited for under the lock.
pub(super) const OPEN: Duration = Duration::from_secs(90);
/// Dry runs that go side by side: each takes one core, most of it to derive the key.
const SIDE_BY_SIDE: usize = 2;
/// Ids in one command: arguments have a limit.
const BATCH: usize = 500;

/// Runs, and says what came of it.
pub async fn run(run: &RetentionRun, restic: Restic) -> OperationOutcome {
    let mut outcome = OperationOutcome {
        policies: run
            .policies
            .iter()
            .map(|p| format!("{}@{}", p.source, p.generation))
            .collect(),
        ..OperationOutcome::default()
    };
    match steps(run, &restic, &mut outcome).await {
        Ok(()) => outcome,
        Err(stopped) => {
            let (result, reason) = match &stopped {
                Stopped::LeaseLost => ("Interrupted", "LeaseLost"),
                Stopped::Signal => ("Interrupted", "Stopped"),
                Stopped::Failed(failure) => ("Failed", crate::pod::message::reason_of(failure)),
            };
            // What was read of the repository so far stays told.
            OperationOutcome {
                policies: outcome.policies,
                plan: outcome.plan,
                snapshots: outcome.snapshots,
                planned: outcome.planned,
                removed: outcome.removed,
                result: result.to_owned(),
                ..failed(reason, stopped.to_string())
            }
        }
    }
}

async fn steps(run: &RetentionRun, restic: &Restic, outcome: &mut OperationOutcome) -> Result<(), Stopped> {
    wait_for_lease(restic).await?;
    let config = words(&["cat", "config", "--no-lock", "--json"]);
    let id = output::config_id(&restic.run_within(&config, Some(OPEN)).await?)?;
    if id != run.restic_id {
        let text = format!("the repository here is {id}, the lock is for {}", run.restic_id);
        *outcome = failed("RepositoryChanged", text);
        return Ok(());
    }
    // In this order: a snapshot that comes in between is one that stays, and not one that the decisions do not know.
    let decisions = decide(run, restic).await?;
    let before = list(restic).await?;
    outcome.snapshots = count(before.len());
    let plan = plan::make(run, &before, &decisions);
    describe(&plan, outcome);
    print(&plan);
    let verdict = plan.verdict(&run.approved);
    let prune = run.policies.iter().any(|p| p.prune && !p.preview);
    match verdict {
        Verdict::Preview => {
            "Preview".clone_into(&mut outcome.result);
            outcome.message = format!(
                "the first run only shows: it would remove {} of {} snapshots; the next run removes them, and so does an approval of this plan",
                plan.remove.len(),
                plan.snapshots
            );
            return Ok(());
        }
        Verdict::Wait | Verdict::Changed => {
            "ApprovalRequired".clone_into(&mut outcome.result);
            let why = plan.guard.as_ref().map(ToString::to_string).unwrap_or_default();
            let (reason, text) = match verdict {
                Verdict::Changed => (
                    "PlanChanged",
                    format!(
                        "the snapshots have changed since plan {} was approved, so it was made anew; {why}",
                        run.approved
                    ),
                ),
                _ => ("OverGuard", why),
            };
            reason.clone_into(&mut outcome.reason);
            outcome.message = format!("nothing was removed: {text}");
            return Ok(());
        }
        Verdict::Nothing | Verdict::Apply => {}
    }
    if prune {
        outcome.bytes_before = stored(restic).await?;
    }
    if verdict == Verdict::Apply {
        let forgot = forget(restic, &plan).await;
        // What is really gone is what a new listing no longer shows: restic 0.18 is content although storage refuses.
        // One that fails half way has removed something, too.
        let left = list(restic).await;
        if let Ok(left) = &left {
            let left: HashSet<&str> = left.iter().map(|s| s.id.as_str()).collect();
            outcome.removed = count(plan.ids().filter(|id| !left.contains(id)).count());
        }
        forgot?;
        left?;
    }
    if prune {
        restic.run(&words(&["prune", "--retry-lock", RETRY_LOCK])).await?;
        outcome.pruned = true;
        outcome.bytes_after = stored(restic).await?;
    }
    conclude(&plan, verdict, outcome);
    Ok(())
}

async fn forget(restic: &Restic, plan: &Plan) -> Result<(), Stopped> {
    let ids: Vec<&str> = plan.ids().collect();
    for batch in ids.chunks(BATCH) {
        let mut arguments = words(&["forget", "--json", "--retry-lock", RETRY_LOCK]);
        arguments.extend(batch.iter().map(|&id| id.to_owned()));
        restic.run(&arguments).await?;
    }
    Ok(())
}

/// What a policy in its first run wants removed is shown, also beside what others remove.
fn first_runs(plan: &Plan) -> String {
    match plan.previewed.len() {
        0 => String::new(),
        more => {
            format!("; {more} more would go by policies whose first run this is, and go with the next one")
        }
    }
}

fn conclude(plan: &Plan, verdict: Verdict, outcome: &mut OperationOutcome) {
    if verdict == Verdict::Nothing {
        "NothingToRemove".clone_into(&mut outcome.result);
        outcome.message = match plan.unmatched.as_slice() {
            [] => format!("all {} snapshots are kept{}", plan.snapshots, first_runs(plan)),
            unmatched => format!(
                "no snapshot matches {}; look at the selectors",
                unmatched.join(", ")
            ),
        };
        return;
    }
    let stayed = outcome.planned.saturating_sub(outcome.removed);
    if stayed > 0 {
        "Failed".clone_into(&mut outcome.result);
        "NotRemoved".clone_into(&mut outcome.reason);
        outcome.message = format!(
            "{stayed} of {} snapshots are still there; do the credentials allow to delete?",
            plan.remove.len()
        );
        return;
    }
    "Applied".clone_into(&mut outcome.result);
    let mut text = format!("removed {} of {} snapshots", outcome.removed, plan.snapshots);
    if plan.kept_by_others > 0 {
        text.push_str(&format!(
            "; {} that one policy would remove are kept by another",
            plan.kept_by_others
        ));
    }
    text.push_str(&first_runs(plan));
    outcome.message = text;
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

async fn list(restic: &Restic) -> Result<Vec<Snapshot>, Stopped> {
    let printed = restic.run(&words(&["snapshots", "--json", "--no-lock"])).await?;
    Ok(output::snapshots(&printed)?)
}

async fn stored(restic: &Restic) -> Result<u64, Stopped> {
    let printed = restic
        .run(&words(&["stats", "--mode", "raw-data", "--json", "--no-lock"]))
        .await?;
    Ok(output::stored_bytes(&printed)?)
}

/// restic's own decision for each rule. Equal rules are asked once. One that fails fails the run: unknown means stop.
async fn decide(run: &RetentionRun, restic: &Restic) -> Result<Vec<Vec<Decision>>, Stopped> {
    let mut commands: Vec<Vec<String>> = Vec::new();
    let mut places: Vec<Vec<usize>> = Vec::new();
    for policy in &run.policies {
        let mut of_policy = Vec::new();
        for rule in &policy.rules {
            let command = dry_run(rule);
            let at = commands
                .iter()
                .position(|known| *known == command)
                .unwrap_or_else(|| {
                    commands.push(command);
                    commands.len() - 1
                });
            of_policy.push(at);
        }
        places.push(of_policy);
    }
    let decisions: Vec<Decision> = stream::iter(commands)
        .map(|command| async move {
            let printed = restic.run(&command).await?;
            decision(&printed).map_err(|e| {
                Stopped::from(Failure::Other(format!(
                    "restic forget printed what is not understood: {e}"
                )))
            })
        })
        .buffered(SIDE_BY_SIDE)
        .try_collect()
        .await?;
    let pick = |of_policy: Vec<usize>| {
        of_policy
            .into_iter()
            .filter_map(|at| decisions.get(at).cloned())
            .collect()
    };
    Ok(places.into_iter().map(pick).collect())
}

fn describe(plan: &Plan, outcome: &mut OperationOutcome) {
    outcome.plan.clone_from(&plan.hash);
    outcome.planned = count(plan.remove.len());
    outcome.previewed = count(plan.previewed.len());
    outcome.kept_by_others = count(plan.kept_by_others);
    outcome.unmatched.clone_from(&plan.unmatched);
    for (cluster, snapshots) in &plan.unknown_clusters {
        log(&format!(
            "{snapshots} snapshots of cluster {cluster} stay: it is not known here; a selector with tag fleet.cluster={cluster} takes them in"
        ));
    }
}

/// The whole plan, as the one line on stdout.
fn print(plan: &Plan) {
    use std::io::Write as _;
    if let Ok(text) = serde_json::to_string(&serde_json::json!({ "plan": plan })) {
        // Nobody is left to be told when the log is gone.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
