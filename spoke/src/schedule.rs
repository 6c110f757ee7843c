//! When a resource's schedule is due next.

use crds::conditions::whole_seconds;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// When the schedule is due next; nothing while suspended. `last` is what `@every` counts from, as for the CronJob.
#[must_use]
pub fn next_run(
    schedule: &crds::schedule::Schedule,
    suspend: bool,
    last: Option<Timestamp>,
    now: Timestamp,
) -> Option<Time> {
    if suspend {
        return None;
    }
    schedule.next_run(last, now).map(|at| Time(whole_seconds(at)))
}
