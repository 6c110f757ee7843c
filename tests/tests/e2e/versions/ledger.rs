//! What is looked at after a change of versions: runs, deletions, and what changes although nobody changes it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tests::Cluster;
use tests::fleet::SYSTEM;
use tests::proxy::Entry;
use tests::storage_log::{self, Grant};

use super::NAME;
use crate::locks::deleting::{MENDED, within};
use crate::retention::snapshots;
use crate::support::{Place, bed, s3};

/// Longer than all intervals at which an operator of this bed looks again.
const SETTLED: Duration = Duration::from_secs(25);
/// Kinds that an operator makes. Secrets of pods are among them.
const MADE: &str = "cronjobs,configmaps,secrets,serviceaccounts,roles,rolebindings";

fn list(place: &Place, arguments: &[&str]) -> Vec<Value> {
    let text = place
        .kubectl(&[&["get"], arguments, &["-o", "json"]].concat())
        .unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// Jobs of a backup.
pub fn jobs(place: &Place, backup: &str) -> Vec<Value> {
    let label = format!("backup.resticbackup.io/backup={backup}");
    list(place, &["jobs", "-l", &label])
}

/// Whether a backup runs.
pub fn runs(object: &Value) -> bool {
    object["status"]["active"]
        .as_array()
        .is_some_and(|a| !a.is_empty())
}

/// Whether restic of a backup's pod is at work.
pub fn sends(place: &Place, backup: &str) -> bool {
    let label = format!("backup.resticbackup.io/backup={backup}");
    let pods = list(
        place,
        &["pods", "-l", &label, "--field-selector=status.phase=Running"],
    );
    pods.iter().any(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let pids = place.cluster.container_pids(&place.namespace, name, "restic");
        pids.is_ok_and(|pids| !pids.is_empty())
    })
}

/// Begins or ends the backups of every minute; when it returns after their end, none runs.
pub fn suspend_minutes(place: &Place, suspend: bool) {
    let patch = json!({ "spec": { "suspend": suspend } }).to_string();
    let arguments = ["patch", "resticbackup/minutes", "--type=merge", "-p", &patch];
    place.kubectl(&arguments).unwrap();
    place.until("cronjob/resticbackup-minutes", "the change", |o| {
        o["spec"]["suspend"] == suspend
    });
    if suspend {
        place.until_within(MENDED, "resticbackup/minutes", "no run", |o| !runs(o));
    }
}

/// Each Job of a backup was counted once and has made one snapshot.
pub fn every_run_has_one_result(place: &Place, backup: &str) {
    let tags = format!(
        "fleet.cluster={},fleet.backup={NAME}/{backup}",
        place.cluster.name
    );
    let object = format!("resticbackup/{backup}");
    let counted = || {
        let count = &place.get(&object)["status"]["statistics"];
        [&count["totalBackups"], &count["successfulBackups"]].map(Value::as_u64)
    };
    let begun = u64::try_from(jobs(place, backup).len()).ok();
    within(MENDED, "the last result", || counted()[0] >= begun);
    let stored = u64::try_from(snapshots(&s3(0, NAME), &tags).len()).ok();
    let failed: Vec<Value> = jobs(place, backup)
        .into_iter()
        .filter(|job| job["status"]["succeeded"] != 1)
        .collect();
    assert_eq!(
        failed,
        Vec::<Value>::new(),
        "of {object} in {}",
        place.cluster.name
    );
    eprintln!("{}: {object}: {begun:?} runs", place.cluster.name);
    assert_eq!((counted(), stored), ([begun, begun], begun), "{object}");
}

/// Whether an operator of this image leads in a cluster.
pub fn leads(cluster: &Cluster, image: &str) -> bool {
    let shown = "jsonpath={.spec.containers[0].image}";
    let of = |pod: &str| cluster.kubectl(&["get", "pod", "-n", SYSTEM, pod, "-o", shown]);
    cluster
        .leader()
        .and_then(|pod| of(&pod))
        .is_ok_and(|found| found == image)
}

/// A run of a backup began before that time, and has succeeded after it.
pub fn a_run_spans(place: &Place, backup: &str, at: Timestamp) {
    let runs = jobs(place, backup);
    let time = |job: &Value, of: &str| job["status"][of].as_str()?.parse::<Timestamp>().ok();
    let spans = |job: &Value| {
        time(job, "startTime").is_some_and(|t| t < at) && time(job, "completionTime").is_some_and(|t| t > at)
    };
    assert!(
        runs.iter().any(spans),
        "no {backup} was under way at {at} in {}: {runs:#?}",
        place.cluster.name
    );
}

/// Packs of the repository that a cluster's pods have deleted, or are deleting.
pub fn packs_of(place: &Place) -> Vec<Entry> {
    let mut log = bed().servers().rest_proxy().log(&format!("/{NAME}/")).unwrap();
    let (prefix, packs) = (place.cluster.pod_prefix(), format!("/{NAME}/data"));
    log.retain(|e| storage_log::deletes(e, &packs) && e.client.starts_with(&prefix));
    log
}

/// Every deletion lay inside the time of its grant, and a token's were among them.
pub fn judge(grants: &[Grant], token: u64) {
    let log = bed().servers().rest_proxy().log(&format!("/{NAME}/")).unwrap();
    let verdict = storage_log::judge(&log, grants, &format!("/{NAME}"), &bed().pod_networks());
    eprintln!("{verdict}");
    assert!(verdict.violations.is_empty(), "{verdict}\n{grants:#?}");
    assert!(
        verdict.deletes.get(&token).is_some_and(|n| *n > 10),
        "the versions changed in the middle of deleting: {verdict}"
    );
}

/// What people wrote, and what the operators have made of it, by names.
pub fn content(places: &[&Place]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for place in places {
        let objects = [list(place, &[MADE]), list(place, &["rr,rb,rres,grp"])].concat();
        for mut object in objects {
            let name = format!(
                "{} {} {}",
                place.cluster.name, object["kind"], object["metadata"]["name"]
            );
            let fields = object.as_object_mut().unwrap();
            fields.retain(|field, _| !["metadata", "status"].contains(&field.as_str()));
            all.insert(name, object);
        }
    }
    all
}

/// Versions of what the operators have made, and generations of the resources, by their names.
fn versions(places: &[&Place]) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for place in places {
        let made = list(place, &[MADE]);
        let resources = list(place, &["rr,rb,rres,grp"]);
        for (objects, part) in [(made, "resourceVersion"), (resources, "generation")] {
            for object in objects {
                let name = format!(
                    "{} {} {}",
                    place.cluster.name, object["kind"], object["metadata"]["name"]
                );
                all.insert(name, object["metadata"][part].clone());
            }
        }
    }
    all
}

/// Nothing is written again and again once a version has settled. No backup runs meanwhile.
pub fn nothing_drifts(places: &[&Place]) {
    // An object that is written anew after the change may be written once more.
    std::thread::sleep(SETTLED);
    let before = versions(places);
    assert!(before.len() > 20, "{before:#?}");
    std::thread::sleep(2 * SETTLED);
    assert_eq!(versions(places), before);
}
