//! A run's result in words. Pure.

use proto::plan::PlanDocument;
use proto::v1::{Baseline, OperationOutcome, RetentionRun};

use super::plan::{Action, Matched, Plan};

/// Takes the plan's figures in.
pub fn describe(plan: &Plan, outcome: &mut OperationOutcome) {
    let document = &plan.document;
    outcome.plan.clone_from(&document.hash);
    outcome.snapshots = count(document.snapshots);
    outcome.planned = count(document.remove.len());
    outcome.previewed = count(document.previewed.len());
    outcome.kept_by_others = count(document.kept_by_others);
    outcome.unmatched.clone_from(&document.unmatched);
    outcome.faults.clone_from(&document.faults);
    outcome.shown.clone_from(&plan.shown);
    // Until something was removed.
    outcome.matched = matched(plan, |of| of.present);
}

fn matched(plan: &Plan, left: impl Fn(&Matched) -> usize) -> Vec<Baseline> {
    let entry = |of: &Matched| Baseline {
        key: of.source.clone(),
        left: count(left(of)),
    };
    plan.matched.iter().map(entry).collect()
}

/// Puts what is known of one policy first, where it is not cut off. `own` is its name in the fleet.
pub fn own_first(outcome: &mut OperationOutcome, own: &str) {
    outcome.matched.sort_by_key(|entry| entry.key != own);
    outcome.faults.sort_by_key(|fault| fault.source != own);
    outcome.unmatched.sort_by_key(|source| source != own);
    let is_own = |entry: &String, mark: char| {
        let rest = entry.strip_prefix(own);
        rest.is_some_and(|rest| rest.starts_with(mark))
    };
    outcome.shown.sort_by_key(|entry| !is_own(entry, '#'));
    outcome.policies.sort_by_key(|entry| !is_own(entry, '@'));
}

/// A run that removed nothing although the plan would.
pub fn without_removal(run: &RetentionRun, plan: &Plan, action: Action, outcome: &mut OperationOutcome) {
    let document = &plan.document;
    let what = format!("{} of {} snapshots", document.remove.len(), document.snapshots);
    let guard = guards(plan);
    let (result, reason, message) = match action {
        Action::Preview if guard.is_empty() => (
            "Preview",
            String::new(),
            format!(
                "preview only, nothing removed. The next run will remove {what}. Approve this plan to remove them now"
            ),
        ),
        Action::Preview => (
            "Preview",
            String::new(),
            format!(
                "preview only, nothing removed. The plan would remove {what}, and the next run will wait for approval: {guard}"
            ),
        ),
        Action::Changed => (
            "ApprovalRequired",
            "PlanChanged".to_owned(),
            format!(
                "nothing was removed: plan {} was approved, and the plan made now would remove other snapshots ({what}){}",
                run.approved,
                if guard.is_empty() {
                    guard
                } else {
                    format!("; {guard}")
                }
            ),
        ),
        Action::Stopped => {
            let fault = plan.stopped_by.clone().unwrap_or_default();
            let message = format!(
                "nothing was removed: policy {} cannot be carried out and could keep any snapshot: {}",
                fault.source, fault.text
            );
            ("Failed", "PolicyUnclear".to_owned(), message)
        }
        _ => (
            "ApprovalRequired",
            plan.guards.first().map_or("", |guard| guard.reason()).to_owned(),
            format!("plan would remove {what}; nothing was removed, approval required: {guard}"),
        ),
    };
    result.clone_into(&mut outcome.result);
    outcome.reason = reason;
    outcome.message = message + &also(plan, false);
}

/// A run that came to its end.
pub fn conclude(plan: &Plan, action: Action, outcome: &mut OperationOutcome) {
    let document = &plan.document;
    let stayed = outcome.planned.saturating_sub(outcome.removed);
    if action == Action::Apply && stayed > 0 {
        "Failed".clone_into(&mut outcome.result);
        "NotRemoved".clone_into(&mut outcome.reason);
        outcome.matched.clear();
        outcome.message = format!(
            "{stayed} of {} snapshots are still there; do the credentials allow to delete?",
            document.remove.len()
        );
        return;
    }
    outcome.left.clone_from(&document.left);
    if action == Action::Apply {
        "Applied".clone_into(&mut outcome.result);
        outcome.matched = matched(plan, |of| of.present - of.going);
        outcome.message = format!("removed {} of {} snapshots", outcome.removed, document.snapshots);
    } else {
        "NothingToRemove".clone_into(&mut outcome.result);
        outcome.message = match document.unmatched.as_slice() {
            [] => format!("nothing to remove among {} snapshots", document.snapshots),
            unmatched => format!(
                "no snapshot matches {}; look at the selectors",
                unmatched.join(", ")
            ),
        };
    }
    outcome.message.push_str(&also(plan, true));
}

/// What else there is to know of a plan, each part after a semicolon.
fn also(plan: &Plan, removes: bool) -> String {
    let document = &plan.document;
    let mut text = String::new();
    let mut add = |part: String| {
        text.push_str("; ");
        text.push_str(&part);
    };
    if document.kept_by_others > 0 {
        add(format!(
            "{} more were kept by another policy",
            document.kept_by_others
        ));
    }
    if removes && !document.previewed.is_empty() {
        add(format!(
            "{} more would be removed by policies in preview, from their next run on",
            document.previewed.len()
        ));
    }
    let unreachable: usize = document.out_of_reach.iter().map(|part| part.snapshots).sum();
    if unreachable > 0 {
        add(format!(
            "{unreachable} stay because they are of clusters that are not bound here, or of none, and no selector names them"
        ));
    }
    for fault in &document.faults {
        if plan.stopped_by.as_ref() != Some(fault) || removes {
            add(format!(
                "policy {} was not carried out, and all that it could match was kept: {}",
                fault.source, fault.text
            ));
        }
    }
    text
}

/// The most important guard, and how many more there are.
fn guards(plan: &Plan) -> String {
    match plan.guards.as_slice() {
        [] => String::new(),
        [one] => one.to_string(),
        [first, more @ ..] => format!("{first}; and {} more reasons in the plan", more.len()),
    }
}

/// Why snapshots stay that some policy would remove, for the pod's log.
pub fn log_out_of_reach(document: &PlanDocument) {
    for part in &document.out_of_reach {
        super::log(&format!("{} snapshots stay, of {}", part.snapshots, part.words()));
    }
}

/// A count as messages carry it.
#[must_use]
pub fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
