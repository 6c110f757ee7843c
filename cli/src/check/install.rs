//! What an installation needs of its cluster. Pure.

use jiff::Timestamp;
use serde_json::Value;

use super::finding::{Finding, judge};
use super::kube::{Facts, KINDS, VERSION};
use super::{rights, workloads};
use crate::objects::{condition, items, name, said, text};

/// The same as `kubeVersion` of the charts.
const OLDEST: (u64, u64) = (1, 30);
/// Clocks that differ by more break certificates, leases and the age of what is shown.
pub const CLOCKS: i64 = 30;
/// By less it is not worth a word: the API server says whole seconds.
const CLOCKS_NOTED: i64 = 5;

/// How an operator gets there. `deploy/kustomization.yaml` names the image; `deploy/spoke` names one that nobody publishes.
pub const INSTALL: &str = "helm install, or kubectl apply --server-side --force-conflicts -k deploy (docs/install.md); \
     another namespace: --system-namespace";
pub const RIGHTS: &str = "you need the right to read this; ask who looks after the cluster";

/// All findings about an installation.
#[must_use]
pub fn findings(facts: &Facts, system: &str) -> Vec<Finding> {
    let mut findings = vec![
        api_server(facts),
        kubernetes(facts),
        clock(facts),
        own_rights(facts),
        served(facts),
        established(facts),
        namespace(facts, system),
        webhooks(facts),
        network(facts),
        rights::operator(&facts.rules),
    ];
    findings.extend(workloads::findings(facts, system));
    findings
}

fn api_server(facts: &Facts) -> Finding {
    let hint = "kubectl version; another cluster: --kube-context, --kubeconfig";
    judge("api-server", &facts.version, hint, |version| {
        match text(version, "/serverVersion/gitVersion") {
            "" => Finding::unknown("api-server", "the API server does not say its version", hint),
            server => Finding::good(
                "api-server",
                format!("the API server answers: Kubernetes {server}"),
            ),
        }
    })
}

fn kubernetes(facts: &Facts) -> Finding {
    const ID: &str = "kubernetes-version";
    judge(ID, &facts.version, "kubectl version", |version| {
        let part = |of: &str| {
            let digits = text(version, of).trim_end_matches(|c: char| !c.is_ascii_digit());
            digits.parse::<u64>().ok()
        };
        match (part("/serverVersion/major"), part("/serverVersion/minor")) {
            (Some(major), Some(minor)) if (major, minor) < OLDEST => Finding::bad(
                ID,
                format!(
                    "Kubernetes {major}.{minor} is older than {}.{}, the oldest that is supported",
                    OLDEST.0, OLDEST.1
                ),
                "upgrade the cluster (docs/install.md)",
            ),
            (Some(major), Some(minor)) => {
                Finding::good(ID, format!("Kubernetes {major}.{minor} has all that is needed"))
            }
            _ => Finding::unknown(ID, "the version of Kubernetes cannot be read", "kubectl version"),
        }
    })
}

fn clock(facts: &Facts) -> Finding {
    const ID: &str = "clock";
    judge(ID, &facts.clock, "kubectl auth whoami -o yaml", |clock| {
        differs(ID, "the API server's clock", clock.server, clock.here)
    })
}

/// How another clock compares with the one of this machine.
pub fn differs(id: &'static str, whose: &str, other: Timestamp, here: Timestamp) -> Finding {
    let seconds = other.duration_since(here).as_secs();
    match seconds.abs() {
        0..=CLOCKS_NOTED => Finding::good(id, format!("{whose} and this machine's agree")),
        difference if difference <= CLOCKS => Finding::note(
            id,
            format!("{whose} differs from this machine's by {seconds} s"),
            "synchronise both by NTP",
        ),
        _ => Finding::bad(
            id,
            format!(
                "{whose} differs from this machine's by {seconds} s: certificates, leases and ages are judged by it"
            ),
            "synchronise both by NTP; timedatectl status on each machine",
        ),
    }
}

fn own_rights(facts: &Facts) -> Finding {
    const ID: &str = "own-rights";
    judge(ID, &facts.own, "kubectl auth can-i --list", |may| {
        let missing: Vec<&str> = KINDS
            .into_iter()
            .filter(|kind| !may.iter().any(|of| of == kind))
            .collect();
        if missing.is_empty() {
            return Finding::good(ID, "you may list all four kinds in all namespaces");
        }
        Finding::unknown(
            ID,
            format!(
                "you may not list {} in all namespaces: what is there is not looked at",
                missing.join(", ")
            ),
            "bind the ClusterRole restic-fleet-view to yourself (deploy/spoke/25-people.yaml)",
        )
    })
}

fn served(facts: &Facts) -> Finding {
    const ID: &str = "kinds-served";
    let hint = "kubectl apply --server-side -f deploy/crds/";
    if facts
        .api
        .as_ref()
        .is_err_and(|why| why.contains("NotFound") || why.contains("could not find"))
    {
        return Finding::bad(
            ID,
            format!("the API server does not serve {VERSION} of the four kinds"),
            hint,
        );
    }
    judge(ID, &facts.api, hint, |api| {
        let resources = api.get("resources").and_then(Value::as_array);
        let names: Vec<&str> = resources
            .into_iter()
            .flatten()
            .map(|of| text(of, "/name"))
            .collect();
        let missing: Vec<&str> = KINDS.into_iter().filter(|kind| !names.contains(kind)).collect();
        if missing.is_empty() {
            return Finding::good(ID, format!("the API server serves the four kinds in {VERSION}"));
        }
        Finding::bad(
            ID,
            format!("the API server does not serve {}", missing.join(", ")),
            hint,
        )
    })
}

fn established(facts: &Facts) -> Finding {
    const ID: &str = "kinds-established";
    judge(ID, &facts.definitions, RIGHTS, |list| {
        let mut wrong = Vec::new();
        for definition in items(list) {
            for kind in ["Established", "NamesAccepted"] {
                match condition(definition, kind) {
                    Some(of) if text(of, "/status") == "True" => {}
                    Some(of) => wrong.push(format!("{}: {}", name(definition), said(of))),
                    None => wrong.push(format!("{} has no condition {kind} yet", name(definition))),
                }
            }
            let stored = definition
                .pointer("/status/storedVersions")
                .and_then(Value::as_array);
            let others = stored
                .into_iter()
                .flatten()
                .filter(|of| of.as_str() != Some(VERSION));
            wrong.extend(others.map(|of| format!("{} has objects stored as {of}", name(definition))));
        }
        match (items(list).len(), wrong.is_empty()) {
            (0, _) => Finding::bad(
                ID,
                "there are no CustomResourceDefinitions of the four kinds",
                "kubectl apply --server-side -f deploy/crds/",
            ),
            (_, true) => Finding::good(
                ID,
                format!("{} CustomResourceDefinitions are established", items(list).len()),
            ),
            (_, false) => Finding::bad(
                ID,
                wrong.join("; "),
                "kubectl describe crd; two operators may claim one name",
            ),
        }
    })
}

fn namespace(facts: &Facts, system: &str) -> Finding {
    const ID: &str = "namespace";
    if facts.system.as_ref().is_err_and(|why| why.contains("NotFound")) {
        return Finding::bad(ID, format!("there is no namespace {system}"), INSTALL);
    }
    judge(ID, &facts.system, RIGHTS, |object| {
        if !text(object, "/metadata/deletionTimestamp").is_empty() {
            return Finding::bad(
                ID,
                format!("namespace {system} is being deleted"),
                "kubectl describe namespace",
            );
        }
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        let level = labels.and_then(|labels| labels.get("pod-security.kubernetes.io/enforce"));
        match level.and_then(Value::as_str) {
            Some("restricted") => {
                Finding::good(ID, format!("namespace {system} enforces the restricted standard"))
            }
            _ => Finding::note(
                ID,
                format!("namespace {system} does not enforce the restricted standard"),
                "label it pod-security.kubernetes.io/enforce=restricted: our pods meet it",
            ),
        }
    })
}

/// Webhooks that can refuse what backups need.
fn webhooks(facts: &Facts) -> Finding {
    const ID: &str = "webhooks";
    judge(ID, &facts.webhooks, RIGHTS, |list| {
        let concerns = |hook: &Value| {
            let rules = hook.get("rules").and_then(Value::as_array);
            let mut resources = rules
                .into_iter()
                .flatten()
                .filter_map(|rule| rule.get("resources")?.as_array())
                .flatten();
            let ours = ["*", "*/*", "jobs", "cronjobs", "pods"];
            text(hook, "/failurePolicy") == "Fail"
                && resources.any(|of| {
                    of.as_str()
                        .is_some_and(|of| ours.contains(&of) || KINDS.contains(&of))
                })
        };
        let mut names: Vec<&str> = items(list)
            .iter()
            .filter_map(|of| of.get("webhooks")?.as_array())
            .flatten()
            .filter(|hook| concerns(hook))
            .map(|hook| text(hook, "/name"))
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Finding::good(ID, "no webhook stops backups when it is away");
        }
        Finding::note(
            ID,
            format!(
                "while one of these is away no Job or pod of a backup is made: {}",
                names.join(", ")
            ),
            "a backup that waits for it says so: Waiting, FailedCreate (docs/conditions.md)",
        )
    })
}

fn network(facts: &Facts) -> Finding {
    const ID: &str = "network-policies";
    judge(ID, &facts.policies, RIGHTS, |list| {
        let is_egress = |of: &&Value| {
            let types = of.pointer("/spec/policyTypes").and_then(Value::as_array);
            types.is_some_and(|types| types.iter().any(|of| of.as_str() == Some("Egress")))
        };
        let names: Vec<&str> = items(list).iter().filter(is_egress).map(name).collect();
        if names.is_empty() {
            return Finding::good(ID, "no NetworkPolicy limits what operator and hub reach");
        }
        Finding::note(
            ID,
            format!(
                "operator and hub reach only what these allow: {}",
                names.join(", ")
            ),
            "they need the API server, DNS, the storage, and the hub's ports (docs/security.md)",
        )
    })
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
