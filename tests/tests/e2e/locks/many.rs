//! Two clusters that ask again and again.

use serde_json::json;

use super::{audit, two};
use crate::retention::{make_snapshots, repository_id, restic, start, until_run};
use crate::support::{bed, rest};

#[test]
#[ignore = "needs clusters: make test"]
fn twenty_times_two_clusters_ask_at_once_and_their_delete_phases_never_overlap() {
    const ROUNDS: usize = 20;
    let url = rest("twenty");
    let (a, b) = two("twenty", [url.clone(), url.clone()]);
    let id = repository_id(&a);
    make_snapshots(&url, "a", "twenty/x", "x", 1..3);
    let (mut last_a, mut last_b) = (json!({}), json!({}));
    for round in 0..ROUNDS {
        start(&a, "p", &format!("r{round}"));
        start(&b, "p", &format!("r{round}"));
        // Something to remove for the second one too.
        let writer = {
            let url = url.clone();
            std::thread::spawn(move || {
                for n in 0..2 {
                    let dir = tempfile::tempdir().unwrap();
                    std::fs::write(dir.path().join("f"), format!("{round} {n}")).unwrap();
                    let path = dir.path().join("f").to_string_lossy().into_owned();
                    let tags = ["--tag", "fleet.cluster=b", "--tag", "fleet.backup=twenty/y"];
                    let mut arguments = vec![
                        "backup",
                        "-q",
                        "--retry-lock",
                        "2m",
                        "--host",
                        "w",
                        "--stdin-filename",
                        "/w",
                        "--stdin-from-command",
                    ];
                    arguments.extend(tags);
                    arguments.extend(["--", "cat", &path]);
                    restic(&url, &arguments);
                }
            })
        };
        last_a = until_run(&a, "p", &last_a);
        last_b = until_run(&b, "p", &last_b);
        writer.join().unwrap();
        for last in [&last_a, &last_b] {
            let result = last["lastRunResult"].as_str().unwrap();
            assert!(
                ["Applied", "NothingToRemove"].contains(&result),
                "round {round}: {last:#}"
            );
        }
        eprintln!(
            "round {}: tokens {} and {}",
            round + 1,
            last_a["lastRunToken"],
            last_b["lastRunToken"]
        );
    }
    let entries = audit(&id);
    assert_eq!(entries.len(), 2 * ROUNDS);
    let tokens: Vec<u64> = entries.iter().map(|e| e["token"].as_u64().unwrap()).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    // Who deleted, in the order in which the server answered. Pods have addresses of their own cluster.
    let log = std::fs::read_to_string(bed().servers().rest_log()).unwrap();
    let deletes = log
        .lines()
        .filter(|line| line.contains("\"DELETE /twenty/") && !line.contains("/locks/"));
    let who: Vec<&str> = deletes.filter_map(|line| line.split(' ').next()).collect();
    let blocks = 1 + who.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let addresses: std::collections::BTreeSet<&&str> = who.iter().collect();
    eprintln!(
        "{} deletes by {addresses:?} in {blocks} blocks of {} runs",
        who.len(),
        entries.len()
    );
    assert!(
        addresses.len() > 1 && who.len() > 2 * ROUNDS,
        "both clusters deleted: {who:?}"
    );
    assert!(blocks <= entries.len(), "delete phases overlap: {who:?}");
    restic(&url, &["check", "--read-data", "-q"]);
}
