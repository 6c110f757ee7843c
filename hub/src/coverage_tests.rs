//! A table of claims, each with its truth.

use std::sync::Arc;

use proto::v1::{ClaimsReport, NamespaceClaims};

use super::*;
use crate::Moment;
use crate::access::scope::{Patterns, Scope};
use crate::access::{Grant, Method, Person, Sight, Verb};
use crate::inventory::{Change, Facts, Introduction, Inventory, Limits};

const NOW: Millis = 100 * DAY;

fn fleet() -> Inventory {
    let limits = Limits {
        stale_after: 30_000,
        grace: 15_000,
        objects: 10,
        bytes: 1 << 20,
    };
    let mut inventory = Inventory::new(limits, 0, Moment::from(NOW));
    for name in ["a", "b", "old"] {
        attach(&mut inventory, name, 1, "2");
    }
    inventory
}

fn attach(inventory: &mut Inventory, name: &str, session: u64, version: &str) {
    let introduction = Introduction {
        facts: Facts {
            cluster_uid: name.to_owned(),
            version: version.to_owned(),
            ..Facts::default()
        },
        incarnation: "one".to_owned(),
        ..Introduction::default()
    };
    let name: Arc<str> = name.into();
    inventory
        .attach(&name, session, introduction, Moment::from(NOW))
        .unwrap();
}

fn claim(namespace: &str, name: &str, age: Millis) -> Claim {
    Claim {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        created: Some(from_unix_millis(NOW - age)),
        bytes: 7,
        ..Claim::default()
    }
}

fn excluded(name: &str, until: Option<Millis>) -> Claim {
    Claim {
        exclusion: "a cache".to_owned(),
        excluded_until: until.map(from_unix_millis),
        ..claim("shop", name, 50 * DAY)
    }
}

fn report(inventory: &mut Inventory, cluster: &str, counts: &[(&str, u64, u64)], open: Vec<Claim>) {
    let namespaces = counts.iter().map(|(namespace, claims, covered)| NamespaceClaims {
        namespace: (*namespace).to_owned(),
        claims: *claims,
        covered: *covered,
    });
    let report = ClaimsReport {
        namespaces: namespaces.collect(),
        open,
        cut: false,
    };
    inventory.take_claims(&cluster.into(), 1, report).unwrap();
}

fn known() -> Inventory {
    let mut inventory = fleet();
    let open = vec![
        claim("ops", "logs", 2 * DAY),
        claim("shop", "fresh", DAY - 1),
        claim("shop", "orders", DAY),
        excluded("cache", None),
        excluded("ended", Some(NOW)),
        excluded("for-now", Some(NOW + 1)),
    ];
    report(&mut inventory, "a", &[("ops", 1, 0), ("shop", 7, 2)], open);
    report(&mut inventory, "b", &[("shop", 3, 3)], Vec::new());
    inventory
}

fn keys(answer: &CoverageResponse) -> Vec<(&str, &str)> {
    let rows = answer.rows.iter();
    rows.map(|row| (row.state.as_str(), row.key.as_str())).collect()
}

fn asked(states: &[&str]) -> CoverageRequest {
    CoverageRequest {
        states: states.iter().map(|state| (*state).to_owned()).collect(),
        ..CoverageRequest::default()
    }
}

#[test]
fn every_claim_is_covered_uncovered_new_excluded_or_of_an_unknown_cluster() {
    let inventory = known();
    let answer = coverage(Seen::whole(&inventory), &CoverageRequest::default()).unwrap();
    let counts = (
        answer.claims,
        answer.covered,
        answer.uncovered,
        answer.new,
        answer.excluded,
    );
    assert_eq!(counts, (11, 5, 3, 1, 2));
    assert_eq!(
        (answer.unknown_clusters, answer.unknown.as_slice()),
        (1, &["old".to_owned()][..])
    );
    let open = [
        ("uncovered", "a/ops/logs"),
        ("uncovered", "a/shop/ended"),
        ("uncovered", "a/shop/orders"),
        ("new", "a/shop/fresh"),
    ];
    assert_eq!(keys(&answer), open);
    assert!(
        answer.rows[1].reason.starts_with("its exclusion ended at"),
        "{}",
        answer.rows[1].reason
    );
    let answer = coverage(Seen::whole(&inventory), &asked(&["excluded"])).unwrap();
    assert_eq!(
        keys(&answer),
        [("excluded", "a/shop/cache"), ("excluded", "a/shop/for-now")]
    );
    assert_eq!(answer.rows[0].reason, "a cache");
    assert_eq!(
        (answer.total, answer.uncovered),
        (2, 3),
        "counts are of all states"
    );
}

#[test]
fn a_cluster_of_which_some_namespaces_are_watched_is_not_called_covered() {
    let mut inventory = fleet();
    report(&mut inventory, "a", &[("shop", 2, 2)], Vec::new());
    report(&mut inventory, "b", &[("shop", 1, 1)], Vec::new());
    let partial = |inventory: &Inventory| {
        let answer = coverage(Seen::whole(inventory), &CoverageRequest::default()).unwrap();
        assert_eq!((answer.covered, answer.uncovered), (3, 0));
        (answer.partial_clusters, answer.partial)
    };
    assert_eq!(partial(&inventory), (0, Vec::new()));
    let introduction = Introduction {
        facts: inventory.member("b").unwrap().facts.clone(),
        namespaces: vec!["shop".to_owned()],
        ..Introduction::default()
    };
    inventory
        .attach(&"b".into(), 99, introduction, Moment::from(NOW))
        .unwrap();
    assert_eq!(partial(&inventory), (1, vec!["b".to_owned()]));
}

#[test]
fn what_silent_clusters_had_covered_is_counted_apart_and_they_are_named() {
    let mut inventory = known();
    for name in ["a", "b"] {
        let everything = Change {
            whole: true,
            ..Change::default()
        };
        inventory
            .apply(&name.into(), 1, everything, Moment::from(NOW))
            .unwrap();
    }
    let answer = |inventory: &Inventory| {
        let answer = coverage(Seen::whole(inventory), &CoverageRequest::default()).unwrap();
        (
            answer.covered,
            answer.covered_stale,
            answer.stale_clusters,
            answer.stale,
        )
    };
    assert_eq!(answer(&inventory), (5, 0, 0, Vec::new()));
    inventory.detach(&"b".into(), 1, Moment::from(NOW));
    inventory.advance(Moment::from(NOW + 20_000));
    // "old" is silent too; it has reported nothing, so it is named as unknown alone.
    assert_eq!(answer(&inventory), (5, 3, 1, vec!["b".to_owned()]));
}

#[test]
fn an_exclusion_that_does_not_count_says_why() {
    let mut inventory = fleet();
    let faulty = Claim {
        exclusion_fault: "the annotation gives no reason".to_owned(),
        ..claim("shop", "orders", 2 * DAY)
    };
    let ageless = Claim {
        created: None,
        ..claim("shop", "unknown", 0)
    };
    report(&mut inventory, "a", &[("shop", 2, 0)], vec![faulty, ageless]);
    let answer = coverage(Seen::whole(&inventory), &CoverageRequest::default()).unwrap();
    assert_eq!(
        keys(&answer),
        [("uncovered", "a/shop/orders"), ("uncovered", "a/shop/unknown")]
    );
    assert!(answer.rows[0].reason.contains("no reason"));
}

#[test]
fn pages_hold_each_claim_once() {
    let inventory = known();
    let mut request = CoverageRequest {
        page_size: 2,
        ..asked(&["uncovered", "new", "excluded"])
    };
    let mut seen = Vec::new();
    loop {
        let answer = coverage(Seen::whole(&inventory), &request).unwrap();
        assert_eq!(answer.total, 6);
        seen.extend(answer.rows.iter().map(|row| row.key.clone()));
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    let unique: std::collections::BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), unique.len()), (6, 6));
    request.page_token = "zz".to_owned();
    assert_eq!(
        coverage(Seen::whole(&inventory), &request),
        Err(QueryError::Token)
    );
}

#[test]
fn a_person_sees_and_counts_the_own_namespaces_alone() {
    let inventory = known();
    let list = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        Patterns::new(&texts).unwrap()
    };
    let scope = Scope {
        clusters: list(&["a"]),
        namespaces: list(&["ops"]),
        ..Scope::default()
    };
    let grant = Grant {
        verbs: "viewer".parse().unwrap(),
        scope,
    };
    let person = Person::new("ann".into(), Vec::new(), Method::Certificate(None), vec![grant]);
    let sight: Sight = person.sight(Verb::See);
    let seen = Seen::new(&inventory, &sight);
    let answer = coverage(seen, &CoverageRequest::default()).unwrap();
    // Nothing of the operator's is in the namespace, and it is seen all the same.
    assert_eq!(keys(&answer), [("uncovered", "a/ops/logs")]);
    assert_eq!(
        (answer.claims, answer.excluded, answer.unknown_clusters),
        (1, 0, 0)
    );
    let of = |cluster: &str| CoverageRequest {
        clusters: vec![cluster.to_owned()],
        ..CoverageRequest::default()
    };
    let missing = |cluster: &str| matches!(coverage(seen, &of(cluster)), Err(QueryError::Cluster { .. }));
    assert!(missing("b") && missing("none") && !missing("a"));
}

#[test]
fn a_spoke_of_another_version_makes_its_claims_unknown_until_it_reports_them() {
    let mut inventory = known();
    attach(&mut inventory, "b", 2, "2");
    assert!(inventory.member("b").unwrap().claims().is_some());
    attach(&mut inventory, "b", 3, "1");
    assert!(inventory.member("b").unwrap().claims().is_none());
    let answer = coverage(Seen::whole(&inventory), &asked(&[])).unwrap();
    assert_eq!((answer.unknown_clusters, answer.claims), (2, 8));
    let wrong = asked(&["unknwon"]);
    assert!(matches!(
        coverage(Seen::whole(&inventory), &wrong),
        Err(QueryError::State { .. })
    ));
}
