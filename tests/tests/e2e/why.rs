//! Why a run does not start, and how it ended: what real clusters do to it is told within a minute, in their own words.

use std::time::Duration;

use serde_json::{Value, json};
use tests::fleet;

use crate::support::{Place, condition, noise, s3};

/// What a cause may take to be told.
const TOLD: Duration = Duration::from_secs(60);

/// A place with a repository that is ready.
fn place(cluster: &str, name: &str) -> Place {
    let place = Place::new(cluster, name);
    place.apply(&[place.repository("nas", &s3(0, name))]);
    place.until_ready("resticrepository/nas");
    place
}

fn make(place: &Place, name: &str, more: Value) {
    place.apply(&[place.backup(name, json!({ "name": "nas" }), more)]);
}

fn ask(place: &Place, name: &str) {
    let object = format!("resticbackup/{name}");
    place
        .kubectl(&["annotate", &object, "backup.resticbackup.io/run=1", "--overwrite"])
        .unwrap();
}

/// A backup that is asked for, and what it says that it waits for. Nothing is called running.
fn waits(place: &Place, name: &str, more: Value, reason: &str) -> String {
    make(place, name, more);
    place.until_ready(&format!("resticbackup/{name}"));
    ask(place, name);
    told(place, &format!("resticbackup/{name}"), reason)
}

fn told(place: &Place, object: &str, reason: &str) -> String {
    let object = place.until_within(TOLD, object, reason, |o| {
        condition(o, "Waiting")["reason"] == reason && condition(o, "Waiting")["status"] == "True"
    });
    assert_eq!(condition(&object, "Progressing")["status"], "False", "{object:#}");
    let message = condition(&object, "Waiting")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    eprintln!("{reason}: {message}");
    message
}

fn result(place: &Place, name: &str) -> Value {
    let object = place.until(&format!("resticbackup/{name}"), "a result", |o| {
        o["status"]["lastBackup"].is_object()
    });
    eprintln!("{:#}", object["status"]["lastBackup"]);
    object["status"]["lastBackup"].clone()
}

/// Waits until the only pod of a namespace's backups is as described.
fn pod(place: &Place, what: &str, holds: impl Fn(&Value) -> bool) -> String {
    let pods = place.until("pods", what, |list| {
        list["items"]
            .as_array()
            .is_some_and(|pods| pods.iter().any(&holds))
    });
    let mut pods = pods["items"].as_array().cloned().unwrap_or_default().into_iter();
    let pod = pods.find(|pod| holds(pod)).unwrap();
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

/// Slow enough to be in the middle of it.
fn slow(place: &Place, name: &str, job_config: Value) {
    place.write("slow.bin", &noise(6 << 20));
    let more = json!({ "restic": { "extraArgs": ["--limit-upload=200"] }, "jobConfig": job_config });
    make(place, name, more);
    place.until_ready(&format!("resticbackup/{name}"));
    ask(place, name);
    pod(place, "a running pod", is_running);
}

#[test]
#[ignore = "needs clusters: make test"]
fn pods_that_a_quota_or_a_limit_range_refuses_are_told_and_run_when_it_is_gone() {
    let place = place("a", "why-quota");
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": { "limits.cpu": "1", "limits.memory": "1Gi" } } }),
    ]);
    let words = waits(&place, "orders", json!({}), "FailedCreate");
    assert!(
        words.contains("failed quota: q") && words.contains("limits.memory"),
        "{words}"
    );
    place.kubectl(&["delete", "resourcequota", "q"]).unwrap();
    let object = place.until("resticbackup/orders", "the result", |o| {
        o["status"]["statistics"]["totalBackups"] == 1 && condition(o, "Waiting").is_null()
    });
    assert_eq!(object["status"]["lastBackup"]["result"], "Succeeded");

    place.apply(&[json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "most" },
        "spec": { "limits": [{ "type": "Container", "max": { "memory": "32Mi" }, "default": { "memory": "32Mi" } }] } })]);
    let limits = json!({ "jobConfig": { "resources": { "limits": { "memory": "256Mi" } } } });
    let words = waits(&place, "large", limits, "FailedCreate");
    assert!(
        words.contains("maximum memory usage per Container is 32Mi"),
        "{words}"
    );
}

#[test]
#[ignore = "needs clusters: make test"]
fn what_pod_security_or_an_admission_policy_refuses_is_told() {
    let place = place("b", "why-admission");
    place
        .cluster
        .kubectl(&[
            "label",
            "namespace",
            "why-admission",
            "pod-security.kubernetes.io/enforce=restricted",
        ])
        .unwrap();
    let root = json!({ "jobConfig": { "securityContext": { "runAsUser": 0 } } });
    let words = waits(&place, "root", root, "FailedCreate");
    assert!(words.contains("violates PodSecurity"), "{words}");

    let policy = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": "why-no-pods" },
        "spec": { "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }] },
                  "validations": [{ "expression": "false", "message": "pods need a cost centre" }] } });
    let binding = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": "why-no-pods" },
        "spec": { "policyName": "why-no-pods", "validationActions": ["Deny"],
                  "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "why-admission" } } } } });
    let label = "pod-security.kubernetes.io/enforce-";
    place
        .cluster
        .kubectl(&["label", "namespace", "why-admission", label])
        .unwrap();
    place.cluster.apply(&format!("{policy}\n---\n{binding}")).unwrap();
    // The API server compiles a new policy in a moment.
    crate::faults::until("the policy to be in force", || {
        let tried = place.kubectl(&["run", "try", "--image=x", "--dry-run=server"]);
        tried.is_err_and(|refused| format!("{refused:#}").contains("cost centre"))
    });
    let words = waits(&place, "policy", json!({}), "FailedCreate");
    assert!(words.contains("pods need a cost centre"), "{words}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn jobs_and_cron_jobs_that_are_refused_are_told() {
    let place = place("a", "why-jobs");
    make(&place, "often", json!({ "schedule": "* * * * *" }));
    place.until_ready("resticbackup/often");
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": { "count/jobs.batch": "0", "count/cronjobs.batch": "1" } } }),
    ]);
    make(&place, "more", json!({}));
    let object = place.until_within(TOLD, "resticbackup/more", "the quota's words", |o| {
        condition(o, "Ready")["status"] == "False"
            && condition(o, "Ready")["message"]
                .as_str()
                .is_some_and(|m| m.contains("exceeded quota: q"))
    });
    assert_eq!(condition(&object, "Ready")["reason"], "CronJobFailed");
    let object = place.until_within(
        Duration::from_secs(130),
        "resticbackup/often",
        "FailedCreate",
        |o| condition(o, "Waiting")["reason"] == "FailedCreate",
    );
    let words = condition(&object, "Waiting")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        words.contains("CronJob resticbackup-often cannot create a Job"),
        "{words}"
    );
}

/// A volume that is bound to a claim, and that no pod can mount.
fn broken_volume(place: &Place, name: &str, source: (&str, Value), more: Value) {
    let full = format!("{}-{name}", place.namespace);
    let mut spec = json!({ "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
                           "claimRef": { "namespace": place.namespace, "name": name } });
    spec[source.0] = source.1;
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let volume =
        json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": full }, "spec": spec });
    place.cluster.apply(&volume.to_string()).unwrap();
    place.apply(&[json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "volumeName": full, "resources": { "requests": { "storage": "1Gi" } } } })]);
    place.until(&format!("pvc/{name}"), "Bound", |o| {
        o["status"]["phase"] == "Bound"
    });
}

#[test]
#[ignore = "needs clusters: make test"]
fn volumes_that_cannot_be_mounted_are_told_in_the_kubelets_words() {
    let place = place("b", "why-mount");
    let node = place
        .cluster
        .kubectl(&[
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[0].metadata.labels.kubernetes\\.io/hostname}",
        ])
        .unwrap();
    let affinity = json!({ "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
        { "key": "kubernetes.io/hostname", "operator": "In", "values": [node.trim()] }] }] } } });
    broken_volume(
        &place,
        "local",
        ("local", json!({ "path": "/no/such/folder" })),
        affinity,
    );
    broken_volume(
        &place,
        "host",
        (
            "hostPath",
            json!({ "path": "/no/such/host", "type": "Directory" }),
        ),
        json!({}),
    );
    for (name, part) in [
        ("local", "/no/such/folder"),
        ("host", "hostPath type check failed"),
    ] {
        let source = json!({ "source": { "pvc": { "claimName": name } } });
        let words = waits(&place, name, source, "FailedMount");
        assert!(words.contains(part), "{words}");
    }
    // A restore says the same.
    place.apply(&[place.backup("data", json!({ "name": "nas" }), json!({}))]);
    place.until_ready("resticbackup/data");
    assert_eq!(place.run("data", "1")["result"], "Succeeded");
    place.apply(&[json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "back" },
        "spec": { "backupRef": { "name": "data" }, "target": { "pvc": { "claimName": "host" } } } })]);
    let words = told(&place, "resticrestore/back", "FailedMount");
    assert!(words.contains("hostPath type check failed"), "{words}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_claim_that_is_not_bound_is_waited_for_and_not_bound_by_the_backup() {
    let place = place("a", "why-claim");
    let class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "why-later" },
                        "provisioner": "kubernetes.io/host-path", "volumeBindingMode": "WaitForFirstConsumer" });
    place.cluster.apply(&class.to_string()).unwrap();
    let claim = |name: &str, mode: &str| {
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name },
                "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "why-later", "volumeMode": mode, "resources": { "requests": { "storage": "1Gi" } } } })
    };
    place.apply(&[claim("later", "Filesystem"), claim("raw", "Block")]);
    for (name, reason) in [
        ("raw", "PersistentVolumeClaimNotUsable"),
        ("later", "PersistentVolumeClaimNotBound"),
    ] {
        make(
            &place,
            name,
            // As root: the run begins with the claim, perhaps before the application has let others read what is in it.
            json!({ "source": { "pvc": { "claimName": name } }, "jobConfig": { "securityContext": { "runAsUser": 0 } } }),
        );
        ask(&place, name);
        place.until_reason(&format!("resticbackup/{name}"), reason);
    }
    assert_eq!(place.get("pvc/later")["status"]["phase"], "Pending");
    assert!(
        place.get("cronjob/resticbackup-later").is_null(),
        "nothing that could bind it"
    );
    place.apply(&[json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "application" },
        "spec": { "containers": [{ "name": "c", "image": "ghcr.io/restic/restic:0.18.1", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", "echo hello >/data/file; chmod 755 /data; sleep 3600"],
                                   "volumeMounts": [{ "name": "v", "mountPath": "/data" }] }],
                  "terminationGracePeriodSeconds": 0,
                  "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "later" } }] } })]);
    assert_eq!(result(&place, "later")["result"], "Succeeded");
    // The schedule is held as soon as the claim is to go.
    place
        .kubectl(&["delete", "pvc", "later", "--wait=false"])
        .unwrap();
    let words = place.until_reason("resticbackup/later", "PersistentVolumeClaimNotFound");
    assert!(words.contains("is being deleted"), "{words}");
    place.until("cronjob/resticbackup-later", "suspended", |o| {
        o["spec"]["suspend"] == true
    });
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_sidecar_that_stays_keeps_no_result_back() {
    let place = place("b", "why-sidecar");
    make(&place, "orders", json!({}));
    place.until_ready("resticbackup/orders");
    let job = place
        .kubectl(&[
            "create",
            "job",
            "meshed",
            "--from=cronjob/resticbackup-orders",
            "--dry-run=client",
            "-o",
            "json",
        ])
        .unwrap();
    let mut job: Value = serde_json::from_str(&job).unwrap();
    let spec = &mut job["spec"]["template"]["spec"];
    let image = spec["containers"][0]["image"].clone();
    let security = spec["containers"][0]["securityContext"].clone();
    spec["containers"].as_array_mut().unwrap().push(json!({
        "name": "mesh", "image": image, "imagePullPolicy": "IfNotPresent", "securityContext": security,
        "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"] }));
    place.apply(&[job]);
    assert_eq!(result(&place, "orders")["result"], "Succeeded");
    let job = place.until("job/meshed", "its end", |o| {
        o["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Failed"))
    });
    assert_eq!(
        job["status"]["failed"], 1,
        "no second attempt: {:#}",
        job["status"]
    );
    let object = place.until("resticbackup/orders", "idle", |o| o["status"]["active"].is_null());
    assert_eq!(object["status"]["statistics"]["totalBackups"], 1, "counted once");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_container_that_is_killed_for_memory_says_which_limit_it_had() {
    let place = place("a", "why-memory");
    let limits = json!({ "jobConfig": { "resources": { "limits": { "memory": "20Mi" } } } });
    make(&place, "small", limits);
    place.until_ready("resticbackup/small");
    ask(&place, "small");
    let run = result(&place, "small");
    assert_eq!(run["reason"], "OutOfMemory", "{run:#}");
    assert!(run["message"].as_str().unwrap().contains("20Mi"), "{run:#}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn what_ended_a_run_from_outside_is_told() {
    let place = place("b", "why-ended");
    slow(&place, "late", json!({ "activeDeadlineSeconds": 6 }));
    assert_eq!(result(&place, "late")["reason"], "DeadlineExceeded");

    slow(&place, "drained", json!({}));
    let name = pod(&place, "a running pod", |p| {
        is_running(p) && p["metadata"]["labels"]["backup.resticbackup.io/backup"] == "drained"
    });
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name, "namespace": place.namespace } });
    let file = tempfile_with(&eviction);
    let path = format!("/api/v1/namespaces/{}/pods/{name}/eviction", place.namespace);
    place
        .kubectl(&["create", "--raw", &path, "-f", file.path().to_str().unwrap()])
        .unwrap();
    assert_eq!(result(&place, "drained")["reason"], "Evicted");

    slow(&place, "pod-deleted", json!({}));
    let name = pod(&place, "a running pod", |p| {
        is_running(p) && p["metadata"]["labels"]["backup.resticbackup.io/backup"] == "pod-deleted"
    });
    place.kubectl(&["delete", "pod", &name, "--wait=false"]).unwrap();
    assert_eq!(result(&place, "pod-deleted")["reason"], "PodDeleted");

    slow(&place, "job-deleted", json!({}));
    place.until("resticbackup/job-deleted", "a running backup", |o| {
        condition(o, "Progressing")["status"] == "True"
    });
    let jobs = "-l=backup.resticbackup.io/backup=job-deleted";
    place.kubectl(&["delete", "jobs", jobs, "--wait=false"]).unwrap();
    assert_eq!(result(&place, "job-deleted")["reason"], "JobDeleted");
}

fn tempfile_with(object: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), object.to_string()).unwrap();
    file
}

#[test]
#[ignore = "needs clusters: make test"]
fn what_cannot_be_read_is_named_once_with_what_to_set_and_lost_and_found_is_left_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place("a", "why-unread");
    let close = |path: &str, mode: u32| {
        let path = place.data().join(path);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    close("lost+found", 0o700);
    make(&place, "orders", json!({}));
    place.until_ready("resticbackup/orders");
    assert_eq!(place.run("orders", "1")["result"], "Succeeded");

    close("pg", 0o700);
    let run = place.run("orders", "2");
    assert_eq!(run["result"], "PartiallyFailed");
    let message = run["message"].as_str().unwrap();
    assert!(
        message.starts_with("1 file or folder could not be read: /pg: permission denied; "),
        "{message}"
    );
    assert!(
        message.contains("the pod runs as user 65532") && message.contains("runAsUser"),
        "{message}"
    );

    let lost = json!({ "source": { "pvc": { "claimName": "data", "paths": ["lost+found"], "includeLostAndFound": true } } });
    make(&place, "closed", lost);
    place.until_ready("resticbackup/closed");
    let run = place.run("closed", "1");
    assert_eq!(
        (&run["result"], &run["reason"]),
        (&json!("Failed"), &json!("FilesUnreadable"))
    );
    let message = run["message"].as_str().unwrap();
    assert!(
        message.starts_with("nothing could be read: /lost+found: permission denied; "),
        "{message}"
    );

    close("", 0o700);
    let run = place.run("orders", "3");
    assert_eq!(
        (&run["result"], &run["reason"]),
        (&json!("Failed"), &json!("FilesUnreadable"))
    );
    let message = run["message"].as_str().unwrap();
    assert!(
        message.starts_with("nothing could be read: /: permission denied; "),
        "{message}"
    );
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_counts_files_and_says_that_owners_were_not_restored() {
    let place = place("b", "why-owners");
    make(&place, "orders", json!({}));
    place.until_ready("resticbackup/orders");
    let run = place.run("orders", "1");
    // Volumes of this provisioner belong to root.
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "fresh" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
    ]);
    fleet::open_volume(&place.cluster, &place.namespace, "fresh").unwrap();
    place.apply(&[json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "back" },
        "spec": { "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "fresh" } } } })]);
    let object = place.until("resticrestore/back", "Completed", |o| {
        o["status"]["phase"] == "Completed"
    });
    assert_eq!(
        object["status"]["restoredFiles"], run["filesProcessed"],
        "{:#}",
        object["status"]
    );
    let message = condition(&object, "Ready")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("owners were not restored") && message.contains("user 65532"),
        "{message}"
    );
}
