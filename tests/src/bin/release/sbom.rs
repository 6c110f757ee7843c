//! What an image is made of, as CycloneDX: crates by Cargo's own graph, Go modules by what restic's binary carries, Debian's
//! packages by their names. The same input gives the same text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ::tests::tools::RESTIC;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::{printed, read};

/// A component and what else is known of it.
struct Component {
    name: String,
    version: String,
    purl: String,
    license: Option<String>,
    sha256: Option<String>,
}

impl Component {
    fn json(&self) -> Value {
        let mut component = json!({ "type": "library", "bom-ref": self.purl, "name": self.name, "version": self.version, "purl": self.purl });
        if let Some(license) = &self.license {
            component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
        }
        if let Some(sha256) = &self.sha256 {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
        }
        component
    }
}

/// Of an image for an architecture.
pub fn of_image(out: &Path, image: &str, arch: &str, tag: &str) -> anyhow::Result<Value> {
    let target = match arch {
        "amd64" => "x86_64-unknown-linux-gnu",
        "arm64" => "aarch64-unknown-linux-gnu",
        other => anyhow::bail!("architecture {other} is not known"),
    };
    let mut components = crates(image, target)?;
    if image == "spoke" {
        components.extend(modules(&out.join(format!("restic-{arch}")))?);
        components.extend(packages(&read(&out.join(format!("debian-{arch}.list")))?, arch));
    }
    components.sort_by(|a, b| a.purl.cmp(&b.purl));
    let components: Vec<Value> = components.iter().map(Component::json).collect();
    let name = format!("restic-fleet/{image}");
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": { "timestamp": timestamp()?, "component": { "type": "container", "name": name, "version": tag,
            "properties": [{ "name": "architecture", "value": arch }] } },
        "components": components,
    }))
}

/// When the commit was made, which is what the images say, too.
pub fn timestamp() -> anyhow::Result<String> {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").context("SOURCE_DATE_EPOCH is not set")?;
    let time = jiff::Timestamp::from_second(seconds.trim().parse()?)?;
    Ok(time.to_string())
}

/// The crates that are in the binary: what the crate needs at run time, and not what only builds or tests it.
fn crates(root: &str, target: &str) -> anyhow::Result<Vec<Component>> {
    let metadata = printed(
        "cargo",
        &[
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            target,
        ],
    )?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = packages.into_iter().map(|p| (text(&p["id"]), p)).collect();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let nodes: BTreeMap<String, Value> = nodes.into_iter().map(|n| (text(&n["id"]), n)).collect();
    let first = packages
        .iter()
        .find(|(_, p)| p["name"] == root && p["source"].is_null());
    let mut open = vec![
        first
            .with_context(|| format!("there is no crate {root}"))?
            .0
            .clone(),
    ];
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !reached.insert(id.clone()) {
            continue;
        }
        for dependency in list(&nodes.get(&id).cloned().unwrap_or_default()["deps"]) {
            let runs = list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null());
            if runs {
                open.push(text(&dependency["pkg"]));
            }
        }
    }
    let checksums = checksums(&read(Path::new("Cargo.lock"))?);
    let component = |package: &Value| {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        Component {
            purl: format!("pkg:cargo/{name}@{version}"),
            license: package["license"].as_str().map(str::to_owned),
            sha256: checksums.get(&(name.clone(), version.clone())).cloned(),
            name,
            version,
        }
    };
    Ok(reached
        .iter()
        .filter_map(|id| packages.get(id))
        .map(component)
        .collect())
}

/// Checksums of a Cargo.lock, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |block: &str, name: &str| {
        let prefix = format!("{name} = \"");
        let line = block.lines().find_map(|line| line.strip_prefix(&prefix));
        line.map(|rest| rest.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]");
    blocks
        .filter_map(|block| {
            let key = (field(block, "name")?, field(block, "version")?);
            Some((key, field(block, "checksum")?))
        })
        .collect()
}

/// The modules that a Go binary says it was built from.
fn modules(binary: &Path) -> anyhow::Result<Vec<Component>> {
    let lines = printed("go", &["version", "-m", &binary.to_string_lossy()])?;
    let mut found = of_go(&lines);
    anyhow::ensure!(!found.is_empty(), "{} names no modules", binary.display());
    found.push(Component {
        name: "restic".to_owned(),
        version: RESTIC.to_owned(),
        purl: format!("pkg:golang/github.com/restic/restic@v{RESTIC}"),
        license: Some("BSD-2-Clause".to_owned()),
        sha256: None,
    });
    found.dedup_by(|a, b| a.purl == b.purl);
    Ok(found)
}

/// Modules, and Go's own library, in which faults are found as in any other.
fn of_go(lines: &str) -> Vec<Component> {
    let module = |line: &str| {
        let mut fields = line.trim().split('\t');
        let (kind, name, version) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "dep" && name != "github.com/restic/restic").then(|| Component {
            name: name.to_owned(),
            version: version.to_owned(),
            purl: format!("pkg:golang/{name}@{version}"),
            license: None,
            sha256: None,
        })
    };
    let first = lines.lines().next().and_then(|line| line.split_once(": go"));
    let library = first.map(|(_, version)| Component {
        name: "stdlib".to_owned(),
        version: version.trim().to_owned(),
        purl: format!("pkg:golang/stdlib@{}", version.trim()),
        license: Some("BSD-3-Clause".to_owned()),
        sha256: None,
    });
    lines.lines().filter_map(module).chain(library).collect()
}

/// Debian's packages, a line each: name and version.
fn packages(list: &str, arch: &str) -> Vec<Component> {
    let package = |line: &str| {
        let (name, version) = line.split_once(' ')?;
        Some(Component {
            name: name.to_owned(),
            version: version.to_owned(),
            purl: format!(
                "pkg:deb/debian/{name}@{}?arch={arch}",
                version.replace('+', "%2B")
            ),
            license: None,
            sha256: None,
        })
    };
    list.lines().filter_map(package).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_is_made_of_what_it_links_and_not_of_what_tests_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::env::set_current_dir(root).unwrap();
        let made = crates("hub", "x86_64-unknown-linux-gnu").unwrap();
        let find = |name: &str| made.iter().find(|component| component.name == name);
        let tonic = find("tonic").unwrap();
        assert!(tonic.sha256.as_ref().unwrap().len() == 64 && tonic.license.is_some());
        assert!(find("proto").is_some() && find("spoke").is_none());
        assert!(find("proptest").is_none(), "it is of the tests");
    }

    #[test]
    fn modules_and_packages_are_read_line_by_line() {
        let lines = "restic-amd64: go1.26\n\tpath\tgithub.com/restic/restic/cmd/restic\n\tdep\tgithub.com/restic/restic\tv0.18.1\th1:x\n\tdep\tgolang.org/x/crypto\tv0.40.0\th1:y\n";
        let made = of_go(lines);
        let purls: Vec<&str> = made.iter().map(|component| component.purl.as_str()).collect();
        assert_eq!(
            purls,
            ["pkg:golang/golang.org/x/crypto@v0.40.0", "pkg:golang/stdlib@1.26"]
        );
        let made = packages("zlib1g 1:1.2.13+x\n", "arm64");
        assert_eq!(made[0].purl, "pkg:deb/debian/zlib1g@1:1.2.13%2Bx?arch=arm64");
    }
}
