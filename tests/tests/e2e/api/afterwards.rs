//! What all tests before have left behind: rights that were used, and secrets that are nowhere to be read.

use std::collections::BTreeSet;

use crds::rights::{CLUSTER, OWN};
use k8s_openapi::ByteString;

use crate::support::bed;

/// Verbs that no request shows: the first is looked at by an admission plugin, the others belong to faults of their own.
const NOT_SEEN: &[(&str, &str, &str)] = &[
    ("backup.resticbackup.io", "*/finalizers", "update"),
    // Taking the original operator's finalizer off: tests of the spoke with an API server in memory.
    ("backup.resticbackup.io", "*", "patch"),
    // Handed on to hooks, and to the pods of backups that run a command in another pod.
    ("", "pods/exec", "get"),
    ("", "pods/exec", "create"),
    ("batch", "jobs", "get"),
];

#[test]
#[ignore = "needs clusters: make rights"]
fn rights_are_those_that_are_used() {
    let mut used = BTreeSet::new();
    for cluster in bed().clusters() {
        for entry in cluster.audit().unwrap() {
            let object = &entry["objectRef"];
            let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
            let (mut resource, verb) = (
                text("resource"),
                entry["verb"].as_str().unwrap_or_default().to_owned(),
            );
            if let Some(sub) = object["subresource"].as_str() {
                resource = format!("{resource}/{sub}");
            }
            let decision = entry["annotations"]["authorization.k8s.io/decision"].as_str();
            assert!(
                decision != Some("forbid"),
                "refused in cluster {}: {entry:#}",
                cluster.name
            );
            // An apply that makes an object needs the right to create it, too.
            if verb == "patch" && entry["responseStatus"]["code"] == 201 {
                used.insert((text("apiGroup"), resource.clone(), "create".to_owned()));
            }
            used.insert((text("apiGroup"), resource, verb));
        }
    }
    assert!(used.len() > 20, "the audit log holds nothing: {used:?}");
    let excused = |group: &str, resource: &str, verb: &str| {
        NOT_SEEN.iter().any(|(of, what, which)| {
            let is = match what.strip_prefix('*') {
                Some("") => !resource.contains('/'),
                Some(end) => resource.ends_with(end),
                None => *what == resource,
            };
            *of == group && *which == verb && is
        })
    };
    let mut unused = Vec::new();
    for right in CLUSTER.iter().chain(OWN) {
        for verb in right.verbs {
            for resource in right.resources {
                let seen = (right.group.to_owned(), (*resource).to_owned(), (*verb).to_owned());
                if !used.contains(&seen) && !excused(right.group, resource, verb) {
                    unused.push(format!("{verb} {resource} ({})", right.group));
                }
            }
        }
    }
    assert!(unused.is_empty(), "rights that nothing uses: {unused:#?}");
}

#[test]
#[ignore = "needs clusters: make rights"]
fn no_secret_can_be_read_anywhere() {
    let servers = bed().servers();
    let mut secrets = vec![
        "right horse".to_owned(),
        "wrong horse".to_owned(),
        servers.s3_credentials().1.to_owned(),
        servers.rest_credentials().1.to_owned(),
    ];
    let encode = |text: &String| serde_json::to_value(ByteString(text.clone().into_bytes())).unwrap();
    let encoded: Vec<_> = secrets.iter().map(encode).collect();
    secrets.extend(
        encoded
            .iter()
            .map(|text| text.as_str().unwrap().trim_end_matches('=').to_owned()),
    );
    let find = |what: &str, text: &str| {
        for secret in &secrets {
            let hit = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(
                hit.is_none(),
                "{secret:?} is in {what}: {}",
                hit.unwrap_or_default()
            );
        }
    };
    let (mut looked, mut logs) = (0, 0);
    for cluster in bed().clusters() {
        // Arguments, statuses, termination messages, annotations and conditions are in the objects.
        for kind in [
            "pods",
            "jobs",
            "cronjobs",
            "configmaps",
            "events.events.k8s.io",
            "leases",
            "rr",
            "rb",
            "rres",
            "grp",
        ] {
            let text = cluster.kubectl(&["get", kind, "-A", "-o", "json"]).unwrap();
            find(&format!("{kind} of cluster {}", cluster.name), &text);
            looked += text.len();
        }
        let pods = [
            "get",
            "pods",
            "-A",
            "-o",
            "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}",
        ];
        for line in cluster.kubectl(&pods).unwrap().lines() {
            let Some((namespace, pod)) = line.split_once(' ') else {
                continue;
            };
            // A pod may have gone meanwhile.
            let log = cluster.kubectl(&["logs", "-n", namespace, pod, "--all-containers"]);
            let log = log.unwrap_or_default();
            find(&format!("the log of {namespace}/{pod}"), &log);
            logs += log.len();
        }
    }
    assert!(looked > 100_000, "there is nothing to look at: {looked} bytes");
    assert!(logs > 10_000, "there are no logs to look at: {logs} bytes");
}
