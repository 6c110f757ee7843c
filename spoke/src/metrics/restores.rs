//! Series of restores.

use crds::ResticRestore;
use crds::restore::RestorePhase;

use super::definition::Definition;
use super::resources::{Measured, Sample};
use super::values::Samples;

const OWN: &[&str] = &["namespace", "name"];
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
        let status = self.status.clone().unwrap_or_default();
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
        let times = status.start_time.as_ref().zip(status.completion_time.as_ref());
        let seconds = times.map(|(start, end)| end.0.duration_since(start.0).as_secs_f64());
        samples.number(&DURATION, seconds);
        samples.0
    }
}
