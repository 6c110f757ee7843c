use super::*;

fn snapshot(n: u8, cluster: &str) -> Snapshot {
    Snapshot {
        id: format!("{n:064x}"),
        time: jiff::Timestamp::from_second(i64::from(n) * 1000).unwrap(),
        hostname: "orders".to_owned(),
        tags: vec![format!("fleet.cluster={cluster}")],
        paths: vec!["/backup".to_owned()],
    }
}

fn policy(source: &str, preview: bool) -> RetentionPolicySpec {
    RetentionPolicySpec {
        source: source.to_owned(),
        generation: 1,
        preview,
        max_removed_percent: 100,
        rules: vec![proto::v1::RetentionRule::default()],
        ..RetentionPolicySpec::default()
    }
}

fn decision(keep: &[u8], remove: &[u8]) -> Decision {
    let ids = |list: &[u8]| list.iter().map(|n| format!("{n:064x}")).collect();
    Decision {
        keep: ids(keep),
        remove: ids(remove),
    }
}

fn run(policies: Vec<RetentionPolicySpec>) -> RetentionRun {
    RetentionRun {
        restic_id: "r".to_owned(),
        policies,
        clusters: vec!["a".to_owned(), "b".to_owned()],
        approved: String::new(),
        ..Default::default()
    }
}

fn numbers(plan: &Plan) -> Vec<usize> {
    plan.ids()
        .map(|id| usize::from_str_radix(id, 16).unwrap())
        .collect()
}

#[test]
fn what_one_policy_keeps_no_other_removes() {
    let snapshots: Vec<Snapshot> = (1..=4).map(|n| snapshot(n, "a")).collect();
    let run = run(vec![policy("a/ns/p", false), policy("b/ns/q", false)]);
    let decisions = [vec![decision(&[4], &[1, 2, 3])], vec![decision(&[2, 3], &[1, 4])]];
    let plan = make(&run, &snapshots, &decisions);
    assert_eq!(numbers(&plan), [1]);
    assert_eq!((plan.kept_by_others, plan.verdict("")), (3, Verdict::Apply));
    assert_eq!(plan.remove[0].by, ["a/ns/p", "b/ns/q"]);
}

#[test]
fn a_first_run_removes_nothing_and_keeps_what_it_keeps() {
    let snapshots: Vec<Snapshot> = (1..=4).map(|n| snapshot(n, "a")).collect();
    let decisions = [vec![decision(&[3, 4], &[1, 2])], vec![decision(&[2, 4], &[1, 3])]];
    let plan = make(
        &run(vec![policy("a/ns/p", true), policy("b/ns/q", false)]),
        &snapshots,
        &decisions,
    );
    assert_eq!(numbers(&plan), [1]);
    let plan = make(
        &run(vec![policy("a/ns/p", true), policy("b/ns/q", true)]),
        &snapshots,
        &decisions,
    );
    assert!(plan.preview);
    assert_eq!((numbers(&plan), plan.verdict("")), (vec![1], Verdict::Preview));
    let mut approved = run(vec![policy("a/ns/p", true), policy("b/ns/q", true)]);
    approved.approved.clone_from(&plan.hash);
    let again = make(&approved, &snapshots, &decisions);
    assert_eq!(
        (again.preview, again.verdict(&approved.approved)),
        (false, Verdict::Apply)
    );
}

#[test]
fn snapshots_of_clusters_that_nobody_knows_stay_unless_they_are_named() {
    let snapshots = [snapshot(1, "a"), snapshot(2, "lost"), snapshot(3, "a")];
    let decisions = [vec![decision(&[3], &[1, 2])]];
    let mut run = run(vec![policy("a/ns/p", false)]);
    let plan = make(&run, &snapshots, &decisions);
    assert_eq!(numbers(&plan), [1]);
    assert_eq!(plan.unknown_clusters, BTreeMap::from([("lost".to_owned(), 1)]));
    run.policies[0].rules = vec![proto::v1::RetentionRule {
        tags: vec!["fleet.cluster=lost".to_owned()],
        ..proto::v1::RetentionRule::default()
    }];
    assert_eq!(numbers(&make(&run, &snapshots, &decisions)), [1, 2]);
}

#[test]
fn what_a_policy_wants_that_is_not_understood_stays() {
    let snapshots = [snapshot(1, "a"), snapshot(2, "b"), snapshot(3, "a")];
    let mut run = run(vec![policy("a/ns/p", false), policy("b/ns/q", false)]);
    run.policies[1].rules.clear();
    let plan = make(&run, &snapshots, &[vec![decision(&[3], &[1, 2])], vec![]]);
    assert_eq!(numbers(&plan), [1]);
}

#[test]
fn the_guard_stops_what_looks_like_a_mistake() {
    let snapshots: Vec<Snapshot> = (1..=10).map(|n| snapshot(n, "a")).collect();
    let mut run = run(vec![policy("a/ns/p", false), policy("b/ns/q", false)]);
    run.policies[1].max_removed_percent = 30;
    let make = |run: &RetentionRun, remove: &[u8]| {
        let keep: Vec<u8> = (1..=10).filter(|n| !remove.contains(n)).collect();
        make(run, &snapshots, &[vec![decision(&keep, remove)], vec![]])
    };
    assert_eq!(make(&run, &[1, 2, 3]).verdict(""), Verdict::Apply);
    let plan = make(&run, &[1, 2, 3, 4]);
    assert_eq!(plan.verdict(""), Verdict::Wait);
    assert!(plan.guard.as_ref().unwrap().to_string().contains("40%"));
    assert_eq!(plan.verdict(&plan.hash), Verdict::Apply);
    assert_eq!(make(&run, &[1, 2, 3, 5]).verdict(&plan.hash), Verdict::Changed);
    run.policies[1].max_removed_percent = 100;
    let all: Vec<u8> = (1..=10).collect();
    assert!(matches!(make(&run, &all).guard, Some(Guard::LastOfGroup(_))));
    assert_eq!(make(&run, &[]).verdict(""), Verdict::Nothing);
}

#[test]
fn a_policy_that_matches_nothing_is_named() {
    let plan = make(
        &run(vec![policy("a/ns/p", false)]),
        &[snapshot(1, "a")],
        &[vec![Decision::default()]],
    );
    assert_eq!(
        (plan.unmatched, plan.remove.len()),
        (vec!["a/ns/p".to_owned()], 0)
    );
}

#[test]
fn the_hash_knows_the_snapshots_that_go_and_no_others() {
    let decisions = [vec![decision(&[3], &[1, 2])]];
    let three: Vec<Snapshot> = (1..=3).map(|n| snapshot(n, "a")).collect();
    let four: Vec<Snapshot> = (1..=4).map(|n| snapshot(n, "a")).collect();
    let run = run(vec![policy("a/ns/p", false)]);
    assert_eq!(
        make(&run, &three, &decisions).hash,
        make(&run, &four, &decisions).hash
    );
}
