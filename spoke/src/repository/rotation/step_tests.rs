use super::*;

fn old() -> String {
    "0a".repeat(32)
}

fn new() -> String {
    "1b".repeat(32)
}

fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

fn outcome(result: &str, reason: &str) -> OperationOutcome {
    OperationOutcome {
        result: result.to_owned(),
        reason: reason.to_owned(),
        message: "text".to_owned(),
        old_key: old(),
        new_key: new(),
        ..OperationOutcome::default()
    }
}

fn rotation(step: RotationStep) -> PasswordRotation {
    PasswordRotation {
        request: "one".to_owned(),
        step,
        old_key: Some(old()),
        new_key: Some(new()),
        ..PasswordRotation::default()
    }
}

fn facts() -> Facts<'static> {
    Facts {
        request: Some("one"),
        secret: "nas",
        password_key: "RESTIC_PASSWORD",
        shared: true,
        ..Facts::default()
    }
}

fn reason(next: &Next) -> &'static str {
    next.shown.as_ref().map_or("", |(_, reason, _)| reason)
}

fn text(next: &Next) -> &str {
    next.shown.as_ref().map_or("", |(_, _, text)| text)
}

#[test]
fn nothing_is_done_unless_a_person_asks() {
    assert_eq!(next(None, &Facts::default(), now()), Next::default());
    let empty = Facts {
        request: Some(""),
        ..Facts::default()
    };
    assert_eq!(next(None, &empty, now()), Next::default());
}

#[test]
fn a_new_value_begins_and_the_same_does_not_begin_again() {
    let begun = next(None, &facts(), now());
    assert!(begun.job);
    assert_eq!(reason(&begun), "KeyAdding");
    let mut done = rotation(RotationStep::Done);
    done.job_uid = Some("job".to_owned());
    assert!(!next(Some(&done), &facts(), now()).job);
    let again = Facts {
        request: Some("two"),
        ..facts()
    };
    let begun = next(Some(&done), &again, now());
    assert!(begun.job);
    let rotation = begun.rotation.unwrap();
    assert_eq!((rotation.request.as_str(), rotation.old_key), ("two", None));
    assert_eq!(
        rotation.job_uid.as_deref(),
        Some("job"),
        "the result of before is recorded"
    );
    // While a Job works, its step stays.
    let busy = Facts {
        under_way: true,
        ..again
    };
    let removing = PasswordRotation {
        removal: Some(old()),
        ..self::rotation(RotationStep::Removing)
    };
    assert_eq!(
        next(Some(&removing), &busy, now()).rotation,
        Some(removing.clone())
    );
}

#[test]
fn what_was_asked_for_can_be_taken_back_until_it_has_changed_something() {
    let none = Facts {
        request: None,
        ..facts()
    };
    for (step, stays) in [
        (RotationStep::Adding, false),
        (RotationStep::Failed, false),
        (RotationStep::Added, true),
        (RotationStep::Removing, true),
        (RotationStep::Done, true),
    ] {
        assert_eq!(
            next(Some(&rotation(step)), &none, now()).rotation.is_some(),
            stays,
            "{step:?}"
        );
    }
}

#[test]
fn results_lead_from_step_to_step() {
    use RotationStep::{Added, Adding, Done, Failed, Removing};
    for (before, result, after) in [
        (Adding, "Applied", Added),
        (Adding, "Failed", Failed),
        (Adding, "Interrupted", Adding),
        (Removing, "Applied", Done),
        (Removing, "Failed", Added),
        (Removing, "Interrupted", Removing),
        (Done, "Applied", Done),
    ] {
        let mut rotation = rotation(before);
        record(&mut rotation, "job", &outcome(result, ""));
        assert_eq!(rotation.step, after, "{before:?} {result}");
        let known = rotation.clone();
        record(&mut rotation, "job", &outcome("Failed", "again"));
        assert_eq!(rotation, known, "each result counts once");
    }
}

#[test]
fn a_step_that_is_interrupted_again_and_again_is_given_up() {
    let mut rotation = rotation(RotationStep::Adding);
    for job in 0..INTERRUPTED_MAX {
        record(
            &mut rotation,
            &job.to_string(),
            &outcome("Interrupted", "LeaseLost"),
        );
        assert_eq!(rotation.step, RotationStep::Adding);
    }
    record(&mut rotation, "last", &outcome("Interrupted", "LeaseLost"));
    assert_eq!(rotation.step, RotationStep::Failed);
    let next = next(Some(&rotation), &facts(), now());
    assert_eq!(reason(&next), "PasswordRotationFailed");
    assert!(text(&next).contains("LeaseLost") && text(&next).contains("another value"));
}

#[test]
fn the_secret_is_switched_by_a_person_and_then_the_old_key_may_go() {
    let (old, new) = (old(), new());
    let before = Facts {
        key: Some(&old),
        ..facts()
    };
    let waits = next(Some(&rotation(RotationStep::Added)), &before, now());
    assert_eq!((reason(&waits), waits.job), ("SwitchSecret", false));
    assert!(waits.rotation.unwrap().switched.is_none());
    let after = Facts {
        key: Some(&new),
        ..facts()
    };
    let switched = next(Some(&rotation(RotationStep::Added)), &after, now());
    assert_eq!((reason(&switched), switched.job), ("OldKeyStays", false));
    assert!(text(&switched).contains("\"0a0a0a0a0a\""), "{}", text(&switched));
    assert_eq!(switched.rotation.unwrap().switched, Some(Time(now())));
}

#[test]
fn a_key_is_removed_when_nobody_is_known_to_need_it() {
    let (old, new) = (old(), new());
    let asked = |facts: Facts<'static>| next(Some(&rotation(RotationStep::Added)), &facts, now());
    let new: &'static str = Box::leak(new.into_boxed_str());
    let old: &'static str = Box::leak(old.into_boxed_str());
    let wish = || Facts {
        key: Some(new),
        removal: Some(&old[..10]),
        ..facts()
    };
    let removed = asked(wish());
    assert!(removed.job, "{removed:?}");
    assert_eq!(reason(&removed), "KeyRemoving");
    for (words, facts) in [
        (
            "opens it",
            Facts {
                key: Some(old),
                ..wish()
            },
        ),
        ("not known which key", Facts { key: None, ..wish() }),
        (
            "ResticRepository shop/other",
            Facts {
                others: vec![("shop/other".to_owned(), Some(old.to_owned()))],
                ..wish()
            },
        ),
        (
            "ResticRepository shop/unknown",
            Facts {
                others: vec![
                    ("shop/well".to_owned(), Some(new.to_owned())),
                    ("shop/unknown".to_owned(), None),
                ],
                ..wish()
            },
        ),
        (
            "Job shop/early",
            Facts {
                early_runs: vec!["Job shop/early".to_owned()],
                ..wish()
            },
        ),
        (
            "without a hub",
            Facts {
                shared: false,
                ..wish()
            },
        ),
        (
            "neither",
            Facts {
                removal: Some("ffffffff"),
                ..wish()
            },
        ),
    ] {
        let next = asked(facts);
        assert!(!next.job, "{words}");
        assert_eq!(reason(&next), "OldKeyStays");
        assert!(text(&next).contains(words), "{words}: {}", text(&next));
    }
    // A person answers for it.
    let confirmed: &'static str = Box::leak(format!("{old},no-other-cluster").into_boxed_str());
    let alone = asked(Facts {
        shared: false,
        removal: Some(confirmed),
        ..wish()
    });
    assert!(alone.job);
    // Who has not switched yet may give the new key up.
    let back = asked(Facts {
        key: Some(old),
        removal: Some(new),
        ..facts()
    });
    assert!(back.job);
}

#[test]
fn a_removal_that_failed_is_tried_again_with_another_value() {
    let (old, new) = (old(), new());
    let mut rotation = PasswordRotation {
        removal: Some(old.clone()),
        ..rotation(RotationStep::Removing)
    };
    record(&mut rotation, "job", &outcome("Failed", "RepositoryLocked"));
    let same = Facts {
        key: Some(&new),
        removal: Some(&old),
        ..facts()
    };
    let stays = next(Some(&rotation), &same, now());
    assert!(
        !stays.job && text(&stays).contains("RepositoryLocked"),
        "{}",
        text(&stays)
    );
    let other = format!("{old},again");
    let again = Facts {
        removal: Some(&other),
        ..same
    };
    assert!(next(Some(&rotation), &again, now()).job);
}

#[test]
fn the_condition_names_who_the_hub_waits_for() {
    let new = new();
    let waits = Facts {
        key: Some(&new),
        waits: Some("cluster b opens the repository with this key"),
        ..facts()
    };
    let rotation = PasswordRotation {
        removal: Some(old()),
        ..rotation(RotationStep::Removing)
    };
    let next = next(Some(&rotation), &waits, now());
    assert_eq!((reason(&next), next.job), ("OldKeyStays", true));
    assert!(text(&next).contains("cluster b"));
}

#[test]
fn an_order_follows_from_the_step() {
    let order_of = |step, removal: Option<&str>, key: Option<&str>| {
        let mut repository: ResticRepository = serde_json::from_value(serde_json::json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } }, "status": {},
        }))
        .unwrap();
        let status = repository.status.as_mut().unwrap();
        status.key_id = key.map(str::to_owned);
        status.password_rotation = Some(PasswordRotation {
            removal: removal.map(str::to_owned),
            ..rotation(step)
        });
        order(&repository, "id")
    };
    let (old, new) = (old(), new());
    assert_eq!(order_of(RotationStep::Adding, None, None).unwrap().remove, "");
    let run = order_of(RotationStep::Removing, Some(&old[..8]), Some(&new)).unwrap();
    assert_eq!((run.remove, run.keep), (old.clone(), new.clone()));
    assert_eq!(order_of(RotationStep::Removing, Some(&old), None), None);
    for step in [RotationStep::Added, RotationStep::Done, RotationStep::Failed] {
        assert_eq!(order_of(step, Some(&old), Some(&new)), None);
    }
}
