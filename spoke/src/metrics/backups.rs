//! Series of backups, also of those that never ran.

use crds::conditions::types;
use crds::{ResticBackup, ResticBackupStatus};

use super::definition::{Definition, OWN};
use super::resources::{Measured, Sample};
use super::values::{Samples, Scheduled};

/// Results of a run, as the status spells them.
pub const RESULTS: &[&str] = &["Succeeded", "PartiallyFailed", "Failed"];

pub(super) static ALL: &[&Definition] = &[
    &INFO,
    &CREATED,
    &READY,
    &SUSPENDED,
    &STALE,
    &SUSPICIOUS,
    &WAITING,
    &RUNNING,
    &NEXT,
    &SUCCESS,
    &COMPLETION,
    &SIZE,
    &ADDED,
    &FILES,
    &DURATION,
    &RESULT,
    &RUNS,
];

static INFO: Definition = Definition::gauge(
    "fleet_backup_info",
    "1 for each ResticBackup; names its repository",
    &["namespace", "name", "repository_namespace", "repository"],
);
static CREATED: Definition = Definition::gauge(
    "fleet_backup_created_timestamp_seconds",
    "Unix time at which the ResticBackup was created",
    OWN,
);
static READY: Definition = Definition::gauge("fleet_backup_ready", "1 while the ResticBackup is Ready", OWN);
static SUSPENDED: Definition =
    Definition::gauge("fleet_backup_suspended", "1 while spec.suspend is true", OWN);
static STALE: Definition = Definition::gauge(
    "fleet_backup_stale",
    "1 while no run has succeeded for two slots of the schedule",
    OWN,
);
static SUSPICIOUS: Definition = Definition::gauge(
    "fleet_backup_suspicious",
    "1 while the last snapshot does not look like those before it",
    OWN,
);
static WAITING: Definition = Definition::gauge(
    "fleet_backup_waiting",
    "1 while a run waits for something, such as a quota or a node",
    OWN,
);
static RUNNING: Definition = Definition::gauge("fleet_backup_running", "Jobs of the backup under way", OWN);
static NEXT: Definition = Definition::gauge(
    "fleet_backup_next_run_timestamp_seconds",
    "Unix time of the next run of the schedule; absent while there is none",
    OWN,
);
static SUCCESS: Definition = Definition::gauge(
    "fleet_backup_last_success_timestamp_seconds",
    "Unix time of the end of the last run that succeeded; absent before the first",
    OWN,
);
static COMPLETION: Definition = Definition::gauge(
    "fleet_backup_last_completion_timestamp_seconds",
    "Unix time of the end of the last run, whatever its result",
    OWN,
);
static SIZE: Definition = Definition::gauge(
    "fleet_backup_last_size_bytes",
    "Bytes that the last run read from the source",
    OWN,
);
static ADDED: Definition = Definition::gauge(
    "fleet_backup_last_added_bytes",
    "Bytes that the repository grew by in the last run",
    OWN,
);
static FILES: Definition = Definition::gauge("fleet_backup_last_files", "Files that the last run read", OWN);
static DURATION: Definition = Definition::gauge(
    "fleet_backup_last_duration_seconds",
    "Duration of the last run",
    OWN,
);
static RESULT: Definition = Definition::gauge(
    "fleet_backup_last_result",
    "1 for the result of the last run (Succeeded, PartiallyFailed, Failed), 0 for the others; all 0 before the first",
    &["namespace", "name", "result"],
);
static RUNS: Definition = Definition::counter(
    "fleet_backup_runs_total",
    "Runs that ended, as the status counts them; Failed are those that failed in part, too",
    &["namespace", "name", "result"],
);

impl Measured for ResticBackup {
    fn samples(&self) -> Vec<Sample> {
        let mut samples = Samples::default();
        let none = ResticBackupStatus::default();
        let status = self.status.as_ref().unwrap_or(&none);
        samples.scheduled(
            [&INFO, &CREATED, &SUSPENDED, &RUNNING, &NEXT],
            &Scheduled {
                meta: &self.metadata,
                repository: &self.spec.repository_ref,
                suspended: self.spec.suspend,
                running: status.active.len(),
                next: status.next_backup.as_ref(),
            },
        );
        let conditions = [
            (&READY, types::READY),
            (&STALE, types::STALE),
            (&SUSPICIOUS, types::SUSPICIOUS),
            (&WAITING, types::WAITING),
        ];
        samples.conditions(&status.conditions, &conditions);
        samples.time(&SUCCESS, status.last_successful_backup.as_ref());
        let run = status.last_backup.as_ref();
        samples.state(&RESULT, RESULTS, run.map(|run| run.result.as_str()), None);
        let counters = status.statistics.as_ref();
        for (result, count) in [
            ("Succeeded", counters.map(|counters| counters.successful_backups)),
            ("Failed", counters.map(|counters| counters.failed_backups)),
        ] {
            let (labels, count) = (vec![result.to_owned()], count.unwrap_or_default());
            samples.0.push(Sample::labelled(&RUNS, labels, f64::from(count)));
        }
        if let Some(run) = run {
            samples.time(&COMPLETION, run.completion_time.as_ref());
            samples.count(&SIZE, run.bytes_processed);
            samples.count(&ADDED, run.bytes_added);
            samples.count(&FILES, run.files_processed);
            samples.span(&DURATION, run.start_time.as_ref(), run.completion_time.as_ref());
        }
        samples.0
    }
}
