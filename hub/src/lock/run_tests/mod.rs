mod vanished;

use prost::Message as _;
use proto::v1::object_state::Body;
use proto::v1::{BackupState, Condition, ObjectState, PolicyState, RepositoryState};

use super::*;
use crate::Moment;
use crate::bindings::State;
use crate::inventory::{Arrived, Change, Introduction, testing};

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn object(uid: &str, body: Body) -> ObjectState {
    ObjectState {
        uid: uid.to_owned(),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        generation: 3,
        body: Some(body),
        ..ObjectState::default()
    }
}

fn repository() -> ObjectState {
    let body = RepositoryState {
        restic_id: ID.to_owned(),
        ..RepositoryState::default()
    };
    object("nas", Body::Repository(body))
}

fn rule() -> RetentionRule {
    RetentionRule {
        tags: vec!["x".to_owned()],
        keep_last: 3,
        ..RetentionRule::default()
    }
}

fn policy(uid: &str, id: &str, spec: Option<RetentionPolicySpec>) -> ObjectState {
    let body = PolicyState {
        repository_namespace: "ns".to_owned(),
        repository_name: "nas".to_owned(),
        restic_id: id.to_owned(),
        spec,
        ..PolicyState::default()
    };
    object(uid, Body::Policy(body))
}

fn rules(rules: Vec<RetentionRule>) -> Option<RetentionPolicySpec> {
    Some(RetentionPolicySpec {
        rules,
        ..RetentionPolicySpec::default()
    })
}

/// A whole inventory of a cluster.
fn tell(inventory: &mut Inventory, cluster: &str, session: u64, objects: Vec<ObjectState>) {
    tell_of(inventory, cluster, session, (objects, &[]));
}

/// A whole inventory of a cluster whose spoke watches some namespaces alone.
fn tell_of(
    inventory: &mut Inventory,
    cluster: &str,
    session: u64,
    (objects, namespaces): (Vec<ObjectState>, &[&str]),
) {
    let introduction = Introduction {
        namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
        ..testing::introduction(cluster)
    };
    let now = Moment::from(i64::try_from(session).unwrap());
    testing::attach(inventory, cluster, session, introduction, now);
    testing::report(inventory, cluster, session, objects, now);
}

fn bind(inventory: &mut Inventory, cluster: &str, state: State) {
    testing::bind(inventory, ID, cluster, state, true);
}

fn run(inventory: &Inventory) -> RetentionRun {
    compose(inventory, &History::default(), ID, "")
}

/// A backup with the condition Suspicious.
fn backup(name: &str, id: &str, status: &str) -> ObjectState {
    // The spec may name another repository now than that of the snapshots.
    let body = BackupState {
        restic_id: id.to_owned(),
        ..BackupState::default()
    };
    let condition = Condition {
        r#type: "Suspicious".to_owned(),
        status: status.to_owned(),
        ..Condition::default()
    };
    ObjectState {
        conditions: vec![condition],
        ..object(name, Body::Backup(body))
    }
}

#[test]
fn suspicious_backups_of_bound_clusters_hold_their_snapshots() {
    let mut inventory = testing::empty();
    for (session, cluster) in (1..).zip(["a", "b"]) {
        let objects = vec![
            repository(),
            backup("emptied", ID, "True"),
            backup("well", ID, "False"),
            backup("undecided", "", "True"),
            backup("elsewhere", "other", "True"),
        ];
        tell(&mut inventory, cluster, session, objects);
    }
    assert!(run(&inventory).policies.is_empty(), "none is bound");
    bind(&mut inventory, "a", State::Bound);
    let held = run(&inventory).policies;
    let tags: Vec<&str> = held.iter().map(|spec| spec.rules[0].tags[1].as_str()).collect();
    assert_eq!(
        tags,
        [
            "fleet.backup=ns/elsewhere",
            "fleet.backup=ns/emptied",
            "fleet.backup=ns/undecided"
        ]
    );
    assert!(
        held.iter()
            .all(|spec| !spec.unclear.is_empty() && spec.source.starts_with("a/ns/"))
    );
    // One was accepted, and one deleted.
    let objects = vec![
        repository(),
        backup("emptied", ID, "False"),
        backup("undecided", "", "True"),
    ];
    tell(&mut inventory, "a", 3, objects);
    let held = run(&inventory).policies;
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].rules[0].tags[1], "fleet.backup=ns/undecided");
}

#[test]
fn only_bound_clusters_take_part() {
    let mut inventory = testing::empty();
    for (session, cluster) in (1..).zip(["a", "b", "c"]) {
        let objects = vec![repository(), policy("p", ID, rules(vec![rule()]))];
        tell(&mut inventory, cluster, session, objects);
    }
    bind(&mut inventory, "a", State::Bound);
    bind(&mut inventory, "b", State::Pending);
    bind(&mut inventory, "c", State::Ended);
    let run = run(&inventory);
    assert_eq!(run.clusters, ["a"]);
    assert_eq!(names(&run), ["a/ns/p@3"]);
    assert_eq!(
        (run.policies[0].uid.as_str(), run.policies[0].unclear.as_str()),
        ("p", "")
    );
    assert_eq!(run.cluster_uids[0].uid, "uid-a");
}

#[test]
fn a_cluster_that_does_not_use_the_repository_any_more_is_not_known_in_it() {
    let mut inventory = testing::empty();
    tell(&mut inventory, "a", 1, vec![repository()]);
    bind(&mut inventory, "a", State::Bound);
    assert_eq!(run(&inventory).clusters, ["a"]);
    tell(&mut inventory, "a", 2, Vec::new());
    assert!(run(&inventory).clusters.is_empty());
}

#[test]
fn what_is_not_understood_keeps_what_it_could_match() {
    let mut inventory = testing::empty();
    let bad = RetentionRule {
        keep_within: "x".to_owned(),
        keep_last: 0,
        ..rule()
    };
    let newer = RetentionPolicySpec {
        rules_version: RULES_VERSION + 1,
        rules: vec![rule()],
        ..RetentionPolicySpec::default()
    };
    let objects = vec![
        repository(),
        policy("bad", ID, rules(vec![bad])),
        policy("empty", ID, rules(Vec::new())),
        policy("newer", ID, Some(newer)),
        policy("none", ID, None),
    ];
    tell(&mut inventory, "a", 1, objects);
    bind(&mut inventory, "a", State::Bound);
    let run = run(&inventory);
    let unclear: Vec<(&str, bool, usize)> = run
        .policies
        .iter()
        .map(|p| (p.uid.as_str(), !p.unclear.is_empty(), p.rules.len()))
        .collect();
    assert_eq!(
        unclear,
        [
            ("bad", true, 1),
            ("empty", true, 0),
            ("newer", true, 0),
            ("none", true, 0)
        ]
    );
    let rule = &run.policies[0].rules[0];
    assert_eq!(
        (rule.tags.as_slice(), rule.keep_within.as_str()),
        (&["x".to_owned()][..], "")
    );
}

#[test]
fn a_policy_whose_repository_is_not_known_counts_wherever_it_could_be_meant() {
    let mut inventory = testing::empty();
    let mut elsewhere = repository();
    elsewhere.uid = "other".to_owned();
    elsewhere.name = "other".to_owned();
    if let Some(Body::Repository(body)) = &mut elsewhere.body {
        body.restic_id = "b".repeat(64);
    }
    let mut to_other = policy("q", "", rules(vec![rule()]));
    if let Some(Body::Policy(body)) = &mut to_other.body {
        body.repository_name = "other".to_owned();
    }
    let objects = vec![
        repository(),
        elsewhere,
        policy("p", "", rules(vec![rule()])),
        to_other,
    ];
    tell(&mut inventory, "a", 1, objects);
    bind(&mut inventory, "a", State::Bound);
    let run = run(&inventory);
    assert_eq!(names(&run), ["a/ns/p@3"]);
    assert!(
        run.policies[0].unclear.contains("not known"),
        "{}",
        run.policies[0].unclear
    );
}

#[test]
fn a_run_has_carried_out_policies_in_force_and_only_if_it_was_applied() {
    let spec = |source: &str| RetentionPolicySpec {
        source: source.to_owned(),
        ..RetentionPolicySpec::default()
    };
    let run = RetentionRun {
        policies: vec![
            spec("in force"),
            RetentionPolicySpec {
                suspended: true,
                ..spec("suspended")
            },
            RetentionPolicySpec {
                preview: true,
                ..spec("in preview")
            },
            RetentionPolicySpec {
                unclear: "x".to_owned(),
                ..spec("unclear")
            },
        ],
        ..RetentionRun::default()
    };
    for result in ["Applied", "NothingToRemove"] {
        assert_eq!(
            carried(&run, result),
            Some(["in force".to_owned()].into()),
            "{result}"
        );
    }
    for result in ["Preview", "ApprovalRequired", "Failed", "Interrupted"] {
        assert_eq!(carried(&run, result), None, "{result}");
    }
}

const HOUR: u64 = 60 * 60_000;

#[test]
fn a_new_cluster_is_told_apart_once_there_was_a_run() {
    let mut inventory = testing::empty();
    for (session, cluster) in (1..).zip(["a", "b"]) {
        tell(&mut inventory, cluster, session, vec![repository()]);
        bind(&mut inventory, cluster, State::Bound);
    }
    assert!(run(&inventory).new_clusters.is_empty());
    let history = History {
        participants: ["a".to_owned()].into(),
        baseline: vec![("cluster/a".to_owned(), 7)],
        ..History::default()
    };
    let run = compose(&inventory, &history, ID, "h");
    assert_eq!(run.new_clusters, ["b"]);
    assert_eq!((run.baseline[0].left, run.approved.as_str()), (7, "h"));
}

#[test]
fn reported_damage_counts_while_its_cluster_is_bound_and_its_resource_exists() {
    let mut inventory = testing::empty();
    for (session, cluster) in (1..).zip(["a", "b"]) {
        tell(&mut inventory, cluster, session, vec![repository()]);
    }
    bind(&mut inventory, "a", State::Pending);
    bind(&mut inventory, "b", State::Bound);
    let given = |inventory: &Inventory, reported: &[(&str, &str)]| {
        let of = |(cluster, owner): &(&str, &str)| {
            let text = format!("{cluster}/{owner} is damaged");
            ((*cluster).to_owned(), (*owner).to_owned(), text)
        };
        let history = History {
            damage: reported.iter().map(of).collect(),
            ..History::default()
        };
        compose(inventory, &history, ID, "").damage
    };
    assert_eq!(
        given(&inventory, &[("a", "nas"), ("b", "gone"), ("c", "nas")]),
        ""
    );
    assert_eq!(
        given(&inventory, &[("a", "nas"), ("b", "nas")]),
        "b/nas is damaged"
    );
    // The state of a resource says more than the end of a check.
    let mut damaged = repository();
    if let Some(Body::Repository(body)) = &mut damaged.body {
        body.damage = "pack 1".to_owned();
    }
    tell(&mut inventory, "b", 3, vec![damaged]);
    assert_eq!(
        given(&inventory, &[("b", "nas")]),
        "ResticRepository b/ns/nas: pack 1"
    );
}

#[test]
fn a_flood_of_policies_stops_the_runs_in_words_that_name_it() {
    let mut inventory = testing::empty();
    let mut objects = vec![repository()];
    objects.extend((0..=PER_CLUSTER).map(|n| policy(&format!("p{n}"), ID, rules(vec![rule()]))));
    tell(&mut inventory, "flood", 1, objects);
    bind(&mut inventory, "flood", State::Bound);
    let flooded = run(&inventory);
    assert_eq!(flooded.policies.len(), 1);
    assert!(flooded.policies[0].unclear.contains("cluster flood"));
    assert!(too_long(&flooded).is_none());
    let long = RetentionRun {
        approved: "x".repeat(RUN_MAX + 1),
        ..RetentionRun::default()
    };
    assert!(too_long(&long).is_some());
}

#[test]
fn suspicious_backups_do_not_count_as_policies() {
    let mut inventory = testing::empty();
    let mut objects = vec![repository()];
    objects.extend((0..PER_CLUSTER).map(|n| policy(&format!("p{n}"), ID, rules(vec![rule()]))));
    objects.extend((0..5).map(|n| backup(&format!("b{n}"), ID, "True")));
    tell(&mut inventory, "a", 1, objects);
    bind(&mut inventory, "a", State::Bound);
    let policies = run(&inventory).policies;
    assert_eq!(policies.len(), PER_CLUSTER + 5);
    assert!(policies.is_sorted_by_key(|spec| &spec.source));
    let unclear = policies.iter().filter(|spec| !spec.unclear.is_empty());
    assert!(unclear.clone().all(|spec| spec.unclear == SUSPICIOUS));
    assert_eq!(unclear.count(), 5);
}

#[test]
fn a_run_is_measured_as_its_pod_reads_it() {
    // Empty selectors and small figures: short on the wire, and long as JSON.
    let rule = RetentionRule {
        keep_last: 1,
        keep_hourly: 1,
        keep_daily: 1,
        keep_weekly: 1,
        keep_monthly: 1,
        keep_yearly: 1,
        ..RetentionRule::default()
    };
    let run = RetentionRun {
        policies: vec![RetentionPolicySpec {
            rules: vec![rule; 3000],
            ..RetentionPolicySpec::default()
        }],
        ..RetentionRun::default()
    };
    assert!(run.encoded_len() < 64 << 10, "{}", run.encoded_len());
    let text = proto::order::order_text(&run).unwrap();
    assert!(text.len() > proto::order::ORDER_MAX, "{}", text.len());
    assert!(too_long(&run).is_some());
}

#[test]
fn what_a_person_has_rejected_is_no_approval_of_any_run() {
    let history = History {
        rejected: ["h".to_owned()].into(),
        ..History::default()
    };
    let approved = |hash| compose(&testing::empty(), &history, ID, hash).approved;
    assert_eq!(
        (approved("h").as_str(), approved("other").as_str()),
        ("", "other")
    );
}

#[test]
fn damage_that_a_bound_cluster_has_found_is_in_the_run_of_every_cluster() {
    let mut inventory = testing::empty();
    let damaged = |text: &str| {
        let body = RepositoryState {
            restic_id: ID.to_owned(),
            damage: text.to_owned(),
            ..RepositoryState::default()
        };
        object("nas", Body::Repository(body))
    };
    tell(&mut inventory, "a", 1, vec![repository()]);
    tell(&mut inventory, "b", 2, vec![damaged("pack 1 is missing")]);
    bind(&mut inventory, "a", State::Bound);
    assert_eq!(run(&inventory).damage, "", "b is not bound");
    bind(&mut inventory, "b", State::Bound);
    assert_eq!(
        run(&inventory).damage,
        "ResticRepository b/ns/nas: pack 1 is missing"
    );
    tell(&mut inventory, "b", 3, vec![damaged("")]);
    assert_eq!(run(&inventory).damage, "");
}

#[test]
fn a_policy_whose_preview_is_due_is_spared_only_where_it_removes_nothing() {
    let mut inventory = testing::empty();
    let in_preview = |preview: bool| {
        let mut object = policy("p", ID, rules(vec![rule()]));
        if let Some(Body::Policy(body)) = &mut object.body
            && let Some(spec) = &mut body.spec
        {
            spec.preview = preview;
        }
        object
    };
    let mut spared = |preview: bool, shows: Option<BTreeSet<String>>| {
        tell(
            &mut inventory,
            "a",
            1 + u64::from(preview),
            vec![repository(), in_preview(preview)],
        );
        bind(&mut inventory, "a", State::Bound);
        let run = run(&inventory);
        let held = inventory.policies_of(ID).next().unwrap();
        spares(held, &names(&run), shows.as_ref())
    };
    let own = || Some(BTreeSet::from(["a/ns/p".to_owned()]));
    assert!(spared(false, own()) && spared(false, None));
    assert!(!spared(true, own()) && !spared(true, None));
    assert!(spared(true, Some(BTreeSet::new())));
}

#[test]
fn what_a_plan_shows_is_known_of_a_whole_plan_alone() {
    let removal = |by: &[&str]| proto::plan::Removal {
        by: by.iter().map(|by| (*by).to_owned()).collect(),
        ..proto::plan::Removal::default()
    };
    let mut plan = PlanDocument {
        remove: vec![removal(&["a/ns/p"])],
        previewed: vec![removal(&["a/ns/q", "b/ns/r"])],
        ..PlanDocument::default()
    };
    let all = ["a/ns/p", "a/ns/q", "b/ns/r"].map(str::to_owned);
    assert_eq!(shows("Applied", Some(&plan)), Some(BTreeSet::from(all)));
    plan.remove.push(removal(&[]));
    assert_eq!(shows("Applied", Some(&plan)), None);
    assert_eq!(shows("Applied", None), None);
    assert_eq!(shows("NothingToRemove", None), Some(BTreeSet::new()));
}
