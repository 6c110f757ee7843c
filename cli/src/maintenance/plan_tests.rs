//! A plan as a person reads it.

use proto::plan::{Guard, Keeper, OutOfReach, PlanPolicy};

use super::*;

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn now() -> Timestamp {
    Timestamp::from_second(10_000).unwrap()
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn removal(n: usize) -> Removal {
    Removal {
        id: format!("{n:02x}").repeat(32),
        time: format!("2026-01-{:02}T03:00:00.123456789Z", n % 28 + 1),
        host: "data-0".to_owned(),
        tags: list(&["fleet.backup=db", "fleet.cluster=a"]),
        paths: list(&["/data"]),
        by: list(&["a/shop/nightly"]),
    }
}

fn document() -> PlanDocument {
    PlanDocument {
        snapshots: 14,
        remove: vec![removal(1), removal(2)],
        previewed: vec![removal(3)],
        policies: vec![
            PlanPolicy {
                source: "a/shop/nightly".to_owned(),
                generation: 3,
                ..PlanPolicy::default()
            },
            PlanPolicy {
                source: "b/shop/yearly".to_owned(),
                generation: 1,
                preview: true,
                suspended: false,
            },
        ],
        keepers: vec![Keeper {
            source: "b/shop/yearly".to_owned(),
            snapshots: 5,
        }],
        groups: vec![Group {
            host: "data-0".to_owned(),
            tags: list(&["fleet.backup=db", "fleet.cluster=a"]),
            paths: list(&["/data"]),
            keep: 3,
            remove: 2,
            oldest: Some("2026-01-02T03:00:00Z".to_owned()),
        }],
        out_of_reach: vec![
            OutOfReach {
                cluster: "old".to_owned(),
                uid: String::new(),
                snapshots: 7,
            },
            OutOfReach {
                snapshots: 1,
                ..OutOfReach::default()
            },
        ],
        guards: vec![Guard {
            reason: "OverGuard".to_owned(),
            message: "it removes 2 of 5 snapshots of cluster a".to_owned(),
        }],
        unmatched: list(&["a/shop/typo"]),
        faults: vec![PolicyFault {
            source: "c/shop/broken".to_owned(),
            text: "keepWithin \"1x\" is no span".to_owned(),
        }],
        ..PlanDocument::default()
    }
}

fn plan(document: &PlanDocument) -> Plan {
    let line = PlanLine {
        plan: document.clone(),
    };
    Plan {
        id: "nas-4".to_owned(),
        repository: "nas".to_owned(),
        restic_id: "ab".repeat(32),
        hash: "cd".repeat(32),
        state: "waiting".to_owned(),
        made: at(6_400),
        cluster: "a".to_owned(),
        subject: "retention shop/nightly".to_owned(),
        document: serde_json::to_string(&line).unwrap(),
        outcome: Some(OperationOutcome {
            message: "plan would remove 2 of 14 snapshots; nothing was removed, approval required".to_owned(),
            planned: 2,
            snapshots: 14,
            policies: list(&["a/shop/nightly@3", "b/shop/yearly@1"]),
            ..OperationOutcome::default()
        }),
        ..Plan::default()
    }
}

#[test]
fn a_plan_says_what_goes_what_waits_who_keeps_and_what_stays_and_why() {
    insta::assert_snapshot!(show(&plan(&document()), false, now()));
}

#[test]
fn wide_has_whole_ids_paths_and_tags() {
    let text = show(&plan(&document()), true, now());
    let line = format!(
        "{}  2026-01-02T03:00:00Z  data-0  /data  fleet.backup=db,fleet.cluster=a  a/shop/nightly",
        "01".repeat(32)
    );
    assert!(text.lines().any(|l| l == line), "{text}");
}

#[test]
fn a_long_plan_names_the_oldest_snapshots_and_how_many_more() {
    let long = PlanDocument {
        remove: (0..120).map(removal).collect(),
        ..document()
    };
    let text = show(&plan(&long), false, now());
    assert!(text.contains("and 100 more: -o wide"), "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| line.contains(" a/shop/nightly"))
            .count(),
        SHOWN + 2
    );
    let wide = show(&plan(&long), true, now());
    assert!((0..120).all(|n| wide.contains(&removal(n).id)));
}

#[test]
fn without_its_document_a_plan_still_names_policies_and_faults() {
    let mut plan = plan(&document());
    plan.document = String::new();
    plan.document_missing = "the plans of older runs were removed to bound the store".to_owned();
    let outcome = plan.outcome.as_mut().unwrap();
    outcome.faults = document().faults;
    let text = show(&plan, false, now());
    for part in [
        "removes   2 of 14 snapshots\n",
        "faults    c/shop/broken: keepWithin \"1x\" is no span; all that it could match is kept\n",
        "policies  a/shop/nightly@3\n          b/shop/yearly@1\n",
        "snapshots the plans of older runs were removed to bound the store\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn text_of_clusters_moves_no_cursor_and_adds_no_line() {
    let mut document = document();
    document.faults[0].text = "x\u{1b}[2J\nremoves   0 of 0".to_owned();
    document.guards[0].message = "y\nNOTHING".to_owned();
    document.remove[0].tags = list(&["fleet.backup=db\n\u{1b}[1A", "fleet.cluster=a"]);
    let text = show(&plan(&document), false, now());
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(text.lines().filter(|line| line.starts_with("removes")).count(), 1);
    assert!(!text.lines().any(|line| line == "NOTHING"));
}

#[test]
fn a_document_that_does_not_have_the_hash_of_its_plan_is_noticed() {
    let mut document = PlanDocument {
        restic_id: "r".to_owned(),
        ..document()
    };
    let ids: Vec<String> = document.remove.iter().map(|removal| removal.id.clone()).collect();
    let hash = plan_hash("r", ids.iter().map(String::as_str));
    let plan = |document: &PlanDocument| Plan {
        restic_id: "r".to_owned(),
        hash: hash.clone(),
        document: serde_json::to_string(&PlanLine {
            plan: document.clone(),
        })
        .unwrap(),
        ..Plan::default()
    };
    assert!(has_its_hash(&plan(&document)));
    document.remove.pop();
    // Its own word about its hash does not count.
    document.hash.clone_from(&hash);
    assert!(!has_its_hash(&plan(&document)));
    let none = Plan {
        document: String::new(),
        ..plan(&document)
    };
    assert!(has_its_hash(&none));
    let unreadable = Plan {
        document: "{".to_owned(),
        ..plan(&document)
    };
    assert!(!has_its_hash(&unreadable));
}
