use proptest::prelude::*;

use super::*;

fn entry(n: usize, repository: &str, node: Option<&str>, parked: bool) -> Entry {
    Entry {
        uid: format!("u{n}").into(),
        job: Key::new("shop", format!("job-{n}")),
        created: Timestamp::from_second(i64::try_from(n).unwrap()).unwrap(),
        repository: Key::new("shop", repository),
        nodes: node.into_iter().map(Into::into).collect(),
        standing: if parked { Standing::Parked } else { Standing::Runs },
    }
}

fn queue(entries: &[Entry], limits: &[(&str, usize)], cluster: Option<usize>, node: Option<usize>) -> Queue {
    let of = |(name, limit): &(&str, usize)| (Pool::Repository(Key::new("shop", name)), *limit);
    let cluster = cluster.map(|limit| (Pool::Cluster, limit));
    Queue {
        entries: entries.to_vec(),
        limits: limits.iter().map(of).chain(cluster).collect(),
        node,
    }
}

fn begin(queue: Queue) -> Vec<String> {
    let turns = queue.turns().into_iter();
    turns
        .filter(|(_, turn)| *turn == Turn::Begins)
        .map(|(uid, _)| uid)
        .collect()
}

fn waits(queue: Queue, uid: &str) -> (Option<i32>, String) {
    match &queue.turns()[uid] {
        Turn::Waits(waits) => (waits.place, waits.words.text.clone()),
        Turn::Begins => panic!("{uid} begins"),
    }
}

#[test]
fn who_came_first_begins_first_and_each_knows_its_place() {
    let mut entries = vec![entry(0, "nas", None, false)];
    entries.extend((1..=8).rev().map(|n| entry(n, "nas", None, true)));
    entries.push(entry(9, "s3", None, true));
    let with = |limit| queue(&entries, &[("nas", limit)], None, None);
    assert_eq!(
        begin(with(2)),
        ["u1", "u9"],
        "another repository has its own places"
    );
    assert_eq!(
        waits(with(2), "u4"),
        (
            Some(3),
            "job-4: waiting for repository nas (spec.maxConcurrentBackups: 2)".to_owned()
        )
    );
    assert_eq!(begin(with(1)), ["u9"]);
    assert_eq!(
        begin(queue(&entries, &[], None, None)).len(),
        9,
        "a limit that was taken away"
    );
}

#[test]
fn limits_of_cluster_and_node_count_too() {
    let entries = [
        entry(0, "a", Some("n1"), false),
        entry(1, "b", Some("n1"), true),
        entry(2, "c", Some("n2"), true),
        entry(3, "d", None, true),
    ];
    let with = |cluster, node| queue(&entries, &[], cluster, node);
    assert_eq!(begin(with(None, Some(1))), ["u2", "u3"]);
    let (place, text) = waits(with(None, Some(1)), "u1");
    assert!(place == Some(1) && text.contains("waiting for node n1 (--max-backups-per-node: 1)"));
    assert_eq!(begin(with(Some(2), None)), ["u1"]);
    let (place, text) = waits(with(Some(2), None), "u3");
    assert!(place == Some(2) && text.contains("waiting for the cluster (--max-backups: 2)"));
}

#[test]
fn a_run_that_may_not_be_opened_takes_no_place_and_no_rank() {
    for (standing, text) in [
        (Standing::Closed, "job-1: it is opened when the backup is ready"),
        (Standing::Suspended, "spec.suspend"),
    ] {
        let mut entries = vec![entry(1, "nas", Some("n1"), true)];
        entries.extend((2..5).map(|n| entry(n, "nas", None, true)));
        entries[0].standing = standing;
        let with = || queue(&entries, &[("nas", 1)], None, Some(1));
        assert_eq!(begin(with()), ["u2"]);
        assert_eq!(waits(with(), "u3").0, Some(1));
        let (place, found) = waits(with(), "u1");
        assert!(place.is_none() && found.contains(text), "{found}");
    }
}

#[test]
fn a_run_that_needs_two_places_is_not_passed_for_ever() {
    // Its node is full; the repository's free place is kept for it, and the cluster's is not.
    let entries = [
        entry(0, "a", Some("n1"), false),
        entry(1, "nas", Some("n1"), true),
        entry(2, "nas", Some("n2"), true),
        entry(3, "s3", None, true),
    ];
    assert_eq!(begin(queue(&entries, &[("nas", 1)], Some(2), Some(1))), ["u3"]);
}

#[test]
fn words_do_not_change_with_the_place_and_far_places_are_not_shown() {
    let entries: Vec<Entry> = (0..60).map(|n| entry(n, "nas", None, n > 0)).collect();
    let of = |uid: &str| waits(queue(&entries, &[("nas", 1)], None, None), uid);
    let places = ["u1", "u5", "u20", "u21", "u50"].map(|uid| of(uid).0);
    assert_eq!(places, [Some(1), Some(5), Some(20), None, None]);
    let text = |uid: &str| of(uid).1.split_once(": ").unwrap().1.to_owned();
    assert_eq!(
        text("u1"),
        "waiting for repository nas (spec.maxConcurrentBackups: 1)"
    );
    assert!(text("u1") == text("u20") && text("u1") == text("u50"));
}

#[test]
fn a_limit_of_zero_is_none() {
    assert_eq!(
        (site::limit(0u32), site::limit(-1i32), site::limit(2u32)),
        (None, None, Some(2))
    );
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = (0..3usize, proptest::option::of(0..2usize));
    proptest::collection::vec(one, 1..25).prop_map(|list| {
        let made = list.into_iter().enumerate();
        made.map(|(n, (repository, node))| {
            let node = node.map(|node| format!("n{node}"));
            entry(n, &format!("r{repository}"), node.as_deref(), true)
        })
        .collect()
    })
}

proptest! {
    /// Turn by turn, one run ending at a time: no limit is ever exceeded, each run begins, the order of the list does
    /// not matter, and of two alike the older one begins first.
    #[test]
    fn all_begin_within_the_limits_and_in_order(
        mut entries in entries(), repository in 1..4usize, cluster in 1..5usize, node in 1..3usize, seed in any::<u64>(),
    ) {
        let limits = [("r0", repository), ("r1", 1)];
        let (mut begun, total) = (Vec::new(), entries.len());
        for step in 0..4 * total {
            let turns = queue(&entries, &limits, Some(cluster), Some(node)).turns();
            let mut shuffled = entries.clone();
            shuffled.reverse();
            prop_assert_eq!(&turns, &queue(&shuffled, &limits, Some(cluster), Some(node)).turns());
            for entry in &mut entries {
                if turns.get(&*entry.uid) == Some(&Turn::Begins) {
                    entry.standing = Standing::Runs;
                    begun.push(entry.clone());
                }
            }
            let running: Vec<usize> = (0..entries.len()).filter(|n| entries[*n].standing == Standing::Runs).collect();
            let count = |is: &dyn Fn(&Entry) -> bool| running.iter().filter(|n| is(&entries[**n])).count();
            prop_assert!(running.len() <= cluster);
            prop_assert!(count(&|e| *e.repository.name == *"r0") <= repository);
            prop_assert!(count(&|e| *e.repository.name == *"r1") <= 1);
            for name in ["n0", "n1"] {
                prop_assert!(count(&|e| e.nodes.first().is_some_and(|n| **n == *name)) <= node);
            }
            if entries.is_empty() {
                break;
            }
            prop_assert!(!running.is_empty(), "nobody runs, and {} wait", entries.len());
            let pick = usize::try_from(seed.rotate_left(u32::try_from(step).unwrap()) % 1024).unwrap();
            entries.remove(running[pick % running.len()]);
        }
        prop_assert_eq!(begun.len(), total);
        for (n, later) in begun.iter().enumerate() {
            let alike = |e: &&Entry| e.repository == later.repository && e.nodes == later.nodes;
            prop_assert!(begun[..n].iter().filter(alike).all(|earlier| earlier.created <= later.created));
        }
    }
}
