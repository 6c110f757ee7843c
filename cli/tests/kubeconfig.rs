//! A cluster by kubeconfig alone, a check of it, and a bundle: the program with a kubectl that answers as a test wants.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const SECRET: &str = "hunter2-s3cret";

/// A kubectl that prints a file for each question, and knows nothing else.
struct Cluster {
    dir: tempfile::TempDir,
}

impl Cluster {
    /// One in which all is well.
    fn new() -> Cluster {
        let cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
        };
        let script = r#"#!/bin/bash
here=$(dirname "$0")
words=()
for word in "$@"; do case $word in --request-timeout=*|--as=*) ;; *) words+=("$word") ;; esac; done
# Without the choice of the cluster.
while [ "${words[0]}" = --context ] || [ "${words[0]}" = --kubeconfig ]; do words=("${words[@]:2}"); done
name=$(IFS=_; echo "${words[*]}" | tr -c 'A-Za-z0-9\n' _)
if [ -e "$here/hangs-$name" ]; then sleep 60; fi
for file in "$here"/answer-*; do
  case $name in *"${file#*/answer-}"*) cat "$file"; exit 0 ;; esac
done
echo "Error from server (Forbidden): $name" >&2
exit 1
"#;
        let kubectl = cluster.dir.path().join("kubectl");
        std::fs::write(
            &kubectl,
            script.replace("${file#*/answer-}", "${file##*/answer-}"),
        )
        .unwrap();
        std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755)).unwrap();
        cluster.well();
        cluster
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The answer to questions that have these words in them.
    fn answers(&self, question: &str, answer: &Value) {
        std::fs::write(self.file(&format!("answer-{question}")), answer.to_string()).unwrap();
    }

    fn well(&self) {
        let now = jiff::Timestamp::now().to_string();
        let list = |items: Value| json!({ "kind": "List", "items": items });
        let kinds = [
            "resticrepositories",
            "resticbackups",
            "resticrestores",
            "globalretentionpolicies",
        ];
        let definitions: Vec<Value> = kinds
            .iter()
            .map(|kind| {
                let conditions = json!([{ "type": "Established", "status": "True" }, { "type": "NamesAccepted", "status": "True" }]);
                json!({ "metadata": { "name": kind }, "status": { "conditions": conditions, "storedVersions": ["v1alpha1"] } })
            })
            .collect();
        let labels = json!({ "app.kubernetes.io/name": "fleet-spoke" });
        self.answers(
            "version__o_json",
            &json!({ "serverVersion": { "gitVersion": "v1.34.4", "major": "1", "minor": "34" } }),
        );
        self.answers(
            "selfsubjectreviews",
            &json!({ "metadata": { "creationTimestamp": now } }),
        );
        self.answers(
            "selfsubjectaccessreviews",
            &json!({ "status": { "allowed": true } }),
        );
        self.answers(
            "selfsubjectrulesreviews",
            &json!({ "status": { "resourceRules": [
            { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] } }),
        );
        let resources: Vec<Value> = kinds.iter().map(|kind| json!({ "name": kind })).collect();
        self.answers("get___raw", &json!({ "resources": resources }));
        self.answers("get_crd", &list(json!(definitions)));
        self.answers(
            "get_namespace",
            &json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } }),
        );
        self.answers("get_deployments", &list(json!([{
            "metadata": { "name": "fleet-spoke", "labels": labels },
            "spec": { "replicas": 2, "template": { "spec": { "containers": [{
                "name": "x", "args": [format!("--token={SECRET}")], "env": [{ "name": "P", "value": SECRET }] }] } } },
            "status": { "readyReplicas": 2, "conditions": [{ "type": "Available", "status": "True" }] },
        }])));
        self.answers(
            "get_pods",
            &list(json!([{
                "metadata": { "name": "fleet-spoke-1", "labels": labels, "annotations": { "note": SECRET } },
                "spec": { "containers": [{ "image": "spoke:1" }] },
                "status": { "containerStatuses": [{ "restartCount": 0 }] },
            }])),
        );
        let lease = json!({ "metadata": { "name": "fleet-spoke" }, "spec": { "holderIdentity": "fleet-spoke-1", "renewTime": now } });
        self.answers("get_leases", &list(json!([lease])));
        self.answers("get_lease_fleet", &lease);
        self.answers(
            "get_configmap",
            &json!({ "data": { "cluster": "a", "hub": "https://hub:8443" } }),
        );
        for kind in ["persistentvolumeclaims", "networkpolicies", "validatingwebhook"] {
            self.answers(&format!("get_{kind}"), &list(json!([])));
        }
        std::fs::write(self.file("answer-get_secrets"), "shop   nas   Opaque   3   1d\n").unwrap();
        self.answers("get_events", &list(json!([{
            "metadata": { "namespace": "restic-fleet-system", "annotations": { "x": SECRET } },
            "involvedObject": { "name": "fleet-spoke" }, "reason": "Started", "message": format!("password={SECRET}"),
        }])));
        std::fs::write(
            self.file("answer-logs_fleet"),
            format!("{{\"level\":\"info\",\"password\":\"{SECRET}\"}}\nopen rest:https://u:{SECRET}@nas/r\nplain words\n"),
        )
        .unwrap();
        self.objects(json!({ "result": "Succeeded", "completionTime": now }));
    }

    /// A repository and a backup, which ended like this last.
    fn objects(&self, last: Value) {
        let succeeded = match last["result"].as_str() {
            Some("Succeeded") => jiff::Timestamp::now().to_string(),
            _ => "2026-01-01T00:00:00Z".to_owned(),
        };
        let conditions =
            json!([{ "type": "Ready", "status": "True" }, { "type": "Stale", "status": "False" }]);
        let repository = json!({
            "kind": "ResticRepository", "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": format!("rest:https://u:{SECRET}@nas/r"), "credentialsSecretRef": { "name": "nas" },
                      "backendOptions": { "x": SECRET } },
            "status": { "repositoryID": "abc", "conditions": conditions },
        });
        let backup = json!({
            "kind": "ResticBackup", "metadata": { "name": "orders", "namespace": "shop" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily",
                      "hooks": { "preBackup": { "exec": { "command": ["dump", SECRET] } } } },
            "status": { "conditions": conditions, "lastSuccessfulBackup": succeeded, "lastBackup": last },
        });
        self.answers(
            "get_resticrepositories",
            &json!({ "kind": "List", "items": [repository, backup] }),
        );
    }

    /// Exit code, data, and what was said besides.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let path = format!("{}:{}", self.dir.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command
            .args(arguments)
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("KUBECONFIG", self.file("kubeconfig"));
        for variable in [
            "FLEET_HUB",
            "FLEET_CA",
            "FLEET_CERT",
            "FLEET_KEY",
            "FLEET_CONTEXT",
            "FLEET_CONTEXTS",
        ] {
            command.env_remove(variable);
        }
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

#[test]
fn without_a_hub_one_cluster_is_shown_and_it_is_said() {
    let cluster = Cluster::new();
    let (code, text, said) = cluster.run(&["status"]);
    assert_eq!(code, 0, "{text}{said}");
    assert!(
        text.starts_with("SAFE  all well of 1 backup · 1 cluster · as of"),
        "{text}"
    );
    assert_eq!(
        said,
        "by kubeconfig alone: only cluster a is seen, no other one; fleet login shows the fleet\n"
    );
    for (arguments, name) in [
        (&["backups", "-o", "name"][..], "a/shop/orders\n"),
        (&["repos", "-o", "name"], "abc\n"),
        (&["policies", "-o", "name"], ""),
        (&["restores", "-o", "name"], ""),
    ] {
        let (code, text, said) = cluster.run(arguments);
        assert_eq!((code, text.as_str()), (0, name), "{said}");
    }
    let (code, text, _) = cluster.run(&["why", "shop/orders"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("backup a/shop/orders is OK"), "{text}");
    let document: Value = serde_json::from_str(&cluster.run(&["repos", "-o", "json"]).1).unwrap();
    assert_eq!(document["items"][0]["bindings"][0]["url"], "rest:https://nas/r");
    // What needs the fleet says so.
    let (code, _, said) = cluster.run(&["audit"]);
    assert_eq!((code, said.contains("fleet login")), (2, true), "{said}");
}

#[test]
fn a_cluster_whose_operator_is_not_seen_to_run_is_not_called_safe() {
    let cluster = Cluster::new();
    let long_ago = json!({ "metadata": { "name": "fleet-spoke" }, "spec": { "renewTime": "2026-01-01T00:00:00Z", "holderIdentity": "x" } });
    cluster.answers("get_lease_fleet", &long_ago);
    let (code, text, said) = cluster.run(&["status"]);
    assert_eq!(code, 3, "{text}");
    assert!(
        text.starts_with("UNKNOWN") && said.contains("its operator does not run"),
        "{text}{said}"
    );
    std::fs::remove_file(cluster.file("answer-get_lease_fleet")).unwrap();
    let (code, text, said) = cluster.run(&["status"]);
    assert_eq!((code, said.contains("cannot be seen")), (3, true), "{text}{said}");
    cluster.objects(json!({ "result": "Failed", "reason": "OutOfMemory", "completionTime": jiff::Timestamp::now().to_string(), "message": "the limit" }));
    let (code, text, _) = cluster.run(&["why", "a/shop/orders"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("FAILED: OutOfMemory: the limit"), "{text}");
    // A cluster that cannot be listed is not one without backups.
    std::fs::remove_file(cluster.file("answer-get_resticrepositories")).unwrap();
    let (code, text, said) = cluster.run(&["backups"]);
    assert_eq!((code, text.as_str()), (3, ""), "{said}");
    assert!(said.contains("Forbidden"), "{said}");
}

#[test]
fn a_check_of_a_cluster_is_good_names_what_is_not_and_never_hangs() {
    let cluster = Cluster::new();
    let (code, text, said) = cluster.run(&["check"]);
    assert_eq!(code, 0, "{text}{said}");
    assert!(
        text.contains("GOOD  operator-rights") && text.contains("WELL  "),
        "{text}"
    );
    cluster
        .objects(json!({ "result": "Failed", "reason": "OutOfMemory", "message": "the limit was reached" }));
    let (code, text, _) = cluster.run(&["check", "--short"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.starts_with("BAD  last-runs  shop/orders: failed: OutOfMemory: the limit was reached\n"),
        "{text}"
    );
    cluster.objects(json!({ "result": "Succeeded" }));
    // One question that is refused and one that is not answered.
    std::fs::remove_file(cluster.file("answer-get_leases")).unwrap();
    std::fs::write(cluster.file("hangs-get_pods__n_restic_fleet_system__o_json"), "").unwrap();
    let start = Instant::now();
    let (code, text, _) = cluster.run(&["check", "--timeout", "1s", "-o", "json"]);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(code, 3, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    let outcome = |id: &str| {
        let items = document["items"].as_array().unwrap();
        let of = items.iter().find(|of| of["check"] == id).unwrap();
        (
            of["outcome"].as_str().unwrap().to_owned(),
            of["text"].as_str().unwrap().to_owned(),
        )
    };
    let (word, text) = outcome("images");
    assert_eq!(
        (word.as_str(), text.contains("no answer within 1 s")),
        ("UNKNOWN", true),
        "{text}"
    );
    let (word, text) = outcome("operator-leads");
    assert_eq!(
        (word.as_str(), text.contains("Forbidden")),
        ("UNKNOWN", true),
        "{text}"
    );
    assert_eq!(outcome("backups").0, "GOOD");
}

#[test]
fn a_bundle_has_what_support_needs_and_no_secret() {
    use std::io::Read as _;
    let cluster = Cluster::new();
    let file = cluster.file("support.tar.gz");
    let name = file.to_str().unwrap();
    let (code, _, said) = cluster.run(&["bundle", name]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let bytes = std::fs::read(&file).unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let mut files = std::collections::BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name.trim_start_matches("fleet-bundle/").to_owned(), text);
    }
    for (name, text) in &files {
        assert!(!text.contains(SECRET), "{name}: {text}");
    }
    let has = |name: &str, part: &str| {
        let text = files
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", files.keys()));
        assert!(text.contains(part), "{name}: {text}");
    };
    has("README.txt", "look before you send it");
    has("check.json", "operator-rights");
    has("version.json", env!("CARGO_PKG_VERSION"));
    has("objects/ResticRepository/shop/nas.json", "rest:https://nas/r");
    has("objects/ResticBackup/shop/orders.json", "(left out)");
    has("system/deployments.json", "fleet-spoke");
    has("system/events.json", "Started");
    has("logs/fleet-spoke-1.log", "plain words");
    has("missing.txt", "hub: ");
    // A file that is there is not replaced.
    let (code, _, said) = cluster.run(&["bundle", name]);
    assert_eq!((code, said.contains("exists")), (2, true), "{said}");
}

#[test]
fn flags_choose_the_cluster_also_beside_a_hub() {
    let cluster = Cluster::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    let path = format!(
        "{}:{}",
        cluster.dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    command
        .args(["status", "--kube-context", "other"])
        .env("PATH", path)
        .env("HOME", cluster.dir.path())
        .env("FLEET_HUB", "https://127.0.0.1:1");
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
