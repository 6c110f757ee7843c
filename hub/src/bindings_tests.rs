use proptest::prelude::*;

use super::*;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn report(bindings: &mut Bindings, cluster: &str) {
    if let Some(binding) = bindings.reported(&cluster.into(), ID, 1).unwrap() {
        bindings.put(binding);
    }
}

fn prove(bindings: &mut Bindings, cluster: &str, key: u8) -> Result<(), Refusal> {
    match bindings.proved(cluster, ID, &[key; 32], 2)? {
        Proof::Proven(binding, key) => {
            bindings.put(binding);
            if let Some(key) = key {
                bindings.put_key(key);
            }
        }
        Proof::Rival(key) => bindings.put_key(key),
        Proof::Early => {}
    }
    Ok(())
}

#[test]
fn the_first_is_bound_and_others_wait_for_the_same_key() {
    let mut bindings = Bindings::default();
    report(&mut bindings, "a");
    report(&mut bindings, "b");
    assert!(bindings.is_bound("a", ID) && !bindings.is_bound("b", ID));
    prove(&mut bindings, "b", 7).unwrap();
    assert!(!bindings.is_bound("b", ID), "there is nothing to compare with");
    prove(&mut bindings, "a", 7).unwrap();
    prove(&mut bindings, "b", 7).unwrap();
    assert!(bindings.is_bound("b", ID));
}

#[test]
fn another_key_is_an_alarm_and_no_decision() {
    let mut bindings = Bindings::default();
    report(&mut bindings, "a");
    prove(&mut bindings, "a", 7).unwrap();
    report(&mut bindings, "b");
    prove(&mut bindings, "b", 8).unwrap();
    assert!(bindings.is_bound("a", ID) && !bindings.is_bound("b", ID));
    let key = bindings.key(ID).unwrap();
    assert!(key.rival.contains("a and b"), "{}", key.rival);
    assert_eq!(key.public_key, [7; 32]);
}

#[test]
fn what_a_person_ended_only_a_person_begins_again() {
    let mut bindings = Bindings::default();
    report(&mut bindings, "a");
    prove(&mut bindings, "a", 7).unwrap();
    let (ended, before) = bindings.decided("a", ID, false, "ann", 3).unwrap();
    assert_eq!(before, State::Bound);
    bindings.put(ended);
    report(&mut bindings, "a");
    assert_eq!(prove(&mut bindings, "a", 7), Err(Refusal::Ended));
    assert!(!bindings.is_bound("a", ID));
    bindings.put(bindings.decided("a", ID, true, "ann", 4).unwrap().0);
    assert!(bindings.is_bound("a", ID));
    assert!(bindings.decided("z", ID, true, "ann", 4).is_err());
}

#[test]
fn a_cluster_is_bound_to_so_many_and_no_more() {
    let mut bindings = Bindings::default();
    for n in 0..PER_CLUSTER {
        let id = format!("{n:064x}");
        bindings.put(bindings.reported(&"a".into(), &id, 1).unwrap().unwrap());
    }
    assert_eq!(
        bindings.reported(&"a".into(), ID, 1),
        Err(Refusal::TooMany("repositories"))
    );
    assert!(bindings.reported(&"b".into(), ID, 1).unwrap().is_some());
}

proptest! {
    #[test]
    fn who_has_not_the_first_ones_key_is_never_bound_without_a_person(steps in prop::collection::vec((0u8..3, 0u8..4), 0..40)) {
        // Cluster a is first and has key 1, b has it too, c has another one.
        let mut bindings = Bindings::default();
        report(&mut bindings, "a");
        for (cluster, step) in steps {
            let (name, key) = [("a", 1), ("b", 1), ("c", 2)][usize::from(cluster)];
            match step {
                0 => report(&mut bindings, name),
                _ => { let _ = prove(&mut bindings, name, key); }
            }
            prop_assert!(bindings.is_bound("a", ID));
            prop_assert!(!bindings.is_bound("c", ID));
            prop_assert!(bindings.key(ID).is_none_or(|key| key.public_key == [1; 32]));
        }
    }
}
