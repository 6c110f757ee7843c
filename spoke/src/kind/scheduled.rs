//! What a status shows of the CronJob that is made for its resource. Pure.

use crds::common::ObjectReference;
use crds::schedule::Schedule;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Applied;
use crate::schedule::next_run;
use crate::world::CronJobView;

/// The CronJob that was applied.
#[must_use]
pub fn reference(applied: &Applied) -> Option<ObjectReference> {
    let (at, view) = applied.cron_job.as_ref()?;
    Some(ObjectReference {
        name: at.name.to_string(),
        namespace: at.namespace.to_string(),
        generation: Some(view.meta.generation),
    })
}

/// When the CronJob is due next. `suspend` as the spec has it. One that was not applied in this turn is `observed`: while
/// it is suspended, nothing starts.
#[must_use]
pub fn next_start(
    schedule: &Schedule,
    suspend: bool,
    applied: &Applied,
    observed: Option<&CronJobView>,
    now: Timestamp,
) -> Option<Time> {
    let (suspend, last) = match (&applied.cron_job, observed) {
        // Also suspended for a moment, while maintenance begins: its start is made up for.
        (Some((_, view)), _) => (suspend, view.counts_from()),
        (None, Some(view)) => (suspend || view.suspend, view.counts_from()),
        (None, None) => return None,
    };
    next_run(schedule, suspend, last, now)
}

/// When to take a turn for it: a second later, after the CronJob controller has acted.
#[must_use]
pub fn turn_after(next: Option<&Time>) -> Option<Timestamp> {
    next?.0.checked_add(SignedDuration::from_secs(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_counts_from_the_creation_of_the_cron_job_until_it_has_started_once() {
        let schedule = Schedule::parse("@every 1h", "UTC").unwrap();
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let next = |last_schedule| {
            let view = CronJobView {
                created: Some(at(10)),
                last_schedule,
                ..CronJobView::default()
            };
            next_start(&schedule, false, &Applied::default(), Some(&view), at(50)).map(|next| next.0)
        };
        assert_eq!(next(None), Some(at(70)), "and not an hour from now");
        assert_eq!(next(Some(at(40))), Some(at(100)));
    }
}
