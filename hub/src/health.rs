//! How one backup is: a pure function of what its spoke reported, how fresh that is, and the time.
//!
//! The worst that holds is the state; unknown is never ok.
//!
//! | state | holds when |
//! | --- | --- |
//! | failed | the last run failed, and no success came after it |
//! | late | a planned run was due more than max(10 min, a tenth of the interval) ago, no run has left a snapshot since, and it is not suspended; a run under way puts this off by one interval |
//! | partial | the last run left a snapshot but could not read all files |
//! | notready | its Ready condition is not True, its last run or schedule cannot be judged, or a run does not start |
//! | stale | its spoke is silent: nothing newer is known |
//! | never | it has never run |
//! | running | a pod of it runs now |
//! | suspended | it is suspended |
//! | ok | none of these: Ready, and the last run that was due succeeded |
//!
//! A stale backup is judged as of the last message of its spoke: what was late then is late, what came due since is
//! not known to be late.

use std::fmt;

use proto::time::to_unix_millis;
use proto::v1::{BackupResult, BackupRun, BackupState, ObjectState};

use crate::Millis;
use crate::schedule::{Deadline, deadline, deadline_by_forecast};

/// A run that does not start for this long is shown as not ready: schedulers and autoscalers take their time.
const WAITS: Millis = 120_000;

/// State of a backup row, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// The last run failed.
    Failed,
    /// A planned run is overdue.
    Late,
    /// The last run could not read everything.
    Partial,
    /// Its resource is not Ready, or cannot be judged.
    NotReady,
    /// Its spoke is silent.
    Stale,
    /// It has never run.
    Never,
    /// It runs now.
    Running,
    /// It is suspended.
    Suspended,
    /// All is well.
    Ok,
}

impl Health {
    /// All states, worst first.
    pub const ALL: [Self; 9] = [
        Self::Failed,
        Self::Late,
        Self::Partial,
        Self::NotReady,
        Self::Stale,
        Self::Never,
        Self::Running,
        Self::Suspended,
        Self::Ok,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Partial => "partial",
            Self::NotReady => "notready",
            Self::Stale => "stale",
            Self::Never => "never",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Ok => "ok",
        }
    }

    /// Data is in danger now: a person has to act. The one definition of unwell, on every screen.
    #[must_use]
    pub const fn is_unsafe(self) -> bool {
        matches!(self, Self::Failed | Self::Late | Self::Partial | Self::NotReady)
    }

    /// Shown among what needs a person.
    #[must_use]
    pub const fn needs_person(self) -> bool {
        self.is_unsafe() || matches!(self, Self::Never)
    }

    /// Nobody can say that the data is safe.
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        matches!(self, Self::Stale | Self::Never)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How fresh the knowledge of a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// The spoke has been silent for too long.
    pub stale: bool,
    /// Time of its last message; `None` when there was none since the hub knows it.
    pub last_heard: Option<Millis>,
}

/// The value of the condition Ready: `None` when there is none.
#[must_use]
pub fn ready_condition(object: &ObjectState) -> Option<&proto::v1::Condition> {
    object
        .conditions
        .iter()
        .find(|condition| condition.r#type == "Ready")
}

/// Whether the condition Ready is True.
#[must_use]
pub fn is_ready(object: &ObjectState) -> bool {
    ready_condition(object).is_some_and(|condition| condition.status == "True")
}

/// When the next success is due, counted from the last run that left a snapshot; before the first one from
/// `baseline` (when the present schedule was first seen) and from the creation. `None` while suspended.
#[must_use]
pub fn due(object: &ObjectState, backup: &BackupState, baseline: Millis) -> Option<Deadline> {
    if backup.suspended {
        return None;
    }
    let left_snapshot = backup.last_run.as_ref().filter(|run| {
        matches!(
            run.result(),
            BackupResult::Succeeded | BackupResult::PartiallyFailed
        )
    });
    let times = [
        object.created.as_ref(),
        backup.last_success.as_ref(),
        left_snapshot.and_then(|run| run.finished.as_ref()),
    ];
    let since = times
        .into_iter()
        .flatten()
        .map(to_unix_millis)
        .fold(baseline, Millis::max);
    deadline(&backup.schedule, &backup.timezone, since).or_else(|| {
        backup
            .next_run
            .as_ref()
            .map(|next| deadline_by_forecast(to_unix_millis(next)))
    })
}

/// The condition that says what a run waits for.
fn waiting(object: &ObjectState) -> Option<&proto::v1::Condition> {
    let mut conditions = object.conditions.iter();
    conditions.find(|c| c.r#type == "Waiting" && c.status == "True")
}

/// From when on a run has waited for so long that it may well not start by itself; `None` when none waits.
#[must_use]
pub fn waits_too_long(object: &ObjectState) -> Option<Millis> {
    let since = waiting(object)?.last_transition.as_ref()?;
    Some(to_unix_millis(since) + WAITS)
}

/// What a backup is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The resource.
    pub object: &'a ObjectState,
    /// Its body.
    pub backup: &'a BackupState,
    /// From [`due`].
    pub deadline: Option<Deadline>,
    /// How fresh that is.
    pub fresh: Fresh,
}

impl Evidence<'_> {
    /// The state of the backup.
    #[must_use]
    pub fn health(&self, now: Millis) -> Health {
        let backup = self.backup;
        let holds = |health: &Health| match health {
            Health::Failed => self.failed().is_some(),
            Health::Late => self.overdue(now).is_some(),
            Health::Partial => result(backup) == Some(BackupResult::PartiallyFailed),
            Health::NotReady => self.not_ready().is_some() || self.waits(now),
            Health::Stale => self.fresh.stale,
            Health::Never => backup.last_run.is_none() && backup.last_success.is_none(),
            Health::Running => backup.running,
            Health::Suspended => backup.suspended,
            Health::Ok => true,
        };
        Health::ALL.into_iter().find(holds).unwrap_or(Health::NotReady)
    }

    /// The last run, when it failed and nothing has succeeded since.
    fn failed(&self) -> Option<&BackupRun> {
        let run = self.backup.last_run.as_ref()?;
        let mended = match (&self.backup.last_success, &run.finished) {
            (Some(success), Some(finished)) => to_unix_millis(success) > to_unix_millis(finished),
            _ => false,
        };
        (run.result() == BackupResult::Failed && !mended).then_some(run)
    }

    /// The deadline, when it has passed.
    fn overdue(&self, now: Millis) -> Option<Deadline> {
        let deadline = self.deadline?;
        let seen = if self.fresh.stale {
            now.min(self.fresh.last_heard?)
        } else {
            now
        };
        let late = if self.backup.running {
            deadline.late_though_running
        } else {
            deadline.late
        };
        (seen >= late).then_some(deadline)
    }

    /// What its run waits for.
    fn waiting(&self) -> Option<&proto::v1::Condition> {
        waiting(self.object)
    }

    fn waiting_words(&self) -> Option<String> {
        self.waiting()
            .map(|c| format!("a run does not start: {}: {}", c.reason, c.message))
    }

    /// Its run has waited for so long that it may well not start by itself.
    fn waits(&self, now: Millis) -> bool {
        waits_too_long(self.object).is_some_and(|from| now >= from)
    }

    /// Why the resource cannot be called ready.
    fn not_ready(&self) -> Option<String> {
        let ready = ready_condition(self.object);
        match ready {
            None => return Some("its operator has not reported a Ready condition yet".to_owned()),
            Some(condition) if condition.status != "True" => {
                let or = |text: &str, other: &str| {
                    if text.is_empty() {
                        other.to_owned()
                    } else {
                        text.to_owned()
                    }
                };
                return Some(or(
                    &condition.message,
                    &or(&condition.reason, "it is not Ready and does not say why"),
                ));
            }
            Some(_) => {}
        }
        if self.deadline.is_none() && !self.backup.suspended {
            return Some(format!(
                "nobody can tell when it is due: schedule {:?} cannot be read",
                self.backup.schedule
            ));
        }
        let unclear = self
            .backup
            .last_run
            .as_ref()
            .is_some_and(|run| run.result() == BackupResult::Unspecified);
        (unclear && !self.backup.running).then(|| "the result of its last run is not known".to_owned())
    }

    /// Since when a state holds, as far as that is known.
    #[must_use]
    pub fn since(&self, health: Health) -> Option<Millis> {
        let backup = self.backup;
        let run = backup.last_run.as_ref();
        let time = |time: Option<&prost_types::Timestamp>| time.map(to_unix_millis);
        match health {
            Health::Failed | Health::Partial => time(run?.finished.as_ref()),
            Health::Late => self.deadline.map(|deadline| match backup.running {
                true => deadline.late_though_running,
                false => deadline.late,
            }),
            Health::NotReady => match ready_condition(self.object) {
                Some(ready) if ready.status != "True" => time(ready.last_transition.as_ref()),
                _ => time(self.waiting()?.last_transition.as_ref()),
            },
            Health::Stale => self.fresh.last_heard,
            Health::Never => time(self.object.created.as_ref()),
            Health::Ok => time(backup.last_success.as_ref()),
            Health::Running | Health::Suspended => None,
        }
    }

    /// Why the state is not ok, in one sentence without times; empty when it is.
    #[must_use]
    pub fn reason(&self, health: Health) -> String {
        let backup = self.backup;
        match health {
            Health::Failed => self.failed().map(run_reason).unwrap_or_default(),
            Health::Late => match (&backup.last_success, backup.running) {
                (None, _) => "a run is overdue, and none has ever succeeded".to_owned(),
                (Some(_), true) => {
                    "a run has been under way for longer than the schedule's interval".to_owned()
                }
                (Some(_), false) => "a run is overdue".to_owned(),
            },
            Health::Partial => backup.last_run.as_ref().map(run_reason).unwrap_or_default(),
            Health::NotReady => self
                .not_ready()
                .or_else(|| self.waiting_words())
                .unwrap_or_default(),
            Health::Stale => "its spoke is silent; this is the last that is known".to_owned(),
            Health::Never | Health::Suspended if self.waiting().is_some() => {
                self.waiting_words().unwrap_or_default()
            }
            Health::Never if backup.running => "the first run is under way".to_owned(),
            Health::Never if backup.suspended => "it has never run, and it is suspended".to_owned(),
            Health::Never => "it has not run yet".to_owned(),
            Health::Running => "a run is under way".to_owned(),
            Health::Suspended => "it is suspended".to_owned(),
            Health::Ok => String::new(),
        }
    }
}

fn result(backup: &BackupState) -> Option<BackupResult> {
    backup.last_run.as_ref().map(BackupRun::result)
}

/// What a run reports about itself.
fn run_reason(run: &BackupRun) -> String {
    match (run.reason.as_str(), run.message.as_str()) {
        ("", "") => "the run does not say why".to_owned(),
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
