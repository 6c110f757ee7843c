//! How far runs have come, and what a cache between runs spares.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet;

use crate::support::{Place, SOON, bed, faulty, fleet_json, noise, rest};

#[test]
#[ignore = "needs clusters: make long"]
fn a_long_backup_shows_how_far_it_has_come_here_and_in_the_fleet() {
    let place = Place::new("a", "progress");
    // More than two minutes at this speed.
    place.write("more.bin", &noise(9 << 20));
    let slow = json!({ "jobConfig": { "limitUpload": 64,
        "env": [{ "name": "RESTIC_PACK_SIZE", "value": "4" }] } });
    place.apply(&[
        place.repository("nas", &rest("progress")),
        place.backup("slow", json!({ "name": "nas" }), slow),
    ]);
    place.until_ready("resticbackup/slow");
    place
        .kubectl(&["annotate", "resticbackup/slow", "backup.resticbackup.io/run=1"])
        .unwrap();
    let shown = place.until_within(Duration::from_secs(150), "resticbackup/slow", "progress", |o| {
        o["status"]["progress"]["percent"].is_i64()
    });
    let progress = &shown["status"]["progress"];
    let figure = |name: &str| progress[name].as_i64().unwrap_or_default();
    assert!((0..=100).contains(&figure("percent")), "{progress:#}");
    assert!(
        figure("bytesTotal") > 9 << 20 && figure("bytesDone") <= figure("bytesTotal"),
        "{progress:#}"
    );
    assert_eq!(progress["job"], shown["status"]["active"][0]);
    assert!(!progress.to_string().contains("more.bin"), "{progress:#}");
    let end = Instant::now() + SOON;
    loop {
        let rows = fleet_json(&["backups", "a/progress/slow"]);
        if rows["items"][0]["progress"]["bytesTotal"].is_u64() {
            break;
        }
        assert!(Instant::now() < end, "{rows:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
    let wide = fleet::shell_ok(bed(), "fleet", &["backups", "a/progress/slow", "-o", "wide"]).unwrap();
    assert!(wide.contains("PROGRESS") && wide.contains(" of "), "{wide}");
    let ended = place.until_within(Duration::from_secs(300), "resticbackup/slow", "its end", |o| {
        o["status"]["lastBackup"]["result"].is_string()
    });
    assert_eq!(ended["status"]["lastBackup"]["result"], "Succeeded", "{ended:#}");
    assert!(ended["status"]["progress"].is_null(), "{ended:#}");
}

/// GET requests for index and data files of a repository since `from`, and the bytes of the index files among them.
fn reads(name: &str, from: usize) -> (usize, u64, usize) {
    let servers = bed().servers();
    let log = servers.rest_proxy().log(&format!("/{name}/")).unwrap();
    let (mut requests, mut bytes) = (0, 0);
    for entry in log.iter().skip(from).filter(|entry| entry.method == "GET") {
        let path = entry.path.split('?').next().unwrap_or_default();
        let file = servers.rest_data().join(path.trim_start_matches('/'));
        if path.contains("/index/") && !path.ends_with('/') {
            bytes += std::fs::metadata(file).map_or(0, |file| file.len());
            requests += 1;
        } else if path.contains("/data/") && !path.ends_with('/') {
            requests += 1;
        }
    }
    (requests, bytes, log.len())
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_cache_on_a_claim_spares_reads_from_the_storage() {
    let place = Place::new("a", "cached");
    let mut nas = place.repository("nas", &faulty("cached"));
    // The operator's own looks would be counted too.
    nas["spec"]["refreshInterval"] = json!("12h");
    let backup = |name: &str, more: Value| place.backup(name, json!({ "name": "nas" }), more);
    // A volume for which the kubelet honours fsGroup: without it the pod could not write.
    fleet::volume_for(&place.cluster, &place.namespace, "resticbackup-kept-cache").unwrap();
    let cache = json!({ "jobConfig": { "cache": { "size": "1Gi", "storageClassName": "local" } } });
    place.apply(&[nas, backup("plain", json!({})), backup("kept", cache)]);
    place.until_ready("resticbackup/plain");
    place.until_ready("resticbackup/kept");
    let claim = place.until("pvc/resticbackup-kept-cache", "the claim", |o| {
        o["spec"].is_object()
    });
    let owner = &claim["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["name"]),
        (&json!("ResticBackup"), &json!("kept"))
    );
    let run = |name: &str, request: &str| {
        place.write("changes.txt", format!("{name} {request}").as_bytes());
        let before = reads("cached", 0).2;
        let result = place.run(name, request);
        assert_eq!(result["result"], "Succeeded", "{result:#}");
        reads("cached", before)
    };
    run("plain", "1");
    run("kept", "1");
    run("plain", "2");
    run("kept", "2");
    let without = run("plain", "3");
    let with = run("kept", "3");
    assert!(
        with.0 < without.0 && with.1 < without.1,
        "requests and bytes with a cache between runs {with:?}, without {without:?}"
    );
    place.kubectl(&["delete", "resticbackup/kept"]).unwrap();
    place.until("pvc/resticbackup-kept-cache", "the end of the claim", |o| {
        o.is_null() || !o["metadata"]["deletionTimestamp"].is_null()
    });
}
