//! What is killed comes back right, and what is deleted leaves nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::SYSTEM;

use crate::support::{Place, noise, s3};

fn spoke_pods(place: &Place) -> Vec<String> {
    pods_of(place, "fleet-spoke")
}

/// Pods of a Deployment of ours.
pub fn pods_of(place: &Place, app: &str) -> Vec<String> {
    let names = place.cluster.kubectl(&[
        "get",
        "pods",
        "-n",
        SYSTEM,
        "-l",
        &format!("app.kubernetes.io/name={app}"),
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ]);
    names.unwrap().split_whitespace().map(str::to_owned).collect()
}

/// `kill -9` of both replicas.
pub fn kill_spokes(place: &Place) {
    for pod in spoke_pods(place) {
        place
            .cluster
            .signal_container(SYSTEM, &pod, "fleet-spoke", "KILL")
            .unwrap();
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_spoke_killed_during_a_backup_loses_and_doubles_nothing() {
    let place = Place::new("a", "killed");
    place.write("slow.bin", &noise(6 << 20));
    // Slow enough to be in the middle of it.
    let slow = json!({ "restic": { "extraArgs": ["--limit-upload=400"] } });
    place.apply(&[
        place.repository("nas", &s3(0, "killed")),
        place.backup("orders", json!({ "name": "nas" }), slow),
    ]);
    place.until_ready("resticbackup/orders");
    place
        .kubectl(&["annotate", "resticbackup/orders", "backup.resticbackup.io/run=1"])
        .unwrap();
    place.until("resticbackup/orders", "a running backup", |o| {
        o["status"]["active"].as_array().is_some_and(|a| a.len() == 1)
    });
    kill_spokes(&place);
    let object = place.until("resticbackup/orders", "the result", |o| {
        o["status"]["statistics"]["totalBackups"] == 1
    });
    assert_eq!(
        object["status"]["lastBackup"]["result"], "Succeeded",
        "{:#}",
        object["status"]
    );
    let object = place.until("resticbackup/orders", "idle", |o| o["status"]["active"].is_null());
    assert_eq!(object["status"]["statistics"]["successfulBackups"], 1);
    let jobs = place
        .kubectl(&["get", "jobs", "-o", "jsonpath={.items[*].metadata.name}"])
        .unwrap();
    assert_eq!(jobs.split_whitespace().count(), 1, "one request, one Job: {jobs}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn two_hundred_backups_come_and_go_and_leave_nothing() {
    let place = Place::new("b", "many");
    place.apply(&[place.repository("nas", &s3(1, "many"))]);
    place.until_ready("resticrepository/nas");
    let backups: Vec<Value> = (0..200)
        .map(|n| place.backup(&format!("b{n}"), json!({ "name": "nas" }), json!({})))
        .collect();
    let start = Instant::now();
    place.apply(&backups);
    until("200 CronJobs", || count(&place, "cronjobs") == 200);
    eprintln!("200 backups were there after {:?}", start.elapsed());
    place
        .kubectl(&["delete", "resticbackups", "--all", "--wait=false"])
        .unwrap();
    // Half of them come back while the others go.
    place.apply(&backups[..100]);
    place
        .kubectl(&["delete", "resticbackups", "--all", "--wait=false"])
        .unwrap();
    for kind in [
        "resticbackups",
        "cronjobs",
        "serviceaccounts -l app.kubernetes.io/name=restic-backup-operator",
        "configmaps -l app.kubernetes.io/name=restic-backup-operator",
    ] {
        until(&format!("no {kind}"), || count(&place, kind) == 0);
    }
    // Actors, as the leader counts them. Another test may kill both replicas meanwhile, and the kubelet starts them again
    // with rising pauses.
    until_shown(Duration::from_secs(300), "no actor left over", || {
        left_over(&place)
    });
}

/// What the leader still holds of deleted backups, in words; `Ok` for nothing.
fn left_over(place: &Place) -> Result<(), String> {
    let pods = spoke_pods(place);
    let leader = pods
        .iter()
        .map(|pod| metrics(place, pod))
        .find(|m| m.contains("\nfleet_leader 1\n"));
    let Some(metrics) = leader else {
        return Err(format!("none of {pods:?} says that it leads"));
    };
    let prefix = "fleet_actors{kind=\"ResticBackup\"} ";
    let actors = metrics
        .lines()
        .find_map(|line| line.strip_prefix(prefix))
        .unwrap_or("no count");
    let all = place
        .cluster
        .kubectl(&["get", "resticbackups", "-A", "-o", "name"])
        .map_err(|e| format!("{e:#}"))?
        .lines()
        .count();
    if actors != all.to_string() {
        return Err(format!("{actors} actors for {all} backups"));
    }
    // Its repository is still there.
    let of_backups =
        |line: &&str| line.contains("namespace=\"many\"") && !line.starts_with("fleet_repository_");
    match metrics.lines().find(of_backups) {
        Some(series) => Err(format!("the series {series}")),
        None => Ok(()),
    }
}

fn metrics(place: &Place, pod: &str) -> String {
    let wget = [
        "exec",
        "-n",
        SYSTEM,
        pod,
        "--",
        "wget",
        "-qO-",
        "http://127.0.0.1:8080/metrics",
    ];
    place.cluster.kubectl(&wget).unwrap_or_default()
}

fn count(place: &Place, kind: &str) -> usize {
    let mut arguments = vec!["get"];
    arguments.extend(kind.split(' '));
    arguments.extend(["-o", "name"]);
    place.kubectl(&arguments).unwrap().lines().count()
}

pub fn until(what: &str, holds: impl Fn() -> bool) {
    until_within(crate::support::SOON, what, holds);
}

/// The same, for what may take longer.
fn until_within(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    until_shown(limit, what, || {
        if holds() {
            Ok(())
        } else {
            Err("it does not hold".to_owned())
        }
    });
}

/// The same, saying what was there instead.
fn until_shown(limit: Duration, what: &str, look: impl Fn() -> Result<(), String>) {
    let end = Instant::now() + limit;
    while let Err(seen) = look() {
        assert!(Instant::now() < end, "{what} did not come: {seen}");
        std::thread::sleep(Duration::from_millis(300));
    }
}
