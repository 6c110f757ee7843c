//! Backups of a store: made while a hub works on it, and put back where none does.
//!
//! A backup is one SQLite file, as of one moment. A store that was put back has forgotten every grant since then, so it
//! begins with an epoch and with tokens above all that the lost store can have given out, and with an age that makes the
//! hub wait for holders that it does not know.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tracing::warn;

use super::decisions::put_decision;
use super::locks::signed;
use super::{Sqlite, StoreError, StoredAudit, StoredDecision, held};
use crate::Millis;
use crate::commands::State;

/// A store that was put back is so many epochs ahead of its backup: more than a hub has starts between two backups, and
/// few enough for clusters to be believed that have seen more.
const EPOCHS: i64 = 1_000;
/// A store that was put back grants tokens so far above those of its backup: more than a repository has maintenance runs
/// between two backups, and few enough for clusters to be believed that have seen more.
const TOKENS: i64 = 1 << 16;

/// Files of the hub's own authority are not larger. Without its keys every cluster would have to join again.
const FILE: u64 = 1 << 20;

/// How commands end that had not ended when the backup was made.
const FORGOTTEN: &str = "the hub was put back from a backup; it may have been carried out";

/// Why a store was not copied or put back. The text is what a person reads.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("there is no store {0}")]
    NoStore(PathBuf),
    #[error("{0} exists; choose another name")]
    Exists(PathBuf),
    #[error(
        "{0} exists; --replace puts the backup in its place and keeps it beside, with the suffix .replaced"
    )]
    StoreExists(PathBuf),
    #[error("a hub works on {0}: stop it first (kubectl scale deployment/fleet-hub --replicas=0)")]
    InUse(PathBuf),
    #[error("{0} is not the store of a hub, or a backup of one")]
    Foreign(PathBuf),
    #[error("{0} is damaged: {1}")]
    Damaged(PathBuf, String),
    #[error("{0} cannot be used by this version of fleet-hub: {1}")]
    Version(PathBuf, String),
    #[error("cannot use {0}: {1}")]
    File(PathBuf, io::Error),
    #[error("cannot copy {0}: {1}")]
    Sql(PathBuf, sqlx::Error),
    #[error("{0:#}")]
    Other(anyhow::Error),
}

/// A backup as it was made or put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// When the backup was made, milliseconds since 1970.
    pub made: Millis,
    /// Epoch of the hub at that time.
    pub epoch: u64,
    pub bytes: u64,
}

/// The store was put back from a backup, and that is not noted in the audit yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// Milliseconds since 1970.
    pub at: Millis,
    /// When the backup was made.
    pub made: Millis,
}

/// Backups of a store that a hub works on.
pub trait CopyStore: Send + Sync {
    /// Writes a backup to a file that must not exist yet, mode 0600, with the hub's authority in a folder. Writers go on
    /// meanwhile.
    fn copy(
        &self,
        file: PathBuf,
        authority: Option<PathBuf>,
        now: Millis,
    ) -> BoxFuture<'_, Result<Copied, CopyError>>;
    /// When a backup was last made, milliseconds since 1970.
    fn last_copy(&self) -> BoxFuture<'_, Result<Option<Millis>, StoreError>>;
    /// Whether this store was put back from a backup and has not been noted as such.
    fn put_back(&self) -> BoxFuture<'_, Result<Option<PutBack>, StoreError>>;
    /// Notes it, with the entry in the audit.
    fn note_put_back(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Enters a grant into the audit that was made by a store that is lost, unless the token has an entry. Returns whether
    /// there is an entry of this very operation now that has not ended.
    fn note_forgotten(&self, audit: StoredAudit) -> BoxFuture<'_, Result<bool, StoreError>>;
}

impl CopyStore for Sqlite {
    fn copy(
        &self,
        file: PathBuf,
        authority: Option<PathBuf>,
        now: Millis,
    ) -> BoxFuture<'_, Result<Copied, CopyError>> {
        async move { backup(&self.path, authority.as_deref(), &file, now).await }.boxed()
    }

    fn last_copy(&self) -> BoxFuture<'_, Result<Option<Millis>, StoreError>> {
        self.read_last_copy().boxed()
    }

    fn put_back(&self) -> BoxFuture<'_, Result<Option<PutBack>, StoreError>> {
        self.read_put_back().boxed()
    }

    fn note_put_back(&self, decision: StoredDecision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write_put_back(decision).boxed()
    }

    fn note_forgotten(&self, audit: StoredAudit) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.write_forgotten(audit).boxed()
    }
}

impl Sqlite {
    async fn read_last_copy(&self) -> Result<Option<Millis>, StoreError> {
        let row = sqlx::query("SELECT backed_up FROM hub WHERE id = 1")
            .fetch_one(&self.pool)
            .await?;
        let at: Millis = row.try_get(0)?;
        Ok((at > 0).then_some(at))
    }

    async fn read_put_back(&self) -> Result<Option<PutBack>, StoreError> {
        let row = sqlx::query("SELECT put_back, copied FROM hub WHERE id = 1")
            .fetch_one(&self.pool)
            .await?;
        let (at, made): (Millis, Millis) = (row.try_get(0)?, row.try_get(1)?);
        Ok((at > 0).then_some(PutBack { at, made }))
    }

    async fn write_put_back(&self, decision: StoredDecision) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        put_decision(&mut transaction, decision).await?;
        sqlx::query("UPDATE hub SET put_back = 0 WHERE id = 1")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn write_forgotten(&self, audit: StoredAudit) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let query = "INSERT INTO audit (restic_id, token, cluster, operation, subject, granted, policies, covered) \
             VALUES (?, ?, ?, ?, ?, ?, '[]', '[]') ON CONFLICT DO NOTHING";
        let token = signed(audit.token);
        let query = sqlx::query(query).bind(&audit.restic_id).bind(token);
        let query = query.bind(&audit.cluster).bind(&audit.operation);
        let query = query.bind(audit.subject).bind(audit.granted);
        query.execute(&mut *transaction).await?;
        let query = "SELECT 1 FROM audit WHERE restic_id = ? AND token = ? AND cluster = ? AND operation = ? AND ended IS NULL";
        let query = sqlx::query(query).bind(audit.restic_id).bind(token);
        let query = query.bind(audit.cluster).bind(audit.operation);
        let open = query.fetch_optional(&mut *transaction).await?.is_some();
        transaction.commit().await?;
        Ok(open)
    }
}

/// Copies a store, with the folder of the hub's own authority, to a file that must not exist yet. A hub may work on the store meanwhile: what it writes after this has
/// begun is not in the copy. The file appears when it is complete.
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
    let partial = with_suffix(file, ".partial");
    let _ = std::fs::remove_file(&partial);
    // SQLite writes into an empty file, and so it is nobody else's to read from its first byte on.
    create(&partial).map_err(|error| CopyError::File(partial.clone(), error))?;
    let written = fill(store, folder, &partial, now).await;
    let placed = match written {
        Ok(copied) => place(&partial, file).map(|()| copied),
        Err(error) => Err(error),
    };
    match &placed {
        Ok(copied) => note(store, copied.made).await,
        Err(_) => {
            let _ = std::fs::remove_file(&partial);
        }
    }
    placed
}

/// Notes in the store when a backup was last made. The backup is there all the same if that fails.
async fn note(store: &Path, made: Millis) {
    let noted = async {
        let mut connection = connect(store).await?;
        sqlx::query("UPDATE hub SET backed_up = ? WHERE id = 1")
            .bind(made)
            .execute(&mut connection)
            .await?;
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

/// Names and contents of the files of a folder; none where there is no folder.
fn authority(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, CopyError> {
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

/// Puts a backup in the place of a store on which no hub works. What was there is kept beside, with the suffix
/// `.replaced`, and only if `replace` is set. The hub's authority goes into its folder; nowhere if it has none.
///
/// # Errors
/// When a hub works on the store, or the file is no backup of one that this version can use. The store is then as it was.
pub async fn restore(
    file: &Path,
    store: &Path,
    folder: Option<&Path>,
    replace: bool,
    now: Millis,
) -> Result<Copied, CopyError> {
    if let Some(folder) = store.parent() {
        std::fs::create_dir_all(folder).map_err(|error| CopyError::File(folder.to_owned(), error))?;
    }
    let hold = held::take(store).map_err(CopyError::Other)?;
    let _hold = hold.ok_or_else(|| CopyError::InUse(store.to_owned()))?;
    if store.exists() && !replace {
        return Err(CopyError::StoreExists(store.to_owned()));
    }
    let partial = with_suffix(store, ".partial");
    for part in parts(&partial) {
        let _ = std::fs::remove_file(part);
    }
    let prepared = prepare(file, &partial, now).await;
    let placed = match prepared {
        // The keys first: a hub that begins without them would make others.
        Ok((copied, files)) => folder
            .map_or(Ok(()), |folder| put_authority(folder, &files))
            .and_then(|()| set_aside(store))
            .and_then(|()| place(&partial, store))
            .map(|()| copied),
        Err(error) => Err(error),
    };
    if placed.is_err() {
        for part in parts(&partial) {
            let _ = std::fs::remove_file(part);
        }
    }
    placed
}

/// A copy of the backup that a hub can begin with.
async fn prepare(
    file: &Path,
    partial: &Path,
    now: Millis,
) -> Result<(Copied, Vec<(String, Vec<u8>)>), CopyError> {
    let io = |error| CopyError::File(file.to_owned(), error);
    let mut from = File::open(file).map_err(io)?;
    let mut to = create(partial).map_err(|error| CopyError::File(partial.to_owned(), error))?;
    io::copy(&mut from, &mut to).map_err(io)?;
    let copied = look(partial, file).await?;
    let bytes = from.metadata().map_err(io)?.len();
    // Brings it to the schema of this version, and refuses a later one.
    let opened = Sqlite::open(partial).await;
    let opened = opened.map_err(|error| CopyError::Version(file.to_owned(), format!("{error:#}")))?;
    let sql = |error| CopyError::Sql(file.to_owned(), error);
    let query = "UPDATE hub SET epoch = epoch + ?, alive = 0, waits_until = 0, put_back = ?, copied = ?, backed_up = ?, \
         token_floor = ? + max(token_floor, (SELECT coalesce(max(token), 0) FROM lock)) WHERE id = 1";
    let query = sqlx::query(query).bind(EPOCHS).bind(now).bind(copied.made);
    query
        .bind(copied.made)
        .bind(TOKENS)
        .execute(&opened.pool)
        .await
        .map_err(sql)?;
    forget(&opened, now).await.map_err(sql)?;
    let rows = sqlx::query("SELECT name, content FROM copied_file ORDER BY name")
        .fetch_all(&opened.pool)
        .await
        .map_err(sql)?;
    let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let files = read
        .collect::<Result<Vec<(String, Vec<u8>)>, sqlx::Error>>()
        .map_err(sql)?;
    // Overwritten, not only marked as free.
    for query in ["PRAGMA secure_delete = ON", "DELETE FROM copied_file"] {
        sqlx::query(query).execute(&opened.pool).await.map_err(sql)?;
    }
    opened.pool.close().await;
    Ok((Copied { bytes, ..copied }, files))
}

/// What must not come back to life: sessions that may have been revoked since, login and join tokens that may have been used
/// since, and commands that may have been carried out or cancelled since.
async fn forget(store: &Sqlite, now: Millis) -> Result<(), sqlx::Error> {
    for query in [
        "PRAGMA secure_delete = ON",
        "DELETE FROM person_session",
        "DELETE FROM invite",
        "DELETE FROM join_token WHERE public_key IS NULL",
    ] {
        sqlx::query(query).execute(&store.pool).await?;
    }
    let query = "UPDATE command SET state = ?, text = ?, changed = ?, ended = ? WHERE ended IS NULL";
    let query = sqlx::query(query).bind(State::Failed.as_str()).bind(FORGOTTEN);
    query.bind(now).bind(now).execute(&store.pool).await?;
    Ok(())
}

/// Whether a file is a whole store, and of when. `of` is its name in errors.
async fn look(file: &Path, of: &Path) -> Result<Copied, CopyError> {
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

async fn connect(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::from_secs(10));
    options.connect().await
}

fn create(file: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
}

/// Renames a file once all of it is on disk.
fn place(partial: &Path, file: &Path) -> Result<(), CopyError> {
    let placed = || -> io::Result<()> {
        File::open(partial)?.sync_all()?;
        std::fs::rename(partial, file)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    placed().map_err(|error| CopyError::File(file.to_owned(), error))
}

/// Writes the hub's authority. One that was there and is another is kept beside, with the suffix `.replaced`, or within if the
/// folder is a mount.
fn put_authority(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<(), CopyError> {
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

/// Renames a store with what SQLite has beside it: a journal of another file must never meet the new one.
fn set_aside(store: &Path) -> Result<(), CopyError> {
    let aside = with_suffix(store, ".replaced");
    for (from, to) in parts(store).into_iter().zip(parts(&aside)) {
        let moved = if from.exists() {
            std::fs::rename(&from, &to)
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

/// The files of a store.
fn parts(store: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| with_suffix(store, suffix))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
