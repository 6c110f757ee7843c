//! Whether operator and hub run, and as what. Pure.

use serde_json::Value;

use super::finding::{Finding, judge};
use super::install::{CLOCKS, INSTALL, RIGHTS};
use super::kube::{Facts, HUB, OPERATOR};
use crate::objects::{condition, count, holds, items, name, namespace, said, text, time};

/// A leader renews its Lease every 5 s and loses it after 15.
/// Secrets of the operator: what a person gave it to join by, and what it keeps once it has joined.
const JOIN: &str = "fleet-spoke-join";
const IDENTITY: &str = "fleet-spoke-identity";
const LEASE: i64 = 60;
/// Restarts of a container that are many.
const RESTARTS: u64 = 5;

/// The Deployments of a program: by the label that all ways of installation set.
fn deployment<'a>(list: &'a Value, program: &str) -> Option<&'a Value> {
    items(list).iter().find(|of| {
        let labels = of.pointer("/metadata/labels").and_then(Value::as_object);
        let label = labels.and_then(|labels| labels.get("app.kubernetes.io/name"));
        name(of) == program || label.and_then(Value::as_str) == Some(program)
    })
}

/// All findings about what runs.
#[must_use]
pub fn findings(facts: &Facts, system: &str) -> Vec<Finding> {
    vec![
        operator(facts, system),
        replicas(facts),
        images(facts),
        restarts(facts),
        one_image(facts),
        leader(facts),
        joined(facts, system),
        hub(facts),
        hub_volume(facts),
    ]
}

fn operator(facts: &Facts, system: &str) -> Finding {
    const ID: &str = "operator-available";
    judge(ID, &facts.deployments, RIGHTS, |list| {
        let Some(of) = deployment(list, OPERATOR) else {
            return Finding::bad(
                ID,
                format!("there is no Deployment {OPERATOR} in namespace {system}: nothing is backed up"),
                INSTALL,
            );
        };
        available(
            ID,
            of,
            "backups run as scheduled, but nothing is changed, judged or reported meanwhile",
        )
    })
}

/// Whether a Deployment is available, in its own words otherwise.
fn available(id: &'static str, of: &Value, meanwhile: &str) -> Finding {
    let (ready, wanted) = (count(of, "/status/readyReplicas"), count(of, "/spec/replicas"));
    if wanted == 0 {
        return Finding::bad(
            id,
            format!("Deployment {} is scaled to 0: {meanwhile}", name(of)),
            format!(
                "kubectl scale deployment/{} -n {} --replicas=1",
                name(of),
                namespace(of)
            ),
        );
    }
    if holds(of, "Available").is_some() && ready > 0 {
        return Finding::good(
            id,
            format!("{} is available, {ready} of {wanted} replicas ready", name(of)),
        );
    }
    let why = condition(of, "Available").map_or_else(|| "it has no condition Available".to_owned(), said);
    Finding::bad(
        id,
        format!("{} is not available: {why}; {meanwhile}", name(of)),
        format!("kubectl describe deployment,pod -n {}", namespace(of)),
    )
}

fn replicas(facts: &Facts) -> Finding {
    const ID: &str = "operator-replicas";
    judge(ID, &facts.deployments, RIGHTS, |list| {
        match deployment(list, OPERATOR) {
            None => Finding::unknown(ID, "there is no operator", "see operator-available"),
            Some(of) => {
                let (ready, wanted) = (count(of, "/status/readyReplicas"), count(of, "/spec/replicas"));
                let seen = is_current(of);
                match () {
                    () if !seen => Finding::unknown(
                        ID,
                        "the Deployment has changed, and Kubernetes has not looked at it yet",
                        "kubectl rollout status",
                    ),
                    () if ready < wanted => Finding::bad(
                        ID,
                        format!("{ready} of {wanted} replicas are ready"),
                        "kubectl describe pod: the message of the one that is not",
                    ),
                    () if wanted < 2 => Finding::note(
                        ID,
                        "one replica: nobody takes over at once when its node fails",
                        "kubectl scale --replicas=2",
                    ),
                    () => Finding::good(
                        ID,
                        format!("{ready} replicas are ready: one leads, the others are ready to"),
                    ),
                }
            }
        }
    })
}

fn is_current(of: &Value) -> bool {
    count(of, "/status/observedGeneration") >= count(of, "/metadata/generation")
}

fn pods(list: &Value) -> impl Iterator<Item = &Value> {
    let ours = |of: &&Value| {
        let labels = of.pointer("/metadata/labels").and_then(Value::as_object);
        let label = labels.and_then(|labels| labels.get("app.kubernetes.io/name"));
        label
            .and_then(Value::as_str)
            .is_some_and(|label| label == OPERATOR || label == HUB)
    };
    items(list).iter().filter(ours)
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let kinds = ["/status/initContainerStatuses", "/status/containerStatuses"];
    kinds
        .into_iter()
        .filter_map(|kind| pod.pointer(kind)?.as_array())
        .flatten()
}

fn images(facts: &Facts) -> Finding {
    const ID: &str = "images";
    judge(ID, &facts.pods, RIGHTS, |list| {
        let waits = |pod: &Value| -> Vec<String> {
            let waiting = containers(pod).filter_map(|of| of.pointer("/state/waiting"));
            let words = waiting.filter(|of| {
                let reason = text(of, "/reason");
                reason.contains("Image") || reason.contains("CreateContainer")
            });
            words.map(|of| format!("{}: {}", name(pod), said(of))).collect()
        };
        let wrong: Vec<String> = pods(list).flat_map(waits).collect();
        match (pods(list).count(), wrong.is_empty()) {
            (0, _) => Finding::unknown(ID, "there is no pod of operator or hub", "kubectl get pods"),
            (_, true) => Finding::good(ID, "the images of all pods of operator and hub are there"),
            (_, false) => Finding::bad(
                ID,
                wrong.join("; "),
                "push the image to where the nodes reach it, and name it in the Deployment (and in FLEET_IMAGE)",
            ),
        }
    })
}

fn restarts(facts: &Facts) -> Finding {
    const ID: &str = "restarts";
    judge(ID, &facts.pods, RIGHTS, |list| {
        let mut loops = Vec::new();
        let mut most = 0;
        for pod in pods(list) {
            for of in containers(pod) {
                most = most.max(count(of, "/restartCount"));
                if text(of, "/state/waiting/reason") == "CrashLoopBackOff" {
                    let last = text(of, "/lastState/terminated/reason");
                    loops.push(format!("{} crashes again and again ({last})", name(pod)));
                }
            }
        }
        match (pods(list).count(), loops.is_empty()) {
            (0, _) => Finding::unknown(ID, "there is no pod of operator or hub", "kubectl get pods"),
            (_, false) => Finding::bad(
                ID,
                loops.join("; "),
                "kubectl logs --previous; fleet bundle collects them",
            ),
            (_, true) if most >= RESTARTS => Finding::note(
                ID,
                format!("a container has restarted {most} times"),
                "kubectl describe pod: why it ended last",
            ),
            (_, true) => Finding::good(ID, "no pod of operator or hub crashes"),
        }
    })
}

fn one_image(facts: &Facts) -> Finding {
    const ID: &str = "one-image";
    judge(ID, &facts.pods, RIGHTS, |list| {
        let mut images: Vec<&str> = pods(list)
            .filter(|pod| {
                let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
                labels
                    .and_then(|of| of.get("app.kubernetes.io/name"))
                    .and_then(Value::as_str)
                    == Some(OPERATOR)
            })
            .map(|pod| text(pod, "/spec/containers/0/image"))
            .collect();
        images.sort_unstable();
        images.dedup();
        match images.as_slice() {
            [] => Finding::unknown(ID, "there is no pod of the operator", "kubectl get pods"),
            [image] => Finding::good(ID, format!("all replicas of the operator run {image}")),
            several => Finding::note(
                ID,
                format!("replicas run {}", several.join(" and ")),
                "kubectl rollout status: an upgrade is under way, or stuck",
            ),
        }
    })
}

fn leader(facts: &Facts) -> Finding {
    const ID: &str = "operator-leads";
    judge(ID, &facts.leases, RIGHTS, |list| {
        let Some(lease) = items(list).iter().find(|of| name(of) == OPERATOR) else {
            return Finding::bad(
                ID,
                "no replica of the operator has ever led",
                "kubectl logs: does it reach the API server, and may it write Leases?",
            );
        };
        let now = facts.now();
        let holder = text(lease, "/spec/holderIdentity");
        match time(lease, "/spec/renewTime").map(|at| now.duration_since(at).as_secs()) {
            None => Finding::unknown(
                ID,
                "the Lease does not say when it was renewed",
                "kubectl get lease -o yaml",
            ),
            _ if holder.is_empty() => Finding::bad(
                ID,
                "no replica leads",
                "kubectl get pods; one takes over within seconds of its start",
            ),
            Some(age) if age < -CLOCKS => Finding::bad(
                ID,
                format!("the leader's clock is {} s ahead of the API server's", -age),
                "synchronise the clocks of the nodes by NTP",
            ),
            Some(age) if age > LEASE => Finding::bad(
                ID,
                format!("the leader {holder} has not renewed its Lease for {age} s"),
                "kubectl logs: does it run, and does it reach the API server?",
            ),
            Some(age) => Finding::good(ID, format!("{holder} leads, seen {} s ago", age.max(0))),
        }
    })
}

/// By the ConfigMap that names a hub, or by the Secret that the operator keeps once it has joined.
fn joined(facts: &Facts, system: &str) -> Finding {
    const ID: &str = "joined";
    judge(ID, &facts.joined, RIGHTS, |map| {
        let (hub, cluster) = (text(map, "/data/hub"), text(map, "/data/cluster"));
        if !hub.is_empty() {
            return Finding::good(ID, format!("this cluster is {cluster} at the hub {hub}"));
        }
        judge(ID, &facts.secrets, RIGHTS, |secrets| {
            let is_there = |name: &str| secrets.iter().any(|secret| *secret == format!("{system}/{name}"));
            match (is_there(IDENTITY), is_there(JOIN)) {
                (true, _) => Finding::good(ID, "this cluster has joined a hub"),
                (false, true) => Finding::bad(
                    ID,
                    "this cluster has what joining takes, and has not joined yet",
                    format!("kubectl logs -n {system} deployment/fleet-spoke says why"),
                ),
                (false, false) => Finding::note(
                    ID,
                    "this cluster works alone: it has joined no hub by `fleet clusters join`",
                    "to see several clusters as one: fleet hub init, fleet clusters join NAME",
                ),
            }
        })
    })
}

fn hub(facts: &Facts) -> Finding {
    const ID: &str = "hub-available";
    judge(ID, &facts.deployments, RIGHTS, |list| {
        match deployment(list, HUB) {
            None => Finding::note(
                ID,
                "the hub, if there is one, runs in another cluster",
                "fleet check --kube-context CONTEXT there",
            ),
            Some(of) => available(ID, of, "backups go on, maintenance waits"),
        }
    })
}

fn hub_volume(facts: &Facts) -> Finding {
    const ID: &str = "hub-volume";
    judge(ID, &facts.claims, RIGHTS, |list| {
        match items(list).iter().find(|of| name(of) == HUB) {
            None => Finding::note(
                ID,
                "no claim of a hub is in this namespace",
                "its store is in another cluster, or in a database",
            ),
            Some(of) if text(of, "/status/phase") == "Bound" => {
                Finding::good(ID, "the volume of the hub's store is bound")
            }
            Some(of) => Finding::bad(
                ID,
                format!("the claim of the hub's store is {}", text(of, "/status/phase")),
                "kubectl describe pvc: is there a default StorageClass?",
            ),
        }
    })
}

#[cfg(test)]
#[path = "workloads_tests.rs"]
mod tests;
