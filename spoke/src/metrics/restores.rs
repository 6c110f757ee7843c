//! Series of restores.

use crds::restore::RestorePhase;
use crds::{ResticRestore, ResticRestoreStatus};

use super::definition::{Definition, OWN};
use super::resources::{Measured, Sample};
use super::values::Samples;

const PHASES: &[&str] = &["Pending", "InProgress", "Completed", "Failed"];

pub(super) static ALL: &[&Definition] = &[&PHASE, &CREATED, &COMPLETION, &SIZE, &FILES, &DURATION];

static PHASE: Definition = Definition::gauge(
    "fleet_restore_phase",
    "1 for the phase of the ResticRestore (Pending, InProgress, Completed, Failed), 0 for the others",
    &["namespace", "name", "phase"],
);
static CREATED: Definition = Definition::gauge(
    "fleet_restore_created_timestamp_seconds",
    "Unix time at which the ResticRestore was created",
    OWN,
);
static COMPLETION: Definition = Definition::gauge(
    "fleet_restore_completion_timestamp_seconds",
    "Unix time of its end, whatever its result",
    OWN,
);
static SIZE: Definition = Definition::gauge("fleet_restore_size_bytes", "Bytes restored", OWN);
static FILES: Definition = Definition::gauge("fleet_restore_files", "Files restored", OWN);
static DURATION: Definition =
    Definition::gauge("fleet_restore_duration_seconds", "Duration of the restore", OWN);

impl Measured for ResticRestore {
    fn samples(&self) -> Vec<Sample> {
        let mut samples = Samples::default();
        let none = ResticRestoreStatus::default();
        let status = self.status.as_ref().unwrap_or(&none);
        let phase = match status.phase {
            None | Some(RestorePhase::Pending) => "Pending",
            Some(RestorePhase::InProgress) => "InProgress",
            Some(RestorePhase::Completed) => "Completed",
            Some(RestorePhase::Failed) => "Failed",
        };
        samples.state(&PHASE, PHASES, Some(phase), None);
        samples.time(&CREATED, self.metadata.creation_timestamp.as_ref());
        samples.time(&COMPLETION, status.completion_time.as_ref());
        samples.count(&SIZE, status.restored_size_bytes);
        samples.count(&FILES, status.restored_files);
        let (start, end) = (status.start_time.as_ref(), status.completion_time.as_ref());
        samples.span(&DURATION, start, end);
        samples.0
    }
}
