//! A backup that comes from standard input, for a pod into which no file can be copied.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::CopyError;
use super::files::{create, with_suffix};

/// A file beside a store, mode 0600. Dropped, it is removed.
pub struct Received(PathBuf);

impl Received {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Reads a backup to its end. `sha256`: the digest that it must have, 32 bytes, where its sender has given it.
///
/// # Errors
/// When it cannot be written beside the store, or is not what was sent.
pub fn receive(mut from: impl Read, store: &Path, sha256: Option<&[u8]>) -> Result<Received, CopyError> {
    let path = with_suffix(store, ".received");
    let io = |error| CopyError::File(path.clone(), error);
    if let Some(folder) = store.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    // Of an attempt that was killed.
    let _ = std::fs::remove_file(&path);
    let file = create(&path).map_err(io)?;
    let received = Received(path.clone());
    let (bytes, digest) = copy(&mut from, &file).map_err(io)?;
    if sha256.is_some_and(|sent| sent != digest) {
        return Err(CopyError::Torn(bytes));
    }
    Ok(received)
}

/// Bytes and SHA-256 of what was copied.
fn copy(from: &mut impl Read, mut to: &File) -> io::Result<(u64, Vec<u8>)> {
    let (mut bytes, mut digest, mut buffer) = (0, Sha256::new(), vec![0; 256 << 10]);
    loop {
        let read = from.read(&mut buffer)?;
        let data = buffer.get(..read).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        digest.update(data);
        bytes += data.len() as u64;
        to.write_all(data)?;
    }
    Ok((bytes, digest.finalize().to_vec()))
}
