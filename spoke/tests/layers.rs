//! The modules of the spoke form layers: no cycle, and no arrow that points up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Modules by layer, from the lowest: a module uses lower layers, and its own one. A new module has to be added.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "values",
        &["allow", "clock", "images", "paths", "schedule", "site", "units"],
    ),
    ("settings", &["backoff", "config"]),
    ("cache", &["metrics", "world"]),
    (
        "access",
        &[
            "consent", "events", "exchange", "exec", "hooks", "leader", "pod", "queue", "restic", "runs",
            "secrets",
        ],
    ),
    ("apply", &["apply", "notify", "sharing"]),
    ("context", &["context", "credentials"]),
    ("controller", &["kind", "maintenance", "service"]),
    (
        "kinds and operations",
        &[
            "backup",
            "closed",
            "operation",
            "repository",
            "restore",
            "retention",
            "scripts",
        ],
    ),
    (
        "edges",
        &[
            "admin",
            "enrol",
            "browse",
            "command",
            "hook",
            "intake",
            "link",
            "possession",
            "probe",
            "progress",
            "stream",
            "worker",
        ],
    ),
    ("wiring", &["arguments", "root", "run", "services"]),
];

/// Arrows that are wrong although they point down or stay in a layer.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("backup", KINDS, "kinds do not know each other"),
    ("repository", KINDS, "kinds do not know each other"),
    ("restore", KINDS, "kinds do not know each other"),
    ("retention", KINDS, "kinds do not know each other"),
    ("backup", WRITERS, "kinds are pure: the driver writes"),
    ("repository", WRITERS, "kinds are pure: the driver writes"),
    ("restore", WRITERS, "kinds are pure: the driver writes"),
    ("retention", WRITERS, "kinds are pure: the driver writes"),
    (
        "context",
        &["link", "maintenance"],
        "what all share knows no service",
    ),
    (
        "kind",
        &["link", "maintenance", "operation"],
        "the driver knows no service",
    ),
    (
        "link",
        &["intake"],
        "the link wakes through a function that it is given",
    ),
    (
        "progress",
        &["intake", "kind"],
        "what reads logs wakes through a function that it is given",
    ),
    ("maintenance", &["kind"], "the lock knows no actors"),
    (
        "hook",
        &["kind", "operation"],
        "what runs in a pod is not the operator",
    ),
    (
        "worker",
        &["kind", "operation"],
        "what runs in a pod is not the operator",
    ),
];

const KINDS: &[&str] = &["backup", "repository", "restore", "retention"];
const WRITERS: &[&str] = &["apply", "credentials", "link"];

#[test]
fn modules_form_layers_that_point_one_way() {
    let arrows = arrows(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    let mut wrong: Vec<String> = cycles(&arrows)
        .into_iter()
        .map(|cycle| format!("cycle: {}", cycle.join(", ")))
        .collect();
    for (from, to, files) in flat(&arrows) {
        let files = files.iter().cloned().collect::<Vec<_>>().join(", ");
        match (layer(from), layer(to)) {
            (Some(from_layer), Some(to_layer)) if from_layer < to_layer => {
                wrong.push(format!("{from} -> {to} points up ({files})"));
            }
            (Some(_), Some(_)) => {}
            _ => wrong.push(format!("{from} -> {to}: one of them is in no layer ({files})")),
        }
        let forbidden = FORBIDDEN.iter().filter(|(a, b, _)| *a == from && b.contains(&to));
        wrong.extend(forbidden.map(|(_, _, why)| format!("{from} -> {to}: {why} ({files})")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// Module -> module that it uses -> files in which it does.
type Arrows = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn flat(arrows: &Arrows) -> impl Iterator<Item = (&str, &str, &BTreeSet<String>)> {
    arrows.iter().flat_map(|(from, uses)| {
        let uses = uses.iter();
        uses.map(move |(to, files)| (from.as_str(), to.as_str(), files))
    })
}

fn arrows(source: &Path) -> Arrows {
    let files = rust_files(source);
    let tests: BTreeSet<PathBuf> = files.iter().flat_map(|file| test_modules(file)).collect();
    let mut arrows = Arrows::new();
    for file in files
        .iter()
        .filter(|file| !file.ancestors().any(|place| tests.contains(place)))
    {
        let name = file.strip_prefix(source).unwrap().to_string_lossy().into_owned();
        let module = name
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs")
            .to_owned();
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let uses = arrows.entry(module.clone()).or_default();
        for used in used(&std::fs::read_to_string(file).unwrap()) {
            if used != module {
                uses.entry(used).or_default().insert(name.clone());
            }
        }
    }
    arrows
}

/// Files and folders of the modules that a file declares for tests only.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(file).unwrap();
    let stem = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let here = file.parent().unwrap();
    let folder = match stem.as_str() {
        "mod" | "lib" | "main" => here.to_owned(),
        stem => here.join(stem),
    };
    let mut found = Vec::new();
    for rest in text.split("#[cfg(test)]").skip(1) {
        let mut path = None;
        for line in rest.trim_start().lines() {
            if let Some(given) = line.strip_prefix("#[path = \"") {
                path = Some(here.join(given.trim_end_matches("\"]")));
            } else if let Some((_, name)) = line.split_once("mod ").filter(|_| line.ends_with(';')) {
                let name = name.trim_end_matches(';');
                found.push(path.unwrap_or_else(|| folder.join(format!("{name}.rs"))));
                found.push(folder.join(name));
                break;
            } else {
                break;
            }
        }
    }
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Top-level modules that the product's part of a file names behind `crate::`.
fn used(text: &str) -> BTreeSet<String> {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = product
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_names(list)),
            None => found.extend(word(rest)),
        }
    }
    found
}

/// First name of each item of a list of paths, up to its closing bracket.
fn first_names(list: &str) -> BTreeSet<String> {
    let (mut depth, mut start, mut names) = (0, 0, BTreeSet::new());
    for (at, sign) in list.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(word(list[start..at].trim_start()));
                start = at + 1;
                if sign == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let word: String = text
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    // Macros and types at the root of the crate are no modules.
    word.starts_with(|c: char| c.is_ascii_lowercase()).then_some(word)
}

/// Modules that reach each other.
fn cycles(arrows: &Arrows) -> Vec<Vec<String>> {
    let reach = |from: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(module) = next.pop() {
            for to in arrows.get(&module).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        arrows.keys().map(|from| (from, reach(from))).collect();
    let mut found = BTreeSet::new();
    for (from, to) in &reached {
        let mates = to
            .iter()
            .filter(|to| reached.get(to).is_some_and(|back| back.contains(*from)));
        let cycle: Vec<String> = mates.cloned().collect();
        if cycle.len() > 1 {
            found.insert(cycle);
        }
    }
    found.into_iter().collect()
}

#[test]
fn a_cycle_and_every_form_of_a_path_are_found() {
    let text = "use crate::{a::{x, y}, b};\nuse crate::c::Z; // crate::d\nfn f() { crate::e::g() }\n#[cfg(test)]\nmod tests {\nuse crate::h;";
    let names: Vec<String> = used(text).into_iter().collect();
    assert_eq!(names, ["a", "b", "c", "e"]);
    let arrow = |to: &str| BTreeMap::from([(to.to_owned(), BTreeSet::new())]);
    let ring = Arrows::from([
        ("a".into(), arrow("b")),
        ("b".into(), arrow("c")),
        ("c".into(), arrow("a")),
        ("d".into(), arrow("a")),
    ]);
    assert_eq!(cycles(&ring), [["a", "b", "c"]]);
}
