//! What a change of a backup's status means outside of it: Events. Pure.

use crds::ResticBackupStatus;
use crds::backup::BackupRun;
use crds::conditions::{self, types};

use crate::events::Severity;
use crate::kind::{Announcement, announce, ready_changed};

pub(super) fn events(old: &ResticBackupStatus, new: &ResticBackupStatus) -> Vec<Announcement> {
    let ready = ready_changed(&old.conditions, &new.conditions);
    let run = new.last_backup.as_ref();
    let run = run.filter(|run| old.last_backup.as_ref() != Some(run));
    let run = run.map(|run| Announcement {
        severity: if run.reason.is_none() {
            Severity::Normal
        } else {
            Severity::Warning
        },
        reason: format!("Backup{}", run.result.as_str()),
        note: note(run),
    });
    let suspicious = conditions::get(&new.conditions, types::SUSPICIOUS);
    let suspicious = suspicious.filter(|_| old.suspicious.is_none());
    let suspicious = suspicious.map(|condition| announce(condition, false));
    let reason = |status: &ResticBackupStatus| {
        let condition = conditions::get(&status.conditions, types::RETENTION_READY)?;
        Some((condition.status == "False").then(|| condition.reason.clone()))
    };
    let retention = conditions::get(&new.conditions, types::RETENTION_READY);
    let retention = retention.filter(|condition| condition.status == "False" && reason(old) != reason(new));
    let retention = retention.map(|condition| announce(condition, false));
    let all = ready.into_iter().chain(run).chain(suspicious).chain(retention);
    all.collect()
}

fn note(run: &BackupRun) -> String {
    let mut parts = vec![run.job.clone().unwrap_or_default()];
    if let Some(id) = run.snapshot_id.as_deref().and_then(|id| id.get(..8)) {
        parts.push(format!("snapshot {id}"));
    }
    parts.extend(
        run.bytes_added
            .and_then(|b| u64::try_from(b).ok())
            .map(|b| format!("{} added", crate::units::bytes(b))),
    );
    parts.extend(run.duration.clone());
    parts.extend(run.message.clone());
    parts.join(", ")
}
