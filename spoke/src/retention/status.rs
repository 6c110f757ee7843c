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
pub mod tests {
    use crds::conditions;
    use serde_json::json;

    use super::*;

    pub fn outcome(result: &str) -> OperationOutcome {
        OperationOutcome {
            result: result.to_owned(),
            reason: "OverGuard".to_owned(),
            message: "text".to_owned(),
            plan: "abcd".to_owned(),
            removed: 3,
            ..OperationOutcome::default()
        }
    }

    pub fn counted(outcome: &OperationOutcome) -> GlobalRetentionPolicyStatus {
        recounted(GlobalRetentionPolicyStatus::default(), outcome)
    }

    fn recounted(
        mut status: GlobalRetentionPolicyStatus,
        outcome: &OperationOutcome,
    ) -> GlobalRetentionPolicyStatus {
        let policy: GlobalRetentionPolicy = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "p", "generation": 1 },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "policies": [] },
        }))
        .unwrap();
        let run = Run {
            source: "a/ns/p",
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
        assert_eq!(status.plan.as_deref(), Some("abcd"));
        assert_eq!(status.last_run_duration.as_deref(), Some("1m5s"));
    }

    #[test]
    fn only_what_was_shown_counts_as_previewed() {
        let with = |result: &str, shown: &[&str]| {
            let mut outcome = outcome(result);
            outcome.shown = shown.iter().map(|&s| s.to_owned()).collect();
            counted(&outcome).previewed_for
        };
        let own = ["a/ns/pq#other", "a/ns/p#f00d"];
        assert_eq!(with("Preview", &own).as_deref(), Some("f00d"));
        assert_eq!(with("Applied", &own).as_deref(), Some("f00d"));
        // An empty listing, or a plan in which this policy removes nothing, shows nothing of it.
        assert_eq!(with("Preview", &["b/ns/p#f00d"]), None);
        assert_eq!(with("NothingToRemove", &[]), None);
        assert_eq!(with("ApprovalRequired", &own), None);
        assert_eq!(with("Failed", &own), None);
        let mut covered = outcome("Preview");
        covered.shown = vec!["a/ns/p#f00d".to_owned()];
        let run = Run {
            source: "a/ns/p",
            outcome: &covered,
            started: None,
            finished: None,
            token: None,
            by: Some("b/ns/q"),
        };
        assert_eq!(shown(&run), None);
        assert!(conditions::is_true(
            &counted(&outcome("Failed")).conditions,
            types::DEGRADED
        ));
    }

    #[test]
    fn a_preview_of_an_older_version_is_about_the_spec_of_then() {
        let policy: GlobalRetentionPolicy = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "p", "generation": 2 },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "policies": [] },
        }))
        .unwrap();
        let adopt = |observed: i64, fingerprint: Option<&str>| {
            let mut status = GlobalRetentionPolicyStatus {
                previewed: true,
                observed_generation: Some(observed),
                ..GlobalRetentionPolicyStatus::default()
            };
            adopt_preview(&mut status, &policy, fingerprint.map(str::to_owned));
            (status.previewed, status.previewed_for)
        };
        assert_eq!(adopt(2, Some("f")), (false, Some("f".to_owned())));
        assert_eq!(adopt(1, Some("f")), (false, None));
        assert_eq!(adopt(2, None), (true, None));
    }

    #[test]
    fn the_policy_whose_rule_is_refused_says_so_and_no_other() {
        let fault = |source: &str| proto::v1::PolicyFault {
            source: source.to_owned(),
            text: "invalid unit".to_owned(),
        };
        let mut outcome = outcome("Applied");
        outcome.faults = vec![fault("b/ns/p")];
        let degraded = |outcome: &OperationOutcome| {
            let status = counted(outcome);
            let degraded = conditions::get(&status.conditions, types::DEGRADED)
                .unwrap()
                .clone();
            (degraded.status, degraded.reason)
        };
        assert_eq!(degraded(&outcome).0, "False");
        outcome.faults.push(fault("a/ns/p"));
        assert_eq!(degraded(&outcome), ("True".to_owned(), "RuleRefused".to_owned()));
    }

    #[test]
    fn what_a_run_left_of_the_policys_own_snapshots_is_shown_until_a_later_run_knows_it() {
        let mut outcome = outcome("Applied");
        let entry = |key: &str, left| proto::v1::Baseline {
            key: key.to_owned(),
            left,
        };
        outcome.matched = vec![entry("a/ns/q", 9), entry("a/ns/p", 2)];
        assert_eq!(counted(&outcome).snapshots_left, Some(2));
        outcome.matched.truncate(1);
        assert_eq!(counted(&outcome).snapshots_left, None, "that of another policy");
    }

    #[test]
    fn what_a_run_left_is_kept_for_the_guard() {
        let mut outcome = outcome("Applied");
        outcome.left = vec![proto::v1::Baseline {
            key: "cluster/a".to_owned(),
            left: 7,
        }];
        let left = counted(&outcome).left;
        assert_eq!((left[1].key.as_str(), left[1].snapshots), ("cluster/a", 7));
        outcome.result = "ApprovalRequired".to_owned();
        assert!(counted(&outcome).left.is_empty());
    }

    #[test]
    fn what_a_list_that_was_cut_lacks_is_not_known() {
        let entry = |at: usize, left| Baseline {
            key: format!("group/{at:03}"),
            left,
        };
        let mut outcome = outcome("Applied");
        outcome.left = proto::plan::whole((0..30).map(|at| entry(at, 3)).collect());
        let before = counted(&outcome);
        outcome.left = (0..30).map(|at| entry(at, 1)).collect();
        cut(&mut outcome.left, 24);
        let list = recounted(before, &outcome).left;
        let of = |at: usize| list.iter().find(|l| l.key == format!("group/{at:03}"));
        assert_eq!((list[0].key.as_str(), list.len()), ("cut", 25));
        assert_eq!((of(0).unwrap().snapshots, of(29)), (1, None));
        // The schema has a bound as well.
        outcome.left = proto::plan::whole((0..400).map(|at| entry(at, 1)).collect());
        let list = counted(&outcome).left;
        assert_eq!((list.len(), list[0].key.as_str()), (LEFT_MAX, "cut"));
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

    #[test]
    fn figures_of_a_run_are_in_the_status() {
        let mut run = outcome("Applied");
        let status = counted(&run);
        assert_eq!(
            (
                status.last_run_result.as_deref(),
                status.snapshots_removed,
                status.last_run
            ),
            (
                Some("Applied"),
                Some(3),
                Timestamp::from_second(75).ok().map(Time)
            )
        );
        assert_eq!(status.repository_size_before, None, "it did not prune");
        (run.pruned, run.bytes_before, run.bytes_after) = (true, 3 << 20, 1 << 20);
        let status = counted(&run);
        assert_eq!(
            (
                status.repository_size_before.as_deref(),
                status.repository_size_after.as_deref()
            ),
            (Some("3.0 MiB"), Some("1.0 MiB"))
        );
        assert_eq!(
            (
                status.repository_size_before_bytes,
                status.repository_size_after_bytes
            ),
            (Some(3 << 20), Some(1 << 20))
        );
    }
}
