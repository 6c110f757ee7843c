//! The original operator is replaced while its resources, CronJobs and Jobs are in place.

mod original;
mod samples;

use std::path::PathBuf;

use serde_json::{Value, json};
use tests::fleet;

use crate::retention::{restic, snapshots, start, until_run};
use crate::support::{Place, condition, s3};
use original::{create, ready, resource, status};

/// The operator of a cluster, which is stopped; started again when this goes out of scope.
struct Stopped<'a>(&'a Place);

impl Stopped<'_> {
    fn new(place: &Place) -> Stopped<'_> {
        let stopped = Stopped(place);
        stopped.scale(0);
        let gone = [
            "wait",
            "-n",
            fleet::SYSTEM,
            "pod",
            "-l",
            "app.kubernetes.io/name=fleet-spoke",
        ];
        let gone = [&gone[..], &["--for=delete", "--timeout=60s"]].concat();
        place.cluster.kubectl(&gone).unwrap();
        stopped
    }

    fn scale(&self, replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        let arguments = ["scale", "-n", fleet::SYSTEM, "deployment/fleet-spoke", &replicas];
        self.0.cluster.kubectl(&arguments).unwrap();
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.scale(2);
        fleet::rollout(&self.0.cluster, "fleet-spoke").ok();
    }
}

const RESOURCES: [&str; 6] = [
    "resticbackup/orders",
    "resticrestore/finished",
    "resticrestore/cleared",
    "resticrestore/halfway",
    "globalretentionpolicy/weekly",
    "resticrepository/nas",
];

/// Resources as the original operator leaves them. No operator runs meanwhile.
fn resources(place: &Place) {
    let restore = |name: &str| {
        let spec = json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "back" } } });
        resource("ResticRestore", name, spec)
    };
    let objects = [
        resource(
            "ResticRepository",
            "nas",
            json!({ "repositoryURL": s3(0, &place.namespace), "credentialsSecretRef": { "name": "storage" } }),
        ),
        resource(
            "ResticBackup",
            "orders",
            json!({ "repositoryRef": { "name": "nas" }, "schedule": "0 3 1 1 *", "source": { "pvc": { "claimName": "data" } },
                    "restic": { "hostname": original::HOST, "tags": ["daily"] } }),
        ),
        restore("finished"),
        restore("cleared"),
        restore("halfway"),
        resource(
            "GlobalRetentionPolicy",
            "weekly",
            json!({ "repositoryRef": { "name": "nas" }, "schedule": "0 3 1 1 *",
                    "policies": [{ "selector": { "hostname": original::HOST }, "retention": { "keepLast": 1 } }], "prune": true }),
        ),
    ];
    for object in &objects {
        create(place, object);
    }
    let done = json!({ "phase": "Completed", "startTime": "2026-11-01T00:00:00Z", "completionTime": "2026-11-01T00:01:00Z",
                       "restoredSnapshot": "latest", "conditions": ready("True", "RestoreCompleted") });
    let half = json!({ "phase": "InProgress", "startTime": "2026-11-01T00:00:00Z", "conditions": ready("Unknown", "RestoreInProgress") });
    for (object, state) in RESOURCES.iter().zip([
        json!({ "conditions": ready("True", "BackupConfigured") }),
        done.clone(),
        done,
        half,
        json!({ "conditions": ready("True", "RetentionPolicyConfigured") }),
        json!({ "conditions": ready("True", "RepositoryAccessible") }),
    ]) {
        status(place, object, state);
    }
}

/// CronJobs and Jobs: two backups and a restore are over, one of each is under way.
fn workloads(place: &Place) {
    create(place, &original::backup_cron_job(place));
    create(place, &original::retention_cron_job(place));
    // restic writes one file per snapshot: none is changed by another.
    for job in ["resticbackup-orders-29300000", "resticbackup-orders-29300001"] {
        create(place, &original::backup_job(place, job, false));
    }
    let complete = ["wait", "--for=condition=Complete", "--timeout=60s"];
    let wait = |jobs: &[&str]| drop(place.kubectl(&[&complete[..], jobs].concat()).unwrap());
    wait(&[
        "job/resticbackup-orders-29300000",
        "job/resticbackup-orders-29300001",
    ]);
    create(place, &original::restore_job(place, "finished", false));
    create(place, &original::restore_job(place, "halfway", true));
    let uid = create(
        place,
        &original::backup_job(place, "resticbackup-orders-29300002", true),
    );
    wait(&["job/resticrestore-finished"]);
    // As the controller of CronJobs notes the Jobs that it starts.
    let active = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "resticbackup-orders-29300002",
                          "namespace": place.namespace, "uid": uid }]);
    status(place, "cronjob/resticbackup-orders", json!({ "active": active }));
    // Two more programs that have written to it.
    let patch = json!({ "spec": { "jobTemplate": { "spec": { "backoffLimit": 2 } } } }).to_string();
    let edit = [
        "patch",
        "cronjob/resticbackup-orders",
        "--type=merge",
        "--field-manager=kubectl-edit",
        "-p",
        &patch,
    ];
    place.kubectl(&edit).unwrap();
    let applied = json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "resticbackup-orders" },
                          "spec": { "failedJobsHistoryLimit": 9 } });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), applied.to_string()).unwrap();
    let file = file.path().to_string_lossy();
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=gitops",
        "-f",
        &file,
    ];
    place.kubectl(&apply).unwrap();
}

/// Name and uid of everything that was made.
fn made(place: &Place) -> Vec<(String, String)> {
    let list = place.kubectl(&["get", "cronjobs,jobs", "-o", "json"]).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    items
        .map(|item| (text(&item["metadata"]["name"]), text(&item["metadata"]["uid"])))
        .collect()
}

/// The CronJob is the one that was there, with the spec that it has when there was none before.
fn adopted(cron_job: &Value) {
    let spec = &cron_job["spec"];
    assert_eq!(
        (&spec["schedule"], &spec["suspend"], &spec["concurrencyPolicy"]),
        (&json!("0 3 1 1 *"), &json!(false), &json!("Forbid"))
    );
    assert_eq!(
        (
            &spec["jobTemplate"]["spec"]["backoffLimit"],
            &spec["failedJobsHistoryLimit"]
        ),
        (&json!(0), &json!(3)),
        "what others had set"
    );
    let pod = &spec["jobTemplate"]["spec"]["template"]["spec"];
    let names = |list: &Value| -> Vec<Value> {
        let list = list.as_array().cloned().unwrap_or_default();
        list.into_iter().map(|item| item["name"].clone()).collect()
    };
    assert!(
        !names(&pod["volumes"]).contains(&json!("backup-source")),
        "{pod:#}"
    );
    // The Secret that the variables of before refer to.
    assert!(!pod.to_string().contains("\"storage\""), "{pod:#}");
    let command = pod["containers"][0]["command"].to_string();
    assert!(!command.contains("/bin/sh"), "{command}");
}

fn files_of(place: &Place, claim: &str) -> PathBuf {
    fleet::volume_path(&place.cluster, &place.namespace, claim)
        .unwrap()
        .into()
}

#[test]
#[ignore = "needs clusters: make long"]
fn the_original_operator_is_replaced_with_its_resources_cron_jobs_and_jobs_in_place() {
    let place = Place::new("b", "upgrade");
    let url = s3(0, &place.namespace);
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "back" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
    ]);
    fleet::open_volume(&place.cluster, &place.namespace, "back").unwrap();
    restic(&url, &["init"]);
    let stopped = Stopped::new(&place);
    resources(&place);
    workloads(&place);
    let (before, stored) = (made(&place), snapshots(&url, ""));
    assert_eq!(stored.len(), 2);
    drop(stopped);

    // Nothing was made anew, and nothing started.
    let backup = place.until("resticbackup/orders", "the runs of before", |o| {
        condition(o, "Ready")["status"] == "True" && o["status"]["statistics"]["totalBackups"] == 2
    });
    let state = &backup["status"];
    assert_eq!(
        state["active"],
        json!(["resticbackup-orders-29300002"]),
        "{state:#}"
    );
    assert_eq!(
        (
            &state["lastBackup"]["result"],
            &state["statistics"]["failedBackups"]
        ),
        (&json!("Succeeded"), &json!(0)),
        "{state:#}"
    );
    place.until_ready("globalretentionpolicy/weekly");
    place.until_ready("resticrepository/nas");
    place.until("resticrestore/halfway", "in progress", |o| {
        condition(o, "Progressing")["status"] == "True" && o["status"]["phase"] == "InProgress"
    });
    for name in ["finished", "cleared"] {
        let state = &place.get(&format!("resticrestore/{name}"))["status"];
        assert_eq!(
            (&state["phase"], &state["completionTime"]),
            (&json!("Completed"), &json!("2026-11-01T00:01:00Z"))
        );
    }
    assert_eq!(made(&place), before);
    let cron_job = place.get("cronjob/resticbackup-orders");
    adopted(&cron_job);
    assert_eq!(
        cron_job["status"]["active"][0]["name"],
        "resticbackup-orders-29300002"
    );
    let policy = place.get("cronjob/globalretention-weekly");
    let text = policy["spec"].to_string();
    assert!(
        !text.contains("restic forget") && policy["spec"]["schedule"] == "0 3 1 1 *",
        "{text}"
    );
    for object in RESOURCES {
        place.until(object, "no finalizer", |o| o["metadata"]["finalizers"].is_null());
    }

    // What was under way ends, and its end is told.
    place.write("go", b"");
    std::fs::write(files_of(&place, "back").join("go"), b"").unwrap();
    let backup = place.until("resticbackup/orders", "a third run", |o| {
        o["status"]["statistics"]["totalBackups"] == 3
    });
    assert_eq!(
        backup["status"]["statistics"]["successfulBackups"], 3,
        "{backup:#}"
    );
    let restored = place.until("resticrestore/halfway", "an end", |o| {
        ["Completed", "Failed"].contains(&o["status"]["phase"].as_str().unwrap_or_default())
    });
    assert_eq!(restored["status"]["phase"], "Completed", "{restored:#}");
    let stored = snapshots(&url, "");
    assert_eq!((stored.len(), made(&place)), (3, before));

    // Snapshots without a mark of this cluster are the backup's own, and what would remove them is shown first.
    place.apply(&[json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "new" },
        "spec": { "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "back", "path": "/new" } } } })]);
    start(&place, "weekly", "now");
    place.until("resticrestore/new", "Completed", |o| {
        o["status"]["phase"] == "Completed"
    });
    assert!(files_of(&place, "back").join("new/small/a.txt").exists());
    let run = until_run(&place, "weekly", &json!({}));
    assert_eq!(run["lastRunResult"], "Preview", "{run:#}");
    assert!(
        run["lastRunMessage"].as_str().unwrap().contains("2 of 3"),
        "{run:#}"
    );
    assert_eq!(snapshots(&url, ""), stored);
    assert_eq!(place.run("orders", "1")["result"], "Succeeded");
    for object in RESOURCES {
        place.kubectl(&["delete", object, "--timeout=20s"]).unwrap();
    }
    assert_eq!(snapshots(&url, "").len(), 4);
}
