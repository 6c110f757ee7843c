//! What is published beside binaries and images: what they are made of (CycloneDX), how they were built (SLSA), the kinds as
//! JSON schemas, and the manifest of krew. Called by deploy/images/build.sh and deploy/release.sh.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to a person"
)]

mod krew;
mod provenance;
mod sbom;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::Value;

#[derive(Parser)]
#[command(name = "release", about = "What is published beside binaries and images")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// SBOM of each image and architecture, and provenance of each image, into the folder of the images.
    About { out: PathBuf, tag: String },
    /// One JSON schema for each kind, for editors and kubeconform.
    Schemas { out: PathBuf },
    /// The manifest of krew: archives are `fleet-OS-ARCH.tar.gz` in the folder.
    Krew {
        dir: PathBuf,
        tag: String,
        /// Where the archives will be found.
        #[arg(long)]
        url: String,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::About { out, tag } => about(&out, &tag),
        Command::Schemas { out } => schemas(&out),
        Command::Krew { dir, tag, url } => krew::write(&dir, &tag, &url),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("release: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn about(out: &Path, tag: &str) -> anyhow::Result<()> {
    let architectures = std::env::var("ARCHS").context("ARCHS says which architectures were built")?;
    for image in ["spoke", "hub"] {
        for arch in architectures.split_whitespace() {
            let bom = sbom::of_image(out, image, arch, tag)?;
            write(&out.join(format!("{image}-{arch}.cdx.json")), &bom)?;
        }
        let digest = read(&out.join(format!("{image}.digest")))?;
        let statement = provenance::of_image(image, tag, digest.trim(), &architectures)?;
        write(&out.join(format!("{image}.provenance.json")), &statement)?;
    }
    Ok(())
}

fn schemas(out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out)?;
    for (_, definition) in crds::schema::definitions() {
        let kind = definition["spec"]["names"]["kind"]
            .as_str()
            .unwrap_or_default()
            .to_lowercase();
        for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
            let name = version["name"].as_str().unwrap_or_default();
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            closed(&mut schema);
            write(&out.join(format!("{kind}_{name}.json")), &schema)?;
        }
    }
    Ok(())
}

/// Says of each object with named fields that it has no others, as the API server does by leaving them out.
fn closed(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        let open = fields.contains_key("additionalProperties")
            || fields.contains_key("x-kubernetes-preserve-unknown-fields");
        let named = fields.contains_key("properties");
        if named && !open {
            fields.insert("additionalProperties".to_owned(), false.into());
        }
        // metadata is the API server's.
        for (name, value) in fields.iter_mut() {
            if name == "properties" {
                let parts = value.as_object_mut().into_iter().flatten();
                parts.for_each(|(_, part)| closed(part));
            } else if name == "items" || name == "additionalProperties" {
                closed(value);
            }
        }
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, value: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// What a program prints.
fn printed(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_refuses_fields_that_a_kind_does_not_have() {
        let dir = tempfile::tempdir().unwrap();
        schemas(dir.path()).unwrap();
        let text = read(&dir.path().join("resticbackup_v1alpha1.json")).unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        let spec = &schema["properties"]["spec"];
        assert_eq!(spec["additionalProperties"], Value::Bool(false));
        assert!(spec["properties"]["schedule"].is_object());
        assert_eq!(schema["properties"]["metadata"].get("additionalProperties"), None);
    }
}
