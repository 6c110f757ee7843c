//! What a page lets a person type into kubectl says where: in which namespace, and with an image that can be pulled. The pods
//! that it has a person make are let into the system's namespace.

use serde_json::Value;

use super::pages;
use super::typed::{TOP, named, typed};

/// Kinds without a namespace.
const OF_THE_CLUSTER: [&str; 7] = [
    "crd",
    "namespace",
    "namespaces",
    "node",
    "nodes",
    "volumesnapshotclass",
    "storageclass",
];

/// Words of each `kubectl …` of the pages that has something to work on, each with its page.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    // Decisions are no instructions.
    let instructions = pages::pages(&TOP)
        .into_iter()
        .filter(|(path, _)| !named(path).starts_with("docs/adr/"));
    for (path, page) in instructions {
        let lines = typed(&page);
        let words = lines.iter().flat_map(|line| super::shell::commands(line));
        let kubectl = words.filter(|words| words.len() > 3 && words[0] == "kubectl");
        all.extend(kubectl.map(|words| (named(&path), words)));
    }
    all
}

#[test]
fn each_kubectl_of_the_pages_names_its_namespace() {
    let acts = [
        "get", "describe", "logs", "annotate", "label", "patch", "delete", "scale", "rollout", "wait",
        "exec", "cp", "create",
    ];
    let where_ = ["-n", "--namespace", "-A", "--all-namespaces", "-f", "-k"];
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (page, words) in commands() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let kind = words[2].split(['/', '.', ',']).next().unwrap_or_default();
        if !acts.contains(&words[1]) || OF_THE_CLUSTER.contains(&kind) {
            continue;
        }
        seen += 1;
        if !words.iter().any(|word| where_.contains(word)) {
            wrong.push(format!("{page}: {}", words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "no namespace:\n{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} commands were found");
}

/// `deploy/spoke` names an image that nobody publishes; `deploy/kustomization.yaml` is where a person writes their own.
#[test]
fn no_page_applies_the_operator_with_an_image_that_nobody_publishes() {
    for (page, words) in commands().into_iter().filter(|(_, words)| words[1] == "apply") {
        let bare = words
            .iter()
            .any(|word| word.trim_end_matches('/') == "deploy/spoke");
        // The way back keeps the kinds, and says that the image has to be written first.
        let back = page == "docs/upgrade.md" && words.iter().any(|word| word == "--server-side");
        assert!(!bare || back, "{page}: {}", words.join(" "));
    }
}

/// Manifests that commands get from a page itself, with what the shell fills in.
fn given() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (path, page) in pages::pages(&TOP) {
        for part in page.split("<<END\n").skip(1) {
            let lines = part.lines().take_while(|line| line.trim() != "END");
            let text: Vec<&str> = lines.collect();
            let depth = text
                .first()
                .map_or(0, |line| line.len() - line.trim_start().len());
            let text: Vec<&str> = text
                .iter()
                .map(|line| line.get(depth..).unwrap_or_default())
                .collect();
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text.join("\n"))
                .unwrap_or_else(|error| panic!("{}: {error}", named(&path)));
            all.extend(documents.into_iter().map(|document| (named(&path), document)));
        }
    }
    all
}

#[test]
fn pods_that_a_page_makes_are_restricted_and_mount_the_store() {
    let given = given();
    let pods: Vec<_> = given
        .iter()
        .filter(|(_, document)| document["kind"] == "Pod")
        .collect();
    for (page, pod) in &pods {
        let (spec, name) = (&pod["spec"], &pod["metadata"]["name"]);
        let about = format!("{page}: {name}");
        assert_eq!(pod["metadata"]["namespace"], "restic-fleet-system", "{about}");
        let own = &spec["securityContext"];
        assert_eq!(own["runAsNonRoot"], true, "{about}");
        // Of the hub, which has to read what they write.
        assert_eq!(own["runAsUser"], 65532, "{about}");
        assert_eq!(own["seccompProfile"]["type"], "RuntimeDefault", "{about}");
        let container = &spec["containers"][0];
        let rights = &container["securityContext"];
        assert_eq!(rights["allowPrivilegeEscalation"], false, "{about}");
        assert_eq!(rights["capabilities"]["drop"][0], "ALL", "{about}");
        assert_eq!(
            container["volumeMounts"][0]["mountPath"], "/var/lib/fleet-hub",
            "{about}"
        );
        assert_eq!(
            spec["volumes"][0]["persistentVolumeClaim"]["claimName"], "fleet-hub",
            "{about}"
        );
    }
    assert!(!pods.is_empty());
}
