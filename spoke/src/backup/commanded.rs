//! What became of the runs that commands of the hub asked for, for as long as it may be asked. Pure.

use crds::ResticBackupStatus;
use crds::backup::{BackupRun, CommandedRun};

/// Runs that are remembered.
const KEPT: usize = 20;
/// Longest message, in characters.
const MESSAGE_MAX: usize = 300;

/// Remembers a run in the write that counts it.
pub(super) fn remember(status: &mut ResticBackupStatus, command: Option<&str>, run: &BackupRun) {
    let Some(id) = command else { return };
    status.commanded_runs.retain(|known| known.id != id);
    let message = run
        .message
        .as_ref()
        .map(|text| text.chars().take(MESSAGE_MAX).collect());
    status.commanded_runs.push(CommandedRun {
        id: id.to_owned(),
        result: run.result,
        snapshot_id: run.snapshot_id.clone(),
        reason: run.reason.clone(),
        message,
    });
    let old = status.commanded_runs.len().saturating_sub(KEPT);
    status.commanded_runs.drain(..old);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_are_remembered_each_once_and_only_those_of_commands() {
        let run = |message: &str| -> BackupRun {
            serde_json::from_value(json!({ "result": "Failed", "message": message })).unwrap()
        };
        let mut status = ResticBackupStatus::default();
        remember(&mut status, None, &run("scheduled"));
        assert!(status.commanded_runs.is_empty());
        for n in 0..30 {
            remember(&mut status, Some(&format!("c{n}")), &run(&"ä".repeat(1000)));
        }
        remember(&mut status, Some("c29"), &run("again"));
        let runs = &status.commanded_runs;
        assert_eq!(
            (runs.len(), runs[0].id.as_str(), runs[19].id.as_str()),
            (20, "c10", "c29")
        );
        assert_eq!(runs[19].message.as_deref(), Some("again"));
        assert_eq!(runs[0].message.as_ref().unwrap().chars().count(), 300);
    }
}
