//! Files of stores: looked at, made, renamed and set aside.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::super::sqlite::options;
use super::{Copied, CopyError};
use crate::Millis;

/// Whether a file is a whole store, and of when. `of` is its name in errors.
pub(super) async fn look(file: &Path, of: &Path) -> Result<Copied, CopyError> {
    let foreign = |_| CopyError::Foreign(of.to_owned());
    let mut connection = connect(file).await.map_err(foreign)?;
    let row = sqlx::query("PRAGMA integrity_check(1)")
        .fetch_one(&mut connection)
        .await
        .map_err(foreign)?;
    let verdict: String = row.try_get(0).map_err(foreign)?;
    if verdict != "ok" {
        return Err(CopyError::Damaged(of.to_owned(), verdict));
    }
    let row = sqlx::query("SELECT * FROM hub WHERE id = 1")
        .fetch_one(&mut connection)
        .await
        .map_err(foreign)?;
    let epoch: i64 = row.try_get("epoch").map_err(foreign)?;
    // A plain copy of a store has an age only, and one of an early version not even that.
    let time = |column| row.try_get(column).unwrap_or(0);
    let made: Millis = [time("copied"), time("alive")]
        .into_iter()
        .max()
        .unwrap_or_default();
    connection.close().await.map_err(foreign)?;
    Ok(Copied {
        made,
        epoch: u64::try_from(epoch).unwrap_or_default(),
        bytes: 0,
    })
}

pub(super) async fn connect(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(file).connect().await
}

pub(super) fn create(file: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
}

/// Renames a file once all of it is on disk.
pub(super) fn place(partial: &Path, file: &Path) -> Result<(), CopyError> {
    let placed = || -> io::Result<()> {
        File::open(partial)?.sync_all()?;
        std::fs::rename(partial, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    placed().map_err(|error| CopyError::File(file.to_owned(), error))
}

/// Renames a store with what SQLite has beside it: a journal of another file must never meet the new one.
pub(super) fn set_aside(store: &Path) -> Result<(), CopyError> {
    // Without a store, what is aside is the only one: of a replacement that was killed before it had put another in its place.
    let is_there = store.exists();
    let aside = with_suffix(store, ".replaced");
    for (from, to) in parts(store).into_iter().zip(parts(&aside)) {
        let moved = if from.exists() {
            std::fs::rename(&from, &to)
        } else if !is_there {
            Ok(())
        } else {
            // Of an earlier replacement.
            std::fs::remove_file(&to).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
        };
        moved.map_err(|error| CopyError::File(from, error))?;
    }
    Ok(())
}

/// The way back from [`set_aside`].
pub(super) fn put_back(store: &Path) {
    let aside = with_suffix(store, ".replaced");
    for (from, to) in parts(&aside).into_iter().zip(parts(store)) {
        if from.exists() && !to.exists() {
            let _ = std::fs::rename(&from, &to);
        }
    }
}

/// The files of a store.
pub(super) fn parts(store: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| with_suffix(store, suffix))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
