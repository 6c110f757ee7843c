//! Condition Stale: no run has succeeded for two slots of the schedule. Pure.

use crds::ResticBackupStatus;
use crds::conditions::{self, Conditions, reasons, types};
use crds::schedule::Schedule;
use jiff::{SignedDuration, Timestamp};

/// For the run itself.
const GRACE: SignedDuration = SignedDuration::from_hours(1);

/// Sets the condition, and says when it changes without anything else. Time counts from the last success, and begins anew
/// when the spec changes or a suspension ends. A run under way is waited for.
pub(super) fn set(
    status: &mut ResticBackupStatus,
    schedule: &Schedule,
    suspend: bool,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Timestamp> {
    let success = status.last_successful_backup.as_ref().map(|time| time.0);
    let present = conditions::get(&status.conditions, types::STALE).cloned();
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    if suspend {
        conditions.remove(types::STALE);
        return None;
    }
    let is_stale = present.as_ref().is_some_and(|present| present.status == "True");
    let same_spec = present
        .as_ref()
        .filter(|present| present.observed_generation == generation);
    let since = if is_stale {
        success
    } else {
        let begin = same_spec.map_or(now, |present| present.last_transition_time.0);
        if same_spec.is_none() {
            // Its transition time is the beginning.
            conditions.remove(types::STALE);
        }
        Some(success.map_or(begin, |success| success.max(begin)))
    };
    let limit = since.and_then(|since| limit(schedule, since));
    let over = match (is_stale, limit) {
        (true, None) => true,
        (_, limit) => limit.is_some_and(|limit| limit <= now),
    };
    let waits = over && !is_stale && !status.active.is_empty();
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    if over && !waits {
        let last = success.map_or_else(
            || "no run has succeeded yet".to_owned(),
            |success| format!("the last run that succeeded ended at {success}"),
        );
        let text = format!("two slots of the schedule have passed without a run that succeeded: {last}");
        conditions.set(types::STALE, true, reasons::NO_RECENT_SUCCESS, text);
        return None;
    }
    let text = "fewer than two slots of the schedule have passed without a run that succeeded";
    conditions.set(types::STALE, false, reasons::WITHIN_SCHEDULE, text);
    limit.filter(|limit| *limit > now)
}

/// When a backup whose last success, or beginning, was then becomes stale. `None` for a schedule that is never due.
fn limit(schedule: &Schedule, since: Timestamp) -> Option<Timestamp> {
    let second = schedule.next_after(schedule.next_after(since)?)?;
    second.checked_add(GRACE).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn daily() -> Schedule {
        Schedule::parse("0 2 * * *", "UTC").unwrap()
    }

    fn look(status: &mut ResticBackupStatus, generation: i64, now: &str) -> (bool, Option<Timestamp>) {
        let next = set(status, &daily(), false, Some(generation), at(now));
        (conditions::is_true(&status.conditions, types::STALE), next)
    }

    #[test]
    fn two_slots_without_a_success_make_it_stale_and_a_success_ends_that() {
        let mut status = ResticBackupStatus::default();
        let limit = at("2026-11-03T03:00:00Z");
        assert_eq!(look(&mut status, 1, "2026-11-01T12:00:00Z"), (false, Some(limit)));
        assert_eq!(look(&mut status, 1, "2026-11-03T02:59:59Z"), (false, Some(limit)));
        assert_eq!(look(&mut status, 1, "2026-11-03T03:00:00Z"), (true, None));
        assert_eq!(
            look(&mut status, 2, "2026-11-03T04:00:00Z"),
            (true, None),
            "an edit ends nothing"
        );
        status.last_successful_backup = Some(Time(at("2026-11-04T02:10:00Z")));
        let limit = at("2026-11-06T03:00:00Z");
        assert_eq!(look(&mut status, 2, "2026-11-04T02:10:01Z"), (false, Some(limit)));
    }

    #[test]
    fn an_old_success_counts_from_the_beginning_of_the_spec_and_of_the_schedule() {
        let mut status = ResticBackupStatus {
            last_successful_backup: Some(Time(at("2026-10-01T02:00:00Z"))),
            ..ResticBackupStatus::default()
        };
        assert!(!look(&mut status, 1, "2026-11-01T12:00:00Z").0);
        assert!(look(&mut status, 1, "2026-11-03T03:00:00Z").0);
        set(&mut status, &daily(), true, Some(2), at("2026-11-04T00:00:00Z"));
        assert!(
            conditions::get(&status.conditions, types::STALE).is_none(),
            "suspended"
        );
        let again = look(&mut status, 3, "2026-12-01T12:00:00Z");
        assert_eq!(again, (false, Some(at("2026-12-03T03:00:00Z"))));
        let edited = look(&mut status, 4, "2026-12-02T12:00:00Z");
        assert_eq!(edited, (false, Some(at("2026-12-04T03:00:00Z"))));
    }

    #[test]
    fn a_run_under_way_is_waited_for() {
        let mut status = ResticBackupStatus::default();
        look(&mut status, 1, "2026-11-01T12:00:00Z");
        status.active = vec!["orders-1".to_owned()];
        assert!(!look(&mut status, 1, "2026-11-03T04:00:00Z").0);
        status.active.clear();
        assert!(look(&mut status, 1, "2026-11-03T05:00:00Z").0);
    }
}
