//! How far a restic has come, by the last lines that it printed. Pure. A pod's log also names files: only numbers are taken
//! out of it, and the few words of restic about what it counts.

use crds::conditions::whole_seconds;
use crds::progress::RunProgress;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

/// Longest description of a step.
const STEP_MAX: usize = 60;
/// No run that a person waits for takes longer; restic's first guesses may.
const LONGEST: u64 = 60 * 24 * 3600;

/// A line of `backup --json` or `restore --json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    message_type: String,
    seconds_elapsed: u64,
    seconds_remaining: Option<u64>,
    percent_done: f64,
    total_files: u64,
    files_done: Option<u64>,
    files_restored: u64,
    files_skipped: u64,
    total_bytes: u64,
    bytes_done: Option<u64>,
    bytes_restored: u64,
    bytes_skipped: u64,
}

/// The newest report in the end of a log, read at `now`; `None` where no line is one. `job` is the Job whose log it is.
#[must_use]
pub fn newest(log: &str, job: &str, now: Timestamp) -> Option<RunProgress> {
    log.lines().rev().find_map(|line| of_line(line.trim(), job, now))
}

fn of_line(line: &str, job: &str, now: Timestamp) -> Option<RunProgress> {
    if line.starts_with('{') {
        let line: Line = serde_json::from_str(line).ok()?;
        return (line.message_type == "status").then(|| of_status(&line, job, now));
    }
    of_counts(line, job, now)
}

fn empty(job: &str, now: Timestamp) -> RunProgress {
    RunProgress {
        job: job.to_owned(),
        as_of: Time(whole_seconds(now)),
        percent: None,
        bytes_done: None,
        bytes_total: None,
        files_done: None,
        files_total: None,
        step: None,
        estimated_completion: None,
    }
}

fn of_status(line: &Line, job: &str, now: Timestamp) -> RunProgress {
    let signed = |count: u64| i64::try_from(count).ok();
    // A restore counts what is there already apart from what it writes.
    let files = line
        .files_done
        .unwrap_or(line.files_restored.saturating_add(line.files_skipped));
    let bytes = line
        .bytes_done
        .unwrap_or(line.bytes_restored.saturating_add(line.bytes_skipped));
    let done = line.percent_done.clamp(0.0, 1.0);
    let left = line.seconds_remaining.filter(|left| *left > 0);
    let left = left
        .or_else(|| left_by_share(line, done))
        .filter(|left| *left < LONGEST);
    let end = left.and_then(|left| {
        now.checked_add(SignedDuration::from_secs(i64::try_from(left).ok()?))
            .ok()
    });
    RunProgress {
        // Before the first folder was looked through there is no total.
        percent: (line.total_bytes > 0).then(|| percent(done)),
        bytes_done: signed(bytes),
        bytes_total: signed(line.total_bytes).filter(|total| *total > 0),
        files_done: signed(files),
        files_total: signed(line.total_files).filter(|total| *total > 0),
        estimated_completion: end.map(|end| Time(whole_seconds(end))),
        ..empty(job, now)
    }
}

/// Seconds that are left, by what was done since the start. restic foretells them of backups alone; of one whose folders
/// are still looked through nothing can be told.
fn left_by_share(line: &Line, done: f64) -> Option<u64> {
    let restores = line.files_done.is_none() && line.bytes_done.is_none();
    if !restores || done <= 0.0 || line.seconds_elapsed == 0 {
        return None;
    }
    let elapsed = std::time::Duration::from_secs(line.seconds_elapsed);
    let left = std::time::Duration::try_from_secs_f64(elapsed.as_secs_f64() * (1.0 - done) / done);
    left.ok().map(|left| left.as_secs())
}

/// Whole per cent of a share of 0 to 1: 100 means that it is done.
#[allow(clippy::cast_possible_truncation, reason = "the share is 0 to 1")]
fn percent(share: f64) -> i32 {
    (share * 100.0).floor() as i32
}

/// A line of `check` or `prune`: `[1:02] 70.00%  7 / 10 packs`.
fn of_counts(line: &str, job: &str, now: Timestamp) -> Option<RunProgress> {
    let rest = line.strip_prefix('[')?;
    let (time, rest) = rest.split_once("] ")?;
    let is_time = !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit() || b == b':');
    let (share, step) = rest.trim_start().split_once('%').filter(|_| is_time)?;
    let share: f64 = share.trim().parse().ok()?;
    let step = step.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == ' ' || c == '/';
    let numbered = step.split_once(" / ").is_some_and(|(done, rest)| {
        done.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with(|c: char| c.is_ascii_digit())
    });
    let usable =
        numbered && step.len() <= STEP_MAX && step.chars().all(plain) && (0.0..=100.0).contains(&share);
    usable.then(|| RunProgress {
        percent: Some(percent(share / 100.0)),
        step: Some(step.to_owned()),
        ..empty(job, now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-26T12:00:00.5Z".parse().unwrap()
    }

    fn read(log: &str) -> serde_json::Value {
        serde_json::to_value(newest(log, "job", now())).unwrap()
    }

    #[test]
    fn the_newest_line_about_progress_counts_and_no_name_of_a_file_is_kept() {
        let log = concat!(
            r#"{"message_type":"status","percent_done":0.1,"total_files":9,"files_done":1,"total_bytes":100,"bytes_done":10}"#,
            "\n",
            r#"{"message_type":"status","seconds_elapsed":50,"seconds_remaining":90,"percent_done":0.429,"total_files":1000,"files_done":400,"total_bytes":3221225472,"bytes_done":1381905728,"error_count":1,"current_files":["/backup/secret plan"]}"#,
            "\n",
            r#"{"message_type":"error","error":{"message":"open: permission denied"},"during":"archival","item":"/backup/x"}"#,
            "\n",
        );
        assert_eq!(
            read(log),
            serde_json::json!({ "job": "job", "asOf": "2026-11-26T12:00:00Z", "percent": 42,
                "bytesDone": 1_381_905_728_i64, "bytesTotal": 3_221_225_472_i64, "filesDone": 400, "filesTotal": 1000,
                "estimatedCompletion": "2026-11-26T12:01:30Z" })
        );
    }

    #[test]
    fn a_backup_whose_folders_are_looked_through_foretells_nothing() {
        let log = r#"{"message_type":"status","seconds_elapsed":30,"percent_done":0,"files_done":0,"bytes_done":0}"#;
        let read = read(log);
        assert_eq!(read["bytesDone"], 0);
        for absent in ["percent", "bytesTotal", "filesTotal", "estimatedCompletion"] {
            assert!(read[absent].is_null(), "{absent}: {read}");
        }
    }

    #[test]
    fn of_a_restore_what_was_there_already_is_done_and_the_end_follows_from_the_time_it_took() {
        let log = r#"{"message_type":"status","seconds_elapsed":60,"percent_done":0.25,"total_files":8,"files_restored":1,"files_skipped":1,"total_bytes":400,"bytes_restored":60,"bytes_skipped":40}"#;
        let read = read(log);
        assert_eq!((&read["filesDone"], &read["bytesDone"]), (&2.into(), &100.into()));
        assert_eq!(read["estimatedCompletion"], "2026-11-26T12:03:00Z");
    }

    #[test]
    fn a_check_or_a_prune_counts_steps() {
        let read = |line: &str| {
            let read = newest(line, "job", now())?;
            Some((read.percent?, read.step?))
        };
        let step = |percent: i32, step: &str| Some((percent, step.to_owned()));
        assert_eq!(read("[1:02:03] 70.00%  7 / 10 packs"), step(70, "7 / 10 packs"));
        assert_eq!(
            read("[0:00] 100.00%  3 / 3 files deleted"),
            step(100, "3 / 3 files deleted")
        );
        for other in [
            "",
            "load indexes",
            "[0:00] 10.00%  /home/me",
            "[0:00] 10.00%  1 / 2 \u{1b}[2J",
            "[0:00] 900.00%  9 / 1 packs",
            "[x] 10.00%  1 / 10 packs",
            r#"{"message_type":"summary","percent_done":1}"#,
            r#"{"message_type":"status","percent_done""#,
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn nonsense_of_a_foreign_image_stays_in_bounds() {
        let log = r#"{"message_type":"status","percent_done":1e300,"seconds_remaining":18446744073709551615,"total_files":18446744073709551615,"files_done":2,"total_bytes":1,"bytes_done":18446744073709551615}"#;
        let read = read(log);
        assert_eq!(read["percent"], 100);
        assert!(
            read["bytesDone"].is_null() && read["estimatedCompletion"].is_null(),
            "{read}"
        );
    }
}
