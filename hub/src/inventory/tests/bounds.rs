//! What is not taken, or not held to be whole.

use super::*;

#[test]
fn a_cluster_that_reports_too_much_is_refused_whole_and_shown() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let id = "f".repeat(64);
    told(&mut inventory, "a", 1, vec![repository("u", &id, "x", 1, 1)], 0);
    assert!(inventory.member("a").unwrap().complete());
    let many: Vec<ObjectState> = (0..11)
        .map(|n| repository(&format!("u{n}"), "", "x", 1, 1))
        .collect();
    for whole in [false, true] {
        let refused = inventory.apply(&name("a"), 1, change(&many, whole), 0.into());
        assert!(matches!(refused, Err(Refused::TooMany { limit: 10, .. })));
    }
    let huge = repository("u", &id, &"x".repeat(100_001), 1, 1);
    let refused = inventory
        .apply(&name("a"), 1, change(&[huge], true), 0.into())
        .unwrap_err();
    assert!(matches!(refused, Refused::TooMuch { limit: 100_000, .. }));
    assert_eq!(
        inventory.member("a").unwrap().objects.len(),
        1,
        "what is held stays"
    );
    inventory.refuse(&name("a"), 1, &refused.to_string(), 0.into());
    let member = inventory.member("a").unwrap();
    assert!(!member.complete());
    let Some(row::Body::Cluster(row)) = rows::cluster(Seen::whole(&inventory), member).body else {
        panic!()
    };
    assert_eq!(row.state, "refused");
    assert!(row.reason.contains("--max-bytes"), "{}", row.reason);
    told(&mut inventory, "a", 2, vec![], 1);
    assert!(
        inventory.member("a").unwrap().trouble().is_none(),
        "until it fits"
    );
}

/// A resource of an earlier spoke had none, and a hub that is new must not end the sessions of a cluster that fitted.
#[test]
fn manifests_do_not_count_among_what_is_held_and_have_a_bound_of_their_own() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    let of = |manifest: usize| {
        let plain = repository("u", &"f".repeat(64), &"x".repeat(60_000), 1, 1);
        [ObjectState {
            manifest: "m".repeat(manifest),
            ..plain
        }]
    };
    told(&mut inventory, "a", 1, Vec::new(), 0);
    let bytes = |inventory: &Inventory| inventory.member("a").unwrap().bytes;
    let mut apply = |manifest: usize| {
        let applied = inventory.apply(&name("a"), 1, change(&of(manifest), true), 0.into());
        applied.map(|()| bytes(&inventory))
    };
    let plain = apply(0).unwrap();
    let with = apply(90_000).unwrap();
    assert!(with.abs_diff(plain) < 10, "{plain}, then {with}");
    assert!(matches!(
        apply(100_001),
        Err(Refused::TooMuch { limit: 100_000, .. })
    ));
    assert!(
        apply(1_000).unwrap().abs_diff(with) < 10,
        "nothing of what was there counts on"
    );
}

#[test]
fn a_hello_that_agrees_confirms_and_one_that_does_not_leaves_it_open() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    told(&mut inventory, "a", 1, vec![backup("b", 1)], 0);
    let (objects, digest) = inventory.holdings("a");
    let hello = |objects| Introduction {
        digest: digest.to_bytes(),
        objects,
        ..Introduction::default()
    };
    assert_eq!(
        inventory.attach(&name("a"), 2, hello(objects), 1.into()),
        Ok(true)
    );
    assert_eq!(
        inventory.attach(&name("a"), 3, hello(objects + 1), 2.into()),
        Ok(false)
    );
    inventory.doubt(&name("a"), 3, 3.into()).unwrap();
    assert!(!inventory.member("a").unwrap().complete());
    assert_eq!(
        inventory.attach(&name("a"), 4, hello(objects), 4.into()),
        Ok(false),
        "what is in doubt is not agreed on"
    );
}

#[test]
fn a_state_that_cannot_be_decoded_counts_in_the_digest_and_makes_the_cluster_unclear() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    told(&mut inventory, "a", 1, vec![], 0);
    let state = vec![0xff; 3];
    let broken = Change {
        upserts: vec![Arrived {
            held: Held::new(&name("a"), "u", &state, None, 0),
            state: state.clone().into(),
        }],
        ..Change::default()
    };
    inventory.apply(&name("a"), 1, broken, 0.into()).unwrap();
    let mut digest = proto::digest::Digest::default();
    digest.add(&proto::digest::object_hash("u", &state));
    assert_eq!(inventory.holdings("a"), (1, digest));
    assert!(!inventory.member("a").unwrap().complete());
    let gone = Change {
        gone: vec!["u".to_owned()],
        ..Change::default()
    };
    inventory.apply(&name("a"), 1, gone, 0.into()).unwrap();
    assert!(inventory.member("a").unwrap().complete());
}

#[test]
fn a_restored_cluster_is_complete_only_if_it_was_stored_so_and_nothing_is_missing() {
    let mut inventory = Inventory::new(LIMITS, 0, 0.into());
    told(&mut inventory, "a", 1, vec![backup("b", 1)], 0);
    let kept = inventory.member("a").unwrap().stored();
    let held = || Held::restored(&name("a"), "b", &backup("b", 1).encode_to_vec(), 0);
    let complete = |kept: &StoredCluster, held: Vec<Held>| {
        let mut inventory = Inventory::new(LIMITS, 0, 0.into());
        inventory.restore(kept, held);
        inventory.member("a").unwrap().complete()
    };
    assert!(complete(&kept, vec![held()]));
    assert!(!complete(&kept, vec![]));
    let half = StoredCluster {
        complete: false,
        ..kept
    };
    assert!(!complete(&half, vec![held()]));
}
