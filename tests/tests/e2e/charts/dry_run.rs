//! Everything that is shipped or documented is taken by an API server, strictly, and meets the restricted standard.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tests::Cluster;

use super::{bare, chart, helm_ok, text};

/// Kinds that other projects bring; a cluster without them cannot judge.
const OTHERS: &[&str] = &["ServiceMonitor", "PrometheusRule", "Certificate", "TLSRoute"];

/// Values with which each part of the charts is rendered at least once.
const SPOKE: &[&str] = &[
    "",
    "cluster=berlin,hub=https://hub.example.org:8443,hubServerName=link.example.org",
    "join.cluster=b,join.hub=https://h:1,join.enrol=https://h:2,join.token=t,\
     join.pin=0000000000000000000000000000000000000000000000000000000000000001",
    "watchNamespaces={shop,till},rbac.exec=false,replicas=1",
    "settings.FLEET_REFRESH_INTERVAL=30m,allow={read},maxBackups=2,allowedImages={registry.example.org/x/*}",
    "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b,metrics.serviceMonitor.enabled=true,\
     metrics.rules.enabled=true,metrics.dashboard.enabled=true",
    "user=null,imagePullSecrets[0].name=registry,priorityClassName=system-cluster-critical,nodeSelector.a=b",
];
const HUB: &[&str] = &[
    "",
    "address=hub.example.org,serverNames={a,b}",
    "service.type=LoadBalancer,service.externalTrafficPolicy=Local,address=hub.example.org",
    "authority.secret=mine,store.storageClassName=fast,store.size=5Gi",
    "tls.certManager.enabled=true,tls.certManager.issuerRef.name=fleet,address=192.0.2.1",
    "ingress.enabled=true,ingress.controller=nginx,ingress.hosts.link=l.example.org,ingress.hosts.view=v.example.org",
    "gateway.enabled=true,gateway.parentRefs[0].name=g,gateway.hosts.link=l.example.org,service.type=ClusterIP",
    "oidc.issuer=https://i.example.org,oidc.clientID=fleet,oidc.clientSecret.name=oidc,\
     networkPolicy.viewFrom[0].ipBlock.cidr=192.0.2.0/24,networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b,\
     metrics.serviceMonitor.enabled=true,metrics.rules.enabled=true",
];

/// A cluster with the kinds and without a hub: what is there already would be judged as a change.
fn prepared() -> Cluster {
    let cluster = bare().clusters().into_iter().next_back().unwrap();
    tests::fleet::install_crds(&cluster).unwrap();
    cluster
}

fn namespaces(cluster: &Cluster, documents: &[Value]) {
    let named = documents
        .iter()
        .filter_map(|document| document["metadata"]["namespace"].as_str());
    for name in named.collect::<BTreeSet<_>>() {
        let namespace = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name,
            "labels": { "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted" } } });
        cluster.apply(&namespace.to_string()).unwrap();
    }
}

fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// Judges documents; returns how many, and the kinds that were left out.
fn judge(cluster: &Cluster, what: &str, documents: Vec<Value>) -> (usize, BTreeSet<String>) {
    namespaces(cluster, &documents);
    let other = |document: &Value| OTHERS.contains(&document["kind"].as_str().unwrap_or_default());
    let (left, judged): (Vec<_>, Vec<_>) = documents.into_iter().partition(other);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text_of: Vec<String> = judged.iter().map(Value::to_string).collect();
    std::fs::write(file.path(), text_of.join("\n---\n")).unwrap();
    if !judged.is_empty() {
        let output = Command::new(bare().workspace.program("kubectl"))
            .args(["--kubeconfig", &cluster.kubeconfig().to_string_lossy()])
            .args([
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
                "--validate=strict",
                "-f",
            ])
            .arg(file.path())
            .output()
            .unwrap();
        let (taken, said) = (text(&output.stdout), text(&output.stderr));
        // A warning is what Pod Security says of a pod that is not restricted.
        assert!(
            output.status.success() && said.is_empty(),
            "{what}: {said}\n{}",
            text_of.join("\n")
        );
        assert_eq!(taken.lines().count(), judged.len(), "{what}: {taken}");
    }
    let kinds = left
        .iter()
        .map(|document| document["kind"].as_str().unwrap_or_default().to_owned());
    (judged.len(), kinds.collect())
}

#[test]
#[ignore = "needs clusters: make charts-test"]
fn everything_that_the_charts_render_is_taken_and_restricted() {
    let cluster = prepared();
    let mut left = BTreeSet::new();
    for (name, sets) in [("spoke", SPOKE), ("hub", HUB)] {
        for set in sets {
            let folder = chart(name).to_string_lossy().into_owned();
            let mut arguments = vec!["template", "x", &folder, "--namespace", "restic-fleet-system"];
            if !set.is_empty() {
                arguments.extend(["--set", set]);
            }
            let rendered = documents(&helm_ok(&cluster, &arguments));
            let (judged, others) = judge(&cluster, &format!("{name} {set}"), rendered);
            assert!(judged > 5, "{name} {set}: only {judged}");
            left.extend(others);
        }
    }
    // Each of the kinds that nobody judged was rendered.
    assert_eq!(left.iter().map(String::as_str).collect::<Vec<_>>(), {
        let mut others = OTHERS.to_vec();
        others.sort_unstable();
        others
    });
}

/// Files below a folder with this end.
fn files(folder: &str, end: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(bare().workspace.root.join(folder))
        .unwrap()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            files(&format!("{folder}/{name}"), end, found);
        } else if name.ends_with(&format!(".{end}")) && name != "kustomization.yaml" {
            found.push(entry.path());
        }
    }
}

#[test]
#[ignore = "needs clusters: make charts-test"]
fn every_shipped_and_documented_manifest_is_taken() {
    let cluster = prepared();
    let mut found = Vec::new();
    for folder in ["deploy/spoke", "deploy/hub", "deploy/examples", "deploy/crds"] {
        files(folder, "yaml", &mut found);
    }
    found.push(bare().workspace.root.join("deploy/spoke-config.example.yaml"));
    assert!(found.len() > 15);
    for path in found {
        let shipped = documents(&std::fs::read_to_string(&path).unwrap());
        judge(&cluster, &path.display().to_string(), shipped);
    }
    // What the dashboard tells people to write.
    let shown = std::fs::read_to_string(bare().workspace.root.join("hub/ui/src/parts/example.tsx")).unwrap();
    let shown = documents(shown.split('`').nth(1).unwrap());
    let (judged, _) = judge(&cluster, "the dashboard's example", shown);
    assert_eq!(judged, 1, "the dashboard's example");
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&std::fs::read_to_string(&page).unwrap()) {
            let whole = documents(&block);
            // Others are parts of one.
            let whole = whole
                .into_iter()
                .filter(|document| document["apiVersion"].is_string());
            let whole = whole.filter(|document| {
                !["PodMonitor", "ServiceMonitor"].contains(&document["kind"].as_str().unwrap())
            });
            let (judged, _) = judge(&cluster, &page.display().to_string(), whole.collect());
            seen += judged;
        }
    }
    assert!(seen > 3, "only {seen} manifests were found in the documentation");
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![bare().workspace.root.join("README.md")];
    files("docs", "md", &mut pages);
    pages
}

/// Blocks of YAML of a page.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("\n```yaml\n").skip(1);
    parts
        .map(|part| part.split("\n```").next().unwrap_or_default().to_owned())
        .collect()
}

/// Kind, namespace and name of each document, sorted.
fn called(documents: &[Value]) -> Vec<String> {
    let of = |document: &Value| {
        let part = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let metadata = &document["metadata"];
        format!(
            "{} {}/{}",
            part(&document["kind"]),
            part(&metadata["namespace"]),
            part(&metadata["name"])
        )
    };
    let mut called: Vec<String> = documents.iter().map(of).collect();
    called.sort();
    called
}

#[test]
#[ignore = "needs clusters: make charts-test"]
fn kustomizations_render_the_same_manifests() {
    let cluster = prepared();
    for (folder, image, of) in [
        ("deploy", "spoke", &["deploy/crds", "deploy/spoke"][..]),
        ("deploy/hub", "hub", &["deploy/hub"][..]),
    ] {
        let path = bare().workspace.root.join(folder);
        let rendered = cluster.kubectl(&["kustomize", &path.to_string_lossy()]).unwrap();
        assert!(
            rendered.contains(&format!("image: ghcr.io/restic-fleet/{image}:dev")),
            "{rendered}"
        );
        let rendered = documents(&rendered);
        let mut shipped = Vec::new();
        of.iter().for_each(|folder| files(folder, "yaml", &mut shipped));
        let shipped = shipped
            .iter()
            .flat_map(|path| documents(&std::fs::read_to_string(path).unwrap()));
        assert_eq!(
            called(&rendered),
            called(&shipped.collect::<Vec<_>>()),
            "{folder}"
        );
        let (judged, _) = judge(&cluster, folder, rendered.clone());
        assert_eq!(judged, rendered.len(), "{folder}");
    }
}
