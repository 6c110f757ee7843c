//! What is killed at each step of a backup: the hook after it runs exactly when the one before it had.

use std::sync::{PoisonError, RwLock};

use serde_json::{Value, json};
use tests::fleet::SYSTEM;

use super::{Application, freeze, on_failure, slow, thaw};
use crate::faults::{pods_of, until};
use crate::support::Place;

/// The step of the run at which something is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Before,
    Backup,
    After,
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// `kill -9` of every process of a container.
    Container(&'static str),
    /// `kubectl delete pod`, with these flags.
    Pod(&'static [&'static str]),
    Job,
    /// By the eviction API.
    Eviction,
    /// `kill -9` of both replicas.
    Operator,
    /// Both replicas, and the pod by force while nobody looks.
    OperatorAndPod,
}

/// `kill -9` of both replicas. They are deleted as well, so that others begin without the kubelet's pauses.
fn kill_operator(place: &Place) {
    for pod in pods_of(place, "fleet-spoke") {
        until("a process of the operator", || {
            let killed = place
                .cluster
                .signal_container(SYSTEM, &pod, "fleet-spoke", "KILL");
            killed.is_ok()
        });
        let delete = [&["delete", "pod", "-n", SYSTEM, &pod], FORCE].concat();
        place.cluster.kubectl(&delete).unwrap();
    }
}

/// The operator is killed by one test alone.
static OPERATOR: RwLock<()> = RwLock::new(());

const FORCE: &[&str] = &["--grace-period=0", "--force"];

impl Victim {
    fn kill(self, place: &Place, pod: &str) {
        match self {
            Victim::Container(name) => {
                place
                    .cluster
                    .signal_container(&place.namespace, pod, name, "KILL")
                    .unwrap();
            }
            Victim::Pod(flags) => {
                let delete = [&["delete", "pod", pod, "--wait=false"], flags].concat();
                place.kubectl(&delete).unwrap();
            }
            Victim::Job => {
                let job = place.get("resticbackup/orders")["status"]["active"][0]
                    .as_str()
                    .unwrap()
                    .to_owned();
                place.kubectl(&["delete", "job", &job, "--wait=false"]).unwrap();
            }
            Victim::Eviction => {
                let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", place.namespace);
                let body =
                    json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod } });
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), body.to_string()).unwrap();
                place
                    .kubectl(&["create", "--raw", &path, "-f", &file.path().to_string_lossy()])
                    .unwrap();
            }
            Victim::Operator => kill_operator(place),
            Victim::OperatorAndPod => {
                kill_operator(place);
                Victim::Pod(FORCE).kill(place, pod);
            }
        }
    }
}

/// Kills the victim at the step, and returns the backup when all is over.
fn kill(name: &str, step: Step, victim: Victim) -> (Application, Value) {
    let hooks = json!({ "preBackup": freeze(step == Step::Before), "postBackup": thaw(step == Step::After),
                        "onFailure": on_failure() });
    let application = Application::new(&format!("kill-{name}"), hooks.clone(), json!({}));
    if step == Step::Backup {
        application.hooks(hooks, slow(&application.place));
        application.place.until_ready("resticbackup/orders");
    }
    let pod = application.start("1");
    match step {
        Step::Before => application.until_log("pre"),
        Step::Backup => {
            application
                .place
                .until(&format!("pod/{pod}"), "restic at work", |o| {
                    !o["status"]["containerStatuses"][0]["state"]["running"].is_null()
                });
        }
        Step::After => application.until_log("post"),
    }
    // The operator has seen the run, as it has a moment after its Job was made.
    application
        .place
        .until("resticbackup/orders", "the run is known", |o| {
            o["status"]["openHooks"][0]["job"].is_string()
        });
    victim.kill(&application.place, &pod);
    application.place.write("go-pre", b"");
    application.place.write("go-post", b"");
    let backup = application.until_settled(1);
    let log = application.log();
    assert!(log.contains(&"pre".to_owned()), "{log:?}");
    assert_eq!(
        log.last().map(|l| l != "pre" && l != "pre-end"),
        Some(true),
        "{log:?}"
    );
    assert!(
        log.contains(&"post-end".to_owned()),
        "{victim:?} at {step:?}: {log:?}"
    );
    assert!(
        !application.is_frozen(),
        "{victim:?} at {step:?} left the application frozen: {log:?}"
    );
    (application, backup)
}

fn last(backup: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let last = &backup["status"]["lastBackup"];
    (text(&last["result"]), text(&last["reason"]))
}

fn result_of(name: &str, step: Step, victim: Victim, results: &[&str]) {
    let alone = matches!(victim, Victim::Operator | Victim::OperatorAndPod);
    let (write, read);
    if alone {
        write = OPERATOR.write().unwrap_or_else(PoisonError::into_inner);
        let _ = &write;
    } else {
        read = OPERATOR.read().unwrap_or_else(PoisonError::into_inner);
        let _ = &read;
    }
    let (application, backup) = kill(name, step, victim);
    let (result, reason) = last(&backup);
    let got = format!("{result}/{reason}");
    assert!(
        results.contains(&got.as_str()),
        "{victim:?} at {step:?}: {got} is none of {results:?}: {:#}\n{:?}",
        backup["status"]["lastBackup"],
        application.log()
    );
    let failed = application.log().contains(&"failure".to_owned());
    assert_eq!(
        failed,
        result == "Failed",
        "onFailure ran: {:?}",
        application.log()
    );
}

macro_rules! kills {
    ($($test:ident: $name:literal, $step:ident, $victim:expr => $results:expr;)*) => {$(
        #[test]
        #[ignore = "needs clusters: make faults"]
        fn $test() {
            result_of($name, Step::$step, $victim, $results);
        }
    )*};
}

const GONE: &[&str] = &["Failed/PodDeleted", "Failed/JobFailed", "Failed/Interrupted"];

kills! {
    hook_before_killed: "pre-hook", Before, Victim::Container("pre-backup-hook") => &["Failed/PreHookFailed"];
    pod_deleted_before: "pre-pod", Before, Victim::Pod(&[]) => &["Failed/PodDeleted", "Failed/JobFailed"];
    pod_deleted_by_force_before: "pre-force", Before, Victim::Pod(FORCE) => &["Failed/PodDeleted", "Failed/JobFailed"];
    operator_killed_before: "pre-op", Before, Victim::Operator => &["Succeeded/"];
    restic_killed: "restic", Backup, Victim::Container("restic") => &["Failed/ContainerFailed"];
    sidecar_killed: "sidecar", Backup, Victim::Container("post-backup-hook") => &["Succeeded/", "PartiallyFailed/PostHookFailed"];
    pod_deleted: "pod", Backup, Victim::Pod(&[]) => GONE;
    pod_deleted_by_force: "force", Backup, Victim::Pod(FORCE) => GONE;
    pod_evicted: "evicted", Backup, Victim::Eviction => &["Failed/Evicted"];
    job_deleted: "job", Backup, Victim::Job => &["Failed/JobDeleted"];
    operator_killed: "op", Backup, Victim::Operator => &["Succeeded/"];
    operator_and_pod_killed: "op-pod", Backup, Victim::OperatorAndPod => GONE;
    sidecar_killed_after: "post-hook", After, Victim::Container("post-backup-hook") => &["PartiallyFailed/PostHookFailed"];
    // Its hook may end before the kubelet ends it.
    pod_deleted_by_force_after: "post-force", After, Victim::Pod(FORCE) => &["Succeeded/", "PartiallyFailed/PostHookFailed", "Failed/PodDeleted", "Failed/JobFailed"];
    operator_killed_after: "post-op", After, Victim::Operator => &["Succeeded/"];
}
