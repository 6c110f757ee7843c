//! What a cluster shows to the person's own kubectl. Every question has its own deadline; none reads a secret's value.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::finding::Fact;
use super::rights;
use crate::kubectl::{Kubectl, parse};

/// The API group of the four kinds.
pub const GROUP: &str = "backup.resticbackup.io";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// Both, as objects have them.
pub const API: &str = "backup.resticbackup.io/v1alpha1";
/// Name of the operator's Deployment, ServiceAccount and Lease.
pub const OPERATOR: &str = "fleet-spoke";
/// Name of the hub's Deployment.
pub const HUB: &str = "fleet-hub";
/// Names of the kinds, in the plural.
pub const KINDS: [&str; 4] = [
    "resticrepositories",
    "resticbackups",
    "resticrestores",
    "globalretentionpolicies",
];

/// What was seen of a cluster.
#[derive(Clone, Debug)]
pub struct Facts {
    pub version: Fact<Value>,
    /// The API server's clock, and this machine's in the middle of the question.
    pub clock: Fact<Clock>,
    pub api: Fact<Value>,
    pub definitions: Fact<Value>,
    pub system: Fact<Value>,
    pub deployments: Fact<Value>,
    pub pods: Fact<Value>,
    pub leases: Fact<Value>,
    /// The ConfigMap that a cluster gets when it joins; null when there is none.
    pub joined: Fact<Value>,
    pub claims: Fact<Value>,
    pub policies: Fact<Value>,
    pub webhooks: Fact<Value>,
    /// Rules of the operator's ServiceAccount in its namespace.
    pub rules: Fact<Value>,
    /// `namespace/name` of all Secrets.
    pub secrets: Fact<Vec<String>>,
    /// Objects of the four kinds.
    pub objects: Fact<Value>,
    /// The person's own rights: the resources that it may list everywhere.
    pub own: Fact<Vec<String>>,
}

impl Facts {
    /// By the API server's clock, which stamps what is judged; by this machine's where that was not seen.
    pub fn now(&self) -> Timestamp {
        self.clock
            .as_ref()
            .map_or_else(|_| Timestamp::now(), |clock| clock.server)
    }
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub server: Timestamp,
    pub here: Timestamp,
}

/// Looks at everything at once.
pub async fn look(kubectl: &Kubectl, system: &str) -> Facts {
    let of = async |what: &str| ask(kubectl, ["get", what, "-n", system, "-o", "json"]).await;
    let group = format!("/apis/{GROUP}/{VERSION}");
    let hooks = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
    let seen = tokio::join!(
        ask(kubectl, ["version", "-o", "json"]),
        clock(kubectl),
        ask(kubectl, ["get", "--raw", &group]),
        definitions(kubectl),
        ask(kubectl, ["get", "namespace", system, "-o", "json"]),
        of("deployments"),
        of("pods"),
        of("leases"),
        joined(kubectl, system),
        of("persistentvolumeclaims"),
        of("networkpolicies"),
        ask(kubectl, ["get", hooks, "-o", "json"]),
        rights::rules(kubectl, system),
        secrets(kubectl),
        objects(kubectl),
        own(kubectl),
    );
    Facts {
        version: seen.0,
        clock: seen.1,
        api: seen.2,
        definitions: seen.3,
        system: seen.4,
        deployments: seen.5,
        pods: seen.6,
        leases: seen.7,
        joined: seen.8,
        claims: seen.9,
        policies: seen.10,
        webhooks: seen.11,
        rules: seen.12,
        secrets: seen.13,
        objects: seen.14,
        own: seen.15,
    }
}

async fn ask<const N: usize>(kubectl: &Kubectl, arguments: [&str; N]) -> Fact<Value> {
    kubectl.json(&arguments).await.map_err(words)
}

/// One sentence of a failure.
pub fn words(failure: crate::failure::Failure) -> String {
    let text = failure.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Objects of the four kinds, of all namespaces. The answer is one list.
pub async fn objects(kubectl: &Kubectl) -> Fact<Value> {
    let kinds: Vec<String> = KINDS.iter().map(|kind| format!("{kind}.{GROUP}")).collect();
    let kinds = kinds.join(",");
    kubectl
        .json(&["get", &kinds, "-A", "-o", "json"])
        .await
        .map_err(words)
}

/// An object, or null when there is none.
async fn optional(kubectl: &Kubectl, arguments: &[&str]) -> Fact<Value> {
    let text = kubectl.run(arguments).await.map_err(words)?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    parse(&text).map_err(words)
}

/// What a cluster gets when it joins.
async fn joined(kubectl: &Kubectl, system: &str) -> Fact<Value> {
    let get = ["get", "configmap", OPERATOR, "-n", system];
    optional(
        kubectl,
        &[&get[..], &["--ignore-not-found", "-o", "json"]].concat(),
    )
    .await
}

/// A list, also where kubectl prints one object or nothing.
async fn definitions(kubectl: &Kubectl) -> Fact<Value> {
    let names: Vec<String> = KINDS.iter().map(|kind| format!("{kind}.{GROUP}")).collect();
    let mut arguments = vec!["get", "crd", "--ignore-not-found", "-o", "json"];
    arguments.extend(names.iter().map(String::as_str));
    let one = optional(kubectl, &arguments).await?;
    Ok(match one.get("items") {
        Some(_) => one,
        None if one.is_null() => json!({ "items": [] }),
        None => json!({ "items": [one] }),
    })
}

/// The API server says when it has answered who asks.
async fn clock(kubectl: &Kubectl) -> Fact<Clock> {
    let before = Timestamp::now();
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let arguments = ["create", "--raw", path, "-f", "-"];
    let answer = kubectl
        .give(&arguments, &review.to_string())
        .await
        .map_err(words)?;
    let after = Timestamp::now();
    let answer = parse(&answer).map_err(words)?;
    let server = crate::objects::time(&answer, "/metadata/creationTimestamp");
    let server = server.ok_or("the API server does not say what time it is")?;
    let middle = (before.as_millisecond() + after.as_millisecond()) / 2;
    let here = Timestamp::from_millisecond(middle).map_err(|error| error.to_string())?;
    Ok(Clock { server, here })
}

/// As a table the API server sends names and no data.
async fn secrets(kubectl: &Kubectl) -> Fact<Vec<String>> {
    let text = kubectl
        .run(&["get", "secrets", "-A", "--no-headers"])
        .await
        .map_err(words)?;
    let names = text.lines().filter_map(|line| {
        let mut cells = line.split_whitespace();
        Some(format!("{}/{}", cells.next()?, cells.next()?))
    });
    Ok(names.collect())
}

/// Which of the four kinds the person may list everywhere.
async fn own(kubectl: &Kubectl) -> Fact<Vec<String>> {
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let mut may = Vec::new();
    for kind in KINDS {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": { "group": GROUP, "resource": kind, "verb": "list" } },
        });
        let arguments = ["create", "--raw", path, "-f", "-"];
        let answer = kubectl
            .give(&arguments, &review.to_string())
            .await
            .map_err(words)?;
        let answer = parse(&answer).map_err(words)?;
        if crate::objects::is_true(&answer, "/status/allowed") {
            may.push(kind.to_owned());
        }
    }
    Ok(may)
}
