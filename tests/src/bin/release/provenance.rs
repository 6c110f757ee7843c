//! How an image was built, as an in-toto statement with SLSA's provenance. Nobody signs it here: docs/release.md has how.

use std::path::Path;

use ::tests::images::digest;
use serde_json::{Value, json};

use super::{printed, sbom};

/// Where the sources are published.
const SOURCES: &str = "https://github.com/restic-fleet/restic-fleet";

/// Of an image by its digest.
pub fn of_image(image: &str, tag: &str, of: &str, architectures: &str) -> anyhow::Result<Value> {
    let sha256 = of.trim_start_matches("sha256:");
    let commit = printed("git", &["rev-parse", "HEAD"])?;
    let changed = !printed("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let file = |path: &str| -> anyhow::Result<Value> {
        let bytes = std::fs::read(Path::new(path))?;
        Ok(json!({ "uri": format!("{SOURCES}/blob/main/{path}"), "digest": { "sha256": digest(&bytes) } }))
    };
    let architectures: Vec<&str> = architectures.split_whitespace().collect();
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": image, "digest": { "sha256": sha256 } }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": format!("{SOURCES}/blob/main/deploy/images/build.sh"),
                "externalParameters": { "tag": tag, "architectures": architectures },
                // Built from something else than the commit: nobody can build it again.
                "internalParameters": { "changedAfterCommit": changed },
                "resolvedDependencies": [
                    { "uri": format!("git+{SOURCES}"), "digest": { "gitCommit": commit.trim() } },
                    file("Cargo.lock")?,
                    file("tests/tools/restic/go.sum")?,
                    file("rust-toolchain.toml")?,
                ],
            },
            "runDetails": {
                "builder": { "id": format!("{SOURCES}/blob/main/Makefile#images"),
                             "version": { "rustc": printed("rustc", &["--version"])?.trim(), "go": printed("go", &["version"])?.trim() } },
                "metadata": { "startedOn": sbom::timestamp()? },
            },
        },
    }))
}
