//! How a Job ended: out of the report of its container, the kubelet's report of the pod, and the Job's own condition. Pure.

use jiff::Timestamp;

use super::{JobWithPods, hooks, waiting};
use crate::world::{JobEnd, PodView, Termination};

/// What a container writes about its own end into its termination log.
pub trait Report: Sized {
    /// Reads it; `None` when the container ended before it could write it.
    fn parse(text: &str) -> Option<Self>;
    /// Its work was done, at least in part.
    fn succeeded(&self) -> bool;
    /// It was stopped by a signal.
    fn interrupted(&self) -> bool;
    /// A process of the container was killed for want of memory.
    fn out_of_memory(&self) -> bool;
}

/// A Job that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended<M> {
    pub ending: Ending<M>,
    /// Of the container; of the Job where none is known.
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    /// uid that the container ran as.
    pub user: Option<i64>,
}

impl<M> Ended<M> {
    /// An end that no container has reported.
    #[must_use]
    pub fn without_pod(ending: Ending<M>, at: Timestamp) -> Ended<M> {
        Ended {
            ending,
            started: None,
            finished: Some(at),
            user: None,
        }
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending<M> {
    /// The container has reported it.
    Message(M),
    /// The kernel killed it at its memory limit, or for the node's sake where it has none.
    OutOfMemory { limit: Option<String> },
    /// activeDeadlineSeconds of the Job has passed.
    Deadline { message: String },
    /// The hook before it failed, so it did not begin.
    PreHook { message: String },
    /// No container of it ever ran.
    NeverStarted { job: String, words: String },
    /// The kubelet, a drain or the scheduler ended the pod.
    Evicted { message: String },
    /// The node does not report, or is no longer there.
    NodeLost { message: String },
    /// A newer Job took its place (concurrencyPolicy: Replace).
    Replaced,
    /// Its Job was deleted before it had ended.
    Deleted,
    /// Its pod was deleted before it had ended.
    PodDeleted { job: String },
    /// A Job of the original operator, whose containers report nothing: restic's exit code.
    Unreported { exit: i32 },
    /// The container ended without a report.
    Container { exit: i32, reason: String },
    /// The Job has completed, and its pod with the report was deleted.
    Lost,
    /// The Job has failed, and nothing is known of a pod.
    Failed { job: String },
}

/// The end of a Job whose end is known.
pub(super) fn of_job<M: Report>(run: &JobWithPods, end: &JobEnd, at: Timestamp) -> Ended<M> {
    let newest = run.newest().map(|(_, pod)| pod.as_ref());
    let Some((pod, termination)) = newest.and_then(|pod| Some((pod, pod.restic.as_ref()?))) else {
        return Ended {
            ending: unreported(run, without_container(run, end, newest)),
            started: run.job.start,
            finished: Some(at),
            user: newest.and_then(|pod| pod.user),
        };
    };
    Ended {
        ending: unreported(run, of_container(pod, termination, Some(end))),
        started: termination.started.or(run.since()),
        finished: termination.finished.or(Some(at)),
        user: pod.user,
    }
}

/// Without a report that was never to come, the exit code is all there is to know.
fn unreported<M>(run: &JobWithPods, ending: Ending<M>) -> Ending<M> {
    match ending {
        Ending::Container { exit, .. } if run.job.original => Ending::Unreported { exit },
        Ending::Lost if run.job.original => Ending::Unreported { exit: 0 },
        ending => ending,
    }
}

/// The end of a pod whose other containers go on.
pub(super) fn of_outlived<M: Report>(run: &JobWithPods, pod: &PodView) -> Ended<M> {
    let unknown = Termination {
        exit_code: 0,
        reason: "".into(),
        message: "".into(),
        started: None,
        finished: None,
    };
    let termination = pod.restic.as_ref().unwrap_or(&unknown);
    Ended {
        ending: unreported(run, of_container(pod, termination, None)),
        started: termination.started,
        finished: termination.finished,
        user: pod.user,
    }
}

fn of_container<M: Report>(pod: &PodView, termination: &Termination, end: Option<&JobEnd>) -> Ending<M> {
    let report = M::parse(&termination.message);
    let killed = &*termination.reason == "OOMKilled" || report.as_ref().is_some_and(Report::out_of_memory);
    if killed && !report.as_ref().is_some_and(Report::succeeded) {
        return Ending::OutOfMemory {
            limit: pod.memory_limit.as_deref().map(str::to_owned),
        };
    }
    // A container that was stopped by a signal does not know the sender.
    let outside = || from_outside(pod, end);
    match report {
        Some(report) if report.interrupted() => outside().unwrap_or(Ending::Message(report)),
        Some(report) => Ending::Message(report),
        None => outside().unwrap_or_else(|| Ending::Container {
            exit: termination.exit_code,
            reason: termination.reason.to_string(),
        }),
    }
}

/// What ended a pod from outside, if something did.
fn from_outside<M>(pod: &PodView, end: Option<&JobEnd>) -> Option<Ending<M>> {
    disrupted(pod)
        .or_else(|| deadline(end?))
        .or_else(|| {
            (&*pod.reason == "DeadlineExceeded").then(|| Ending::Deadline {
                message: pod.message.to_string(),
            })
        })
        .or_else(|| {
            pod.meta.deleting.then(|| Ending::PodDeleted {
                job: end.map(of_end).unwrap_or_default(),
            })
        })
}

/// By condition DisruptionTarget, or by the reason that the kubelet gave the pod.
fn disrupted<M>(pod: &PodView) -> Option<Ending<M>> {
    let kubelet = [&*pod.reason, &*pod.message];
    let condition = pod
        .disruption
        .as_ref()
        .map(|(reason, message)| [&**reason, &**message]);
    // The kubelet's own message is more precise than the condition that it sets.
    let [reason, message] = condition
        .filter(|[reason, _]| *reason != "TerminationByKubelet" || pod.reason.is_empty())
        .unwrap_or(kubelet);
    let message = if message.is_empty() { reason } else { message }.to_owned();
    match reason {
        "DeletionByTaintManager" | "DeletionByPodGC" | "NodeLost" => Some(Ending::NodeLost { message }),
        "EvictionByEvictionAPI"
        | "PreemptionByScheduler"
        | "TerminationByKubelet"
        | "Evicted"
        | "Preempting"
        | "NodeShutdown"
        | "Shutdown"
        | "Terminated"
        | "NodeAffinity" => Some(Ending::Evicted { message }),
        _ => None,
    }
}

fn deadline<M>(end: &JobEnd) -> Option<Ending<M>> {
    match end {
        JobEnd::Failed { reason, message } if &**reason == "DeadlineExceeded" => Some(Ending::Deadline {
            message: message.to_string(),
        }),
        _ => None,
    }
}

/// No container of it is known to have ended.
fn without_container<M>(run: &JobWithPods, end: &JobEnd, newest: Option<&PodView>) -> Ending<M> {
    if matches!(end, JobEnd::Complete) {
        return Ending::Lost;
    }
    let job = of_end(end);
    let before = newest.filter(|pod| hooks::failed_before(pod));
    if let Some(message) = before.and_then(hooks::why_before) {
        return Ending::PreHook { message };
    }
    if let Some(ending) = newest.and_then(disrupted) {
        return ending;
    }
    if let Some(pod) = before {
        return from_outside(pod, Some(end)).unwrap_or_else(|| Ending::PreHook {
            message: "its container was killed".to_owned(),
        });
    }
    if let Some((name, end)) = newest.and_then(|pod| pod.unprepared.as_ref()) {
        let words = end.message.trim();
        let words = if words.is_empty() { &*end.reason } else { words };
        return Ending::Failed {
            job: format!(
                "container {name} failed before restic started (exit code {}): {words}",
                end.exit_code
            ),
        };
    }
    if let Some(words) = waiting::at_the_end(run, newest) {
        return Ending::NeverStarted { job, words };
    }
    match (deadline(end), newest) {
        (Some(ending), _) => ending,
        (None, Some(pod)) if pod.meta.deleting => Ending::PodDeleted { job },
        (None, Some(pod)) if !pod.reason.is_empty() => Ending::Failed {
            job: format!("{job}; the pod ended: {} {}", pod.reason, pod.message)
                .trim_end()
                .to_owned(),
        },
        _ => Ending::Failed { job },
    }
}

/// Reason and message of the Job's own condition.
fn of_end(end: &JobEnd) -> String {
    match end {
        JobEnd::Complete => String::new(),
        JobEnd::Failed { reason, message } => format!("{reason}: {message}"),
    }
}
