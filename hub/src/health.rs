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
use proto::v1::{BackupResult, Condition};

use crate::Millis;
use crate::inventory::backup::{Backup, Run};
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

/// When the next success is due, counted from the last run that left a snapshot; before the first one from
/// `baseline` (when the present schedule was first seen) and from the creation. `None` while suspended.
#[must_use]
pub fn due(backup: &Backup, baseline: Millis) -> Option<Deadline> {
    if backup.suspended {
        return None;
    }
    let left_snapshot = backup.last_run().filter(|run| {
        matches!(
            run.result(),
            BackupResult::Succeeded | BackupResult::PartiallyFailed
        )
    });
    let times = [
        backup.created(),
        backup.last_success(),
        left_snapshot.and_then(Run::finished),
    ];
    let since = times.into_iter().flatten().fold(baseline, Millis::max);
    let by_schedule = deadline(backup.schedule(), backup.timezone(), since);
    by_schedule.or_else(|| backup.next_run().map(deadline_by_forecast))
}

fn condition<'a>(backup: &'a Backup, kind: &str) -> Option<&'a Condition> {
    backup.conditions().iter().find(|c| c.r#type == kind)
}

/// The condition that says what a run waits for.
fn waiting(backup: &Backup) -> Option<&Condition> {
    condition(backup, "Waiting").filter(|c| c.status == "True")
}

/// From when on a run has waited for so long that it may well not start by itself; `None` when none waits.
#[must_use]
pub fn waits_too_long(backup: &Backup) -> Option<Millis> {
    let since = waiting(backup)?.last_transition.as_ref()?;
    Some(to_unix_millis(since) + WAITS)
}

/// What a backup is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub backup: &'a Backup,
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
            Health::Never => backup.last_run().is_none() && backup.last_success().is_none(),
            Health::Running => backup.running,
            Health::Suspended => backup.suspended,
            Health::Ok => true,
        };
        Health::ALL.into_iter().find(holds).unwrap_or(Health::NotReady)
    }

    /// The last run, when it failed and nothing has succeeded since.
    fn failed(&self) -> Option<&Run> {
        let run = self.backup.last_run()?;
        let mended = match (self.backup.last_success(), run.finished()) {
            (Some(success), Some(finished)) => success > finished,
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
    fn waiting(&self) -> Option<&Condition> {
        waiting(self.backup)
    }

    fn waiting_words(&self) -> Option<String> {
        self.waiting()
            .map(|c| format!("a run does not start: {}: {}", c.reason, c.message))
    }

    /// Its run has waited for so long that it may well not start by itself.
    fn waits(&self, now: Millis) -> bool {
        waits_too_long(self.backup).is_some_and(|from| now >= from)
    }

    /// Why the resource cannot be called ready.
    fn not_ready(&self) -> Option<String> {
        if !self.backup.ready {
            let Some(condition) = condition(self.backup, "Ready") else {
                return Some("its operator has not reported a Ready condition yet".to_owned());
            };
            let texts = [condition.message.as_str(), condition.reason.as_str()];
            let why = texts.into_iter().find(|text| !text.is_empty());
            return Some(why.unwrap_or("it is not Ready and does not say why").to_owned());
        }
        if self.deadline.is_none() && !self.backup.suspended {
            return Some(format!(
                "nobody can tell when it is due: schedule {:?} cannot be read",
                self.backup.schedule()
            ));
        }
        let run = self.backup.last_run();
        let unclear = run.is_some_and(|run| run.result() == BackupResult::Unspecified);
        (unclear && !self.backup.running).then(|| "the result of its last run is not known".to_owned())
    }

    /// Since when a state holds, as far as that is known.
    #[must_use]
    pub fn since(&self, health: Health) -> Option<Millis> {
        let backup = self.backup;
        let since = |condition: &Condition| condition.last_transition.as_ref().map(to_unix_millis);
        match health {
            Health::Failed | Health::Partial => backup.last_run()?.finished(),
            Health::Late => self.deadline.map(|deadline| match backup.running {
                true => deadline.late_though_running,
                false => deadline.late,
            }),
            // Of a backup that is Ready this condition is not held.
            Health::NotReady => match condition(backup, "Ready") {
                Some(ready) => since(ready),
                None => since(self.waiting()?),
            },
            Health::Stale => self.fresh.last_heard,
            Health::Never => backup.created(),
            Health::Ok => backup.last_success(),
            Health::Running | Health::Suspended => None,
        }
    }

    /// Why the state is not ok, in one sentence without times; empty when it is.
    #[must_use]
    pub fn reason(&self, health: Health) -> String {
        let backup = self.backup;
        match health {
            Health::Failed => self.failed().map(run_reason).unwrap_or_default(),
            Health::Late => match (backup.last_success(), backup.running) {
                (None, _) => "a run is overdue, and none has ever succeeded".to_owned(),
                (Some(_), true) => {
                    "a run has been under way for longer than the schedule's interval".to_owned()
                }
                (Some(_), false) => "a run is overdue".to_owned(),
            },
            Health::Partial => backup.last_run().map(run_reason).unwrap_or_default(),
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

fn result(backup: &Backup) -> Option<BackupResult> {
    backup.last_run().map(Run::result)
}

/// What a run reports about itself.
fn run_reason(run: &Run) -> String {
    match run.why() {
        ("", "") => "the run does not say why".to_owned(),
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
