//! A cluster and a hub that are well, for tests that break one thing.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use proto::v1::{
    CertificateEnd, ClusterRow, HealthResponse, RepositoryRow, StatusResponse, VersionCount, WhoAmIResponse,
};
use serde_json::{Value, json};

use super::finding::{Finding, Outcome};
use super::kube::Clock;
use super::{hub, kube};

pub fn now() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

fn list(items: Vec<Value>) -> Value {
    json!({ "kind": "List", "items": items })
}

fn deployment(name: &str, replicas: u64) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "sys", "generation": 2, "labels": { "app.kubernetes.io/name": name },
        },
        "spec": { "replicas": replicas },
        "status": {
            "observedGeneration": 2, "readyReplicas": replicas,
            "conditions": [{ "type": "Available", "status": "True" }],
        },
    })
}

fn pod(name: &str, of: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app.kubernetes.io/name": of } },
        "spec": { "containers": [{ "image": format!("registry/{of}:1") }] },
        "status": { "containerStatuses": [{ "restartCount": 0, "state": { "running": {} } }] },
    })
}

fn ready(kind: &str, name: &str, spec: Value, status: Value) -> Value {
    let mut object = json!({
        "kind": kind, "metadata": { "name": name, "namespace": "shop" }, "spec": spec, "status": status,
    });
    let conditions = json!([
        { "type": "Ready", "status": "True", "reason": "Fine" }, { "type": "Stale", "status": "False" },
    ]);
    object["status"]["conditions"] = conditions;
    object
}

/// A cluster in which all is well.
pub fn cluster() -> kube::Facts {
    let resources: Vec<Value> = kube::KINDS.iter().map(|kind| json!({ "name": kind })).collect();
    let definition = |kind: &str| {
        json!({
            "metadata": { "name": format!("{kind}.backup.resticbackup.io") },
            "status": {
                "storedVersions": ["v1alpha1"],
                "conditions": [
                    { "type": "Established", "status": "True" }, { "type": "NamesAccepted", "status": "True" },
                ],
            },
        })
    };
    kube::Facts {
        version: Ok(json!({ "serverVersion": { "gitVersion": "v1.34.4", "major": "1", "minor": "34+" } })),
        clock: Ok(Clock {
            server: now(),
            here: now(),
        }),
        api: Ok(json!({ "resources": resources })),
        definitions: Ok(list(kube::KINDS.iter().map(|kind| definition(kind)).collect())),
        system: Ok(
            json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } }),
        ),
        deployments: Ok(list(vec![
            deployment("fleet-spoke", 2),
            deployment("fleet-hub", 1),
        ])),
        pods: Ok(list(vec![
            pod("s-1", "fleet-spoke"),
            pod("s-2", "fleet-spoke"),
            pod("h-1", "fleet-hub"),
        ])),
        leases: Ok(list(vec![json!({
            "metadata": { "name": "fleet-spoke" },
            "spec": { "holderIdentity": "s-1", "renewTime": "2026-11-26T11:59:57.000000Z" },
        })])),
        joined: Ok(json!({ "data": { "hub": "https://hub:8443", "cluster": "a" } })),
        claims: Ok(list(vec![
            json!({ "metadata": { "name": "fleet-hub" }, "status": { "phase": "Bound" } }),
        ])),
        policies: Ok(list(Vec::new())),
        webhooks: Ok(list(Vec::new())),
        rules: Ok(
            json!({ "status": { "resourceRules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] } }),
        ),
        secrets: Ok(vec!["shop/nas".to_owned()]),
        objects: Ok(list(vec![
            ready(
                "ResticRepository",
                "nas",
                json!({ "credentialsSecretRef": { "name": "nas" } }),
                json!({}),
            ),
            ready(
                "ResticBackup",
                "orders",
                json!({}),
                json!({ "lastBackup": { "result": "Succeeded" } }),
            ),
            ready("GlobalRetentionPolicy", "nightly", json!({}), json!({})),
        ])),
        own: Ok(kube::KINDS.iter().map(|kind| (*kind).to_owned()).collect()),
    }
}

/// A hub for which all is well.
pub fn fleet() -> hub::Facts {
    let at = |seconds: i64| Some(proto::time::from_unix(now().as_second() + seconds));
    let own = env!("CARGO_PKG_VERSION").to_owned();
    hub::Facts {
        reached: Ok("https://hub:8444".to_owned()),
        who: Ok(WhoAmIResponse {
            name: "ann".to_owned(),
            expires: at(8 * 3600),
            ..WhoAmIResponse::default()
        }),
        health: Ok((
            HealthResponse {
                as_of: at(1),
                version: own.clone(),
                store_well: true,
                store_copied: at(-3600),
                versions: vec![VersionCount {
                    version: own,
                    clusters: 1,
                }],
                certificates: vec![CertificateEnd {
                    name: "hub".to_owned(),
                    ends: at(90 * 86_400),
                }],
                ..HealthResponse::default()
            },
            now(),
        )),
        status: Ok(StatusResponse {
            verdict: "safe".to_owned(),
            reason: "the one backup is well".to_owned(),
            ..StatusResponse::default()
        }),
        clusters: Ok(vec![ClusterRow {
            name: "a".to_owned(),
            state: "connected".to_owned(),
            complete: true,
            ..ClusterRow::default()
        }]),
        repositories: Ok(vec![RepositoryRow {
            name: "nas".to_owned(),
            ..RepositoryRow::default()
        }]),
    }
}

/// The finding of a check.
pub fn found<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    let mut of = findings.iter().filter(|of| of.id == id);
    let found = of.next().unwrap_or_else(|| panic!("no check {id}"));
    assert!(of.next().is_none(), "{id} twice");
    found
}

/// All are good, and none has a hint.
pub fn all_good(findings: &[Finding]) {
    for of in findings {
        assert_eq!(of.outcome, Outcome::Good, "{of:?}");
        assert!(of.hint.is_empty(), "{of:?}");
    }
}

/// Not well, with a hint.
pub fn is(findings: &[Finding], id: &str, outcome: Outcome) {
    let of = found(findings, id);
    assert_eq!(of.outcome, outcome, "{of:?}");
    assert!(!of.hint.is_empty(), "{of:?}");
}
