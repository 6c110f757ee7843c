//! What the hook containers of a pod report, and what follows from it: which hooks ran, and which a run still owes. Pure.

use crds::hooks::{HookResult, HookRun};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{JobWithPods, PATIENCE, Report};
use crate::world::{HookContainer, PodView};

/// Longest text of one hook in a report, in characters. A termination message holds 4096 bytes in all.
pub const TEXT_MAX: usize = 700;

/// What a hook container writes into its termination log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookReport {
    pub hooks: Vec<Told>,
}

/// One hook in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// As in the spec, such as preBackup.
    pub name: String,
    pub how: How,
    /// Milliseconds that it took.
    #[serde(default)]
    pub millis: u64,
    #[serde(default)]
    pub message: String,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    Succeeded,
    /// It began, and ended with an error or was over its time limit.
    Failed,
    /// It could not begin: no pod, no permission.
    NotBegun,
    /// It was not called for: the hook before had not begun.
    NotNeeded,
    /// It began, and its end is not known.
    Unknown,
}

impl Told {
    /// For a status; nothing of what was not called for.
    #[must_use]
    pub fn shown(&self) -> Option<HookRun> {
        let result = match self.how {
            How::Succeeded => HookResult::Succeeded,
            How::Failed | How::NotBegun => HookResult::Failed,
            How::Unknown => HookResult::Unknown,
            How::NotNeeded => return None,
        };
        let seconds = self.millis / 100;
        Some(HookRun {
            name: self.name.clone(),
            result,
            duration: Some(format!("{}.{}s", seconds / 10, seconds % 10)),
            message: (!self.message.is_empty()).then(|| self.message.clone()),
        })
    }
}

impl HookReport {
    /// What it says of one hook.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Told> {
        self.hooks.iter().find(|told| told.name == name)
    }
}

impl Report for HookReport {
    fn parse(text: &str) -> Option<HookReport> {
        serde_json::from_str(text).ok()
    }

    fn succeeded(&self) -> bool {
        let well = |told: &Told| matches!(told.how, How::Succeeded | How::NotNeeded);
        self.hooks.iter().all(well)
    }

    fn interrupted(&self) -> bool {
        false
    }

    fn out_of_memory(&self) -> bool {
        false
    }
}

/// Hooks of a resource, by their names in its spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub before: Option<&'static str>,
    pub after: Option<&'static str>,
    pub failure: Option<&'static str>,
}

/// What is known of the hooks of a run that is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// In the order in which they ran.
    pub ran: Vec<HookRun>,
    /// Hooks that have to be run, by their names in the spec: the one after the run because the one before it began, or
    /// may have begun, and nothing shows that it ended well.
    pub owed: Vec<&'static str>,
    /// The hook before the run began then, and nobody knows of its end.
    pub began: Option<Timestamp>,
}

/// Looks at what is known of a run whose pods are at their end. `failed`: restic did not end with exit code 0.
/// `never`: no pod was ever made.
#[must_use]
pub fn outcome(names: Names, run: &JobWithPods, never: bool) -> Outcome {
    let mut outcome = Outcome::default();
    if never {
        return outcome;
    }
    let Some((pod, seen_to_end)) = last_pod(run) else {
        outcome.owed = names.after.into_iter().chain(names.failure).collect();
        return outcome;
    };
    let restic_failed = pod.restic.as_ref().is_none_or(|end| end.exit_code != 0);
    let (before, after) = (pod.hooks.before.as_ref(), pod.hooks.after.as_ref());
    let began = match names.before {
        Some(name) => {
            let told = tell(name, before, seen_to_end);
            outcome.ran.extend(told.shown());
            if told.how == How::Unknown {
                outcome.began = before.and_then(|container| container.started);
            }
            !matches!(told.how, How::NotBegun | How::NotNeeded)
        }
        None => !matches!(tell("", after, seen_to_end).how, How::NotNeeded),
    };
    let report = after.and_then(|container| HookReport::parse(&container.ended.as_ref()?.message));
    let report = report.unwrap_or_default();
    for told in &report.hooks {
        outcome.ran.extend(told.shown());
    }
    // Asked only where the one before had begun: "not needed" contradicts that, so it counts as not run.
    let well = |name: &str| report.of(name).is_some_and(|told| told.how == How::Succeeded);
    outcome
        .owed
        .extend(names.after.filter(|name| began && !well(name)));
    let started = after.is_some_and(|container| container.started.is_some()) || !seen_to_end;
    let silent = |name: &&str| report.of(name).is_none();
    let failure = names.failure.filter(silent).filter(|_| restic_failed && started);
    outcome.owed.extend(failure);
    outcome
}

/// What a container reports of its hook.
fn tell(name: &str, container: Option<&HookContainer>, seen_to_end: bool) -> Told {
    let told = |how, message: &str| Told {
        name: name.to_owned(),
        how,
        millis: 0,
        message: message.to_owned(),
    };
    let Some(container) = container.filter(|container| container.started.is_some()) else {
        return match seen_to_end {
            true => told(How::NotNeeded, ""),
            false => told(How::Unknown, "its pod was deleted before the end of it was seen"),
        };
    };
    let ended = container.ended.as_ref();
    let report = ended.and_then(|end| HookReport::parse(&end.message)?.of(name).cloned());
    report.unwrap_or_else(|| match ended {
        Some(end) => told(
            How::Unknown,
            &format!(
                "the hook's container ended with exit code {} and without a report",
                end.exit_code
            ),
        ),
        None => told(How::Unknown, "the end of the hook's container was not seen"),
    })
}

/// The pod with hooks that began last, and whether its end was seen: of one that was deleted before, more may have
/// happened than was seen.
fn last_pod(run: &JobWithPods) -> Option<(&PodView, bool)> {
    let began = |pod: &PodView| {
        let containers = [&pod.hooks.before, &pod.hooks.after];
        containers.into_iter().flatten().filter_map(|c| c.started).min()
    };
    // One that a kubelet had was perhaps begun after it was last seen to wait.
    let to_its_end = |pod: &PodView| !pod.scheduled || (pod.stopped && (pod.is_over() || pod.hooks.began()));
    run.deleted
        .iter()
        .chain(&run.pods)
        .map(|(_, pod)| (pod.as_ref(), to_its_end(pod)))
        .max_by_key(|(pod, _)| began(pod))
}

/// Whether hooks of a run may still be at work.
#[must_use]
pub fn at_work(run: &JobWithPods) -> bool {
    busy(run).next().is_some()
}

/// Pods whose hooks may be at work. On a node that does not report they reach nothing.
fn busy(run: &JobWithPods) -> impl Iterator<Item = &PodView> {
    let lost = |pod: &PodView| {
        let disruption = pod.disruption.as_ref();
        disruption
            .is_some_and(|(reason, _)| matches!(&**reason, "DeletionByTaintManager" | "DeletionByPodGC"))
    };
    let ended = |pod: &PodView| pod.is_over() && (pod.stopped || !pod.hooks.began());
    let pods = run.pods.iter().map(|(_, pod)| pod.as_ref());
    pods.filter(move |pod| !pod.hooks.is_none() && !ended(pod) && !lost(pod))
}

/// Until when the pods of a Job that ended then may be busy with hooks.
pub(super) fn busy_until(run: &JobWithPods, ended: Timestamp) -> Option<Timestamp> {
    let grace = busy(run).map(|pod| pod.hooks.grace).max()?;
    let wait = PATIENCE + SignedDuration::from_secs(grace);
    Some(ended.saturating_add(wait).unwrap_or(ended))
}

/// Time that a pod is given for its hooks after `restic` has ended.
pub(super) fn time_to_end(pod: &PodView) -> SignedDuration {
    let grace = if pod.hooks.after_stays() {
        pod.hooks.grace
    } else {
        0
    };
    SignedDuration::from_secs(grace)
}

/// The hook before has failed, so that restic was not started.
pub(super) fn failed_before(pod: &PodView) -> bool {
    let ended = pod
        .hooks
        .before
        .as_ref()
        .and_then(|container| container.ended.as_ref());
    pod.restic.is_none() && ended.is_some_and(|end| end.exit_code != 0)
}

/// Why it has failed; `None` where its container says nothing.
pub(super) fn why_before(pod: &PodView) -> Option<String> {
    let end = pod.hooks.before.as_ref()?.ended.as_ref()?;
    let report = HookReport::parse(&end.message)?;
    Some(report.hooks.first()?.message.clone())
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
