//! Places of clusters.

use super::super::Place;
use super::*;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn member(cluster: &str, urls: &str, since: Millis) -> Member {
    Member {
        cluster: cluster.into(),
        store: ID.into(),
        urls: urls.to_owned(),
        since,
    }
}

fn second() -> Arc<str> {
    format!("{ID}@2").into()
}

fn set(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn places(of: &[(&str, &str, &str)]) -> Places {
    let mut places = Places::default();
    for (cluster, store, urls) in of {
        places.put(Place {
            restic_id: ID.into(),
            cluster: (*cluster).into(),
            store: (*store).into(),
            urls: (*urls).to_owned(),
        });
    }
    places
}

fn found(witness: &str, present: &[&str], absent: &[&str]) -> Finding {
    Finding {
        witness: witness.into(),
        present: set(present),
        absent: set(absent),
    }
}

/// Cluster and number of its store, 0 for one that is not known any more.
fn concluded(members: &[Member], places: &Places, finding: &Finding) -> Vec<(String, u32)> {
    let mut excluded = Excluded::new();
    let placed = conclude(ID, (members, places), (finding, false), &mut excluded);
    numbered(placed)
}

fn numbered(placed: BTreeMap<Arc<str>, Found>) -> Vec<(String, u32)> {
    let shown = |found: Found| {
        if found.urls == UNKNOWN {
            0
        } else {
            number(&found.store)
        }
    };
    placed
        .into_iter()
        .map(|(cluster, found)| (cluster.to_string(), shown(found)))
        .collect()
}

fn expected(of: &[(&str, u32)]) -> Vec<(String, u32)> {
    of.iter()
        .map(|(cluster, number)| ((*cluster).to_owned(), *number))
        .collect()
}

#[test]
fn one_location_is_one_store_and_another_one_is_not_known_to_be() {
    let same = [member("a", "u", 1), member("b", "u", 2)];
    assert_eq!(standing(ID, &same, &Places::default()).unplaced, set(&[]));
    let two = [member("a", "u", 1), member("b", "v", 2), member("c", "u", 3)];
    let known = standing(ID, &two, &Places::default());
    assert_eq!(known.unplaced, set(&["b"]));
    // The cluster that was bound first stands for the first store, whatever its name.
    let later = [member("a", "u", 9), member("b", "v", 2)];
    assert_eq!(standing(ID, &later, &Places::default()).unplaced, set(&["a"]));
    // Once it is known it stays so while the location does.
    let known = places(&[("a", ID, "u"), ("b", ID, "v")]);
    assert_eq!(
        standing(ID, &two, &known).unplaced,
        set(&[]),
        "c has the location of a"
    );
    let moved = [member("a", "u", 1), member("b", "w", 2)];
    assert_eq!(standing(ID, &moved, &known).unplaced, set(&["b"]));
    // One location that leads to two stores says nothing of a third cluster.
    let split = places(&[("a", ID, "u"), ("b", &second(), "u")]);
    let three = [member("a", "u", 1), member("b", "u", 2), member("c", "u", 3)];
    assert_eq!(standing(ID, &three, &split).unplaced, set(&["c"]));
}

#[test]
fn a_lock_that_another_location_lists_shows_one_store() {
    let two = [member("a", "u", 1), member("b", "v", 2)];
    let none = Places::default();
    let one = expected(&[("a", 1), ("b", 1)]);
    assert_eq!(concluded(&two, &none, &found("a", &["b"], &[])), one);
    assert_eq!(concluded(&two, &none, &found("b", &["a"], &[])), one);
}

#[test]
fn a_lock_that_is_missing_makes_two_stores_and_the_first_cluster_keeps_its_own() {
    let two = [member("a", "u", 1), member("b", "v", 2)];
    let none = Places::default();
    let split = expected(&[("a", 1), ("b", 2)]);
    for (witness, absent) in [("a", "b"), ("b", "a")] {
        assert_eq!(
            concluded(&two, &none, &found(witness, &[], &[absent])),
            split,
            "{witness}"
        );
    }
    // Likewise where both have the same location, as inside of two clusters.
    let alike = [member("a", "u", 1), member("b", "u", 2)];
    for (witness, absent) in [("a", "b"), ("b", "a")] {
        assert_eq!(
            concluded(&alike, &none, &found(witness, &[], &[absent])),
            split,
            "{witness}"
        );
    }
    // Who was not asked is not known then.
    let three = [member("a", "u", 1), member("b", "u", 2), member("c", "u", 3)];
    let open = expected(&[("a", 1), ("b", 2), ("c", 0)]);
    assert_eq!(concluded(&three, &none, &found("b", &[], &["a"])), open);
}

#[test]
fn a_third_cluster_finds_its_store_or_gets_one() {
    let known = places(&[("a", ID, "u"), ("b", &second(), "v")]);
    let mut three = [member("a", "u", 1), member("b", "v", 2), member("c", "w", 3)];
    three[1].store = second();
    let of = |finding: Finding| concluded(&three, &known, &finding);
    assert_eq!(
        of(found("b", &["c"], &["a"])),
        expected(&[("a", 1), ("b", 2), ("c", 2)])
    );
    assert_eq!(
        of(found("c", &["b"], &["a"])),
        expected(&[("a", 1), ("b", 2), ("c", 2)])
    );
    assert_eq!(
        of(found("c", &[], &["a", "b"])),
        expected(&[("a", 1), ("b", 2), ("c", 3)])
    );
    assert_eq!(
        of(found("c", &[], &["a"])),
        expected(&[]),
        "it may lie where b's does"
    );
    // Not here and not there, in two findings.
    let mut excluded = Excluded::new();
    for (witness, count) in [("a", 2), ("b", 3)] {
        let finding = found(witness, &[], &["c"]);
        let placed = conclude(ID, (&three, &known), (&finding, false), &mut excluded);
        assert_eq!(placed.len(), count, "{witness}");
    }
    // One text may lead to different stores from different clusters, as it is known of this id that there are several.
    let back = [member("a", "u", 1), member("b", "u", 2)];
    assert_eq!(standing(ID, &back, &known).unplaced, set(&["b"]));
}

#[test]
fn a_place_does_not_outlive_the_finding_that_moves_others_out_of_its_store() {
    let known = places(&[("a", ID, "u"), ("b", ID, "u"), ("c", ID, "u")]);
    let three = [member("a", "u", 1), member("b", "u", 2), member("c", "u", 3)];
    // c was away.
    let split = concluded(&three, &known, &found("b", &[], &["a"]));
    assert_eq!(split, expected(&[("a", 1), ("b", 2), ("c", 0)]));
    let after = places(&[("a", ID, "u"), ("b", &second(), "u"), ("c", ID, UNKNOWN)]);
    assert_eq!(standing(ID, &three, &after).unplaced, set(&["c"]));
    // Likewise where a cluster of one store turns out to be in another.
    let known = places(&[("a", ID, "u"), ("b", &second(), "v"), ("c", &second(), "w")]);
    let mut three = [member("a", "u", 1), member("b", "v", 2), member("c", "w", 3)];
    (three[1].store, three[2].store) = (second(), second());
    let taken = concluded(&three, &known, &found("a", &["b"], &[]));
    assert_eq!(taken, expected(&[("a", 1), ("b", 1), ("c", 0)]));
}

#[test]
fn a_suspicion_that_is_not_settled_leaves_those_unplaced_that_were_not_asked() {
    let three = [member("a", "u", 1), member("b", "u", 2), member("c", "u", 3)];
    let (none, finding) = (Places::default(), found("a", &["b"], &[]));
    for (suspected, expected) in [
        (true, expected(&[("a", 1), ("b", 1)])),
        (false, expected(&[("a", 1), ("b", 1), ("c", 1)])),
    ] {
        let mut excluded = Excluded::new();
        let placed = conclude(ID, (&three, &none), (&finding, suspected), &mut excluded);
        assert_eq!(numbered(placed), expected, "{suspected}");
    }
}

#[test]
fn a_finding_counts_for_the_locations_that_were_asked_alone() {
    let asked: BTreeMap<Arc<str>, String> = [("a", "u"), ("b", "v"), ("c", "w")]
        .map(|(c, urls)| (c.into(), urls.to_owned()))
        .into();
    let finding = found("a", &["b"], &["c"]);
    let with = |a: &str, b: &str| [member("a", a, 1), member("b", b, 2), member("c", "w", 3)];
    assert_eq!(
        as_asked(finding.clone(), &asked, &with("u", "v")),
        Some(finding.clone())
    );
    let changed = as_asked(finding.clone(), &asked, &with("u", "x"));
    assert_eq!(changed, Some(found("a", &[], &["c"])));
    assert_eq!(
        as_asked(finding.clone(), &asked, &with("x", "v")),
        None,
        "its witness"
    );
    // Clusters that are gone.
    assert_eq!(as_asked(finding, &asked, &with("u", "v")[..1]), None);
}
