//! What `make release` has written, read as somebody who installs it: checksums, archives, images, charts, manifests, and what
//! is said about all of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::images::digest;
use tests::tools::Workspace;

/// MiB that a node may have to pull, as docs/release.md promises.
const LIMITS: [(&str, u64); 2] = [("spoke", 60), ("hub", 25)];

fn folder() -> PathBuf {
    let folder = Workspace::here().root.join("target/release-files");
    assert!(folder.is_dir(), "`make release` writes {}", folder.display());
    folder
}

fn names() -> BTreeSet<String> {
    let files = fs::read_dir(folder()).unwrap().flatten();
    files
        .map(|file| file.file_name().into_string().unwrap())
        .collect()
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|document| !document.is_null()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What a program prints.
fn printed(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {arguments:?}: {said}",
        program.display()
    );
    String::from_utf8(output.stdout).unwrap()
}

fn unpacked(archive: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let from = folder().join(archive);
    printed(
        Path::new("tar"),
        &[
            "-xzf",
            &from.to_string_lossy(),
            "-C",
            &to.path().to_string_lossy(),
        ],
    );
    to
}

/// Architectures of this release, by the archives of the command line.
fn architectures() -> Vec<String> {
    let arch = |name: &String| {
        Some(
            name.strip_prefix("fleet-linux-")?
                .strip_suffix(".tar.gz")?
                .to_owned(),
        )
    };
    let all: Vec<String> = names().iter().filter_map(arch).collect();
    assert!(!all.is_empty(), "a release has at least one architecture");
    all
}

/// The version that everything of this release has.
fn tag() -> String {
    let krew = documents(&text("fleet.yaml"));
    krew[0]["spec"]["version"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs a release: make release"]
fn every_file_has_its_checksum_and_no_other_has() {
    let sums = text("checksums.txt");
    let mut named = BTreeSet::from(["checksums.txt".to_owned()]);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(digest(&fs::read(folder().join(name)).unwrap()), sum, "{name}");
        named.insert(name.to_owned());
    }
    assert_eq!(named, names());
}

#[test]
#[ignore = "needs a release: make release"]
fn binaries_are_of_their_architecture_and_say_nothing_of_where_they_were_built() {
    let home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    let places = [Workspace::here().root.to_string_lossy().into_owned(), home];
    for arch in architectures() {
        // e_machine of an ELF file.
        let machine = match arch.as_str() {
            "amd64" => 62,
            "arm64" => 183,
            other => panic!("{other}"),
        };
        for (name, files) in [
            ("fleet", &["fleet", "kubectl-fleet"][..]),
            ("fleet-hub", &["fleet-hub"]),
            ("fleet-spoke", &["fleet-spoke"]),
        ] {
            let archive = unpacked(&format!("{name}-linux-{arch}.tar.gz"));
            assert!(archive.path().join("LICENSE").exists());
            for file in files {
                let path = archive.path().join(file);
                let bytes = fs::read(&path).unwrap();
                assert_eq!(&bytes[..4], b"\x7fELF", "{file}");
                assert_eq!(u16::from_le_bytes([bytes[18], bytes[19]]), machine, "{file}");
                let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
                for place in &places {
                    assert!(!has(place), "{file} for {arch} has {place} in it");
                }
                // What is built for tests has another allocator, and gives no memory back.
                let serves = name != "fleet";
                assert_eq!(has("<jemalloc>"), serves, "the allocator of {file} for {arch}");
                let native = if cfg!(target_arch = "x86_64") {
                    "amd64"
                } else {
                    "arm64"
                };
                if arch == native {
                    let version = printed(&path, &["--version"]);
                    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{file}: {version}");
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a release: make release"]
fn krew_finds_each_archive_and_what_is_in_it() {
    let manifest = &documents(&text("fleet.yaml"))[0];
    let platforms = list(&manifest["spec"]["platforms"]);
    assert_eq!(platforms.len(), architectures().len());
    for platform in platforms {
        let name = platform["uri"].as_str().unwrap().rsplit('/').next().unwrap();
        assert_eq!(
            platform["sha256"],
            digest(&fs::read(folder().join(name)).unwrap()),
            "{name}"
        );
        let archive = unpacked(name);
        for file in list(&platform["files"]) {
            assert!(
                archive.path().join(file["from"].as_str().unwrap()).exists(),
                "{name}: {file}"
            );
        }
        assert!(archive.path().join(platform["bin"].as_str().unwrap()).exists());
    }
}

#[test]
#[ignore = "needs a release: make release"]
fn each_kind_has_a_schema_with_its_fields_and_no_others() {
    let schemas = unpacked("crd-schemas.tar.gz");
    let made = fs::read_dir(schemas.path()).unwrap().count();
    let mut served = 0;
    for (_, definition) in crds::schema::definitions() {
        let kind = definition["spec"]["names"]["kind"]
            .as_str()
            .unwrap()
            .to_lowercase();
        for version in list(&definition["spec"]["versions"]) {
            let name = format!("{kind}_{}.json", version["name"].as_str().unwrap());
            let schema = json(&schemas.path().join(&name));
            assert_eq!(schema["additionalProperties"], false, "{name}");
            let spec = &schema["properties"]["spec"];
            assert_eq!(spec["additionalProperties"], false, "{name}");
            let fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].as_object();
            let names =
                |fields: &serde_json::Map<String, Value>| fields.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(
                spec["properties"].as_object().map(names),
                fields.map(names),
                "{name}"
            );
            served += 1;
        }
    }
    assert_eq!(made, served);
}

/// A blob of an OCI folder, compared with its digest.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let named = descriptor["digest"].as_str().unwrap();
    let bytes = fs::read(layout.join("blobs").join(named.replace(':', "/"))).unwrap();
    assert_eq!(format!("sha256:{}", digest(&bytes)), named);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

#[test]
#[ignore = "needs a release: make release"]
fn images_are_whole_small_and_run_as_nobody() {
    let digests = text("digests");
    for (image, limit) in LIMITS {
        let layout = unpacked(&format!("image-{image}.tar.gz"));
        let index = json(&layout.path().join("index.json"));
        let [list_of_all] = list(&index["manifests"]) else {
            panic!("{index}")
        };
        let of = list_of_all["digest"].as_str().unwrap();
        assert!(
            digests.lines().any(|line| line == format!("{image} {of}")),
            "{digests}"
        );
        let all: Value = serde_json::from_slice(&blob(layout.path(), list_of_all)).unwrap();
        let mut seen = Vec::new();
        for descriptor in list(&all["manifests"]) {
            let manifest: Value = serde_json::from_slice(&blob(layout.path(), descriptor)).unwrap();
            let config: Value = serde_json::from_slice(&blob(layout.path(), &manifest["config"])).unwrap();
            let arch = descriptor["platform"]["architecture"].as_str().unwrap();
            assert_eq!(config["architecture"], arch);
            assert_eq!(config["config"]["User"], "65532:65532");
            assert_eq!(
                config["config"]["Entrypoint"],
                serde_json::json!([format!("/usr/bin/fleet-{image}")])
            );
            let layers = list(&manifest["layers"])
                .iter()
                .map(|layer| blob(layout.path(), layer).len() as u64);
            let pulled = layers.sum::<u64>();
            eprintln!(
                "{image} for {arch}: {:.1} MiB to pull",
                pulled as f64 / 1_048_576.0
            );
            assert!(pulled < limit << 20, "{image} for {arch}: {pulled} B");
            seen.push(arch.to_owned());
        }
        seen.sort();
        assert_eq!(seen, architectures(), "{image}");
        about(image, of);
    }
}

/// What is said of an image: what it is made of, and how.
fn about(image: &str, of: &str) {
    let statement = json(&folder().join(format!("{image}.provenance.json")));
    let subject = &statement["subject"][0]["digest"]["sha256"];
    assert_eq!(subject.as_str(), of.strip_prefix("sha256:"), "{image}");
    let commit = &statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"]["gitCommit"];
    assert_eq!(commit.as_str().unwrap().len(), 40);
    for arch in architectures() {
        let bom = json(&folder().join(format!("{image}-{arch}.cdx.json")));
        assert_eq!(bom["bomFormat"], "CycloneDX");
        let has = |name: &str| {
            list(&bom["components"])
                .iter()
                .any(|component| component["name"] == name)
        };
        let (own, other) = if image == "spoke" {
            ("kube", "libsqlite3-sys")
        } else {
            ("libsqlite3-sys", "stateright")
        };
        assert!(has(own) && has("rustls") && !has(other), "{image} for {arch}");
        let of_others = ["restic", "stdlib", "openssh-client"];
        assert!(
            of_others.iter().all(|name| has(name) == (image == "spoke")),
            "{image} for {arch}"
        );
    }
}

#[test]
#[ignore = "needs a release: make release"]
fn charts_and_manifests_name_the_images_of_this_release() {
    let tag = tag();
    let version = tag.trim_start_matches('v');
    let helm = Workspace::here().program("helm");
    for part in ["spoke", "hub"] {
        let chart = folder().join(format!("fleet-{part}-{version}.tgz"));
        let chart = chart.to_string_lossy();
        let about = &documents(&printed(&helm, &["show", "chart", &chart]))[0];
        assert_eq!(
            (&about["version"], &about["appVersion"]),
            (&version.into(), &version.into()),
            "{about}"
        );
        let rendered = printed(
            &helm,
            &["template", "x", &chart, "--namespace", "restic-fleet-system"],
        );
        let shipped = text(&format!("{part}.yaml"));
        let images = |text: &str| -> BTreeSet<String> {
            let of = |document: &Value| {
                document["spec"]["template"]["spec"]["containers"][0]["image"]
                    .as_str()
                    .map(str::to_owned)
            };
            documents(text)
                .iter()
                .filter(|document| document["kind"] == "Deployment")
                .filter_map(of)
                .collect()
        };
        let wanted = images(&rendered);
        assert_eq!(wanted.len(), 1, "{part}");
        assert!(
            wanted
                .iter()
                .all(|image| image.ends_with(&format!("/{part}:{tag}"))),
            "{wanted:?}"
        );
        assert_eq!(images(&shipped), wanted, "{part}.yaml beside the chart");
        assert!(!shipped.contains(":dev"), "{part}.yaml");
        let kinds = |text: &str| {
            documents(text)
                .iter()
                .filter(|d| d["kind"] == "CustomResourceDefinition")
                .count()
        };
        assert_eq!(kinds(&shipped), kinds(&rendered), "{part}");
    }
}

/// The recipe signs what there is: it names no file that a release does not have.
#[test]
#[ignore = "needs a release: make release"]
fn the_recipe_of_signing_names_files_of_the_release() {
    let page = fs::read_to_string(Workspace::here().root.join("docs/release.md")).unwrap();
    let (_, recipe) = page.split_once("\n## Signing\n").unwrap();
    let files = names();
    let words = recipe
        .split(|c: char| c.is_whitespace() || c == '`')
        .map(|word| word.trim_end_matches(['.', ':', ',']));
    let named: BTreeSet<&str> = words
        .filter(|word| word.ends_with(".json") || word.ends_with(".txt"))
        .collect();
    assert!(named.len() >= 3, "{named:?}");
    for name in named {
        assert!(files.contains(name), "{name} is not in the release");
    }
}

/// Commands of minisign in the recipe, with a key of this test. Those of cosign sign in a registry, with a key of a person.
#[test]
#[ignore = "needs a release: make release"]
fn checksums_are_signed_by_the_recipe_and_a_changed_one_is_found() {
    let page = fs::read_to_string(Workspace::here().root.join("docs/release.md")).unwrap();
    let commands: Vec<&str> = page
        .split('`')
        .filter(|word| word.starts_with("minisign -"))
        .collect();
    let [sign, verify] = commands[..] else {
        panic!("{commands:?}")
    };
    let home = tempfile::tempdir().unwrap();
    let sums = home.path().join("checksums.txt");
    fs::copy(folder().join("checksums.txt"), &sums).unwrap();
    let run = |command: &str| {
        let mut shell = Command::new("bash");
        shell
            .args(["-euc", command])
            .current_dir(&home)
            .env("HOME", home.path());
        let output = shell.stdin(std::process::Stdio::null()).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (made, said) = run("minisign -GW");
    assert!(made, "apt-get install minisign: {said}");
    let public = fs::read_to_string(home.path().join("minisign.pub")).unwrap();
    let verify = verify.replace("PUBLIC_KEY", public.lines().nth(1).unwrap());
    assert_eq!(run(sign), (true, String::new()));
    assert_eq!(run(&verify), (true, String::new()));
    fs::write(&sums, text("checksums.txt").replacen('a', "b", 1)).unwrap();
    assert!(!run(&verify).0);
}
