//! A table per state, with the neighbours that must not be mistaken for it.

use super::*;
use proto::time::from_unix_millis;
use proto::v1::{BackupRun, BackupState, ObjectState};

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
/// 2026-11-20T00:00:00Z
const DAY: Millis = 1_795_132_800_000;

/// A daily backup at 02:00, created a week ago, that ran well at 02:00 on `DAY` for half an hour.
fn well() -> ObjectState {
    object(BackupState {
        schedule: "0 2 * * *".into(),
        last_run: Some(run(BackupResult::Succeeded, 2 * HOUR)),
        last_success: Some(from_unix_millis(DAY + 2 * HOUR + 30 * MINUTE)),
        next_run: Some(from_unix_millis(DAY + 26 * HOUR)),
        ..BackupState::default()
    })
}

fn object(backup: BackupState) -> ObjectState {
    ObjectState {
        uid: "u".into(),
        name: "n".into(),
        created: Some(from_unix_millis(DAY - 168 * HOUR)),
        conditions: vec![Condition {
            r#type: "Ready".into(),
            status: "True".into(),
            ..Condition::default()
        }],
        body: Some(proto::v1::object_state::Body::Backup(backup)),
        ..ObjectState::default()
    }
}

fn run(result: BackupResult, started: Millis) -> BackupRun {
    BackupRun {
        started: Some(from_unix_millis(DAY + started)),
        finished: Some(from_unix_millis(DAY + started + 30 * MINUTE)),
        result: result.into(),
        ..BackupRun::default()
    }
}

#[test]
fn a_run_that_does_not_start_is_shown_after_a_while_and_is_not_running() {
    let mut waits = well();
    waits.conditions.push(Condition {
        r#type: "Waiting".into(),
        status: "True".into(),
        reason: "FailedCreate".into(),
        message: "exceeded quota".into(),
        last_transition: Some(from_unix_millis(DAY + 3 * HOUR - MINUTE)),
    });
    assert_eq!(judge(&waits, FRESH, 3).0, Health::Ok);
    let (health, reason) = judge(&waits, FRESH, 4);
    assert_eq!(health, Health::NotReady);
    assert!(reason.contains("FailedCreate: exceeded quota"), "{reason}");
}

fn backup(object: &mut ObjectState) -> &mut BackupState {
    match object.body.as_mut() {
        Some(proto::v1::object_state::Body::Backup(backup)) => backup,
        _ => panic!("not a backup"),
    }
}

const FRESH: Fresh = Fresh {
    stale: false,
    last_heard: None,
};

/// As the hub holds it.
fn held(object: &ObjectState) -> Backup {
    let Some(proto::v1::object_state::Body::Backup(backup)) = object.body.clone() else {
        panic!("not a backup")
    };
    Backup::new(backup, object.created.as_ref(), object.conditions.clone())
}

fn judge(object: &ObjectState, fresh: Fresh, hours: Millis) -> (Health, String) {
    let backup = &held(object);
    let evidence = Evidence {
        backup,
        deadline: due(backup, 0),
        fresh,
    };
    let health = evidence.health(DAY + hours * HOUR);
    (health, evidence.reason(health))
}

fn changed(change: impl FnOnce(&mut BackupState)) -> ObjectState {
    let mut object = well();
    change(backup(&mut object));
    object
}

#[test]
fn ok_says_nothing() {
    assert_eq!(judge(&well(), FRESH, 12), (Health::Ok, String::new()));
}

#[test]
fn failed_until_a_success() {
    let mut object = changed(|backup| {
        let mut failed = run(BackupResult::Failed, 26 * HOUR);
        failed.reason = "RepositoryLocked".into();
        failed.message = "locked by host x".into();
        backup.last_run = Some(failed);
    });
    assert_eq!(
        judge(&object, FRESH, 27),
        (Health::Failed, "RepositoryLocked: locked by host x".into())
    );
    backup(&mut object).suspended = true;
    assert_eq!(
        judge(&object, FRESH, 27).0,
        Health::Failed,
        "suspending does not mend"
    );
    backup(&mut object).suspended = false;
    backup(&mut object).running = true;
    assert_eq!(judge(&object, FRESH, 27).0, Health::Failed, "nor does trying");
    assert_eq!(
        judge(
            &object,
            Fresh {
                stale: true,
                last_heard: Some(DAY)
            },
            27
        )
        .0,
        Health::Failed
    );
    backup(&mut object).running = false;
    backup(&mut object).last_success = Some(from_unix_millis(DAY + 27 * HOUR));
    assert_eq!(judge(&object, FRESH, 28).0, Health::Ok);
}

#[test]
fn late_after_a_tenth_of_the_interval() {
    let object = well();
    assert_eq!(
        judge(&object, FRESH, 28).0,
        Health::Ok,
        "due at 26 h, late at 28.4 h"
    );
    assert_eq!(
        judge(&object, FRESH, 29),
        (Health::Late, "a run is overdue".into())
    );
    let moved_on = changed(|backup| backup.next_run = Some(from_unix_millis(DAY + 50 * HOUR)));
    assert_eq!(
        judge(&moved_on, FRESH, 29).0,
        Health::Late,
        "whatever the operator forecasts"
    );
    let running = changed(|backup| backup.running = true);
    assert_eq!(
        judge(&running, FRESH, 29).0,
        Health::Running,
        "a run under way puts it off"
    );
    assert_eq!(judge(&running, FRESH, 53).0, Health::Late, "by one interval");
    let suspended = changed(|backup| backup.suspended = true);
    assert_eq!(judge(&suspended, FRESH, 29).0, Health::Suspended);
    let never = changed(|backup| (backup.last_run, backup.last_success) = (None, None));
    assert_eq!(
        judge(&never, FRESH, 29),
        (
            Health::Late,
            "a run is overdue, and none has ever succeeded".into()
        )
    );
}

#[test]
fn a_new_schedule_counts_from_when_it_was_seen() {
    let backup = &held(&well());
    let judge = |baseline| {
        let evidence = Evidence {
            backup,
            deadline: due(backup, baseline),
            fresh: FRESH,
        };
        evidence.health(DAY + 100 * HOUR)
    };
    assert_eq!(judge(0), Health::Late);
    assert_eq!(
        judge(DAY + 99 * HOUR),
        Health::Ok,
        "resumed an hour ago, due next night"
    );
}

#[test]
fn partial_leaves_a_snapshot_and_so_is_not_late() {
    let object = changed(|backup| {
        backup.last_run = Some(BackupRun {
            message: "4 files could not be read".into(),
            ..run(BackupResult::PartiallyFailed, 26 * HOUR)
        });
    });
    assert_eq!(
        judge(&object, FRESH, 30),
        (Health::Partial, "4 files could not be read".into())
    );
    assert_eq!(judge(&object, FRESH, 53).0, Health::Late);
}

#[test]
fn notready_by_condition_by_schedule_and_by_result() {
    let mut object = well();
    object.conditions[0].status = "False".into();
    object.conditions[0].reason = "RepositoryNotReady".into();
    assert_eq!(
        judge(&object, FRESH, 12),
        (Health::NotReady, "RepositoryNotReady".into())
    );
    object.conditions[0].message = "repository main is not Ready".into();
    assert_eq!(judge(&object, FRESH, 12).1, "repository main is not Ready");
    for status in ["Unknown", "", "true"] {
        object.conditions[0].status = status.into();
        assert_eq!(
            judge(&object, FRESH, 12).0,
            Health::NotReady,
            "{status:?} is not True"
        );
    }
    object.conditions.clear();
    assert_eq!(judge(&object, FRESH, 12).0, Health::NotReady);

    let unreadable = changed(|backup| (backup.schedule, backup.next_run) = ("nightly".into(), None));
    assert_eq!(judge(&unreadable, FRESH, 12).0, Health::NotReady);
    let forecast = changed(|backup| backup.schedule = "nightly".into());
    assert_eq!(
        judge(&forecast, FRESH, 12).0,
        Health::Ok,
        "the operator's forecast will do"
    );
    assert_eq!(judge(&forecast, FRESH, 27).0, Health::Late);

    let unknown = changed(|backup| backup.last_run = Some(run(BackupResult::Unspecified, 2 * HOUR)));
    assert_eq!(judge(&unknown, FRESH, 12).0, Health::NotReady);
    let newer = changed(|backup| {
        backup.last_run = Some(BackupRun {
            result: 99,
            ..run(BackupResult::Succeeded, 2 * HOUR)
        });
    });
    assert_eq!(
        judge(&newer, FRESH, 12).0,
        Health::NotReady,
        "a result of a newer operator is not a success"
    );
}

#[test]
fn stale_is_not_late_by_what_came_due_since() {
    let silent = |hours| Fresh {
        stale: true,
        last_heard: Some(DAY + hours * HOUR),
    };
    assert_eq!(judge(&well(), silent(12), 100).0, Health::Stale);
    assert_eq!(
        judge(&well(), silent(29), 100).0,
        Health::Late,
        "it was late when it was last heard"
    );
    assert_eq!(
        judge(
            &well(),
            Fresh {
                stale: true,
                last_heard: None
            },
            100
        )
        .0,
        Health::Stale
    );
    let suspended = changed(|backup| backup.suspended = true);
    assert_eq!(judge(&suspended, silent(12), 13).0, Health::Stale);
}

#[test]
fn never_running_suspended() {
    let blank = |change: fn(&mut BackupState)| {
        changed(|backup| {
            (backup.last_run, backup.last_success) = (None, None);
            change(backup);
        })
    };
    let mut young = blank(|_| ());
    young.created = Some(from_unix_millis(DAY + 11 * HOUR));
    assert_eq!(
        judge(&young, FRESH, 12),
        (Health::Never, "it has not run yet".into())
    );
    backup(&mut young).running = true;
    assert_eq!(
        judge(&young, FRESH, 12),
        (Health::Never, "the first run is under way".into())
    );
    let suspended = blank(|backup| backup.suspended = true);
    assert_eq!(
        judge(&suspended, FRESH, 12),
        (Health::Never, "it has never run, and it is suspended".into())
    );
    assert_eq!(
        judge(&changed(|backup| backup.running = true), FRESH, 12).0,
        Health::Running
    );
    let both = changed(|backup| (backup.running, backup.suspended) = (true, true));
    assert_eq!(judge(&both, FRESH, 12).0, Health::Running);
    assert_eq!(
        judge(&changed(|backup| backup.suspended = true), FRESH, 12).0,
        Health::Suspended
    );
}

#[test]
fn nothing_at_all_is_not_ok() {
    assert_ne!(judge(&object(BackupState::default()), FRESH, 12).0, Health::Ok);
    assert_ne!(
        judge(
            &ObjectState {
                conditions: vec![],
                ..object(BackupState::default())
            },
            FRESH,
            12
        )
        .0,
        Health::Ok
    );
}

#[test]
fn states_have_one_name_each_and_an_order() {
    let mut sorted = Health::ALL;
    sorted.sort();
    assert_eq!(sorted, Health::ALL);
    let names: std::collections::BTreeSet<_> = Health::ALL.iter().map(|health| health.as_str()).collect();
    assert_eq!(names.len(), Health::ALL.len());
}
