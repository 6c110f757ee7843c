//! The copy that a hub keeps of a store before it brings it to its own schema, for the way back to the version before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::CopyError;
use super::files::{connect, with_suffix};
use super::make::write;
use crate::Millis;
use crate::store::schema::MIGRATIONS;

/// Versions whose store is before this schema have no `restore`, which a way back needs.
const RESTORES: i64 = 23;

/// Where the copy of a store is kept; the next upgrade replaces it.
#[must_use]
pub fn kept_as(store: &Path) -> PathBuf {
    with_suffix(store, ".before-upgrade")
}

/// Copies a store that `Sqlite::open` would bring to a later schema, and returns the file. `None` where nothing is to be
/// kept: there is no store, it has this schema or a later one, or an upgrade that was cut off has made the copy before it
/// changed the store.
///
/// # Errors
/// When no copy can be made. The store is as it was, so the version before can go on with it.
pub async fn before_upgrade(
    store: &Path,
    folder: Option<&Path>,
    now: Millis,
) -> Result<Option<PathBuf>, CopyError> {
    if !store.exists() {
        return Ok(None);
    }
    let sql = |error| CopyError::Sql(store.to_owned(), error);
    let mut connection = connect(store).await.map_err(sql)?;
    let applied = applied(&mut connection).await.map_err(sql)?;
    let begun = begun_at(&mut connection).await.map_err(sql)?;
    connection.close().await.map_err(sql)?;
    let known: BTreeSet<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let is_older = applied.contains(&RESTORES) && applied.is_subset(&known) && applied != known;
    let is_cut_off = begun.is_some_and(|begun| applied.len() > begun);
    if !is_older || is_cut_off {
        return Ok(None);
    }
    let file = kept_as(store);
    write(store, folder, &file, now).await?;
    begin(store, applied.len()).await.map_err(sql)?;
    Ok(Some(file))
}

/// Versions of the schema that a store has; none of what is no store yet.
async fn applied(connection: &mut SqliteConnection) -> Result<BTreeSet<i64>, sqlx::Error> {
    let table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
    if sqlx::query(table)
        .fetch_optional(&mut *connection)
        .await?
        .is_none()
    {
        return Ok(BTreeSet::new());
    }
    let query = sqlx::query("SELECT version FROM _sqlx_migrations WHERE success");
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// How many migrations the store had when an upgrade began that did not end. SQLite keeps that number for its user beside
/// the tables, so a store of any schema has it.
async fn begun_at(connection: &mut SqliteConnection) -> Result<Option<usize>, sqlx::Error> {
    let row = sqlx::query("PRAGMA user_version").fetch_one(connection).await?;
    let number: i64 = row.try_get(0)?;
    Ok(usize::try_from(number).ok().filter(|number| *number > 0))
}

/// Notes that the store is changed from here on. `Sqlite::open` removes the note at its end.
async fn begin(store: &Path, applied: usize) -> Result<(), sqlx::Error> {
    let mut connection = connect(store).await?;
    // A pragma takes no bound values.
    let query = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {applied}"));
    sqlx::query(query).execute(&mut connection).await?;
    connection.close().await
}
