//! Makes a backup of a store on which a hub may work.

use std::io;
use std::path::Path;

use sqlx::Connection as _;
use tracing::warn;

use super::files::{connect, create, look, place, with_suffix};
use super::keys::authority;
use super::{Copied, CopyError};
use crate::Millis;

/// Two backups may be on their way at once.
pub(super) const NOTE: &str = "UPDATE hub SET backed_up = max(backed_up, ?) WHERE id = 1";

/// Copies a store, with the folder of the hub's own authority, to a file that must not exist yet. A hub may work on the store
/// meanwhile: what it writes after this has begun is not in the copy. The file appears when it is complete. The store knows of
/// its backup once that is noted, see [`note`].
///
/// # Errors
/// When the store cannot be read, or the file cannot be written.
pub async fn backup(
    store: &Path,
    folder: Option<&Path>,
    file: &Path,
    now: Millis,
) -> Result<Copied, CopyError> {
    if !store.exists() {
        return Err(CopyError::NoStore(store.to_owned()));
    }
    if file.exists() {
        return Err(CopyError::Exists(file.to_owned()));
    }
    write(store, folder, file, now).await
}

/// Copies a store to a file, which is replaced once the copy is complete.
pub(super) async fn write(
    store: &Path,
    folder: Option<&Path>,
    file: &Path,
    now: Millis,
) -> Result<Copied, CopyError> {
    let partial = with_suffix(file, ".partial");
    let _ = std::fs::remove_file(&partial);
    // SQLite writes into an empty file, and so it is nobody else's to read from its first byte on.
    create(&partial).map_err(|error| CopyError::File(partial.clone(), error))?;
    let written = fill(store, folder, &partial, now).await;
    let placed = match written {
        Ok(copied) => place(&partial, file).map(|()| copied),
        Err(error) => Err(error),
    };
    if placed.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    placed
}

/// Notes in a store when a backup of it was made that somebody has. The backup is there all the same if that fails.
pub async fn note(store: &Path, made: Millis) {
    let noted = async {
        let mut connection = connect(store).await?;
        sqlx::query(NOTE).bind(made).execute(&mut connection).await?;
        connection.close().await
    };
    if let Err(error) = noted.await {
        warn!(%error, "the store does not know of its backup");
    }
}

async fn fill(store: &Path, folder: Option<&Path>, partial: &Path, now: Millis) -> Result<Copied, CopyError> {
    let sql = |error| CopyError::Sql(store.to_owned(), error);
    // A connection of its own: a reader of WAL keeps no writer waiting.
    let mut connection = connect(store).await.map_err(sql)?;
    let name = partial
        .to_str()
        .ok_or_else(|| CopyError::File(partial.to_owned(), io::ErrorKind::InvalidFilename.into()))?;
    sqlx::query("VACUUM INTO ?")
        .bind(name)
        .execute(&mut connection)
        .await
        .map_err(sql)?;
    connection.close().await.map_err(sql)?;
    let files = folder.map(authority).transpose()?.unwrap_or_default();
    // Without an age: a hub that begins on a backup, put back by whatever means, waits for the holders that it forgot.
    let mut connection = connect(partial).await.map_err(sql)?;
    sqlx::query("UPDATE hub SET alive = 0, copied = ? WHERE id = 1")
        .bind(now)
        .execute(&mut connection)
        .await
        .map_err(sql)?;
    for (name, content) in files {
        sqlx::query("INSERT INTO copied_file (name, content) VALUES (?, ?)")
            .bind(name)
            .bind(content)
            .execute(&mut connection)
            .await
            .map_err(sql)?;
    }
    connection.close().await.map_err(sql)?;
    let copied = look(partial, store).await?;
    let bytes = std::fs::metadata(partial).map_err(|error| CopyError::File(partial.to_owned(), error))?;
    Ok(Copied {
        bytes: bytes.len(),
        ..copied
    })
}
