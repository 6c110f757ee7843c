//! The status that follows from runs. Pure.

use crds::conditions::{Conditions, reasons, types, whole_seconds};
use crds::retention::SnapshotsLeft;
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::plan::cut;
use proto::v1::{Baseline, OperationOutcome};

use crate::units;

/// Entries of status.left, as the schema allows.
const LEFT_MAX: usize = 256;

/// A run that is to be taken into the status.
pub struct Run<'a> {
    /// Name of the policy in the fleet: `<cluster>/<namespace>/<name>`.
    pub source: &'a str,
    pub outcome: &'a OperationOutcome,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub token: Option<u64>,
    /// Cluster and policy whose Job it was, when it was another's.
    pub by: Option<&'a str>,
}

/// Takes a run in.
pub fn count(
    status: &mut GlobalRetentionPolicyStatus,
    policy: &GlobalRetentionPolicy,
    run: &Run<'_>,
    now: Timestamp,
) {
    let outcome = run.outcome;
    figures(status, run, now);
    if let Some(fingerprint) = shown(run) {
        status.previewed_for = Some(fingerprint.to_owned());
        status.previewed = false;
    }
    let result = outcome.result.as_str();
    if ["Applied", "NothingToRemove"].contains(&result) && !outcome.left.is_empty() {
        status.left = left(&outcome.left);
    }
    let hint = format!(
        "{}; look at it with `fleet plan show {plan}`, and approve it with `fleet plan approve`, or with annotation {}={plan}",
        outcome.message,
        crds::names::ANNOTATION_APPROVE,
        plan = outcome.plan
    );
    let (degraded, reason, text) = verdict(run.source, outcome, &hint);
    let mut conditions = Conditions::at(&mut status.conditions, policy.metadata.generation, now);
    conditions.set(types::DEGRADED, degraded, reason, text);
    // A run that failed leaves the plan waiting: it may be approved again.
    if ["Applied", "NothingToRemove", "Preview", "ApprovalRequired"].contains(&result) {
        let waits = result == "ApprovalRequired";
        let (reason, text) = if waits {
            (outcome.reason.as_str(), hint.as_str())
        } else {
            (reasons::IDLE, "no plan waits for approval")
        };
        conditions.set(types::APPROVAL_REQUIRED, waits, reason, text);
        status.plan = (waits || result == "Preview").then(|| outcome.plan.clone());
    }
}

/// What the run left. Figures of earlier runs do not fill in what a list that was cut lacks: the same keys are cut off each
/// time, and a figure that is too low would hide a loss.
fn left(now: &[Baseline]) -> Vec<SnapshotsLeft> {
    let mut list = now.to_vec();
    // With the mark.
    cut(&mut list, LEFT_MAX - 1);
    let left = |entry: Baseline| SnapshotsLeft {
        snapshots: i32::try_from(entry.left).unwrap_or(i32::MAX),
        key: entry.key,
    };
    list.into_iter().map(left).collect()
}

/// When it was, how long it took, and what it removed.
fn figures(status: &mut GlobalRetentionPolicyStatus, run: &Run<'_>, now: Timestamp) {
    let outcome = run.outcome;
    let signed = |n: u64| i64::try_from(n).ok();
    status.last_run = Some(Time(whole_seconds(run.finished.unwrap_or(now))));
    status.last_run_result = Some(outcome.result.clone());
    status.last_run_message = Some(outcome.message.clone());
    let duration = run.started.zip(run.finished).map(|(s, f)| f.duration_since(s));
    status.last_run_duration = duration.map(units::duration);
    status.last_run_token = run.token.and_then(signed);
    status.last_run_by = run.by.map(str::to_owned);
    status.snapshots_removed = i32::try_from(outcome.removed).ok();
    let matched = outcome.matched.iter().find(|entry| entry.key == run.source);
    if let Some(matched) = matched {
        status.snapshots_left = i32::try_from(matched.left).ok();
    }
    if outcome.pruned {
        status.repository_size_before = Some(units::bytes(outcome.bytes_before));
        status.repository_size_after = Some(units::bytes(outcome.bytes_after));
        status.repository_size_before_bytes = signed(outcome.bytes_before);
        status.repository_size_after_bytes = signed(outcome.bytes_after);
    }
}

/// Condition Degraded after a run: status, reason, message. `hint`: how a plan that waits is approved.
fn verdict(source: &str, outcome: &OperationOutcome, hint: &str) -> (bool, &'static str, String) {
    if let Some(fault) = outcome.faults.iter().find(|fault| fault.source == source) {
        let text = &fault.text;
        let kept = "until this policy is corrected, all snapshots that it could match are kept";
        return (true, reasons::RULE_REFUSED, format!("{text}; {kept}"));
    }
    let message = outcome.message.clone();
    match outcome.result.as_str() {
        "Applied" | "NothingToRemove" if outcome.unmatched.is_empty() => {
            (false, reasons::RETENTION_SUCCEEDED, message)
        }
        "Applied" | "NothingToRemove" => {
            let unmatched = outcome.unmatched.join(", ");
            let text = format!("{message}; no snapshot matches {unmatched}");
            (true, "NothingMatched", text)
        }
        "Preview" => (false, reasons::RETENTION_PREVIEWED, message),
        "ApprovalRequired" => (true, reasons::APPROVAL_REQUIRED, hint.to_owned()),
        _ => {
            let text = format!("{}: {message}", outcome.reason);
            (true, reasons::RETENTION_FAILED, text)
        }
    }
}

/// What a run has shown of this policy's removals: the fingerprint of the rules. A run of another policy's Job shows it
/// where nobody who owns this one looks, and one that waits for approval shows something else.
fn shown<'a>(run: &Run<'a>) -> Option<&'a str> {
    let shows = ["Preview", "Applied", "NothingToRemove"].contains(&run.outcome.result.as_str());
    let mut shown = run.outcome.shown.iter().filter(|_| shows && run.by.is_none());
    shown.find_map(|entry| entry.strip_prefix(run.source)?.strip_prefix('#'))
}

/// Turns what older versions wrote of a preview into what it was about, before the generation moves on.
/// `fingerprint` is that of the policy, `None` while its repository is not known.
pub fn adopt_preview(
    status: &mut GlobalRetentionPolicyStatus,
    policy: &GlobalRetentionPolicy,
    fingerprint: Option<String>,
) {
    if !status.previewed {
        return;
    }
    if status.observed_generation != policy.metadata.generation {
        status.previewed = false;
    } else if let Some(fingerprint) = fingerprint {
        status.previewed = false;
        status.previewed_for.get_or_insert(fingerprint);
    }
}

/// Conditions about Jobs under way.
pub fn progress(
    status: &mut GlobalRetentionPolicyStatus,
    generation: Option<i64>,
    running: &[String],
    waiting: Option<(&str, String)>,
    now: Timestamp,
) {
    let (reason, text) = if running.is_empty() {
        (reasons::IDLE, "no run is under way".to_owned())
    } else {
        let running = running.join(", ");
        (reasons::RETENTION_RUNNING, format!("running: {running}"))
    };
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    conditions.set(types::PROGRESSING, !running.is_empty(), reason, text);
    match waiting {
        Some((reason, text)) => conditions.set(types::WAITING, true, reason, text),
        None => conditions.remove(types::WAITING),
    };
}

#[cfg(test)]
#[path = "status_tests.rs"]
pub mod tests;
