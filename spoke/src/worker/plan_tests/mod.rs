mod guard;

use proto::v1::{Baseline, ClusterUid, RetentionRule};

use super::*;

fn tagged(n: u8, tags: &[&str]) -> Snapshot {
    Snapshot {
        summary: None,
        id: format!("{n:064x}"),
        time: jiff::Timestamp::from_second(i64::from(n) * 1000).unwrap(),
        hostname: "orders".to_owned(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        paths: vec!["/backup".to_owned()],
        excludes: Vec::new(),
    }
}

fn snapshot(n: u8, cluster: &str) -> Snapshot {
    tagged(n, &[&format!("fleet.cluster={cluster}")])
}

fn selecting(tags: &[&str]) -> RetentionRule {
    RetentionRule {
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        keep_last: 1,
        ..RetentionRule::default()
    }
}

fn policy(source: &str, tags: &[&str]) -> RetentionPolicySpec {
    RetentionPolicySpec {
        source: source.to_owned(),
        generation: 1,
        fingerprint: "f".to_owned(),
        max_removed_percent: 100,
        rules: vec![selecting(tags)],
        ..RetentionPolicySpec::default()
    }
}

fn preview(source: &str, tags: &[&str]) -> RetentionPolicySpec {
    RetentionPolicySpec {
        preview: true,
        ..policy(source, tags)
    }
}

fn decided(keep: &[u8], remove: &[u8]) -> RuleVerdict {
    let ids = |list: &[u8]| list.iter().map(|n| format!("{n:064x}")).collect();
    RuleVerdict::Decided(Decision {
        keep: ids(keep),
        remove: ids(remove),
    })
}

fn run(policies: Vec<RetentionPolicySpec>) -> RetentionRun {
    RetentionRun {
        restic_id: "r".to_owned(),
        policies,
        clusters: vec!["a".to_owned(), "b".to_owned()],
        ..RetentionRun::default()
    }
}

/// One verdict per policy.
fn plan(run: &RetentionRun, snapshots: &[Snapshot], verdicts: &[RuleVerdict]) -> Plan {
    let verdicts: Vec<Vec<RuleVerdict>> = verdicts.iter().map(|v| vec![v.clone()]).collect();
    make(run, snapshots, &verdicts).unwrap()
}

fn numbers(plan: &Plan) -> Vec<usize> {
    plan.ids()
        .map(|id| usize::from_str_radix(id, 16).unwrap())
        .collect()
}

fn of_a(count: u8) -> Vec<Snapshot> {
    (1..=count).map(|n| snapshot(n, "a")).collect()
}

#[test]
fn what_one_policy_keeps_no_other_removes() {
    let run = run(vec![policy("a/ns/p", &[]), policy("b/ns/q", &[])]);
    let verdicts = [decided(&[4], &[1, 2, 3]), decided(&[2, 3], &[1, 4])];
    let plan = plan(&run, &of_a(4), &verdicts);
    assert_eq!(numbers(&plan), [1]);
    assert_eq!(
        (plan.document.kept_by_others, plan.action("")),
        (3, Action::Apply)
    );
    assert_eq!(plan.document.remove[0].by, ["a/ns/p", "b/ns/q"]);
    let keepers: Vec<_> = plan
        .document
        .keepers
        .iter()
        .map(|k| (&*k.source, k.snapshots))
        .collect();
    assert_eq!(keepers, [("a/ns/p", 1), ("b/ns/q", 2)]);
    assert_eq!(plan.staying.len(), 3);
    let matched: Vec<_> = plan
        .matched
        .iter()
        .map(|of| (&*of.source, of.present, of.going))
        .collect();
    assert_eq!(matched, [("a/ns/p", 4, 1), ("b/ns/q", 4, 1)]);
}

#[test]
fn without_a_verdict_on_everything_that_a_rule_matches_there_is_no_plan() {
    let two = run(vec![policy("a/ns/p", &[]), policy("b/ns/q", &[])]);
    let make = |verdicts: &[Vec<RuleVerdict>]| make(&two, &of_a(3), verdicts);
    // An empty answer, which is what restic prints when a listing was refused.
    let empty = make(&[vec![decided(&[], &[])], vec![decided(&[3], &[1, 2])]]);
    assert!(
        matches!(&empty, Err(Broken::NoVerdict { policy, count: 3, .. }) if policy == "a/ns/p"),
        "{empty:?}"
    );
    // One snapshot that could not be loaded.
    let partial = make(&[vec![decided(&[3], &[1, 2])], vec![decided(&[3], &[2])]]);
    assert!(
        matches!(&partial, Err(Broken::NoVerdict { policy, count: 1, .. }) if policy == "b/ns/q"),
        "{partial:?}"
    );
    assert!(matches!(
        make(&[vec![decided(&[3], &[1, 2])]]),
        Err(Broken::Missing(_))
    ));
    // A verdict on what the rule does not match: restic and this plan do not mean the same.
    let tagged = run(vec![policy("a/ns/p", &["gold"])]);
    let other = super::make(&tagged, &of_a(1), &[vec![decided(&[1], &[])]]);
    assert!(matches!(other, Err(Broken::Mismatch { .. })));
    // What was added since the listing is left alone.
    let newer = make(&[
        vec![decided(&[3, 9], &[1, 2, 8])],
        vec![decided(&[9], &[1, 2, 3])],
    ])
    .unwrap();
    assert_eq!(numbers(&newer), [1, 2]);
}

#[test]
fn a_preview_removes_nothing_and_keeps_what_it_keeps() {
    let snapshots = of_a(4);
    let verdicts = [decided(&[3, 4], &[1, 2]), decided(&[2, 4], &[1, 3])];
    let mixed = run(vec![preview("a/ns/p", &[]), policy("b/ns/q", &[])]);
    assert_eq!(numbers(&plan(&mixed, &snapshots, &verdicts)), [1]);
    let both = run(vec![preview("a/ns/p", &[]), preview("b/ns/q", &[])]);
    let shown = plan(&both, &snapshots, &verdicts);
    assert!(shown.document.preview);
    assert_eq!(shown.shown, ["a/ns/p#f", "b/ns/q#f"]);
    assert_eq!((numbers(&shown), shown.action("")), (vec![1], Action::Preview));
    let mut approved = both;
    approved.approved.clone_from(&shown.document.hash);
    let again = plan(&approved, &snapshots, &verdicts);
    assert_eq!(
        (again.document.preview, again.action(&approved.approved)),
        (false, Action::Apply)
    );
}

#[test]
fn a_suspended_policy_removes_nothing_even_by_approval() {
    let mut suspended = preview("a/ns/p", &[]);
    suspended.suspended = true;
    let mut run = run(vec![suspended, preview("b/ns/q", &[])]);
    let snapshots = of_a(4);
    let verdicts = [decided(&[4], &[1, 2, 3]), decided(&[2, 4], &[1, 3])];
    let shown = plan(&run, &snapshots, &verdicts);
    assert_eq!(
        (numbers(&shown), shown.document.remove[0].by.clone()),
        (vec![1, 3], vec!["b/ns/q".to_owned()])
    );
    assert_eq!(shown.shown, ["b/ns/q#f"]);
    run.policies.truncate(1);
    let alone = plan(&run, &snapshots, &verdicts[..1]);
    assert_eq!(
        (alone.action(""), alone.document.previewed.len()),
        (Action::Nothing, 0)
    );
    // The hash of what it would remove approves nothing.
    run.approved = plan_hash("r", alone.staying.iter().take(3).map(String::as_str));
    assert!(numbers(&plan(&run, &snapshots, &verdicts[..1])).is_empty());
}

#[test]
fn snapshots_of_unbound_clusters_stay_unless_a_rule_in_force_names_them() {
    let snapshots = [snapshot(1, "a"), snapshot(2, "lost"), snapshot(3, "a")];
    let all = || decided(&[3], &[1, 2]);
    let plain = plan(&run(vec![policy("a/ns/p", &[])]), &snapshots, &[all()]);
    assert_eq!(numbers(&plain), [1]);
    let reach: Vec<_> = plain
        .document
        .out_of_reach
        .iter()
        .map(|o| (&*o.cluster, o.snapshots))
        .collect();
    assert_eq!(reach, [("lost", 1)]);
    let named = policy("a/ns/p", &["fleet.cluster=lost"]);
    let only = plan(&run(vec![named.clone()]), &snapshots, &[decided(&[], &[2])]);
    assert_eq!(numbers(&only), [2]);
    // A rule that names them and is only shown, or suspended, opens them to nobody else.
    for standing in [(true, false), (true, true)] {
        let mut named = named.clone();
        (named.preview, named.suspended) = standing;
        let both = run(vec![named, policy("b/ns/q", &[])]);
        let plan = plan(&both, &snapshots, &[decided(&[], &[2]), all()]);
        assert_eq!(numbers(&plan), [1], "{standing:?}");
    }
}

#[test]
fn untagged_snapshots_stay_unless_a_rule_names_a_tag_or_host_of_theirs() {
    let snapshots = [tagged(1, &[]), tagged(2, &["laptop"]), snapshot(3, "a")];
    let plain = plan(
        &run(vec![policy("a/ns/p", &[])]),
        &snapshots,
        &[decided(&[], &[1, 2, 3])],
    );
    assert_eq!(numbers(&plain), [3]);
    assert_eq!(
        plain.document.out_of_reach[0],
        OutOfReach {
            snapshots: 2,
            ..OutOfReach::default()
        }
    );
    let tag = plan(
        &run(vec![policy("a/ns/p", &["laptop"])]),
        &snapshots,
        &[decided(&[], &[2])],
    );
    assert_eq!(numbers(&tag), [2]);
    let mut host = policy("a/ns/p", &[]);
    host.rules[0].hostname = "orders".to_owned();
    let host_run = run(vec![host.clone()]);
    assert_eq!(
        numbers(&plan(&host_run, &snapshots, &[decided(&[], &[1, 2, 3])])),
        [1, 2, 3]
    );
    host.own_cluster_only = true;
    assert_eq!(
        numbers(&plan(&run(vec![host]), &snapshots, &[decided(&[], &[1, 2, 3])])),
        [3]
    );
}

#[test]
fn a_policy_of_its_own_cluster_alone_reaches_no_other() {
    let snapshots = [snapshot(1, "a"), snapshot(2, "b"), snapshot(3, "lost")];
    let mut own = policy("b/ns/p", &[]);
    own.own_cluster_only = true;
    let plan = plan(&run(vec![own]), &snapshots, &[decided(&[], &[1, 2, 3])]);
    assert_eq!(numbers(&plan), [2]);
    let reach: Vec<_> = plan.document.out_of_reach.iter().map(|o| &*o.cluster).collect();
    assert_eq!(reach, ["a", "lost"]);
}

#[test]
fn a_cluster_of_the_same_name_and_another_uid_is_not_known() {
    let of = |n: u8, uid: &str| tagged(n, &["fleet.cluster=a", &format!("fleet.cluster-uid={uid}")]);
    let snapshots = [of(1, "u1"), of(2, "u2"), snapshot(3, "a")];
    let mut run = run(vec![policy("a/ns/p", &[])]);
    assert_eq!(
        numbers(&plan(&run, &snapshots, &[decided(&[], &[1, 2, 3])])),
        [1, 2, 3]
    );
    run.cluster_uids = vec![ClusterUid {
        cluster: "a".to_owned(),
        uid: "u1".to_owned(),
    }];
    let foreign = plan(&run, &snapshots, &[decided(&[], &[1, 2, 3])]);
    assert_eq!(numbers(&foreign), [1, 3]);
    assert_eq!(foreign.document.out_of_reach[0].uid, "u2");
    run.policies[0].rules[0].tags = vec!["fleet.cluster=a".to_owned()];
    assert_eq!(
        numbers(&plan(&run, &snapshots, &[decided(&[], &[1, 2, 3])])),
        [1, 3]
    );
    run.policies[0].rules[0].tags = vec!["fleet.cluster-uid=u2".to_owned()];
    assert_eq!(numbers(&plan(&run, &snapshots, &[decided(&[], &[2])])), [2]);
}

#[test]
fn snapshots_of_a_suspicious_backup_stay_and_others_go() {
    let of = |n: u8, backup: &str| tagged(n, &["fleet.cluster=a", &format!("fleet.backup={backup}")]);
    let snapshots = [
        of(1, "shop/orders"),
        of(2, "shop/orders"),
        of(3, "shop/other"),
        of(4, "shop/other"),
    ];
    let why = "its source is suddenly far smaller than before";
    let hold = proto::hold::hold("a", "shop/orders", "uid", why, crds::rules::RULES_VERSION);
    let verdicts = [vec![decided(&[2, 4], &[1, 3])], vec![]];
    let make =
        |policies: Vec<RetentionPolicySpec>| super::make(&run(policies), &snapshots, &verdicts).unwrap();
    assert_eq!(numbers(&make(vec![policy("a/ns/p", &[])])), [1, 3]);
    let held = make(vec![policy("a/ns/p", &[]), hold]);
    assert_eq!((numbers(&held), held.blocked), (vec![3], 1));
    assert!(held.stopped_by.is_none() && held.document.faults[0].text == why);
}

#[test]
fn what_an_unclear_policy_could_match_stays() {
    let snapshots = [snapshot(1, "a"), snapshot(2, "b"), snapshot(3, "a")];
    let mut unclear = policy("b/ns/q", &["fleet.cluster=b"]);
    unclear.unclear = "spec.policies[0].retention keeps nothing".to_owned();
    // A guard of 0 is not what protects here.
    unclear.max_removed_percent = 100;
    let verdicts = [vec![decided(&[3], &[1, 2])], vec![]];
    let make = |policy: RetentionPolicySpec| {
        super::make(
            &run(vec![super::tests::policy("a/ns/p", &[]), policy]),
            &snapshots,
            &verdicts,
        )
        .unwrap()
    };
    let some = make(unclear.clone());
    assert_eq!((numbers(&some), some.blocked), (vec![1], 1));
    assert_eq!(some.document.faults[0].source, "b/ns/q");
    let mut newer = policy("b/ns/q", &["fleet.cluster=b"]);
    newer.rules_version = crds::rules::RULES_VERSION + 1;
    assert_eq!(numbers(&make(newer)), [1]);
    // With no selector that is known, it could keep everything: the run names it and removes nothing.
    for rules in [vec![], vec![selecting(&[])]] {
        let blind = make(RetentionPolicySpec {
            rules,
            ..unclear.clone()
        });
        assert_eq!((numbers(&blind), blind.action("")), (vec![], Action::Stopped));
        assert_eq!(blind.stopped_by.unwrap().source, "b/ns/q");
    }
    // A cluster's policy that its own spoke could not send as a spec.
    assert_eq!(
        make(RetentionPolicySpec {
            source: "b/ns/q".to_owned(),
            ..Default::default()
        })
        .action(""),
        Action::Stopped
    );
}

#[test]
fn a_refused_rule_keeps_what_it_matches_and_others_go_on() {
    let snapshots = [snapshot(1, "a"), snapshot(2, "b"), snapshot(3, "a")];
    let run = run(vec![
        policy("a/ns/p", &[]),
        policy("b/ns/q", &["fleet.cluster=b"]),
    ]);
    let verdicts = [
        decided(&[3], &[1, 2]),
        RuleVerdict::Refused("invalid unit".to_owned()),
    ];
    let plan = plan(&run, &snapshots, &verdicts);
    assert_eq!((numbers(&plan), plan.action("")), (vec![1], Action::Apply));
    let fault = &plan.document.faults[0];
    assert_eq!((&*fault.source, &*fault.text), ("b/ns/q", "invalid unit"));
}

#[test]
fn a_policy_that_matches_nothing_is_named() {
    let run = run(vec![policy("a/ns/p", &["gold"])]);
    let plan = plan(&run, &of_a(1), &[decided(&[], &[])]);
    assert_eq!(
        (plan.document.unmatched.clone(), plan.action("")),
        (vec!["a/ns/p".to_owned()], Action::Nothing)
    );
}

#[test]
fn the_hash_knows_the_snapshots_that_are_removed_and_no_others() {
    let run = run(vec![policy("a/ns/p", &[])]);
    let three = plan(&run, &of_a(3), &[decided(&[3], &[1, 2])]);
    let four = plan(&run, &of_a(4), &[decided(&[3, 4], &[1, 2])]);
    assert_eq!(three.document.hash, four.document.hash);
}
