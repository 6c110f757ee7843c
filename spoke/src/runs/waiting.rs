//! Why a Job does not run: the reason that the scheduler, the kubelet or the API server gives. Pure.

use jiff::Timestamp;

use super::{JobWithPods, START_PATIENCE};
use crate::world::{Notice, PodView};

/// A reason in CamelCase, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    pub reason: String,
    pub text: String,
}

impl Words {
    fn new(reason: &str, text: String) -> Words {
        Words {
            reason: reason.to_owned(),
            text,
        }
    }
}

/// What a Job none of whose pods runs waits for, and when to look again. Nothing within the first seconds.
pub(super) fn explain(run: &JobWithPods, now: Timestamp) -> (Option<Words>, Option<Timestamp>) {
    let patient_until = run
        .since()
        .and_then(|since| since.checked_add(START_PATIENCE).ok())
        .unwrap_or(now);
    if now < patient_until {
        return (None, Some(patient_until));
    }
    let name = &run.key.name;
    let waits = run.pods.iter().find(|(_, pod)| waits(pod));
    let words = match waits {
        Some((_, pod)) => {
            let (reason, words) = of_pod(pod, run.notice(&pod.meta.uid));
            Words::new(reason, format!("pod of {name}: {words}"))
        }
        None if run.job.suspended => Words::new("JobSuspended", format!("{name} is suspended")),
        None if run.pods.is_empty() => without_pod(run),
        // All of its pods have ended, and the Job's next state follows in a moment.
        None => Words::new(
            "NextAttempt",
            format!("the last pod of {name} has ended; another attempt, or the end of the Job, follows"),
        ),
    };
    (Some(words), None)
}

/// Whether a pod is on its way to run.
fn waits(pod: &PodView) -> bool {
    pod.restic.is_none() && !pod.started && matches!(&*pod.phase, "" | "Pending" | "Running")
}

fn without_pod(run: &JobWithPods) -> Words {
    let name = &run.key.name;
    match run.notice(&run.job.meta.uid) {
        Some(notice) => Words::new(
            &notice.reason,
            format!("no pod of {name} can be created: {}", notice.message),
        ),
        None => Words::new(
            "NoPod",
            format!("{name} has no pod, and no Event explains it; see kubectl describe job {name}"),
        ),
    }
}

/// What a pod waits for: by its own status, then by the kubelet's Events.
fn of_pod<'a>(pod: &'a PodView, notice: Option<&'a Notice>) -> (&'a str, String) {
    if let Some(words) = &pod.unschedulable {
        return ("Unschedulable", words.to_string());
    }
    if let Some((reason, message)) = &pod.waiting {
        let words = if message.is_empty() { reason } else { message };
        return (reason, words.to_string());
    }
    // Events are about volumes and the sandbox; once these are there, they are out of date.
    match notice.filter(|_| !pod.prepared) {
        Some(notice) => (&notice.reason, notice.message.to_string()),
        None => (
            "ContainerCreating",
            "it is being started, and the kubelet reports nothing that it waits for".to_owned(),
        ),
    }
}

/// Why the CronJob `name` makes no Job, if that is so: its last warning is newer than its last Job.
#[must_use]
pub fn not_created(name: &str, notice: Option<&Notice>, last: Option<Timestamp>) -> Option<Words> {
    let notice = notice.filter(|notice| last.is_none_or(|last| last < notice.at))?;
    Some(Words::new(
        &notice.reason,
        format!("CronJob {name} cannot create a Job: {}", notice.message),
    ))
}

/// What a Job that has ended without any container had waited for last.
pub(super) fn at_the_end(run: &JobWithPods, newest: Option<&PodView>) -> Option<String> {
    let Some(pod) = newest else {
        let refused = run.notice(&run.job.meta.uid).map(|_| without_pod(run).text);
        return refused.or_else(|| run.last_words.clone());
    };
    let notice = run.notice(&pod.meta.uid).filter(|_| !pod.prepared);
    let known = pod.unschedulable.is_some() || pod.waiting.is_some() || notice.is_some();
    (known && !pod.started).then(|| of_pod(pod, notice).1)
}
