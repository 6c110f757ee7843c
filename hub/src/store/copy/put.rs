//! Puts a backup in the place of a store.

use std::fs::File;
use std::io;
use std::path::Path;

use sqlx::{Connection as _, Row as _};
use tracing::warn;

use super::files::{connect, create, look, parts, place, put_back, set_aside, with_suffix};
use super::keys::put_authority;
use super::{Copied, CopyError};
use crate::Millis;
use crate::commands::State;
use crate::store::{Sqlite, held};

/// A store that was put back is so many epochs ahead of its backup: more than a hub has starts between two backups, and
/// few enough for clusters to be believed that have seen more.
const EPOCHS: i64 = 1_000;
/// A store that was put back grants tokens so far above those of its backup: more than a repository has maintenance runs
/// between two backups, and few enough for clusters to be believed that have seen more.
pub(super) const TOKENS: i64 = 1 << 16;

/// How commands end that had not ended when the backup was made.
const FORGOTTEN: &str = "the hub was put back from a backup; it may have been carried out";

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
    let prepared = prepare(file, &partial, reached(store).await, now).await;
    let placed = match prepared {
        // The keys first: a hub that begins without them would make others.
        Ok((copied, files)) => folder
            .map_or(Ok(()), |folder| put_authority(folder, &files))
            .and_then(|()| set_aside(store))
            .and_then(|()| place(&partial, store).inspect_err(|_| put_back(store)))
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

/// What a store has given out.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    epoch: i64,
    token: i64,
}

/// What the store has given out that is replaced: a backup may be put back twice, and each time begins with the same
/// numbers. Nothing where it is lost or cannot be read, which may be why it is replaced: then the time since the backup
/// says how many tokens there may have been. A hub that was put back waits in any case, so its epoch may be one that was.
async fn reached(store: &Path) -> Reached {
    if !store.exists() {
        return Reached::default();
    }
    let read = async {
        let mut connection = connect(store).await?;
        let query = "SELECT epoch, max(token_floor, (SELECT coalesce(max(token), 0) FROM lock)) FROM hub WHERE id = 1";
        let row = sqlx::query(query).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(Reached {
            epoch: row.try_get(0)?,
            token: row.try_get(1)?,
        })
    };
    read.await.unwrap_or_else(|error| {
        warn!(store = %store.display(), %error, "the store that is replaced cannot be read");
        Reached::default()
    })
}

/// A copy of the backup that a hub can begin with, above what it and the replaced store have given out.
async fn prepare(
    file: &Path,
    partial: &Path,
    replaced: Reached,
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
    // More than a hub grants in so many milliseconds. Epochs do not rise with time: clusters are believed in few of them.
    let passed = now.saturating_sub(copied.made).max(0);
    let query = "UPDATE hub SET epoch = ? + max(epoch, ?), alive = 0, waits_until = 0, put_back = ?, copied = ?, \
         backed_up = ?, token_floor = ? + max(token_floor, ?, (SELECT coalesce(max(token), 0) FROM lock)) WHERE id = 1";
    let query = sqlx::query(query).bind(EPOCHS).bind(replaced.epoch).bind(now);
    let query = query.bind(copied.made).bind(copied.made);
    query
        .bind(TOKENS + passed)
        .bind(replaced.token)
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
