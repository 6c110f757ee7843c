//! docs/safety.md names a test for each finding; here is what keeps these names true.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Functions under a test attribute, in all crates.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    for crate_ in ["cli", "crds", "hub", "proto", "spoke", "tests"] {
        for part in ["src", "tests"] {
            let dir = root().join(crate_).join(part);
            if dir.is_dir() {
                sources(&dir, &mut files);
            }
        }
    }
    let mut names = BTreeSet::new();
    for file in files {
        let mut marked = false;
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let line = line.trim_start();
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                marked = true;
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
                names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
                marked = false;
            }
        }
    }
    names
}

#[test]
fn each_finding_has_tests_that_exist() {
    let (known, mut rows) = (tests(), 0);
    let text = std::fs::read_to_string(root().join("docs/safety.md")).unwrap();
    let table = text.lines().filter(|line| line.starts_with("| "));
    for line in table.filter(|line| !line.starts_with("| id |")) {
        let named = line.rsplit('|').nth(1).unwrap().split('`');
        let named: Vec<&str> = named.skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {line}");
        for name in named {
            assert!(known.contains(name), "{name} is no test: {line}");
        }
        rows += 1;
    }
    assert!(rows > 60, "{rows} rows were read");
}
