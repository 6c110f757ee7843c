//! What becomes of policies that are not seen any more.

use super::*;

#[test]
fn a_policy_that_vanished_keeps_and_one_that_was_deleted_does_not() {
    let mut inventory = testing::empty();
    let all = || vec![repository(), policy("p", ID, rules(vec![rule()]))];
    tell(&mut inventory, "a", 1, all());
    bind(&mut inventory, "a", State::Bound);
    tell(&mut inventory, "a", 2, vec![repository()]);
    let vanished = run(&inventory);
    assert_eq!(names(&vanished), ["a/ns/p@3"]);
    assert!(vanished.policies[0].unclear.contains("missing"));
    tell(&mut inventory, "a", 3, all());
    assert_eq!(run(&inventory).policies[0].unclear, "");
    let change = Change {
        gone: vec!["p".to_owned()],
        ..Change::default()
    };
    inventory.apply(&"a".into(), 3, change, Moment::from(4)).unwrap();
    assert!(run(&inventory).policies.is_empty());
}

/// Policies and holds of a run, with why they keep.
fn kept(inventory: &Inventory) -> Vec<(String, String)> {
    let policies = run(inventory).policies.into_iter();
    policies.map(|spec| (spec.source, spec.unclear)).collect()
}

/// `other` is watched at first.
fn with_two_namespaces() -> (Inventory, Vec<ObjectState>) {
    let mut inventory = testing::empty();
    let elsewhere = |object: ObjectState| ObjectState {
        namespace: "other".to_owned(),
        ..object
    };
    let objects = vec![
        repository(),
        policy("p", ID, rules(vec![rule()])),
        elsewhere(policy("audit", ID, rules(vec![rule()]))),
        elsewhere(backup("emptied", ID, "True")),
        elsewhere(backup("well", ID, "False")),
    ];
    tell(&mut inventory, "a", 1, objects.clone());
    bind(&mut inventory, "a", State::Bound);
    assert_eq!(kept(&inventory).len(), 3);
    (inventory, objects)
}

#[test]
fn what_is_not_watched_any_more_keeps_without_end_and_over_a_restart() {
    let (mut inventory, objects) = with_two_namespaces();
    let fewer = || (objects[..1].to_vec(), &["ns"][..]);
    tell_of(&mut inventory, "a", 2, fewer());
    inventory.advance(Moment::from(i64::try_from(HOUR * 24 * 365).unwrap()));
    let left = kept(&inventory);
    // The policy of the namespace that is watched was deleted: an hour is its time.
    let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a/other/audit", "a/other/emptied (ResticBackup)"]);
    assert!(left[0].1.contains("--namespaces"), "{left:?}");
    assert!(inventory.take_unsaved(usize::MAX).0.vanished);

    let mut restarted = self::testing::empty();
    tell_of(&mut restarted, "a", 1, fewer());
    bind(&mut restarted, "a", State::Bound);
    restarted.advance(Moment::from(i64::try_from(HOUR * 24 * 365).unwrap()));
    restarted.restore_vanished(inventory.stored_vanished());
    tell_of(&mut restarted, "a", 3, fewer());
    assert_eq!(kept(&restarted), left);
}

#[test]
fn what_is_watched_again_counts_as_it_is() {
    let (mut inventory, objects) = with_two_namespaces();
    let fewer = || (objects[..2].to_vec(), &["ns"][..]);
    tell_of(&mut inventory, "a", 2, fewer());
    tell(&mut inventory, "a", 3, objects.clone());
    assert_eq!(kept(&inventory), kept(&with_two_namespaces().0), "it is there");

    tell_of(&mut inventory, "a", 4, fewer());
    // Watched again, and not there: the hub holds what the spoke has, so no inventory is sent.
    let (number, digest) = inventory.holdings("a");
    let introduction = Introduction {
        facts: inventory.member("a").unwrap().facts.clone(),
        incarnation: "two".to_owned(),
        digest: digest.to_bytes().to_vec(),
        objects: number,
        ..Introduction::default()
    };
    let attached = inventory.attach(
        &"a".into(),
        HOUR,
        introduction,
        Moment::from(i64::try_from(HOUR).unwrap()),
    );
    assert!(attached.unwrap());
    let names = |inventory: &Inventory| {
        kept(inventory)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&inventory),
        ["a/ns/p", "a/other/audit"],
        "a policy for an hour more"
    );
    inventory.advance(Moment::from(i64::try_from(HOUR * 2).unwrap()));
    assert_eq!(names(&inventory), ["a/ns/p"]);
}

#[test]
fn what_is_not_watched_counts_among_the_resources_of_its_cluster() {
    let mut inventory = testing::empty();
    let policies = |from: usize| {
        (from..from + 600)
            .map(|n| policy(&format!("p{n}"), ID, None))
            .collect::<Vec<_>>()
    };
    tell(&mut inventory, "a", 1, policies(0));
    tell_of(&mut inventory, "a", 2, (Vec::new(), &["other"]));
    let more = policies(1000).into_iter().map(|object| {
        let state = object.encode_to_vec();
        let held = Held::new(&"a".into(), &object.uid, &state, None, 1);
        Arrived {
            held,
            state: state.into(),
        }
    });
    let change = Change {
        upserts: more.collect(),
        ..Change::default()
    };
    let refused = inventory.apply(&"a".into(), 2, change, Moment::from(3));
    assert!(
        matches!(refused, Err(crate::inventory::Refused::TooMany { .. })),
        "{refused:?}"
    );
}

/// A policy whose repository was not known when it vanished.
#[test]
fn an_undecided_policy_that_vanished_keeps_wherever_it_could_be_meant() {
    let mut inventory = testing::empty();
    let undecided = policy("p", "", rules(vec![rule()]));
    tell(&mut inventory, "a", 1, vec![repository(), undecided.clone()]);
    bind(&mut inventory, "a", State::Bound);
    tell(&mut inventory, "a", 2, vec![repository()]);
    let run_of = |inventory: &Inventory| {
        let run = run(inventory);
        run.policies.iter().map(|p| p.unclear.clone()).collect::<Vec<_>>()
    };
    let missing = run_of(&inventory);
    assert!(
        missing.len() == 1 && missing[0].contains("missing"),
        "{missing:?}"
    );
    // Its repository vanishes as well: it may still be this one.
    tell(&mut inventory, "a", 3, Vec::new());
    assert_eq!(run_of(&inventory).len(), 1);
    // The repository that it names turns out to be another one.
    let mut elsewhere = repository();
    if let Some(Body::Repository(body)) = &mut elsewhere.body {
        body.restic_id = "b".repeat(64);
    }
    tell(&mut inventory, "a", 4, vec![elsewhere]);
    assert_eq!(run_of(&inventory).len(), 0);
}

#[test]
fn nothing_of_a_forgotten_cluster_is_left_among_the_vanished() {
    let mut inventory = testing::empty();
    for (session, cluster) in [(1, "a"), (2, "b")] {
        tell(
            &mut inventory,
            cluster,
            session,
            vec![policy("p", ID, rules(vec![rule()]))],
        );
        tell(&mut inventory, cluster, session + 2, Vec::new());
        inventory.detach(&cluster.into(), session + 2, Moment::from(9));
    }
    inventory.take_unsaved(usize::MAX);
    assert!(inventory.begin_forget(&"a".into()));
    inventory.end_forget(&"a".into(), true);
    let left: Vec<String> = inventory
        .stored_vanished()
        .into_iter()
        .map(|v| v.cluster)
        .collect();
    assert_eq!(left, ["b"]);
    assert!(
        inventory.take_unsaved(usize::MAX).0.vanished,
        "written with the next batch"
    );
}
