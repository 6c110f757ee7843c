//! Integrity checks: damage is found, stops retention and nothing else, and is over when it is mended.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::audit;
use crate::retention::{make_snapshots, policy, repository_id, restic_command, snapshots, start, until_run};
use crate::support::{Place, SOON, bed, condition, rest};

/// Pack files of a repository on the REST server, the largest first.
fn packs(name: &str) -> Vec<PathBuf> {
    let data = bed().servers().rest_data().join(name).join("data");
    let folders = std::fs::read_dir(data).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.metadata().unwrap().len()));
    files
}

fn id_of(pack: &std::path::Path) -> String {
    pack.file_name().unwrap().to_string_lossy().into_owned()
}

/// Changes a byte of the largest pack file, and leaves its length as it is.
fn damage(name: &str) -> String {
    let pack = packs(name).remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[200] ^= 0xff;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    id_of(&pack)
}

/// One check now, as a person asks for it. Returns the status of the repository.
fn check(place: &Place, job: &str) -> Value {
    let counted = |o: &Value| {
        o["status"]["integrityCheck"]["countedJobs"]
            .as_array()
            .map_or(0, Vec::len)
    };
    let before = counted(&place.get("resticrepository/nas"));
    let from = "--from=cronjob/integritycheck-nas";
    place.kubectl(&["create", "job", job, from]).unwrap();
    let ended = |o: &Value| counted(o) > before && o["status"]["integrityCheck"]["active"].is_null();
    place.until_within(3 * SOON, "resticrepository/nas", "the end of a check", ended)
}

fn result(repository: &Value) -> (&str, String) {
    let result = repository["status"]["lastIntegrityCheckResult"].as_str();
    let degraded = condition(repository, "Degraded");
    (
        result.unwrap_or_default(),
        degraded["reason"].as_str().unwrap_or_default().to_owned(),
    )
}

/// restic as a person runs it, in a folder that may be written to: a repair leaves copies of pack files there.
fn mend(place: &Place, url: &str, arguments: &[&str]) {
    let dir = std::env::temp_dir().join(format!("fleet-mend-{}", place.namespace));
    std::fs::create_dir_all(&dir).unwrap();
    let output = restic_command(url, arguments).current_dir(&dir).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    std::fs::remove_dir_all(&dir).unwrap();
}

fn checked_place(name: &str, url: &str, subset: &str) -> Place {
    let place = Place::new("a", name);
    let mut repository = place.repository("nas", url);
    repository["spec"]["integrityCheck"] = json!({ "schedule": "@yearly", "readDataSubset": subset });
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    place.apply(&[
        repository,
        place.backup("orders", json!({ "name": "nas" }), json!({})),
        policy("p", keep, more),
    ]);
    place.until_ready("resticbackup/orders");
    place.until_ready("globalretentionpolicy/p");
    place.until("cronjob/integritycheck-nas", "a CronJob", |o| {
        o["spec"]["suspend"] == false
    });
    assert_eq!(place.run("orders", "first")["result"], "Succeeded");
    place
}

#[test]
#[ignore = "needs clusters: make long"]
fn a_damaged_pack_is_found_within_one_walk_and_stops_retention_until_it_is_mended() {
    let url = rest("damaged");
    let place = checked_place("damaged", &url, "1/4");
    let id = repository_id(&place);
    make_snapshots(&url, "a", "damaged/orders", "x", 1..4);
    let pack = damage("damaged");
    let mut walked = 0;
    let found = loop {
        let repository = check(&place, &format!("walk-{walked}"));
        walked += 1;
        if result(&repository).0 == "Damaged" {
            break repository;
        }
        assert_eq!(result(&repository).0, "Passed", "{repository:#}");
        assert!(walked < 4, "one walk has passed the damage: {repository:#}");
    };
    assert_eq!(result(&found), ("Damaged", "RepositoryDamaged".to_owned()));
    let text = condition(&found, "Degraded")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(text.contains(&format!("restic repair packs {pack}")), "{text}");
    assert_eq!(
        condition(&found, "Ready")["status"],
        "True",
        "it is used as before"
    );
    assert_eq!(
        found["status"]["integrityCheck"]["damage"]["packs"],
        json!([pack])
    );

    // Backups go on.
    place.write("new.txt", b"written after the damage");
    assert_eq!(place.run("orders", "meanwhile")["result"], "Succeeded");

    // Retention does not.
    let (before, files) = (snapshots(&url, ""), packs("damaged").len());
    let policy = place.until("globalretentionpolicy/p", "told", |o| {
        condition(o, "Degraded")["reason"] == "RepositoryDamaged"
    });
    start(&place, "p", "stopped");
    let ran = until_run(&place, "p", &policy["status"]);
    assert_eq!(ran["lastRunResult"], "Failed", "{ran:#}");
    assert!(
        ran["lastRunMessage"].as_str().unwrap().contains("damage"),
        "{ran:#}"
    );
    assert_eq!((snapshots(&url, ""), packs("damaged").len()), (before, files));

    mend(&place, &url, &["repair", "packs", &pack]);
    mend(&place, &url, &["repair", "snapshots", "--forget"]);
    let mended = check(&place, "mended");
    assert_eq!(
        result(&mended),
        ("Passed", "IntegrityCheckPassed".to_owned()),
        "{mended:#}"
    );
    let policy = place.until("globalretentionpolicy/p", "told", |o| {
        condition(o, "Degraded")["status"] == "False"
    });
    start(&place, "p", "goes-on");
    let ran = until_run(&place, "p", &policy["status"]);
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
    let told: Vec<(String, String)> = audit(&id)
        .iter()
        .map(|entry| (entry["subject"].clone(), entry["outcome"]["result"].clone()))
        .map(|(subject, result)| {
            (
                subject.as_str().unwrap().to_owned(),
                result.as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    for expected in [
        ("check damaged/nas", "Damaged"),
        ("retention damaged/p", "Failed"),
        ("check damaged/nas", "Passed"),
    ] {
        assert!(
            told.iter().any(|(s, r)| (s.as_str(), r.as_str()) == expected),
            "{told:?}"
        );
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_missing_pack_is_found_by_the_first_check_and_a_storage_without_it_is_mended() {
    let url = rest("missing");
    let place = checked_place("missing", &url, "1/16");
    assert_eq!(result(&check(&place, "sound")).0, "Passed");
    let pack = packs("missing").remove(0);
    std::fs::remove_file(&pack).unwrap();
    let found = check(&place, "missing");
    assert_eq!(result(&found), ("Damaged", "RepositoryDamaged".to_owned()));
    let damage = &found["status"]["integrityCheck"]["damage"];
    assert_eq!(
        (&damage["reason"], &damage["packs"]),
        (&json!("MissingPacks"), &json!([id_of(&pack)]))
    );
    let text = condition(&found, "Degraded")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.contains("does not exist") && text.contains("restic repair index"),
        "{text}"
    );
    mend(&place, &url, &["repair", "index"]);
    mend(&place, &url, &["repair", "snapshots", "--forget"]);
    let mended = check(&place, "mended");
    assert_eq!(
        result(&mended),
        ("Passed", "IntegrityCheckPassed".to_owned()),
        "{mended:#}"
    );
}
