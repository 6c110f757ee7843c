//! What makes a plan wait for a person.

use super::*;

#[test]
fn the_guard_is_per_cluster_and_not_over_the_whole_repository() {
    // 10 of a, 90 of b: nine of ten snapshots of a are 9 % of all.
    let mut snapshots = of_a(10);
    snapshots.extend((11..=100).map(|n| snapshot(n, "b")));
    let mut run = run(vec![policy("a/ns/p", &["fleet.cluster=a"])]);
    run.policies[0].max_removed_percent = 30;
    let remove = |n: u8| decided(&(n + 1..=10).collect::<Vec<_>>(), &(1..=n).collect::<Vec<_>>());
    assert_eq!(plan(&run, &snapshots, &[remove(3)]).action(""), Action::Apply);
    let nine = plan(&run, &snapshots, &[remove(9)]);
    assert_eq!(nine.action(""), Action::Wait);
    assert!(
        nine.guards[0]
            .to_string()
            .contains("9 of 10 snapshots of cluster a (90%"),
        "{:?}",
        nine.guards
    );
    assert_eq!(nine.action(&nine.document.hash), Action::Apply);
    assert_eq!(
        plan(&run, &snapshots, &[remove(8)]).action(&nine.document.hash),
        Action::Changed
    );
    // The percentage of a policy that removes nothing here stops nobody.
    let mut strict = policy("b/ns/q", &["fleet.cluster=b"]);
    strict.max_removed_percent = 0;
    run.policies.push(strict);
    let keeps_b = decided(&(11..=100).collect::<Vec<_>>(), &[]);
    assert_eq!(
        plan(&run, &snapshots, &[remove(3), keeps_b]).action(""),
        Action::Apply
    );
    assert!(matches!(
        plan(
            &run,
            &snapshots,
            &[remove(10), decided(&(11..=100).collect::<Vec<_>>(), &[])]
        )
        .guards[0],
        Guard::LastOfGroup(_)
    ));
}

#[test]
fn the_guard_is_per_group_too() {
    let group = |n: u8, host: &str| Snapshot {
        hostname: host.to_owned(),
        ..snapshot(n, "a")
    };
    let mut snapshots: Vec<Snapshot> = (1..=10).map(|n| group(n, "small")).collect();
    snapshots.extend((11..=100).map(|n| group(n, "large")));
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.policies[0].max_removed_percent = 30;
    let plan = plan(
        &run,
        &snapshots,
        &[decided(
            &(10..=100).collect::<Vec<_>>(),
            &(1..=9).collect::<Vec<_>>(),
        )],
    );
    assert_eq!((plan.action(""), plan.guards.len()), (Action::Wait, 1));
    assert!(
        plan.guards[0].to_string().contains("host small"),
        "{}",
        plan.guards[0]
    );
}

/// What the last applied run left, by this plan's own account.
fn after(plan: &Plan) -> Vec<Baseline> {
    plan.document.left.clone()
}

#[test]
fn a_policy_at_its_steady_state_never_waits() {
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.policies[0].max_removed_percent = 0;
    // keepLast 2, every hour: three are there, one is removed.
    run.baseline = after(&plan(&run, &of_a(2), &[decided(&[1, 2], &[])]));
    let hourly = plan(&run, &of_a(3), &[decided(&[2, 3], &[1])]);
    assert_eq!((hourly.action(""), hourly.guards.len()), (Action::Apply, 0));
    // A run that was missed ten times removes eleven.
    let late: Vec<u8> = (1..=11).collect();
    assert_eq!(
        plan(&run, &of_a(13), &[decided(&[12, 13], &late)]).action(""),
        Action::Apply
    );
    // Without a baseline the snapshots that are there count.
    run.baseline.clear();
    assert_eq!(
        plan(&run, &of_a(3), &[decided(&[2, 3], &[1])]).action(""),
        Action::Wait
    );
}

#[test]
fn fewer_snapshots_than_the_last_run_left_make_it_wait() {
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.policies[0].max_removed_percent = 30;
    run.baseline = after(&plan(
        &run,
        &of_a(100),
        &[decided(&(1..=100).collect::<Vec<_>>(), &[])],
    ));
    let keep = |n: u8| {
        decided(
            &(102 - n..=101).collect::<Vec<_>>(),
            &(1..=101 - n).collect::<Vec<_>>(),
        )
    };
    assert_eq!(plan(&run, &of_a(101), &[keep(70)]).action(""), Action::Apply);
    let typo = plan(&run, &of_a(101), &[keep(1)]);
    assert_eq!(typo.action(""), Action::Wait);
    assert!(
        typo.guards[0]
            .to_string()
            .contains("99% fewer than the last applied run left"),
        "{}",
        typo.guards[0]
    );
    // Rules by day and week keep one more or less: 3 and then 2 is no loss of a third.
    run.baseline = after(&plan(&run, &of_a(3), &[decided(&[1, 2, 3], &[])]));
    assert_eq!(
        plan(&run, &of_a(4), &[decided(&[3, 4], &[1, 2])]).action(""),
        Action::Apply
    );
    assert_eq!(
        plan(&run, &of_a(4), &[decided(&[4], &[1, 2, 3])]).action(""),
        Action::Wait
    );
}

#[test]
fn a_group_that_the_last_run_did_not_know_has_lost_nothing() {
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.policies[0].max_removed_percent = 30;
    run.baseline = vec![Baseline {
        key: "cluster/a".to_owned(),
        left: 2,
    }];
    let new = plan(
        &run,
        &of_a(24),
        &[decided(&[23, 24], &(1..=22).collect::<Vec<_>>())],
    );
    assert_eq!(new.action(""), Action::Apply, "{:?}", new.guards);
}

#[test]
fn a_group_that_was_cut_off_from_the_list_is_guarded_by_what_there_is_now() {
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.policies[0].max_removed_percent = 30;
    let host = |at: usize, n: u8| Snapshot {
        hostname: format!("host{at}"),
        ..snapshot(n, "a")
    };
    // Thirty groups of one snapshot each, of which a termination message has 24.
    let first: Vec<Snapshot> = (0..30).map(|at| host(at, at as u8 + 1)).collect();
    let all: Vec<u8> = (1..=30).collect();
    let mut left = plan(&run, &first, &[decided(&all, &[])]).document.left;
    assert!(!proto::plan::is_cut(&left));
    proto::plan::cut(&mut left, 24);
    let cut_off = (0..30).find(|&at| {
        let one = host(at, 1);
        let key = proto::plan::group_key(&one.hostname, &one.paths, &one.tags);
        left.iter().all(|entry| entry.key != key)
    });
    let cut_off = cut_off.unwrap();
    let now: Vec<Snapshot> = (1..=10).map(|n| host(cut_off, n)).collect();
    let removes = decided(&[10], &(1..=9).collect::<Vec<_>>());
    let mut action = |baseline: Vec<Baseline>| {
        run.baseline = baseline;
        plan(&run, &now, std::slice::from_ref(&removes)).guards
    };
    let of_group = |guards: &[Guard]| guards.iter().any(|guard| guard.to_string().contains("host host"));
    assert!(of_group(&action(left.clone())));
    // As a version without the mark has left it.
    left.remove(0);
    assert!(of_group(&action(left)));
}

#[test]
fn a_group_that_was_cut_off_from_the_list_may_lose_one_snapshot() {
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.policies[0].max_removed_percent = 30;
    let mark = |key: &str| Baseline {
        key: key.to_owned(),
        left: 0,
    };
    // 2 are kept of 3 each day: that is a third.
    let steady = decided(&[2, 3], &[1]);
    run.baseline = vec![mark("cut")];
    let plan_of =
        |run: &RetentionRun, decision: &RuleVerdict| plan(run, &of_a(3), std::slice::from_ref(decision));
    assert_eq!(plan_of(&run, &steady).action(""), Action::Apply);
    let two = decided(&[3], &[1, 2]);
    assert_eq!(plan_of(&run, &two).action(""), Action::Wait);
    // Before the first applied run nothing is exempt.
    run.baseline.clear();
    assert_eq!(plan_of(&run, &steady).action(""), Action::Wait);
}

#[test]
fn a_new_cluster_makes_the_plan_wait_also_when_no_figure_is_left_of_the_list() {
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.new_clusters = vec!["b".to_owned()];
    run.baseline = vec![Baseline {
        key: "cut".to_owned(),
        left: 0,
    }];
    let waits = plan(&run, &of_a(3), &[decided(&[2, 3], &[1])]);
    assert!(waits.guards.iter().any(|guard| guard.reason() == "NewCluster"));
}

#[test]
fn a_cluster_that_is_new_to_the_repository_makes_the_plan_wait_once() {
    let mut run = run(vec![policy("a/ns/p", &[])]);
    run.new_clusters = vec!["a".to_owned(), "b".to_owned()];
    // The first applied run of all: nobody was there before.
    assert_eq!(
        plan(&run, &of_a(3), &[decided(&[2, 3], &[1])]).action(""),
        Action::Apply
    );
    run.new_clusters = vec!["b".to_owned()];
    run.baseline = vec![Baseline {
        key: "cluster/a".to_owned(),
        left: 2,
    }];
    assert_eq!(
        plan(&run, &of_a(3), &[decided(&[1, 2, 3], &[])]).action(""),
        Action::Nothing
    );
    let waits = plan(&run, &of_a(3), &[decided(&[2, 3], &[1])]);
    assert_eq!(
        (waits.action(""), waits.guards[0].reason()),
        (Action::Wait, "NewCluster")
    );
    assert_eq!(waits.action(&waits.document.hash), Action::Apply);
    run.new_clusters.clear();
    assert_eq!(
        plan(&run, &of_a(3), &[decided(&[2, 3], &[1])]).action(""),
        Action::Apply
    );
}
