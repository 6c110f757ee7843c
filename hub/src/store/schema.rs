//! The schema of the store, step by step, out of `migrations`.

use std::sync::LazyLock;

use rust_embed::RustEmbed;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

/// The steps in their order. Each is whole in a store or not there, and a store knows those that it has by number and digest.
pub(super) static MIGRATIONS: LazyLock<Migrator> =
    LazyLock::new(|| Migrator::with_migrations(Files::iter().filter_map(|name| step(&name)).collect()));

#[derive(RustEmbed)]
#[folder = "migrations"]
struct Files;

/// A step by the name of its file, such as `0001_inventory.sql`. A test looks that each file is one.
fn step(name: &str) -> Option<Migration> {
    let (number, rest) = name.split_once('_')?;
    let about = rest.strip_suffix(".sql")?.replace('_', " ");
    let text = String::from_utf8(Files::get(name)?.data.into_owned()).ok()?;
    let sql = AssertSqlSafe(text).into_sql_str();
    Some(Migration::new(
        number.parse().ok()?,
        about.into(),
        MigrationType::Simple,
        sql,
        false,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_a_step() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(MIGRATIONS.iter().count(), files);
    }

    /// What a store of an earlier version has of its first step: with another digest no hub would open it any more.
    #[test]
    fn a_step_is_known_by_the_digest_of_its_file() {
        let first = MIGRATIONS.iter().next().unwrap();
        assert_eq!((first.version, &*first.description), (1, "inventory"));
        assert_eq!(
            hex::encode(&first.checksum),
            "49506f8a6e098ea6ddd25ac80d02886285416aaf806be15b89c8def468d256dce409824d70ff8a50bbefa1c6c450b5db"
        );
    }
}
