//! Two clusters that ask again and again.

use std::collections::BTreeSet;

use serde_json::json;
use tests::storage_log::{self, Grant};

use super::deleting::{MENDED, until_end};
use super::{audit, two};
use crate::retention::{make_snapshots, repository_id, restic, start};
use crate::support::{bed, faulty, fleet_json, rest, suite};

#[test]
#[ignore = "needs clusters: make long"]
fn two_clusters_ask_at_once_many_times_and_their_delete_phases_never_overlap() {
    let rounds = suite().rounds;
    let url = rest("twenty");
    let (a, b) = two("twenty", [faulty("twenty"), faulty("twenty")]);
    let id = repository_id(&a);
    make_snapshots(&url, "a", "twenty/x", "x", 1..3);
    let (mut last_a, mut last_b) = (json!({}), json!({}));
    for round in 0..rounds {
        // The first one finds something to remove in any case, so they take turns.
        let order = if round % 2 == 0 { [&a, &b] } else { [&b, &a] };
        for place in order {
            start(place, "p", &format!("r{round}"));
        }
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
        last_a = until_end(&a, &last_a, MENDED);
        last_b = until_end(&b, &last_b, MENDED);
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
    assert_eq!(entries.len(), 2 * rounds);
    let tokens: Vec<u64> = entries.iter().map(|e| e["token"].as_u64().unwrap()).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    // Each deletion, by the storage's own log, against the time of its grant in the audit.
    let log = bed().servers().rest_proxy().log("/twenty/").unwrap();
    let grants = storage_log::grants(&fleet_json(&["audit", &id])).unwrap();
    let verdict = storage_log::judge(&log, &grants, "/twenty", &bed().pod_networks());
    eprintln!("{verdict}");
    assert!(verdict.violations.is_empty(), "{verdict}");
    // Each run that removed something deleted under its own token, in both clusters.
    for entry in &entries {
        let removed = entry["outcome"]["removed"].as_u64().unwrap_or_default();
        let deletes = verdict.deletes.get(&entry["token"].as_u64().unwrap());
        assert!(
            removed == 0 || deletes.is_some(),
            "no deletion in {entry:#}: {verdict}"
        );
    }
    let deleted = |grant: &&Grant| verdict.deletes.contains_key(&grant.token);
    let clusters: BTreeSet<&str> = grants
        .iter()
        .filter(deleted)
        .map(|g| g.cluster.as_str())
        .collect();
    assert_eq!(clusters, BTreeSet::from(["a", "b"]), "both clusters deleted");
    restic(&url, &["check", "--read-data", "-q"]);
}
