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
    // A message that had no room for any.
    (outcome.result, outcome.left) = ("Applied".to_owned(), Vec::new());
    assert!(counted(&outcome).left.is_empty(), "not known is not nothing");
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
