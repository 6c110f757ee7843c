//! A file that has its name only when all of it has arrived.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A file in the making, beside the name that it will have. Dropped before [`Arriving::finish`] it leaves nothing.
pub struct Arriving {
    name: PathBuf,
    partial: PathBuf,
    file: File,
}

impl Arriving {
    /// Begins a file that nobody else may read, from its first byte on.
    ///
    /// # Errors
    /// When there is a file of this name, or the folder cannot be written to.
    pub fn begin(name: &Path) -> Result<Arriving, Failure> {
        free(name)?;
        let mut partial = name.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        // Of an attempt that was killed.
        let _ = std::fs::remove_file(&partial);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial);
        Ok(Arriving {
            file: file.map_err(|error| failed(&partial, error))?,
            name: name.to_owned(),
            partial,
        })
    }

    /// Adds what has arrived.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all(data)
            .map_err(|error| failed(&self.partial, error))
    }

    /// All of it has arrived: it is on disk, and has its name.
    ///
    /// # Errors
    /// When it cannot be written, or somebody has made a file of this name meanwhile.
    pub fn finish(self) -> Result<(), Failure> {
        self.file
            .sync_all()
            .map_err(|error| failed(&self.partial, error))?;
        // Unlike a rename a link takes no other file's place. What is left of the first name goes with `self`.
        let placed = match std::fs::hard_link(&self.partial, &self.name) {
            // A file system without links.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                free(&self.name)?;
                std::fs::rename(&self.partial, &self.name)
            }
            linked => linked,
        };
        placed.map_err(|error| failed(&self.name, error))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Refuses a name that is taken.
///
/// # Errors
/// When there is such a file.
pub fn free(name: &Path) -> Result<(), Failure> {
    if name.exists() {
        let text = format!("{} exists; choose another name", name.display());
        return Err(Failure::Usage(text));
    }
    Ok(())
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::Output {
        path: path.display().to_string(),
        error,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("orders.sql");
        let mut cut = Arriving::begin(&name).unwrap();
        cut.write(b"half").unwrap();
        assert!(!name.exists());
        drop(cut);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut whole = Arriving::begin(&name).unwrap();
        whole.write(b"whole").unwrap();
        whole.finish().unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(Arriving::begin(&name).is_err());
    }

    #[test]
    fn no_file_that_was_made_meanwhile_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("orders.sql");
        let late = Arriving::begin(&name).unwrap();
        std::fs::write(&name, b"another").unwrap();
        assert!(late.finish().is_err());
        assert_eq!(std::fs::read(&name).unwrap(), b"another");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
