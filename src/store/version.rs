//! Whether a database's tables are those of this program; the same question for every store.

use sqlx::migrate::Migrator;

use super::StoreError;

/// Compares the newest migration a database has with those built into this program.
///
/// `found` is the highest version in the database's `_sqlx_migrations`, or
/// `None` where that table is absent or empty.
///
/// # Errors
/// [`StoreError::Unmigrated`], [`StoreError::Outdated`] or [`StoreError::Newer`] when they are not the same.
pub(super) fn check(migrator: &Migrator, found: Option<i64>) -> Result<(), StoreError> {
    let known = newest(migrator);
    match found {
        None => Err(StoreError::Unmigrated),
        Some(found) if found < known => Err(StoreError::Outdated { found, needed: known }),
        Some(found) if found > known => Err(StoreError::Newer { found, known }),
        Some(_) => Ok(()),
    }
}

/// Refuses to migrate what a newer program migrated. Everything else can be brought up to date.
///
/// Asked before the migrations run, because theirs is a worse message.
///
/// # Errors
/// [`StoreError::Newer`].
pub(super) fn check_not_newer(migrator: &Migrator, found: Option<i64>) -> Result<(), StoreError> {
    match check(migrator, found) {
        Err(newer @ StoreError::Newer { .. }) => Err(newer),
        _ => Ok(()),
    }
}

/// The newest migration built into this program.
fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}
