//! A run that stored far less than those before it: a volume that was not mounted, a database that was emptied. Its
//! snapshot is one like any other, and each of the next pushes a good one out of retention. So the backup says that it is
//! suspicious, and its snapshots stay until the source is as before, or a person says that it is meant so. Pure.

use crds::ResticBackupStatus;
use crds::backup::{BackupResult, BackupRun, SuspiciousRun};
use crds::conditions::{Conditions, reasons, types};
use crds::names;

use crate::units;

/// Sizes of the last good runs that are kept.
const KEPT: usize = 7;
/// So many make a history. Fewer say nothing of how a source changes.
const HISTORY: usize = 3;
/// What is smaller changes by more than its size says.
const SMALL: i64 = 1 << 20;
/// Below this part of the usual size.
const PART: i64 = 4;

/// Takes a run that was just counted into the history, or finds it suspicious.
pub fn judge(status: &mut ResticBackupStatus, run: &BackupRun) {
    let (Some(bytes), Some(snapshot)) = (run.bytes_processed, &run.snapshot_id) else {
        return;
    };
    let usual = usual(&status.recent_sizes);
    let empty = (bytes == 0 || run.files_processed == Some(0)) && usual > 0;
    let shrunk = usual >= SMALL && bytes < usual / PART;
    if empty || shrunk {
        // The first one tells when it began.
        status.suspicious.get_or_insert_with(|| SuspiciousRun {
            snapshot_id: snapshot.clone(),
            time: run.completion_time.clone(),
            bytes,
            usual_bytes: usual,
        });
        return;
    }
    match run.result {
        BackupResult::Failed => return,
        BackupResult::Succeeded => status.suspicious = None,
        // Files that could not be read are missing in the size: it does not show that all is as before.
        BackupResult::PartiallyFailed => {}
    }
    if status.suspicious.is_none() {
        remember(status, bytes);
    }
}

fn remember(status: &mut ResticBackupStatus, bytes: i64) {
    let sizes = &mut status.recent_sizes;
    sizes.push(bytes);
    let surplus = sizes.len().saturating_sub(KEPT);
    sizes.drain(..surplus);
}

/// Median of the sizes; 0 where they are too few.
fn usual(sizes: &[i64]) -> i64 {
    if sizes.len() < HISTORY {
        return 0;
    }
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// A person has accepted the suspicious run, by the id of its snapshot: what is normal is learned anew.
pub fn accept(status: &mut ResticBackupStatus, accepted: Option<&str>) {
    let named =
        |run: &SuspiciousRun| accepted.is_some_and(|id| id.len() >= 8 && run.snapshot_id.starts_with(id));
    if let Some(run) = status.suspicious.take_if(|run| named(run)) {
        status.recent_sizes = vec![run.bytes];
    }
}

/// Condition Suspicious. It is there only while it is true.
pub fn tell(suspicious: Option<&SuspiciousRun>, conditions: &mut Conditions<'_>) {
    let Some(run) = suspicious else {
        conditions.remove(types::SUSPICIOUS);
        return;
    };
    let size = |bytes: i64| units::bytes(u64::try_from(bytes).unwrap_or_default());
    let (reason, what) = if run.bytes == 0 {
        (reasons::SOURCE_EMPTY, "is empty".to_owned())
    } else {
        (reasons::SOURCE_SHRUNK, format!("has only {}", size(run.bytes)))
    };
    let id = run.snapshot_id.get(..8).unwrap_or(&run.snapshot_id);
    let text = format!(
        "snapshot {id} {what}, and those before it had {}: look at the source; no snapshot of this backup is removed until a run is \
         as before, or you accept it: annotation {}={id}",
        size(run.usual_bytes),
        names::ANNOTATION_ACCEPT
    );
    conditions.set(types::SUSPICIOUS, true, reason, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: i64, result: BackupResult) -> BackupRun {
        serde_json::from_value(serde_json::json!({
            "result": result, "bytesProcessed": bytes, "filesProcessed": bytes, "snapshotID": format!("{bytes:064x}"),
        }))
        .unwrap()
    }

    fn after(sizes: &[i64]) -> ResticBackupStatus {
        let mut status = ResticBackupStatus::default();
        for bytes in sizes {
            judge(&mut status, &run(*bytes, BackupResult::Succeeded));
        }
        status
    }

    const MB: i64 = 1 << 20;

    #[test]
    fn a_source_that_is_empty_or_far_smaller_than_usual_is_suspicious() {
        for (sizes, suspicious) in [
            (vec![100 * MB, 100 * MB, 100 * MB, 0], true),
            (vec![100 * MB, 110 * MB, 90 * MB, 24 * MB], true),
            (vec![100 * MB, 110 * MB, 90 * MB, 26 * MB], false),
            (vec![100 * MB, 100 * MB, 0], false),
            // One outlier does not make the rest small.
            (vec![10 * MB, 900 * MB, 10 * MB, 9 * MB], false),
            // Little is not far less.
            (vec![4000, 4000, 4000, 10], false),
            (vec![4000, 4000, 4000, 0], true),
            (vec![0, 0, 0, 0], false),
            // It is as before.
            (vec![100 * MB, 100 * MB, 100 * MB, 0, 100 * MB], false),
            // A slow change is none.
            (
                vec![
                    100 * MB,
                    100 * MB,
                    100 * MB,
                    40 * MB,
                    40 * MB,
                    40 * MB,
                    40 * MB,
                    40 * MB,
                    40 * MB,
                    12 * MB,
                ],
                false,
            ),
        ] {
            assert_eq!(after(&sizes).suspicious.is_some(), suspicious, "{sizes:?}");
        }
        let mut status = after(&[100 * MB; 3]);
        let mut nothing = run(0, BackupResult::Failed);
        nothing.snapshot_id = None;
        judge(&mut status, &nothing);
        assert!(status.suspicious.is_none(), "it stored nothing");
        let mut unreadable = after(&[100 * MB; 3]);
        judge(&mut unreadable, &run(0, BackupResult::Failed));
        assert!(unreadable.suspicious.is_some(), "it stored an empty snapshot");
        judge(&mut status, &run(MB, BackupResult::PartiallyFailed));
        assert!(status.suspicious.is_some());
        judge(&mut status, &run(100 * MB, BackupResult::PartiallyFailed));
        assert!(
            status.suspicious.is_some(),
            "only a whole one shows that all is as before"
        );
    }

    #[test]
    fn a_source_that_is_never_read_as_a_whole_has_a_history_too() {
        let mut status = ResticBackupStatus::default();
        for _ in 0..3 {
            judge(&mut status, &run(100 * MB, BackupResult::PartiallyFailed));
        }
        judge(&mut status, &run(0, BackupResult::Succeeded));
        assert!(status.suspicious.is_some());
    }

    #[test]
    fn a_person_accepts_one_run_by_its_snapshot() {
        let mut status = after(&[100 * MB, 100 * MB, 100 * MB, 5 * MB, 5 * MB]);
        let first = status.suspicious.clone().unwrap().snapshot_id;
        assert_eq!(first, format!("{:064x}", 5 * MB));
        for wrong in [None, Some(""), Some("00"), Some("ffffffff")] {
            accept(&mut status, wrong);
            assert!(status.suspicious.is_some(), "{wrong:?}");
        }
        accept(&mut status, Some(&first));
        assert_eq!(
            (status.suspicious.clone(), status.recent_sizes.clone()),
            (None, vec![5 * MB])
        );
        judge(&mut status, &run(5 * MB, BackupResult::Succeeded));
        assert!(status.suspicious.is_none(), "that is normal now");
    }
}
