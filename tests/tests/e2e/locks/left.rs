//! Locks of restic that dead processes leave behind.

use serde_json::{Value, json};

use super::deleting::{MENDED, within};
use super::{Blocker, audit, lock};
use crate::faults::until;
use crate::retention::{make_snapshots, policy, repository_id, restic, start, until_run};
use crate::support::{Place, bed, condition, noise, s3};

/// Ids of the locks in a repository.
fn locks(url: &str) -> Vec<String> {
    let printed = restic(url, &["list", "locks", "--no-lock"]);
    printed.split_whitespace().map(str::to_owned).collect()
}

/// Waits until a repository of the bucket has a lock, and whether that was before `over`. Looks at the storage's own files:
/// restic needs longer to list them than some of its locks are there.
fn until_locked(repository: &str, over: impl Fn() -> bool) -> bool {
    let folder = bed()
        .servers()
        .dir()
        .join("s3/fleet")
        .join(repository)
        .join("locks");
    for look in 1.. {
        if std::fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()) {
            return true;
        }
        if look % 200 == 0 && over() {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    false
}

/// Name of the pod that works for something, by its type.
fn pod(place: &Place, type_: &str) -> Option<String> {
    let label = format!("backup.resticbackup.io/type={type_}");
    let running = ["--field-selector", "status.phase=Running"];
    let mut arguments = vec![
        "get",
        "pods",
        "-l",
        &label,
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ];
    arguments.extend(running);
    let names = place.kubectl(&arguments).ok()?;
    names.split_whitespace().next().map(str::to_owned)
}

/// `kill -9` of everything in a pod's container.
fn kill(place: &Place, pod: &str) {
    place
        .cluster
        .signal_container(&place.namespace, pod, "restic", "KILL")
        .unwrap();
}

/// Waits until the audit names these locks as removed.
fn until_removed(id: &str, removed: &[String]) -> Value {
    let named = |entry: &Value| {
        let ids = entry["outcome"]["removedLocks"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let named = removed
            .iter()
            .all(|id| ids.iter().any(|known| known == id.as_str()));
        named
            && entry["subject"]
                .as_str()
                .is_some_and(|s| s.starts_with("unlock "))
    };
    // An attempt that fails on a busy machine is made again, after a pause.
    within(MENDED, "the lock is removed, and the audit names it", || {
        audit(id).iter().any(named)
    });
    audit(id).into_iter().find(|entry| named(entry)).unwrap()
}

#[test]
#[ignore = "needs clusters: make long"]
fn locks_of_a_killed_backup_and_a_killed_prune_go_without_a_person() {
    let (place, url) = (Place::new("a", "left"), s3(0, "left"));
    // 30 seconds, of which the run has those until it is killed.
    place.write("slow.bin", &noise(12 << 20));
    let slow = json!({ "restic": { "extraArgs": ["--limit-upload=400"] } });
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    place.apply(&[
        place.repository("nas", &url),
        place.backup("orders", json!({ "name": "nas" }), slow),
        policy("p", keep, more),
    ]);
    place.until_ready("resticbackup/orders");
    place.until_ready("globalretentionpolicy/p");
    let id = repository_id(&place);

    place
        .kubectl(&["annotate", "resticbackup/orders", "backup.resticbackup.io/run=1"])
        .unwrap();
    // The kubelet reports a pod as running after restic in it has begun.
    until("the backup holds its lock, in a pod that runs", || {
        locks(&url).len() == 1 && pod(&place, "backup").is_some()
    });
    let left = locks(&url);
    kill(&place, &pod(&place, "backup").unwrap());
    place.until("resticbackup/orders", "the failed run", |o| {
        o["status"]["lastBackup"]["result"] == "Failed"
    });
    assert_eq!(locks(&url), left, "restic has left its lock");
    let seen = place.until("resticrepository/nas", "the lock in the status", |o| {
        o["status"]["locks"].as_array().is_some_and(|l| l.len() == 1)
    });
    let user = seen["status"]["locks"][0]["user"].as_str().unwrap();
    assert!(user.starts_with("fleet:a:") && user.ends_with(":0"), "{user}");
    let entry = until_removed(&id, &left);
    assert!(
        entry["outcome"]["message"].as_str().unwrap().contains(" old"),
        "{entry:#}"
    );
    let object = place.until("resticrepository/nas", "told", |o| {
        condition(o, "Degraded")["reason"] == "RepositoryUnlocked"
    });
    assert_eq!(condition(&object, "Degraded")["status"], "False");
    make_snapshots(&url, "a", "left/orders", "x", 1..5);
    let before = place.get("globalretentionpolicy/p")["status"].clone();
    start(&place, "p", "after-backup");
    let ran = until_run(&place, "p", &before);
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");

    // The exclusive lock of forget or prune, whichever is caught.
    let mut left = Vec::new();
    for attempt in 0..10 {
        make_snapshots(&url, "a", "left/orders", "x", 1..8);
        start(&place, "p", &format!("killed-{attempt}"));
        until("its pod runs, or is over", || {
            pod(&place, "retention").is_some() || job_over(&place, attempt)
        });
        if let Some(pod) = pod(&place, "retention") {
            if until_locked("left", || job_over(&place, attempt)) {
                kill(&place, &pod);
            }
            until("the Job is over", || job_over(&place, attempt));
        }
        left = locks(&url);
        if !left.is_empty() {
            break;
        }
    }
    assert_eq!(left.len(), 1, "no run was caught with its lock");
    until_removed(&id, &left);
    let before = place.get("globalretentionpolicy/p")["status"].clone();
    make_snapshots(&url, "a", "left/orders", "x", 1..3);
    start(&place, "p", "after-prune");
    let ran = until_run(&place, "p", &before);
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
    restic(&url, &["check", "--read-data", "-q"]);
}

fn job_over(place: &Place, attempt: u32) -> bool {
    let job = place.get(&format!("job/killed-{attempt}"));
    let conditions = job["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    job.is_null()
        || conditions
            .iter()
            .any(|c| c["type"] == "Failed" || c["type"] == "Complete")
}

#[test]
#[ignore = "needs clusters: make test"]
fn the_lock_of_a_live_restic_elsewhere_stays_and_is_explained() {
    let (place, url) = (Place::new("b", "elsewhere"), s3(1, "elsewhere"));
    place.apply(&[place.repository("nas", &url)]);
    place.until_ready("resticrepository/nas");
    let id = repository_id(&place);
    let blocker = Blocker::new(&url);
    let held = locks(&url);
    // The look that comes with the statistics finds it.
    let object = place.until("resticrepository/nas", "the lock in the status", |o| {
        o["status"]["locks"].as_array().is_some_and(|l| l.len() == 1)
    });
    let kept = object["status"]["locks"][0]["keptBecause"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(kept.contains("has not changed for 35m"), "{kept}");
    let first = object["status"]["locks"][0]["unchangedSince"].clone();
    // Longer than a pod's of ours would stay, had it ended.
    place.until("resticrepository/nas", "statistics of three looks later", |o| {
        let as_of = o["status"]["statistics"]["asOf"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        seconds(&as_of) - seconds(first.as_str().unwrap()) > 60
    });
    assert_eq!(locks(&url), held);
    let told = lock(&id)["resticLocks"][0].clone();
    assert_eq!(
        (&told["id"], &told["keptBecause"]),
        (&json!(held[0]), &json!(kept))
    );
    assert!(audit(&id).is_empty(), "nothing was tried");
    drop(blocker);
}

fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().unwrap().as_second()
}
