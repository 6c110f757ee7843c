//! What Kubernetes makes of slots that were missed, with the deadline of backups.

use crds::schedule::Schedule;
use jiff::{SignedDuration, Timestamp};

use super::BACKUP_DEADLINE;

/// As k8s.io/kubernetes/pkg/controller/cronjob, `mostRecentScheduleTime`: the last slot since the last start, unless it is
/// older than the deadline. More than a hundred missed slots make a warning and no difference.
fn due(schedule: &Schedule, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let oldest = now - SignedDuration::from_secs(BACKUP_DEADLINE);
    let slots = std::iter::successors(schedule.next_after(last.max(oldest)), |slot| {
        schedule.next_after(*slot)
    });
    slots.take_while(|slot| *slot <= now).last()
}

/// Starts at a cluster that was away from `last` on, looked at once a minute for as long.
fn starts(schedule: &str, last: &str, back: &str, minutes: i64) -> Vec<String> {
    let schedule = Schedule::parse(schedule, "UTC").unwrap();
    let (mut last, back): (Timestamp, Timestamp) = (last.parse().unwrap(), back.parse().unwrap());
    let mut starts = Vec::new();
    for minute in 0..minutes {
        if let Some(slot) = due(&schedule, last, back + SignedDuration::from_mins(minute)) {
            starts.push(slot.to_string());
            last = slot;
        }
    }
    starts
}

#[test]
fn a_missed_slot_is_made_up_once() {
    let daily = starts("0 3 * * *", "2026-11-20T03:00:00Z", "2026-11-23T20:30:00Z", 600);
    assert_eq!(daily, ["2026-11-23T03:00:00Z", "2026-11-24T03:00:00Z"]);
    let weekly = starts("0 3 * * 0", "2026-11-15T03:00:00Z", "2026-11-24T09:00:00Z", 600);
    assert_eq!(weekly, ["2026-11-22T03:00:00Z"]);
}

#[test]
fn more_than_a_hundred_missed_slots_are_one_run_too() {
    let back = "2026-11-23T20:30:30Z";
    let minutely = starts("* * * * *", "2026-11-20T03:00:00Z", back, 2);
    assert_eq!(minutely, ["2026-11-23T20:30:00Z", "2026-11-23T20:31:00Z"]);
}

#[test]
fn what_is_older_than_a_week_waits_for_the_next_slot() {
    let monthly = starts("0 3 1 * *", "2026-10-01T03:00:00Z", "2026-11-09T09:00:00Z", 600);
    assert!(monthly.is_empty(), "{monthly:?}");
}
