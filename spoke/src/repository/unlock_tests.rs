use proto::v1::OperationOutcome;

use super::*;

fn finished(result: &str, reason: &str) -> Finished {
    Finished {
        operation: "job".to_owned(),
        outcome: OperationOutcome {
            result: result.to_owned(),
            reason: reason.to_owned(),
            message: "text".to_owned(),
            removed_locks: vec!["ab".repeat(32)],
            ..OperationOutcome::default()
        },
        started: None,
        finished: None,
        token: Some(3),
        by: None,
        approved: None,
    }
}

#[test]
fn each_result_sets_its_condition() {
    let now = Timestamp::from_second(100).unwrap();
    let mut status = ResticRepositoryStatus::default();
    for (result, reason, expected) in [
        ("Failed", "CheckFailed", Some(("True", "UnlockFailed"))),
        ("NothingToRemove", "LocksChanged", Some(("True", "UnlockFailed"))),
        ("Interrupted", "LeaseLost", Some(("True", "UnlockFailed"))),
        ("Applied", "", Some(("False", "RepositoryUnlocked"))),
    ] {
        record(&mut status, &finished(result, reason), Some(1), now);
        let condition = conditions::get(&status.conditions, types::DEGRADED);
        let condition = condition.map(|c| (c.status.as_str(), c.reason.as_str()));
        assert_eq!(condition, expected, "{result}");
    }
    let last = status.last_unlock.unwrap();
    assert_eq!((last.job_uid.as_str(), last.removed.len()), ("job", 1));
}

#[test]
fn attempts_that_fail_come_more_and_more_rarely() {
    let mut locks = Locks::default();
    let mut pauses = Vec::new();
    for _ in 0..70 {
        locks.count(&finished("Failed", "x"), 300_000, 7);
        pauses.push(locks.not_before - 7);
    }
    assert!(pauses[0] > 500_000 && pauses[69] <= PAUSE_MAX);
    assert!(pauses.windows(2).all(|two| two[1] >= two[0]));
    locks.count(&finished("Applied", ""), 300_000, 7);
    assert_eq!(locks.not_before, 300_007);
    // A check that was ended after twenty hours.
    let hours = 20 * 3600;
    let long = Finished {
        started: Some(Timestamp::UNIX_EPOCH),
        finished: Timestamp::from_second(hours).ok(),
        ..finished("Failed", "CheckTimeout")
    };
    locks.count(&long, 300_000, 7);
    assert_eq!(locks.not_before, 7 + 1000 * u64::try_from(hours).unwrap());
}
