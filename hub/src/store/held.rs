//! One process has a store: an advisory lock on a file beside it, for as long as the process lives. The epoch in every
//! write is the second barrier, for file systems whose locks cannot be trusted.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The store is this process's own while this lives.
pub struct Hold {
    _file: File,
}

fn beside(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Takes the store; `None` while another process has it.
///
/// # Errors
/// When the file beside the store cannot be made or locked.
pub fn take(store: &Path) -> anyhow::Result<Option<Hold>> {
    let path = beside(store);
    let cannot = || format!("cannot lock {}", path.display());
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Hold { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("fleet.db");
        let first = take(&store).unwrap();
        assert!(first.is_some());
        assert!(take(&store).unwrap().is_none());
        drop(first);
        assert!(take(&store).unwrap().is_some());
    }
}
