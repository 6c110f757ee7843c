//! The status that follows from runs. Pure.

use crds::conditions::{self, Status, reasons, types, whole_seconds};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::v1::OperationOutcome;

use crate::units;

/// A run that is to be taken into the status.
pub struct Run<'a> {
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
    let Run {
        outcome,
        started,
        finished,
        token,
        by,
    } = run;
    let generation = policy.metadata.generation;
    let signed = |n: u64| i64::try_from(n).ok();
    status.last_run = Some(Time(whole_seconds(finished.unwrap_or(now))));
    status.last_run_result = Some(outcome.result.clone());
    status.last_run_message = Some(outcome.message.clone());
    status.last_run_duration = started
        .zip(*finished)
        .map(|(s, f)| units::duration(f.duration_since(s)));
    status.last_run_token = token.and_then(signed);
    status.last_run_by = by.map(str::to_owned);
    status.snapshots_removed = i32::try_from(outcome.removed).ok();
    if outcome.pruned {
        status.repository_size_before = Some(units::bytes(outcome.bytes_before));
        status.repository_size_after = Some(units::bytes(outcome.bytes_after));
        status.repository_size_before_bytes = signed(outcome.bytes_before);
        status.repository_size_after_bytes = signed(outcome.bytes_after);
    }
    let conclusive =
        ["Applied", "NothingToRemove", "Preview", "ApprovalRequired"].contains(&outcome.result.as_str());
    status.previewed |= conclusive;
    let waits = outcome.result == "ApprovalRequired";
    let mut set = |type_: &str, value: Status, reason: &str, text: &str| {
        conditions::set(
            &mut status.conditions,
            type_,
            value,
            reason,
            text,
            generation,
            now,
        );
    };
    let hint = format!(
        "{}; look at it with `fleet plan list`, and approve it with `fleet plan approve`, or with annotation {}={}",
        outcome.message,
        crds::names::ANNOTATION_APPROVE,
        outcome.plan
    );
    let (degraded, reason, text) = match outcome.result.as_str() {
        "Applied" | "NothingToRemove" if outcome.unmatched.is_empty() => (
            Status::False,
            reasons::RETENTION_SUCCEEDED,
            outcome.message.clone(),
        ),
        "Applied" | "NothingToRemove" => (
            Status::True,
            "NothingMatched",
            format!(
                "{}; no snapshot matches {}",
                outcome.message,
                outcome.unmatched.join(", ")
            ),
        ),
        "Preview" => (
            Status::False,
            reasons::RETENTION_PREVIEWED,
            outcome.message.clone(),
        ),
        "ApprovalRequired" => (Status::True, reasons::APPROVAL_REQUIRED, hint.clone()),
        _ => (
            Status::True,
            reasons::RETENTION_FAILED,
            format!("{}: {}", outcome.reason, outcome.message),
        ),
    };
    set(types::DEGRADED, degraded, reason, &text);
    if waits {
        set(types::APPROVAL_REQUIRED, Status::True, &outcome.reason, &hint);
    } else if conclusive {
        set(
            types::APPROVAL_REQUIRED,
            Status::False,
            reasons::IDLE,
            "no plan waits for approval",
        );
    }
    // A run that failed leaves the plan waiting: it may be approved again.
    if conclusive {
        status.plan = (waits || outcome.result == "Preview").then(|| outcome.plan.clone());
    }
}

/// The plan that the annotation approves and no run has carried out yet, if there is such a plan. An annotation that was
/// removed may give the same approval again.
pub fn approval(
    status: &mut GlobalRetentionPolicyStatus,
    annotated: Option<&str>,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<String> {
    let Some(hash) = annotated.filter(|hash| !hash.is_empty()) else {
        status.last_approval = None;
        return None;
    };
    if status.last_approval.as_deref() == Some(hash) {
        return None;
    }
    let text = match status.plan.as_deref() {
        Some(plan) if plan == hash => return Some(hash.to_owned()),
        Some(plan) => format!("there is no plan {hash}; the plan that waits is {plan}: approve that one"),
        None => format!("there is no plan {hash}: no plan waits for approval"),
    };
    let waits = conditions::is_true(&status.conditions, types::APPROVAL_REQUIRED);
    let value = Status::from(waits);
    let (type_, reason) = (types::APPROVAL_REQUIRED, reasons::UNKNOWN_PLAN);
    conditions::set(&mut status.conditions, type_, value, reason, &text, generation, now);
    None
}

/// Conditions that tell of Jobs under way.
pub fn progress(
    status: &mut GlobalRetentionPolicyStatus,
    generation: Option<i64>,
    running: &[String],
    waiting: Option<(&str, String)>,
    now: Timestamp,
) {
    let (value, reason, text) = if running.is_empty() {
        (Status::False, reasons::IDLE, "no run is under way".to_owned())
    } else {
        (
            Status::True,
            reasons::RETENTION_RUNNING,
            format!("running: {}", running.join(", ")),
        )
    };
    conditions::set(
        &mut status.conditions,
        types::PROGRESSING,
        value,
        reason,
        &text,
        generation,
        now,
    );
    match waiting {
        Some((reason, text)) => {
            conditions::set(
                &mut status.conditions,
                types::WAITING,
                Status::True,
                reason,
                &text,
                generation,
                now,
            );
        }
        None => status.conditions.retain(|c| c.type_ != types::WAITING),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcome(result: &str) -> OperationOutcome {
        OperationOutcome {
            result: result.to_owned(),
            reason: "OverGuard".to_owned(),
            message: "text".to_owned(),
            plan: "abcd".to_owned(),
            removed: 3,
            ..OperationOutcome::default()
        }
    }

    fn counted(outcome: &OperationOutcome) -> GlobalRetentionPolicyStatus {
        let policy: GlobalRetentionPolicy = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "p", "generation": 1 },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "policies": [] },
        }))
        .unwrap();
        let mut status = GlobalRetentionPolicyStatus::default();
        let run = Run {
            outcome,
            started: Timestamp::from_second(10).ok(),
            finished: Timestamp::from_second(75).ok(),
            token: Some(8),
            by: None,
        };
        count(&mut status, &policy, &run, Timestamp::from_second(80).unwrap());
        status
    }

    #[test]
    fn a_plan_over_the_guard_says_how_to_approve_it() {
        let status = counted(&outcome("ApprovalRequired"));
        let waits = conditions::get(&status.conditions, types::APPROVAL_REQUIRED).unwrap();
        assert!(
            waits.status == "True" && waits.message.contains("approve-plan=abcd"),
            "{}",
            waits.message
        );
        assert_eq!((status.plan.as_deref(), status.previewed), (Some("abcd"), true));
        assert_eq!(status.last_run_duration.as_deref(), Some("1m5s"));
    }

    #[test]
    fn an_approval_is_acted_on_until_its_run_has_an_outcome_and_can_be_given_again() {
        let now = Timestamp::from_second(90).unwrap();
        let mut status = counted(&outcome("ApprovalRequired"));
        let ask = |annotated: Option<&str>, status: &mut _| approval(status, annotated, None, now);
        assert_eq!(ask(Some("abcd"), &mut status).as_deref(), Some("abcd"));
        assert_eq!(ask(Some("abcd"), &mut status).as_deref(), Some("abcd"), "until its run has an outcome");
        status.last_approval = Some("abcd".to_owned());
        assert_eq!(ask(Some("abcd"), &mut status), None);
        // The run has failed, the plan waits again: the annotation is removed and set anew.
        assert_eq!(ask(None, &mut status), None);
        assert_eq!(ask(Some("abcd"), &mut status).as_deref(), Some("abcd"));
    }

    #[test]
    fn an_approval_of_no_known_plan_says_so() {
        let mut status = counted(&outcome("ApprovalRequired"));
        assert_eq!(approval(&mut status, Some("beef"), None, Timestamp::from_second(90).unwrap()), None);
        let condition = conditions::get(&status.conditions, types::APPROVAL_REQUIRED).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "UnknownPlan"));
        assert!(condition.message.contains("there is no plan beef") && condition.message.contains("abcd"));
    }

    #[test]
    fn a_failed_first_run_is_still_the_first() {
        let status = counted(&outcome("Failed"));
        assert!(!status.previewed && conditions::is_true(&status.conditions, types::DEGRADED));
        assert!(counted(&outcome("Preview")).previewed);
    }

    #[test]
    fn a_policy_that_matches_nothing_says_so() {
        let mut outcome = outcome("NothingToRemove");
        outcome.unmatched = vec!["a/ns/p".to_owned()];
        let status = counted(&outcome);
        let degraded = conditions::get(&status.conditions, types::DEGRADED).unwrap();
        assert_eq!(
            (degraded.status.as_str(), degraded.reason.as_str()),
            ("True", "NothingMatched")
        );
    }
}
