//! The file: a tar, compressed, that only its owner may read.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::arriving::Arriving;
use crate::failure::Failure;

/// What is written.
pub struct Archive {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    /// Seconds since the epoch.
    made: u64,
    names: Vec<String>,
}

impl Archive {
    #[must_use]
    pub fn new(made: u64) -> Archive {
        Archive {
            tar: tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default())),
            made,
            names: Vec::new(),
        }
    }

    /// Adds a file. Names come from clusters: nothing in them leads out of the folder.
    ///
    /// # Errors
    /// When it cannot be added.
    pub fn add(&mut self, name: &str, content: &str) -> Result<(), Failure> {
        let name = format!("fleet-bundle/{}", harmless(name));
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.made);
        let added = self.tar.append_data(&mut header, &name, content.as_bytes());
        added.map_err(|error| Failure::Usage(format!("{name} cannot be added: {error}")))?;
        self.names.push(name);
        Ok(())
    }

    /// Adds a document.
    ///
    /// # Errors
    /// When it cannot be added.
    pub fn add_json(&mut self, name: &str, value: &Value) -> Result<(), Failure> {
        self.add(name, &format!("{value:#}\n"))
    }

    /// How many files it holds.
    #[must_use]
    pub fn files(&self) -> usize {
        self.names.len()
    }

    /// Writes it to a new file.
    ///
    /// # Errors
    /// When there is one of that name, or it cannot be written.
    pub fn write(self, file: &Path) -> Result<usize, Failure> {
        let failed = |error: std::io::Error| Failure::Output {
            path: file.display().to_string(),
            error,
        };
        let mut compressed = self.tar.into_inner().map_err(failed)?;
        compressed.flush().map_err(failed)?;
        let bytes = compressed.finish().map_err(failed)?;
        let mut arriving = Arriving::begin(file)?;
        arriving.write(&bytes)?;
        arriving.finish()?;
        Ok(bytes.len())
    }
}

/// Letters, digits and a few signs; no part is `..`.
fn harmless(name: &str) -> String {
    let parts = name.split('/').filter(|part| !part.is_empty() && *part != "..");
    let safe = |part: &str| -> String {
        let kept = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '_'
            }
        };
        part.chars().map(kept).collect()
    };
    parts.map(safe).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_added_is_in_it_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("support.tar.gz");
        let long = format!("objects/{}/{}.json", "n".repeat(63), "x".repeat(200));
        let mut archive = Archive::new(1);
        archive.add("../../etc/pass wd", "no").unwrap();
        archive.add(&long, "long").unwrap();
        assert_eq!(archive.files(), 2);
        archive.write(&file).unwrap();
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let bytes = std::fs::read(&file).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let files: Vec<(String, String)> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (name, text)
            })
            .collect();
        assert_eq!(files[0], ("fleet-bundle/etc/pass_wd".to_owned(), "no".to_owned()));
        assert_eq!(files[1], (format!("fleet-bundle/{long}"), "long".to_owned()));
        assert!(Archive::new(1).write(&file).is_err());
    }
}
