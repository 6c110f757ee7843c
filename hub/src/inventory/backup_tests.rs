use super::*;

fn whole() -> BackupState {
    BackupState {
        repository_namespace: "ops".to_owned(),
        repository_name: "nas".to_owned(),
        restic_id: "ab".repeat(32),
        schedule: "30 2 * * *".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        suspended: true,
        last_run: Some(BackupRun {
            started: Some(from_unix_millis(1)),
            finished: Some(from_unix_millis(0)),
            result: 3,
            reason: "Locked".to_owned(),
            message: "by host x".to_owned(),
            snapshot_id: "0f".repeat(32),
            bytes_added: 1,
            bytes_processed: 2,
            files_processed: 3,
        }),
        last_success: Some(from_unix_millis(-5)),
        next_run: Some(from_unix_millis(7)),
        runs_total: 9,
        runs_succeeded: 8,
        runs_failed: 1,
        running: true,
        source: "pvc/data".to_owned(),
        under_way: true,
        progress: Some(RunProgress {
            percent: Some(3),
            ..RunProgress::default()
        }),
    }
}

#[test]
fn what_was_reported_is_what_is_sent() {
    let odd = |snapshot: &str| {
        let mut state = whole();
        let run = state.last_run.as_mut().unwrap();
        snapshot.clone_into(&mut run.snapshot_id);
        (run.result, run.reason) = (99, String::new());
        state
    };
    let upper = "0F".repeat(32);
    for state in [whole(), BackupState::default(), odd(""), odd("5f3a"), odd(&upper)] {
        assert_eq!(Backup::new(state.clone(), None, Vec::new()).state(), state);
    }
}

#[test]
fn what_is_common_is_held_once() {
    let (one, two) = (
        Backup::new(whole(), None, Vec::new()),
        Backup::new(whole(), None, Vec::new()),
    );
    assert!(Arc::ptr_eq(&one.target, &two.target) && Arc::ptr_eq(&one.plan, &two.plan));
    let mut moved = two.clone();
    moved.place("other");
    assert_eq!(
        (moved.restic_id(), two.restic_id()),
        ("other", one.restic_id()),
        "the others stay where they are"
    );
}

#[test]
fn the_first_ready_counts() {
    let condition = |of: &str, status: &str| Condition {
        r#type: of.to_owned(),
        status: status.to_owned(),
        ..Condition::default()
    };
    let new = |conditions: &[(&str, &str)]| {
        let conditions = conditions.iter().map(|(of, status)| condition(of, status));
        let backup = Backup::new(BackupState::default(), None, conditions.collect());
        let kept: Vec<String> = backup.conditions().iter().map(|c| c.r#type.clone()).collect();
        (backup.ready, kept)
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(
        new(&[("Ready", "True"), ("Stalled", "False")]),
        (true, none.clone())
    );
    assert_eq!(new(&[]), (false, none));
    let (ready, kept) = new(&[("Ready", "False"), ("Waiting", "True"), ("Ready", "True")]);
    assert!(!ready);
    assert_eq!(kept.first().map(String::as_str), Some("Ready"));
    assert!(kept.contains(&"Waiting".to_owned()));
    assert_eq!(new(&[("Ready", "True"), ("Suspicious", "False")]).1.len(), 0);
    assert_eq!(new(&[("Ready", "True"), ("Suspicious", "True")]).1.len(), 1);
}
