//! What of the difference of two statuses is worth a notification. Pure.

use crds::backup::{BackupResult, BackupRun};
use crds::conditions::{self, types};
use crds::notifications::NotificationConfig;
use crds::restore::RestorePhase;
use crds::{
    GlobalRetentionPolicy, GlobalRetentionPolicyStatus, ResticBackup, ResticBackupStatus, ResticRepository,
    ResticRepositoryStatus, ResticRestore, ResticRestoreStatus,
};
use jiff::tz::TimeZone;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::object::HasStatus;

use super::{Change, Figures, Occasion};

/// Conditions that the original operator sets too.
const OF_THE_ORIGINAL: &[&str] = &[types::READY, types::REPOSITORY_READY];

/// A resource whose changes may be told of.
pub trait Notifying: HasStatus {
    /// Who is told. `None` where the kind has no such field, or it is empty.
    fn notifications(&self) -> Option<NotificationConfig> {
        None
    }

    /// What has happened between two statuses.
    fn changes(old: &Self::Status, new: &Self::Status) -> Vec<Change> {
        let _ = (old, new);
        Vec::new()
    }
}

impl Notifying for ResticBackup {
    fn notifications(&self) -> Option<NotificationConfig> {
        self.spec.notifications.as_deref().cloned()
    }

    fn changes(old: &ResticBackupStatus, new: &ResticBackupStatus) -> Vec<Change> {
        let last_success = new.last_successful_backup.as_ref();
        let stale = became_true(&old.conditions, &new.conditions, types::STALE);
        let stale = stale.map(|condition| {
            let since = last_success.map_or_else(|| "never".to_owned(), |time| time.0.to_string());
            let period = by_day(&format!("stale since {since}"), condition);
            of_condition(Occasion::Stale, period, condition)
        });
        let run = new.last_backup.as_ref();
        let suspicious = became_true(&old.conditions, &new.conditions, types::SUSPICIOUS);
        let suspicious = suspicious.map(|condition| {
            let run = run.map(run_id).unwrap_or_default();
            of_condition(Occasion::Suspicious, run, condition)
        });
        let before = old.last_backup.as_ref().map(run_id);
        let run = run.filter(|run| before != Some(run_id(run)) && is_news(old, run));
        let ended = run.map(|run| of_run(run, last_success, missed(old, new)));
        ended.into_iter().chain(suspicious).chain(stale).collect()
    }
}

impl Notifying for ResticRestore {
    fn notifications(&self) -> Option<NotificationConfig> {
        self.spec.notifications.clone().map(NotificationConfig::from)
    }

    fn changes(old: &ResticRestoreStatus, new: &ResticRestoreStatus) -> Vec<Change> {
        let occasion = match new.phase {
            Some(RestorePhase::Completed) => Occasion::RestoreCompleted,
            Some(RestorePhase::Failed) => Occasion::RestoreFailed,
            _ => return Vec::new(),
        };
        if matches!(old.phase, Some(RestorePhase::Completed | RestorePhase::Failed)) {
            return Vec::new();
        }
        let ready = conditions::get(&new.conditions, types::READY);
        let mut change = Change {
            occasion,
            run: "restore".to_owned(),
            reason: ready.map(|ready| ready.reason.clone()),
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            figures: None,
        };
        if let Some(snapshot) = &new.snapshot {
            change.message.push_str(&format!("\nSnapshot: {snapshot}"));
        }
        vec![change]
    }
}

impl Notifying for ResticRepository {
    fn notifications(&self) -> Option<NotificationConfig> {
        self.spec.notifications.clone().map(NotificationConfig::from)
    }

    fn changes(old: &ResticRepositoryStatus, new: &ResticRepositoryStatus) -> Vec<Change> {
        let Some(condition) = new.damage() else {
            return Vec::new();
        };
        if old
            .damage()
            .is_some_and(|before| before.reason == condition.reason)
        {
            return Vec::new();
        }
        let period = by_day(&condition.reason, condition);
        vec![of_condition(Occasion::Damage, period, condition)]
    }
}

impl Notifying for GlobalRetentionPolicy {
    fn notifications(&self) -> Option<NotificationConfig> {
        self.spec.notifications.clone().map(NotificationConfig::from)
    }

    fn changes(old: &GlobalRetentionPolicyStatus, new: &GlobalRetentionPolicyStatus) -> Vec<Change> {
        let waiting = |status: &GlobalRetentionPolicyStatus| {
            let waits = conditions::is_true(&status.conditions, types::APPROVAL_REQUIRED);
            status.plan.clone().filter(|_| waits)
        };
        let condition = conditions::get(&new.conditions, types::APPROVAL_REQUIRED);
        let wanted = waiting(new).zip(condition);
        let wanted = wanted.filter(|(plan, _)| waiting(old).as_ref() != Some(plan));
        let wanted = wanted.map(|(plan, condition)| {
            of_condition(Occasion::ApprovalWanted, format!("plan {plan}"), condition)
        });
        let run = policy_run(new).filter(|run| policy_run(old).as_ref() != Some(run));
        let ended = run.and_then(|run| of_policy_run(run, new));
        ended.into_iter().chain(wanted).collect()
    }
}

/// When and under which token the last run ended.
fn policy_run(status: &GlobalRetentionPolicyStatus) -> Option<String> {
    let time = status.last_run.as_ref()?;
    let token = status.last_run_token.unwrap_or_default();
    Some(format!("{} {token}", time.0))
}

/// The end of a run. One that ended because a plan waits is told of as that.
fn of_policy_run(run: String, status: &GlobalRetentionPolicyStatus) -> Option<Change> {
    let degraded = conditions::get(&status.conditions, types::DEGRADED);
    let troubled = degraded.filter(|condition| condition.status == "True");
    let occasion = match (status.last_run_result.as_deref()?, troubled) {
        ("ApprovalRequired", _) => return None,
        ("Applied" | "NothingToRemove" | "Preview", None) => Occasion::Success,
        ("Applied" | "NothingToRemove" | "Preview", Some(_)) => Occasion::Partial,
        _ => Occasion::Failure,
    };
    let by = status.last_run_by.as_ref();
    let by = by.map(|by| format!("\nRun of: {by}")).unwrap_or_default();
    let text = degraded.map(|condition| condition.message.clone());
    let text = text
        .or_else(|| status.last_run_message.clone())
        .unwrap_or_default();
    Some(Change {
        occasion,
        run,
        reason: troubled.map(|condition| condition.reason.clone()),
        message: format!("{text}{by}"),
        figures: None,
    })
}

/// A run of a backup: its Job and when it ended. What else is written of it may be corrected later.
fn run_id(run: &BackupRun) -> String {
    let ended = run.completion_time.as_ref();
    let ended = ended.map(|time| time.0.to_string()).unwrap_or_default();
    format!("{} {ended}", run.job.as_deref().unwrap_or_default())
}

/// Whether a run ended after the backup was first looked at: one that was over by then ended in the days of the original
/// operator. Its result may be recorded only later, when nothing more is to become known of its pod.
fn is_news(old: &ResticBackupStatus, run: &BackupRun) -> bool {
    // Each transition moves the time of a condition on, so the oldest one tells most.
    let conditions = old.conditions.iter();
    let ours = conditions.filter(|condition| !OF_THE_ORIGINAL.contains(&&*condition.type_));
    let since = ours.map(|condition| condition.last_transition_time.0).min();
    let ended = run.completion_time.as_ref().map(|time| time.0);
    since.is_some_and(|since| ended.is_none_or(|ended| since <= ended))
}

/// Runs that ended between two statuses, beside the last one. Only that one is in the status.
fn missed(old: &ResticBackupStatus, new: &ResticBackupStatus) -> i32 {
    let total = |status: &ResticBackupStatus| {
        let counters = status.statistics.as_ref();
        counters.map(|c| c.total_backups).unwrap_or_default()
    };
    (total(new) - total(old) - 1).max(0)
}

fn of_run(run: &BackupRun, last_success: Option<&Time>, missed: i32) -> Change {
    let occasion = match run.result {
        BackupResult::Succeeded => Occasion::Success,
        BackupResult::PartiallyFailed => Occasion::Partial,
        BackupResult::Failed => Occasion::Failure,
    };
    let seconds = run.start_time.as_ref().zip(run.completion_time.as_ref());
    let seconds = seconds.map(|(start, end)| end.0.duration_since(start.0).as_secs_f64());
    let mut message = run.message.clone().unwrap_or_else(|| match run.result {
        BackupResult::Succeeded => "everything was read and stored".to_owned(),
        _ => run.reason.clone().unwrap_or_default(),
    });
    if missed > 0 {
        message.push_str(&format!("\nRuns before this one that ended meanwhile: {missed}"));
    }
    Change {
        occasion,
        run: run_id(run),
        reason: run.reason.clone(),
        message,
        figures: Some(Figures {
            started: run.start_time.as_ref().map(|time| time.0),
            duration: seconds,
            size: run.bytes_processed,
            files: run.files_processed,
            snapshot: run.snapshot_id.clone(),
            last_success: last_success.map(|time| time.0),
        }),
    }
}

/// The condition of a type, if it is True now and was not before.
fn became_true<'a>(old: &[Condition], new: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    let before = conditions::is_true(old, type_);
    conditions::get(new, type_).filter(|condition| condition.status == "True" && !before)
}

/// Identity of a notification about a condition: one for each condition and UTC day.
fn by_day(what: &str, condition: &Condition) -> String {
    let day = condition.last_transition_time.0.to_zoned(TimeZone::UTC).date();
    format!("{what} {day}")
}

fn of_condition(occasion: Occasion, run: String, condition: &Condition) -> Change {
    Change {
        occasion,
        run,
        reason: Some(condition.reason.clone()),
        message: condition.message.clone(),
        figures: None,
    }
}
