//! Clusters that want the same name.

use super::*;

#[test]
fn the_newest_session_wins_and_the_older_one_is_not_heard() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    told(&mut inventory, "a", 1, vec![], 0);
    told(&mut inventory, "a", 2, vec![backup("b1", 1)], 1);
    let late = Change {
        gone: vec!["b1".into()],
        ..Change::default()
    };
    assert!(matches!(
        inventory.apply(&name("a"), 1, late, 2.into()),
        Err(Refused::Superseded { .. })
    ));
    inventory.detach(&name("a"), 1, 2.into());
    assert!(inventory.member("a").unwrap().live.is_some());
    assert_eq!(inventory.index().backup_count(), 1);
}

#[test]
fn a_second_cluster_under_the_name_of_a_fresh_one_is_a_conflict_until_somebody_decides() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let a = name("a");
    inventory
        .attach(&a, 1, introduction("old", "x"), 0.into())
        .unwrap();
    inventory
        .apply(&a, 1, change(&[backup("b", 1)], true), 0.into())
        .unwrap();
    let refused = inventory.attach(&a, 2, introduction("new", "y"), 1.into());
    assert!(matches!(refused, Err(Refused::Conflict { .. })));
    assert!(
        inventory.hear(&a, 1, 2.into()).is_err(),
        "nothing is taken from either"
    );
    assert!(
        inventory
            .attach(&a, 3, introduction("old", "x"), 3.into())
            .is_err()
    );
    let member = inventory.member("a").unwrap();
    assert_eq!(
        (member.objects.len(), member.complete()),
        (1, false),
        "what is held stays"
    );
    assert_eq!(member.trouble().unwrap().0, "conflict");
    let stored = member.stored();
    let mut restarted = Inventory::new(LIMITS, 0, 0.into());
    restarted.restore(&stored, Vec::new());
    assert!(
        restarted
            .attach(&a, 4, introduction("new", "y"), 4.into())
            .is_err(),
        "also after a restart"
    );
    let decision = crate::store::StoredDecision::default;
    let not = inventory.accept(&a, "other", decision()).unwrap_err();
    assert!(
        matches!(&not, NotMeant::Uid { present, rivals } if present == "old" && rivals == "new"),
        "{not:?}"
    );
    assert_eq!(inventory.accept(&a, "new", decision()), Ok(()));
    assert!(
        inventory
            .attach(&a, 5, introduction("old", "x"), 5.into())
            .is_err()
    );
    assert_eq!(
        inventory.attach(&a, 6, introduction("new", "y"), 6.into()),
        Ok(false)
    );
}

#[test]
fn a_decision_of_an_operator_outlives_a_restart_and_ends_with_a_long_silence() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let a = name("a");
    inventory
        .attach(&a, 1, introduction("old", "x"), 0.into())
        .unwrap();
    let decision = crate::store::StoredDecision::default;
    assert_eq!(inventory.accept(&a, "old", decision()), Ok(()));
    // A uid that is written wrong cuts off nobody; one that has asked, or may still come, is taken.
    let typed = inventory.accept(&a, "odl", decision());
    assert!(matches!(typed, Err(NotMeant::Uid { .. })), "{typed:?}");
    assert!(inventory.member("a").unwrap().live.is_some());
    let mut asked = Inventory::new(LIMITS, 0, 0.into());
    asked.attach(&a, 1, introduction("old", "x"), 0.into()).unwrap();
    asked.asks_for("a", "new");
    assert_eq!(asked.accept(&a, "new", decision()), Ok(()));
    let mut lost = Inventory::new(LIMITS, 0, 0.into());
    lost.attach(&a, 1, introduction("old", "x"), 0.into()).unwrap();
    lost.detach(&a, 1, 1.into());
    assert_eq!(lost.accept(&a, "new", decision()), Ok(()));
    assert_eq!(lost.accept(&name("b"), "new", decision()), Err(NotMeant::Name));
    let stored = inventory.member("a").unwrap().stored();
    let mut restarted = Inventory::new(LIMITS, 0, 7.into());
    restarted.restore(&stored, Vec::new());
    assert!(
        restarted
            .attach(&a, 2, introduction("new", "y"), 100.into())
            .is_err()
    );
    let later = conflict::QUIET + 7;
    assert_eq!(
        restarted.attach(&a, 3, introduction("new", "y"), later.into()),
        Ok(false)
    );
}

#[test]
fn a_rebuilt_cluster_takes_the_name_of_one_that_is_silent() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let a = name("a");
    inventory
        .attach(&a, 1, introduction("old", "x"), 0.into())
        .unwrap();
    inventory.detach(&a, 1, 0.into());
    assert_eq!(
        inventory.attach(&a, 2, introduction("new", "y"), 30.into()),
        Ok(false)
    );
}
