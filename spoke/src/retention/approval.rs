//! The plan that waits for approval: how it is approved, and what ends its wait. Pure.

use crds::GlobalRetentionPolicyStatus;
use crds::conditions::{self, Conditions, reasons, types};
use jiff::Timestamp;

/// Ends the wait for an approval when a run of another policy of the repository has removed something since, or found that
/// nothing is left to remove: each run carries the rules of all, so that the plan that waits is no longer what a run
/// would do. `others` by name.
pub fn settled_by_others<'a>(
    status: &mut GlobalRetentionPolicyStatus,
    others: impl Iterator<Item = (String, &'a GlobalRetentionPolicyStatus)>,
    generation: Option<i64>,
    now: Timestamp,
) {
    if !conditions::is_true(&status.conditions, types::APPROVAL_REQUIRED) {
        return;
    }
    let since = status.last_run.clone();
    let settles = |other: &GlobalRetentionPolicyStatus| {
        let result = other.last_run_result.as_deref();
        matches!(result, Some("Applied" | "NothingToRemove")) && other.last_run > since
    };
    let Some((name, _)) = others.into_iter().find(|(_, other)| settles(other)) else {
        return;
    };
    let plan = status.plan.take().unwrap_or_default();
    let text =
        format!("plan {plan} does not wait any more: a run of policy {name} has been carried out since");
    Conditions::at(&mut status.conditions, generation, now)
        .set(types::APPROVAL_REQUIRED, false, reasons::IDLE, &text)
        .set(types::DEGRADED, false, reasons::RETENTION_SUCCEEDED, &text);
}

/// The plan that the annotation approves and no run has carried out yet, if there is such a plan. An annotation that was
/// removed may give the same approval again.
pub fn given(
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
    Conditions::at(&mut status.conditions, generation, now).set(
        types::APPROVAL_REQUIRED,
        waits,
        reasons::UNKNOWN_PLAN,
        text,
    );
    None
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::super::status::tests::{counted, outcome};
    use super::*;

    #[test]
    fn a_plan_that_another_policy_has_carried_out_waits_no_more() {
        let now = Timestamp::from_second(200).unwrap();
        let other = |result: &str, at: i64| GlobalRetentionPolicyStatus {
            last_run: Timestamp::from_second(at).ok().map(Time),
            last_run_result: Some(result.to_owned()),
            ..GlobalRetentionPolicyStatus::default()
        };
        let after = |other: &GlobalRetentionPolicyStatus| {
            let mut status = counted(&outcome("ApprovalRequired"));
            settled_by_others(
                &mut status,
                std::iter::once(("ns/q".to_owned(), other)),
                None,
                now,
            );
            status
        };
        // This one ran at 75.
        for still in [other("Applied", 60), other("Failed", 90), other("Preview", 90)] {
            assert_eq!(after(&still), counted(&outcome("ApprovalRequired")));
        }
        let status = after(&other("Applied", 90));
        for type_ in [types::APPROVAL_REQUIRED, types::DEGRADED] {
            let condition = conditions::get(&status.conditions, type_).unwrap();
            assert!(condition.status == "False" && condition.message.contains("policy ns/q"));
        }
        assert_eq!(status.plan, None);
        let idle = GlobalRetentionPolicyStatus::default();
        let mut same = idle.clone();
        settled_by_others(&mut same, std::iter::once(("q".to_owned(), &status)), None, now);
        assert_eq!(same, idle);
    }

    #[test]
    fn an_approval_is_acted_on_until_its_run_has_an_outcome_and_can_be_given_again() {
        let now = Timestamp::from_second(90).unwrap();
        let mut status = counted(&outcome("ApprovalRequired"));
        let ask = |annotated: Option<&str>, status: &mut _| given(status, annotated, None, now);
        assert_eq!(ask(Some("abcd"), &mut status).as_deref(), Some("abcd"));
        assert_eq!(
            ask(Some("abcd"), &mut status).as_deref(),
            Some("abcd"),
            "until its run has an outcome"
        );
        status.last_approval = Some("abcd".to_owned());
        assert_eq!(ask(Some("abcd"), &mut status), None);
        // The run has failed, the plan waits again: the annotation is removed and set anew.
        assert_eq!(ask(None, &mut status), None);
        assert_eq!(ask(Some("abcd"), &mut status).as_deref(), Some("abcd"));
    }

    #[test]
    fn an_approval_of_no_known_plan_says_so() {
        let mut status = counted(&outcome("ApprovalRequired"));
        assert_eq!(
            given(
                &mut status,
                Some("beef"),
                None,
                Timestamp::from_second(90).unwrap()
            ),
            None
        );
        let condition = conditions::get(&status.conditions, types::APPROVAL_REQUIRED).unwrap();
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            ("True", "UnknownPlan")
        );
        assert!(condition.message.contains("there is no plan beef") && condition.message.contains("abcd"));
    }
}
