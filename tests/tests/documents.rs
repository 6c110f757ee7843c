//! README and docs: every link leads somewhere, every manifest decodes as its kind, every file and make target that is named
//! exists. The commands of `fleet` are tested in the CLI, the manifests against an API server in `e2e/charts`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

#[path = "documents/kubectl.rs"]
mod kubectl;
#[path = "documents/pages.rs"]
mod pages;
#[path = "documents/shell.rs"]
mod shell;
#[path = "documents/told.rs"]
mod told;
#[path = "documents/typed.rs"]
mod typed;
#[path = "documents/values.rs"]
mod values;

use self::pages::{lines, root};

fn pages() -> Vec<(PathBuf, String)> {
    pages::pages(&["README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md"])
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let headings = lines(page)
        .into_iter()
        .filter(|(code, line)| code.is_none() && line.starts_with('#'));
    headings.map(|(_, line)| anchor(line)).collect()
}

/// Targets of the links of a line.
fn links(line: &str) -> Vec<String> {
    let mut parts = line.split("](").skip(1);
    let mut all = Vec::new();
    for part in parts.by_ref() {
        if let Some((target, _)) = part.split_once(')') {
            all.push(target.trim().to_owned());
        }
    }
    all
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    for (path, page) in pages() {
        for (_, line) in lines(&page).into_iter().filter(|(code, _)| code.is_none()) {
            for link in links(line).into_iter().filter(|link| !link.contains("://")) {
                let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
                let target = match file {
                    "" => path.clone(),
                    file => path.parent().unwrap().join(file),
                };
                assert!(target.exists(), "{}: {link} leads nowhere", path.display());
                if !heading.is_empty() {
                    let known = anchors(&std::fs::read_to_string(&target).unwrap());
                    assert!(
                        known.contains(heading),
                        "{}: {link}: no such heading",
                        path.display()
                    );
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "only {seen} links were found");
}

/// Who is woken by an alert reads what it means, what it does to the backups, where to look and how to mend it.
#[test]
fn each_alert_has_its_section_with_severity_impact_look_and_mend() {
    let text = std::fs::read_to_string(root().join("deploy/alerts.yaml")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&text).unwrap();
    let runbook = std::fs::read_to_string(root().join("docs/runbook.md")).unwrap();
    let groups = alerts["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .filter(|rule| rule["alert"].is_string())
        .collect();
    assert_eq!(
        rules.len(),
        runbook.matches("\n## ").count(),
        "alerts and sections"
    );
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        let (_, section) = runbook.split_once(&format!("\n## {name}\n\n")).expect(name);
        let section = section.split("\n## ").next().unwrap();
        let severity = rule["labels"]["severity"].as_str().unwrap();
        let begins = format!(
            "{}. ",
            severity.replacen(|_: char| true, &severity[..1].to_uppercase(), 1)
        );
        assert!(section.starts_with(&begins), "{name} is {severity}: {section}");
        for part in ["\n\nImpact: ", "\n\nLook: ", "\n\nMend: "] {
            assert_eq!(section.matches(part).count(), 1, "{name}:{part}");
        }
    }
}

#[test]
fn every_alert_and_condition_is_linked_to_a_heading_that_exists() {
    let alerts = std::fs::read_to_string(root().join("deploy/alerts.yaml")).unwrap();
    let runbook = anchors(&std::fs::read_to_string(root().join("docs/runbook.md")).unwrap());
    let urls = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "));
    let mut seen = 0;
    for url in urls {
        let (_, heading) = url.split_once("docs/runbook.md#").expect(url);
        assert!(runbook.contains(heading), "{url}: no such heading");
        seen += 1;
    }
    assert!(seen > 20);
}

/// Blocks of YAML, each with the page that it is on.
fn manifests() -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for (path, page) in pages() {
        let mut block = String::new();
        let end = (None, "");
        for (code, line) in lines(&page).into_iter().chain([end]) {
            if code.as_deref() == Some("yaml") {
                block.push_str(line);
                block.push('\n');
            } else if !block.is_empty() {
                all.push((path.clone(), std::mem::take(&mut block)));
            }
        }
    }
    all
}

#[test]
fn every_manifest_of_the_documentation_decodes() {
    let mut ours = 0;
    for (path, block) in manifests() {
        let documents: Result<Vec<Value>, _> = serde_saphyr::from_multiple(&block);
        let documents = documents.unwrap_or_else(|error| panic!("{}: {error}:\n{block}", path.display()));
        for document in documents {
            if document["apiVersion"] != "backup.resticbackup.io/v1alpha1" {
                continue;
            }
            let spec = &document["spec"];
            let decoded = match document["kind"].as_str().unwrap() {
                "ResticRepository" => {
                    serde_json::from_value::<crds::ResticRepository>(document.clone()).err()
                }
                "ResticBackup" => serde_json::from_value::<crds::ResticBackup>(document.clone()).err(),
                "ResticRestore" => serde_json::from_value::<crds::ResticRestore>(document.clone()).err(),
                "GlobalRetentionPolicy" => {
                    serde_json::from_value::<crds::GlobalRetentionPolicy>(document.clone()).err()
                }
                other => panic!("{}: {other} is no kind", path.display()),
            };
            assert!(decoded.is_none(), "{}: {decoded:?}: {spec}", path.display());
            ours += 1;
        }
    }
    assert!(ours >= 2, "only {ours} manifests were found");
}

#[test]
fn every_make_target_and_shipped_file_that_is_named_exists() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', ' ']))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    let (mut made, mut files) = (0, 0);
    for (path, page) in pages() {
        if path.ends_with("CHANGELOG.md") {
            continue;
        }
        for (code, line) in lines(&page) {
            let commands = line.split('`').skip(1).step_by(2).filter(|_| code.is_none());
            let commands: Vec<&str> = match code {
                Some(_) => vec![line.trim()],
                None => commands.collect(),
            };
            for command in commands {
                if let Some(target) = command
                    .strip_prefix("make ")
                    .and_then(|rest| rest.split_whitespace().next())
                {
                    let target = target.trim_end_matches([',', ';']);
                    assert!(
                        targets.contains(target),
                        "{}: make {target} is no target",
                        path.display()
                    );
                    made += 1;
                }
                let words = command.split(|c: char| c.is_whitespace() || ",;()\"'".contains(c));
                for word in
                    words.filter(|word| word.starts_with("deploy/") && !word.contains(['{', '*', '…']))
                {
                    // A Deployment of kubectl is written alike.
                    let deployment =
                        command.contains("kubectl") && !word.ends_with('/') && !word.contains('.');
                    if deployment && word.matches('/').count() == 1 {
                        continue;
                    }
                    let file = word.trim_end_matches(['.', ':']);
                    assert!(
                        root().join(file).exists(),
                        "{}: {file} does not exist",
                        path.display()
                    );
                    files += 1;
                }
            }
        }
    }
    assert!(made > 5 && files > 5, "{made} targets, {files} files");
}

#[test]
fn a_heading_is_linked_as_github_links_it() {
    assert_eq!(anchor("## Backup of the hub"), "backup-of-the-hub");
    assert_eq!(anchor("### `spec.initialize`: Never"), "specinitialize-never");
    assert_eq!(links("[a](b.md#c) and [d](https://e)"), ["b.md#c", "https://e"]);
}

#[test]
fn charts_have_the_version_of_the_product() {
    for chart in ["spoke", "hub"] {
        let path = root().join("deploy/charts").join(chart).join("Chart.yaml");
        let chart: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }
}
