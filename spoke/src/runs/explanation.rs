//! What an ending means to a person: a reason, what happened, and what to set. Pure.

use super::Ending;

/// What the container reported. `what` is the kind of run, such as `backup`.
///
/// # Errors
/// Reason and message of an ending that the container did not report itself.
pub fn report<M>(ending: Ending<M>, what: &str) -> Result<M, (&'static str, String)> {
    let reason = match ending {
        Ending::Message(message) => return Ok(message),
        Ending::OutOfMemory { .. } => "OutOfMemory",
        Ending::Deadline { .. } => "DeadlineExceeded",
        Ending::PreHook { .. } => "PreHookFailed",
        Ending::NeverStarted { .. } => "PodNeverStarted",
        Ending::Evicted { .. } => "Evicted",
        Ending::NodeLost { .. } => "NodeLost",
        Ending::Replaced => "Replaced",
        Ending::Deleted => "JobDeleted",
        Ending::PodDeleted { .. } => "PodDeleted",
        Ending::Unreported { .. } | Ending::Container { .. } => "ContainerFailed",
        Ending::Lost => "ResultLost",
        Ending::Failed { .. } => "JobFailed",
    };
    Err((reason, message(ending, what)))
}

fn message<M>(ending: Ending<M>, what: &str) -> String {
    let known = |text: String| {
        if text.is_empty() {
            "no reason is given".to_owned()
        } else {
            text
        }
    };
    match ending {
        Ending::Message(_) => String::new(),
        Ending::OutOfMemory { limit: Some(limit) } => format!(
            "restic was killed because the container reached its memory limit of {limit}; raise spec.jobConfig.resources.limits.memory"
        ),
        Ending::OutOfMemory { limit: None } => "restic was killed because the node ran out of memory, and the container has no limit of its own; set spec.jobConfig.resources.requests.memory and limits.memory".to_owned(),
        Ending::Deadline { message } => {
            format!("{message}; raise spec.jobConfig.activeDeadlineSeconds if the {what} needs longer")
        }
        Ending::PreHook { message } => {
            format!("the hook before the {what} failed, so there was no {what}: {message}")
        }
        Ending::NeverStarted { job, words } => format!("{job}; the pod never started: {words}"),
        Ending::Evicted { message } => {
            format!("the pod was evicted before the {what} had ended: {}", known(message))
        }
        Ending::NodeLost { message } => {
            format!("the node of the pod was lost before the {what} had ended: {}", known(message))
        }
        Ending::Replaced => format!(
            "the {what} had not ended when the next one was due, and that one took its place (spec.jobConfig.concurrencyPolicy: Replace)"
        ),
        Ending::Deleted => {
            format!("the Job was deleted before the {what} had ended, or before its result was read")
        }
        Ending::PodDeleted { job } if job.is_empty() => {
            format!("the pod was deleted before the {what} had ended")
        }
        Ending::PodDeleted { job } => format!("the pod was deleted before the {what} had ended; {job}"),
        Ending::Unreported { exit } => format!(
            "restic ended with exit code {exit}; the original operator made this Job, whose pods report nothing more: see the pod's log"
        ),
        Ending::Container { exit: 137, .. } => "the container was killed (exit code 137) before restic could report a result; see the pod's log, and the node's for want of memory".to_owned(),
        Ending::Container { exit, reason } => format!(
            "the container ended with exit code {exit} ({reason}) before restic could report a result; see the pod's log"
        ),
        Ending::Lost => "the Job completed, but its pod was deleted and with it the result".to_owned(),
        Ending::Failed { job } => job,
    }
}

/// What to set where files belong to a user that the pod does not run as.
#[must_use]
pub fn owner_hint(user: Option<i64>) -> String {
    let runs_as = match user {
        Some(0) => return "the pod runs as root, so the volume itself or its server refuses it".to_owned(),
        Some(user) => format!("the pod runs as user {user}"),
        None => "the pod runs as the image's user".to_owned(),
    };
    format!("{runs_as}; set spec.jobConfig.securityContext.runAsUser to the owner of the files, or 0")
}
