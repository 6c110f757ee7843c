//! docs/safety.md and docs/conformance.md name a test in each row of their tables; here is what keeps these names true.
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

/// Functions under a test attribute, in all crates, as `path.rs::function`.
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
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let line = line.trim_start();
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                marked = true;
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| marked) {
                let named = rest
                    .split_once('(')
                    .map(|(name, _)| format!("{}::{name}", file.display()));
                names.extend(named);
                marked = false;
            }
        }
    }
    names
}

/// Each row of the page's tables ends with tests in backticks: a function, or `file.rs::function`. Returns how many rows
/// there are.
fn each_row_has_tests(page: &str) -> usize {
    let (known, mut rows) = (tests(), 0);
    let is_test = |name: &str| {
        let (file, function) = name.split_once("::").unwrap_or(("", name));
        let mut known = known.iter().filter_map(|test| test.rsplit_once("::"));
        known.any(|(at, of)| of == function && Path::new(at).ends_with(file))
    };
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with('|')).peekable();
    while let Some(line) = lines.next() {
        if lines.next_if(|next| next.starts_with("|---")).is_some() {
            continue;
        }
        let named = line.rsplit('|').nth(1).unwrap().split('`');
        let named: Vec<&str> = named.skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {line}");
        for name in named {
            assert!(is_test(name), "{name} is no test: {line}");
        }
        rows += 1;
    }
    rows
}

#[test]
fn each_finding_has_tests_that_exist() {
    let rows = each_row_has_tests("docs/safety.md");
    assert!(rows > 60, "{rows} rows were read");
}

#[test]
fn each_line_of_conformance_has_tests_that_exist() {
    let rows = each_row_has_tests("docs/conformance.md");
    assert!(rows > 100, "{rows} rows were read");
}

/// By its path below `spec`, two levels deep.
#[test]
fn each_field_of_a_spec_is_in_conformance() {
    let page = std::fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    for (file, definition) in crds::schema::definitions() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let spec = &schema["properties"]["spec"]["properties"];
        for (name, field) in spec.as_object().unwrap() {
            let parts = &field.get("items").unwrap_or(field)["properties"];
            let parts = parts.as_object().into_iter().flatten();
            let mut paths: Vec<String> = parts.map(|(part, _)| format!("{name}.{part}")).collect();
            if paths.is_empty() {
                paths.push(name.clone());
            }
            for path in paths {
                let named = [format!("`{path}`"), format!("`{path}.")];
                assert!(named.iter().any(|text| page.contains(text)), "{file}: {path}");
            }
        }
    }
}

/// Path and suite of each test on clusters, as the reason for which it is ignored names it.
fn on_clusters() -> Vec<(String, String)> {
    let dir = root().join("tests/tests/e2e");
    let (mut files, mut found) = (Vec::new(), Vec::new());
    sources(&dir, &mut files);
    for file in files {
        let module = file.strip_prefix(&dir).unwrap().with_extension("");
        let module = module.to_str().unwrap().replace('/', "::");
        let module = module.strip_suffix("::mod").unwrap_or(&module);
        let mut suite = None;
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let line = line.trim_start();
            if line.starts_with("#[ignore") {
                let named = line
                    .split_once(": make ")
                    .and_then(|(_, rest)| rest.split_once('"'));
                suite = Some(
                    named
                        .unwrap_or_else(|| panic!("{line} names no suite"))
                        .0
                        .to_owned(),
                );
            } else if let Some((_, rest)) = line.split_once("fn ")
                && let Some((name, _)) = rest.split_once('(')
                && let Some(suite) = suite.take()
            {
                found.push((format!("{module}::{name}"), suite));
            }
        }
    }
    found
}

#[test]
fn the_script_runs_each_test_in_the_suite_that_it_names() {
    let script = std::fs::read_to_string(root().join("tests/run.sh")).unwrap();
    let list = |name: &str| {
        let (_, rest) = script.split_once(&format!("\n{name}=(")).unwrap();
        let (words, _) = rest.split_once(')').unwrap();
        words.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let long = [list("long"), list("long_alone")].concat();
    // Made by a macro, and so not found below.
    let macros = |entry: &str| entry.starts_with("hooks::kills::");
    let tests = on_clusters();
    assert!(tests.len() > 100, "{}", tests.len());
    for (test, suite) in &tests {
        let is_long = long.iter().any(|entry| test.contains(entry.as_str()));
        assert_eq!(is_long, suite == "long", "{test} names make {suite}");
    }
    for entry in long.iter().filter(|entry| !macros(entry)) {
        assert!(
            tests.iter().any(|(test, _)| test.contains(entry.as_str())),
            "{entry} is no test"
        );
    }
}

/// Cargo finds no test by itself where a crate has one program for all of them.
#[test]
fn each_file_of_tests_is_in_the_program_of_its_crate() {
    for crate_ in ["cli", "crds", "hub", "spoke"] {
        let dir = root().join(crate_).join("tests");
        let program = std::fs::read_to_string(dir.join("main.rs")).unwrap();
        let modules: BTreeSet<&str> = program
            .lines()
            .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
            .collect();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let is_source = path.extension().is_some_and(|e| e == "rs") || path.join("mod.rs").exists();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                !is_source || name == "main" || modules.contains(name),
                "{} is no part of {crate_}/tests/main.rs, so its tests never run",
                path.display()
            );
        }
    }
}
