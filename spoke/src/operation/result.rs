//! How a maintenance Job ended: the termination message of its pod, or what Kubernetes says of the Job. Pure.

use jiff::{SignedDuration, Timestamp};
use proto::v1::OperationOutcome;

use crate::maintenance::holder::Interruption;
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

/// The outcome of a Job that has ended.
#[must_use]
pub fn ended(job: &JobView, pods: &[&PodView], behind: Timestamp, now: Timestamp) -> Ended {
    let Some((at, end)) = &job.end else {
        return Ended::NotYet(None);
    };
    let at = at.unwrap_or(now);
    let newest = newest(pods);
    let Some(termination) = newest.and_then(|pod| pod.restic.as_ref()) else {
        let known = at.max(behind);
        if now.duration_since(known) < PATIENCE {
            return Ended::NotYet(known.checked_add(PATIENCE).ok());
        }
        return Ended::Known {
            outcome: Box::new(of_job(end, newest)),
            started: job.start,
            finished: Some(at),
        };
    };
    let outcome = message_of(&termination.message).unwrap_or_else(|| OperationOutcome {
        result: "Failed".to_owned(),
        reason: if &*termination.reason == "OOMKilled" {
            "OutOfMemory"
        } else {
            "ContainerFailed"
        }
        .to_owned(),
        message: format!(
            "the container ended with exit code {} ({}) before it could report a result; see the pod's log",
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

/// The pod that ended last.
#[must_use]
pub fn newest<'a>(pods: &[&'a PodView]) -> Option<&'a PodView> {
    let finished = |pod: &&&PodView| {
        pod.restic
            .as_ref()
            .and_then(|t| t.finished)
            .unwrap_or(Timestamp::MIN)
    };
    pods.iter().max_by_key(finished).copied()
}

fn message_of(text: &str) -> Option<OperationOutcome> {
    let outcome = serde_json::from_str::<OperationOutcome>(text).ok();
    outcome.filter(|outcome| !outcome.result.is_empty())
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
        (JobEnd::Complete, _) => {
            "the Job completed, but its pod was removed and with it the result".to_owned()
        }
    };
    OperationOutcome {
        result: "Failed".to_owned(),
        reason: "JobFailed".to_owned(),
        message,
        ..OperationOutcome::default()
    }
}

/// The outcome of a Job that was shut: what its pod wrote before it ended, or why it was shut.
#[must_use]
pub fn interrupted(pods: &[&PodView], reason: &str, message: &str) -> OperationOutcome {
    let told = newest(pods).and_then(|pod| message_of(&pod.restic.as_ref()?.message));
    let (message, told) = match told {
        // It was done before it was shut.
        Some(told) if !["Interrupted", "Failed"].contains(&told.result.as_str()) => return told,
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
            "PodNotStarted",
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
    use super::*;
    use crate::world::Termination;

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
        let told = interrupted(&[&stopped], "TakenBack", "a person");
        assert_eq!((told.reason.as_str(), told.removed), ("TakenBack", 3));
        assert!(
            told.message.contains("a person; the pod: Stopped: signal"),
            "{}",
            told.message
        );
        let done = pod(r#"{"result":"Applied","removed":5}"#);
        assert_eq!(interrupted(&[&done], "TakenBack", "a person").result, "Applied");
        let silent = interrupted(&[], "TakenBack", "a person");
        assert_eq!(
            (silent.result.as_str(), silent.reason.as_str()),
            ("Interrupted", "TakenBack")
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
