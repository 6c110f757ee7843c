//! `fleet hub restore`: a backup in the place of the store of a hub that runs in a cluster. The hub's image has no shell into
//! which a file could be copied, so a pod like the hub's reads it from its standard input.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::arguments::{HubRestore, KubeArguments};
use crate::failure::Failure;
use crate::init::SYSTEM;
use crate::kubectl::{Kubectl, parse};
use crate::output::note;

/// Name of the pod, and of the hub's Deployment and container.
const POD: &str = "fleet-hub-restore";
const HUB: &str = "fleet-hub";
const DEPLOYMENT: &str = "deployment/fleet-hub";
/// Pause between two looks at a pod.
const AGAIN: Duration = Duration::from_millis(500);

/// Stops the hub, has a pod put the backup in place, and starts the hub again, also where that went wrong.
pub async fn restore(kube: &KubeArguments, restore: &HubRestore) -> Result<u8, Failure> {
    let digest = digest(&restore.file)?;
    let kubectl = Kubectl::new(kube);
    let get = ["get", "-n", SYSTEM, "--ignore-not-found", "-o", "json"];
    let found = kubectl.run(&[&get[..], &["deployment", HUB]].concat()).await?;
    if found.trim().is_empty() {
        return Err(Failure::Usage(format!(
            "there is no Deployment {HUB} in namespace {SYSTEM} of this cluster: make a hub there first \
             (fleet hub init, or its chart), then put its backup in place"
        )));
    }
    let deployment = parse(&found)?;
    let pod = pod(&deployment, restore.replace, &digest)?;
    let replicas = deployment.pointer("/spec/replicas").and_then(Value::as_u64);
    let limit = format!("--timeout={}s", restore.wait.as_secs().max(1));
    note("the hub is stopped");
    kubectl
        .run(&["scale", "-n", SYSTEM, DEPLOYMENT, "--replicas=0"])
        .await?;
    let done = write(&kubectl, restore, &pod, &deployment, &limit).await;
    // One that was stopped before, as by an attempt that was broken off, starts as well.
    let replicas = format!("--replicas={}", replicas.unwrap_or(1).max(1));
    kubectl
        .run(&["scale", "-n", SYSTEM, DEPLOYMENT, &replicas])
        .await?;
    done?;
    note("the hub starts");
    kubectl
        .run(&["rollout", "status", "-n", SYSTEM, DEPLOYMENT, &limit])
        .await?;
    note(
        "the hub serves; what it was told since the backup comes back as its clusters connect: fleet status",
    );
    Ok(0)
}

/// Once the hub is gone, has the pod write the store.
async fn write(
    kubectl: &Kubectl,
    restore: &HubRestore,
    pod: &Value,
    deployment: &Value,
    limit: &str,
) -> Result<(), Failure> {
    let delete = ["delete", "pod", POD, "-n", SYSTEM, "--ignore-not-found", limit];
    // Of an attempt that was broken off: two of them must not write at once.
    kubectl.run(&delete).await?;
    let selector = selector(deployment);
    let pods = ["pod", "-n", SYSTEM, "-l", &selector];
    let gone = kubectl.run(&[&["get", "-o", "name"][..], &pods].concat()).await?;
    if !gone.trim().is_empty() {
        kubectl
            .run(&[&["wait", "--for=delete", limit][..], &pods].concat())
            .await?;
    }
    kubectl.give(&["create", "-f", "-"], &pod.to_string()).await?;
    let written = send(kubectl, restore).await;
    let logs = kubectl
        .run(&["logs", "-n", SYSTEM, POD])
        .await
        .unwrap_or_default();
    kubectl.run(&delete).await?;
    let phase = written?;
    if phase == "Succeeded" {
        note(logs.trim());
        return Ok(());
    }
    let logs = match logs.trim() {
        "" => "its pod has said nothing",
        logs => logs,
    };
    Err(Failure::Usage(format!(
        "the backup was not put in place, and the hub goes on with the store that it has: {logs}"
    )))
}

/// Gives the file to the pod, and returns the phase in which that ended.
async fn send(kubectl: &Kubectl, restore: &HubRestore) -> Result<String, Failure> {
    let phase = phase(kubectl, restore.wait, |phase| phase != "Pending").await?;
    if phase != "Running" {
        return Ok(phase);
    }
    note("the backup is sent");
    // How that went is known from the pod: it has the digest of all that it must have read.
    let attached = kubectl
        .attach(&["attach", "-i", "-q", "-n", SYSTEM, POD], &restore.file)
        .await;
    let over = |phase: &str| phase != "Running";
    match self::phase(kubectl, restore.wait, over).await {
        Err(failure) => Err(attached.err().unwrap_or(failure)),
        ended => ended,
    }
}

/// The phase of the pod once it is such a one.
async fn phase(kubectl: &Kubectl, wait: Duration, is: impl Fn(&str) -> bool) -> Result<String, Failure> {
    let until = Instant::now() + wait;
    loop {
        let pod = kubectl
            .json(&["get", "pod", POD, "-n", SYSTEM, "-o", "json"])
            .await?;
        let phase = pod.pointer("/status/phase").and_then(Value::as_str);
        let phase = phase.unwrap_or("Pending").to_owned();
        if is(&phase) {
            return Ok(phase);
        }
        if Instant::now() >= until {
            let status = pod.get("status").map(Value::to_string).unwrap_or_default();
            return Err(Failure::Kubectl(format!(
                "pod {POD} is {phase} after {} s: {status}",
                wait.as_secs()
            )));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Labels of the hub's pods, as kubectl takes them.
fn selector(deployment: &Value) -> String {
    let labels = deployment
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    let pairs = pairs.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

/// A pod with the hub's image, volumes, settings and user, that no Service leads to. Pure.
fn pod(deployment: &Value, replace: bool, digest: &str) -> Result<Value, Failure> {
    let unreadable = || Failure::Kubectl(format!("Deployment {HUB} has no container {HUB}"));
    let mut spec = deployment
        .pointer("/spec/template/spec")
        .cloned()
        .ok_or_else(unreadable)?;
    let containers = spec.get("containers").and_then(Value::as_array);
    let container = containers.into_iter().flatten().find(|one| one["name"] == HUB);
    let mut container = container.cloned().ok_or_else(unreadable)?;
    let mut arguments = vec!["restore", "-", "--sha256", digest];
    if replace {
        arguments.push("--replace");
    }
    container["args"] = json!(arguments);
    container["stdin"] = json!(true);
    // It reads the end of the file when the one who sends it leaves.
    container["stdinOnce"] = json!(true);
    if let Some(container) = container.as_object_mut() {
        for of_a_hub in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            container.remove(of_a_hub);
        }
    }
    spec["containers"] = json!([container]);
    spec["restartPolicy"] = json!("Never");
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": POD,
            "namespace": SYSTEM,
            "labels": { "app.kubernetes.io/name": POD, "app.kubernetes.io/part-of": "restic-fleet" }
        },
        "spec": spec
    }))
}

/// SHA-256 of a file, in hex.
fn digest(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::File {
        path: path.display().to_string(),
        error,
    };
    let mut file = File::open(path).map_err(failed)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        let data = buffer.get(..read).unwrap_or_default();
        if data.is_empty() {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(data);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_has_what_the_hub_has_and_is_none() {
        let deployment = json!({ "spec": {
            "selector": { "matchLabels": { "app.kubernetes.io/name": "fleet-hub", "a": "b" } },
            "template": {
                "metadata": { "labels": { "app.kubernetes.io/name": "fleet-hub" } },
                "spec": {
                    "securityContext": { "fsGroup": 7 },
                    "containers": [
                        { "name": "proxy" },
                        {
                            "name": "fleet-hub", "image": "own/hub@sha256:1", "ports": [{ "containerPort": 8443 }],
                            "readinessProbe": {}, "livenessProbe": {}, "args": ["--trim"],
                            "envFrom": [{ "configMapRef": { "name": "fleet-hub-settings" } }],
                            "volumeMounts": [{ "name": "store", "mountPath": "/var/lib/fleet-hub" }]
                        }
                    ],
                    "volumes": [{ "name": "store", "persistentVolumeClaim": { "claimName": "mine" } }]
                }
            }
        }});
        let pod = pod(&deployment, true, "ab").unwrap();
        assert_eq!(selector(&deployment), "a=b,app.kubernetes.io/name=fleet-hub");
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], POD);
        assert_eq!(pod["spec"]["securityContext"]["fsGroup"], 7);
        assert_eq!(
            pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"],
            "mine"
        );
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        let [only] = &pod["spec"]["containers"].as_array().unwrap()[..] else {
            panic!("{pod}")
        };
        assert_eq!(
            only["args"],
            json!(["restore", "-", "--sha256", "ab", "--replace"])
        );
        assert_eq!(only["image"], "own/hub@sha256:1");
        assert_eq!((&only["stdin"], &only["stdinOnce"]), (&json!(true), &json!(true)));
        assert!(only.get("readinessProbe").is_none() && only.get("ports").is_none());
        assert!(super::pod(&json!({ "spec": {} }), true, "ab").is_err());
    }
}
