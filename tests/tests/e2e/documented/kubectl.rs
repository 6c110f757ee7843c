//! Every `kubectl …` of README and docs, against clusters with the product in them: what reads is run, what changes is run as
//! far as the API server checks it, and of the others the flags are read. A page may name what is not there; it may not name a
//! kind or a flag that nobody knows, or a change that is refused.

use std::process::Command;

use serde_json::json;

use super::typed::{TOP, named, typed};
use super::{pages, shell};
use crate::support::{Place, bed, s3};

const NAMESPACE: &str = "documented";
/// What pages leave to the reader, and what stands for it here.
const STAND_INS: [(&str, &str); 13] = [
    ("$(date +%s)", "1"),
    ("$(date +%F)", "1"),
    ("<status.plan>", "plan"),
    ("<old key>", "key"),
    ("<name>", "name"),
    ("$NAMESPACE", NAMESPACE),
    ("-n shop", "-n documented"),
    ("NAMESPACE", NAMESPACE),
    ("NAME", "name"),
    ("JOB-POD", "pod"),
    ("JOB", "job"),
    ("POD", "pod"),
    ("RELEASE", "release"),
];
/// Answers of a cluster in which something is not there, or not so.
const NOT_THERE: [&str; 4] = [
    "NotFound",
    "not found",
    "no matching resources found",
    "timed out waiting",
];

/// Words of each `kubectl …` of a page, in code blocks and in lines.
fn commands_of(page: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for mut line in typed(page) {
        for (word, stand_in) in STAND_INS {
            line = line.replace(word, stand_in);
        }
        // A drawing of README has the words beside each other, and krew is no part of kubectl.
        let kubectl = |words: &Vec<String>| {
            words.len() > 3
                && words[0] == "kubectl"
                && !words.iter().any(|word| word == "fleet")
                && words[1] != "krew"
        };
        all.extend(shell::commands(&line).into_iter().filter(kubectl));
    }
    all.sort();
    all.dedup();
    all
}

/// What is run for a command: as little of it as shows whether it is understood.
fn tried(words: &[String]) -> Vec<String> {
    let mut words = words[1..].to_vec();
    if let Some(at) = words.iter().position(|word| word == "--context") {
        words.drain(at..at + 2);
    }
    let root = pages::root();
    let files = words
        .windows(2)
        .filter(|pair| ["-f", "-k"].contains(&pair[0].as_str()));
    let all_there = files.clone().all(|pair| root.join(&pair[1]).exists());
    match words[0].as_str() {
        "get" | "describe" | "logs" => {}
        "wait" => words.push("--timeout=1s".to_owned()),
        "annotate" | "patch" | "scale" | "delete" | "apply" if all_there => {
            words.push("--dry-run=server".to_owned())
        }
        _ => {
            let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
            words.insert(end, "--help".to_owned());
        }
    }
    words
}

#[test]
#[ignore = "needs clusters: make test"]
fn every_kubectl_of_the_pages_is_understood() {
    let place = Place::new("a", NAMESPACE);
    let repository = json!({ "name": "name" });
    let restore = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "name" },
                          "spec": { "backupRef": { "name": "name" }, "target": { "newPVC": { "name": "back", "size": "1Gi" } } } });
    let policy = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "name" },
                         "spec": { "repositoryRef": repository, "schedule": "@yearly", "suspend": true,
                                   "policies": [{ "selector": {}, "retention": { "keepLast": 3 } }] } });
    place.apply(&[
        place.repository("name", &s3(0, NAMESPACE)),
        place.backup("name", repository.clone(), json!({})),
        restore,
        policy,
    ]);
    place.until_ready("resticbackup/name");
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (path, page) in pages::pages(&TOP) {
        for words in commands_of(&page) {
            let tried = tried(&words);
            let mut command = Command::new(bed().workspace.program("kubectl"));
            command
                .args(&tried)
                .current_dir(pages::root())
                .env("KUBECONFIG", place.cluster.kubeconfig());
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            seen += 1;
            if !output.status.success() && !NOT_THERE.iter().any(|answer| said.contains(answer)) {
                wrong.push(format!("{}: kubectl {}: {said}", named(&path), tried.join(" ")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{}", wrong.join("\n"));
    assert!(seen > 70, "only {seen} commands were found");
}
