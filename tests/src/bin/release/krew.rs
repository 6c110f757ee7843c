//! The manifest by which krew installs `kubectl fleet`.

use std::fs;
use std::path::Path;

use ::tests::images::digest;
use anyhow::Context as _;
use serde_json::{Value, json};

/// Writes `fleet.yaml` beside the archives.
pub fn write(dir: &Path, tag: &str, url: &str) -> anyhow::Result<()> {
    let mut platforms = Vec::new();
    for arch in ["amd64", "arm64"] {
        let name = format!("fleet-linux-{arch}.tar.gz");
        let path = dir.join(&name);
        if path.exists() {
            let sha256 = digest(&fs::read(&path)?);
            platforms.push(platform(arch, &format!("{url}/{tag}/{name}"), &sha256));
        }
    }
    anyhow::ensure!(!platforms.is_empty(), "{} has no archive", dir.display());
    let text = serde_saphyr::to_string(&manifest(tag, &platforms))?;
    let path = dir.join("fleet.yaml");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn platform(arch: &str, uri: &str, sha256: &str) -> Value {
    json!({ "selector": { "matchLabels": { "os": "linux", "arch": arch } }, "uri": uri, "sha256": sha256, "bin": "kubectl-fleet",
            "files": [{ "from": "kubectl-fleet", "to": "." }, { "from": "LICENSE", "to": "." }] })
}

fn manifest(tag: &str, platforms: &[Value]) -> Value {
    json!({
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2", "kind": "Plugin", "metadata": { "name": "fleet" },
        "spec": {
            "version": tag, "homepage": "https://github.com/restic-fleet/restic-fleet",
            "shortDescription": "Backups of all clusters, and how you know",
            "description": "Shows clusters, repositories, backups and restores of a fleet of restic-fleet, approves retention plans, and brings files back.\n",
            "platforms": platforms,
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_has_the_digest_of_its_archive() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("fleet-linux-amd64.tar.gz"), "archive").unwrap();
        write(dir.path(), "v1.2.3", "https://example.org/download").unwrap();
        let text = fs::read_to_string(dir.path().join("fleet.yaml")).unwrap();
        let made: Value = serde_saphyr::from_str(&text).unwrap();
        let platforms = made["spec"]["platforms"].as_array().unwrap();
        assert_eq!(platforms.len(), 1);
        assert_eq!(platforms[0]["sha256"], digest(b"archive"));
        assert_eq!(
            platforms[0]["uri"],
            "https://example.org/download/v1.2.3/fleet-linux-amd64.tar.gz"
        );
        assert!(write(tempfile::tempdir().unwrap().path(), "v1", "u").is_err());
    }
}
