//! A ResticBackup as the hub holds it. There may be a million: what many have in common is held once, ids as bytes, times as
//! numbers, and of its conditions only what it is judged by. [`Backup::state`] is what was reported.

use std::sync::{Arc, LazyLock};

use prost_types::Timestamp;
use proto::plan::is_id;
use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::{BackupResult, BackupRun, BackupState, Condition, RunProgress};

use super::shared::Shared;
use crate::Millis;

static TARGETS: LazyLock<Shared<Target>> = LazyLock::new(Shared::default);
static PLANS: LazyLock<Shared<Plan>> = LazyLock::new(Shared::default);
static REASONS: LazyLock<Shared<Reason>> = LazyLock::new(Shared::default);

/// The repository that a backup writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Target {
    namespace: String,
    name: String,
    restic_id: String,
}

/// When it is planned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Plan {
    schedule: String,
    timezone: String,
}

/// Why a run did not succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Reason {
    reason: String,
    message: String,
}

/// A time that may be unknown, in the room of one that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time(Millis);

impl Time {
    fn of(time: Option<&Timestamp>) -> Time {
        Time(time.map_or(Millis::MIN, to_unix_millis))
    }

    fn get(self) -> Option<Millis> {
        (self.0 != Millis::MIN).then_some(self.0)
    }

    fn wire(self) -> Option<Timestamp> {
        self.get().map(from_unix_millis)
    }
}

/// Id of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Snapshot {
    Id([u8; 32]),
    /// Anything else; empty for none.
    Other(Box<str>),
}

impl Snapshot {
    fn of(text: &str) -> Snapshot {
        let mut id = [0; 32];
        if is_id(text) && hex::decode_to_slice(text, &mut id).is_ok() {
            return Snapshot::Id(id);
        }
        Snapshot::Other(text.into())
    }

    fn is_none(&self) -> bool {
        matches!(self, Snapshot::Other(text) if text.is_empty())
    }

    fn text(&self) -> String {
        match self {
            Snapshot::Id(id) => hex::encode(id),
            Snapshot::Other(text) => text.to_string(),
        }
    }
}

/// The last run of a backup.
#[derive(Clone, Debug)]
pub struct Run {
    started: Time,
    finished: Time,
    snapshot: Snapshot,
    reason: Option<Arc<Reason>>,
    /// As it was reported: a newer spoke may know more results.
    result: i32,
    pub bytes_added: u64,
    pub bytes_processed: u64,
    files_processed: u64,
}

impl Run {
    fn of(run: BackupRun) -> Run {
        let reason = Reason {
            reason: run.reason,
            message: run.message,
        };
        Run {
            started: Time::of(run.started.as_ref()),
            finished: Time::of(run.finished.as_ref()),
            snapshot: Snapshot::of(&run.snapshot_id),
            reason: (reason != Reason::default()).then(|| REASONS.of(reason)),
            result: run.result,
            bytes_added: run.bytes_added,
            bytes_processed: run.bytes_processed,
            files_processed: run.files_processed,
        }
    }

    fn wire(&self) -> BackupRun {
        let (reason, message) = self.why();
        BackupRun {
            started: self.started.wire(),
            finished: self.finished.wire(),
            result: self.result,
            reason: reason.to_owned(),
            message: message.to_owned(),
            snapshot_id: self.snapshot.text(),
            bytes_added: self.bytes_added,
            bytes_processed: self.bytes_processed,
            files_processed: self.files_processed,
        }
    }

    /// How it ended.
    #[must_use]
    pub fn result(&self) -> BackupResult {
        BackupResult::try_from(self.result).unwrap_or_default()
    }

    #[must_use]
    pub fn started(&self) -> Option<Millis> {
        self.started.get()
    }

    #[must_use]
    pub fn finished(&self) -> Option<Millis> {
        self.finished.get()
    }

    /// Whether it left a snapshot whose id is known.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        !self.snapshot.is_none()
    }

    /// Id of its snapshot; empty for none.
    #[must_use]
    pub fn snapshot(&self) -> String {
        self.snapshot.text()
    }

    /// Reason and message.
    #[must_use]
    pub fn why(&self) -> (&str, &str) {
        let why = self.reason.as_deref();
        why.map_or(("", ""), |why| (why.reason.as_str(), why.message.as_str()))
    }
}

/// A ResticBackup.
#[derive(Clone, Debug)]
pub struct Backup {
    target: Arc<Target>,
    plan: Arc<Plan>,
    source: Box<str>,
    created: Time,
    last_success: Time,
    next_run: Time,
    run: Option<Run>,
    runs: [u32; 3],
    progress: Option<Box<RunProgress>>,
    /// Those that it is judged by, without a Ready that is True.
    conditions: Box<[Condition]>,
    pub suspended: bool,
    pub running: bool,
    pub under_way: bool,
    /// Whether the condition Ready is True.
    pub ready: bool,
}

/// Conditions by which the hub judges a backup, besides Ready: where they are True.
const JUDGED_BY: [&str; 2] = ["Suspicious", "Waiting"];

impl Backup {
    /// What was reported. Who looks at a single backup reads its other conditions from the store.
    #[must_use]
    pub fn new(state: BackupState, created: Option<&Timestamp>, conditions: Vec<Condition>) -> Backup {
        // The first of its type counts.
        let mut readies = conditions.iter().filter(|c| c.r#type == "Ready");
        let ready = readies.next().is_some_and(|c| c.status == "True");
        let judged = |c: &Condition| match c.r#type.as_str() {
            "Ready" => !ready,
            other => c.status == "True" && JUDGED_BY.contains(&other),
        };
        let kept = conditions.into_iter().filter(judged);
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Backup {
            target: TARGETS.of(Target {
                namespace: state.repository_namespace,
                name: state.repository_name,
                restic_id: state.restic_id,
            }),
            plan: PLANS.of(Plan {
                schedule: state.schedule,
                timezone: state.timezone,
            }),
            source: state.source.into(),
            created: Time::of(created),
            last_success: Time::of(state.last_success.as_ref()),
            next_run: Time::of(state.next_run.as_ref()),
            run: state.last_run.map(Run::of),
            runs: [state.runs_total, state.runs_succeeded, state.runs_failed].map(count),
            progress: state.progress.map(Box::new),
            conditions: kept.collect(),
            suspended: state.suspended,
            running: state.running,
            under_way: state.under_way,
            ready,
        }
    }

    /// As it is sent.
    #[must_use]
    pub fn state(&self) -> BackupState {
        let [runs_total, runs_succeeded, runs_failed] = self.runs.map(u64::from);
        BackupState {
            repository_namespace: self.target.namespace.clone(),
            repository_name: self.target.name.clone(),
            restic_id: self.target.restic_id.clone(),
            schedule: self.plan.schedule.clone(),
            timezone: self.plan.timezone.clone(),
            suspended: self.suspended,
            last_run: self.run.as_ref().map(Run::wire),
            last_success: self.last_success.wire(),
            next_run: self.next_run.wire(),
            runs_total,
            runs_succeeded,
            runs_failed,
            running: self.running,
            source: self.source.to_string(),
            under_way: self.under_way,
            progress: self.progress.as_deref().cloned(),
        }
    }

    /// Namespace of its repository; empty for its own.
    #[must_use]
    pub fn repository_namespace(&self) -> &str {
        &self.target.namespace
    }

    #[must_use]
    pub fn repository_name(&self) -> &str {
        &self.target.name
    }

    /// Key of the store that it writes to; empty while it is not known.
    #[must_use]
    pub fn restic_id(&self) -> &str {
        &self.target.restic_id
    }

    /// Names the store anew.
    pub(super) fn place(&mut self, key: &str) {
        let mut target = (*self.target).clone();
        key.clone_into(&mut target.restic_id);
        self.target = TARGETS.of(target);
    }

    #[must_use]
    pub fn schedule(&self) -> &str {
        &self.plan.schedule
    }

    #[must_use]
    pub fn timezone(&self) -> &str {
        &self.plan.timezone
    }

    /// What is backed up, such as "pvc/data".
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    #[must_use]
    pub fn created(&self) -> Option<Millis> {
        self.created.get()
    }

    #[must_use]
    pub fn last_success(&self) -> Option<Millis> {
        self.last_success.get()
    }

    #[must_use]
    pub fn next_run(&self) -> Option<Millis> {
        self.next_run.get()
    }

    #[must_use]
    pub fn last_run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// Conditions that it is judged by, without a Ready that is True.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Whether two are planned alike.
    #[must_use]
    pub fn planned_as(&self, other: &Backup) -> bool {
        self.plan == other.plan && self.suspended == other.suspended
    }
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
