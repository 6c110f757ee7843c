//! The files of the hub's own authority, which are part of a backup.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use super::CopyError;
use super::files::{create, with_suffix};

/// Files of the hub's own authority are not larger. Without its keys every cluster would have to join again.
const FILE: u64 = 1 << 20;

/// Names and contents of the files of a folder; none where there is no folder.
pub(super) fn authority(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, CopyError> {
    let failed = |error| CopyError::File(folder.to_owned(), error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string()
            && metadata.is_file()
            && metadata.len() <= FILE
        {
            files.push((name, std::fs::read(entry.path()).map_err(failed)?));
        }
    }
    files.sort();
    Ok(files)
}

/// Writes the hub's authority. One that was there and is another is kept beside, with the suffix `.replaced`, or within if the
/// folder is a mount.
pub(super) fn put_authority(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<(), CopyError> {
    let present = authority(folder)?;
    if files.is_empty() || present == files {
        return Ok(());
    }
    let put = || -> io::Result<()> {
        if !present.is_empty() {
            set_keys_aside(folder, &present)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for (name, content) in files {
            let mut file = create(&folder.join(name))?;
            file.write_all(content)?;
            file.sync_all()?;
        }
        File::open(folder)?.sync_all()
    };
    put().map_err(|error| CopyError::File(folder.to_owned(), error))
}

fn set_keys_aside(folder: &Path, present: &[(String, Vec<u8>)]) -> io::Result<()> {
    let aside = with_suffix(folder, ".replaced");
    if aside.exists() {
        std::fs::remove_dir_all(&aside)?;
    }
    if std::fs::rename(folder, &aside).is_ok() {
        return Ok(());
    }
    let within = folder.join(".replaced");
    if within.exists() {
        std::fs::remove_dir_all(&within)?;
    }
    DirBuilder::new().mode(0o700).create(&within)?;
    for (name, _) in present {
        std::fs::rename(folder.join(name), within.join(name))?;
    }
    Ok(())
}
