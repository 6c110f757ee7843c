//! How a maintenance Job ended: the termination message of its pod, or the state of the Job. Pure.

use jiff::Timestamp;
use proto::v1::OperationOutcome;

use super::record::POD_NOT_STARTED;
use crate::maintenance::holder::Interruption;
use crate::runs::{self, JobWithPods, Report, State};
use crate::world::PodView;

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

impl Report for OperationOutcome {
    fn parse(text: &str) -> Option<OperationOutcome> {
        let outcome = serde_json::from_str::<OperationOutcome>(text).ok();
        outcome.filter(|outcome| !outcome.result.is_empty())
    }

    fn succeeded(&self) -> bool {
        !["Interrupted", "Failed"].contains(&self.result.as_str())
    }

    fn interrupted(&self) -> bool {
        self.result == "Interrupted"
    }

    fn out_of_memory(&self) -> bool {
        false
    }
}

/// The outcome of a Job that has ended.
#[must_use]
pub fn ended(run: &JobWithPods, now: Timestamp) -> Ended {
    if run.job.end.is_none() {
        return Ended::NotYet(None);
    }
    let ended = match runs::state::<OperationOutcome>(run, now) {
        State::Ended(ended) => ended,
        State::Settling(again) => return Ended::NotYet(Some(again)),
        State::Running | State::Waiting { .. } => return Ended::NotYet(None),
    };
    let outcome = runs::report(ended.ending, "run")
        .unwrap_or_else(|(reason, message)| from_outside(run, reason, message));
    Ended::Known {
        outcome: Box::new(outcome),
        started: ended.started,
        finished: ended.finished,
    }
}

/// The outcome of a run that something else ended. What its pod reported of the run so far stays: the plan, and what was
/// removed. A signal carries no reason, so the reason is what
/// ended the pod from outside.
fn from_outside(run: &JobWithPods, reason: &str, message: String) -> OperationOutcome {
    let pod = run.newest().map(|(_, pod)| pod.as_ref());
    match reported(pod) {
        Some(told) => OperationOutcome {
            reason: reason.to_owned(),
            message: format!("{message}; the pod: {}: {}", told.reason, told.message),
            ..told
        },
        None => OperationOutcome {
            result: "Failed".to_owned(),
            reason: reason.to_owned(),
            message,
            ..OperationOutcome::default()
        },
    }
}

/// What a pod wrote about its end.
fn reported(pod: Option<&PodView>) -> Option<OperationOutcome> {
    OperationOutcome::parse(&pod?.restic.as_ref()?.message)
}

/// The outcome of a Job that was shut: what its pod wrote before it ended, or why it was shut.
#[must_use]
pub fn interrupted(newest: Option<&PodView>, reason: &str, message: &str) -> OperationOutcome {
    let (message, told) = match reported(newest) {
        // It was done before it was shut.
        Some(told) if told.succeeded() => return told,
        Some(told) => (
            format!("{message}; the pod: {}: {}", told.reason, told.message),
            told,
        ),
        None => (message.to_owned(), OperationOutcome::default()),
    };
    OperationOutcome {
        result: "Interrupted".to_owned(),
        reason: reason.to_owned(),
        message,
        ..told
    }
}

/// Reason and message of an interruption, for people.
#[must_use]
pub fn describe(
    why: Option<Interruption>,
    waiting: Option<&str>,
    pod: Option<&str>,
) -> (&'static str, String) {
    let (reason, text) = match why {
        Some(Interruption::LeaseLost) => (
            "LeaseLost",
            "the maintenance lock could not be renewed in time, so the Job was shut",
        ),
        Some(Interruption::Revoked) => (
            "LockRevoked",
            "the maintenance lock was taken back, so the Job was shut",
        ),
        Some(Interruption::OpenRefused) => ("OpenRefused", "the API server refused to start the Job"),
        Some(Interruption::NotStarted) => (
            POD_NOT_STARTED,
            "the container did not start in time, so the lock was given back; it is tried again later",
        ),
        Some(Interruption::PodLost) => (
            "PodLost",
            "a pod disappeared and nobody saw its end; the lock stays held until its lease has run out",
        ),
        Some(Interruption::Meddled) | None => (
            "NotOpenedByOperator",
            "the Job was started or suspended by somebody else; leave its suspend field alone",
        ),
        Some(Interruption::FoundShut) => (
            "FoundShut",
            "the Job was found shut after the operator had started",
        ),
    };
    let more = match why {
        Some(Interruption::NotStarted) => pod,
        Some(Interruption::Revoked | Interruption::OpenRefused) => waiting,
        _ => None,
    };
    (
        reason,
        more.map_or_else(|| text.to_owned(), |more| format!("{text}: {more}")),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::{JobEnd, JobView, Key, Termination};

    #[test]
    fn a_job_that_was_shut_reports_why_and_what_its_pod_had_done() {
        let pod = |message: &str| PodView {
            restic: Some(Termination {
                exit_code: 1,
                reason: "Error".into(),
                message: message.into(),
                started: None,
                finished: None,
            }),
            ..PodView::default()
        };
        let stopped = pod(r#"{"result":"Interrupted","reason":"Stopped","message":"signal","removed":3}"#);
        let told = interrupted(Some(&stopped), "TakenBack", "a person");
        assert_eq!((told.reason.as_str(), told.removed), ("TakenBack", 3));
        assert!(
            told.message.contains("a person; the pod: Stopped: signal"),
            "{}",
            told.message
        );
        let done = pod(r#"{"result":"Applied","removed":5}"#);
        assert_eq!(
            interrupted(Some(&done), "TakenBack", "a person").result,
            "Applied"
        );
        let silent = interrupted(None, "TakenBack", "a person");
        assert_eq!(
            (silent.result.as_str(), silent.reason.as_str()),
            ("Interrupted", "TakenBack")
        );
    }

    #[test]
    fn a_pod_that_was_told_to_end_keeps_its_report_and_gets_the_reason_from_outside() {
        let told =
            r#"{"result":"Interrupted","reason":"Stopped","message":"signal","plan":"hash","removed":3}"#;
        let at = Timestamp::from_second(100).unwrap();
        let end = |change: fn(&mut PodView), message: &str| {
            let mut pod = PodView {
                phase: "Failed".into(),
                restic: Some(Termination {
                    exit_code: 1,
                    reason: "Error".into(),
                    message: message.into(),
                    started: Some(at),
                    finished: Some(at),
                }),
                ..PodView::default()
            };
            change(&mut pod);
            let failed = JobEnd::Failed {
                reason: "BackoffLimitExceeded".into(),
                message: "Job".into(),
            };
            let run = JobWithPods {
                job: Arc::new(JobView {
                    end: Some((Some(at), failed)),
                    ..JobView::default()
                }),
                pods: vec![(Key::new("ns", "pod"), Arc::new(pod))],
                ..JobWithPods::default()
            };
            match ended(&run, at) {
                Ended::Known { outcome, .. } => *outcome,
                other => panic!("{other:?}"),
            }
        };
        for (change, reason) in [
            (
                (|pod| pod.disruption = Some(("EvictionByEvictionAPI".into(), "drained".into())))
                    as fn(&mut PodView),
                "Evicted",
            ),
            (|pod| pod.meta.deleting = true, "PodDeleted"),
            (|pod| pod.reason = "DeadlineExceeded".into(), "DeadlineExceeded"),
        ] {
            let outcome = end(change, told);
            let known = (outcome.result.as_str(), outcome.plan.as_str(), outcome.removed);
            assert_eq!(
                (known, outcome.reason.as_str()),
                (("Interrupted", "hash", 3), reason)
            );
            assert!(
                outcome.message.ends_with("the pod: Stopped: signal"),
                "{}",
                outcome.message
            );
            assert_eq!(end(change, "").result, "Failed", "nothing was reported");
        }
        assert_eq!(
            end(|_| (), told).reason,
            "Stopped",
            "nothing is known from outside"
        );
    }

    #[test]
    fn a_pod_that_does_not_start_says_why() {
        let (reason, text) = describe(
            Some(Interruption::NotStarted),
            None,
            Some("ImagePullBackOff: no such image"),
        );
        assert_eq!(reason, "PodNotStarted");
        assert!(text.contains("ImagePullBackOff"), "{text}");
    }
}
