//! The status that follows from runs. Pure.

use crds::conditions::{self, Status, reasons, types, whole_seconds};
use crds::retention::SnapshotsLeft;
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::v1::OperationOutcome;

use crate::units;
use crate::world::{JobEnd, JobView, PodView};

/// Time for the end of a pod to become known after the end of its Job.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);

/// How a run ended, or when to look again for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    NotYet(Option<Timestamp>),
    Known {
        outcome: Box<OperationOutcome>,
        started: Option<Timestamp>,
        finished: Option<Timestamp>,
    },
}

/// The outcome of a Job, out of its pod's termination message.
#[must_use]
pub fn ended(job: &JobView, pods: &[&PodView], now: Timestamp) -> Ended {
    let Some((at, end)) = &job.end else {
        return Ended::NotYet(None);
    };
    let at = at.unwrap_or(now);
    let newest = pods.iter().max_by_key(|pod| {
        pod.restic
            .as_ref()
            .and_then(|t| t.finished)
            .unwrap_or(Timestamp::MIN)
    });
    let termination = newest.and_then(|pod| pod.restic.as_ref());
    let Some(termination) = termination else {
        if now.duration_since(at) < PATIENCE {
            return Ended::NotYet(at.checked_add(PATIENCE).ok());
        }
        return Ended::Known {
            outcome: Box::new(of_job(end, newest.copied())),
            started: job.start,
            finished: Some(at),
        };
    };
    let outcome = serde_json::from_str::<OperationOutcome>(&termination.message);
    let outcome = outcome
        .ok()
        .filter(|o| !o.result.is_empty())
        .unwrap_or_else(|| OperationOutcome {
            result: "Failed".to_owned(),
            reason: if &*termination.reason == "OOMKilled" {
                "OutOfMemory"
            } else {
                "ContainerFailed"
            }
            .to_owned(),
            message: format!(
                "the container ended with exit code {} ({}) before it could tell a result; see the pod's log",
                termination.exit_code, termination.reason
            ),
            ..OperationOutcome::default()
        });
    Ended::Known {
        outcome: Box::new(outcome),
        started: termination.started.or(job.start),
        finished: termination.finished.or(Some(at)),
    }
}

fn of_job(end: &JobEnd, pod: Option<&PodView>) -> OperationOutcome {
    let words = pod
        .and_then(crate::pod::message::waiting_for)
        .map(|(_, words)| words);
    let message = match (end, words) {
        (JobEnd::Failed { reason, message }, Some(words)) => {
            format!("{reason}: {message}; the pod never started: {words}")
        }
        (JobEnd::Failed { reason, message }, None) => format!("{reason}: {message}"),
        (JobEnd::Complete, _) => "the Job completed, but its pod is gone and with it the result".to_owned(),
    };
    OperationOutcome {
        result: "Failed".to_owned(),
        reason: "JobFailed".to_owned(),
        message,
        ..OperationOutcome::default()
    }
}

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
    let Run {
        source,
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
    if let Some(fingerprint) = shown(run) {
        status.previewed_for = Some(fingerprint.to_owned());
        status.previewed = false;
    }
    if ["Applied", "NothingToRemove"].contains(&outcome.result.as_str()) && !outcome.left.is_empty() {
        let left = outcome.left.iter().take(LEFT_MAX).map(|left| SnapshotsLeft {
            key: left.key.clone(),
            snapshots: i32::try_from(left.left).unwrap_or(i32::MAX),
        });
        status.left = left.collect();
    }
    let fault = outcome.faults.iter().find(|fault| fault.source == *source);
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
        _ if fault.is_some() => (
            Status::True,
            reasons::RULE_REFUSED,
            format!(
                "{}; until this policy is corrected, all snapshots that it could match are kept",
                fault.map_or("", |fault| &fault.text)
            ),
        ),
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
    status.plan = (waits || outcome.result == "Preview").then(|| outcome.plan.clone());
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
    fn what_a_run_left_is_kept_for_the_guard() {
        let mut outcome = outcome("Applied");
        outcome.left = vec![proto::v1::Baseline {
            key: "cluster/a".to_owned(),
            left: 7,
        }];
        let left = counted(&outcome).left;
        assert_eq!((left[0].key.as_str(), left[0].snapshots), ("cluster/a", 7));
        outcome.result = "ApprovalRequired".to_owned();
        assert!(counted(&outcome).left.is_empty());
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
